//! Wall-clock time as a value. Knows nothing of the cache; the only place that asks the system for the time.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z. Negative before that.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// The time `duration` later; saturates instead of overflowing.
    pub fn plus(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)),
        )
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

    /// The day in UTC, as `2026-12-01`. Times before 1970 become 1970, later ones than 9999 its last day.
    pub fn to_date(self) -> String {
        self.to_rfc3339()
            .split('T')
            .next()
            .unwrap_or_default()
            .to_owned()
    }

    /// The second in UTC, as `2026-12-01T08:30:00Z` (RFC 3339). Times before 1970 become 1970, later ones than 9999 its last second.
    ///
    /// ```
    /// assert_eq!(larder_core::UnixMillis(784_111_777_999).to_rfc3339(), "1994-11-06T08:49:37Z");
    /// ```
    pub fn to_rfc3339(self) -> String {
        const LAST: u64 = 253_402_300_799;
        let seconds = u64::try_from(self.0 / 1_000).unwrap_or(0).min(LAST);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        // Counted from the first of March of the year 0, leap days stand at the end of each period.
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

impl From<SystemTime> for UnixMillis {
    fn from(time: SystemTime) -> Self {
        Self(
            time.duration_since(UNIX_EPOCH)
                .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX)),
        )
    }
}

/// Where "now" comes from, so that tests can move it.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The present time.
    fn now(&self) -> UnixMillis;
}

/// The machine's own clock, as larder believes it: it never goes back while the process lives (docs/adr/0045).
///
/// It is read once, when the process first asks; from then on the time that passes is measured by the clock that counts since
/// boot, suspended time included, which nobody can set. What the system's clock says otherwise is followed slowly.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixMillis {
        static STEADY: OnceLock<Steady> = OnceLock::new();
        let since_boot = since_boot();
        UnixMillis(
            STEADY
                .get_or_init(|| Steady::new(since_boot, system_time()))
                .at(since_boot, system_time),
        )
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the system clock"
)]
fn system_time() -> i64 {
    UnixMillis::from(SystemTime::now()).0
}

/// Milliseconds since the machine was started.
fn since_boot() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    time.tv_sec
        .saturating_mul(1_000)
        .saturating_add(time.tv_nsec / 1_000_000)
}

/// How often the system's clock is looked at, in milliseconds. With [`SLOWNESS`] one look moves the time by a millisecond.
const LOOK_EVERY: i64 = 20;

/// One part in so many of the time that passes may be spent on following the system's clock: a life of ten minutes is then wrong
/// by half a minute at most, and a clock that was set by an hour is followed in a day.
const SLOWNESS: i64 = 20;

/// 2020-01-01: a clock that shows less has not been set since the machine was started without one.
const NOT_SET_BEFORE: i64 = 1_577_836_800_000;

/// Wall-clock time that follows the system's clock without ever going back.
#[derive(Debug)]
struct Steady {
    /// What is added to the time since boot.
    offset: AtomicI64,
    /// The time since boot when the system's clock was looked at last.
    looked_at: AtomicI64,
}

impl Steady {
    fn new(since_boot: i64, system: i64) -> Self {
        Self {
            offset: AtomicI64::new(system.saturating_sub(since_boot)),
            looked_at: AtomicI64::new(since_boot),
        }
    }

