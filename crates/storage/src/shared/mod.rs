//! What replicas share beside the database: who does a thing that one of them does for all ([`Shared::lease`]), how much each may use of
//! what all have together ([`Shared::ration`], [`Shared::pace`]), and word that something has happened ([`Shared::publish`]).
//!
//! Everything here is a hint. A lease that is lost, a notice that does not arrive and a service that does not answer make larder
//! slower, never wrong: the database decides what holds. So nothing here fails: what cannot be had is [`Attempt::Unknown`], and each
//! call ends within [`PATIENCE`].

pub mod conformance;
mod memory;
mod notices;
mod ration;
mod redis;
mod unshared;

use std::collections::hash_map::RandomState;
use std::fmt::{Debug, Write as _};
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::broadcast;
use tokio::task::AbortHandle;

pub use self::memory::MemoryShared;
pub(crate) use self::notices::Bells;
pub use self::notices::{Bell, Notices};
pub use self::ration::{Pace, RationClaim};
pub use self::redis::{RedisAddress, RedisShared};
pub use self::unshared::Unshared;

/// How long a call may take at most, whatever the service does.
const PATIENCE: Duration = Duration::from_millis(250);
/// The longest time for which a lease may be taken or renewed.
pub const LONGEST_LEASE: Duration = Duration::from_secs(120);
/// Messages that a subscriber may be behind before it is told that it has missed some.
const BACKLOG: usize = 256;

/// What replicas share. Keys and topics are of one cluster: who makes the implementation sees to that.
pub trait Shared: Send + Sync + Debug {
    /// Takes the lease called `key` for `ttl` (at most [`LONGEST_LEASE`]), unless somebody has it. `data` is for those who find it
    /// held, such as the address of the holder: one line of text. With `over`, a lease with that fence is taken away from its holder,
    /// who does not do what it was taken for any more.
    fn lease<'a>(
        &'a self,
        key: &'a str,
        data: &'a str,
        ttl: Duration,
        over: Option<Fence>,
    ) -> BoxFuture<'a, Attempt>;

    /// Keeps a lease for `ttl` from now. One that has run out, and that nobody has taken since, is had again.
    fn renew<'a>(&'a self, lease: &'a Lease, ttl: Duration) -> BoxFuture<'a, Renewal>;

    /// Gives a lease back, unless somebody else has it by now.
    fn release<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, ()>;

    /// Who has the lease called `key`; `None` if nobody has, or it cannot be told.
    fn holder<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Option<Holder>>;

    /// Says how much the holder of `claim` uses and wants of what is called `key`, and gives how much of it it may use from now on; with
    /// what others may use that is no more than the limit. `None` if it cannot be told. What was claimed runs out by itself; who wants
    /// nothing claims nothing any more.
    fn ration<'a>(&'a self, key: &'a str, claim: &'a RationClaim<'a>)
    -> BoxFuture<'a, Option<u32>>;

    /// Takes the next free moment of what is called `key`, where moments are `apart`, if it comes within `patience` (of which more than a
    /// minute counts as a minute). `None` if it cannot be told.
    fn pace<'a>(
        &'a self,
        key: &'a str,
        apart: Duration,
        patience: Duration,
    ) -> BoxFuture<'a, Option<Pace>>;

    /// Tells all subscribers of `topic`, this process's included; whether it could be sent.
    fn publish<'a>(&'a self, topic: &'a str, message: &'a [u8]) -> BoxFuture<'a, bool>;

    /// Hears what is published on `topic` from about now on: [`Told::Missed`] says from when on for sure.
    fn subscribe(&self, topic: &str) -> Subscription;

    /// How it does, for the operator; asks nobody.
    fn standing(&self) -> SharedStanding;
}

/// A number that is larger for each holder of a lease than for all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fence(pub u64);

/// A lease that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    key: String,
    /// What no other holder has.
    token: String,
    data: String,
    /// Larger than that of any earlier holder.
    pub fence: Fence,
}

/// Who has a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// What it said of itself.
    pub data: String,
    /// Its number, to take the lease [over](Shared::lease).
    pub fence: Fence,
    /// How long the lease runs unless it is renewed.
    pub left: Duration,
}

/// What came of asking for a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// It is had.
    Taken(Lease),
    /// Somebody else has it.
    Held(Holder),
    /// It cannot be told: who asks does as if it were alone.
    Unknown,
}

/// What came of renewing a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// It is had for as long as asked.
    Kept,
    /// Somebody else has it, or has had it since.
    Lost,
    /// It cannot be told.
    Unknown,
}

/// What a subscriber hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A message.
    Message(Bytes),
    /// Messages may have been missed until now.
    Missed,
}

/// How a service does that replicas share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedStanding {
    /// `memory`, `redis`, `none`.
    pub kind: &'static str,
    /// Whether it answers.
    pub ok: bool,
    /// Why not, in words for the operator; no secrets.
    pub detail: Option<String>,
}

/// Hears what is published on one topic, until it is dropped.
#[derive(Debug)]
pub struct Subscription {
    receiver: broadcast::Receiver<Told>,
    _task: Option<AbortOnDrop>,
}

impl Subscription {
    /// The next message, whenever it comes.
    pub async fn next(&mut self) -> Told {
        match self.receiver.recv().await {
            Ok(told) => told,
            Err(broadcast::error::RecvError::Lagged(_)) => Told::Missed,
            // Nobody is left who could say anything.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// A task that ends with its owner.
#[derive(Debug)]
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A name that nobody else has: 32 hexadecimal digits.
fn token() -> String {
    let mut token = String::with_capacity(32);
    for _ in 0..2 {
        // Keyed at random for each process and each call.
        let _ = write!(token, "{:016x}", RandomState::new().build_hasher().finish());
    }
    token
}

/// A time between moments, or until one, in whole microseconds, as long as anybody waits for one.
fn pace_micros(time: Duration) -> u64 {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    micros.min(ration::LONGEST_PACE_MICROS)
}

/// A life in whole milliseconds, at least one, and no longer than a lease may have.
fn millis(ttl: Duration) -> u64 {
    ttl.min(LONGEST_LEASE).as_millis().max(1) as u64
}
