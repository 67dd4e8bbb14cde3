//! When a request may be sent once more, and when an upstream wants to be left alone. Pure but for a counter.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::HeaderMap;
use http::header::RETRY_AFTER;
use larder_core::UnixMillis;

/// The longest pause that an upstream can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);

/// `Retry-After` (RFC 9110 section 10.2.3), seconds or a date, counted from `now`, at most one hour. A date in the past gives zero;
/// `None` if the field is absent or unreadable.
pub fn retry_after(headers: &HeaderMap, now: UnixMillis) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than a u64 holds is a very long time, not an error.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        UnixMillis::from_http_date(text)?.since(now)
    };
    Some(pause.min(MAX_RETRY_AFTER))
}

/// Allows one retry for every ten requests, so that an upstream in trouble is not hit twice as hard. A small reserve covers the
/// moment after an upstream's restart, when many kept connections are stale at once.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    /// In tenths of a retry.
    tenths: AtomicU32,
}

impl RetryBudget {
    const RESERVE: u32 = 100;

    pub(crate) fn new() -> Self {
        Self {
            tenths: AtomicU32::new(Self::RESERVE),
        }
    }

    /// Counts a request; it earns a tenth of a retry.
    pub(crate) fn earn(&self) {
        let _ = self
            .tenths
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |t| {
                (t < Self::RESERVE).then_some(t + 1)
            });
    }

    /// Takes one retry, if there is one.
    pub(crate) fn spend(&self) -> bool {
        self.tenths
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |t| t.checked_sub(10))
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn parse(value: &str) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_str(value).unwrap());
        // 1994-11-06T08:49:37Z, the example date of RFC 9110 section 5.6.7.
        retry_after(&headers, UnixMillis(784_111_777_000)).map(|d| d.as_secs())
    }

    #[test]
    fn hazard_a9_retry_after_in_both_forms() {
        assert_eq!(parse("120"), Some(120));
        assert_eq!(parse(" 0 "), Some(0));
        assert_eq!(parse("7200"), Some(3600));
        assert_eq!(parse("99999999999999999999999"), Some(3600));
        assert_eq!(parse("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(parse("Sunday, 06-Nov-94 08:50:37 GMT"), Some(60));
        assert_eq!(parse("Sun Nov  6 08:50:37 1994"), Some(60));
        assert_eq!(parse("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(parse("Sat, 06 Nov 2094 08:49:37 GMT"), Some(3600));
        for unreadable in ["", "-1", "1.5", "soon", "+5", "0x10"] {
            assert_eq!(parse(unreadable), None, "{unreadable:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), UnixMillis(0)), None);
    }

    #[test]
    fn hazard_a9_retries_are_a_tenth_of_the_requests() {
        let budget = RetryBudget::new();
        while budget.spend() {}
        let granted = (0..1000)
            .filter(|_| {
                budget.earn();
                budget.spend()
            })
            .count();
        assert_eq!(granted, 100);
    }
}
