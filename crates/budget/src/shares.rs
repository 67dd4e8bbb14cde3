//! Who holds how much of one scarce thing, whose turn it is, and how much one may take.
//!
//! Who holds something may be slow, and give it back late. So nobody may take everything, not even while nobody else wants any:
//! - The repositories of one upstream take more only while they leave at least a third of what they hold then. One of them alone gets
//!   three quarters of the whole in this way, a second such upstream three quarters of the rest, and so on: there is a rest for some more.
//! - While another repository waits, none takes more than a quarter of the whole. Beyond a quarter, a repository leaves a sixteenth to
//!   the other repositories of its upstream.
//! - What becomes free goes to those who wait in turn, one repository after the other. Whoever wants more than is free at present is passed
//!   over, but not for ever: after that, others take little more until it has its turn.
//!
//! Where many upstreams are slow there is no rest any more. An upstream that holds more than the whole divided by the number of those that
//! hold or want some is over its part: what it hardly uses may be asked back for those that have next to nothing.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// Who takes something: a repository, and the upstream that it asks. Repositories of one upstream suffer together from what that does, so
/// that together they leave something to others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Party {
    repository: Arc<str>,
    upstream: Arc<str>,
}

impl Party {
    /// A repository of an upstream (its scheme, host and port).
    pub fn new(repository: impl Into<Arc<str>>, upstream: impl Into<Arc<str>>) -> Self {
        Self {
            repository: repository.into(),
            upstream: upstream.into(),
        }
    }

    /// One that shares no upstream with any other.
    pub fn alone(repository: &str) -> Self {
        let name = Arc::<str>::from(repository);
        Self::new(Arc::clone(&name), name)
    }

    fn is_alone(&self) -> bool {
        self.repository == self.upstream
    }
}

/// How often the first in turn is passed over because it wants more than is free.
const MOST_PASSED_OVER: u32 = 64;

/// What one repository holds, and what it waits for.
#[derive(Debug)]
struct Account<W> {
    held: u64,
    /// By ticket, so in the order that they came.
    waiting: BTreeMap<u64, (u64, W)>,
}

impl<W> Default for Account<W> {
    fn default() -> Self {
        Self {
            held: 0,
            waiting: BTreeMap::new(),
        }
    }
}

/// Who gets something now, and how much.
#[derive(Debug)]
pub(super) struct Granted<W> {
    pub(super) party: Party,
    pub(super) weight: u64,
    pub(super) waiter: W,
}

/// The books of one pool. `W` is how a waiter is told.
#[derive(Debug)]
pub(super) struct Shares<W> {
    total: u64,
    /// The most that one repository has.
    cap: u64,
    /// All repositories ask one upstream: there is nobody to leave a rest to.
    pub(super) is_of_one_upstream: bool,
    /// May be more than there is: what is there already is taken whether there is room or not.
    held: u64,
    upstreams: HashMap<Arc<str>, u64>,
    accounts: HashMap<Party, Account<W>>,
    /// Repositories that wait, in the order of their turns.
    turns: VecDeque<Party>,
    next_ticket: u64,
    /// How often others have been given something that the first in turn could have had a part of.
    passed_over: u32,
}

impl<W> Shares<W> {
    pub(super) fn new(total: u64, cap: u64) -> Self {
        Self {
            total,
            cap,
            is_of_one_upstream: false,
            held: 0,
            upstreams: HashMap::new(),
            accounts: HashMap::new(),
            turns: VecDeque::new(),
            next_ticket: 0,
            passed_over: 0,
        }
    }

    pub(super) fn resize(&mut self, total: u64) {
        self.total = total;
    }