    /// The time, so many milliseconds after boot.
    fn at(&self, since_boot: i64, system: impl FnOnce() -> i64) -> i64 {
        let looked_at = self.looked_at.load(Ordering::Relaxed);
        let elapsed = since_boot.saturating_sub(looked_at);
        let looks = elapsed >= LOOK_EVERY
            && self
                .looked_at
                .compare_exchange(looked_at, since_boot, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if looks {
            let (system, own) = (
                system(),
                since_boot.saturating_add(self.offset.load(Ordering::Relaxed)),
            );
            let behind = system.saturating_sub(own);
            let is_set_now = own < NOT_SET_BEFORE && system >= NOT_SET_BEFORE;
            let most = elapsed / SLOWNESS;
            let step = if is_set_now {
                behind
            } else {
                behind.clamp(-most, most)
            };
            self.offset.fetch_add(step, Ordering::Relaxed);
        }
        since_boot.saturating_add(self.offset.load(Ordering::Relaxed))
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

    /// Sets the clock, back as well: as a process sees it that was started after the machine's clock was set.
    pub fn set(&self, to: UnixMillis) {
        self.0.store(to.0, Ordering::SeqCst);
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(
            i64::try_from(by.as_millis()).unwrap_or(i64::MAX),
            Ordering::SeqCst,
        );
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
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(
                UnixMillis::from_http_date(text),
                Some(UnixMillis(784_111_777_000)),
                "{text}"
            );
        }
        assert_eq!(
            UnixMillis(784_111_777_999).to_http_date(),
            "Sun, 06 Nov 1994 08:49:37 GMT"
        );
        for text in [
            "",
            "yesterday",
            "1994-11-06T08:49:37Z",
            "Sun, 06 Nov 1994 08:49:37",
        ] {
            assert_eq!(UnixMillis::from_http_date(text), None, "{text}");
        }
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(UnixMillis(5).plus(Duration::MAX), UnixMillis(i64::MAX));
        assert_eq!(
            UnixMillis(5).plus(Duration::from_secs(1)),
            UnixMillis(1_005)
        );
        assert_eq!(UnixMillis(5).since(UnixMillis(2)), Duration::from_millis(3));
        assert_eq!(UnixMillis(2).since(UnixMillis(5)), Duration::ZERO);
        assert_eq!(
            UnixMillis(i64::MIN).since(UnixMillis(i64::MAX)),
            Duration::ZERO
        );
    }

    /// Days around the ends of February: 2000 has a leap day, 2100 has none.
    #[test]
    fn dates_are_the_calendar_s() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
        ] {
            assert_eq!(UnixMillis(seconds * 1_000).to_rfc3339(), expected);
        }
        assert_eq!(UnixMillis(i64::MAX).to_rfc3339(), "9999-12-31T23:59:59Z");
        assert_eq!(
            (
                UnixMillis(-1).to_date(),
                UnixMillis(951_782_400_000).to_date()
            ),
            ("1970-01-01".into(), "2000-02-29".into())
        );
    }

    #[test]
    fn times_no_date_can_tell_are_told_as_the_nearest_one() {
        assert_eq!(
            UnixMillis(i64::MAX).to_http_date(),
            "Fri, 31 Dec 9999 23:59:59 GMT"
        );
        assert_eq!(
            UnixMillis(-1).to_http_date(),
            "Thu, 01 Jan 1970 00:00:00 GMT"
        );
    }

    const START: i64 = 1_700_000_000_000;
    const YEAR: i64 = 365 * 86_400_000;

    /// The times that a clock tells once a second while the system's clock is `wrong_by` from the second `from` to the second `to`.
    fn told(wrong_by: i64, from: i64, to: i64, seconds: i64) -> Vec<i64> {
        let steady = Steady::new(5_000, START);
        let system = |second| {
            START
                + second * 1_000
                + if (from..to).contains(&second) {
                    wrong_by
                } else {
                    0
                }
        };
        (1..=seconds)
            .map(|second| steady.at(5_000 + second * 1_000, || system(second)))
            .collect()
    }

    /// What passes between two moments of one process is what a clock that nobody sets would show, give or take a twentieth.
    #[test]
    fn hazard_a_clock_that_jumps_a_year_and_back_does_not_change_how_much_time_has_passed() {
        for wrong_by in [-YEAR, -3_600_000, 3_600_000, YEAR] {
            let times = told(wrong_by, 10, 600, 1_200);
            let mut before = START;
            for time in times {
                let passed = time - before;
                assert!(
                    (950..=1_050).contains(&passed),
                    "{passed} ms in a second, the system's clock off by {wrong_by}"
                );
                before = time;
            }
            assert!(
                (before - START - 1_200_000).abs() <= 600_000 / SLOWNESS,
                "{}",
                before - START
            );
        }
    }

    #[test]
    fn the_system_s_clock_is_followed_in_the_end() {
        for wrong_by in [-60_000, 60_000] {
            let times = told(wrong_by, 1, i64::MAX, 1_300);
            assert_eq!(
                times[1_299],
                START + 1_300_000 + wrong_by,
                "a minute takes twenty"
            );
        }
    }

    #[test]
    fn a_clock_that_was_not_set_yet_is_followed_at_once() {
        let steady = Steady::new(2_000, 86_400_000);
        assert_eq!(steady.at(3_000, || 86_401_000), 86_401_000);
        assert_eq!(steady.at(4_000, || START), START);
        assert_eq!(
            steady.at(5_000, || START + 1_000 - YEAR),
            START + 950,
            "back, never at once"
        );
    }

    #[test]
    fn looks_at_any_distance_never_lead_back() {
        let steady = Steady::new(0, START);
        let (mut before, mut boot) = (START, 0);
        for step in (0..2_000).map(|n: i64| n * n % 97) {
            boot += step;
            let time = steady.at(boot, || START - YEAR);
            assert!(time >= before, "{time} after {before}");
            before = time;
        }
    }

    #[test]
    fn the_machine_s_clock_is_the_system_s_when_nobody_sets_it() {
        let (before, now, after) = (system_time(), SystemClock.now().0, system_time());
        assert!(
            (before - 1_000..=after + 1_000).contains(&now),
            "{now} is not between {before} and {after}"
        );
        assert!(SystemClock.now().0 >= now);
    }

    #[test]
    fn a_manual_clock_moves_when_told() {
        let clock = ManualClock::new(UnixMillis(10));
        clock.advance(Duration::from_secs(2));
        assert_eq!(clock.now(), UnixMillis(2_010));
    }
}
