//! Warnings about single files: one for each repository and cause, and at most one an hour after that; the others are said at `debug`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// After this a cause that still holds is warned of again.
const AGAIN: Duration = Duration::from_hours(1);
/// The same of what keeps larder from its work, so that the log shows how long it goes on.
const TROUBLE_AGAIN: Duration = Duration::from_mins(1);

/// What one repository has been warned of: when, and how often it has happened since.
#[derive(Debug, Default)]
pub(crate) struct Causes(Mutex<HashMap<&'static str, (Instant, u64)>>);

impl Causes {
    /// Counts one. If it is to be warned of: how many there have been since the last warning, this one included.
    pub(crate) fn due(&self, cause: &'static str) -> Option<u64> {
        self.due_at(cause, AGAIN, Instant::now())
    }

    /// The same for errors of larder's own, which every request may meet.
    pub(crate) fn trouble_due(&self, cause: &'static str) -> Option<u64> {
        self.due_at(cause, TROUBLE_AGAIN, Instant::now())
    }

    fn due_at(&self, cause: &'static str, again: Duration, now: Instant) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((warned, since)) = all.get_mut(cause) else {
            all.insert(cause, (now, 0));
            return Some(1);
        };
        *since += 1;
        if now.saturating_duration_since(*warned) < again {
            return None;
        }
        *warned = now;
        Some(std::mem::take(since))
    }
}

/// Says something of a file: a warning if its cause is due for one, else at `debug`.
macro_rules! warn_once {
    ($wanted:expr, $cause:expr, $message:literal $(, $name:ident = $value:expr)*) => {
        match $wanted.entry.learnt.causes.due($cause) {
            Some(times) => tracing::warn!(
                repository = %$wanted.entry.repository.name, key = %$wanted.key, times, $($name = $value,)* $message
            ),
            None => tracing::debug!(repository = %$wanted.entry.repository.name, key = %$wanted.key, $($name = $value,)* $message),
        }
    };
}
pub(crate) use warn_once;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_due_once_an_hour() {
        let (causes, start) = (Causes::default(), Instant::now());
        let due = |cause, minutes: u64| {
            causes.due_at(cause, AGAIN, start + Duration::from_secs(60 * minutes))
        };
        assert_eq!(
            (due("a", 0), due("a", 1), due("b", 1), due("a", 59)),
            (Some(1), None, Some(1), None)
        );
        assert_eq!(
            (due("a", 60), due("a", 61), due("b", 61)),
            (Some(3), None, Some(1))
        );
    }

    #[test]
    fn larder_s_own_trouble_is_due_once_a_minute() {
        let (causes, start) = (Causes::default(), Instant::now());
        let due = |seconds: u64| {
            causes.due_at(
                "storage",
                TROUBLE_AGAIN,
                start + Duration::from_secs(seconds),
            )
        };
        assert_eq!(
            (due(0), due(1), due(59), due(60), due(61)),
            (Some(1), None, None, Some(3), None)
        );
    }
}
