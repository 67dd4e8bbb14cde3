//! How each place of each upstream is doing, for `/health`, the metrics and the log. A failure is told when its cause begins, and
//! counted after that; an answer is told when it ends a failure that was told.
//!
//! Two kinds of failure are kept apart. Where nobody answers, or only to say that the server is not well, the place fails from then on,
//! until it answers. A login that is refused, or a body that is wrong, may concern one file among good ones: they are told once an
//! hour for each cause, and the place fails only if nothing else comes of it (docs/adr/0051).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use larder_core::{RepositoryName, UnixMillis};
use larder_upstream::Cause;

use super::lag::IndexLag;

/// A place that answers and fails by turns is told of once in this time.
const BETWEEN_OUTAGES: Duration = Duration::from_mins(1);
/// What may concern single files is told once in this time.
const BETWEEN_REMINDERS: Duration = Duration::from_hours(1);
/// So many failures in a row concern more than a single file.
const IN_A_ROW: u64 = 3;

/// How a place is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UpstreamStanding {
    /// It was not asked since the start.
    #[default]
    Unknown,
    /// It answers.
    Ok,
    /// It does not answer, or not what it should.
    Failing,
}

impl UpstreamStanding {
    /// As `/health` shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ok => "ok",
            Self::Failing => "failing",
        }
    }
}

/// The last failure of a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamFailure {
    /// When it was.
    pub at: UnixMillis,
    /// What it was.
    pub cause: Cause,
    /// A sentence for the operator. No secrets, no text of the upstream's.
    pub reason: String,
    /// What was asked for: the path within the repository.
    pub key: String,
}

/// A place of an upstream as `/health` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamReport {
    /// The repository's name.
    pub repository: String,
    /// The address, without secrets.
    pub upstream: String,
    /// How it is doing.
    pub standing: UpstreamStanding,
    /// Since when.
    pub since: Option<UnixMillis>,
    /// Failures in a row.
    pub failures: u64,
    /// The last failure, also if it is over.
    pub last_error: Option<UpstreamFailure>,
    /// When it last answered, whatever it said; `None`: not since the start, or not known for hosts that documents name.
    pub last_answer: Option<UnixMillis>,
    /// How long its answers take to begin: a mean in which the last ones weigh most. `None` as above.
    pub latency: Option<Duration>,
    /// How far its index is behind the newest among the mirrors of the repository.
    pub lag: IndexLag,
}

/// Failures of a repository's upstreams, by cause.
#[derive(Debug, Default)]
pub(crate) struct FailureCounters([AtomicU64; Cause::ALL.len()]);

impl FailureCounters {
    pub(super) fn count(&self, cause: Cause) {
        self.0[cause as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Those that have counted.
    pub(crate) fn snapshot(&self) -> Vec<(&'static str, u64)> {
        let all = Cause::ALL
            .iter()
            .zip(&self.0)
            .map(|(cause, count)| (cause.as_str(), count.load(Ordering::Relaxed)));
        all.filter(|(_, count)| *count > 0).collect()
    }

    pub(crate) fn reset(&self) {
        self.0
            .iter()
            .for_each(|count| count.store(0, Ordering::Relaxed));
    }
}

/// Whether a failure is of the place, or may be of one file there; or of one of many other hosts, of which the next may be well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Place,
    File,
    Elsewhere,
}

/// What a failure of the request itself is of. Failures of bodies are of the file: the head before them was an answer.
pub(crate) fn scope(cause: Cause) -> Scope {
    match cause {
        Cause::Dns
        | Cause::Refused
        | Cause::Timeout
        | Cause::Tls
        | Cause::Protocol
        | Cause::Cut
        | Cause::RateLimited
        | Cause::ServerError => Scope::Place,
        Cause::RedirectRefused
        | Cause::AddressRefused
        | Cause::Unauthorized
        | Cause::Forbidden
        | Cause::WrongBytes
        | Cause::Malformed => Scope::File,
    }
}

/// The state of one place.
#[derive(Debug, Default)]
pub(crate) struct UpstreamState {
    /// It answers, and there is nothing that the next answer would end: answers take no lock.
    is_calm: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    standing: UpstreamStanding,
    since: Option<UnixMillis>,
    failures: u64,
    /// When the failures in a row began.
    began: Option<UnixMillis>,
    last_error: Option<UpstreamFailure>,
    /// Where the last failure was, for places that the configuration does not name.
    origin: Option<String>,
    /// When each cause was last told.
    told: [Option<UnixMillis>; Cause::ALL.len()],
    /// The cause of this row of failures that was told last.
    told_now: Option<Cause>,
}

/// An outage that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Over {
    pub(super) failures: u64,
    pub(super) lasted: Duration,
}

