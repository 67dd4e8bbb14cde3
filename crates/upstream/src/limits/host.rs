//! Requests at once to one host. Here they wait in a pool; how large that is, the cluster says, again and again as long as any are under
//! way or wanted. While it is asked nothing is begun beyond what it is told of, so that what it gives to others is not in use here.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use larder_budget::{BudgetKind, Lease, Party, Pool, Waits};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::pace::Paces;
use super::{ClusterLimits, GRACE, HostClaim, Moment, PATIENCE};

/// How many of one repository may wait for a host.
const MOST_WAITING: usize = 1_024;
/// How often the cluster is told of what is under way: well within the life of what it was told.
const BEAT: Duration = Duration::from_secs(1);
/// How often it is asked while more is wanted than may be.
const CONTENDED: Duration = Duration::from_millis(25);

/// One host.
#[derive(Debug)]
pub(super) struct Host {
    name: String,
    pool: Arc<Pool>,
    /// The bound, as the last request brought it.
    limit: AtomicU32,
    /// Requests that are under way or wanted.
    interested: AtomicU32,
    /// Told when there are others.
    changed: Notify,
    asking: Mutex<Asking>,
    paces: Paces,
}

#[derive(Debug, Default)]
struct Asking {
    /// Somebody asks the cluster.
    is_running: bool,
    /// Since when the cluster cannot tell.
    away_since: Option<Instant>,
}

/// The place of one request, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    // Given back before it is said that fewer are under way.
    _lease: Lease,
    _interest: Interest,
}

/// Says that a request is under way or wanted, until it is dropped.
#[derive(Debug)]
struct Interest(Arc<Host>);

impl Drop for Interest {
    fn drop(&mut self) {
        self.0.interested.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_one();
    }
}

impl Host {
    pub(super) fn new(name: &str) -> Self {
        let waits = Waits {
            most: MOST_WAITING,
            longest: PATIENCE,
        };
        Self {
            name: name.to_owned(),
            pool: Pool::of_one_upstream(BudgetKind::UpstreamRequests, 0, waits),
            limit: AtomicU32::new(0),
            interested: AtomicU32::new(0),
            changed: Notify::new(),
            asking: Mutex::default(),
            paces: Paces::default(),
        }
    }

    fn asking(&self) -> MutexGuard<'_, Asking> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place among `limit`, waited for as long as `patience`; `None` if there is none then, or too many wait.
    pub(super) async fn place(
        self: &Arc<Self>,
        cluster: Option<&Arc<dyn ClusterLimits>>,
        repository: &str,
        limit: u32,
        patience: Duration,
    ) -> Option<Place> {
        self.interested.fetch_add(1, Ordering::AcqRel);
        let interest = Interest(Arc::clone(self));
        let before = self.limit.swap(limit, Ordering::AcqRel);
        match cluster {
            Some(cluster) => self.ask_on(cluster),
            None if before != limit => self.pool.resize(u64::from(limit)),
            None => {}
        }
        let party = Party::alone(repository);
        let leased = self.pool.lease_within(party, 1, patience).await;
        let lease = leased.inspect_err(|refused| self.pool.tell_of(repository, *refused));
        Some(Place {
            _lease: lease.ok()?,
            _interest: interest,
        })
    }

    /// See [`Paces::moment`].
    pub(super) async fn moment(
        &self,
        cluster: Option<&Arc<dyn ClusterLimits>>,
        apart: Duration,
        patience: Duration,
    ) -> Moment {
        let of = (apart, patience);
        self.paces.moment(&self.name, cluster, of).await
    }

    /// Whether something would be forgotten with it.
    pub(super) fn is_paced(&self) -> bool {
        self.paces.is_ahead()
    }

    /// Sees to it that the cluster is asked, now and as long as anybody is interested.
    fn ask_on(self: &Arc<Self>, cluster: &Arc<dyn ClusterLimits>) {
        let was_running = std::mem::replace(&mut self.asking().is_running, true);
        if was_running {
            self.changed.notify_one();
        } else {
            let (host, cluster) = (Arc::clone(self), Arc::clone(cluster));
            tokio::spawn(async move { host.ask(&*cluster).await });
        }
    }

    async fn ask(&self, cluster: &dyn ClusterLimits) {
        loop {
            let pause = self.ask_once(cluster).await;
            {
                let mut asking = self.asking();
                if self.interested.load(Ordering::Acquire) == 0 {
                    asking.is_running = false;
                    return;
                }
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Asks, and says when to ask again.
    async fn ask_once(&self, cluster: &dyn ClusterLimits) -> Duration {
        let (held, _) = self.pool.freeze();
        let (limit, wanted) = (
            self.limit.load(Ordering::Acquire),
            self.interested.load(Ordering::Acquire),
        );
        let claim = HostClaim {
            limit,
            held: u32::try_from(held).unwrap_or(u32::MAX),
            wanted,
        };
        let granted = cluster.share(&self.name, claim).await;
        let is_away = {
            let mut asking = self.asking();
            if granted.is_some() {
                asking.away_since = None;
            }
            let since = granted
                .is_none()
                .then(|| *asking.away_since.get_or_insert_with(Instant::now));
            since.is_some_and(|since| since.elapsed() >= GRACE)
        };
        let may = match granted {
            Some(granted) => granted,
            None if is_away => part_of(limit, cluster.replicas()),
            None => return CONTENDED,
        };
        if wanted > 0 {
            self.pool.resize(u64::from(may));
        }
        if may < wanted { CONTENDED } else { BEAT }
    }
}

/// What one of so many replicas keeps to by itself: one at least, for with none it could do nothing.
fn part_of(limit: u32, replicas: u32) -> u32 {
    (limit / replicas.max(1)).max(1)
}
