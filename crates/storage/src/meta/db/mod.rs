//! The seam to the database engine. Above it are statements (constants with `$n` places, in SQL that both engines read), values
//! and rows; below it the engines: their connections, settings, logs and error codes. Nothing above names an engine.
//!
//! There are two, [`sqlite`] and [`postgres`]. [`Db`], [`Tx`] and [`Row`] are one or the other (docs/adr/0064, docs/adr/0079).

use std::error::Error as StdError;
use std::path::Path;
use std::pin::Pin;

use larder_core::{Span, SpanKind};

use crate::error::{StorageError, StorageErrorKind};

mod codes;
mod log;
mod postgres;
mod row;
mod sqlite;
mod upkeep;
mod value;

pub(crate) use row::Row;
pub(crate) use value::Value;

pub use postgres::{ConnectError, PostgresOptions, TlsMode};

/// What is answered at once, as long as anything is.
const PING: &str = "SELECT COUNT(*) FROM schema_version";

/// What a commit promises when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The change is visible and survives the end of the process. A power cut may take it back together with everything that was
    /// committed after it: for what can be fetched again.
    #[default]
    Grouped,
    /// The change, and all that was committed before it, is on stable storage: for what only larder has.
    Durable,
}

/// What makes a statement fail.
#[derive(Debug)]
pub(crate) struct DbError {
    pub(crate) kind: StorageErrorKind,
    /// For users; completes "cannot …: ".
    pub(crate) reason: &'static str,
    pub(crate) about: About,
    /// For logs.
    pub(crate) source: Box<dyn StdError + Send + Sync>,
}

/// What a failure is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// A column holds another type than it should.
    Value,
    /// The engine does not know what the statement names, such as a table.
    Statement,
    /// Another transaction was in the way: the whole transaction may be tried again.
    Conflict,
    /// The connection is lost, or the server takes no writes: another connection may be better.
    Lost,
    /// The server refuses this larder for good: credentials, rights, its version or its settings.
    Refused,
    Other,
}

/// A file that may be a database: its tables and indexes as the engine lists them.
pub(crate) type Schema = Vec<(String, String, String, String)>;

/// A statement: one text for both engines, or one for each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sql {
    pub(crate) sqlite: &'static str,
    pub(crate) postgres: &'static str,
}

impl From<&'static str> for Sql {
    fn from(text: &'static str) -> Self {
        Self {
            sqlite: text,
            postgres: text,
        }
    }
}

/// A query whose rows nobody else changes before the transaction ends. SQLite needs no word for that: who may write is alone.
macro_rules! locking {
    ($text:literal) => {
        $crate::meta::db::Sql {
            sqlite: $text,
            postgres: concat!($text, " FOR UPDATE"),
        }
    };
}
pub(crate) use locking;

/// An open database. Clones share it.
#[derive(Debug, Clone)]
pub(crate) enum Db {
    Sqlite(sqlite::Db),
    Postgres(postgres::Db),
}

/// A transaction. What is not committed is rolled back, also when it is dropped; [`rollback`](Self::rollback) is cheaper.
#[derive(Debug)]
pub(crate) enum Tx {
    Sqlite(sqlite::Tx),
    Postgres(postgres::Tx),
}

impl Db {
    /// Opens SQLite's file, making it if need be. What is in it is not looked at.
    ///
    /// # Errors
    /// The file cannot be made, or is no database.
    pub(crate) async fn open(path: &Path) -> Result<Self, StorageError> {
        sqlite::Db::open(path).await.map(Self::Sqlite)
    }

    /// A database that is gone with its last clone.
    ///
    /// # Errors
    /// The engine fails.
    pub(crate) async fn in_memory() -> Result<Self, StorageError> {
        sqlite::Db::in_memory().await.map(Self::Sqlite)
    }

    /// Opens a file only to look at it: nothing is made beside it, and nothing can be written.
    ///
    /// # Errors
    /// It is no database.
    pub(crate) async fn open_to_look(path: &Path) -> Result<Self, StorageError> {
        sqlite::Db::open_to_look(path).await.map(Self::Sqlite)
    }

    /// Connects to a server and brings the tables of the database up to date.
    ///
    /// # Errors
    /// It does not answer, or refuses.
    pub(crate) async fn connect(options: &PostgresOptions) -> Result<Self, ConnectError> {
        postgres::Db::connect(options).await.map(Self::Postgres)
    }

