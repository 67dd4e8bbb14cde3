//! The circuit breaker: leaves an origin alone for a moment after it failed several times in a row. Knows time and outcomes; does not
//! know HTTP, nor what a failure is.
//!
//! Only origins in trouble are remembered, so that the many hosts which documents and redirects name cost nothing.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use larder_core::{Clock, UnixMillis};

/// Failures in a row that open the breaker.
const FAILURES_TO_OPEN: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// At most this many origins in trouble are remembered.
const MAX_REMEMBERED: usize = 4096;

/// How an origin is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum BreakerState {
    /// Requests go through.
    #[default]
    Closed,
    /// The pause is over; one request at a time probes whether the origin is back.
    HalfOpen,
    /// Requests fail at once.
    Open,
}

#[derive(Debug)]
struct Trouble {
    failures: u32,
    /// Whether the last failure came so soon that nobody had to wait for it.
    at_once: bool,
    /// How many pauses in a row, which sets the length of the next.
    pauses: u32,
    /// Set while open or half-open.
    pause: Option<Pause>,
    last_change: UnixMillis,
}

#[derive(Debug, Clone, Copy)]
struct Pause {
    since: UnixMillis,
    length: Duration,
    probe: Option<Probe>,
    /// Raised by every new probe and every new pause: a report that carries an older one is history.
    generation: u64,
}

#[derive(Debug, Clone, Copy)]
struct Probe {
    since: UnixMillis,
    deadline: Duration,
}

impl Pause {
    /// Whether `length` has passed since `since`. A clock set back must not prolong a pause, so a start in the future has passed.
    fn over(since: UnixMillis, length: Duration, now: UnixMillis) -> bool {
        now < since || now.since(since) >= length
    }

    fn state(&self, now: UnixMillis) -> BreakerState {
        if Self::over(self.since, self.length, now) {
            BreakerState::HalfOpen
        } else {
            BreakerState::Open
        }
    }
}

/// The breakers of all origins, by key `K`.
pub struct Breakers<K: Hash + Eq + Clone> {
    clock: Arc<dyn Clock>,
    jitter: RandomState,
    troubles: Mutex<(HashMap<K, Trouble>, u64)>,
}

/// The right to send one request. Report its outcome; dropping it unreported gives a probe's place back.
#[must_use]
pub struct Permit<K: Hash + Eq + Clone> {
    breakers: Arc<Breakers<K>>,
    key: Option<K>,
    kind: PermitKind,
}

/// What a permit's outcome says.
#[derive(Debug, Clone, Copy)]
enum PermitKind {
    /// Sent while all was well.
    Normal,
    /// The probe of this generation.
    Probe(u64),
    /// Sent in spite of the pause that began then: its success ends that pause, its failure is no news.
    Forced(UnixMillis),
}

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Slowly,
    AtOnce,
    Badly,
}

impl PermitKind {
    fn is_of(self, pause: &Pause) -> bool {
        matches!(self, Self::Probe(generation) if generation == pause.generation)
    }
}

