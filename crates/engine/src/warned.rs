//! Warnings of what may happen at every request: each is said once an hour for each reason, and counted by the metrics.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use larder_core::UnixMillis;

const BETWEEN_WARNINGS: Duration = Duration::from_hours(1);

/// When the log has last spoken of what, by what it is and why. Both are words of the program, so that it stays small.
#[derive(Debug, Default)]
pub(crate) struct Warned(Mutex<HashMap<(&'static str, &'static str), UnixMillis>>);

impl Warned {
    /// Whether the log has not spoken of this for a while.
    pub(crate) fn is_first(&self, what: &'static str, why: &'static str, now: UnixMillis) -> bool {
        let mut warned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rests = warned.get(&(what, why)).is_some_and(|told| *told <= now && now.since(*told) < BETWEEN_WARNINGS);
        if !rests {
            warned.insert((what, why), now);
        }
        !rests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_at_every_request_is_told_once_an_hour_for_each_reason() {
        let warned = Warned::default();
        let first = |why, seconds: i64| warned.is_first("stale", why, UnixMillis(seconds * 1000));
        assert!(first("upstream_timeout", 0) && first("upstream_cut", 1));
        assert!(!first("upstream_timeout", 3_599) && first("upstream_timeout", 3_600));
        assert!(first("upstream_timeout", 10), "a clock that was set back silences nothing");
    }
}