    /// Whether [`connect`](Self::connect) would succeed; changes nothing.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub(crate) async fn look(options: &PostgresOptions) -> Result<(), ConnectError> {
        postgres::Db::look(options).await
    }

    /// Connects to a server only to read: its tables stay as they are. `None` if larder has none there.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub(crate) async fn connect_to_look(
        options: &PostgresOptions,
    ) -> Result<Option<Self>, ConnectError> {
        let db = postgres::Db::connect_to_look(options).await?;
        Ok(db.map(Self::Postgres))
    }

    /// Whether a row can be found by a key of so many bytes.
    pub(crate) fn takes_key(&self, length: usize) -> bool {
        match self {
            Self::Sqlite(_) => true,
            Self::Postgres(_) => length <= postgres::LONGEST_KEY,
        }
    }

    /// The same database, with its queries answered by a connection that sees what this process has written, and that opens nothing.
    pub(crate) fn by_writer(&self) -> Self {
        match self {
            Self::Sqlite(db) => Self::Sqlite(db.by_writer()),
            Self::Postgres(db) => Self::Postgres(db.clone()),
        }
    }

    /// The same database, for queries that read so much that their answer may take long.
    pub(crate) fn patiently(&self) -> Self {
        match self {
            Self::Sqlite(_) => self.clone(),
            Self::Postgres(db) => Self::Postgres(db.patiently()),
        }
    }

    /// Whether it is a server that did not answer the last time.
    pub(crate) fn is_away(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            Self::Postgres(db) => db.is_away(),
        }
    }

    /// Asks something that is answered at once. Gives why this program should not go on with the tables, if they say so: a newer one
    /// has changed them.
    ///
    /// # Errors
    /// The engine fails.
    pub(crate) async fn outdated(&self) -> Result<Option<String>, DbError> {
        match self {
            // Nobody else changes a file's tables while it is open.
            Self::Sqlite(_) => self.one(PING, &[]).await.map(|_| None),
            Self::Postgres(db) => boxed(db.outdated()).await,
        }
    }

    /// Whether this is a file that larder itself looks after: with a log, free pages and a fingerprint.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    /// Every row that a query gives.
    ///
    /// # Errors
    /// The engine fails.
    pub(crate) async fn all(
        &self,
        statement: impl Into<Sql>,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, DbError> {
        let statement = statement.into();
        match self {
            Self::Sqlite(db) => boxed(db.all(statement.sqlite, values)).await,
            Self::Postgres(db) => boxed(db.all(statement.postgres, values)).await,
        }
    }

    /// The first row that a query gives, if it gives any.
    ///
    /// # Errors
    /// The engine fails.
    pub(crate) async fn optional(
        &self,
        statement: impl Into<Sql>,
        values: &[Value<'_>],
    ) -> Result<Option<Row>, DbError> {
        let statement = statement.into();
        match self {
            Self::Sqlite(db) => boxed(db.optional(statement.sqlite, values)).await,
            Self::Postgres(db) => Ok(first(boxed(db.all(statement.postgres, values)).await?)),
        }
    }

    /// The one row that a query gives.
    ///
    /// # Errors
    /// The engine fails, or there is none.
    pub(crate) async fn one(
        &self,
        statement: impl Into<Sql>,
        values: &[Value<'_>],
    ) -> Result<Row, DbError> {
        let row = self.optional(statement, values).await?;
        Ok(row.ok_or(sqlx::Error::RowNotFound)?)
    }

    /// Runs a statement in a transaction of its own; gives how many rows it has changed.
    ///
    /// # Errors
    /// The engine fails; then nothing has changed, unless it failed while the commit was being written.
    pub(crate) async fn execute(
        &self,
        statement: impl Into<Sql>,
        values: &[Value<'_>],
    ) -> Result<u64, DbError> {
        let statement = statement.into();
        match self {
            Self::Sqlite(db) => boxed(db.execute(statement.sqlite, values)).await,
            Self::Postgres(db) => boxed(db.execute(statement.postgres, values)).await,
        }
    }

    /// Begins a transaction that writes. In SQLite it waits for the one that is being written; in PostgreSQL it sees what others have
    /// committed before each of its statements, and waits for them where it changes or locks the same rows.
    ///
    /// # Errors
    /// The engine fails, or another process writes for too long.
    pub(crate) async fn begin(&self, durability: Durability) -> Result<Tx, DbError> {
        match self {
            Self::Sqlite(db) => boxed(db.begin(durability)).await.map(Tx::Sqlite),
            Self::Postgres(db) => boxed(db.begin(durability)).await.map(Tx::Postgres),
        }
    }

    /// Tables and indexes, as the engine lists them; none where there is no file to look after.
    ///
    /// # Errors
    /// The engine fails.
    pub(crate) async fn schema(&self) -> Result<Schema, DbError> {
        match self {
            Self::Sqlite(db) => db.schema().await,
            Self::Postgres(_) => Ok(Schema::new()),
        }
    }

    /// Writes the log back into the file and cuts it off.
    ///
    /// # Errors
    /// The engine fails, which it may for want of space.
    pub(crate) async fn empty_log(&self) -> Result<(), DbError> {
        match self {
            Self::Sqlite(db) => db.empty_log().await,
            Self::Postgres(_) => Ok(()),
        }
    }

    /// Waits until a log that has become long is written back: for who writes much and has time.
    ///
    /// # Errors
    /// The engine fails.
    pub(crate) async fn ease_log(&self) -> Result<(), DbError> {
        match self {
            Self::Sqlite(db) => db.ease_log().await,
            Self::Postgres(_) => Ok(()),
        }
    }

    /// Gives back what deleted rows have left in the file. `room`: bytes of disk that may be used for a moment. Gives the number of
    /// bytes by which the file became shorter.
    ///
    /// # Errors
    /// The engine fails.
    pub(crate) async fn shrink(&self, room: u64) -> Result<u64, DbError> {
        match self {
            Self::Sqlite(db) => db.shrink(room).await,
            // The server's own vacuum does.
            Self::Postgres(_) => Ok(0),
        }
    }

    /// Waits for running statements, writes the log back and closes the database.
    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(db) => db.close().await,
            Self::Postgres(db) => db.close().await,
        }
    }
}

impl Tx {
    /// Whether a row can be found by a key of so many bytes.
    pub(crate) fn takes_key(&self, length: usize) -> bool {
        match self {
            Self::Sqlite(_) => true,
            Self::Postgres(_) => length <= postgres::LONGEST_KEY,
        }
    }

    /// Runs a statement; gives how many rows it has changed.
    ///
    /// # Errors
    /// The engine fails; then the transaction is to be dropped.
    pub(crate) async fn execute(
        &mut self,
        statement: impl Into<Sql>,
        values: &[Value<'_>],
    ) -> Result<u64, DbError> {
        let statement = statement.into();
        match self {
            Self::Sqlite(tx) => boxed(tx.execute(statement.sqlite, values)).await,
            Self::Postgres(tx) => boxed(tx.execute(statement.postgres, values)).await,
        }
    }

    /// Every row that a query gives.
    ///
    /// # Errors
    /// The engine fails.
    pub(crate) async fn all(
        &mut self,
        statement: impl Into<Sql>,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, DbError> {
        let statement = statement.into();
        match self {
            Self::Sqlite(tx) => boxed(tx.all(statement.sqlite, values)).await,
            Self::Postgres(tx) => boxed(tx.all(statement.postgres, values)).await,
        }
    }

    /// The first row that a query gives, if it gives any.
    ///
    /// # Errors
    /// The engine fails.
    pub(crate) async fn optional(
        &mut self,
        statement: impl Into<Sql>,
        values: &[Value<'_>],
    ) -> Result<Option<Row>, DbError> {
        let statement = statement.into();
        match self {
            Self::Sqlite(tx) => boxed(tx.optional(statement.sqlite, values)).await,
            Self::Postgres(tx) => Ok(first(boxed(tx.all(statement.postgres, values)).await?)),
        }
    }

    /// Runs a script of several statements.
    ///
    /// # Errors
    /// The engine fails; then the transaction is to be dropped.
    pub(crate) async fn script(&mut self, script: &'static str) -> Result<(), DbError> {
        match self {
            Self::Sqlite(tx) => tx.script(script).await,
            Self::Postgres(tx) => tx.script(script).await,
        }
    }

    /// Tables and indexes, as the engine lists them; none where there is no file to look after.
    ///
    /// # Errors
    /// The engine fails.
    pub(crate) async fn schema(&mut self) -> Result<Schema, DbError> {
        match self {
            Self::Sqlite(tx) => tx.schema().await,
            Self::Postgres(_) => Ok(Schema::new()),
        }
    }

    /// Runs these statements and commits. A server gets both in one message, so that what the statements lock is locked for no round
    /// trip.
    ///
    /// # Errors
    /// The engine fails; then nothing has happened, unless it failed while the commit was being written.
    pub(crate) async fn commit_with(self, last: &[(Sql, Vec<Value<'_>>)]) -> Result<(), DbError> {
        match self {
            Self::Sqlite(mut tx) => {
                for (statement, values) in last {
                    boxed(tx.execute(statement.sqlite, values)).await?;
                }
                boxed(tx.commit()).await
            }
            Self::Postgres(tx) => boxed(tx.commit_with(last)).await,
        }
    }

    /// Makes everything visible, and durable if it was begun so.
    ///
    /// # Errors
    /// The engine fails; then nothing has happened, unless it failed while the commit was being written.
    pub(crate) async fn commit(self) -> Result<(), DbError> {
        self.commit_with(&[]).await
    }

    /// Takes everything back. Dropping does so too, but at the cost of a server's connection.
    pub(crate) async fn rollback(self) {
        match self {
            Self::Sqlite(tx) => drop(tx),
            Self::Postgres(tx) => boxed(tx.rollback()).await,
        }
    }
}

/// A future behind a pointer, whatever engine it is of: what waits for the database would otherwise hold the state of both engines, and
/// the compiler look through all of it wherever such a wait is part of something else.
fn boxed<'f, T>(
    future: impl Future<Output = T> + Send + 'f,
) -> Pin<Box<dyn Future<Output = T> + Send + 'f>>
where
    T: 'f,
{
    match Span::child("database", SpanKind::Client) {
        None => Box::pin(future),
        Some(span) => Box::pin(span.around(Box::pin(future), |_, _| ())),
    }
}

/// The texts of a list that the engine has made.
///
/// # Errors
/// It is none.
pub(crate) fn list_of(text: &str) -> Result<Vec<String>, DbError> {
    serde_json::from_str(text).map_err(|error| DbError {
        kind: StorageErrorKind::Io,
        reason: "the metadata database gives a list that cannot be read",
        about: About::Other,
        source: Box::new(error),
    })
}

fn first(rows: Vec<Row>) -> Option<Row> {
    rows.into_iter().next()
}
