//! Leases of one scarce thing, waiting for them, and giving them up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::kind::{BudgetKind, BudgetUse};
use crate::shares::{Party, Shares};

/// After this it is said again that something was not to be had.
const TELL_AGAIN: Duration = Duration::from_mins(1);

/// Why there is no lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// What was wanted.
    pub kind: BudgetKind,
    /// How much of it there is in all.
    pub limit: u64,
    /// How long it was waited for; `None`: so many of the repository waited already that this one was not let wait.
    pub waited: Option<Duration>,
}

/// The bounds of waiting for one scarce thing.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// How many of one repository wait at the same time.
    pub most: usize,
    /// How long each of them waits.
    pub longest: Duration,
}

/// How a lease is used, as far as who holds it can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Something comes of it.
    Busy,
    /// Next to nothing comes of it, and somebody waits for that.
    Slow,
    /// Next to nothing comes of it, and nobody waits for that any more.
    Idle,
}

/// What there is of one scarce thing.
#[derive(Debug)]
pub struct Pool {
    kind: BudgetKind,
    waits: Waits,
    books: Mutex<Books>,
    refused: AtomicU64,
    yielded: AtomicU64,
    told: Mutex<Told>,
}

#[derive(Debug)]
struct Books {
    shares: Shares<oneshot::Sender<Lease>>,
    /// Leases whose holders have said that they are idle.
    idle: u64,
    /// What is leased to those who have been told to give it up, and have not done so yet.
    yielding: u64,
}

/// When the operator was last told that something was not to be had, and how often that has happened since.
#[derive(Debug, Default)]
struct Told {
    at: Option<Instant>,
    since: u64,
}

impl Pool {
    /// `total` places or bytes.
    pub fn new(kind: BudgetKind, total: u64, waits: Waits) -> Arc<Self> {
        Self::with_cap(kind, total, u64::MAX, waits)
    }

    /// The same, of which no repository has more than `cap`, whether others want any or not.
    pub fn with_cap(kind: BudgetKind, total: u64, cap: u64, waits: Waits) -> Arc<Self> {
        Arc::new(Self {
            kind,
            waits,
            books: Mutex::new(Books {
                shares: Shares::new(total, cap),
                idle: 0,
                yielding: 0,
            }),
            refused: AtomicU64::new(0),
            yielded: AtomicU64::new(0),
            told: Mutex::default(),
        })
    }

    /// The same, of which no rest is left for other upstreams, for there are none: who waits gets what is free, one repository after the
    /// other.
    pub fn of_one_upstream(kind: BudgetKind, total: u64, waits: Waits) -> Arc<Self> {
        let pool = Self::new(kind, total, waits);
        pool.books().shares.is_of_one_upstream = true;
        pool
    }

    /// From now on there is so much of it. If that is less than what is leased, nothing is until enough has been given back.
    pub fn resize(self: &Arc<Self>, total: u64) {
        self.settle(|books| books.shares.resize(total));
    }

