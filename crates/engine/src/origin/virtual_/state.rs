//! Virtual repositories as an origin: what they are made with, and what is remembered of their merges.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use larder_core::{Clock, Fault, UnixMillis};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::assembled::Assembled;
use crate::answer::Answer;
use crate::answer::Dependency;
use crate::catalog::Catalog;
use crate::document::Documents;
use crate::origin::remote::Remote;
use crate::repositories::{Registry, RepositoryState};
use crate::target::ArtifactRequest;

/// What is remembered of the merges and of members' names, in bytes, each.
const BUDGET: u64 = 8 << 20;

/// Virtual repositories as an origin, with what is remembered of merged documents.
#[derive(Debug)]
pub(crate) struct Virtual {
    pub(super) registry: Arc<Registry>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) documents: Arc<Documents>,
    pub(super) remote: Arc<Remote>,
    pub(super) clock: Arc<dyn Clock>,
    /// By virtual repository, path and query: what the last merge was made of.
    pub(super) assembled: Cache<String, Arc<Assembled>, ByWeight>,
    /// By the digest of a member's document: all names in it.
    pub(super) names: Cache<String, Arc<HashSet<String>>, ByWeight>,
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

    pub(super) fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// What depends on a repository as it is now, and on no record of it yet.
    pub(super) fn dependency_on(&self, entry: &RepositoryState) -> Dependency {
        let epoch = self.catalog.epoch(entry);
        Dependency {
            epoch: epoch.shared,
            epoch_value: epoch.value,
            used: None,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct ByWeight;

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
