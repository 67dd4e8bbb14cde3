//! PostgreSQL: connections to one of several servers, a transaction for each group of changes, and no state in a session that outlives
//! a transaction, so that a pooler may stand in between.

use std::time::Duration;

use sqlx::{Row as _, TypeInfo as _, ValueRef as _};
use tokio::time::timeout;

use super::{About, DbError, Durability, Row, Sql, Value};
use sqlx::postgres::PgRow;

mod codes;
mod health;
mod migrate;
mod options;
mod pool;
mod text;

pub use migrate::ConnectError;
pub use options::{PostgresOptions, TlsMode};

use health::no_answer;
use pool::{Answer, Lease, Pool};
use text::with_values;

/// An index entry of the server holds at most 2,704 bytes (a third of a page); what is beside the key in it takes a few.
pub(super) const LONGEST_KEY: usize = 2_600;

/// How long a statement of an open transaction may take: longer than it may wait for a lock, and no longer than whoever waits for the
/// transaction can still be told of it within ten seconds (contract, section 10).
const STATEMENT: Duration = Duration::from_secs(7);
/// How often a statement by itself is tried again that another transaction was in the way of.
const TRIES: u32 = 5;
/// How long taking back is waited for, before the connection is closed instead.
const ROLLBACK: Duration = Duration::from_secs(2);

/// A statement waits 5 s for what another transaction has locked, and a session that is silent within a transaction for 5 s is ended:
/// a process that is stopped must not stop the others. The isolation is said, because a database may have another default.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = 5000; \
     SET LOCAL idle_in_transaction_session_timeout = 5000; SET LOCAL synchronous_commit = off";
/// As that; the commit waits until it is on stable storage, also that of standbys that the server waits for.
const BEGIN_DURABLE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = 5000; \
     SET LOCAL idle_in_transaction_session_timeout = 5000; SET LOCAL synchronous_commit = on";
const COMMIT: &str = "COMMIT";
const TAKE_BACK: &str = "ROLLBACK";

/// A database on a server. Clones share its connections.
#[derive(Debug, Clone)]
pub(crate) struct Db {
    pool: Pool,
    /// Whether answers may take long.
    is_patient: bool,
}

/// A transaction.
#[derive(Debug)]
pub(crate) struct Tx {
    lease: Lease,
}

/// The bytes of a column of bytes or of text.
pub(super) fn bytes(row: &PgRow, index: usize) -> Result<Vec<u8>, DbError> {
    let raw = row.try_get_raw(index)?;
    if raw.type_info().name() == "BYTEA" {
        Ok(row.try_get(index)?)
    } else {
        Ok(row.try_get::<String, _>(index)?.into_bytes())
    }
}

impl Db {
    /// Connects, and brings the tables up to date.
    ///
    /// # Errors
    /// The server does not answer, or refuses.
    pub(crate) async fn connect(options: &PostgresOptions) -> Result<Self, ConnectError> {
        let db = Self {
            pool: Pool::new(options),
            is_patient: false,
        };
        migrate::migrate(&db).await?;
        Ok(db)
    }

