//! What has been refused or has failed, by repository and code: counted for `/metrics` and `/health`, and warned of once where the
//! cause lies with larder's own rules, documents or state. Failures of upstreams are warned of where upstreams are watched.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use larder_core::{ErrorCode, Fault, UnixMillis};
use serde_json::{Value, json};

/// After this a cause that still holds is warned of again.
const AGAIN: Duration = Duration::from_hours(1);
/// Most pairs that are remembered: repositories come and go with the configuration, codes are few.
const MOST: usize = 4096;

/// The codes of what lies with larder: its rules and what they read, its own files, its configuration.
const OWN: [ErrorCode; 21] = [
    ErrorCode::AddressRefused,
    ErrorCode::BadUrl,
    ErrorCode::CrossSite,
    ErrorCode::DigestMismatch,
    ErrorCode::DocumentTooLarge,
    ErrorCode::Internal,
    ErrorCode::LinkForged,
    ErrorCode::LoopDetected,
    ErrorCode::MalformedDocument,
    ErrorCode::Misdirected,
    ErrorCode::NoMirror,
    ErrorCode::NotImplemented,
    ErrorCode::Offline,
    ErrorCode::PatternDenied,
    ErrorCode::Quarantined,
    ErrorCode::RedirectRefused,
    ErrorCode::Storage,
    ErrorCode::StorageUnavailable,
    ErrorCode::UnaskedCoding,
    ErrorCode::Unauthorized,
    ErrorCode::Unread,
];

/// Whether an upstream's answer is behind this: then "the upstream fails" is the warning, which names the upstream, and comes also where a
/// mirror or an older copy has spared the client. A document beyond larder's own limit is no failure of its upstream.
fn is_told_of_the_upstream(fault: &Fault) -> bool {
    fault.upstream().is_some() && fault.code != ErrorCode::DocumentTooLarge
}

/// A repository's name (empty: none) and a code.
pub(crate) type Cause = (String, ErrorCode);

#[derive(Debug, Clone, Copy)]
struct Seen {
    count: u64,
    last: UnixMillis,
    /// When it was warned of, and the count at that time.
    warned: Option<(UnixMillis, u64)>,
}

/// Everything refused since the start.
#[derive(Debug, Default)]
pub(crate) struct Refused(Mutex<BTreeMap<Cause, Seen>>);

impl Refused {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Cause, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a refusal. If it is to be warned of: how many there have been since the last warning, this one included. What broke off
    /// a `body` is warned of whatever it is, for no status has told of it, unless the upstream's failure has its warning.
    pub(crate) fn note(
        &self,
        repository: &str,
        fault: &Fault,
        body: bool,
        now: UnixMillis,
    ) -> Option<u64> {
        let mut all = self.lock();
        let cause = (repository.to_owned(), fault.code);
        if all.len() >= MOST && !all.contains_key(&cause) {
            let oldest = all
                .iter()
                .min_by_key(|(_, seen)| seen.last)
                .map(|(cause, _)| cause.clone());
            oldest.and_then(|cause| all.remove(&cause));
        }
        let seen = all.entry(cause).or_insert(Seen {
            count: 0,
            last: now,
            warned: None,
        });
        seen.count += 1;
        seen.last = now;
        if !body && !OWN.contains(&fault.code) || is_told_of_the_upstream(fault) {
            return None;
        }
        let before = match seen.warned {
            // A clock that was set back does not silence a warning for longer.
            Some((at, _)) if at <= now && now < at.plus(AGAIN) => return None,
            Some((_, count)) => count,
            None => 0,
        };
        seen.warned = Some((now, seen.count));
        Some(seen.count - before)
    }

    /// For `/health`: each repository and code with its count and the time of the last.
    pub(crate) fn report(&self) -> Value {
        let all = self.lock();
        let one = |((repository, code), seen): (&Cause, &Seen)| {
            let last = jiff::Timestamp::from_millisecond(seen.last.0)
                .map(|last| format!("{last:.0}"))
                .unwrap_or_default();
            json!({"repository": repository, "code": code, "count": seen.count, "last": last})
        };
        all.iter().map(one).collect()
    }

    /// For `/metrics`: each repository and code with its count.
    pub(crate) fn counts(&self) -> Vec<(Cause, u64)> {
        self.lock()
            .iter()
            .map(|(cause, seen)| (cause.clone(), seen.count))
            .collect()
    }

