//! Connections to the server. They are few, kept, and never given back in the middle of anything: what is broken off closes its
//! connection, and the server takes back what it had begun.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow, PgSslMode};
use sqlx::{AssertSqlSafe, Connection as _, Either, Row as _};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::codes::{failure, is_end_of_connection};
use super::health::{Health, no_answer};
use super::options::PostgresOptions;
use crate::error::StorageErrorKind;
use crate::meta::db::{About, DbError};

/// Connections of one process: a server takes a hundred by default, from all of them.
const PLACES: usize = 10;
/// How long one host may take to answer a new connection.
const CONNECT: Duration = Duration::from_secs(2);
/// A connection that has rested so long is looked at before it is used: something in between may have forgotten it.
const RESTED: Duration = Duration::from_secs(30);
/// One that has rested so long is closed.
const TOO_LONG: Duration = Duration::from_mins(10);
/// The oldest server that larder's statements run on.
const OLDEST_SERVER: i64 = 130_000;

const STATE: &str = "SELECT current_setting('transaction_read_only'), pg_is_in_recovery()::text, \
     current_setting('server_version_num'), current_setting('server_encoding'), current_setting('bytea_output')";

/// The connections of one process. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    options: PostgresOptions,
    each_host: Vec<PgConnectOptions>,
    /// The host to try first.
    first: AtomicUsize,
    resting: Mutex<Resting>,
    /// Told when a place becomes free.
    free: Notify,
    is_closed: AtomicBool,
    health: Health,
}

#[derive(Debug, Default)]
struct Resting {
    connections: Vec<(Instant, PgConnection)>,
    /// Places that are taken.
    leased: usize,
}

/// What a message to the server has given: the rows, and how many rows its last statement has changed.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) rows: Vec<PgRow>,
    pub(super) changed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is under way.
    Clean,
    /// A transaction is open.
    Open,
    /// The answer to a message is awaited, or the connection has failed.
    Busy,
}

/// A connection that one caller has to itself.
#[derive(Debug)]
pub(super) struct Lease {
    pool: Pool,
    connection: Option<PgConnection>,
    state: State,
    /// Whether it was made for this caller.
    is_new: bool,
}

impl Pool {
    pub(super) fn new(options: &PostgresOptions) -> Self {
        Self(Arc::new(Shared {
            each_host: options.each_host(),
            options: options.clone(),
            first: AtomicUsize::new(0),
            resting: Mutex::default(),
            free: Notify::new(),
            is_closed: AtomicBool::new(false),
            health: Health::default(),
        }))
    }

    pub(super) fn options(&self) -> &PostgresOptions {
        &self.0.options
    }

    pub(super) fn health(&self) -> &Health {
        &self.0.health
    }

    /// Leases a connection and sends it a message; on a connection that had rested and turns out to be dead, once more on another.
    ///
    /// # Errors
    /// The server does not answer in time (`is_patient`: a long one), or the statement fails. A message that changes something may have done so.
    pub(super) async fn begin_with(
        &self,
        text: &str,
        is_patient: bool,
    ) -> Result<(Lease, Answer), DbError> {
        let wait = self.0.health.wait(is_patient)?;
        let answer = async {
            loop {
                let mut lease = self.lease().await?;
                match lease.run(text).await {
                    Err(error) if error.about == About::Lost && !lease.is_new => {
                        // The others are of the same age.
                        self.resting().connections.clear();
                    }
                    result => return result.map(|answer| (lease, answer)),
                }
            }
        };
        let result = timeout(wait, answer)
            .await
            .unwrap_or_else(|_| Err(no_answer("there was no answer in time")));
        self.0.health.note(&result);
        result
    }

    /// A connection, kept or new.
    async fn lease(&self) -> Result<Lease, DbError> {
        // Counted before anything is awaited, and given back when it is dropped.
        let mut lease = self.place().await?;
        loop {
            let rested = self.resting().connections.pop();
            let Some((since, mut connection)) = rested else {
                lease.is_new = true;
                lease.connection = Some(self.connect().await?);
                return Ok(lease);
            };
            let is_alive = since.elapsed() < RESTED
                || matches!(timeout(CONNECT, connection.ping()).await, Ok(Ok(())));
            if is_alive {
                lease.connection = Some(connection);
                return Ok(lease);
            }
        }
    }

    async fn place(&self) -> Result<Lease, DbError> {
        loop {
            if self.0.is_closed.load(Ordering::Acquire) {
                return Err(no_answer("it has been closed"));
            }
            {
                let mut resting = self.resting();
                if resting.leased < PLACES {
                    resting.leased += 1;
                    if resting.leased < PLACES {
                        // Several may have become free, and told of once.
                        self.0.free.notify_one();
                    }
                    return Ok(Lease {
                        pool: self.clone(),
                        connection: None,
                        state: State::Clean,
                        is_new: false,
                    });
                }
            }
            self.0.free.notified().await;
        }
    }

    fn resting(&self) -> MutexGuard<'_, Resting> {
        self.0
            .resting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection to the first host that takes writes.
    async fn connect(&self) -> Result<PgConnection, DbError> {
        let hosts = &self.0.each_host;
        let mut failures: Vec<(String, DbError)> = Vec::new();
        let first = self.0.first.load(Ordering::Acquire);
        for index in (0..hosts.len()).map(|n| (first + n) % hosts.len()) {
            // If this attempt is broken off, the next one begins with the next host.
            self.0
                .first
                .store((index + 1) % hosts.len(), Ordering::Release);
            let opened = timeout(CONNECT, open(&hosts[index]));
            match opened
                .await
                .unwrap_or_else(|_| Err(no_answer("no answer within two seconds")))
            {
                Ok(connection) => {
                    self.0.first.store(index, Ordering::Release);
                    return Ok(connection);
                }
                Err(error) => failures.push((self.0.options.shown(index), error)),
            }
        }
        Err(all_failed(failures))
    }

