//! The configured repositories with their epochs and counters. Replaced whole on reload.

pub(crate) mod allowances;
pub(crate) mod lag;
pub(crate) mod latency;
pub(crate) mod learnt;
pub(crate) mod mirror;
pub(crate) mod refused;
pub(crate) mod told;
pub(crate) mod upstreams;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use larder_core::{Mount, PublicUrls, Repository, RepositoryKind, RepositoryName};
use larder_formats::{Format, LinkBase, LinkKey, format_of};
use url::Url;

use crate::counters::{RepositoryCounters, UpstreamQuota};
use crate::news::NewsDesk;
use crate::repositories::allowances::Allowances;
use crate::repositories::learnt::Learnt;
use crate::repositories::mirror::Mirror;
use crate::repositories::refused::RefusedPaths;
use crate::repositories::upstreams::{FailureCounters, UpstreamState};

/// A repository as the engine keeps it.
#[derive(Debug, Clone)]
pub(crate) struct RepositoryState {
    pub(crate) repository: Arc<Repository>,
    /// The marks of the upstreams at `base_url` and at `index_url`: what came from another one is not theirs (docs/adr/0044).
    pub(crate) origins: [Arc<str>; 2],
    /// Documents that have arrived: one that came after an absence may name what was absent. Raised before anybody is answered with it,
    /// and when it is held.
    pub(crate) arrivals: Arc<AtomicU64>,
    /// Raised by flush, replacement of what was served, and reload: hot entries made before are void.
    pub(crate) epoch: Arc<AtomicU64>,
    /// Raised by flush and reload only.
    pub(crate) flushes: Arc<AtomicU64>,
    pub(crate) counters: Arc<RepositoryCounters>,
    /// What its rules have kept out.
    pub(crate) refused: Arc<RefusedPaths>,
    /// The places of its upstream, in the operator's order.
    pub(crate) mirrors: Vec<Arc<Mirror>>,
    /// How other hosts are doing that documents lead to.
    pub(crate) elsewhere: Arc<UpstreamState>,
    /// Failures of all of them, by cause.
    pub(crate) failures: Arc<FailureCounters>,
    /// How much more the upstream will let larder ask: shared by all that ask it with the same account.
    pub(crate) quota: Arc<UpstreamQuota>,
    /// Signs links, and what else clients are given to bring back unchanged.
    pub(crate) link_key: LinkKey,
    /// What larder has found out about the upstream and its documents.
    pub(crate) learnt: Arc<Learnt>,
    /// That of its package type.
    pub(crate) format: &'static dyn Format,
    /// Why requests are answered 501, if they are.
    pub(crate) not_built: Option<Arc<str>>,
}

