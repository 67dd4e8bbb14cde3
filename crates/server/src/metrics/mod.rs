//! What `/metrics` shows of the server: requests by repository, kind and status class, bytes, connections, latencies. Counting on the
//! path of hits takes no lock.
//!
//! | file | knows |
//! |---|---|
//! | `mod.rs` | what is counted, and how |
//! | `page.rs` | the page, with the engine's counters and the node's state beside these |
//! | `help.rs` | what each metric means |
//! | `process.rs` | what the kernel says of the process |
//! | `store.rs` | the store of blobs, where it is one of objects |
//! | `traffic.rs` | what the engine writes down of it |

mod budgets;
mod cluster;
mod help;
mod page;
mod process;
mod store;
mod traffic;
mod upstreams;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::StatusCode;
use larder_core::{CacheStatus, Fault, ForwardReason, RequestId, Source, UnixMillis};
use larder_engine::RecentErrors;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

pub(crate) use self::page::Node;
pub(crate) use self::process::Process;
use crate::backend::CounterSnapshot;
use crate::refused::Refused;
use crate::striped::Striped;

/// How a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestKind {
    Hit,
    Miss,
    Collapsed,
    Stale,
    Revalidated,
    Bypass,
    Refused,
    /// Everything that is no artifact.
    Other,
}

const KINDS: [(RequestKind, &str); 8] = [
    (RequestKind::Hit, "hit"),
    (RequestKind::Miss, "miss"),
    (RequestKind::Collapsed, "collapsed"),
    (RequestKind::Stale, "stale"),
    (RequestKind::Revalidated, "revalidated"),
    (RequestKind::Bypass, "bypass"),
    (RequestKind::Refused, "refused"),
    (RequestKind::Other, "other"),
];

/// Where the bytes of an answer came from.
const SOURCES: [&str; 2] = ["cache", "remote"];

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl RequestKind {
    pub(crate) fn of(status: &CacheStatus) -> Self {
        match status {
            CacheStatus {
                detail: Some(detail),
                ..
            } if detail.starts_with("stale") => Self::Stale,
            CacheStatus { hit: true, .. } => Self::Hit,
            CacheStatus {
                collapsed: true, ..
            } => Self::Collapsed,
            CacheStatus {
                forward_status: Some(304),
                ..
            }
            | CacheStatus {
                detail: Some(CacheStatus::UNCHANGED),
                ..
            } => Self::Revalidated,
            CacheStatus {
                forward: None | Some(ForwardReason::Method | ForwardReason::Bypass),
                ..
            } => Self::Bypass,
            _ => Self::Miss,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        KINDS[self as usize].1
    }
}

/// Request counters of one repository.
#[derive(Debug, Default)]
pub(crate) struct RepositoryRequests {
    cells: [[AtomicU64; CLASSES.len()]; KINDS.len()],
    /// Answers out of the hot set, by whether they had a body (200 and 206, or 304 and the like).
    hot: [Striped; CLASSES.len()],
    /// Body bytes handed to connections, by where they came from.
    sent: [BytesSent; SOURCES.len()],
    /// Requests of larder's own that have come back to it.
    loops: AtomicU64,
}

impl RepositoryRequests {
    pub(crate) fn count(&self, kind: RequestKind, status: StatusCode) {
        self.cells[kind as usize][class(status)].fetch_add(1, Relaxed);
    }

    pub(crate) fn count_hot(&self, status: StatusCode) {
        self.hot[class(status)].add(1);
    }

    /// Adds to the bytes sent of answers from there.
    pub(crate) fn sent(&self, source: Source) -> &BytesSent {
        let [cache, remote] = &self.sent;
        match source {
            Source::Cache => cache,
            Source::Remote => remote,
        }
    }

    pub(crate) fn count_loop(&self) {
        self.loops.fetch_add(1, Relaxed);
    }

    fn reset(&self) {
        self.loops.store(0, Relaxed);
        self.cells
            .iter()
            .flatten()
            .for_each(|cell| cell.store(0, Relaxed));
        self.hot.iter().for_each(Striped::reset);
        self.sent.iter().for_each(|sent| sent.0.reset());
    }
}

fn class(status: StatusCode) -> usize {
    usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1
}

/// The server's own counters.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Grows with the configuration only: a name that is no repository is counted under the empty name.
    /// Read without a lock at every request.
    repositories: ArcSwap<BTreeMap<String, Arc<RepositoryRequests>>>,
    connections: AtomicI64,
    connections_refused: AtomicU64,
    connections_stalled: AtomicU64,
    in_flight: AtomicI64,
    refused: Refused,
    /// Where errors are noted for operators to see, once that is known.
    errors: OnceLock<Arc<RecentErrors>>,
    latency: Family<[(&'static str, &'static str); 1], Histogram>,
}

