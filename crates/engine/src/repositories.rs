//! The configured repositories with their epochs and counters. Replaced whole on reload.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use larder_core::{Repository, RepositoryName};
use larder_formats::{Format, format_of};

use crate::counters::{RepositoryCounters, UpstreamQuota};
use crate::learnt::Learnt;
use crate::mirrors::Mirror;

/// A repository as the engine keeps it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) repository: Arc<Repository>,
    /// Raised by flush, replacement of what was served, and reload: hot entries made before are void.
    pub(crate) epoch: Arc<AtomicU64>,
    pub(crate) counters: Arc<RepositoryCounters>,
    /// The places of its upstream, in the operator's order.
    pub(crate) mirrors: Vec<Arc<Mirror>>,
    /// How much more the upstream will let larder ask.
    pub(crate) quota: Arc<UpstreamQuota>,
    /// What larder has found out about the upstream and its documents.
    pub(crate) learnt: Arc<Learnt>,
    /// `None` if the format is not built.
    pub(crate) format: Option<&'static dyn Format>,
    /// Why requests are answered 501, if they are.
    pub(crate) not_built: Option<Arc<str>>,
}

impl Entry {
    pub(crate) fn bump(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }
}

#[derive(Debug, Default)]
pub(crate) struct Repositories(HashMap<RepositoryName, Arc<Entry>>);

impl Repositories {
    /// The next generation: epochs and counters of repositories that stay are kept, and every epoch is raised.
    pub(crate) fn next(&self, repositories: Vec<Arc<Repository>>, not_built: &BTreeMap<String, String>) -> Self {
        for entry in self.0.values() {
            entry.bump();
        }
        let entry = |repository: Arc<Repository>| {
            let old = self.0.get(&repository.name);
            let entry = Entry {
                epoch: old.map_or_else(Arc::default, |e| Arc::clone(&e.epoch)),
                quota: old.map_or_else(Arc::default, |e| Arc::clone(&e.quota)),
                counters: old.map_or_else(Arc::default, |e| Arc::clone(&e.counters)),
                learnt: Arc::default(),
                mirrors: Mirror::all(&repository, old.map_or(&[], |e| &e.mirrors)),
                format: format_of(repository.package),
                not_built: not_built.get(repository.name.as_str()).map(|reason| reason.as_str().into()),
                repository: Arc::clone(&repository),
            };
            (repository.name.clone(), Arc::new(entry))
        };
        Self(repositories.into_iter().map(entry).collect())
    }

    pub(crate) fn get(&self, name: &RepositoryName) -> Option<&Arc<Entry>> {
        self.0.get(name)
    }

    /// Sorted by name.
    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        let mut all: Vec<_> = self.0.values().cloned().collect();
        all.sort_by(|a, b| a.repository.name.cmp(&b.repository.name));
        all
    }
}
