//! What larder remembers: which upstream document or file each blob is, what was derived from it, and what nothing refers to any
//! more. The database is SQLite's file, with one writer for whom readers never wait, or one of PostgreSQL, with many.
//!
//! Every statement is a constant with `$n` places, and one text for both engines wherever that is possible. Transactions are written
//! for many writers: what one decides from, it locks first (docs/adr/0079). What else differs between engines is below [`db`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use larder_core::Digest;

use crate::error::{StorageError, StorageErrorKind};
use crate::shared::Bells;
use crate::spare::Spare;

mod ages;
mod artifacts;
mod asked;
mod blobs;
mod by_blob;
mod change;
mod check;
mod collect;
mod condemn;
mod copy;
mod damage;
mod db;
mod derivations;
mod feed;
mod figures;
mod freed;
mod garbage;
mod heartbeats;
mod held;
mod invalid;
mod jobs;
mod lists;
mod local_files;
mod local_lists;
mod migrate;
mod origins;
mod patience;
mod scrub;
mod seal;
mod secrets;
mod shrink;
mod sweep;
mod takeover;
mod undeleted;
mod uploads;
mod uses;

pub use ages::Age;
pub use artifacts::PageRow;
pub use asked::{AskedFor, AskedRow};
pub use by_blob::{BlobHolder, HolderRange};
pub use change::{Change, DerivedRecord, Expected, Receipt};
pub use collect::CollectReport;
pub use copy::{BlobName, CopyCounts, LeftOut, Migration, NamedBlobs, RowTally, RowsCopied};
pub use damage::{DamageReport, OnDamage};
pub(crate) use db::{About, DbError};
pub use db::{ConnectError, Durability, PostgresOptions, TlsMode};
use db::{Db, Tx};
pub use feed::{Heard, Listener, Notice, Writer};
pub use figures::{FigureRow, Figures, SINCE_THE_BEGINNING};
pub use garbage::{Garbage, Heap};
pub use heartbeats::{Heartbeat, Heartbeats};
pub use held::{HeldRow, HeldSize};
pub use invalid::{KeyRange, RecordKey, Unswept};
pub use jobs::{JobClaim, JobCounts, JobItem, JobRow, JobStore};
pub use local_files::{
    LocalChange, LocalDecision, LocalFile, LocalOutcome, LocalState, LocalUsage,
};
pub use local_lists::LocalChild;
pub use scrub::{BlobUsers, DamagedBlob, Mend, Named, PathOf, ScrubFinding, ScrubRow};
pub use sweep::{Sweep, Swept};
pub use undeleted::Undeleted;
pub use uses::{MOST_AHEAD, RecordUse, Usage, UsedRow};

/// Rows of earlier versions that are deleted before larder serves: more would keep clients waiting.
const ABSENCES_AT_START: usize = 20_000;

const COUNT_RECORDS: &str = "SELECT COUNT(*) FROM artifacts";
const COUNT_BLOBS: &str =
    "SELECT COUNT(*), CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM blobs WHERE condemned_by IS NULL";

/// The metadata database. Clones share it.
#[derive(Debug, Clone)]
pub struct MetadataStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    db: RwLock<Db>,
    /// `None` for a database in memory.
    file: Option<PathBuf>,
    on_damage: OnDamage,
    damage: damage::Damage,
    /// Space for deleting on a full disk.
    spare: Option<Spare>,
    /// Secrets that this process uses.
    secrets: Mutex<BTreeMap<String, Vec<u8>>>,
    origins: Mutex<origins::Origins>,
    /// What tells this store from others over the same database, in the rows of blobs that it deletes.
    name: String,
    /// Held while blobs are condemned, deleted and forgotten.
    deleting: Arc<tokio::sync::Mutex<()>>,
    /// What stores have condemned, as it was seen last.
    watched: Mutex<takeover::Watched>,
    /// What could not be deleted.
    undeleted: undeleted::Failures,
    /// Where the sweep of orphan files goes on.
    sweep: Mutex<Option<Digest>>,
    feed: feed::Feed,
    bells: Arc<Bells>,
    /// Whether other programs use the database's file, too.
    is_shared: AtomicBool,
}