    /// The most that all repositories of one upstream have, and so the most that can be had at once.
    pub(super) fn most(&self) -> u64 {
        if self.is_of_one_upstream {
            return self.total.max(1);
        }
        (self.total - self.total / 4).clamp(1, self.cap.max(1))
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn held(&self) -> u64 {
        self.held
    }

    fn free(&self) -> u64 {
        self.total.saturating_sub(self.held)
    }

    fn held_of(&self, party: &Party) -> u64 {
        self.accounts.get(party).map_or(0, |account| account.held)
    }

    fn held_of_upstream(&self, upstream: &str) -> u64 {
        self.upstreams.get(upstream).copied().unwrap_or(0)
    }

    pub(super) fn waiting(&self) -> usize {
        self.turns.iter().map(|party| self.waiting_of(party)).sum()
    }

    pub(super) fn waiting_of(&self, party: &Party) -> usize {
        self.accounts
            .get(party)
            .map_or(0, |account| account.waiting.len())
    }

    pub(super) fn anybody_waits(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Whether the first in turn holds nothing, and only lacks what others have.
    fn first_lacks_room(&self) -> bool {
        let first = self
            .turns
            .front()
            .and_then(|party| Some((party, self.accounts.get(party)?)));
        first.is_some_and(|(party, account)| {
            let of_upstream = self.held_of_upstream(&party.upstream);
            let first = account.waiting.first_key_value();
            let wanted = first.map_or(0, |(_, (weight, _))| *weight);
            account.held == 0 && wanted > self.free() && of_upstream <= self.total / 16
        })
    }

    /// Whether this repository has to hold back, so that the first in turn gets what it has waited for long enough.
    fn must_hold_back(&self, party: &Party, after: u64) -> bool {
        self.passed_over >= MOST_PASSED_OVER
            && self.turns.front() != Some(party)
            && after > self.total / 16
            && self.first_lacks_room()
    }

    /// Whether a repository may take this much more now.
    fn may_take(&self, party: &Party, weight: u64) -> bool {
        let Some(left) = self.free().checked_sub(weight) else {
            return false;
        };
        if self.is_of_one_upstream {
            return true;
        }
        let of_upstream = self.held_of_upstream(&party.upstream);
        let held = self.held_of(party);
        if held + weight > self.cap || self.must_hold_back(party, held + weight) {
            return false;
        }
        if of_upstream == 0 {
            return true;
        }
        let after = of_upstream + weight;
        if held == 0 && after <= self.most() {
            return true;
        }
        if after > left.saturating_mul(3) {
            return false;
        }
        let quarter = self.total.div_ceil(4);
        if held + weight <= quarter {
            return true;
        }
        // What the upstream's repositories could still take together after this.
        let room = (left.saturating_mul(3) - after) / 4;
        let others_wait = self.turns.iter().any(|waiting| waiting != party);
        !others_wait && (party.is_alone() || room >= quarter / 4)
    }

    /// What an upstream would have if all that hold or want some had the same.
    fn part(&self) -> u64 {
        let waiting = self.turns.iter().map(|party| &party.upstream);
        let mut empty: Vec<_> = waiting
            .filter(|upstream| !self.upstreams.contains_key(*upstream))
            .collect();
        empty.sort_unstable();
        empty.dedup();
        let count = (self.upstreams.len() + empty.len()).max(1) as u64;
        (self.total / count).max(1)
    }

    /// Whether the upstream of this repository has more than its part, and the repository no less of that than its others.
    pub(super) fn is_over(&self, party: &Party) -> bool {
        let of_upstream = self.held_of_upstream(&party.upstream);
        let siblings = self
            .accounts
            .iter()
            .filter(|(other, account)| other.upstream == party.upstream && account.held > 0);
        of_upstream > self.part() && self.held_of(party) * siblings.count() as u64 >= of_upstream
    }

    /// How much is waited for in all.
    pub(super) fn wanted(&self) -> u64 {
        let waiting = self
            .turns
            .iter()
            .filter_map(|party| self.accounts.get(party));
        waiting
            .flat_map(|account| account.waiting.values())
            .map(|(weight, _)| weight)
            .sum()
    }

    /// How much is waited for by upstreams that have less than a sixteenth of the whole, as far as they would not have more with it.
    pub(super) fn wanted_by_the_needy(&self) -> u64 {
        let little = self.part().min((self.total / 16).max(1));
        let mut wanted: HashMap<&str, u64> = HashMap::new();
        for party in &self.turns {
            let waiting = self.accounts.get(party).into_iter();
            let weights = waiting.flat_map(|account| account.waiting.values());
            *wanted.entry(&party.upstream).or_default() +=
                weights.map(|(weight, _)| weight).sum::<u64>();
        }
        wanted
            .into_iter()
            .map(|(upstream, wanted)| {
                wanted.min(little.saturating_sub(self.held_of_upstream(upstream)))
            })
            .sum()
    }

    /// Takes this much whether it is there or not.
    pub(super) fn take(&mut self, party: &Party, weight: u64) {
        if self.turns.front().is_some_and(|first| first != party) && self.first_lacks_room() {
            self.passed_over += 1;
        } else if self.turns.front() == Some(party) {
            self.passed_over = 0;
        }
        self.held += weight;
        *self
            .upstreams
            .entry(Arc::clone(&party.upstream))
            .or_default() += weight;
        self.account(party).held += weight;
    }

    fn account(&mut self, party: &Party) -> &mut Account<W> {
        self.accounts.entry(party.clone()).or_default()
    }

    /// Takes this much at once, if nobody of the repository waits already and its share allows it.
    pub(super) fn try_take(&mut self, party: &Party, weight: u64) -> bool {
        let at_once = self.waiting_of(party) == 0 && self.may_take(party, weight);
        if at_once {
            self.take(party, weight);
        }
        at_once
    }

    /// Gives back what was taken. [`grant`](Self::grant) says who gets it.
    pub(super) fn give_back(&mut self, party: &Party, weight: u64) {
        self.held -= weight;
        if let Some(held) = self.upstreams.get_mut(&party.upstream) {
            *held -= weight;
            if *held == 0 {
                self.upstreams.remove(&party.upstream);
            }
        }
        self.account(party).held -= weight;
        self.forget_idle(party);
    }

    /// Waits; gives the ticket by which one leaves.
    pub(super) fn wait(&mut self, party: &Party, weight: u64, waiter: W) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let account = self.account(party);
        let is_first = account.waiting.is_empty();
        account.waiting.insert(ticket, (weight, waiter));
        if is_first {
            self.turns.push_back(party.clone());
        }
        ticket
    }

    /// Waits no longer. `false` if it does not: it has been granted. Otherwise others may have become entitled
    /// ([`grant`](Self::grant)).
    pub(super) fn leave(&mut self, party: &Party, ticket: u64) -> bool {
        let account = self.account(party);
        let left = account.waiting.remove(&ticket).is_some();
        if account.waiting.is_empty() {
            if self.turns.front() == Some(party) {
                self.passed_over = 0;
            }
            self.turns.retain(|waiting| waiting != party);
        }
        self.forget_idle(party);
        left
    }

    fn forget_idle(&mut self, party: &Party) {
        if self
            .accounts
            .get(party)
            .is_some_and(|account| account.held == 0 && account.waiting.is_empty())
        {
            self.accounts.remove(party);
        }
    }

    /// Gives what is free to those who wait, as far as their shares allow it. Whoever gets something has its next turn after all others;
    /// whoever is passed over because what it wants is not free keeps its turn.
    pub(super) fn grant(&mut self) -> Vec<Granted<W>> {
        let (mut granted, mut at) = (Vec::new(), 0);
        while let Some(party) = self.turns.get(at).cloned() {
            let first = self.accounts.get(&party).and_then(|account| {
                let (ticket, (weight, _)) = account.waiting.first_key_value()?;
                Some((*ticket, *weight))
            });
            let Some((ticket, weight)) = first else {
                self.turns.remove(at);
                continue;
            };
            if !self.may_take(&party, weight) {
                at += 1;
                continue;
            }
            self.take(&party, weight);
            self.turns.remove(at);
            let account = self.account(&party);
            let waiter = account.waiting.remove(&ticket);
            if !account.waiting.is_empty() {
                self.turns.push_back(party.clone());
            }
            granted.extend(waiter.map(|(weight, waiter)| Granted {
                party,
                weight,
                waiter,
            }));
            at = 0;
        }
        granted
    }
}
