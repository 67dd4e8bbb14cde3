//! SQLite: one connection that writes, a few that read and never wait for it, and a write-ahead log.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::query::Query;
use sqlx::sqlite::{
    Sqlite, SqliteArguments, SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{SqlSafeStr as _, Transaction};

use super::codes::kind_of;
use super::log::{self, Log};
use super::{About, DbError, Durability, Row, Schema, Value};
use crate::error::{StorageError, StorageErrorKind};

/// How long a statement waits for another process's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a caller waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
const READERS: u32 = 4;

/// Takes the write lock at once, so that a transaction never fails half-way for want of it.
const BEGIN: &str = "BEGIN IMMEDIATE";
/// The log is synchronised at each commit, or at checkpoints only (<https://www.sqlite.org/pragma.html#pragma_synchronous>).
const SYNCHRONISE_COMMITS: &str = "PRAGMA synchronous = FULL";
const SYNCHRONISE_CHECKPOINTS: &str = "PRAGMA synchronous = NORMAL";
const SCHEMA: &str =
    "SELECT type, name, tbl_name, COALESCE(sql, '') FROM sqlite_master ORDER BY type, name";

/// An open database. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Db {
    reader: SqlitePool,
    /// One connection: whoever has it is the only one that writes in this process.
    pub(super) writer: SqlitePool,
    /// Whether the connection that writes synchronises each commit at present.
    synchronises: Arc<AtomicBool>,
    /// `None` where there is no file that anybody writes to.
    pub(super) log: Option<Arc<Log>>,
}

