//! The configured repositories with their epochs and counters. Replaced whole on reload.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use larder_core::{Repository, RepositoryName};
use larder_formats::{Format, LinkKey, format_of};
use url::Url;

use crate::catalog::Catalog;
use crate::counters::{RepositoryCounters, UpstreamQuota};
use crate::engine::Engine;
use crate::learnt::Learnt;
use crate::mirrors::Mirror;
use crate::upstreams::{FailureCounters, UpstreamState};

/// A repository as the engine keeps it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) repository: Arc<Repository>,
    /// The marks of the upstreams at `base_url` and at `index_url`: what came from another one is not theirs (docs/adr/0044).
    pub(crate) origins: [Arc<str>; 2],
    /// Documents that have arrived: one that came after an absence may name what was absent.
    pub(crate) arrivals: Arc<AtomicU64>,
    /// Raised by flush, replacement of what was served, and reload: hot entries made before are void.
    pub(crate) epoch: Arc<AtomicU64>,
    /// Raised by flush and reload only.
    pub(crate) flushes: Arc<AtomicU64>,
    pub(crate) counters: Arc<RepositoryCounters>,
    /// The places of its upstream, in the operator's order.
    pub(crate) mirrors: Vec<Arc<Mirror>>,
    /// How other hosts are doing that documents lead to.
    pub(crate) elsewhere: Arc<UpstreamState>,
    /// Failures of all of them, by cause.
    pub(crate) failures: Arc<FailureCounters>,
    /// How much more the upstream will let larder ask.
    pub(crate) quota: Arc<UpstreamQuota>,
    /// Signs links, and what else clients are given to bring back unchanged.
    pub(crate) link_key: LinkKey,
    /// What larder has found out about the upstream and its documents.
    pub(crate) learnt: Arc<Learnt>,
    /// `None` if the format is not built.
    pub(crate) format: Option<&'static dyn Format>,
    /// Why requests are answered 501, if they are.
    pub(crate) not_built: Option<Arc<str>>,
}

impl Entry {
    /// What is under way was asked before.
    pub(crate) fn flushed(&self) {
        self.flushes.fetch_add(1, Ordering::AcqRel);
    }

    /// A document has arrived.
    pub(crate) fn arrived(&self) {
        self.arrivals.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn bump(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }
}

#[derive(Debug, Default)]
pub(crate) struct Repositories(HashMap<RepositoryName, Arc<Entry>>);

impl Repositories {
    /// The next generation: epochs and counters of repositories that stay are kept, and every epoch is raised.
    pub(crate) fn next(
        &self,
        repositories: Vec<Arc<Repository>>,
        not_built: &BTreeMap<String, String>,
        link_key: &LinkKey,
        catalog: &Catalog,
    ) -> Self {
        for entry in self.0.values() {
            entry
                .mirrors
                .iter()
                .for_each(|mirror| mirror.state().forget_told());
        }
        catalog.reconfigured(&self.all());
        let entry = |repository: Arc<Repository>| {
            let old = self.0.get(&repository.name);
            let entry = Entry {
                origins: origins_of(&repository, catalog),
                arrivals: old.map_or_else(Arc::default, |e| Arc::clone(&e.arrivals)),
                epoch: old.map_or_else(Arc::default, |e| Arc::clone(&e.epoch)),
                flushes: old.map_or_else(Arc::default, |e| Arc::clone(&e.flushes)),
                quota: old.map_or_else(Arc::default, |e| Arc::clone(&e.quota)),
                counters: old.map_or_else(Arc::default, |e| Arc::clone(&e.counters)),
                failures: old.map_or_else(Arc::default, |e| Arc::clone(&e.failures)),
                elsewhere: Arc::default(),
                learnt: Arc::default(),
                mirrors: Mirror::all(&repository, old.map_or(&[], |e| &e.mirrors)),
                link_key: link_key.clone(),
                format: format_of(repository.package),
                not_built: not_built
                    .get(repository.name.as_str())
                    .map(|reason| reason.as_str().into()),
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

/// Which upstreams a repository has, for its files and for its index, by the addresses that it is configured with.
fn origins_of(repository: &Repository, catalog: &Catalog) -> [Arc<str>; 2] {
    let Some(upstream) = repository.upstream() else {
        return Default::default();
    };
    let addresses = |role: &str, urls: &[Url]| {
        urls.iter()
            .map(|url| format!("{role} {}", address(url)))
            .collect::<Vec<_>>()
    };
    let files = catalog.origin(&repository.name, &addresses("files", &upstream.base_urls));
    let index_urls = upstream.index_urls();
    let index = if index_urls == upstream.base_urls {
        files.clone()
    } else {
        catalog.origin(&repository.name, &addresses("index", &index_urls))
    };
    [files.into(), index.into()]
}

/// What tells one server's tree from another's: scheme, host, port and path. Neither a login nor a query does.
fn address(url: &Url) -> String {
    let port = url
        .port_or_known_default()
        .map_or_else(String::new, |port| format!(":{port}"));
    let path = url.path().trim_end_matches('/');
    format!(
        "{}://{}{port}{path}",
        url.scheme(),
        url.host_str().unwrap_or_default()
    )
}

impl Engine {
    /// Writes down which upstreams the repositories have, behind the scenes, and says where copies of others are left.
    pub(crate) fn keep_origins(self: &Arc<Self>) {
        let engine = Arc::clone(self);
        tokio::spawn(async move {
            let all = engine.repositories.load().all();
            let marks = |index: &[Arc<str>; 2]| [index[0].to_string(), index[1].to_string()];
            let current: Vec<(RepositoryName, [String; 2])> = all
                .iter()
                .map(|entry| (entry.repository.name.clone(), marks(&entry.origins)))
                .collect();
            match engine.catalog.keep_origins(&current).await {
                Ok(others) => others
                    .iter()
                    .for_each(|(repository, copies)| tell_of_others(repository, *copies)),
                Err(error) => {
                    tracing::error!(%error, "it was not noted which upstreams copies came from");
                }
            }
        });
    }
}

fn tell_of_others(repository: &RepositoryName, copies: u64) {
    tracing::warn!(
        %repository,
        copies,
        "base_url leads to another server than these copies came from: they are not served. To free their space, flush the repository \
         (PUT /cache/flush?remote={repository}); if both addresses have the same files, list both in base_url once, then the old \
         one can go"
    );
}
