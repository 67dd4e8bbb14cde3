//! Leases of what is scarce: the one place where the process waits for its turn.
//!
//! An upstream, a client or a resolver that is slow holds what it has got for a long time. So everything of which there is only so much is
//! leased here, in shares that always leave a rest to others; whoever has to wait does so in a queue of its repository, for a bounded time;
//! and who uses a lease next to nothing gives it up when others need it.
//!
//! | file | knows |
//! |---|---|
//! | `lib.rs` | [`Budgets`]: which pools there are, how large they are, how long one waits |
//! | `kind.rs` | the words for what is scarce, and how it is reported |
//! | `pool.rs` | leases, waiting for them, and giving them up |
//! | `shares.rs` | who holds how much, whose turn it is, and how much one may take |

#![cfg_attr(not(test), warn(clippy::too_many_lines))]

mod kind;
mod pool;
mod shares;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use larder_core::Repository;

pub use kind::{BudgetKind, BudgetUse};
pub use pool::{Lease, Pool, Refused, Usage, Waits};
pub use shares::Party;

/// Documents are parsed at most this many at once, of one repository two: each may hold a few times its size.
const PARSERS: u64 = 3;
/// Bytes of documents that are read into memory to be parsed, in all. What is longer than one repository's part of it takes that part.
const PARSED_BYTES: u64 = 128 << 20;
/// Bytes of downloads that the disk does not take and that wait in memory for their readers, in all.
const UNKEPT_BYTES: u64 = 256 << 20;
/// Long documents that come in at the same time: each holds a mebibyte of read buffers while it flows.
const ARRIVALS: u64 = 12;
/// Name look-ups under way. Each may take a thread of the blocking pool, which has 512 and reads files, too.
const LOOKUPS: u64 = 64;
/// As many of them as one repository may have.
const LOOKUPS_OF_ONE: u64 = LOOKUPS / 4;
/// Bytes of objects on their way to the object store, in all. They have one holder, who gets three quarters of it.
const STORE_PARTS: u64 = 80 << 20;
/// Files that jobs fetch at once: clients' downloads keep nearly all places to themselves.
const JOB_FILES: u64 = 4;
/// Pages that are kept up to date at once: each has a connection of its own. They have one holder, who gets three quarters of it.
const PAGE_STREAMS: u64 = 64;
/// Places for documents, and for HEADs: half of those for downloads, and at least this many.
const FEWEST_PLACES: u64 = 16;
/// How many of one repository may wait for one thing.
const MOST_WAITING: usize = 1_024;
/// How long for what upstreams hold up.
const WAIT_FOR_UPSTREAMS: Duration = Duration::from_secs(30);
/// How long for larder's own work, which goes on whatever upstreams do; and for name look-ups, whose askers have bounds of their own.
const WAIT_LONG: Duration = Duration::from_mins(2);
/// How long for a place among those who come in with a long document. Who holds one for longer drips, and has no full buffers: then
/// there may be one more. And how long for room among what is to be committed: a document may be waited for by the one that it waits for.
const WAIT_SHORTLY: Duration = Duration::from_secs(5);

/// How much there is of what the operator, or the machine, sets a bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Downloads of files that run at once.
    pub downloads: usize,
    /// Uploads that are received at once.
    pub uploads: usize,
    /// What all request bodies together may take of memory, in bytes.
    pub request_bytes: usize,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            downloads: 512,
            uploads: 128,
            request_bytes: 64 << 20,
        }
    }
}

/// What is leased to whoever uses a scarce thing, for as long as it is used. One for the whole process.
#[derive(Debug)]
pub struct Budgets {
    totals: Totals,
    /// The repositories that have an upstream, with it.
    parties: ArcSwap<HashMap<Arc<str>, Party>>,
    /// In the order of [`BudgetKind::ALL`].
    pools: [Arc<Pool>; BudgetKind::ALL.len()],
}

impl Default for Budgets {
    fn default() -> Self {
        Self::new(Totals::default())
    }
}

