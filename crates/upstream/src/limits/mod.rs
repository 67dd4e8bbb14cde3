//! How many requests one host gets at once and in a second, where the operator has set a bound (`limits.upstream`, `limits` of a remote).
//! A request counts until its body has come or is not wanted any more; of an answer that is no success, until its head has come.
//!
//! Several replicas keep to the bound together ([`ClusterLimits`]), and each to its part of it where it cannot be told what the others
//! do. Whoever has to wait does so in a queue of its repository, for a bounded time.
//!
//! | file | knows |
//! |---|---|
//! | `mod.rs` | which bound is whose, and how long one waits |
//! | `host.rs` | requests at once to one host, here and elsewhere |
//! | `pace.rs` | requests in a second to one host |

mod host;
mod pace;

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use larder_core::{RequestLimits, UpstreamSettings};
use tokio::time::Instant;
use url::Url;

use self::host::{Host, Place};
use crate::UpstreamRequest;

/// How long one waits at most.
const PATIENCE: Duration = Duration::from_secs(30);
/// A cluster that cannot tell for so long is away: then each replica keeps to its part. Until then nothing is begun.
const GRACE: Duration = Duration::from_secs(1);
/// So many hosts are remembered before those that nobody asks at present are forgotten.
const SWEEP_ABOVE: usize = 256;

/// What one replica says of its requests to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostClaim {
    /// How many all replicas together may have at once.
    pub limit: u32,
    /// How many are under way here. No more are begun until it is said that they may be.
    pub held: u32,
    /// How many there would be, including those.
    pub wanted: u32,
}

/// What came of asking for the moment of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// It may go out after this time.
    After(Duration),
    /// It could after this time, which is too long.
    TooLong(Duration),
}

/// What the replicas of a cluster agree upon. Whoever knows the others implements it.
pub trait ClusterLimits: Send + Sync + Debug {
    /// How many requests to `host` may be under way here from now on: fewer than there are, perhaps. `None`: it cannot be told.
    fn share<'a>(&'a self, host: &'a str, claim: HostClaim) -> BoxFuture<'a, Option<u32>>;

    /// The next moment for a request to `host`, of those that lie `apart`, if it comes within `patience`. `None`: it cannot be told.
    fn moment<'a>(
        &'a self,
        host: &'a str,
        apart: Duration,
        patience: Duration,
    ) -> BoxFuture<'a, Option<Moment>>;

    /// How many replicas there are, this one included, as far as they were heard the last time that they could be; at least 1.
    fn replicas(&self) -> u32;
}

/// Why a request was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoTurn {
    #[error(
        "not asked: it had no turn within {} s, for {limit} requests to this host are under way (concurrency of limits)",
        .waited.as_secs()
    )]
    TooManyAtOnce { limit: u32, waited: Duration },
    #[error(
        "not asked: its turn would come in {} s only, for one request is sent to this host each {} s (rate of limits)",
        .wait.as_secs(), .apart.as_secs_f64()
    )]
    TooMany { wait: Duration, apart: Duration },
}

/// The right to have one request under way, until it is dropped. Without a bound it is nothing.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    // Boxed: every answer on its way carries it, and has one where there is a bound only.
    _place: Option<Box<Place>>,
}

/// The bounds of all hosts.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    hosts: Mutex<HashMap<String, Arc<Host>>>,
    cluster: OnceLock<Arc<dyn ClusterLimits>>,
}

impl Limits {
    /// From now on all replicas keep to the bounds together; the first call counts.
    pub(crate) fn keep_to(&self, cluster: Arc<dyn ClusterLimits>) {
        let _ = self.cluster.set(cluster);
    }

    /// Waits until `request` may be sent to the host of `url`.
    ///
    /// # Errors
    /// It may not within the time that anybody waits, or that this request has.
    pub(crate) async fn turn(
        &self,
        request: &UpstreamRequest,
        settings: &UpstreamSettings,
        url: &Url,
    ) -> Result<Turn, NoTurn> {
        let limits = settings.limits;
        if limits == RequestLimits::default() {
            return Ok(Turn::default());
        }
        let patience = request
            .patience
            .map_or(PATIENCE, |patience| patience.min(PATIENCE));
        let until = Instant::now() + patience;
        let host = self.host(&name(request, limits, url));
        let cluster = self.cluster.get();
        let repository = request.repository.name.as_str();
        let place = match limits.concurrency {
            Some(limit) => {
                let place = host.place(cluster, repository, limit, patience).await;
                let waited = patience;
                let place = place.ok_or(NoTurn::TooManyAtOnce { limit, waited })?;
                Some(Box::new(place))
            }
            None => None,
        };
        if let Some(apart) = limits.apart {
            let left = until.saturating_duration_since(Instant::now());
            match host.moment(cluster, apart, left).await {
                Moment::After(wait) => tokio::time::sleep(wait).await,
                Moment::TooLong(wait) => return Err(NoTurn::TooMany { wait, apart }),
            }
        }
        Ok(Turn { _place: place })
    }

    fn host(&self, name: &str) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get(name) {
            return Arc::clone(host);
        }
        if hosts.len() >= SWEEP_ABOVE {
            hosts.retain(|_, host| Arc::strong_count(host) > 1 || host.is_paced());
        }
        let host = Arc::new(Host::new(name));
        hosts.insert(name.to_owned(), Arc::clone(&host));
        host
    }
}

/// What is counted as one: the requests to a host, or those of one repository to it, if that has bounds of its own.
fn name(request: &UpstreamRequest, limits: RequestLimits, url: &Url) -> String {
    let origin = url.origin().ascii_serialization();
    if limits.is_own {
        format!("{origin} {}", request.repository.name)
    } else {
        origin
    }
}

#[cfg(test)]
mod tests;
