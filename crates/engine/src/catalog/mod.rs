//! What larder knows of its upstreams' documents and files, and the only way to change it.
//!
//! | file | knows |
//! |---|---|
//! | `state.rs` | reading and amending single records, absences, derivations |
//! | `records.rs` | the in-process copy of records |
//! | `ages.rs`, `noted.rs` | how old files are that quarantine judges, held or not |
//! | `absences.rs` | what an upstream has said is not there |
//! | `commits.rs`, `queue.rs`, `commit.rs` | blob, then record, then the in-process copy, in groups |
//! | `epochs.rs` | when what was made of records before is void |
//! | `local.rs` | the rows of local repositories' files |
//! | `listing.rs` | pages of records, sizes, and what the collector does |
//! | `bus.rs` | what other engines over the same data have changed |
//! | `scrub.rs` | what an operator has looked for: damage and garbage |
//! | `carry.rs` | records that come out of an archive |
//! | `room.rs` | what nothing refers to any more, and the bytes behind records |
//! | `bounds.rs`, `goal.rs`, `evict.rs` | how much may be kept, and what goes for it |
//! | `uses.rs`, `victims.rs` | when records were last asked for, and which go first |
//! | `figures.rs`, `asked.rs` | what larder counts itself, and what it was asked for and does not hold |
//! | `trouble.rs` | storage that does not take what it should |
//!
//! Nobody else sees the database, the in-process copies or the epochs. A change says what it replaces, and is left out where that is no
//! longer what is known: news of a record never brings back the bytes of before (docs/adr/0057).

mod absences;
mod ages;
mod asked;
mod bounds;
mod bus;
mod carry;
mod commit;
mod commits;
mod epochs;
mod evict;
mod figures;
mod goal;
mod listing;
mod local;
mod noted;
mod queue;
mod records;
mod room;
mod scrub;
mod state;
mod trouble;
mod uses;
mod victims;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize};

use larder_core::Clock;
use larder_storage::{BlobStore, MetadataStore, Writer};
use tokio::sync::mpsc;

use crate::budget::Budgets;
use crate::counters::Counters;
use absences::Absences;
use asked::Asked;
use bounds::Eviction;
use commits::CommitQueue;
use records::Records;
use uses::Uses;

pub(crate) use asked::NotHeld;
pub(crate) use bus::Foreign;
pub(crate) use carry::{Carried, CarriedIn};
pub(crate) use commits::{Batch, Commit, Landing, RecordChange};
pub(crate) use epochs::Epoch;
pub use evict::DiskUse;
pub(crate) use noted::is_asked_in;
pub(crate) use room::DISK_IS_LOW;
pub(crate) use state::Catalog;
pub(crate) use trouble::Trouble;
pub use uses::Reading;
pub(crate) use uses::Use;

impl Catalog {
    /// The catalog of a database and a blob store; starts the task that commits what is enqueued, and no other. Must be
    /// called within a Tokio runtime.
    pub(crate) fn new(
        metadata: MetadataStore,
        blobs: Arc<dyn BlobStore>,
        clock: Arc<dyn Clock>,
        counters: Arc<Counters>,
        budgets: Arc<Budgets>,
    ) -> Arc<Self> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let catalog = Arc::new(Self {
            records: Records::new(metadata.clone(), Arc::clone(&clock)),
            metadata,
            absences: Absences::default(),
            news: Arc::default(),
            blobs,
            clock: Arc::clone(&clock),
            writer: Writer::unique(),
            queue: CommitQueue::new(sender),
            budgets,
            committing: tokio::sync::Mutex::default(),
            announcing: AtomicUsize::new(0),
            sweeping: tokio::sync::Mutex::default(),
            trouble: Trouble::default(),
            counters,
            last_room_made: AtomicI64::new(i64::MIN),
            uses: Uses::new(clock),
            eviction: Eviction::default(),
            asked: Asked::default(),
        });
        queue::start(&catalog, receiver);
        catalog
    }
}
