//! Requests in a second to one host: each has a moment of its own, and none are saved up.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{ClusterLimits, GRACE, Moment};

/// The moments of one host, where no cluster gives them.
#[derive(Debug, Default)]
pub(super) struct Paces {
    next: Mutex<Option<Instant>>,
    /// Since when the cluster cannot tell.
    away_since: Mutex<Option<Instant>>,
}

/// After this it is asked again.
const AGAIN: Duration = Duration::from_millis(50);

impl Paces {
    /// The next moment, of those that lie `apart` for all replicas together.
    pub(super) async fn moment(
        &self,
        host: &str,
        cluster: Option<&Arc<dyn ClusterLimits>>,
        (apart, patience): (Duration, Duration),
    ) -> Moment {
        let Some(cluster) = cluster else {
            return self.own(apart, patience);
        };
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let moment = cluster.moment(host, apart, left).await;
            match moment {
                Some(moment) => {
                    *self.away() = None;
                    return moment;
                }
                // One that is slow for a moment is asked again: what it has given to others is not known here.
                None if !self.is_away() => sleep(AGAIN).await,
                None => return self.own(apart * cluster.replicas().max(1), left),
            }
        }
    }

    fn away(&self) -> MutexGuard<'_, Option<Instant>> {
        self.away_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the cluster, which could not tell just now, has not been able to for some time.
    fn is_away(&self) -> bool {
        let since = *self.away().get_or_insert_with(Instant::now);
        since.elapsed() >= GRACE
    }

    fn own(&self, apart: Duration, patience: Duration) -> Moment {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let at = next.unwrap_or(now).max(now);
        let wait = at - now;
        if wait > patience {
            return Moment::TooLong(wait);
        }
        *next = Some(at + apart);
        Moment::After(wait)
    }

    /// Whether a moment is taken that is still to come.
    pub(super) fn is_ahead(&self) -> bool {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.is_some_and(|next| next > Instant::now())
    }
}
