//! What is shared within one process: the default, and what tests of several engines use.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _, ready};
use tokio::sync::broadcast;
use tokio::time::Instant;

use super::ration::{Entry, settle, take_moment};
use super::{
    Attempt, BACKLOG, Fence, Holder, Lease, Pace, RationClaim, Renewal, Shared, SharedStanding,
    Subscription, Told, millis, pace_micros, token,
};

/// So many leases are remembered before those that have run out are forgotten.
const SWEEP_ABOVE: usize = 1_024;

/// Shared by all who hold the same one.
#[derive(Debug)]
pub struct MemoryShared {
    state: Mutex<State>,
    /// What times of rations are counted from.
    began: Instant,
}

impl Default for MemoryShared {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            began: Instant::now(),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    rations: HashMap<String, Vec<Entry>>,
    moments: HashMap<String, u64>,
    last_fence: u64,
    leases: HashMap<String, Held>,
    topics: HashMap<String, broadcast::Sender<Told>>,
}

#[derive(Debug)]
struct Held {
    lease: Lease,
    until: Instant,
}

impl MemoryShared {
    /// Nothing is leased.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn lease(&mut self, key: &str, data: &str, ttl: Duration, over: Option<Fence>) -> Attempt {
        let now = Instant::now();
        if let Some(held) = self.leases.get(key)
            && held.until > now
            && over != Some(held.lease.fence)
        {
            return Attempt::Held(held.holder(now));
        }
        if self.leases.len() > SWEEP_ABOVE {
            self.leases.retain(|_, held| held.until > now);
        }
        self.last_fence += 1;
        let lease = Lease {
            key: key.to_owned(),
            token: token(),
            data: data.to_owned(),
            fence: Fence(self.last_fence),
        };
        let held = Held {
            lease: lease.clone(),
            until: now + Duration::from_millis(millis(ttl)),
        };
        self.leases.insert(key.to_owned(), held);
        Attempt::Taken(lease)
    }

    fn renew(&mut self, lease: &Lease, ttl: Duration) -> Renewal {
        match self.leases.get_mut(&lease.key) {
            Some(held) if held.lease.token == lease.token => {
                held.until = Instant::now() + Duration::from_millis(millis(ttl));
                Renewal::Kept
            }
            _ => Renewal::Lost,
        }
    }
}

impl Held {
    fn holder(&self, now: Instant) -> Holder {
        Holder {
            data: self.lease.data.clone(),
            fence: self.lease.fence,
            left: self.until - now,
        }
    }
}

impl Shared for MemoryShared {
    fn lease<'a>(
        &'a self,
        key: &'a str,
        data: &'a str,
        ttl: Duration,
        over: Option<Fence>,
    ) -> BoxFuture<'a, Attempt> {
        ready(self.state().lease(key, data, ttl, over)).boxed()
    }

    fn renew<'a>(&'a self, lease: &'a Lease, ttl: Duration) -> BoxFuture<'a, Renewal> {
        ready(self.state().renew(lease, ttl)).boxed()
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, ()> {
        let mut state = self.state();
        let is_held = |held: &Held| held.lease.token == lease.token;
        if state.leases.get(&lease.key).is_some_and(is_held) {
            state.leases.remove(&lease.key);
        }
        ready(()).boxed()
    }

    fn holder<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Option<Holder>> {
        let now = Instant::now();
        let state = self.state();
        let held = state.leases.get(key).filter(|held| held.until > now);
        ready(held.map(|held| held.holder(now))).boxed()
    }

    fn ration<'a>(
        &'a self,
        key: &'a str,
        claim: &'a RationClaim<'a>,
    ) -> BoxFuture<'a, Option<u32>> {
        let now = self.began.elapsed().as_millis() as u64;
        let mut state = self.state();
        let entries = state.rations.entry(key.to_owned()).or_default();
        let granted = settle(entries, claim, now, millis(claim.ttl));
        state.rations.retain(|_, entries| !entries.is_empty());
        ready(Some(granted)).boxed()
    }

    fn pace<'a>(
        &'a self,
        key: &'a str,
        apart: Duration,
        patience: Duration,
    ) -> BoxFuture<'a, Option<Pace>> {
        let now = self.began.elapsed().as_micros() as u64;
        let mut state = self.state();
        if state.moments.len() > SWEEP_ABOVE {
            state.moments.retain(|_, next| *next > now);
        }
        let next = state.moments.entry(key.to_owned()).or_default();
        let pace = take_moment(next, now, pace_micros(apart), pace_micros(patience));
        ready(Some(pace)).boxed()
    }

    fn publish<'a>(&'a self, topic: &'a str, message: &'a [u8]) -> BoxFuture<'a, bool> {
        if let Some(sender) = self.state().topics.get(topic) {
            // That nobody listens is no failure.
            let _ = sender.send(Told::Message(Bytes::copy_from_slice(message)));
        }
        ready(true).boxed()
    }

    fn subscribe(&self, topic: &str) -> Subscription {
        let mut state = self.state();
        let sender = state.topics.entry(topic.to_owned());
        let sender = sender.or_insert_with(|| broadcast::Sender::new(BACKLOG));
        Subscription {
            receiver: sender.subscribe(),
            _task: None,
        }
    }

    fn standing(&self) -> SharedStanding {
        SharedStanding {
            kind: "memory",
            ok: true,
            detail: None,
        }
    }
}