impl Budgets {
    /// So much of everything.
    pub fn new(totals: Totals) -> Self {
        let downloads = totals.downloads as u64;
        let fewer = (downloads / 2).max(FEWEST_PLACES);
        let pool = |kind| {
            let (total, longest) = match kind {
                BudgetKind::Downloads => (downloads, WAIT_FOR_UPSTREAMS),
                BudgetKind::Documents | BudgetKind::Heads => (fewer, WAIT_FOR_UPSTREAMS),
                BudgetKind::Arrivals => (ARRIVALS, WAIT_SHORTLY),
                BudgetKind::Parsers => (PARSERS, WAIT_LONG),
                BudgetKind::ParsedBytes => (PARSED_BYTES, WAIT_LONG),
                BudgetKind::UnkeptBytes => (UNKEPT_BYTES, WAIT_FOR_UPSTREAMS),
                BudgetKind::Spools | BudgetKind::DocumentSpools => (downloads, WAIT_SHORTLY),
                BudgetKind::Lookups => (LOOKUPS, WAIT_LONG),
                BudgetKind::Uploads => (totals.uploads as u64, WAIT_SHORTLY),
                BudgetKind::RequestBytes => (totals.request_bytes as u64, WAIT_SHORTLY),
                BudgetKind::StoreParts => (STORE_PARTS, WAIT_LONG),
                BudgetKind::JobFiles => (JOB_FILES, WAIT_LONG),
                BudgetKind::PageStreams => (PAGE_STREAMS, WAIT_SHORTLY),
                BudgetKind::UpstreamRequests => (u64::MAX, WAIT_FOR_UPSTREAMS),
            };
            // Who looks a name up has a place for what it asks already: those are counted there.
            let is_lookup = kind == BudgetKind::Lookups;
            let waits = Waits {
                most: if is_lookup { usize::MAX } else { MOST_WAITING },
                longest,
            };
            if is_lookup {
                Pool::with_cap(kind, total, LOOKUPS_OF_ONE, waits)
            } else {
                Pool::new(kind, total, waits)
            }
        };
        Self {
            totals,
            parties: ArcSwap::default(),
            pools: BudgetKind::ALL.map(pool),
        }
    }

    /// How much there was to be of everything.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Takes note of which repositories ask the same upstream.
    pub fn configured(&self, repositories: &[Arc<Repository>]) {
        let party = |repository: &Arc<Repository>| {
            let first = repository.upstream()?.base_urls.first()?;
            let (name, origin) = (
                Arc::<str>::from(repository.name.as_str()),
                first.origin().ascii_serialization(),
            );
            Some((Arc::clone(&name), Party::new(name, origin)))
        };
        let parties = repositories.iter().filter_map(party).collect();
        self.parties.store(Arc::new(parties));
    }

    fn party(&self, repository: &str) -> Party {
        let known = self.parties.load().get(repository).cloned();
        known.unwrap_or_else(|| Party::alone(repository))
    }

    fn pool(&self, kind: BudgetKind) -> &Arc<Pool> {
        &self.pools[kind as usize]
    }

    /// One place of this kind for a repository, waited for as long as is usual for that kind.
    ///
    /// # Errors
    /// Too many of the repository wait already, or this one has waited too long.
    pub async fn place(&self, kind: BudgetKind, repository: &str) -> Result<Lease, Refused> {
        self.lease(kind, repository, 1).await
    }

    /// So much of something, in places or bytes. More than one upstream may have is leased as just that.
    ///
    /// # Errors
    /// As for [`place`](Self::place).
    pub async fn lease(
        &self,
        kind: BudgetKind,
        repository: &str,
        weight: u64,
    ) -> Result<Lease, Refused> {
        let pool = self.pool(kind);
        let leased = pool.lease(self.party(repository), weight).await;
        leased.inspect_err(|refused| pool.tell_of(repository, *refused))
    }

    /// The same, waited for as long as `patience`.
    ///
    /// # Errors
    /// As for [`place`](Self::place).
    pub async fn lease_within(
        &self,
        kind: BudgetKind,
        repository: &str,
        weight: u64,
        patience: Duration,
    ) -> Result<Lease, Refused> {
        let pool = self.pool(kind);
        let leased = pool.lease_within(self.party(repository), weight, patience);
        let leased = leased.await;
        leased.inspect_err(|refused| pool.tell_of(repository, *refused))
    }

    /// A place that is waited for, and done without if there is none in time.
    pub async fn place_if_any(&self, kind: BudgetKind, repository: &str) -> Option<Lease> {
        let party = self.party(repository);
        self.pool(kind).lease(party, 1).await.ok()
    }

    /// A place whether there is one or not, for what is there already: others wait until there is room again.
    pub fn take_anyway(&self, kind: BudgetKind, repository: &str) -> Lease {
        self.pool(kind).take_anyway(self.party(repository), 1)
    }

    /// A parser's place for a document of this many bytes. To be moved into the work, so that it ends with that and not when who waits for
    /// it goes away. The bytes come first: who waits for room in memory keeps no parser from others.
    ///
    /// # Errors
    /// As for [`place`](Self::place).
    pub async fn parser(&self, repository: &str, bytes: u64) -> Result<(Lease, Lease), Refused> {
        let bytes = self
            .lease(BudgetKind::ParsedBytes, repository, bytes)
            .await?;
        let place = self.place(BudgetKind::Parsers, repository).await?;
        Ok((bytes, place))
    }

    /// How everything is used at present.
    pub fn in_use(&self) -> Vec<BudgetUse> {
        self.pools.iter().map(|pool| pool.in_use()).collect()
    }
}

#[cfg(test)]
mod tests;