/// How much is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Records, negative ones included, and invalid ones that are still to be deleted.
    pub records: u64,
    /// Distinct blobs.
    pub blobs: u64,
    /// Bytes of all blobs.
    pub bytes: u64,
}

impl MetadataStore {
    /// Opens or creates the database file at `path`. Takes the same time however many records there are.
    ///
    /// `Unavailable` if it was written by a newer version or another process holds it, `Corrupt` if it is damaged or no database.
    pub async fn open(path: &Path) -> Result<Self, StorageError> {
        Self::open_with(path, OnDamage::Refuse).await
    }

    /// As [`open`](Self::open), with what to do about damage, now and as long as the database is open.
    pub async fn open_with(path: &Path, on_damage: OnDamage) -> Result<Self, StorageError> {
        crate::private::tighten(damage::files_of(path));
        let spare = shrink::spare_beside(path);
        let mut opened = Opened::open(path).await;
        if matches!(&opened, Err(error) if error.is_full()) && spare.give_back() {
            opened = Opened::open(path).await;
        }
        let damage = damage::Damage::default();
        if let Err(error) = &opened
            && error.kind == StorageErrorKind::Corrupt
            && on_damage == OnDamage::PutAside
        {
            let cause = error.source.as_ref().map(ToString::to_string);
            let aside = damage::put_aside(path)
                .map_err(|e| StorageError::from_io("put the damaged metadata database aside", e))?;
            let aside = aside.map(|path| path.display().to_string());
            tracing::error!(%error, cause, aside, "the metadata database was damaged and has been put aside: the cache begins anew");
            damage.note_put_aside();
            opened = Opened::open(path).await;
        }
        let Opened {
            db,
            origins,
            version,
        } = opened?;
        let origins = Mutex::new(origins);
        let shared = Shared {
            file: Some(path.to_owned()),
            on_damage,
            damage,
            spare: Some(spare),
            origins,
            ..Shared::of(db)
        };
        let store = Self {
            shared: Arc::new(shared),
        };
        store.set_space_aside();
        if version == 1
            && let Err(error) = store.forget_absences(ABSENCES_AT_START).await
        {
            tracing::warn!(%error, "what earlier versions remembered of missing files is deleted later");
        }
        Ok(store)
    }

    /// Connects to a server's database and brings its tables up to date. Other processes may use it too: what this one changes is
    /// written down for them, see [`share`](Self::share).
    ///
    /// # Errors
    /// [`ConnectError::Unreachable`] where another try may succeed; [`ConnectError::Refused`] where somebody has to change something.
    pub async fn connect(options: &PostgresOptions) -> Result<Self, ConnectError> {
        let db = Db::connect(options).await?;
        let origins = origins::read_origins(&db).await;
        let origins = origins.map_err(|error| match error.kind {
            StorageErrorKind::Unavailable if !error.is_refusal() => {
                ConnectError::Unreachable(error.message)
            }
            _ => ConnectError::Refused(error.message),
        })?;
        let shared = Shared {
            origins: Mutex::new(origins),
            ..Shared::of(db)
        };
        let store = Self {
            shared: Arc::new(shared),
        };
        store.share();
        Ok(store)
    }

    /// A database that is gone with its last clone. For tests.
    pub async fn in_memory() -> Result<Self, StorageError> {
        let db = Db::in_memory().await?;
        migrate::migrate(&db).await?;
        Ok(Self::over(db))
    }

    /// A store over a database that is open, as it is.
    fn over(db: Db) -> Self {
        Self {
            shared: Arc::new(Shared::of(db)),
        }
    }

    /// What tells of commits here, and of those of others.
    pub(crate) fn bells(&self) -> &Arc<Bells> {
        &self.shared.bells
    }

