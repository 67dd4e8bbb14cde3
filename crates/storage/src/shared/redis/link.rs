//! The connection to the service, kept by a task of its own: whoever calls finds one that works, or none, and never waits for one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::RedisError;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::address::RedisAddress;
use super::plaintext::answers_without_tls;
use super::wire::Wire;
use crate::shared::PATIENCE;

/// How long it may take to have a connection, sentinels and clusters included.
const CONNECT: Duration = Duration::from_secs(4);
/// The pause before the next attempt, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often an idle connection is tried.
const PROBE: Duration = Duration::from_secs(1);
/// What the driver says of a server that says nothing; a cluster's error has it in its text alone.
const TIMED_OUT: &str = "timed out";
/// So many calls in a row that were not answered in time are the end of a connection: one may be the fault of a busy machine.
const SILENCES: u32 = 2;

/// A connection, or the reason why there is none.
pub(super) struct Link {
    pub(super) address: RedisAddress,
    state: Mutex<State>,
    /// Told when the connection is given up, and when one is had.
    broken: Notify,
    had: Notify,
}

#[derive(Default)]
struct State {
    wire: Option<Wire>,
    /// Grows with each connection: a failure of an earlier one is none of this one's.
    generation: u64,
    silences: u32,
    why: Option<String>,
    /// What the server does not do at present, and what it has said to that.
    refusals: BTreeMap<Asks, String>,
}

/// What a call asks for. A server that does the one may refuse the other: it has no memory, or the user has no right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asks {
    /// To keep something. That it was kept is said by [`Link::kept`]: what answers may have had nothing to keep.
    Keep,
    Read,
    Publish,
}

