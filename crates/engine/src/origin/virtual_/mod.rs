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
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use larder_core::{Fault, RepositoryKind, RepositoryName};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::answer::Answer;
use crate::engine::{ArtifactRequest, Engine};
use crate::repositories::Entry;
use merge::Assembled;

/// What is remembered of the merges and of members' names, in bytes, each.
const BUDGET: u64 = 8 << 20;

/// What is remembered of merged documents.
#[derive(Debug)]
pub(crate) struct Virtuals {
    /// By virtual repository, path and query: what the last merge was made of.
    assembled: Cache<String, Arc<Assembled>, ByWeight>,
    /// By the digest of a member's document: all names in it.
    names: Cache<String, Arc<HashSet<String>>, ByWeight>,
}

impl Virtuals {
    pub(crate) fn new() -> Self {
        Self {
            assembled: Cache::with_weighter(256, BUDGET, ByWeight),
            names: Cache::with_weighter(64, BUDGET, ByWeight),
        }
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

fn epoch_of(entry: &Entry) -> Epoch {
    (
        Arc::clone(&entry.epoch),
        entry.epoch.load(Ordering::Acquire),
    )
}

/// Whether this version can serve a virtual repository of this package type.
pub(crate) fn is_built(entry: &Entry) -> bool {
    entry.format.is_some_and(larder_formats::Format::merges)
}

/// The virtual repository that a request is for, if this version serves it.
pub(crate) fn of(engine: &Engine, request: &ArtifactRequest<'_>) -> Option<Arc<Entry>> {
    let name = RepositoryName::parse(request.repository).ok()?;
    let entry = engine.repositories.load().get(&name).cloned()?;
    let is_virtual = entry.repository.kind() == RepositoryKind::Virtual;
    (is_virtual && is_built(&entry) && entry.not_built.is_none()).then_some(entry)
}

/// Answers a request for something in a virtual repository.
pub(crate) async fn serve(
    engine: &Arc<Engine>,
    owner: &Arc<Entry>,
    request: &ArtifactRequest<'_>,
) -> Result<Answer, Fault> {
    read::serve(engine, owner, request).await
}
