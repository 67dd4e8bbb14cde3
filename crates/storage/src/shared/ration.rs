//! What several have together so much of, and how much of it each may use: the rule, without a clock and without a place where it is kept.
//!
//! Each says how much it uses and how much it wants; nobody is told that it may use what another still uses. Where not all get what they
//! want, each is left its part: the whole divided by those who want some. Where that is less than one, who has waited longest is next.

use std::time::Duration;

/// What one says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RationClaim<'a> {
    /// Who says so: letters and digits, and the same as long as it is there.
    pub holder: &'a str,
    /// How much there is for all.
    pub limit: u32,
    /// How much it uses now. It takes no more until it is told that it may.
    pub held: u32,
    /// How much it would use, including that.
    pub wanted: u32,
    /// How long this holds unless it is said again, at most [`LONGEST_LEASE`](super::LONGEST_LEASE).
    pub ttl: Duration,
}

/// What came of asking for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// It is after this time, and nobody else's.
    After(Duration),
    /// It would be after this time, which is too long: nothing was taken.
    TooLong(Duration),
}

/// What is remembered of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) holder: String,
    /// What nobody else may use: what it uses, or may use.
    pub(super) reserved: u64,
    pub(super) wanted: u64,
    /// Since when it has waited without anything; any time will do.
    pub(super) since: u64,
    /// When this runs out.
    pub(super) until: u64,
}

/// Takes a claim into account, and gives how much its holder may use from now on: less than it uses, perhaps. Times are in milliseconds.
pub(super) fn settle(entries: &mut Vec<Entry>, claim: &RationClaim<'_>, now: u64, ttl: u64) -> u32 {
    entries.retain(|entry| entry.until > now);
    let own = entries
        .iter()
        .position(|entry| entry.holder == claim.holder);
    let before = own.map(|own| entries.remove(own));
    let (limit, held) = (u64::from(claim.limit), u64::from(claim.held));
    let wanted = u64::from(claim.wanted).max(held);
    let waited_before = before.filter(|own| own.reserved == 0 && own.wanted > 0 && held == 0);
    let since = waited_before.map_or(now, |own| own.since.min(now));
    let asking = entries.iter().filter(|other| other.wanted > 0).count() as u64;
    let part = limit / (asking + u64::from(wanted > 0)).max(1);
    let is_hungry = |other: &Entry| other.wanted > other.reserved;
    let due = |other: &Entry| match other {
        other if !is_hungry(other) => other.reserved,
        other if part > 0 => other.reserved.max(other.wanted.min(part)),
        other => other
            .reserved
            .max(u64::from(other.reserved == 0 && other.since < since)),
    };
    let reserved: u64 = entries.iter().map(|other| other.reserved).sum();
    let free = limit.saturating_sub(reserved);
    let mut granted = wanted.min(free);
    if entries.iter().any(is_hungry) {
        let others: u64 = entries.iter().map(due).sum();
        granted = granted.min(part.min(free).max(limit.saturating_sub(others)));
    }
    if wanted > 0 {
        entries.push(Entry {
            holder: claim.holder.to_owned(),
            reserved: granted.max(held),
            wanted,
            since,
            until: now + ttl,
        });
    }
    u32::try_from(granted).unwrap_or(u32::MAX)
}

/// Takes the next moment that is free: `apart` after the last one. `next` is that moment, or 0. Times are in microseconds.
pub(super) fn take_moment(next: &mut u64, now: u64, apart: u64, patience: u64) -> Pace {
    // Further ahead than anybody waits is nobody's.
    let is_somebodys = *next > now && *next <= now + LONGEST_PACE_MICROS + apart;
    let at = if is_somebodys { *next } else { now };
    let wait = Duration::from_micros(at - now);
    if at - now > patience {
        return Pace::TooLong(wait);
    }
    *next = at + apart;
    Pace::After(wait)
}