    /// Whether [`connect`](Self::connect) would succeed; changes nothing.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub(crate) async fn look(options: &PostgresOptions) -> Result<(), ConnectError> {
        let db = Self {
            pool: Pool::new(options),
            is_patient: false,
        };
        let looked = migrate::look(&db).await;
        db.close().await;
        looked
    }

    /// Connects, and leaves the tables as they are; `None` if there are none.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub(crate) async fn connect_to_look(
        options: &PostgresOptions,
    ) -> Result<Option<Self>, ConnectError> {
        let db = Self {
            pool: Pool::new(options),
            is_patient: false,
        };
        Ok(migrate::has_tables(&db).await?.then_some(db))
    }

    /// Why this program is too old for the tables, if a newer one has changed them so.
    pub(super) async fn outdated(&self) -> Result<Option<String>, DbError> {
        migrate::outdated(self).await
    }

    /// The same database, for queries that read much.
    pub(super) fn patiently(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            is_patient: true,
        }
    }

    /// Whether the server did not answer the last time.
    pub(super) fn is_away(&self) -> bool {
        self.pool.health().is_failing()
    }

    pub(super) async fn all(
        &self,
        statement: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, DbError> {
        let text = with_values(statement, values)?;
        let (_, answer) = self.pool.begin_with(&text, self.is_patient).await?;
        Ok(answer.rows.into_iter().map(Row::Postgres).collect())
    }

    pub(super) async fn execute(
        &self,
        statement: &'static str,
        values: &[Value<'_>],
    ) -> Result<u64, DbError> {
        let text = with_values(statement, values)?;
        let mut tries = 0;
        loop {
            match self.pool.begin_with(&text, self.is_patient).await {
                Err(error) if error.about == About::Conflict && tries < TRIES => tries += 1,
                result => return result.map(|(_, answer)| answer.changed),
            }
        }
    }

    pub(super) async fn begin(&self, durability: Durability) -> Result<Tx, DbError> {
        let text = match durability {
            Durability::Grouped => BEGIN,
            Durability::Durable => BEGIN_DURABLE,
        };
        let (mut lease, _) = self.pool.begin_with(text, false).await?;
        lease.open();
        Ok(Tx { lease })
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

impl Tx {
    async fn run(&mut self, text: &str) -> Result<Answer, DbError> {
        self.run_within(text, STATEMENT).await
    }

    async fn run_within(&mut self, text: &str, wait: Duration) -> Result<Answer, DbError> {
        let done = timeout(wait, self.lease.run(text)).await;
        let result = done.unwrap_or_else(|_| Err(no_answer("there was no answer in time")));
        self.lease.pool().health().note(&result);
        result
    }

    pub(super) async fn execute(
        &mut self,
        statement: &'static str,
        values: &[Value<'_>],
    ) -> Result<u64, DbError> {
        Ok(self.run(&with_values(statement, values)?).await?.changed)
    }

    pub(super) async fn all(
        &mut self,
        statement: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, DbError> {
        let answer = self.run(&with_values(statement, values)?).await?;
        Ok(answer.rows.into_iter().map(Row::Postgres).collect())
    }

    pub(super) async fn script(&mut self, script: &'static str) -> Result<(), DbError> {
        self.run_within(script, migrate::SCRIPT).await.map(drop)
    }

    pub(super) async fn commit_with(
        mut self,
        last: &[(Sql, Vec<Value<'_>>)],
    ) -> Result<(), DbError> {
        let mut message = String::new();
        for (statement, values) in last {
            message.push_str(&with_values(statement.postgres, values)?);
            message.push_str("; ");
        }
        message.push_str(COMMIT);
        let committed = self.run(&message).await;
        if committed.is_ok() {
            self.lease.over();
        } else if committed.as_ref().is_err_and(is_undone) {
            self.rollback().await;
        }
        committed.map(drop)
    }

    pub(super) async fn rollback(mut self) {
        // Where the last answer has not come, this one would not either: closing the connection takes back as well.
        if self.lease.is_answered() && self.run_within(TAKE_BACK, ROLLBACK).await.is_ok() {
            self.lease.over();
        }
    }
}

/// Whether the server has told of a failure on a connection that is still good.
fn is_undone(error: &DbError) -> bool {
    error.about != About::Lost
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is sent in front of a transaction says everything that it depends on.
    #[test]
    fn hazard_l1_a_durable_transaction_waits_for_the_log() {
        assert!(BEGIN_DURABLE.ends_with("synchronous_commit = on"));
        assert!(BEGIN.ends_with("synchronous_commit = off"));
        let head = |text: &'static str| text.rsplit_once("; ").map(|(head, _)| head);
        assert_eq!(head(BEGIN), head(BEGIN_DURABLE));
    }
}