impl UpstreamState {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It answered. Gives the outage that this ends, if it was told.
    pub(super) fn answered(&self, now: UnixMillis) -> Option<Over> {
        if self.is_calm.load(Ordering::Relaxed) {
            return None;
        }
        let mut inner = self.lock();
        if inner.standing != UpstreamStanding::Ok {
            inner.standing = UpstreamStanding::Ok;
            inner.since = Some(now);
        }
        let (failures, began) = (std::mem::take(&mut inner.failures), inner.began.take());
        let told = inner.told_now.take();
        self.is_calm.store(true, Ordering::Relaxed);
        // What may have been one file's trouble is not over with another file's answer.
        let of_the_place =
            told.is_some_and(|cause| scope(cause) == Scope::Place || failures >= IN_A_ROW);
        of_the_place.then(|| Over {
            failures,
            lasted: began.map_or(Duration::ZERO, |began| now.since(began)),
        })
    }

    /// Takes note of the host that the next failure is of.
    pub(super) fn note_origin(&self, origin: String) {
        self.lock().origin = Some(origin);
    }

    /// It failed. Says whether to tell it.
    pub(super) fn failed(&self, scope: Scope, failure: UpstreamFailure) -> bool {
        let (cause, now) = (failure.cause, failure.at);
        let mut inner = self.lock();
        self.is_calm.store(false, Ordering::Relaxed);
        inner.failures = inner.failures.saturating_add(1);
        inner.began.get_or_insert(now);
        inner.last_error = Some(failure);
        let nothing_good_is_known =
            scope == Scope::File && inner.standing == UpstreamStanding::Unknown;
        let fails = scope == Scope::Place || nothing_good_is_known || inner.failures >= IN_A_ROW;
        if fails && inner.standing != UpstreamStanding::Failing {
            inner.standing = UpstreamStanding::Failing;
            inner.since = inner.began;
        }
        let pause = if scope == Scope::Place {
            BETWEEN_OUTAGES
        } else {
            BETWEEN_REMINDERS
        };
        let rests =
            inner.told[cause as usize].is_some_and(|told| told <= now && now.since(told) < pause);
        let is_known = scope == Scope::Place && inner.told_now == Some(cause);
        if rests || is_known {
            return false;
        }
        inner.told[cause as usize] = Some(now);
        inner.told_now = Some(cause);
        true
    }

    /// Nothing counts as told any more: the configuration may have been changed to mend it.
    pub(crate) fn forget_told(&self) {
        let mut inner = self.lock();
        inner.told = Default::default();
        inner.told_now = None;
    }

