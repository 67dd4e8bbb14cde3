//! Bounds on requests to upstreams that all replicas keep to together: each says what it has under way, and is told how much it may have.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use larder_storage::{Pace, RationClaim};
use larder_upstream::{ClusterLimits, HostClaim, Moment};

use super::replica::Cluster;

/// How long what a replica has said holds: who has died holds up the others for no longer.
const LIFE: Duration = Duration::from_secs(5);

impl ClusterLimits for Cluster {
    fn share<'a>(&'a self, host: &'a str, claim: HostClaim) -> BoxFuture<'a, Option<u32>> {
        async move {
            let claim = RationClaim {
                holder: &self.replica,
                limit: claim.limit,
                held: claim.held,
                wanted: claim.wanted,
                ttl: LIFE,
            };
            self.shared.ration(&name(host), &claim).await
        }
        .boxed()
    }

    fn moment<'a>(
        &'a self,
        host: &'a str,
        apart: Duration,
        patience: Duration,
    ) -> BoxFuture<'a, Option<Moment>> {
        async move {
            let pace = self.shared.pace(&name(host), apart, patience).await?;
            Some(match pace {
                Pace::After(wait) => Moment::After(wait),
                Pace::TooLong(wait) => Moment::TooLong(wait),
            })
        }
        .boxed()
    }

    fn replicas(&self) -> u32 {
        self.roster.last_seen()
    }
}

/// What the requests to a host are called.
fn name(host: &str) -> String {
    format!("upstream\n{host}")
}
