//! What larder remembers: which upstream document or file each blob is, what was derived from it, and what nothing refers to any
//! more. SQLite with one writer; readers never wait for it.
//!
//! Every statement is a constant with `$n` places, and uses nothing that PostgreSQL does not also have, the pragmas aside.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder_core::Digest;
use sqlx::Transaction;
use sqlx::sqlite::{Sqlite, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

use crate::error::{StorageError, StorageErrorKind};

mod artifacts;
mod change;
mod collect;
mod derivations;
mod migrate;
mod secrets;

pub use change::{Change, DerivedRecord};
pub use collect::CollectReport;

/// How long a statement waits for another process's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a caller waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
const READERS: u32 = 4;

/// Takes the write lock at once, so that a transaction never fails half-way for want of it.
const BEGIN: &str = "BEGIN IMMEDIATE";
const PING: &str = "SELECT COUNT(*) FROM schema_version";
const COUNT_RECORDS: &str = "SELECT COUNT(*) FROM artifacts";
const COUNT_BLOBS: &str = "SELECT COUNT(*), CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM blobs";

/// The metadata database. Clones share it.
#[derive(Debug, Clone)]
pub struct MetadataStore {
    reader: SqlitePool,
    /// One connection: whoever has it is the only one that writes in this process.
    writer: SqlitePool,
    /// Where the sweep of orphan files goes on.
    sweep: Arc<Mutex<Option<Digest>>>,
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
    /// `Unavailable` if it was written by a newer version or another process holds it, `Corrupt` if it is no database.
    pub async fn open(path: &Path) -> Result<Self, StorageError> {
        // Made here because it holds secrets; the log files take over its mode.
        let file = File::options().create(true).append(true).mode(0o600).open(path);
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
        let writer = pool(1).connect_with(options.clone()).await;
        let writer = writer.map_err(|e| StorageError::from_sql("open the metadata database", e))?;
        migrate::migrate(&writer).await?;
        let reader = pool(READERS).connect_lazy_with(options.read_only(true));
        Ok(Self { reader, writer, sweep: Arc::default() })
    }

    /// A database that is gone with its last clone. For tests.
    pub async fn in_memory() -> Result<Self, StorageError> {
        let options = SqliteConnectOptions::new().in_memory(true).foreign_keys(true);
        let both = pool(1).connect_with(options).await;
        let both = both.map_err(|e| StorageError::from_sql("open a database in memory", e))?;
        migrate::migrate(&both).await?;
        Ok(Self { reader: both.clone(), writer: both, sweep: Arc::default() })
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StorageError> {
        let failed = |error| StorageError::from_sql("reach the metadata database", error);
        let _: i64 = sqlx::query_scalar(PING).fetch_one(&self.reader).await.map_err(failed)?;
        Ok(())
    }

    /// Counts records and blobs: reads an index of each, so not for every request.
    pub async fn counts(&self) -> Result<Counts, StorageError> {
        let failed = |error| StorageError::from_sql("count records", error);
        let records: i64 = sqlx::query_scalar(COUNT_RECORDS).fetch_one(&self.reader).await.map_err(failed)?;
        let (blobs, bytes): (i64, i64) = sqlx::query_as(COUNT_BLOBS).fetch_one(&self.reader).await.map_err(failed)?;
        Ok(Counts { records: records as u64, blobs: blobs as u64, bytes: bytes as u64 })
    }

    /// Starts a transaction on the connection that writes. What is not committed is rolled back, also when the caller is cancelled.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        match self.writer.begin_with(BEGIN).await {
            // On a full disk SQLite rolls back by itself, and sqlx goes on believing that a transaction is open.
            Err(sqlx::Error::InvalidSavePointStatement) => {
                self.writer.acquire().await?.close().await?;
                self.writer.begin_with(BEGIN).await
            }
            other => other,
        }
    }

    /// Waits for running statements, writes the log back and closes the database. Every later call answers `Unavailable`.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
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
