//! Bounds that protect the process: the one place where the engine leases what is scarce.
//!
//! | file | knows |
//! |---|---|
//! | `mod.rs` | what is leased, how much of it there is, and the bounds of waiting |
//! | `shares.rs` | who holds how much, whose turn it is, and how much one may take |
//! | `pool.rs` | leases, and waiting for them |

mod pool;
mod shares;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use larder_core::{Repository, RepositoryName};

use crate::causes::Causes;

pub(crate) use pool::{Lease, Pool, Refused};

/// Documents are parsed at most this many at once, of one repository two: each may hold a few times its size.
const PARSERS: u64 = 3;
/// Bytes of documents that are read into memory to be parsed, in all. What is longer than one repository's part of it takes that part.
const PARSED_BYTES: u64 = 128 << 20;
/// Bytes of downloads that the disk does not take and that wait in memory for their readers, in all.
const UNKEPT_BYTES: u64 = 256 << 20;
/// Long documents that come in at the same time: each holds a mebibyte of read buffers while it flows.
const ARRIVALS: u64 = 12;
/// How long one waits for that. Who holds a place for longer drips, and has no full buffers: then there may be one more.
const WAIT_FOR_ARRIVALS: Duration = Duration::from_secs(5);
/// Places for documents, and for HEADs: half of those for downloads, and at least this many.
const FEWEST_PLACES: u64 = 16;
/// How many of one repository may wait for one thing.
const MOST_WAITING: usize = 1_024;
/// How long for what upstreams hold up.
const WAIT_FOR_UPSTREAMS: Duration = Duration::from_secs(30);
/// How long for larder's own work, which goes on whatever upstreams do.
const WAIT_FOR_PARSERS: Duration = Duration::from_mins(2);

/// How many files of derived documents stay open, where descriptors are plenty: what the budget of derivations has room for.
pub const MOST_DERIVED_FILES: usize = 2_048;

/// Bounds that protect the process.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest document (index, packument) that is rewritten, in bytes.
    pub document_size: u64,
    /// Downloads that run at once.
    pub downloads: usize,
    /// Files of derived documents that stay open.
    pub derived_files: usize,
    /// Bytes of memory a download may hold for its readers when the disk cannot take it.
    pub ring_bytes: usize,
    /// How long the first byte of a large body waits for its digest, where another mirror could be asked for the right body.
    pub held_back: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            document_size: 256 << 20,
            downloads: 512,
            derived_files: MOST_DERIVED_FILES,
            ring_bytes: 4 << 20,
            held_back: Duration::from_secs(2),
        }
    }
}

/// What is scarce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BudgetKind {
    /// Downloads of files.
    Downloads,
    /// Downloads of documents, and of the files that belong to them.
    Documents,
    /// Those of them that are long, while their bytes come in. Who waits for this in vain goes on without.
    Arrivals,
    /// Questions to upstreams that bring no file: HEAD, and what is passed through.
    Heads,
    /// Documents that are read, checked or rewritten.
    Parsers,
    /// Bytes of these documents.
    ParsedBytes,
    /// Bytes of downloads that are not kept, on their way to readers.
    UnkeptBytes,
}

impl BudgetKind {
    /// The word for it in metrics and in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Downloads => "downloads",
            Self::Documents => "documents",
            Self::Arrivals => "arrivals",
            Self::Heads => "heads",
            Self::Parsers => "parsers",
            Self::ParsedBytes => "parsed_bytes",
            Self::UnkeptBytes => "unkept_bytes",
        }
    }
}

/// How one thing is used at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetUse {
    /// What it is.
    pub kind: BudgetKind,
    /// How much there is, in places or bytes.
    pub limit: u64,
    /// How much is in use.
    pub held: u64,
    /// How many wait for it.
    pub waiting: u64,
    /// How many have waited in vain, or were not let wait, since the process began.
    pub refused: u64,
}

/// Who takes something: a repository, and the upstream that it asks. Repositories of one upstream suffer together from what that does, so
/// that together they leave something to others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Party {
    pub(crate) repository: RepositoryName,
    /// Scheme, host and port; of a repository without an upstream something of its own.
    pub(crate) upstream: Arc<str>,
}

/// What is leased to whoever uses a scarce thing, for as long as it is used.
#[derive(Debug)]
pub(crate) struct Budgets {
    pub(crate) limits: Limits,
    /// The upstream of each repository that has one.
    upstreams: ArcSwap<HashMap<RepositoryName, Arc<str>>>,
    /// What the operator has been told of.
    causes: Causes,
    downloads: Arc<Pool>,
    documents: Arc<Pool>,
    arrivals: Arc<Pool>,
    heads: Arc<Pool>,
    parsers: Arc<Pool>,
    parsed_bytes: Arc<Pool>,
    unkept_bytes: Arc<Pool>,
}