    /// From now on there is as much of it as is leased, so that no more is than now; gives how much that is, and how many wait.
    pub fn freeze(&self) -> (u64, u64) {
        let shares = &mut self.books().shares;
        let held = shares.held();
        shares.resize(held);
        (held, shares.waiting() as u64)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leases `weight` of it; more than one upstream may have is leased as that much. Whoever stops waiting gives its turn on.
    ///
    /// # Errors
    /// Too many of the repository wait already, or this one has waited too long.
    pub async fn lease(self: &Arc<Self>, party: Party, weight: u64) -> Result<Lease, Refused> {
        self.lease_within(party, weight, self.waits.longest).await
    }

    /// The same, waited for as long as `patience`.
    ///
    /// # Errors
    /// As for [`lease`](Self::lease).
    pub async fn lease_within(
        self: &Arc<Self>,
        party: Party,
        weight: u64,
        patience: Duration,
    ) -> Result<Lease, Refused> {
        let mut waiting = match self.lease_or_wait(party, weight)? {
            Ok(lease) => return Ok(lease),
            Err(waiting) => waiting,
        };
        match tokio::time::timeout(patience, &mut waiting.granted).await {
            Ok(Ok(lease)) => Ok(lease),
            Ok(Err(_)) | Err(_) => Err(self.refuse(Some(patience))),
        }
    }

    fn lease_or_wait(
        self: &Arc<Self>,
        party: Party,
        weight: u64,
    ) -> Result<Result<Lease, Waiting>, Refused> {
        let mut books = self.books();
        let shares = &mut books.shares;
        let weight = weight.clamp(1, shares.most());
        if shares.try_take(&party, weight) {
            return Ok(Ok(self.leased(party, weight)));
        }
        if shares.waiting_of(&party) >= self.waits.most {
            drop(books);
            return Err(self.refuse(None));
        }
        let (sender, granted) = oneshot::channel();
        let ticket = shares.wait(&party, weight, sender);
        drop(books);
        Ok(Err(Waiting {
            pool: Arc::clone(self),
            party,
            ticket,
            granted,
        }))
    }

    fn leased(self: &Arc<Self>, party: Party, weight: u64) -> Lease {
        Lease {
            pool: Arc::clone(self),
            party,
            weight,
            state: Mutex::new(State::default()),
        }
    }

    /// Takes `weight` whether it is there or not: others wait until there is room again.
    pub fn take_anyway(self: &Arc<Self>, party: Party, weight: u64) -> Lease {
        self.books().shares.take(&party, weight);
        self.leased(party, weight)
    }

    fn refuse(&self, waited: Option<Duration>) -> Refused {
        self.refused.fetch_add(1, Ordering::Relaxed);
        Refused {
            kind: self.kind,
            limit: self.books().shares.total(),
            waited,
        }
    }

    /// Tells the operator, once in a minute, that something was not to be had: thousands of requests may meet it.
    pub fn tell_of(&self, repository: &str, refused: Refused) {
        let (budget, limit) = (refused.kind.as_str(), refused.limit);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.since += 1;
        let now = Instant::now();
        if told.at.is_some_and(|at| now < at + TELL_AGAIN) {
            drop(told);
            tracing::debug!(%repository, budget, "too much is under way");
            return;
        }
        told.at = Some(now);
        let times = std::mem::take(&mut told.since);
        drop(told);
        let who = match refused.kind {
            BudgetKind::Uploads | BudgetKind::RequestBytes => "clients",
            BudgetKind::StoreParts => "object store",
            _ => "upstream",
        };
        tracing::warn!(
            %repository, budget, limit, times,
            "too much of one repository is under way for more to have its turn: its {who} may be slow"
        );
    }

    /// How it is used at present.
    pub fn in_use(&self) -> BudgetUse {
        let books = self.books();
        BudgetUse {
            kind: self.kind,
            limit: books.shares.total(),
            held: books.shares.held(),
            waiting: books.shares.waiting() as u64,
            refused: self.refused.load(Ordering::Relaxed),
            yielded: self.yielded.load(Ordering::Relaxed),
        }
    }

    /// Changes the books, and tells those who get something by it.
    fn settle(self: &Arc<Self>, change: impl FnOnce(&mut Books)) {
        let mut books = self.books();
        change(&mut books);
        loop {
            let granted = books.shares.grant();
            drop(books);
            let mut undelivered = Vec::new();
            for one in granted {
                let lease = self.leased(one.party, one.weight);
                // Whoever has stopped waiting in this moment; dropped one by one, leases would give themselves back within each other.
                undelivered.extend(one.waiter.send(lease).err());
            }
            if undelivered.is_empty() {
                return;
            }
            books = self.books();
            for mut lease in undelivered {
                let weight = std::mem::take(&mut lease.weight);
                books.shares.give_back(&lease.party, weight);
            }
        }
    }
}

/// What the books say of one lease beside its weight.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    is_idle: bool,
    is_yielding: bool,
}

/// The right to use something scarce, until it is dropped.
#[derive(Debug)]
pub struct Lease {
    pool: Arc<Pool>,
    party: Party,
    /// 0: it has been given back.
    weight: u64,
    state: Mutex<State>,
}

impl Lease {
    /// Whether somebody waits for what is leased.
    pub fn is_wanted(&self) -> bool {
        self.pool.books().shares.anybody_waits()
    }

    /// Says how the lease is used, and asks whether it is to be given up for others. Idle ones are when anybody waits. Slow ones are when
    /// there are no idle ones, the upstream of their repository has more than its part, and one that has next to nothing waits. No more
    /// are asked back than others wait for. Whoever has got `true` ends its work and drops the lease.
    pub fn should_yield(&self, usage: Usage) -> bool {
        let mut state = self.state();
        if state.is_yielding {
            return true;
        }
        let mut books = self.pool.books();
        let is_idle = usage == Usage::Idle;
        books.idle = books.idle + u64::from(is_idle) - u64::from(state.is_idle);
        state.is_idle = is_idle;
        let wanted = match usage {
            Usage::Idle => books.shares.wanted(),
            Usage::Slow if books.idle == 0 && books.shares.is_over(&self.party) => {
                books.shares.wanted_by_the_needy()
            }
            Usage::Slow | Usage::Busy => 0,
        };
        if wanted <= books.yielding {
            return false;
        }
        books.yielding += self.weight;
        *state = State {
            is_idle: false,
            is_yielding: true,
        };
        books.idle -= u64::from(is_idle);
        self.pool.yielded.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `more` of it, waiting as long as `patience`.
    ///
    /// # Errors
    /// As for [`Pool::lease`]; what is held stays.
    pub async fn grow(&mut self, more: u64, patience: Duration) -> Result<(), Refused> {
        let party = self.party.clone();
        let mut further = self.pool.lease_within(party, more, patience).await?;
        self.weight += std::mem::take(&mut further.weight);
        Ok(())
    }

    /// Gives back what is beyond `weight`.
    pub fn shrink_to(&mut self, weight: u64) {
        let unused = self.weight.saturating_sub(weight.max(1));
        if unused > 0 {
            self.weight -= unused;
            let party = &self.party;
            self.pool
                .settle(|books| books.shares.give_back(party, unused));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.weight == 0 {
            return;
        }
        let state = *self.state();
        self.pool.settle(|books| {
            books.idle -= u64::from(state.is_idle);
            if state.is_yielding {
                books.yielding -= self.weight;
            }
            books.shares.give_back(&self.party, self.weight);
        });
    }
}

/// Somebody who waits.
struct Waiting {
    pool: Arc<Pool>,
    party: Party,
    ticket: u64,
    granted: oneshot::Receiver<Lease>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // A lease that was granted meanwhile goes back with the receiver.
        self.pool.settle(|books| {
            books.shares.leave(&self.party, self.ticket);
        });
    }
}
