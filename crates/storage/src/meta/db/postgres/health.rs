//! How the server is doing, so that callers do not each wait for it in vain.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::super::{About, DbError};
use super::codes::{RIGHTS, code};
use crate::error::StorageErrorKind;

/// So long a caller waits for an answer. A request may ask more than once before it is told.
const WAIT: Duration = Duration::from_secs(5);
/// So long, where much is read.
const WAIT_PATIENTLY: Duration = Duration::from_mins(2);
/// So long, where the last answer was a failure.
const WAIT_FAILING: Duration = Duration::from_secs(2);
/// Where there has been no answer for so long, callers are told at once, beside those that try.
const LONG: Duration = Duration::from_secs(15);
/// After [`LONG`] one caller in this time tries.
const TRY_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy)]
struct Failing {
    since: Instant,
    tried: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failing: Option<Failing>,
    /// Before the server has ever answered, whoever connects tells why it does not.
    has_answered: bool,
}

impl Health {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the last answer was a failure.
    pub(super) fn is_failing(&self) -> bool {
        self.state().failing.is_some()
    }

    /// How long a caller may wait for an answer now; `is_patient`: one that reads much.
    ///
    /// # Errors
    /// There has been none for a while, and somebody else is trying.
    pub(super) fn wait(&self, is_patient: bool) -> Result<Duration, DbError> {
        let mut state = self.state();
        let Some(failing) = state.failing.as_mut() else {
            return Ok(if is_patient { WAIT_PATIENTLY } else { WAIT });
        };
        let now = Instant::now();
        if now - failing.since < LONG {
            return Ok(WAIT_FAILING);
        }
        if now - failing.tried < TRY_EVERY {
            return Err(no_answer("it has not answered for a while"));
        }
        failing.tried = now;
        Ok(WAIT_FAILING)
    }

    /// What came of asking the server.
    pub(super) fn note<T>(&self, result: &Result<T, DbError>) {
        let is_bad = |error: &DbError| match error.about {
            About::Lost => true,
            // Who lacks a right to one thing has been answered.
            About::Refused => code(error) != Some(RIGHTS),
            _ => false,
        };
        let mut state = self.state();
        match result {
            Err(error) if is_bad(error) => {
                if state.failing.is_none() {
                    let now = Instant::now();
                    if state.has_answered {
                        tracing::warn!(cause = %error.source, "{}: what is held is served, and nothing is kept or changed", error.reason);
                    }
                    state.failing = Some(Failing {
                        since: now,
                        tried: now,
                    });
                }
            }
            _ => {
                let failing = state.failing.take().filter(|_| state.has_answered);
                if let Some(failing) = failing {
                    let after = failing.since.elapsed();
                    tracing::info!(?after, "the metadata database answers again");
                }
                state.has_answered = true;
            }
        }
    }
}

/// Nobody answered.
pub(super) fn no_answer(why: &'static str) -> DbError {
    DbError {
        kind: StorageErrorKind::Unavailable,
        reason: "the metadata database does not answer",
        about: About::Lost,
        source: why.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_become_short_and_only_one_tries() {
        let health = Health::default();
        let failed = || Err::<(), _>(no_answer("gone"));
        assert_eq!(health.wait(false).unwrap(), WAIT);
        health.note(&failed());
        assert_eq!(health.wait(false).unwrap(), WAIT_FAILING);
        tokio::time::advance(Duration::from_secs(16)).await;
        assert_eq!(health.wait(false).unwrap(), WAIT_FAILING);
        assert!(health.wait(false).is_err(), "somebody is trying");
        tokio::time::advance(TRY_EVERY).await;
        assert_eq!(health.wait(false).unwrap(), WAIT_FAILING);
        health.note(&failed());
        assert!(health.wait(false).is_err());
        health.note(&Ok::<_, DbError>(()));
        assert_eq!(health.wait(false).unwrap(), WAIT);
    }
}