impl RepositoryState {
    pub(crate) fn repository_is_offline(&self) -> bool {
        self.repository
            .upstream()
            .is_some_and(|upstream| upstream.offline)
    }

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

/// Gives the mark of the upstream at some addresses of a repository.
pub(crate) type OriginOf<'a> = dyn Fn(&RepositoryName, &[String]) -> String + 'a;

/// The repositories that are configured at present, and the addresses that clients use.
#[derive(Debug)]
pub(crate) struct Registry {
    current: ArcSwap<Repositories>,
    public_urls: ArcSwap<PublicUrls>,
    pub(crate) link_key: LinkKey,
}

impl Registry {
    pub(crate) fn new(
        repositories: Repositories,
        public_urls: PublicUrls,
        link_key: LinkKey,
    ) -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwap::from_pointee(repositories),
            public_urls: ArcSwap::from_pointee(public_urls),
            link_key,
        })
    }

    /// The present generation.
    pub(crate) fn load(&self) -> Guard<Arc<Repositories>> {
        self.current.load()
    }

    /// Takes a new generation into use.
    pub(crate) fn replace(&self, repositories: Repositories, public_urls: PublicUrls) {
        self.public_urls.store(Arc::new(public_urls));
        self.current.store(Arc::new(repositories));
    }

    /// Where links into a repository start: the public URL, else what the client used; path-absolute where the format wants that.
    pub(crate) fn link_base(&self, format: &dyn Format, mount: &Mount<'_>) -> LinkBase {
        let public = self.public_urls.load();
        let base = if format.profile().absolute_links {
            mount.url(&public)
        } else {
            mount.path(&public)
        };
        LinkBase(format!("{base}/"))
    }

    /// Whether links depend on the `Host` that the client used.
    pub(crate) fn links_depend_on_host(&self, format: &dyn Format) -> bool {
        self.public_urls
            .load()
            .depend_on_client(format.profile().absolute_links)
    }

    /// Whether the bases of links are those that the operator has named, and not whatever clients call larder.
    pub(crate) fn link_bases_are_known(&self, format: &dyn Format) -> bool {
        !format.profile().absolute_links || !self.public_urls.load().is_empty()
    }

    /// The path at which this client finds something of a repository, percent-encoded and query included.
    pub(crate) fn location(&self, to: &str, mount: &Mount<'_>) -> String {
        format!("{}/{to}", mount.path(&self.public_urls.load()))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Repositories {
    by_name: HashMap<RepositoryName, Arc<RepositoryState>>,
    allowances: Arc<Allowances>,
}

impl Repositories {
    /// None yet; what upstreams say of their allowance is handed in at `news`.
    pub(crate) fn telling(news: &Arc<NewsDesk>) -> Self {
        Self {
            by_name: HashMap::new(),
            allowances: Allowances::new(news),
        }
    }

    /// What an upstream allows the account with this mark, if a repository has it.
    pub(crate) fn allowance(&self, account: &str) -> Option<Arc<UpstreamQuota>> {
        self.allowances.known(account)
    }

    /// The next generation: epochs and counters of repositories that stay are kept, and every epoch is raised.
    pub(crate) fn next(
        &self,
        repositories: Vec<Arc<Repository>>,
        not_built: &BTreeMap<String, String>,
        link_key: &LinkKey,
        origin: &OriginOf<'_>,
    ) -> Self {
        self.allowances.forget_unused();
        for entry in self.by_name.values() {
            entry
                .mirrors
                .iter()
                .for_each(|mirror| mirror.state().forget_told());
        }
        let entry = |repository: Arc<Repository>| {
            let old = self.by_name.get(&repository.name);
            let entry = RepositoryState {
                origins: origins_of(&repository, origin),
                arrivals: old.map_or_else(Arc::default, |e| Arc::clone(&e.arrivals)),
                epoch: old.map_or_else(Arc::default, |e| Arc::clone(&e.epoch)),
                flushes: old.map_or_else(Arc::default, |e| Arc::clone(&e.flushes)),
                quota: self.allowances.of(&repository),
                counters: old.map_or_else(Arc::default, |e| Arc::clone(&e.counters)),
                refused: Arc::default(),
                failures: old.map_or_else(Arc::default, |e| Arc::clone(&e.failures)),
                elsewhere: Arc::default(),
                learnt: Arc::default(),
                mirrors: Mirror::all(&repository, old.map_or(&[], |e| &e.mirrors)),
                link_key: link_key.clone(),
                format: format_of(repository.package),
                not_built: not_built
                    .get(repository.name.as_str())
                    .map(|reason| reason.as_str().into())
                    .or_else(|| unbuilt_kind(&repository)),
                repository: Arc::clone(&repository),
            };
            (repository.name.clone(), Arc::new(entry))
        };
        Self {
            by_name: repositories.into_iter().map(entry).collect(),
            allowances: Arc::clone(&self.allowances),
        }
    }

    pub(crate) fn get(&self, name: &RepositoryName) -> Option<&Arc<RepositoryState>> {
        self.by_name.get(name)
    }

    /// Sorted by name.
    pub(crate) fn all(&self) -> Vec<Arc<RepositoryState>> {
        let mut all: Vec<_> = self.by_name.values().cloned().collect();
        all.sort_by(|a, b| a.repository.name.cmp(&b.repository.name));
        all
    }
}

/// Why this version cannot serve a repository of this kind, whatever the program says of it.
fn unbuilt_kind(repository: &Repository) -> Option<Arc<str>> {
    let is_built = repository.kind() != RepositoryKind::Virtual
        || format_of(repository.package).profile().merges;
    let reason = "virtual repositories are not built in this version of larder";
    (!is_built).then(|| reason.into())
}

/// Which upstreams a repository has, for its files and for its index, by the addresses that it is configured with.
fn origins_of(repository: &Repository, origin: &OriginOf<'_>) -> [Arc<str>; 2] {
    let Some(upstream) = repository.upstream() else {
        return Default::default();
    };
    let addresses = |role: &str, urls: &[Url]| {
        urls.iter()
            .map(|url| format!("{role} {}", address(url)))
            .collect::<Vec<_>>()
    };
    let files = origin(&repository.name, &addresses("files", &upstream.base_urls));
    let index_urls = upstream.index_urls();
    let index = if index_urls == upstream.base_urls {
        files.clone()
    } else {
        origin(&repository.name, &addresses("index", &index_urls))
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
