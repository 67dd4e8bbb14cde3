//! Virtual repositories: one address for several repositories of one package type.
//!
//! | file | |
//! |---|---|
//! | `members.rs` | whose documents belong in the merge, and how each of them is obtained |
//! | `merge.rs` | the merged document: what it is named by, how long it holds, how it is made |
//! | `read.rs` | the answers: what a request is for, and the merged document |
//! | `files.rs` | whose a file is, and its answer |
//!
//! A member is asked through the pipeline like any other repository, with its own rules, credentials and copies. The merged document is a
//! derivation of the members' documents (docs/adr/0062): it needs no invalidation of its own.

mod files;
mod members;
mod merge;
mod read;

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use larder_core::{Clock, Fault, RepositoryKind, RepositoryName, UnixMillis};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::answer::Answer;
use crate::catalog::Catalog;
use crate::document::Documents;
use crate::origin::remote::Remote;
use crate::repositories::{Registry, RepositoryState};
use crate::target::ArtifactRequest;
use merge::Assembled;

/// What is remembered of the merges and of members' names, in bytes, each.
const BUDGET: u64 = 8 << 20;

/// Virtual repositories as an origin, with what is remembered of merged documents.
#[derive(Debug)]
pub(crate) struct Virtual {
    registry: Arc<Registry>,
    catalog: Arc<Catalog>,
    documents: Arc<Documents>,
    remote: Arc<Remote>,
    clock: Arc<dyn Clock>,
    /// By virtual repository, path and query: what the last merge was made of.
    assembled: Cache<String, Arc<Assembled>, ByWeight>,
    /// By the digest of a member's document: all names in it.
    names: Cache<String, Arc<HashSet<String>>, ByWeight>,
}

/// What the virtual repositories are made with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) registry: Arc<Registry>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) documents: Arc<Documents>,
    pub(crate) remote: Arc<Remote>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// Answers requests for what other repositories have: members' files go through the whole pipeline like any other.
pub(crate) trait Answering: Send + Sync {
    fn answer_member<'a>(
        &'a self,
        request: ArtifactRequest<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, Fault>> + Send + 'a>>;
}

impl Virtual {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            registry: parts.registry,
            catalog: parts.catalog,
            documents: parts.documents,
            remote: parts.remote,
            clock: parts.clock,
            assembled: Cache::with_weighter(256, BUDGET, ByWeight),
            names: Cache::with_weighter(64, BUDGET, ByWeight),
        })
    }

    fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    fn epoch_of(&self, entry: &RepositoryState) -> Epoch {
        let epoch = self.catalog.epoch(entry);
        (epoch.shared, epoch.value)
    }
}

#[derive(Debug, Clone)]
struct ByWeight;

impl Weighter<String, Arc<Assembled>> for ByWeight {
    fn weight(&self, key: &String, assembled: &Arc<Assembled>) -> u64 {
        (key.len() + assembled.weight()) as u64
    }
}

impl Weighter<String, Arc<HashSet<String>>> for ByWeight {
    fn weight(&self, key: &String, names: &Arc<HashSet<String>>) -> u64 {
        let names: usize = names.iter().map(|name| name.len() + 48).sum();
        (key.len() + names) as u64
    }
}

/// A repository's epoch, as it was when something was made.
type Epoch = (Arc<AtomicU64>, u64);

/// In front of a member's name, in the paths of a virtual repository that lead to one member alone.
pub(crate) const MEMBER: &str = read::MEMBER;

/// The repositories that hold what a virtual one shows, in the order of priority.
pub(crate) fn members_of(engine: &Virtual, owner: &RepositoryState) -> Vec<Arc<RepositoryState>> {
    let leaves = members::leaves(engine, owner);
    leaves.into_iter().map(|leaf| leaf.entry).collect()
}

/// A repository that may give a name to a virtual one.
#[derive(Debug, Clone)]
pub(crate) struct Giver {
    pub(crate) entry: Arc<RepositoryState>,
    /// If it has the name, nobody else gives it.
    pub(crate) owns_names: bool,
}

/// The repositories that may give a name to a virtual one, in the order of priority: those for which it is reserved, if there are any.
pub(crate) fn givers_of(engine: &Virtual, owner: &RepositoryState, name: &str) -> Vec<Giver> {
    let leaves = members::leaves(engine, owner);
    let may_give = |leaf: &&members::Leaf| members::reserved_for(&leaves, leaf, name).is_none();
    let giver = |leaf: &members::Leaf| Giver {
        entry: Arc::clone(&leaf.entry),
        owns_names: leaf.owns_names,
    };
    leaves.iter().filter(may_give).map(giver).collect()
}

/// The virtual repository that a request is for, if this version serves it.
pub(crate) fn of(engine: &Virtual, request: &ArtifactRequest<'_>) -> Option<Arc<RepositoryState>> {
    let name = RepositoryName::parse(request.repository).ok()?;
    let entry = engine.registry.load().get(&name).cloned()?;
    let is_virtual = entry.repository.kind() == RepositoryKind::Virtual;
    (is_virtual && entry.not_built.is_none()).then_some(entry)
}

/// Answers a request for something in a virtual repository.
pub(crate) async fn serve(
    engine: &Arc<Virtual>,
    port: &dyn Answering,
    owner: &Arc<RepositoryState>,
    request: &ArtifactRequest<'_>,
) -> Result<Answer, Fault> {
    read::serve(engine, port, owner, request).await
}
