//! What larder remembers: which upstream document or file each blob is, what was derived from it, and what nothing refers to any
//! more. SQLite with one writer; readers never wait for it.
//!
//! Every statement is a constant with `$n` places, and uses nothing that PostgreSQL does not also have, the pragmas aside.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use larder_core::Digest;
use sqlx::Transaction;
use sqlx::sqlite::{
    Sqlite, SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteSynchronous,
};

use crate::error::{StorageError, StorageErrorKind};
use crate::spare::Spare;

mod artifacts;
mod change;
mod check;
mod collect;
mod damage;
mod derivations;
mod held;
mod local_files;
mod local_lists;
mod migrate;
mod origins;
mod seal;
mod secrets;
mod shrink;

pub use artifacts::PageRow;
pub use change::{Change, DerivedRecord};
pub use collect::CollectReport;
pub use damage::{DamageReport, OnDamage};
pub use held::{HeldRow, HeldSize};
pub use local_files::{
    LocalChange, LocalDecision, LocalFile, LocalOutcome, LocalState, LocalUsage,
};
pub use local_lists::LocalChild;

/// How long a statement waits for another process's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a caller waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
const READERS: u32 = 4;
/// Rows of earlier versions that are deleted before larder serves: more would keep clients waiting.
const ABSENCES_AT_START: usize = 20_000;

/// Takes the write lock at once, so that a transaction never fails half-way for want of it.
const BEGIN: &str = "BEGIN IMMEDIATE";
const PING: &str = "SELECT COUNT(*) FROM schema_version";
const COUNT_RECORDS: &str = "SELECT COUNT(*) FROM artifacts";
const COUNT_BLOBS: &str = "SELECT COUNT(*), CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM blobs";

/// The metadata database. Clones share it.
#[derive(Debug, Clone)]
pub struct MetadataStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pools: RwLock<Pools>,
    /// `None` for a database in memory.
    file: Option<PathBuf>,
    on_damage: OnDamage,
    damage: damage::Damage,
    /// Space for deleting on a full disk.
    spare: Option<Spare>,
    /// Secrets that this process uses.
    secrets: Mutex<BTreeMap<String, Vec<u8>>>,
    origins: Mutex<origins::Origins>,
    /// Where the sweep of orphan files goes on.
    sweep: Mutex<Option<Digest>>,
}

#[derive(Debug, Clone)]
struct Pools {
    reader: SqlitePool,
    /// One connection: whoever has it is the only one that writes in this process.
    writer: SqlitePool,
}

/// How much is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Records, negative ones included.
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
        let mut opened = Pools::open(path).await;
        if matches!(&opened, Err(error) if error.is_full()) && spare.give_back() {
            opened = Pools::open(path).await;
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
            opened = Pools::open(path).await;
        }
        let Opened {
            pools,
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
            ..Shared::of(pools)
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

    /// A database that is gone with its last clone. For tests.
    pub async fn in_memory() -> Result<Self, StorageError> {
        let options = SqliteConnectOptions::new()
            .in_memory(true)
            .foreign_keys(true);
        let both = pool(1).connect_with(options).await;
        let both = both.map_err(|e| StorageError::from_sql("open a database in memory", e))?;
        migrate::migrate(&both).await?;
        Ok(Self {
            shared: Arc::new(Shared::of(Pools {
                reader: both.clone(),
                writer: both,
            })),
        })
    }

    fn reader(&self) -> SqlitePool {
        self.shared
            .pools
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .reader
            .clone()
    }

    fn writer(&self) -> SqlitePool {
        self.shared
            .pools
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .writer
            .clone()
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StorageError> {
        let answer: Result<i64, _> = sqlx::query_scalar(PING).fetch_one(&self.reader()).await;
        self.noticed(
            answer.map_err(|error| StorageError::from_sql("reach the metadata database", error)),
        )
        .map(drop)
    }

    /// Counts records and blobs: reads an index of each, so not for every request.
    pub async fn counts(&self) -> Result<Counts, StorageError> {
        let failed = |error| StorageError::from_sql("count records", error);
        let records = sqlx::query_scalar(COUNT_RECORDS)
            .fetch_one(&self.reader())
            .await
            .map_err(failed);
        let records: i64 = self.noticed(records)?;
        let blobs = sqlx::query_as(COUNT_BLOBS)
            .fetch_one(&self.reader())
            .await
            .map_err(failed);
        let (blobs, bytes): (i64, i64) = self.noticed(blobs)?;
        Ok(Counts {
            records: records as u64,
            blobs: blobs as u64,
            bytes: bytes as u64,
        })
    }

    /// Starts a transaction on the connection that writes. What is not committed is rolled back, also when the caller is cancelled.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        let writer = self.writer();
        match writer.begin_with(BEGIN).await {
            // On a full disk SQLite rolls back by itself, and sqlx goes on believing that a transaction is open.
            Err(sqlx::Error::InvalidSavePointStatement) => {
                writer.acquire().await?.close().await?;
                writer.begin_with(BEGIN).await
            }
            other => other,
        }
    }

    /// Waits for running statements, writes the log back and closes the database. Every later call answers `Unavailable`.
    pub async fn close(&self) {
        self.reader().close().await;
        self.writer().close().await;
    }

    /// Takes an empty database at `path` into use, in place of one that has been closed.
    async fn begin_anew(&self, path: &Path) -> Result<(), StorageError> {
        let Opened { pools, .. } = Pools::open(path).await?;
        *self
            .shared
            .pools
            .write()
            .unwrap_or_else(PoisonError::into_inner) = pools;
        self.restore_secrets().await?;
        self.keep_origins(&[]).await?;
        Ok(())
    }
}

/// A database that has been opened.
struct Opened {
    pools: Pools,
    origins: origins::Origins,
    /// The version that it had.
    version: i64,
}

impl Shared {
    fn of(pools: Pools) -> Self {
        Self {
            pools: RwLock::new(pools),
            file: None,
            on_damage: OnDamage::Refuse,
            damage: damage::Damage::default(),
            spare: None,
            secrets: Mutex::default(),
            origins: Mutex::default(),
            sweep: Mutex::default(),
        }
    }
}

impl Pools {
    /// Opens the file, making it if need be, and brings it up to date.
    async fn open(path: &Path) -> Result<Opened, StorageError> {
        // Made here because it holds secrets; the log files take over its mode.
        let file = File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path);
        file.map_err(|e| StorageError::from_io("open the metadata database", e))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            // The log is synchronised at checkpoints: a power cut may lose the last transactions, never the database's consistency.
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
            // Writing the log back needs room in the database file, so the log must stay well below the reserve of a small disk.
            .pragma("wal_autocheckpoint", "250")
            .pragma("journal_size_limit", "1048576");
        // Free pages can be cut off at the end, whatever they were used for.
        let writer = pool(1)
            .connect_with(options.clone().auto_vacuum(SqliteAutoVacuum::Incremental))
            .await;
        let writer = writer.map_err(|e| StorageError::from_sql("open the metadata database", e))?;
        let look = async {
            let version = migrate::migrate(&writer).await?;
            Ok((version, origins::read_origins(&writer).await?))
        };
        match look.await {
            Ok((version, origins)) => {
                let reader = pool(READERS).connect_lazy_with(options.read_only(true));
                Ok(Opened {
                    pools: Self { reader, writer },
                    origins,
                    version,
                })
            }
            Err(error) => {
                // A file that is to be renamed must not be open: its log would go by its old name.
                writer.close().await;
                Err(error)
            }
        }
    }
}

/// Connections are made once and kept: a database in memory lives in its connection.
fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
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
