//! The origin as tests see it: what it serves, how it behaves, what it was asked.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpSocket;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

use crate::behaviour::Behaviour;
use crate::connection;
use crate::request::{RecordedRequest, percent_decode};
use crate::resource::Resource;

/// A behaviour in force: for a path or (`"*"`) for all, for the next `left` requests or until cleared.
#[derive(Debug)]
struct Rule {
    path: String,
    left: Option<u32>,
    behaviour: Behaviour,
}

#[derive(Debug, Default)]
struct State {
    resources: BTreeMap<String, Resource>,
    rules: VecDeque<Rule>,
    gates: Vec<(String, Option<u64>)>,
    log: Vec<RecordedRequest>,
}

/// What the connections of an origin share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Notify,
    connections: AtomicU64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the request; gives what is at its path, the behaviours for it (one-shot ones are used up), and the body gates.
    pub(crate) fn take(
        &self,
        request: &RecordedRequest,
    ) -> (Option<Resource>, Vec<Behaviour>, Vec<u64>) {
        let mut state = self.lock();
        state.log.push(request.clone());
        let found = [
            request.target.clone(),
            request.path().to_owned(),
            percent_decode(request.path()),
        ]
        .iter()
        .find_map(|key| state.resources.get(key))
        .cloned();
        let mut behaviours = Vec::new();
        for rule in state
            .rules
            .iter_mut()
            .filter(|rule| request.is_for(&rule.path))
        {
            behaviours.push(rule.behaviour.clone());
            rule.left = rule.left.map(|n| n - 1);
        }
        state.rules.retain(|rule| rule.left != Some(0));
        let gates = state
            .gates
            .iter()
            .filter(|(path, _)| request.is_for(path))
            .filter_map(|(_, after)| *after)
            .collect();
        drop(state);
        self.changed.notify_waiters();
        (found, behaviours, gates)
    }

    /// Waits while a gate is closed for the request: the one before the head (`None`) or the ones at or before `sent` bytes of the body.
    pub(crate) async fn pass_gate(&self, request: &RecordedRequest, sent: Option<u64>) {
        self.until(|state| {
            !state.gates.iter().any(|(path, after)| {
                let here = match (after, sent) {
                    (None, None) => true,
                    (Some(after), Some(sent)) => *after <= sent,
                    _ => false,
                };
                here && request.is_for(path)
            })
        })
        .await;
    }

    async fn until(&self, mut holds: impl FnMut(&State) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if holds(&self.lock()) {
                return;
            }
            changed.await;
        }
    }
}

/// A scriptable HTTP/1.1 upstream on a free loopback port. Dropping it stops it.
///
/// Paths are given as they stand in the request target (`/a/b.tgz`, with or without query), or percent-decoded. What has
/// no resource answers 404. Requests are recorded when they have been read, before anything is answered.
#[derive(Debug)]
pub struct Origin {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Bound, never listening: keeps the port ours while stopped, so that connections are refused.
    _reservation: TcpSocket,
    listener: Option<AbortHandle>,
}

