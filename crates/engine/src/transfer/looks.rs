//! How a place is used, as whoever holds it sees by looking around each second.

use std::collections::VecDeque;
use std::time::Duration;

use crate::budget::Usage;

/// How often whoever has a place looks whether it is to be given up.
pub(crate) const LOOK_AROUND: Duration = Duration::from_secs(1);
/// What has to come in that time of what nobody waits for, for it to keep a place that others want, in bytes.
const LEAST_UNREAD: u64 = 64 << 10;
/// After so many looks what somebody waits for is slow, if less than [`LEAST_READ`] bytes have come between them.
const WINDOW: usize = 5;
const LEAST_READ: u64 = 80 << 10;

/// What had come at the last looks.
#[derive(Debug)]
pub(crate) struct Looks(VecDeque<u64>);

impl Looks {
    /// So many bytes have come when the first look is still to be taken.
    pub(crate) fn new(come: u64) -> Self {
        Self(VecDeque::from([come]))
    }

    /// How the place is used by what has brought so many bytes by now. `is_awaited`: whether somebody waits for them.
    pub(crate) fn usage(&mut self, come: u64, is_awaited: bool) -> Usage {
        let since = |looks: usize| {
            let before = self.0.len().checked_sub(looks)?;
            Some(come - self.0.get(before).copied()?)
        };
        let usage = if since(1).is_none_or(|bytes| bytes >= LEAST_UNREAD) {
            Usage::Busy
        } else if !is_awaited {
            Usage::Idle
        } else if since(WINDOW).is_some_and(|bytes| bytes < LEAST_READ) {
            Usage::Slow
        } else {
            Usage::Busy
        };
        self.0.push_back(come);
        if self.0.len() > WINDOW {
            self.0.pop_front();
        }
        usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_waits_for_is_slow_after_five_looks() {
        let mut looks = Looks::new(0);
        let seen: Vec<_> = (1..8).map(|n| looks.usage(n * 10_000, true)).collect();
        assert_eq!(seen[..4], [Usage::Busy; 4]);
        assert_eq!(seen[4..], [Usage::Slow; 3]);
        // 70,000 at once; five looks before that, 60,000 had come at the fourth look after it, which is 80,000 in all.
        let seen: Vec<_> = (0..5).map(|_| looks.usage(140_000, true)).collect();
        assert_eq!(seen[..3], [Usage::Busy; 3]);
        assert_eq!(seen[3..], [Usage::Slow; 2]);
    }

    #[test]
    fn what_nobody_waits_for_is_idle_after_one() {
        let mut looks = Looks::new(7);
        assert_eq!(looks.usage(7, false), Usage::Idle);
        assert_eq!(looks.usage(7 + (64 << 10), false), Usage::Busy);
        assert_eq!(looks.usage(8 + (64 << 10), false), Usage::Idle);
    }
}
