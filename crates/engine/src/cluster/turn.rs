//! Whose turn it is to ask the upstream for a source.

use std::sync::Arc;
use std::time::Duration;

use larder_storage::Attempt;
use larder_upstream::UpstreamResponse;

use super::lead::{Lead, lease_name};
use super::relay::{Joined, Relay};
use super::replica::{Cluster, Membership, tick};
use crate::target::Target;
use crate::transfer::flight::Flight;

/// How often a flight asks whose turn it is, before it helps itself.
const MOST_ROUNDS: u32 = 4;
/// How often in one round, where holders turn out to be gone.
pub(super) const TRIES: u32 = 4;
/// How long a download elsewhere is waited for that cannot be followed.
pub(super) const WAIT: Duration = Duration::from_secs(10);
/// How long it is waited until what has been found out elsewhere stands in the database.
const LANDING: Duration = Duration::from_secs(5);
/// The same until a file is kept elsewhere, for each so many bytes of it: a store that is slower than that is not waited for.
const LEAST_KEPT: u64 = 4 << 20;

/// What a flight has to do that would ask the upstream.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Ask: nobody else does, as far as can be told.
    Ours,
    /// Look at the database again: another replica may have asked meanwhile.
    LookAgain,
    /// Take this answer, which another replica is receiving just now.
    Relayed(Box<UpstreamResponse>),
}

impl Membership {
    /// Whose turn it is. `may_look`: whether what another replica finds out will do.
    pub(crate) async fn turn(&self, flight: &Arc<Flight>, wanted: &Target, may_look: bool) -> Turn {
        match self.get() {
            // Who leads has looked again already.
            Some(cluster) if !flight.is_kept() && flight.asks() <= MOST_ROUNDS => {
                cluster.turn(flight, wanted, may_look).await
            }
            _ => Turn::Ours,
        }
    }

    /// Waits until the replica whose download this flight has followed has kept what came, which has `length` bytes. Who keeps it after that
    /// finds it in the store. Ends also when that replica has gone, when nobody can tell, and when it takes too long.
    pub(crate) async fn kept_elsewhere(&self, flight: &Flight, length: u64) {
        let (Some(cluster), Some(fence)) = (self.get(), flight.followed()) else {
            return;
        };
        let patience = LANDING + Duration::from_secs(length / LEAST_KEPT);
        let name = lease_name(&flight.key);
        cluster.until_released(&name, fence, patience).await;
    }
}

impl Cluster {
    async fn turn(self: &Arc<Self>, flight: &Arc<Flight>, wanted: &Target, may_look: bool) -> Turn {
        let (name, mut over) = (lease_name(&wanted.key), None);
        let found_out = if may_look {
            Turn::LookAgain
        } else {
            Turn::Ours
        };
        for _ in 0..TRIES {
            let gone = over.take();
            let holder = match self.attempt(&name, gone).await {
                Attempt::Unknown => return Turn::Ours,
                Attempt::Taken(lease) => {
                    tick(&self.counts.led);
                    if gone.is_some() {
                        tick(&self.counts.taken_over);
                    }
                    flight.keep(Lead::new(&self.shared, lease));
                    // The record may have come between the look at it and the lease.
                    return found_out;
                }
                Attempt::Held(holder) => holder,
            };
            match self.join(&wanted.key, &holder, 0).await {
                Joined::Begun(head, frames) => {
                    tick(&self.counts.followed);
                    let relayed = Relay::response(self, flight, wanted, &holder, head, frames);
                    return relayed
                        .map_or(Turn::Ours, |response| Turn::Relayed(Box::new(response)));
                }
                Joined::Over => {
                    tick(&self.counts.waited);
                    self.until_released(&name, holder.fence, LANDING).await;
                    return found_out;
                }
                Joined::Unreachable => {
                    tick(&self.counts.waited);
                    let released = self.until_released(&name, holder.fence, WAIT).await;
                    return if released { found_out } else { Turn::Ours };
                }
                Joined::Gone => over = Some(holder.fence),
            }
        }
        Turn::Ours
    }
}
