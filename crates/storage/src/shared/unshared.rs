//! Replicas that share nothing but the database: nobody can tell who does what, and no word gets through.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use tokio::sync::broadcast;

use super::{
    Attempt, BACKLOG, Fence, Holder, Lease, Pace, RationClaim, Renewal, Shared, SharedStanding,
    Subscription,
};

/// In place of a service where none is configured.
#[derive(Debug)]
pub struct Unshared {
    /// Kept, so that who listens waits.
    silence: broadcast::Sender<super::Told>,
}

impl Unshared {
    /// Nothing, which is always there.
    pub fn new() -> Self {
        Self {
            silence: broadcast::Sender::new(BACKLOG),
        }
    }
}

impl Default for Unshared {
    fn default() -> Self {
        Self::new()
    }
}

impl Shared for Unshared {
    fn lease<'a>(
        &'a self,
        _key: &'a str,
        _data: &'a str,
        _ttl: Duration,
        _over: Option<Fence>,
    ) -> BoxFuture<'a, Attempt> {
        ready(Attempt::Unknown).boxed()
    }

    fn renew<'a>(&'a self, _lease: &'a Lease, _ttl: Duration) -> BoxFuture<'a, Renewal> {
        ready(Renewal::Unknown).boxed()
    }

    fn release<'a>(&'a self, _lease: &'a Lease) -> BoxFuture<'a, ()> {
        ready(()).boxed()
    }

    fn holder<'a>(&'a self, _key: &'a str) -> BoxFuture<'a, Option<Holder>> {
        ready(None).boxed()
    }

    fn ration<'a>(
        &'a self,
        _key: &'a str,
        _claim: &'a RationClaim<'a>,
    ) -> BoxFuture<'a, Option<u32>> {
        ready(None).boxed()
    }

    fn pace<'a>(
        &'a self,
        _key: &'a str,
        _apart: Duration,
        _patience: Duration,
    ) -> BoxFuture<'a, Option<Pace>> {
        ready(None).boxed()
    }

    fn publish<'a>(&'a self, _topic: &'a str, _message: &'a [u8]) -> BoxFuture<'a, bool> {
        ready(false).boxed()
    }

    fn subscribe(&self, _topic: &str) -> Subscription {
        Subscription {
            receiver: self.silence.subscribe(),
            _task: None,
        }
    }

    /// It does all that it is there for.
    fn standing(&self) -> SharedStanding {
        SharedStanding {
            kind: "none",
            ok: true,
            detail: None,
        }
    }
}