    /// Forgets the counts of one repository, or all (`PUT /cache/flush?cache_type=metrics`).
    pub(crate) fn reset(&self, repository: Option<&str>) {
        self.lock()
            .retain(|(of, _), _| repository.is_some_and(|only| of != only));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_core::FaultKind;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    fn fault(code: ErrorCode) -> Fault {
        Fault::new(FaultKind::Forbidden, code, "no")
    }

    #[test]
    fn a_cause_is_warned_of_once_an_hour_with_how_many_there_were() {
        let refused = Refused::default();
        let note = |repository: &str, code, minutes: u64| {
            refused.note(
                repository,
                &fault(code),
                false,
                NOW.plus(Duration::from_secs(minutes * 60)),
            )
        };
        assert_eq!(note("a", ErrorCode::PatternDenied, 0), Some(1));
        assert_eq!(
            (
                note("a", ErrorCode::PatternDenied, 1),
                note("a", ErrorCode::PatternDenied, 59)
            ),
            (None, None)
        );
        assert_eq!(
            (
                note("b", ErrorCode::PatternDenied, 1),
                note("a", ErrorCode::Quarantined, 1)
            ),
            (Some(1), Some(1)),
            "each for itself"
        );
        assert_eq!(
            note("a", ErrorCode::PatternDenied, 60),
            Some(3),
            "the two that were not said, and this one"
        );
        assert_eq!(
            note("a", ErrorCode::PatternDenied, 0),
            Some(1),
            "a clock that was set back"
        );
    }

    #[test]
    fn what_is_nobody_s_fault_or_the_upstream_s_is_counted_only() {
        let refused = Refused::default();
        for code in [
            ErrorCode::NotFound,
            ErrorCode::PreconditionFailed,
            ErrorCode::RangeNotSatisfiable,
            ErrorCode::UpstreamStatus,
            ErrorCode::UpstreamTimeout,
            ErrorCode::BadRequest,
        ] {
            assert_eq!(refused.note("a", &fault(code), false, NOW), None, "{code}");
        }
        assert_eq!(
            refused.note("a", &fault(ErrorCode::BrokenOff), true, NOW),
            Some(1),
            "a body that broke off"
        );
        let report = refused.report();
        assert_eq!(report.as_array().map(Vec::len), Some(7));
        let first = json!({"repository": "a", "code": ErrorCode::BadRequest, "count": 1, "last": "2023-11-14T22:13:20Z"});
        assert_eq!(report[0], first);
    }

    #[test]
    fn what_an_upstream_sent_is_warned_of_as_its_failure_and_not_again() {
        let refused = Refused::default();
        for code in [
            ErrorCode::AddressRefused,
            ErrorCode::DigestMismatch,
            ErrorCode::LoopDetected,
            ErrorCode::MalformedDocument,
            ErrorCode::RedirectRefused,
        ] {
            assert_eq!(
                refused.note("a", &fault(code).upstream_said("wrong"), false, NOW),
                None,
                "{code}"
            );
        }
        assert_eq!(
            refused.note(
                "a",
                &fault(ErrorCode::UpstreamCut).upstream_said("broken off"),
                true,
                NOW
            ),
            None,
            "a body that broke off"
        );
        assert_eq!(
            refused.note("a", &fault(ErrorCode::LoopDetected), false, NOW),
            Some(2),
            "larder itself found it"
        );
        assert_eq!(
            refused.note("a", &fault(ErrorCode::MalformedDocument), false, NOW),
            Some(2),
            "a held document"
        );
        assert_eq!(
            refused.note(
                "a",
                &fault(ErrorCode::DocumentTooLarge).upstream_said("too large"),
                false,
                NOW
            ),
            Some(1),
            "a limit"
        );
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let refused = Refused::default();
        for n in 0..MOST + 10 {
            refused.note(
                &n.to_string(),
                &fault(ErrorCode::NotFound),
                false,
                NOW.plus(Duration::from_millis(n as u64)),
            );
        }
        let all = refused.lock();
        assert_eq!(all.len(), MOST);
        assert!(
            !all.contains_key(&("9".to_owned(), ErrorCode::NotFound))
                && all.contains_key(&("10".to_owned(), ErrorCode::NotFound))
        );
    }

    #[test]
    fn own_codes_are_sorted_and_none_of_them_is_an_upstream_s_answer() {
        assert!(OWN.is_sorted());
        assert!(
            !OWN.iter()
                .any(|code| code.as_str().starts_with("upstream_"))
        );
    }
}