impl Link {
    pub(super) fn new(address: RedisAddress) -> Arc<Self> {
        Arc::new(Self {
            address,
            state: Mutex::default(),
            broken: Notify::new(),
            had: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why there is no connection; `None` if there is one.
    pub(super) fn trouble(&self) -> Option<String> {
        let state = self.state();
        match &state.wire {
            Some(_) => state.refusals.values().next().cloned(),
            None => Some(
                state
                    .why
                    .clone()
                    .unwrap_or_else(|| "not reached yet".to_owned()),
            ),
        }
    }

    /// Waits for a connection, no longer than `patience`; whether there is one.
    pub(super) async fn until_had(&self, patience: Duration) -> bool {
        let had = async {
            loop {
                let waiting = self.had.notified();
                if self.state().wire.is_some() {
                    return;
                }
                waiting.await;
            }
        };
        timeout(patience, had).await.is_ok()
    }

    /// The server has kept what it was asked to keep.
    pub(super) fn kept(&self) {
        self.done(Asks::Keep);
    }

    /// The server does this, and nothing is said against it any more.
    fn done(&self, asks: Asks) {
        let mut state = self.state();
        if state.refusals.remove(&asks).is_some() && state.refusals.is_empty() {
            tracing::info!(redis = %self.address, "Redis does what larder asks for again");
        }
    }

    /// Does something with the connection; `None` if there is none or it does not answer.
    pub(super) async fn call<T, F, W>(&self, asks: Asks, work: W) -> Option<T>
    where
        F: Future<Output = Result<T, RedisError>> + Send,
        W: FnOnce(Wire) -> F + Send,
    {
        let (wire, generation) = {
            let state = self.state();
            (state.wire.clone()?, state.generation)
        };
        match timeout(PATIENCE, work(wire)).await {
            Ok(Ok(value)) => {
                let mut state = self.state();
                if state.generation == generation {
                    state.silences = 0;
                }
                drop(state);
                if asks != Asks::Keep {
                    self.done(asks);
                }
                return Some(value);
            }
            // What stands under one key says nothing of the server, and whoever takes the key next puts it right.
            Ok(Err(error)) if error.code() == Some("WRONGTYPE") => {}
            // Another connection may lead to the server that has taken over, and to this one again.
            Ok(Err(error)) if is_of_a_replica(&error) => {
                self.refused(generation, asks, error.to_string());
                self.leave(generation, error.to_string());
            }
            Ok(Err(error)) if is_of_the_connection(&error) => {
                self.give_up(generation, error.to_string());
            }
            Ok(Err(error)) if !error.is_timeout() => {
                self.refused(generation, asks, error.to_string());
            }
            Ok(Err(_)) | Err(_) => self.silence(generation),
        }
        None
    }

    /// The server answers, and does not do it: no memory, or no right.
    fn refused(&self, generation: u64, asks: Asks, why: String) {
        let mut state = self.state();
        if state.generation != generation {
            return;
        }
        if state.refusals.is_empty() {
            tracing::warn!(redis = %self.address, why, "Redis refuses what larder asks for: each replica downloads for itself");
        }
        state.silences = 0;
        state.refusals.insert(asks, why);
    }

    fn silence(&self, generation: u64) {
        let is_enough = {
            let mut state = self.state();
            if state.generation != generation {
                return;
            }
            state.silences += 1;
            state.silences >= SILENCES
        };
        if is_enough {
            self.give_up(
                generation,
                format!("no answer within {} ms", PATIENCE.as_millis()),
            );
        }
    }

    fn give_up(&self, generation: u64, why: String) {
        let told = why.clone();
        if self.leave(generation, why) {
            // Another server may have taken its place.
            self.state().refusals.clear();
            tracing::warn!(redis = %self.address, why = told, "Redis does not answer: until it does, each replica downloads for itself and hears of the others by asking the database");
        }
    }

    /// Lets the connection go for another one; whether it was there.
    fn leave(&self, generation: u64, why: String) -> bool {
        let mut state = self.state();
        if state.generation != generation || state.wire.is_none() {
            return false;
        }
        state.wire = None;
        state.silences = 0;
        state.why = Some(why);
        drop(state);
        self.broken.notify_one();
        true
    }

    /// Keeps a connection for ever; to be spawned.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut pause = FIRST_PAUSE;
        let mut was_told = false;
        loop {
            match self.connect().await {
                Ok(wire) => {
                    (pause, was_told) = (FIRST_PAUSE, false);
                    {
                        let mut state = self.state();
                        // Whether the same is refused again is seen when it is asked for again.
                        if state.refusals.is_empty() {
                            tracing::info!(redis = %self.address, "Redis answers");
                        }
                        state.wire = Some(wire);
                        state.generation += 1;
                        state.why = None;
                    }
                    self.had.notify_waiters();
                    self.watch().await;
                }
                Err(why) => {
                    let mut state = self.state();
                    if state.generation == 0 && !was_told {
                        tracing::warn!(redis = %self.address, why, "Redis cannot be used: until it can, each replica downloads for itself and hears of the others by asking the database");
                        was_told = true;
                    }
                    state.why = Some(why);
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn connect(&self) -> Result<Wire, String> {
        let attempt = async {
            let mut wire = self.address.connect().await?;
            // What takes connections and says nothing is not there.
            let ping = redis::cmd("PING");
            let _: redis::Value = ping.query_async(&mut wire).await?;
            Ok::<_, RedisError>(wire)
        };
        let why = match timeout(CONNECT, attempt).await {
            Ok(Ok(wire)) => return Ok(wire),
            Ok(Err(error)) if !error.to_string().contains(TIMED_OUT) => {
                return Err(error.to_string());
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no connection within {} s", CONNECT.as_secs()),
        };
        match self.address.first() {
            Some(server) if answers_without_tls(server).await => Err(format!(
                "{why}: the server does not speak TLS; write redis for rediss in the URL, or let the server speak TLS"
            )),
            _ => Err(why),
        }
    }

    /// Tries the connection now and then until it is given up.
    async fn watch(&self) {
        loop {
            tokio::select! {
                () = self.broken.notified() => return,
                () = sleep(PROBE) => self.probe().await,
            }
        }
    }

    async fn probe(&self) {
        let (wire, generation) = {
            let state = self.state();
            (state.wire.clone(), state.generation)
        };
        let Some(mut wire) = wire else { return };
        let ping = redis::cmd("PING");
        match timeout(PATIENCE, ping.query_async::<redis::Value>(&mut wire)).await {
            Ok(Ok(_)) => self.state().silences = 0,
            Ok(Err(error)) if !error.is_timeout() => self.give_up(generation, error.to_string()),
            Ok(Err(_)) | Err(_) => self.silence(generation),
        }
    }
}

/// Whether an error says that this server only follows the one that takes writes.
fn is_of_a_replica(error: &RedisError) -> bool {
    let read_only = redis::ServerErrorKind::ReadOnly;
    error.kind() == redis::ErrorKind::Server(read_only)
}

/// Whether an error says that another connection is needed: this one is broken, or leads to a server that does not serve (any more).
fn is_of_the_connection(error: &RedisError) -> bool {
    use redis::{ErrorKind, ServerErrorKind as Server};
    match error.kind() {
        ErrorKind::Server(kind) => matches!(
            kind,
            Server::Moved
                | Server::Ask
                | Server::MasterDown
                | Server::ClusterDown
                | Server::BusyLoading
        ),
        ErrorKind::Extension | ErrorKind::UnexpectedReturnType => error.code() == Some("NOAUTH"),
        _ => !error.is_timeout(),
    }
}