/// Nobody waits longer for a moment.
pub(super) const LONGEST_PACE_MICROS: u64 = 60_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// Some who each use as much as they may, and want more; `held` of each.
    struct World {
        entries: Vec<Entry>,
        limit: u32,
        now: u64,
        held: Vec<u32>,
        wants: Vec<u32>,
    }

    impl World {
        fn new(limit: u32, wants: &[u32]) -> Self {
            Self {
                entries: Vec::new(),
                limit,
                now: 1_000,
                held: vec![0; wants.len()],
                wants: wants.to_vec(),
            }
        }

        /// One says what it uses, and takes what it may.
        fn speak(&mut self, who: usize) {
            self.now += 7;
            let holder = format!("{who:x}");
            let claim = RationClaim {
                holder: &holder,
                limit: self.limit,
                held: self.held[who],
                wanted: self.held[who].max(self.wants[who]),
                ttl: Duration::from_secs(5),
            };
            let may = settle(&mut self.entries, &claim, self.now, 5_000);
            self.held[who] = self.held[who].max(may.min(self.wants[who]));
            let all: u32 = self.held.iter().sum();
            assert!(all <= self.limit, "{:?} of {}", self.held, self.limit);
        }
    }

    #[test]
    fn never_more_than_the_whole_and_each_its_part() {
        for limit in 1..=9_u32 {
            for replicas in 1..=4_usize {
                let mut world = World::new(limit, &vec![100; replicas]);
                let mut turns = vec![0_u32; replicas];
                for round in 0..200_usize {
                    let who = (round * 7 + round / 3) % replicas;
                    world.speak(who);
                    // One of what this one uses comes to its end.
                    if world.held[who] > 0 {
                        turns[who] += 1;
                        world.held[who] -= 1;
                    }
                }
                let least = *turns.iter().min().expect("replicas");
                assert!(least > 0, "{limit} for {replicas}: {turns:?}");
            }
        }
    }

    #[test]
    fn who_is_alone_has_the_whole_and_gives_back_as_it_ends() {
        let mut world = World::new(4, &[100, 100]);
        world.speak(0);
        assert_eq!(world.held, [4, 0]);
        world.speak(1);
        world.speak(0);
        assert_eq!(world.held, [4, 0], "nothing is taken away");
        for _ in 0..3 {
            world.held[0] -= 1;
            world.speak(0);
            world.speak(1);
        }
        assert_eq!(world.held, [2, 2]);
    }

    #[test]
    fn what_is_not_wanted_is_left_to_others() {
        let mut world = World::new(10, &[2, 100]);
        world.speak(0);
        world.speak(1);
        assert_eq!(world.held, [2, 8]);
    }

    #[test]
    fn one_that_says_nothing_any_more_uses_nothing() {
        let mut world = World::new(4, &[100, 100]);
        world.speak(0);
        world.speak(1);
        assert_eq!(world.held[1], 0);
        world.held[0] = 0;
        world.now += 5_001;
        world.speak(1);
        assert_eq!(world.held[1], 4);
    }

    #[test]
    fn moments_are_apart_and_too_many_are_refused() {
        let (mut next, now) = (0, 5_000_000);
        let mut take = |now| take_moment(&mut next, now, 100_000, 250_000);
        let after = |micros| Pace::After(Duration::from_micros(micros));
        assert_eq!(take(now), after(0));
        assert_eq!(take(now), after(100_000));
        assert_eq!(take(now + 50_000), after(150_000));
        assert_eq!(
            take(now),
            Pace::TooLong(Duration::from_micros(300_000)),
            "and none is taken"
        );
        assert_eq!(take(now + 100_000), after(200_000));
        assert_eq!(take(now + 900_000), after(0), "none is saved up");
        let mut left_over = now + 3_600_000_000;
        let took = take_moment(&mut left_over, now, 100_000, 250_000);
        assert_eq!(took, after(0), "what no one could wait for is nobody's");
    }
}
