//! Leases of one scarce thing, and waiting for them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::budget::shares::Shares;
use crate::budget::{BudgetKind, BudgetUse, Party};

/// Why there is no lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    /// What was wanted.
    pub(crate) kind: BudgetKind,
    /// How much of it there is in all.
    pub(crate) limit: u64,
    /// How long it was waited for; `None`: so many of the repository waited already that this one was not let wait.
    pub(crate) waited: Option<Duration>,
}

/// What there is of one scarce thing.
#[derive(Debug)]
pub(crate) struct Pool {
    kind: BudgetKind,
    most_waiting: usize,
    longest_wait: Duration,
    shares: Mutex<Shares<oneshot::Sender<Lease>>>,
    refused: AtomicU64,
}

impl Pool {
    /// `total` places or bytes, of which at most `most_waiting` of each repository wait for at most `longest_wait`.
    pub(crate) fn new(
        kind: BudgetKind,
        total: u64,
        most_waiting: usize,
        longest_wait: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            kind,
            most_waiting,
            longest_wait,
            shares: Mutex::new(Shares::new(total)),
            refused: AtomicU64::new(0),
        })
    }

    fn shares(&self) -> MutexGuard<'_, Shares<oneshot::Sender<Lease>>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leases `weight` of it; more than one upstream may have is leased as that much. Whoever stops waiting gives its turn on.
    ///
    /// # Errors
    /// Too many of the repository wait already, or this one has waited too long.
    pub(crate) async fn lease(
        self: &Arc<Self>,
        party: Party,
        weight: u64,
    ) -> Result<Lease, Refused> {
        let mut waiting = match self.lease_or_wait(party, weight)? {
            Ok(lease) => return Ok(lease),
            Err(waiting) => waiting,
        };
        match tokio::time::timeout(self.longest_wait, &mut waiting.granted).await {
            Ok(Ok(lease)) => Ok(lease),
            Ok(Err(_)) | Err(_) => Err(self.refused(Some(self.longest_wait))),
        }
    }

    fn lease_or_wait(
        self: &Arc<Self>,
        party: Party,
        weight: u64,
    ) -> Result<Result<Lease, Waiting>, Refused> {
        let mut shares = self.shares();
        let weight = weight.clamp(1, shares.most());
        if shares.try_take(&party, weight) {
            return Ok(Ok(Lease {
                pool: Arc::clone(self),
                party,
                weight,
            }));
        }
        if shares.waiting_of(&party) >= self.most_waiting {
            drop(shares);
            return Err(self.refused(None));
        }
        let (sender, granted) = oneshot::channel();
        let ticket = shares.wait(&party, weight, sender);
        drop(shares);
        Ok(Err(Waiting {
            pool: Arc::clone(self),
            party,
            ticket,
            granted,
        }))
    }

    fn refused(&self, waited: Option<Duration>) -> Refused {
        self.refused.fetch_add(1, Ordering::Relaxed);
        Refused {
            kind: self.kind,
            limit: self.shares().total(),
            waited,
        }
    }

    /// Whether somebody waits for some of it.
    pub(crate) fn is_wanted(&self) -> bool {
        self.shares().anybody_waits()
    }

    /// How it is used at present.
    pub(crate) fn in_use(&self) -> BudgetUse {
        let shares = self.shares();
        BudgetUse {
            kind: self.kind,
            limit: shares.total(),
            held: shares.held(),
            waiting: shares.waiting() as u64,
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// Changes the books, and tells those who get something by it.
    fn settle(self: &Arc<Self>, change: impl FnOnce(&mut Shares<oneshot::Sender<Lease>>)) {
        let mut shares = self.shares();
        change(&mut shares);
        loop {
            let granted = shares.grant();
            drop(shares);
            let mut undelivered = Vec::new();
            for one in granted {
                let lease = Lease {
                    pool: Arc::clone(self),
                    party: one.party,
                    weight: one.weight,
                };
                // Whoever has stopped waiting in this moment; dropped one by one, leases would give themselves back within each other.
                undelivered.extend(one.waiter.send(lease).err());
            }
            if undelivered.is_empty() {
                return;
            }
            shares = self.shares();
            for mut lease in undelivered {
                shares.give_back(&lease.party, std::mem::take(&mut lease.weight));
            }
        }
    }
}

/// The right to use something scarce, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    pool: Arc<Pool>,
    party: Party,
    /// 0: it has been given back.
    weight: u64,
}

impl Lease {
    /// Whether somebody waits for what is leased.
    pub(crate) fn is_wanted(&self) -> bool {
        self.pool.is_wanted()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.weight > 0 {
            self.pool
                .settle(|shares| shares.give_back(&self.party, self.weight));
        }
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
        self.pool.settle(|shares| {
            shares.leave(&self.party, self.ticket);
        });
    }
}
