//! What an upstream has said is not there, for `negative_ttl`: in memory only, bounded by bytes, so that names which somebody makes up
//! fill neither disk nor memory (docs/adr/0043). The exception is a companion of a generation, whose absence is part of it. Other replicas are
//! told.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use larder_core::{SourceKey, UnixMillis};

/// Bytes that all of them may take up together.
const BUDGET: usize = 8 << 20;
/// What one takes up beside the bytes of its key: it stands in two tables, neither of which is ever quite full.
const ENTRY: usize =
    2 * (2 * size_of::<SourceKey>() + size_of::<Absence>() + size_of::<Turn>()) + 32;

/// Something that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Absence {
    /// The upstream's status, 404 or 410.
    pub(crate) status: u16,
    /// When it said so.
    pub(crate) at: UnixMillis,
    /// How many documents of the repository had arrived by then: a later one may name the file.
    pub(crate) arrivals: u64,
}

/// Whose turn it is to go: the one that is over first.
type Turn = (UnixMillis, u64);

#[derive(Debug, Default)]
pub(crate) struct Absences(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    by_key: HashMap<SourceKey, (Absence, Turn)>,
    turns: BTreeMap<Turn, SourceKey>,
    bytes: usize,
    serial: u64,
}

impl Absences {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers for `ttl` from now; nothing if that is zero.
    pub(crate) fn note(&self, key: SourceKey, absence: Absence, ttl: Duration) {
        let mut held = self.lock();
        held.remove(&key);
        held.expire(absence.at);
        if ttl.is_zero() {
            return;
        }
        held.serial += 1;
        let turn = (absence.at.plus(ttl), held.serial);
        held.bytes += weight(&key);
        held.turns.insert(turn, key.clone());
        held.by_key.insert(key, (absence, turn));
        while held.bytes > BUDGET
            && let Some((_, key)) = held.turns.pop_first()
        {
            held.by_key.remove(&key);
            held.bytes -= weight(&key);
        }
    }

    /// What is remembered of this key, if it was said less than `ttl` ago. A time in the future is the mark of a clock that was set
    /// back, and counts for nothing.
    pub(crate) fn get(&self, key: &SourceKey, ttl: Duration, now: UnixMillis) -> Option<Absence> {
        let mut held = self.lock();
        let (absence, _) = held.by_key.get(key).copied()?;
        if absence.at <= now && now < absence.at.plus(ttl) {
            return Some(absence);
        }
        held.remove(key);
        None
    }

    /// The file is still not named by what has arrived since.
    pub(crate) fn confirm(&self, key: &SourceKey, arrivals: u64) {
        if let Some((absence, _)) = self.lock().by_key.get_mut(key) {
            absence.arrivals = arrivals;
        }
    }

    pub(crate) fn remove(&self, key: &SourceKey) {
        self.lock().remove(key);
    }

    /// Forgets those of which `which` is true, and those that are over.
    pub(crate) fn forget(&self, now: UnixMillis, mut which: impl FnMut(&SourceKey) -> bool) {
        let mut held = self.lock();
        held.expire(now);
        let going: Vec<SourceKey> = held
            .by_key
            .keys()
            .filter(|key| which(key))
            .cloned()
            .collect();
        for key in going {
            held.remove(&key);
        }
    }
}

impl Held {
    fn remove(&mut self, key: &SourceKey) {
        if let Some((_, turn)) = self.by_key.remove(key) {
            self.turns.remove(&turn);
            self.bytes -= weight(key);
        }
    }

    fn expire(&mut self, now: UnixMillis) {
        while let Some((turn, _)) = self.turns.first_key_value()
            && turn.0 <= now
            && let Some((_, key)) = self.turns.pop_first()
        {
            self.by_key.remove(&key);
            self.bytes -= weight(&key);
        }
        if self.by_key.is_empty() {
            // A table keeps the room that it once needed.
            *self = Self {
                serial: self.serial,
                ..Self::default()
            };
        }
    }
}

/// What an entry takes up in memory, key and all.
fn weight(key: &SourceKey) -> usize {
    // The path is shared by both tables, a variant of its own is not.
    key.path.len() + 2 * key.variant.len() + ENTRY
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_core::RepositoryName;

    const TTL: Duration = Duration::from_secs(10);

    fn key(path: &str) -> SourceKey {
        SourceKey {
            repository: RepositoryName::parse("r").unwrap(),
            path: path.into(),
            variant: "".into(),
        }
    }

    fn at(millis: i64) -> Absence {
        Absence {
            status: 404,
            at: UnixMillis(millis),
            arrivals: 0,
        }
    }

    #[test]
    fn hazard_x6_absences_are_bounded_by_bytes() {
        let absences = Absences::default();
        // Sixteen times the budget in the bytes of the paths alone.
        for n in 0..BUDGET / 128 {
            absences.note(key(&format!("{n:02048}")), at(0), TTL);
        }
        let held = absences.lock();
        let paths: usize = held.by_key.keys().map(|key| key.path.len()).sum();
        assert!(
            held.bytes <= BUDGET && paths <= BUDGET,
            "{} {paths}",
            held.bytes
        );
        assert!(
            held.bytes > BUDGET - 4096,
            "what may be used is used: {}",
            held.bytes
        );
        assert_eq!(
            (held.by_key.len(), held.turns.len()),
            (
                held.bytes / weight(&key(&"0".repeat(2048))),
                held.by_key.len()
            )
        );
    }

    #[test]
    fn hazard_x6_what_is_over_vanishes() {
        let absences = Absences::default();
        for n in 0..1000 {
            absences.note(key(&n.to_string()), at(n), TTL);
        }
        absences.note(key("last"), at(20_000), TTL);
        assert_eq!(absences.lock().by_key.len(), 1);
        absences.forget(UnixMillis(30_000), |_| false);
        let held = absences.lock();
        assert_eq!(
            (held.by_key.capacity(), held.turns.len(), held.bytes),
            (0, 0, 0)
        );
    }

    #[test]
    fn hazard_a6_an_absence_holds_for_its_time_and_no_longer() {
        let absences = Absences::default();
        let get = |now| {
            absences
                .get(&key("a"), TTL, UnixMillis(now))
                .map(|absence| absence.status)
        };
        absences.note(key("a"), at(1000), TTL);
        assert_eq!((get(1000), get(10_999)), (Some(404), Some(404)));
        assert_eq!(get(11_000), None);
        absences.note(key("a"), at(1000), TTL);
        assert_eq!(get(999), None, "a clock that was set back");
        absences.note(key("a"), at(1000), Duration::ZERO);
        assert_eq!(get(1000), None);
    }

    #[test]
    fn one_key_is_held_once() {
        let absences = Absences::default();
        for n in 0..100 {
            absences.note(key("same"), at(n), TTL);
        }
        absences.remove(&key("same"));
        let held = absences.lock();
        assert_eq!((held.bytes, held.turns.len(), held.by_key.len()), (0, 0, 0));
    }
}