impl Budgets {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        let downloads = limits.downloads as u64;
        let fewer = (downloads / 2).max(FEWEST_PLACES);
        let of = |kind, total, wait| Pool::new(kind, total, MOST_WAITING, wait);
        Arc::new(Self {
            limits,
            upstreams: ArcSwap::default(),
            causes: Causes::default(),
            downloads: of(BudgetKind::Downloads, downloads, WAIT_FOR_UPSTREAMS),
            documents: of(BudgetKind::Documents, fewer, WAIT_FOR_UPSTREAMS),
            arrivals: of(BudgetKind::Arrivals, ARRIVALS, WAIT_FOR_ARRIVALS),
            heads: of(BudgetKind::Heads, fewer, WAIT_FOR_UPSTREAMS),
            parsers: of(BudgetKind::Parsers, PARSERS, WAIT_FOR_PARSERS),
            parsed_bytes: of(BudgetKind::ParsedBytes, PARSED_BYTES, WAIT_FOR_PARSERS),
            unkept_bytes: of(BudgetKind::UnkeptBytes, UNKEPT_BYTES, WAIT_FOR_UPSTREAMS),
        })
    }

    /// Takes note of which repositories ask the same upstream.
    pub(crate) fn configured(&self, repositories: &[Arc<Repository>]) {
        let upstream = |repository: &Arc<Repository>| {
            let first = repository.upstream()?.base_urls.first()?;
            let origin = first.origin().ascii_serialization();
            Some((repository.name.clone(), Arc::from(origin)))
        };
        let upstreams = repositories.iter().filter_map(upstream).collect();
        self.upstreams.store(Arc::new(upstreams));
    }

    fn party(&self, repository: &RepositoryName) -> Party {
        let upstream = self.upstreams.load().get(repository).cloned();
        Party {
            repository: repository.clone(),
            upstream: upstream.unwrap_or_else(|| repository.as_str().into()),
        }
    }

    /// Where things of this kind are leased.
    pub(crate) fn pool(&self, kind: BudgetKind) -> &Arc<Pool> {
        match kind {
            BudgetKind::Downloads => &self.downloads,
            BudgetKind::Documents => &self.documents,
            BudgetKind::Arrivals => &self.arrivals,
            BudgetKind::Heads => &self.heads,
            BudgetKind::Parsers => &self.parsers,
            BudgetKind::ParsedBytes => &self.parsed_bytes,
            BudgetKind::UnkeptBytes => &self.unkept_bytes,
        }
    }

    /// One place of this kind.
    ///
    /// # Errors
    /// Too many of the repository wait already, or this one has waited too long.
    pub(crate) async fn place(
        &self,
        kind: BudgetKind,
        repository: &RepositoryName,
    ) -> Result<Lease, Refused> {
        self.lease(kind, repository, 1).await
    }

    /// So much of something. That it was not to be had is told once a minute: thousands of requests may meet it.
    async fn lease(
        &self,
        kind: BudgetKind,
        repository: &RepositoryName,
        weight: u64,
    ) -> Result<Lease, Refused> {
        let leased = self.pool(kind).lease(self.party(repository), weight).await;
        if leased.is_err() {
            let (budget, limit) = (kind.as_str(), self.pool(kind).in_use().limit);
            if let Some(times) = self.causes.trouble_due(budget) {
                tracing::warn!(
                    %repository, budget, limit, times,
                    "too much of one repository is under way for more to have its turn: its upstream may be slow"
                );
            } else {
                tracing::debug!(%repository, budget, "too much is under way");
            }
        }
        leased
    }

    /// A place for a long document while its bytes come in. `None`: it goes on without.
    pub(crate) async fn arrival(&self, repository: &RepositoryName) -> Option<Lease> {
        let party = self.party(repository);
        self.arrivals.lease(party, 1).await.ok()
    }

    /// Room for so many bytes of a download that is not kept.
    ///
    /// # Errors
    /// As for [`place`](Self::place).
    pub(crate) async fn unkept(
        &self,
        repository: &RepositoryName,
        bytes: u64,
    ) -> Result<Lease, Refused> {
        self.lease(BudgetKind::UnkeptBytes, repository, bytes).await
    }

    /// A parser's place for a document of this many bytes. To be moved into the work, so that it ends with that and not when who waits for
    /// it goes away. The bytes come first: who waits for room in memory keeps no parser from others.
    ///
    /// # Errors
    /// As for [`place`](Self::place).
    pub(crate) async fn parser(
        &self,
        repository: &RepositoryName,
        bytes: u64,
    ) -> Result<(Lease, Lease), Refused> {
        let bytes = self
            .lease(BudgetKind::ParsedBytes, repository, bytes)
            .await?;
        let place = self.place(BudgetKind::Parsers, repository).await?;
        Ok((bytes, place))
    }

    /// How everything is used at present.
    pub(crate) fn in_use(&self) -> Vec<BudgetUse> {
        [
            BudgetKind::Downloads,
            BudgetKind::Documents,
            BudgetKind::Arrivals,
            BudgetKind::Heads,
            BudgetKind::Parsers,
            BudgetKind::ParsedBytes,
            BudgetKind::UnkeptBytes,
        ]
        .map(|kind| self.pool(kind).in_use())
        .to_vec()
    }
}

#[cfg(test)]
mod tests;
