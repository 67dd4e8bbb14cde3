//! What was asked for and is not held, in memory until it is written down.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};

use larder_core::{RepositoryName, SourceKey, UnixMillis};

/// What is remembered of each repository, here until it is written down and in the database.
pub(crate) const MOST_ASKED: u32 = 10_000;

/// Why something is not held that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum NotHeld {
    /// It was served and not kept.
    NotKept,
    /// The upstream said that it is not there.
    Absent,
    /// It could not be had.
    Failed,
    /// The format says that it is not kept.
    PassedThrough,
    /// It went to make room.
    Evicted,
    /// The operator has dropped it.
    Flushed,
}

const WORDS: [(NotHeld, &str); 6] = [
    (NotHeld::NotKept, "not_kept"),
    (NotHeld::Absent, "absent"),
    (NotHeld::Failed, "failed"),
    (NotHeld::PassedThrough, "passed_through"),
    (NotHeld::Evicted, "evicted"),
    (NotHeld::Flushed, "flushed"),
];

impl NotHeld {
    pub(crate) const fn as_str(self) -> &'static str {
        WORDS[self as usize].1
    }
}

/// How often something was asked for, and from when to when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) requests: u64,
    pub(super) first: UnixMillis,
    pub(super) last: UnixMillis,
}

pub(super) type Staged = HashMap<(Box<str>, Box<str>), (Times, NotHeld)>;

/// What of all repositories waits to be written down.
const MOST_STAGED: usize = 50_000;
/// What has a longer path is not remembered.
const LONGEST: usize = 1_024;

/// What was asked for and is to be written down.
#[derive(Debug, Default)]
pub(super) struct Asked(Mutex<(HashMap<RepositoryName, Staged>, usize)>);

impl Asked {
    pub(super) fn note(&self, key: &SourceKey, times: Times, why: NotHeld) {
        if key.path.len() > LONGEST {
            return;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (of_each, count) = &mut *all;
        let staged = of_each.entry(key.repository.clone()).or_default();
        let place = (Box::from(&*key.path), Box::from(&*key.variant));
        let is_full = staged.len() >= MOST_ASKED as usize || *count >= MOST_STAGED;
        let known = match staged.entry(place) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(_) if is_full => return,
            Entry::Vacant(free) => {
                *count += 1;
                let none = Times {
                    requests: 0,
                    ..times
                };
                free.insert((none, why))
            }
        };
        let all = Times {
            requests: known.0.requests + times.requests,
            first: known.0.first.min(times.first),
            last: known.0.last.max(times.last),
        };
        *known = (all, why);
    }

    pub(super) fn take(&self) -> HashMap<RepositoryName, Staged> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *all).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_stands_at_its_own_place_in_the_table() {
        for (position, (why, _)) in WORDS.iter().enumerate() {
            assert_eq!(*why as usize, position);
        }
    }
}