    fn db(&self) -> Db {
        self.shared
            .db
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What it is: `sqlite` or `postgresql`.
    pub fn kind(&self) -> &'static str {
        if self.db().is_file() {
            "sqlite"
        } else {
            "postgresql"
        }
    }

    /// Whether the database is a server that did not answer the last time that it was asked. Records count as absent then: what can be
    /// fetched is fetched, and not kept.
    pub fn is_away(&self) -> bool {
        self.db().is_away()
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StorageError> {
        let answer = self.db().outdated().await;
        let failed = |error| StorageError::from_sql("reach the metadata database", error);
        match self.noticed(answer.map_err(failed))? {
            None => Ok(()),
            Some(why) => Err(StorageError::new(StorageErrorKind::Unavailable, why)),
        }
    }

    /// Counts records and blobs: reads an index of each, so not for every request.
    pub async fn counts(&self) -> Result<Counts, StorageError> {
        let counted = async {
            let records: i64 = self
                .db()
                .patiently()
                .one(COUNT_RECORDS, &[])
                .await?
                .get(0)?;
            let blobs = self.db().patiently().one(COUNT_BLOBS, &[]).await?;
            Ok((records, blobs.get::<i64>(0)?, blobs.get::<i64>(1)?))
        };
        let failed = |error: DbError| StorageError::from_sql("count records", error);
        let (records, blobs, bytes) = self.noticed(counted.await.map_err(failed))?;
        Ok(Counts {
            records: records as u64,
            blobs: blobs as u64,
            bytes: bytes as u64,
        })
    }

    /// Starts a transaction that writes. What is not committed is rolled back, also when the caller is cancelled.
    async fn begin(&self) -> Result<Tx, DbError> {
        self.db().begin(Durability::Grouped).await
    }

    /// Waits for running statements, writes the log back and closes the database. Every later call answers `Unavailable`.
    pub async fn close(&self) {
        self.db().close().await;
    }

    /// Takes an empty database at `path` into use, in place of one that has been closed.
    async fn begin_anew(&self, path: &Path) -> Result<(), StorageError> {
        let Opened { db, .. } = Opened::open(path).await?;
        *self
            .shared
            .db
            .write()
            .unwrap_or_else(PoisonError::into_inner) = db;
        self.restore_secrets().await?;
        self.keep_origins(&[]).await?;
        Ok(())
    }
}

/// A database that has been opened.
struct Opened {
    db: Db,
    origins: origins::Origins,
    /// The version that it had.
    version: i64,
}

impl Shared {
    fn of(db: Db) -> Self {
        Self {
            db: RwLock::new(db),
            file: None,
            on_damage: OnDamage::Refuse,
            damage: damage::Damage::default(),
            spare: None,
            secrets: Mutex::default(),
            origins: Mutex::default(),
            name: condemn::new_name(),
            deleting: Arc::default(),
            watched: Mutex::default(),
            undeleted: undeleted::Failures::default(),
            sweep: Mutex::default(),
            feed: feed::Feed::default(),
            bells: Arc::default(),
            is_shared: AtomicBool::new(false),
        }
    }
}

impl Opened {
    /// Opens the file, making it if need be, and brings it up to date.
    async fn open(path: &Path) -> Result<Self, StorageError> {
        let db = Db::open(path).await?;
        let writer = db.by_writer();
        let look = async {
            let version = migrate::migrate(&writer).await?;
            Ok((version, origins::read_origins(&writer).await?))
        };
        match look.await {
            Ok((version, origins)) => Ok(Self {
                db,
                origins,
                version,
            }),
            Err(error) => {
                // A file that is to be renamed must not be open: its log would go by its old name.
                db.close().await;
                Err(error)
            }
        }
    }
}

/// A digest as it stands in a column.
fn parse_digest(text: &str) -> Result<Digest, StorageError> {
    let damaged = |error| StorageError {
        kind: StorageErrorKind::Corrupt,
        message: "the metadata database holds a digest that is none".to_owned(),
        source: Some(Box::new(error)),
    };
    text.parse().map_err(damaged)
}