    /// Closes what rests, and lends nothing more.
    pub(super) async fn close(&self) {
        self.0.is_closed.store(true, Ordering::Release);
        let connections = std::mem::take(&mut self.resting().connections);
        for (_, connection) in connections {
            let _ = timeout(CONNECT, connection.close()).await;
        }
        self.0.free.notify_waiters();
    }
}

impl Lease {
    /// Sends a message and waits for all of the answer.
    ///
    /// # Errors
    /// A statement fails, and what follows it in the message is not run; or the connection is lost.
    pub(super) async fn run(&mut self, text: &str) -> Result<Answer, DbError> {
        let Some(connection) = self.connection.as_mut() else {
            return Err(no_answer("the connection is lost"));
        };
        let before = std::mem::replace(&mut self.state, State::Busy);
        let mut answer = Answer::default();
        let run = async {
            // What a statement is made of is a constant, and its values are literals (see `text`).
            let message = sqlx::raw_sql(AssertSqlSafe(text.to_owned()));
            let mut items = message.fetch_many(&mut *connection);
            while let Some(item) = items.try_next().await? {
                match item {
                    Either::Left(done) => answer.changed = done.rows_affected(),
                    Either::Right(row) => answer.rows.push(row),
                }
            }
            Ok(())
        };
        let result: Result<(), sqlx::Error> = run.await;
        match result {
            Ok(()) => {
                self.state = before;
                Ok(answer)
            }
            Err(error) => {
                if !is_end_of_connection(&error) {
                    self.state = before;
                }
                Err(failure(error))
            }
        }
    }

    /// Whether the answers to all messages have come.
    pub(super) fn is_answered(&self) -> bool {
        self.state != State::Busy
    }

    /// From now on a transaction is open: who drops the lease closes the connection.
    pub(super) fn open(&mut self) {
        self.state = State::Open;
    }

    /// The transaction is over.
    pub(super) fn over(&mut self) {
        self.state = State::Clean;
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let connection = self.connection.take();
        let is_good = self.state == State::Clean && !self.pool.0.is_closed.load(Ordering::Acquire);
        let mut resting = self.pool.resting();
        resting.leased = resting.leased.saturating_sub(1);
        if let Some(connection) = connection.filter(|_| is_good) {
            resting.connections.push((Instant::now(), connection));
        }
        // The last one that was put there is taken first.
        resting
            .connections
            .retain(|(since, _)| since.elapsed() < TOO_LONG);
        drop(resting);
        self.pool.0.free.notify_one();
    }
}

async fn open(options: &PgConnectOptions) -> Result<PgConnection, DbError> {
    let mut connection = match PgConnection::connect_with(options).await {
        // The driver takes this mode for one that never encrypts.
        Err(error) if is_of_encryption(&error) && is_mode(options, PgSslMode::Allow) => {
            let encrypted = options.clone().ssl_mode(PgSslMode::Require);
            PgConnection::connect_with(&encrypted).await
        }
        opened => opened,
    }
    .map_err(failure)?;
    let state = sqlx::raw_sql(STATE).fetch_one(&mut connection).await;
    let state = state.map_err(failure)?;
    let text = |index| state.try_get::<String, _>(index).map_err(failure);
    if text(0)? == "on" || text(1)? == "true" {
        return Err(no_answer(
            "it takes no writes: it is a standby or read-only",
        ));
    }
    let version = text(2)?.parse::<i64>().unwrap_or_default();
    if version < OLDEST_SERVER {
        return Err(unfit("it is older than PostgreSQL 13"));
    }
    if text(3)? != "UTF8" {
        return Err(unfit(
            "the database's encoding is not UTF8: create it with ENCODING 'UTF8' TEMPLATE template0",
        ));
    }
    if text(4)? != "hex" {
        return Err(unfit(
            "the setting bytea_output of the role or database is not hex, which is the default: take it back with ALTER ROLE … RESET bytea_output",
        ));
    }
    Ok(connection)
}

fn is_mode(options: &PgConnectOptions, mode: PgSslMode) -> bool {
    std::mem::discriminant(&options.get_ssl_mode()) == std::mem::discriminant(&mode)
}

/// Whether the server lets nobody in who asks like this: it may let in who encrypts.
fn is_of_encryption(error: &sqlx::Error) -> bool {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code == "28000")
}

fn unfit(why: &'static str) -> DbError {
    DbError {
        kind: StorageErrorKind::Unavailable,
        reason: "the metadata database is not fit for larder",
        about: About::Refused,
        source: why.into(),
    }
}

/// What every host has said, as one failure. A refusal is told as one: waiting does not help.
fn all_failed(failures: Vec<(String, DbError)>) -> DbError {
    let each: Vec<String> = failures
        .iter()
        .map(|(host, error)| format!("{host}: {}", error.source))
        .collect();
    let worst = failures
        .into_iter()
        .map(|(_, error)| error)
        .max_by_key(|error| error.about == About::Refused);
    match worst {
        Some(error) => DbError {
            source: each.join("; ").into(),
            ..error
        },
        None => no_answer("no host is configured"),
    }
}
