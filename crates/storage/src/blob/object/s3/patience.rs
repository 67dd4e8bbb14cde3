//! How long the store is waited for, by how it has answered of late.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The longest wait for an answer that carries no body: a client is told within ten seconds, on a busy machine too.
const USUAL: Duration = Duration::from_secs(8);
/// The same once the store has failed for a while: each request is a trial of its own, so that nothing has to be closed and opened.
const SHORT: Duration = Duration::from_millis(1_200);
/// From then on a store that fails is waited for shortly only.
const A_WHILE: Duration = Duration::from_secs(15);

/// What has been seen of the store.
#[derive(Debug, Default)]
pub(super) struct Patience(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    failing: Option<Failing>,
    /// It answers, and not to this larder, or has lost the bucket.
    refusing: Option<Failing>,
}

/// It has not done what it should since.
#[derive(Debug)]
struct Failing {
    since: Instant,
    why: String,
}

impl Failing {
    fn now(why: &str) -> Self {
        Self {
            since: Instant::now(),
            why: why.to_owned(),
        }
    }
}

impl Patience {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the next answer may take.
    pub(super) fn limit(&self) -> Duration {
        let long_since = |failing: &Failing| failing.since.elapsed() >= A_WHILE;
        if self.seen().failing.as_ref().is_some_and(long_since) {
            SHORT
        } else {
            USUAL
        }
    }

    /// It has answered, whatever it said.
    pub(super) fn answered(&self) {
        if let Some(failing) = self.seen().failing.take() {
            let seconds = failing.since.elapsed().as_secs();
            tracing::info!(seconds, "the object store answers again");
        }
    }

    /// It has not, or says that it cannot.
    pub(super) fn failed(&self, why: &dyn std::fmt::Display) {
        let mut seen = self.seen();
        if seen.failing.is_none() {
            let why = why.to_string();
            tracing::warn!(
                why,
                "the object store fails; what the local tier has is served meanwhile"
            );
            seen.failing = Some(Failing::now(&why));
        }
    }

    /// It has said, when asked for the bucket, that larder has nothing to look for there, that there is no such bucket, or what no store says.
    pub(super) fn refused(&self, why: &str) {
        let mut seen = self.seen();
        let before = seen.refusing.take();
        if before.as_ref().is_none_or(|before| before.why != why) {
            tracing::warn!(
                why,
                "the object store refuses larder; what the local tier has is served meanwhile"
            );
        }
        seen.refusing = Some(Failing {
            since: before.map_or_else(Instant::now, |before| before.since),
            why: why.to_owned(),
        });
    }

    /// It has said, when asked for the bucket, that larder may use it.
    pub(super) fn accepted(&self) {
        if self.seen().refusing.take().is_some() {
            tracing::info!("the object store takes larder's requests again");
        }
    }

    /// Why it fails at present, and since when; `None` if it answered when it was asked last.
    pub(super) fn trouble(&self) -> Option<(String, Duration)> {
        let seen = self.seen();
        let trouble = seen.failing.as_ref().or(seen.refusing.as_ref())?;
        Some((trouble.why.clone(), trouble.since.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_has_failed_for_a_while_is_waited_for_shortly() {
        let patience = Patience::default();
        assert_eq!(patience.limit(), USUAL);
        patience.failed(&"refused");
        patience.failed(&"refused again");
        assert_eq!(patience.limit(), USUAL, "it has only begun");
        assert_eq!(patience.trouble().unwrap().0, "refused");
        let long_ago = Instant::now().checked_sub(A_WHILE).unwrap();
        patience.seen().failing.as_mut().unwrap().since = long_ago;
        assert_eq!(patience.limit(), SHORT);
        patience.answered();
        assert_eq!((patience.limit(), patience.trouble()), (USUAL, None));
        patience.refused("no such bucket");
        patience.answered();
        assert_eq!(patience.trouble().unwrap().0, "no such bucket");
        assert_eq!(patience.limit(), USUAL, "it answers");
        patience.refused("wrong credentials");
        assert_eq!(patience.trouble().unwrap().0, "wrong credentials");
        patience.accepted();
        assert_eq!(patience.trouble(), None);
    }
}
