//! The books against a model: a list of who holds what and one of who waits, searched from end to end, with the rules as the
//! documentation of `shares.rs` says them.

use proptest::prelude::*;

use crate::shares::{Party, Shares};

const REPOSITORIES: usize = 6;

/// Two repositories of each upstream.
fn party(number: usize) -> Party {
    Party::new(format!("r{number}"), format!("u{}", number / 2))
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Somebody asks for so much.
    Ask(usize, u64),
    /// One of those who hold something gives it back.
    GiveBack(usize),
    /// One of those who wait goes.
    Leave(usize),
    /// Something is taken though there may be no room.
    TakeAnyway(usize, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let (who, weight) = (0..REPOSITORIES, 1..12_u64);
    prop_oneof![
        5 => (who.clone(), weight.clone()).prop_map(|(who, weight)| Step::Ask(who, weight)),
        4 => any::<prop::sample::Index>().prop_map(|at| Step::GiveBack(at.index(1_000))),
        1 => any::<prop::sample::Index>().prop_map(|at| Step::Leave(at.index(1_000))),
        1 => (who, weight).prop_map(|(who, weight)| Step::TakeAnyway(who, weight)),
    ]
}

/// One who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Waiter {
    who: usize,
    weight: u64,
    ticket: u64,
}

#[derive(Debug)]
struct Model {
    total: u64,
    held: Vec<(usize, u64)>,
    waiting: Vec<Waiter>,
    /// The order of turns: who has waited longest without having been given anything stands first.
    turns: Vec<usize>,
    passed_over: u32,
}

impl Model {
    fn held_by(&self, which: impl Fn(usize) -> bool) -> u64 {
        let held = self.held.iter().filter(|(who, _)| which(*who));
        held.map(|(_, weight)| weight).sum()
    }

    fn free(&self) -> u64 {
        self.total.saturating_sub(self.held_by(|_| true))
    }

    fn first_of(&self, who: usize) -> Option<Waiter> {
        self.waiting
            .iter()
            .copied()
            .filter(|one| one.who == who)
            .min_by_key(|one| one.ticket)
    }

    /// Whether the first in turn has nothing, its upstream next to nothing, and what is free is too little for it.
    fn first_starves(&self) -> bool {
        let first = self.turns.first().and_then(|who| self.first_of(*who));
        first.is_some_and(|first| {
            self.held_by(|who| who == first.who) == 0
                && self.held_by(|who| who / 2 == first.who / 2) <= self.total / 16
                && first.weight > self.free()
        })
    }

    fn may_take(&self, one: usize, weight: u64) -> bool {
        if weight > self.free() {
            return false;
        }
        let own = self.held_by(|who| who == one);
        let upstream = self.held_by(|who| who / 2 == one / 2);
        let left = self.free() - weight;
        let starves =
            self.passed_over >= 64 && self.turns.first() != Some(&one) && self.first_starves();
        if starves && own + weight > self.total / 16 {
            return false;
        }
        // Who has nothing is let in; all of one upstream leave at least a third of what they have.
        let leaves_a_third = (upstream + weight).div_ceil(3) <= left;
        let is_let_in = own == 0 && upstream + weight <= self.total - self.total / 4;
        if upstream == 0 || is_let_in {
            true
        } else if own + weight <= self.total.div_ceil(4) {
            leaves_a_third
        } else {
            let others_wait = self.turns.iter().any(|who| *who != one);
            // So much more could its upstream take before it left less than a third.
            let more = (0..=self.total).take_while(|more| {
                left.checked_sub(*more)
                    .is_some_and(|left| upstream + weight + more <= 3 * left)
            });
            leaves_a_third && !others_wait && more.count() as u64 > self.total.div_ceil(4) / 4
        }
    }

    fn take(&mut self, who: usize, weight: u64) {
        if self.turns.first().is_some_and(|first| *first != who) && self.first_starves() {
            self.passed_over += 1;
        } else if self.turns.first() == Some(&who) {
            self.passed_over = 0;
        }
        self.held.push((who, weight));
    }

    /// Who is given something now, in the order in which it is given.
    fn grant(&mut self) -> Vec<u64> {
        let mut granted = Vec::new();
        loop {
            let next = self.turns.iter().copied().find_map(|who| {
                let first = self.first_of(who)?;
                self.may_take(who, first.weight).then_some(first)
            });
            let Some(next) = next else {
                return granted;
            };
            self.take(next.who, next.weight);
            self.waiting.retain(|one| one.ticket != next.ticket);
            self.turns.retain(|who| *who != next.who);
            if self.first_of(next.who).is_some() {
                self.turns.push(next.who);
            }
            granted.push(next.ticket);
        }
    }

    fn leave(&mut self, ticket: u64) {
        let who = self.waiting.iter().find(|one| one.ticket == ticket);
        let who = who.expect("it waits").who;
        self.waiting.retain(|one| one.ticket != ticket);
        if self.first_of(who).is_none() {
            if self.turns.first() == Some(&who) {
                self.passed_over = 0;
            }
            self.turns.retain(|one| *one != who);
        }
    }
}

/// Carries `steps` out on both and compares what comes of them.
fn compare(total: u64, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut books: Shares<u64> = Shares::new(total, u64::MAX);
    let mut model = Model {
        total,
        held: Vec::new(),
        waiting: Vec::new(),
        turns: Vec::new(),
        passed_over: 0,
    };
    let mut next = 0;
    for step in steps {
        match *step {
            Step::Ask(who, weight) => {
                let weight = weight.clamp(1, books.most());
                let waits = model.first_of(who).is_some();
                let at_once = !waits && model.may_take(who, weight);
                prop_assert_eq!(books.try_take(&party(who), weight), at_once);
                if at_once {
                    model.take(who, weight);
                } else {
                    let ticket = books.wait(&party(who), weight, next);
                    prop_assert_eq!(ticket, next);
                    next += 1;
                    if !waits {
                        model.turns.push(who);
                    }
                    model.waiting.push(Waiter {
                        who,
                        weight,
                        ticket,
                    });
                }
            }
            Step::GiveBack(at) if !model.held.is_empty() => {
                let (who, weight) = model.held.swap_remove(at % model.held.len());
                books.give_back(&party(who), weight);
            }
            Step::Leave(at) if !model.waiting.is_empty() => {
                let one = model.waiting[at % model.waiting.len()];
                prop_assert!(books.leave(&party(one.who), one.ticket));
                model.leave(one.ticket);
            }
            Step::TakeAnyway(who, weight) => {
                books.take(&party(who), weight);
                model.take(who, weight);
            }
            Step::GiveBack(_) | Step::Leave(_) => {}
        }
        let granted: Vec<u64> = books.grant().into_iter().map(|one| one.waiter).collect();
        prop_assert_eq!(granted, model.grant());
        prop_assert_eq!(books.held(), model.held_by(|_| true));
        prop_assert_eq!(books.waiting(), model.waiting.len());
        // Nobody whose upstream has nothing waits for what is free.
        for one in &model.waiting {
            let upstream = model.held_by(|who| who / 2 == one.who / 2);
            let is_first = model.first_of(one.who) == Some(*one);
            prop_assert!(
                upstream > 0 || !is_first || model.free() < one.weight || model.passed_over >= 64
            );
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_books_do_what_the_rules_say(
        total in prop::sample::select(vec![1_u64, 2, 3, 7, 16, 64]),
        steps in prop::collection::vec(step(), 1..200),
    ) {
        compare(total, &steps)?;
    }
}