/// A transaction on the connection that writes. What is not committed is rolled back, also when it is dropped.
#[derive(Debug)]
pub(crate) struct Tx(Transaction<'static, Sqlite>, Option<Arc<Log>>);

fn bound<'q>(statement: &'static str, values: &[Value<'_>]) -> Query<'q, Sqlite, SqliteArguments> {
    values
        .iter()
        .fold(sqlx::query(statement), |query, value| match value {
            Value::Null => query.bind(None::<i64>),
            Value::Integer(number) => query.bind(*number),
            Value::Text(text) => query.bind(text.clone().into_owned()),
            Value::Bytes(bytes) => query.bind(bytes.clone().into_owned()),
        })
}

impl Db {
    /// Opens the file, making it if need be. What is in it is not looked at.
    ///
    /// # Errors
    /// The file cannot be made, or is no database.
    pub(crate) async fn open(path: &Path) -> Result<Self, StorageError> {
        // Made here because it holds secrets; the log files take over its mode.
        let file = File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path);
        file.map_err(|e| StorageError::from_io("open the metadata database", e))?;
        let most_pages = log::most_pages(path.parent().unwrap_or(Path::new(".")));
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            // The log is synchronised at checkpoints: a power cut may lose the last transactions, never the database's consistency.
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
            // Writing the log back needs room in the database file, so the log must stay well below the reserve of a small disk.
            .pragma("wal_autocheckpoint", most_pages.to_string())
            .pragma("journal_size_limit", "1048576");
        // Free pages can be cut off at the end, whatever they were used for.
        let made = options.clone().auto_vacuum(SqliteAutoVacuum::Incremental);
        let keeper = pool(1).connect_lazy_with(options.clone());
        let reader = pool(READERS).connect_lazy_with(options.read_only(true));
        let opened = Self::connect(made, Some(reader)).await;
        let opened = opened.map_err(|e| StorageError::from_sql("open the metadata database", e))?;
        Ok(Self {
            log: Some(Log::new(path, keeper, most_pages)),
            ..opened
        })
    }

    /// A database that is gone with its last clone.
    ///
    /// # Errors
    /// The engine fails.
    pub(crate) async fn in_memory() -> Result<Self, StorageError> {
        let options = SqliteConnectOptions::new()
            .in_memory(true)
            .foreign_keys(true);
        let opened = Self::connect(options, None).await;
        opened.map_err(|e| StorageError::from_sql("open a database in memory", e))
    }

    /// Opens a file only to look at it: nothing is made beside it, and nothing can be written.
    ///
    /// # Errors
    /// It is no database.
    pub(crate) async fn open_to_look(path: &Path) -> Result<Self, StorageError> {
        // With a log beside it the file alone may be half of the truth; without one, `immutable` makes none.
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let has_log = std::fs::metadata(log).is_ok_and(|found| found.len() > 0);
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .immutable(!has_log);
        let opened = Self::connect(options, None).await;
        opened.map_err(|error| StorageError::from_sql("open the metadata database", error))
    }

    async fn connect(
        options: SqliteConnectOptions,
        reader: Option<SqlitePool>,
    ) -> Result<Self, DbError> {
        let synchronises = Arc::new(AtomicBool::new(false));
        let setting = Arc::clone(&synchronises);
        let pool = pool(1).after_connect(move |_, _| {
            // A connection made anew has the settings that it was made with.
            setting.store(false, Ordering::Release);
            Box::pin(async { Ok(()) })
        });
        let writer = pool.connect_with(options).await?;
        Ok(Self {
            reader: reader.unwrap_or_else(|| writer.clone()),
            writer,
            synchronises,
            log: None,
        })
    }

    /// The same database, with its queries answered by the connection that writes: they see what it has written, and open nothing.
    pub(crate) fn by_writer(&self) -> Self {
        Self {
            reader: self.writer.clone(),
            ..self.clone()
        }
    }

    /// Every row that a query gives.
    ///
    /// # Errors
    /// The engine fails.
    pub(crate) async fn all(
        &self,
        statement: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, DbError> {
        let rows = bound(statement, values).fetch_all(&self.reader).await?;
        Ok(rows.into_iter().map(Row::Sqlite).collect())
    }

    /// The first row that a query gives, if it gives any.
    ///
    /// # Errors
    /// The engine fails.
    pub(crate) async fn optional(
        &self,
        statement: &'static str,
        values: &[Value<'_>],
    ) -> Result<Option<Row>, DbError> {
        let row = bound(statement, values)
            .fetch_optional(&self.reader)
            .await?;
        Ok(row.map(Row::Sqlite))
    }

    /// Runs a statement in a transaction of its own; gives how many rows it has changed.
    ///
    /// # Errors
    /// The engine fails; then nothing has changed.
    pub(crate) async fn execute(
        &self,
        statement: &'static str,
        values: &[Value<'_>],
    ) -> Result<u64, DbError> {
        let done = bound(statement, values).execute(&self.writer).await?;
        if let Some(log) = &self.log {
            log.grew();
        }
        Ok(done.rows_affected())
    }

    /// Begins a transaction. It waits for the one that is being written.
    ///
    /// # Errors
    /// The engine fails, or another process writes for too long.
    pub(crate) async fn begin(&self, durability: Durability) -> Result<Tx, DbError> {
        match self.try_to_begin(durability).await {
            // On a full disk SQLite rolls back by itself, and sqlx goes on believing that a transaction is open.
            Err(sqlx::Error::InvalidSavePointStatement) => {
                self.writer.acquire().await?.close().await?;
                Ok(self.try_to_begin(durability).await?)
            }
            other => Ok(other?),
        }
    }

    async fn try_to_begin(&self, durability: Durability) -> Result<Tx, sqlx::Error> {
        let mut writer = self.writer.acquire().await?;
        let synchronise = durability == Durability::Durable;
        // Not within a transaction, where the setting cannot be changed; and before one, not after it, so that a caller who is
        // cancelled leaves nothing to be done.
        if self.synchronises.load(Ordering::Acquire) != synchronise {
            let setting = if synchronise {
                SYNCHRONISE_COMMITS
            } else {
                SYNCHRONISE_CHECKPOINTS
            };
            sqlx::query(setting).execute(&mut *writer).await?;
            self.synchronises.store(synchronise, Ordering::Release);
        }
        let begun = Transaction::begin(writer, Some(BEGIN.into_sql_str())).await?;
        Ok(Tx(begun, self.log.clone()))
    }

    /// Tables and indexes, as the engine lists them.
    ///
    /// # Errors
    /// The engine fails.
    pub(crate) async fn schema(&self) -> Result<Schema, DbError> {
        Ok(sqlx::query_as(SCHEMA).fetch_all(&self.writer).await?)
    }

    /// Waits until a log that has become long is written back: for who writes much and has time.
    ///
    /// # Errors
    /// The engine fails.
    pub(crate) async fn ease_log(&self) -> Result<(), DbError> {
        match &self.log {
            Some(log) => log.ease().await,
            None => Ok(()),
        }
    }

    /// Waits for running statements, writes the log back and closes the database.
    pub(crate) async fn close(&self) {
        self.reader.close().await;
        if let Some(log) = &self.log {
            log.close().await;
        }
        self.writer.close().await;
    }
}

impl Tx {
    /// Runs a statement; gives how many rows it has changed.
    ///
    /// # Errors
    /// The engine fails; then the transaction is to be dropped.
    pub(crate) async fn execute(
        &mut self,
        statement: &'static str,
        values: &[Value<'_>],
    ) -> Result<u64, DbError> {
        let done = bound(statement, values).execute(&mut *self.0).await?;
        Ok(done.rows_affected())
    }

    /// Every row that a query gives.
    ///
    /// # Errors
    /// The engine fails.
    pub(crate) async fn all(
        &mut self,
        statement: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, DbError> {
        let rows = bound(statement, values).fetch_all(&mut *self.0).await?;
        Ok(rows.into_iter().map(Row::Sqlite).collect())
    }

    /// The first row that a query gives, if it gives any.
    ///
    /// # Errors
    /// The engine fails.
    pub(crate) async fn optional(
        &mut self,
        statement: &'static str,
        values: &[Value<'_>],
    ) -> Result<Option<Row>, DbError> {
        let row = bound(statement, values)
            .fetch_optional(&mut *self.0)
            .await?;
        Ok(row.map(Row::Sqlite))
    }

    /// Runs a script of several statements.
    ///
    /// # Errors
    /// The engine fails; then the transaction is to be dropped.
    pub(crate) async fn script(&mut self, script: &'static str) -> Result<(), DbError> {
        sqlx::raw_sql(script).execute(&mut *self.0).await?;
        Ok(())
    }

    /// Tables and indexes, as the engine lists them.
    ///
    /// # Errors
    /// The engine fails.
    pub(crate) async fn schema(&mut self) -> Result<Schema, DbError> {
        Ok(sqlx::query_as(SCHEMA).fetch_all(&mut *self.0).await?)
    }

    /// Makes everything visible, and durable if it was begun so.
    ///
    /// # Errors
    /// The engine fails; then nothing has happened.
    pub(crate) async fn commit(self) -> Result<(), DbError> {
        self.0.commit().await?;
        if let Some(log) = &self.1 {
            log.grew();
        }
        Ok(())
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

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        let (kind, reason) = match &error {
            sqlx::Error::Database(database) => kind_of(database.code().as_deref()),
            sqlx::Error::RowNotFound => (StorageErrorKind::NotFound, "no such row"),
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => (
                StorageErrorKind::Unavailable,
                "the metadata database does not answer",
            ),
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => (
                StorageErrorKind::Corrupt,
                "the metadata database holds a value of the wrong type",
            ),
            _ => (StorageErrorKind::Io, "the metadata database failed"),
        };
        let about = match &error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => About::Value,
            sqlx::Error::Database(database) if database.code().as_deref() == Some("1") => {
                About::Statement
            }
            _ => About::Other,
        };
        Self {
            kind,
            reason,
            about,
            source: Box::new(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hazard_l1_a_durable_commit_is_synchronised_and_the_next_grouped_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let store = Db::open(&directory.path().join("db")).await.unwrap();
        // sqlite.org/pragma.html#pragma_synchronous: 1 is NORMAL, 2 is FULL.
        let sequence = [
            (Durability::Grouped, 1),
            (Durability::Durable, 2),
            (Durability::Durable, 2),
            (Durability::Grouped, 1),
            (Durability::Durable, 2),
        ];
        for (durability, expected) in sequence {
            let mut transaction = store.begin(durability).await.unwrap();
            let level: i64 = sqlx::query_scalar("PRAGMA synchronous")
                .fetch_one(&mut *transaction.0)
                .await
                .unwrap();
            assert_eq!(level, expected, "{durability:?}");
            transaction.commit().await.unwrap();
        }
        // A connection made anew begins with the setting of the database.
        store.writer.acquire().await.unwrap().close().await.unwrap();
        for (durability, expected) in sequence {
            let mut transaction = store.begin(durability).await.unwrap();
            let level: i64 = sqlx::query_scalar("PRAGMA synchronous")
                .fetch_one(&mut *transaction.0)
                .await
                .unwrap();
            assert_eq!(level, expected, "{durability:?}, on a new connection");
            transaction.0.rollback().await.unwrap();
        }
    }
}