/// Adds to the bytes sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct BytesSent(Arc<Striped>);

impl BytesSent {
    pub(crate) fn add(&self, count: u64) {
        self.0.add(count);
    }

    fn sum(&self) -> u64 {
        self.0.sum()
    }
}

/// Counts something as present until it is dropped.
#[derive(Debug)]
pub(crate) struct Present(Arc<Metrics>, fn(&Metrics) -> &AtomicI64);

impl Drop for Present {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Relaxed);
    }
}

impl Metrics {
    pub(crate) fn new() -> Arc<Self> {
        // From a cached document to a slow upstream's first byte.
        let buckets = || Histogram::new([0.0005, 0.002, 0.01, 0.05, 0.2, 1.0, 5.0, 30.0]);
        Arc::new(Self {
            repositories: ArcSwap::default(),
            connections: AtomicI64::new(0),
            connections_refused: AtomicU64::new(0),
            connections_stalled: AtomicU64::new(0),
            in_flight: AtomicI64::new(0),
            refused: Refused::default(),
            errors: OnceLock::new(),
            latency: Family::new_with_constructor(buckets),
        })
    }

    /// What has been refused.
    pub(crate) fn refused(&self) -> &Refused {
        &self.refused
    }

    /// From now on errors are noted there, too.
    pub(crate) fn tell_of_errors(&self, errors: Arc<RecentErrors>) {
        let _ = self.errors.set(errors);
    }

    /// Notes what a client was told, if it is an error. `broke_off`: it ended a body.
    pub(crate) fn note_error(
        &self,
        fault: &Fault,
        broke_off: bool,
        (repository, path, id): (&str, &str, RequestId),
        now: UnixMillis,
    ) {
        if let Some(errors) = self.errors.get() {
            errors.note(fault, broke_off, (repository, path, id.to_string()), now);
        }
    }

    /// The counters of a configured repository; of none with the empty name.
    pub(crate) fn repository(&self, name: &str) -> Arc<RepositoryRequests> {
        if let Some(known) = self.repositories.load().get(name) {
            return Arc::clone(known);
        }
        let new: Arc<RepositoryRequests> = Arc::default();
        let with_new = |all: &Arc<BTreeMap<_, _>>| {
            let mut all = BTreeMap::clone(all);
            // Somebody else may have been first.
            all.entry(name.to_owned())
                .or_insert_with(|| Arc::clone(&new));
            all
        };
        self.repositories.rcu(with_new);
        self.repositories.load().get(name).cloned().unwrap_or(new)
    }

    /// The time to the head of an answer that did not come out of the hot set.
    pub(crate) fn observe(&self, kind: RequestKind, elapsed: Duration) {
        self.latency
            .get_or_create(&[("kind", kind.as_str())])
            .observe(elapsed.as_secs_f64());
    }

    pub(crate) fn connection(self: &Arc<Self>) -> Present {
        self.connections.fetch_add(1, Relaxed);
        Present(Arc::clone(self), |metrics| &metrics.connections)
    }

    pub(crate) fn request(self: &Arc<Self>) -> Present {
        self.in_flight.fetch_add(1, Relaxed);
        Present(Arc::clone(self), |metrics| &metrics.in_flight)
    }

    /// The connection could not be taken on (handshake failed).
    pub(crate) fn connection_failed(&self) {
        self.connections_refused.fetch_add(1, Relaxed);
    }

    /// A client took too little of its answer for too long.
    pub(crate) fn connection_stalled(&self) {
        self.connections_stalled.fetch_add(1, Relaxed);
    }

    /// Sets the counters to zero (`PUT /cache/flush?cache_type=metrics`): those of one repository, or all.
    pub(crate) fn reset(&self, repository: Option<&str>) {
        let is_meant = |name: &String| repository.is_none_or(|only| name == only);
        for (name, requests) in self.repositories.load().iter() {
            if is_meant(name) {
                requests.reset();
            }
        }
        self.refused.reset(repository);
        if repository.is_some() {
            return;
        }
        self.connections_refused.store(0, Relaxed);
        self.connections_stalled.store(0, Relaxed);
        self.latency.clear();
    }

    /// Everything in Prometheus' text format.
    pub(crate) fn render(
        self: &Arc<Self>,
        engine: CounterSnapshot,
        hot: HotSetSize,
        node: Node,
    ) -> Result<String, std::fmt::Error> {
        page::render(self, engine, hot, node)
    }
}

/// What the hot set holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct HotSetSize {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_stands_at_its_own_place_in_the_table() {
        for (position, (kind, _)) in KINDS.iter().enumerate() {
            assert_eq!(*kind as usize, position);
        }
    }
}