impl Origin {
    /// Starts an origin. Must be called within a tokio runtime.
    #[expect(
        clippy::unused_async,
        reason = "needs the runtime that awaiting proves, and leaves room for a bind that waits"
    )]
    pub async fn start() -> Self {
        // A bind to a loopback port fails only if the machine is out of ports or file handles: no test can go on then.
        Self::try_start().unwrap_or_else(|error| unreachable!("no loopback port: {error}"))
    }

    fn try_start() -> std::io::Result<Self> {
        let reservation = TcpSocket::new_v4()?;
        reservation.set_reuseaddr(true)?;
        reservation.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = reservation.local_addr()?;
        let mut origin = Self {
            shared: Arc::default(),
            address,
            _reservation: reservation,
            listener: None,
        };
        origin.restart();
        Ok(origin)
    }

    /// Address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The absolute URL of a path; a leading slash is optional.
    pub fn url(&self, path: &str) -> String {
        format!(
            "http://{}/{}",
            self.address,
            path.strip_prefix('/').unwrap_or(path)
        )
    }

    /// Serves a resource at a path, in place of what was there.
    pub fn put(&self, path: &str, resource: Resource) {
        self.shared
            .lock()
            .resources
            .insert(path.to_owned(), resource);
    }

    /// Takes a resource away.
    pub fn remove(&self, path: &str) {
        self.shared.lock().resources.remove(path);
    }

    /// Behaves so for every request to `path` (`"*"` = any path) until [`clear`](Self::clear).
    pub fn behave(&self, path: &str, behaviour: Behaviour) {
        self.rule(path, None, behaviour);
    }

    /// Behaves so for the next request to `path` (`"*"` = any path) only.
    pub fn behave_once(&self, path: &str, behaviour: Behaviour) {
        self.behave_times(path, 1, behaviour);
    }

    /// Behaves so for the next `times` requests to `path` (`"*"` = any path). Rules count requests side by side: two one-shot rules both meet the next request.
    pub fn behave_times(&self, path: &str, times: u32, behaviour: Behaviour) {
        if times > 0 {
            self.rule(path, Some(times), behaviour);
        }
    }

    fn rule(&self, path: &str, left: Option<u32>, behaviour: Behaviour) {
        self.shared.lock().rules.push_back(Rule {
            path: path.to_owned(),
            left,
            behaviour,
        });
    }

    /// Ends the behaviours set for exactly this path (`"*"`: those set for all paths).
    pub fn clear(&self, path: &str) {
        self.shared.lock().rules.retain(|rule| rule.path != path);
    }

    /// Ends all behaviours.
    pub fn clear_all(&self) {
        self.shared.lock().rules.clear();
    }

    /// Holds the heads of answers to `path` (`"*"` = any) back until [`release`](Self::release). Requests are recorded meanwhile.
    pub fn hold(&self, path: &str) {
        self.shared.lock().gates.push((path.to_owned(), None));
    }

    /// Holds answers to `path` back after `after` bytes of the body, until [`release`](Self::release).
    pub fn hold_body(&self, path: &str, after: u64) {
        self.shared
            .lock()
            .gates
            .push((path.to_owned(), Some(after)));
    }

    /// Opens the gates of exactly this path.
    pub fn release(&self, path: &str) {
        self.shared.lock().gates.retain(|(held, _)| held != path);
        self.shared.changed.notify_waiters();
    }

    /// All requests read so far, oldest first.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.lock().log.clone()
    }

    /// How many requests with this method (`"*"` = any) came for this path (`"*"` = any).
    pub fn count(&self, method: &str, path: &str) -> usize {
        let state = self.shared.lock();
        state
            .log
            .iter()
            .filter(|r| (method == "*" || r.method == method) && r.is_for(path))
            .count()
    }

    /// Waits until [`count`](Self::count) is at least `number`. Bound it with a time-out.
    pub async fn wait_for(&self, method: &str, path: &str, number: usize) {
        let hit = |r: &&RecordedRequest| (method == "*" || r.method == method) && r.is_for(path);
        self.shared
            .until(|state| state.log.iter().filter(hit).count() >= number)
            .await;
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Forgets the requests recorded so far.
    pub fn reset_log(&self) {
        self.shared.lock().log.clear();
    }

    /// Closes the listener and every connection: from now on connections are refused.
    pub async fn stop(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.abort();
            while !listener.is_finished() {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Listens again, on the same port. Does nothing if it was not stopped.
    pub fn restart(&mut self) {
        if self.listener.is_some() {
            return;
        }
        let listener = self
            .listen()
            .unwrap_or_else(|error| unreachable!("the reserved port is ours: {error}"));
        let shared = Arc::clone(&self.shared);
        let accept = async move {
            // Connections die with this set when the task is aborted.
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let number = shared.connections.fetch_add(1, Ordering::Relaxed);
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    if let Err(error) = connection::serve(socket, &shared, number).await {
                        tracing::debug!(number, %error, "connection ended");
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        };
        self.listener = Some(tokio::spawn(accept).abort_handle());
    }

    fn listen(&self) -> std::io::Result<tokio::net::TcpListener> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(self.address)?;
        socket.listen(4096)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.abort();
        }
    }
}
