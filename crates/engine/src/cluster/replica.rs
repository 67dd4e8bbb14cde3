//! This replica, and what it tells the operator of the others.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use larder_core::Clock;
use larder_storage::{Chunks, Heartbeats, Shared, SharedStanding};
use larder_upstream::PeerError;
use tokio::sync::watch;

use super::hearsay::{Hears, Hearsay};
use super::request::FlightRequest;
use super::roster::{ReplicaReport, Roster};
use super::secret::{ClusterSecret, nonce};
use crate::news::NewsDesk;

/// How often the log is told at most that replicas cannot be followed.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// The way to other replicas.
pub trait Peers: Send + Sync + Debug {
    /// Asks the replica at `address` for a download that it has under way: the bytes of [`Engine::peer_flight`](crate::Engine) there.
    ///
    /// # Errors
    /// It cannot be reached, has no such download, or does not let this one follow it.
    fn follow<'a>(
        &'a self,
        address: &'a str,
        request: &'a FlightRequest,
    ) -> BoxFuture<'a, Result<Chunks, PeerError>>;
}

/// What a replica needs to be one of several.
#[derive(Debug)]
pub struct ClusterParts {
    /// What replicas share.
    pub shared: Arc<dyn Shared>,
    /// The way to the others; `None`: what they download is waited for, and then looked for where it was kept.
    pub peers: Option<Arc<dyn Peers>>,
    /// `host:port` at which the others reach this one; `None`: not at all.
    pub advertise: Option<String>,
    /// What the others are known by; `None`: nobody is.
    pub secret: Option<ClusterSecret>,
    /// Larder's version.
    pub version: &'static str,
}

/// This replica among others.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(super) shared: Arc<dyn Shared>,
    pub(super) peers: Option<Arc<dyn Peers>>,
    /// Empty: it cannot be reached.
    address: String,
    /// What stands in its leases: `replica` and `address`.
    pub(super) label: String,
    secret: Option<ClusterSecret>,
    /// Tells this process from others, also from an earlier one at its address.
    pub(super) replica: String,
    pub(super) roster: Arc<Roster>,
    pub(super) counts: Counts,
    /// When the log was last told that a replica cannot be followed.
    warned: Mutex<Option<Instant>>,
    hearsay: OnceLock<Hearsay>,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) led: AtomicU64,
    pub(super) followed: AtomicU64,
    pub(super) waited: AtomicU64,
    pub(super) taken_over: AtomicU64,
    pub(super) served: AtomicU64,
}

/// How a replica does among the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterReport {
    /// What is shared with the others.
    pub shared: SharedStanding,
    /// Whether others can reach this one.
    pub is_advertised: bool,
    /// Counters since the start, by name: downloads begun for all replicas, got from another while they arrived, waited for, taken over
    /// from one that broke off, and given to another.
    pub counts: [(&'static str, u64); 5],
    /// A digest of this replica's configuration.
    pub config: String,
    /// The others that are there.
    pub replicas: Vec<ReplicaReport>,
}

impl ClusterReport {
    /// How many different configurations the replicas have.
    pub fn configurations(&self) -> usize {
        let others = self.replicas.iter().map(|replica| &replica.config);
        let all: BTreeSet<&String> = others.chain([&self.config]).collect();
        all.len()
    }

    /// How far the clock of any other replica is from this one's, in milliseconds.
    pub fn skew_ms(&self) -> u64 {
        let skews = self.replicas.iter().map(|replica| replica.skew_ms);
        skews.max().unwrap_or(0)
    }
}

impl Cluster {
    fn new(parts: ClusterParts, clock: Arc<dyn Clock>) -> Self {
        let (replica, address) = (nonce(), parts.advertise.unwrap_or_default());
        let own = (replica.clone(), address.clone(), parts.version);
        Self {
            roster: Roster::start(&parts.shared, clock, own),
            shared: parts.shared,
            peers: parts.peers,
            label: format!("{replica} {address}"),
            address,
            secret: parts.secret,
            replica,
            counts: Counts::default(),
            warned: Mutex::default(),
            hearsay: OnceLock::new(),
        }
    }

    pub(crate) fn secret(&self) -> Option<&ClusterSecret> {
        self.secret.as_ref()
    }

    /// Also writes into the database that this replica is there; see [`Roster`].
    pub(crate) fn write_into(&self, heartbeats: Heartbeats) {
        self.roster.write_into(heartbeats);
    }

    /// Changes when another replica has taken another configuration into use, and no service could say so.
    pub(crate) fn reloads(&self) -> watch::Receiver<u64> {
        self.roster.reloads()
    }

    /// From now on tells the others what is learnt here of upstreams, and hears what they learn. Must be called within a Tokio runtime.
    pub(crate) fn share_news<H: Hears>(&self, desk: &NewsDesk, hears: &Arc<H>) {
        if let Some(learnt) = desk.open() {
            let hearsay = Hearsay::between(&self.shared, &self.replica, learnt, hears);
            let _ = self.hearsay.set(hearsay);
        }
    }

    /// From now on this is the configuration that the others are told of.
    pub(crate) fn configured(&self, config: &str) {
        self.roster.configured(config);
    }

    /// Tells the log, and not for each file, that the replica at `address` is there and cannot be followed.
    pub(super) fn tell_closed(&self, address: &str, why: &str) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            *warned = Some(Instant::now());
            tracing::warn!(
                address,
                why,
                "another replica cannot be followed: what it downloads is waited for, and fetched again if that takes long"
            );
        }
    }

    pub(crate) fn report(&self) -> ClusterReport {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.counts;
        ClusterReport {
            shared: self.shared.standing(),
            is_advertised: !self.address.is_empty(),
            counts: [
                ("led", count(&counts.led)),
                ("followed", count(&counts.followed)),
                ("waited", count(&counts.waited)),
                ("taken_over", count(&counts.taken_over)),
                ("served", count(&counts.served)),
            ],
            config: self.roster.config(),
            replicas: self.roster.others(),
        }
    }
}

pub(super) fn tick(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// The cluster, once this replica has joined one.
#[derive(Debug, Default)]
pub(crate) struct Membership(OnceLock<Arc<Cluster>>);

impl Membership {
    /// Joins; the first call counts.
    pub(crate) fn join(&self, parts: ClusterParts, clock: &Arc<dyn Clock>) -> &Arc<Cluster> {
        self.0
            .get_or_init(|| Arc::new(Cluster::new(parts, Arc::clone(clock))))
    }

    pub(crate) fn get(&self) -> Option<&Arc<Cluster>> {
        self.0.get()
    }
}
