//! Wall-clock time as a value. Knows nothing of the cache; the only place that asks the system for the time.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z. Negative before that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// The time `duration` later; saturates instead of overflowing.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long ago `earlier` was; zero if it lies in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The same instant for libraries that speak `SystemTime`. Times before 1970 become 1970.
    pub fn to_system_time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(u64::try_from(self.0).unwrap_or(0))
    }

    /// Parses an HTTP date (RFC 9110 section 5.6.7, all three forms); `None` if it is none of them.
    pub fn from_http_date(text: &str) -> Option<Self> {
        let time = httpdate::parse_http_date(text).ok()?;
        Some(Self::from(time))
    }

    /// This instant as an IMF-fixdate (RFC 9110 section 5.6.7), whole seconds. The form ends with the year 9999.
    pub fn to_http_date(self) -> String {
        const LAST: UnixMillis = UnixMillis(253_402_300_799_000);
        httpdate::fmt_http_date(self.min(LAST).to_system_time())
    }
}

impl From<SystemTime> for UnixMillis {
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// Where "now" comes from, so that tests can move it.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The present time.
    fn now(&self) -> UnixMillis;
}

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system clock")]
    fn now(&self) -> UnixMillis {
        UnixMillis::from(SystemTime::now())
    }
}

/// A clock that a test sets by hand.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that stands at `start`.
    pub fn new(start: UnixMillis) -> Self {
        Self(AtomicI64::new(start.0))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The three forms of RFC 9110 section 5.6.7.
    #[test]
    fn all_three_forms_of_a_date_are_one_instant() {
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(UnixMillis::from_http_date(text), Some(UnixMillis(784_111_777_000)), "{text}");
        }
        assert_eq!(UnixMillis(784_111_777_999).to_http_date(), "Sun, 06 Nov 1994 08:49:37 GMT");
        for text in ["", "yesterday", "1994-11-06T08:49:37Z", "Sun, 06 Nov 1994 08:49:37"] {
            assert_eq!(UnixMillis::from_http_date(text), None, "{text}");
        }
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(UnixMillis(5).plus(Duration::MAX), UnixMillis(i64::MAX));
        assert_eq!(UnixMillis(5).plus(Duration::from_secs(1)), UnixMillis(1_005));
        assert_eq!(UnixMillis(5).since(UnixMillis(2)), Duration::from_millis(3));
        assert_eq!(UnixMillis(2).since(UnixMillis(5)), Duration::ZERO);
        assert_eq!(UnixMillis(i64::MIN).since(UnixMillis(i64::MAX)), Duration::ZERO);
    }

    #[test]
    fn times_no_date_can_tell_are_told_as_the_nearest_one() {
        assert_eq!(UnixMillis(i64::MAX).to_http_date(), "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(UnixMillis(-1).to_http_date(), "Thu, 01 Jan 1970 00:00:00 GMT");
    }

    #[test]
    fn a_manual_clock_moves_when_told() {
        let clock = ManualClock::new(UnixMillis(10));
        clock.advance(Duration::from_secs(2));
        assert_eq!(clock.now(), UnixMillis(2_010));
    }
}
