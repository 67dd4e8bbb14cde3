//! The origin that asks an upstream.
//!
//! | file | knows |
//! |---|---|
//! | `obtain.rs` | look up, decide, serve what is held or join the one flight for it |
//! | `fly.rs` | the life of one flight: decide again, obtain, end, commit |
//! | `fetch.rs`, `settle.rs` | ask for a body, and settle what came of it |
//! | `patience.rs` | how long a refresh is waited for where a copy is held, and the copy that is served then |
//! | `places.rs` | where a file may be, and which of the places has the last word |
//! | `mirrors.rs`, `routes.rs`, `accept.rs` | which of an upstream's places is asked, who is asked next, and in which media types |
//! | `head.rs`, `heads.rs` | HEAD on what is not held, one for all who ask meanwhile |
//! | `turns.rs` | a flight's turn among others, and when it gives its place up |
//! | `download.rs`, `intake.rs`, `resume.rs`, `verify.rs` | one body: its head, its bytes, what follows a cut, whether it is the right one |
//! | `landing.rs` | a new document becomes visible together with the loss of what it contradicts |
//! | `generation/` | documents that are right only together with other files |
//! | `by_digest.rs`, `stand_in.rs` | names that stand for bytes which another name states, and copies of other variants |
//! | `refusals.rs`, `standing.rs` | who has said when to come back, and how each place is doing |
//! | `passthrough.rs` | requests that go to the upstream and back without the cache |

pub(crate) mod accept;
pub(crate) mod by_digest;
pub(crate) mod download;
pub(crate) mod fetch;
pub(crate) mod fly;
pub(crate) mod generation;
pub(crate) mod head;
pub(crate) mod heads;
pub(crate) mod intake;
pub(crate) mod landing;
pub(crate) mod mirrors;
pub(crate) mod obtain;
pub(crate) mod passthrough;
pub(crate) mod patience;
pub(crate) mod places;
pub(crate) mod refusals;
pub(crate) mod resume;
pub(crate) mod routes;
pub(crate) mod settle;
pub(crate) mod stand_in;
pub(crate) mod standing;
pub(crate) mod turns;
pub(crate) mod verify;

use std::sync::Arc;

use generation::readers::ReaderGate;
use heads::Heads;
use larder_core::{Clock, Fault, UnixMillis};
use larder_storage::BlobStore;
use larder_upstream::Upstream;
use mirrors::Mirrors;
use refusals::Refusals;

use crate::budget::{Budgets, Limits};
use crate::catalog::Catalog;
use crate::cluster::Membership;
use crate::document::Documents;
use crate::document::inquiry::{Inquiry, Launch};
use crate::fault::internal;
use crate::origin::{Held, Need, Origin};
use crate::repositories::Registry;
use crate::target::Target;
use crate::transfer::Transfers;
use crate::transfer::flight::{Effort, Flight, Flights, Settled};

/// What larder needs to ask upstreams.
#[derive(Debug)]
pub(crate) struct Remote {
    registry: Arc<Registry>,
    catalog: Arc<Catalog>,
    transfers: Arc<Transfers>,
    flights: Arc<Flights>,
    documents: Arc<Documents>,
    blobs: Arc<dyn BlobStore>,
    upstream: Arc<dyn Upstream>,
    clock: Arc<dyn Clock>,
    budgets: Arc<Budgets>,
    limits: Limits,
    heads: Heads,
    readings: ReaderGate,
    pub(crate) refusals: Refusals,
    pub(crate) mirrors: Mirrors,
    /// The other replicas, if there are any.
    pub(crate) cluster: Membership,
}

/// What a remote is made with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) registry: Arc<Registry>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) transfers: Arc<Transfers>,
    pub(crate) documents: Arc<Documents>,
    pub(crate) blobs: Arc<dyn BlobStore>,
    pub(crate) upstream: Arc<dyn Upstream>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) budgets: Arc<Budgets>,
}

impl Remote {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            registry: parts.registry,
            catalog: parts.catalog,
            flights: Arc::clone(&parts.transfers.flights),
            transfers: parts.transfers,
            documents: parts.documents,
            blobs: parts.blobs,
            upstream: parts.upstream,
            mirrors: Mirrors::new(Arc::clone(&parts.clock)),
            clock: parts.clock,
            limits: parts.budgets.limits,
            budgets: parts.budgets,
            heads: Heads::default(),
            readings: ReaderGate::default(),
            refusals: Refusals::new(),
            cluster: Membership::default(),
        })
    }

    fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// Asking documents what they say of files, where they may have to be obtained for it.
    fn inquiry(self: &Arc<Self>) -> Inquiry {
        Inquiry {
            documents: Arc::clone(&self.documents),
            port: Arc::clone(self) as Arc<dyn Launch>,
        }
    }
}

impl Launch for Remote {
    fn launch(self: Arc<Self>, document: &Arc<Target>, effort: Effort) -> (Arc<Flight>, bool) {
        self.flight_or_join(document, effort)
    }
}

impl Origin for Arc<Remote> {
    async fn document(&self, target: &Arc<Target>, need: Need) -> Result<Settled, Fault> {
        match self.obtain(target, true, need == Need::Anew).await? {
            Held::Whole(settled) => Ok(settled),
            Held::InFlight(..) => Err(internal("a document was not whole")),
        }
    }

    async fn file(&self, target: &Arc<Target>, need: Need) -> Result<Held, Fault> {
        self.obtain(target, false, need == Need::Anew).await
    }
}