impl<K: Hash + Eq + Clone> Breakers<K> {
    /// All closed; `clock` times the pauses.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            jitter: RandomState::new(),
            troubles: Mutex::default(),
        }
    }

    /// Asks to send one request to `key`. A probe that has not reported within `deadline` loses its place to another.
    ///
    /// # Errors
    /// The breaker is open, or another probe is under way.
    pub fn admit(self: &Arc<Self>, key: &K, deadline: Duration) -> Result<Permit<K>, BreakerState> {
        let now = self.clock.now();
        let mut kind = PermitKind::Normal;
        let mut guard = self.lock();
        let (troubles, counter) = &mut *guard;
        if let Some(pause) = troubles.get_mut(key).and_then(|t| t.pause.as_mut()) {
            if pause.state(now) == BreakerState::Open {
                return Err(BreakerState::Open);
            }
            if pause
                .probe
                .is_some_and(|probe| !Pause::over(probe.since, probe.deadline, now))
            {
                return Err(BreakerState::HalfOpen);
            }
            *counter += 1;
            pause.generation = *counter;
            pause.probe = Some(Probe {
                since: now,
                deadline,
            });
            kind = PermitKind::Probe(*counter);
        }
        drop(guard);
        Ok(Permit {
            breakers: Arc::clone(self),
            key: Some(key.clone()),
            kind,
        })
    }

    /// Whether `key` fails without making anybody wait.
    pub fn fails_at_once(&self, key: &K) -> bool {
        self.lock()
            .0
            .get(key)
            .is_some_and(|trouble| trouble.at_once)
    }

    /// Sends one request to `key` whatever the breaker says: for whoever has nothing to fall back on.
    pub fn insist(self: &Arc<Self>, key: &K) -> Permit<K> {
        let pause = self.lock().0.get(key).and_then(|trouble| trouble.pause);
        let kind = pause.map_or(PermitKind::Normal, |pause| PermitKind::Forced(pause.since));
        Permit {
            breakers: Arc::clone(self),
            key: Some(key.clone()),
            kind,
        }
    }

    /// The state of `key` now.
    pub fn state(&self, key: &K) -> BreakerState {
        let now = self.clock.now();
        self.lock()
            .0
            .get(key)
            .and_then(|t| t.pause)
            .map_or(BreakerState::Closed, |pause| pause.state(now))
    }

    fn lock(&self) -> MutexGuard<'_, (HashMap<K, Trouble>, u64)> {
        // Nothing below leaves a half-made change behind if it panics.
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, key: K, kind: PermitKind, how: How) {
        let now = self.clock.now();
        let mut guard = self.lock();
        let (troubles, counter) = &mut *guard;
        if troubles.len() >= MAX_REMEMBERED
            && !troubles.contains_key(&key)
            && let Some(oldest) = troubles
                .iter()
                .min_by_key(|(_, t)| t.last_change)
                .map(|(k, _)| k.clone())
        {
            troubles.remove(&oldest);
        }
        let trouble = troubles.entry(key).or_insert(Trouble {
            failures: 0,
            at_once: false,
            pauses: 0,
            pause: None,
            last_change: now,
        });
        let counts = if let Some(pause) = trouble.pause {
            // Requests that were under way when the breaker opened say nothing new.
            kind.is_of(&pause)
        } else {
            trouble.failures += 1;
            how == How::Badly || trouble.failures >= FAILURES_TO_OPEN
        };
        trouble.at_once = how == How::AtOnce;
        trouble.last_change = now;
        if counts {
            *counter += 1;
            let length = self.pause_length(trouble.pauses, *counter);
            trouble.pauses = trouble.pauses.saturating_add(1);
            trouble.pause = Some(Pause {
                since: now,
                length,
                probe: None,
                generation: *counter,
            });
        }
    }

    fn succeeded(&self, key: &K, kind: PermitKind) {
        let mut guard = self.lock();
        let Some(trouble) = guard.0.get(key) else {
            return;
        };
        // A late success of a request sent before the pause is good news about the past only.
        let ends = |pause: Pause| {
            kind.is_of(&pause) || matches!(kind, PermitKind::Forced(since) if since == pause.since)
        };
        if trouble.pause.is_none_or(ends) {
            guard.0.remove(key);
        }
    }

    fn abandoned(&self, key: &K, generation: u64) {
        let mut guard = self.lock();
        if let Some(pause) = guard.0.get_mut(key).and_then(|t| t.pause.as_mut())
            && pause.generation == generation
        {
            pause.probe = None;
        }
    }

    /// 5 s, 10 s, 20 s, then 30 s; up to a fifth less, so that many nodes do not probe in step.
    fn pause_length(&self, pauses: u32, salt: u64) -> Duration {
        let full = FIRST_PAUSE
            .saturating_mul(1 << pauses.min(8))
            .min(LONGEST_PAUSE);
        let per_mille = 800 + (self.jitter.hash_one(salt) % 201) as u32;
        full * per_mille / 1000
    }
}

impl<K: Hash + Eq + Clone> fmt::Debug for Breakers<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breakers").finish_non_exhaustive()
    }
}

impl<K: Hash + Eq + Clone> Permit<K> {
    /// The origin answered.
    pub fn succeeded(mut self) {
        if let Some(key) = self.key.take() {
            self.breakers.succeeded(&key, self.kind);
        }
    }

    /// The origin could not be reached, or did not answer in time.
    pub fn failed(mut self) {
        if let Some(key) = self.key.take() {
            self.breakers.failed(key, self.kind, How::Slowly);
        }
    }

    /// The same, so soon that nobody had to wait for it.
    pub fn failed_at_once(mut self) {
        if let Some(key) = self.key.take() {
            self.breakers.failed(key, self.kind, How::AtOnce);
        }
    }

    /// It failed in a way that is better not met again soon, where there is somebody else to ask: the breaker opens at once.
    pub fn failed_badly(mut self) {
        if let Some(key) = self.key.take() {
            self.breakers.failed(key, self.kind, How::Badly);
        }
    }
}

impl<K: Hash + Eq + Clone> fmt::Debug for Permit<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("word", &self.kind)
            .finish_non_exhaustive()
    }
}

impl<K: Hash + Eq + Clone> Drop for Permit<K> {
    fn drop(&mut self) {
        if let (Some(key), PermitKind::Probe(generation)) = (self.key.take(), self.kind) {
            self.breakers.abandoned(&key, generation);
        }
    }
}

#[cfg(test)]
mod tests;