    /// The state for operators; `None` for other hosts of which none has failed.
    pub(crate) fn report(
        &self,
        repository: &RepositoryName,
        upstream: Option<String>,
    ) -> Option<UpstreamReport> {
        let inner = self.lock();
        Some(UpstreamReport {
            repository: repository.to_string(),
            upstream: upstream.or_else(|| inner.origin.clone())?,
            standing: inner.standing,
            since: inner.since,
            failures: inner.failures,
            last_error: inner.last_error.clone(),
            last_answer: None,
            latency: None,
            lag: IndexLag::Unknown("it is no mirror"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(cause: Cause, seconds: i64) -> UpstreamFailure {
        UpstreamFailure {
            at: UnixMillis(seconds * 1000),
            cause,
            reason: String::new(),
            key: String::new(),
        }
    }

    fn fail(state: &UpstreamState, cause: Cause, seconds: i64) -> bool {
        state.failed(scope(cause), failure(cause, seconds))
    }

    fn standing(state: &UpstreamState) -> UpstreamStanding {
        state.lock().standing
    }

    fn answer(state: &UpstreamState, seconds: i64) -> Option<Over> {
        state.answered(UnixMillis(seconds * 1000))
    }

    #[test]
    fn an_outage_is_told_when_it_begins_when_its_cause_changes_and_when_it_ends() {
        let state = UpstreamState::default();
        assert_eq!(answer(&state, 0), None);
        assert!(fail(&state, Cause::Refused, 10));
        assert!(
            (11..400).all(|second| !fail(&state, Cause::Refused, second)),
            "counted only"
        );
        assert_eq!(standing(&state), UpstreamStanding::Failing);
        assert!(fail(&state, Cause::Dns, 400));
        assert!(!fail(&state, Cause::Dns, 401));
        assert_eq!(
            answer(&state, 410),
            Some(Over {
                failures: 392,
                lasted: Duration::from_secs(400)
            })
        );
        assert_eq!(answer(&state, 411), None);
        assert_eq!(
            (standing(&state), state.lock().failures),
            (UpstreamStanding::Ok, 0)
        );
        assert!(
            fail(&state, Cause::Refused, 500),
            "the next outage is told again"
        );
    }

    #[test]
    fn a_place_that_comes_and_goes_is_told_once_a_minute() {
        let state = UpstreamState::default();
        let told = (0..600).filter(|second| {
            let told = fail(&state, Cause::ServerError, *second);
            answer(&state, *second);
            told
        });
        assert_eq!(told.count(), 10);
        // An outage that began in the silence is told when that is over.
        assert!(!fail(&state, Cause::ServerError, 599));
        assert!(fail(&state, Cause::ServerError, 600));
    }

    #[test]
    fn a_refused_file_among_good_ones_is_told_once_an_hour_and_is_no_outage() {
        let state = UpstreamState::default();
        answer(&state, 0);
        let mut told = 0;
        for second in 1..7_200 {
            told += u32::from(fail(&state, Cause::Forbidden, second));
            assert_eq!(standing(&state), UpstreamStanding::Ok);
            assert_eq!(answer(&state, second), None, "nothing is back");
        }
        assert_eq!(told, 2);
        state.forget_told();
        assert!(
            fail(&state, Cause::Forbidden, 7_200),
            "after a reload it is told at once"
        );
    }

    #[test]
    fn a_login_that_is_always_refused_is_a_failing_upstream() {
        let state = UpstreamState::default();
        answer(&state, 0);
        assert!(fail(&state, Cause::Unauthorized, 1));
        assert!(!fail(&state, Cause::Unauthorized, 2) && !fail(&state, Cause::Unauthorized, 3));
        assert_eq!(
            (standing(&state), state.lock().since),
            (UpstreamStanding::Failing, Some(UnixMillis(1_000)))
        );
        assert_eq!(
            answer(&state, 9),
            Some(Over {
                failures: 3,
                lasted: Duration::from_secs(8)
            })
        );

        let never_good = UpstreamState::default();
        fail(&never_good, Cause::Unauthorized, 1);
        assert_eq!(
            standing(&never_good),
            UpstreamStanding::Failing,
            "there is no good answer to set against it"
        );
    }

    #[test]
    fn one_failure_elsewhere_says_nothing_of_other_hosts() {
        let state = UpstreamState::default();
        let elsewhere = |second| state.failed(Scope::Elsewhere, failure(Cause::Refused, second));
        assert!(elsewhere(0));
        assert_eq!(standing(&state), UpstreamStanding::Unknown);
        assert!(!elsewhere(100) && !elsewhere(3_599), "told once an hour");
        assert_eq!(
            standing(&state),
            UpstreamStanding::Failing,
            "three in a row"
        );
        assert!(elsewhere(3_600));
    }

    #[test]
    fn a_clock_that_was_set_back_silences_nothing() {
        let state = UpstreamState::default();
        assert!(fail(&state, Cause::Forbidden, 1_000_000));
        assert!(fail(&state, Cause::Forbidden, 1_000));
    }
}
