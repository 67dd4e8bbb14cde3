//! The engine's shared state and its entry point.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use larder_core::{
    CacheStatus, Clock, ErrorCode, Fault, FaultKind, PublicUrls, Repository, RepositoryKind,
    RepositoryName, Source, Trail, UnixMillis,
};
use larder_formats::{Form, Format, LinkBase, LinkKey, Operation};
use larder_storage::{BlobStore, MetadataStore};
use larder_upstream::{BreakerState, Upstream, on_behalf};
use tokio::sync::{Semaphore, mpsc};

use crate::absences::Absences;
use crate::admission::Admission;
use crate::answer::{Answer, Body, Freshness, Representation};
use crate::claim_tables::ClaimTables;
use crate::clearance::clear_non_artifact;
use crate::commit::{CommitQueue, Committer};
use crate::counters::{Counters, MirrorReport, RepositoryCounters, UpstreamQuota};
use crate::derive::Derivations;
use crate::flight::Flights;
use crate::heads::Heads;
use crate::health::HealthCache;
use crate::held::HeldSizes;
use crate::mirrors::Mirrors;
use crate::reading::Readings;
use crate::records::Records;
use crate::refusals::Refusals;
use crate::repositories::{Entry, Repositories};
use crate::rereading::Rereadings;
use crate::spliced::FamiliarBases;

/// Bounds that protect the process.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest document (index, packument) that is rewritten, in bytes.
    pub document_size: u64,
    /// Downloads that run at once.
    pub downloads: usize,
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
            ring_bytes: 4 << 20,
            held_back: Duration::from_secs(2),
        }
    }
}

/// What an engine is built from.
#[derive(Debug)]
pub struct EngineParts {
    /// The configured repositories.
    pub repositories: Vec<Arc<Repository>>,
    /// Repositories that load but answer 501, with the reason.
    pub not_built: BTreeMap<String, String>,
    /// Where bytes are.
    pub blobs: Arc<dyn BlobStore>,
    /// Where records are.
    pub metadata: MetadataStore,
    /// The way outside.
    pub upstream: Arc<dyn Upstream>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Signs links to other hosts.
    pub link_key: LinkKey,
    /// The addresses that clients use, as far as configured.
    pub public_urls: PublicUrls,
    /// Bounds.
    pub limits: Limits,
}

/// A request for an artifact.
#[derive(Debug, Clone)]
pub struct ArtifactRequest<'a> {
    /// The repository's name as it stands in the URL.
    pub repository: &'a str,
    /// Percent-encoded path below the repository, without leading slash and without query.
    pub raw_path: &'a str,
    /// Raw query, without `?`.
    pub query: Option<&'a str>,
    /// GET, HEAD, or POST for what formats pass through.
    pub method: &'a Method,
    /// All request headers.
    pub headers: &'a HeaderMap,
    /// `http://host:port` as the client sees it, no trailing slash. It chooses among the configured public URLs; one that is configured takes its place.
    pub client_base: &'a str,
    /// Request body; empty unless the method is POST.
    pub body: Bytes,
}

/// The pipeline. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Engine {
    pub(crate) repositories: ArcSwap<Repositories>,
    pub(crate) public_urls: ArcSwap<PublicUrls>,
    pub(crate) blobs: Arc<dyn BlobStore>,
    pub(crate) metadata: MetadataStore,
    pub(crate) upstream: Arc<dyn Upstream>,
    pub(crate) clock: Arc<dyn Clock>,
    link_key: LinkKey,
    pub(crate) limits: Limits,
    pub(crate) records: Records,
    pub(crate) refusals: Refusals,
    pub(crate) absences: Absences,
    pub(crate) flights: Flights,
    pub(crate) heads: Heads,
    pub(crate) readings: Readings,
    pub(crate) rereadings: Rereadings,
    pub(crate) claim_tables: ClaimTables,
    pub(crate) derivations: Derivations,
    pub(crate) downloads: Arc<Semaphore>,
    /// Documents are parsed at most this many at once: each may hold twice its size.
    pub(crate) parsing: Arc<Semaphore>,
    /// What clients call larder, where no `public_url` says it.
    pub(crate) familiar_bases: FamiliarBases,
    pub(crate) commits: CommitQueue,
    /// Held by whoever makes records visible that others are compared with.
    pub(crate) committing: tokio::sync::Mutex<()>,
    pub(crate) counters: Counters,
    pub(crate) health: HealthCache,
    pub(crate) held_sizes: HeldSizes,
    pub(crate) mirrors: Mirrors,
    /// When a full disk last made larder look for what can go, in milliseconds.
    pub(crate) last_room_made: AtomicI64,
}

impl Engine {
    /// Builds an engine and starts its commit task. Must be called within a Tokio runtime.
    pub fn new(parts: EngineParts) -> Arc<Self> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mirrors = Mirrors::new(Arc::clone(&parts.clock));
        let next = Repositories::default();
        let repositories = next.next(
            parts.repositories,
            &parts.not_built,
            &parts.link_key,
            &parts.metadata,
        );
        let engine = Arc::new(Self {
            repositories: ArcSwap::from_pointee(repositories),
            public_urls: ArcSwap::from_pointee(parts.public_urls),
            records: Records::new(parts.metadata.clone(), Arc::clone(&parts.clock)),
            refusals: Refusals::new(),
            blobs: parts.blobs,
            metadata: parts.metadata,
            upstream: parts.upstream,
            clock: parts.clock,
            link_key: parts.link_key,
            limits: parts.limits,
            absences: Absences::default(),
            flights: Flights::default(),
            heads: Heads::default(),
            readings: Readings::default(),
            rereadings: Rereadings::default(),
            claim_tables: ClaimTables::new(),
            derivations: Derivations::new(),
            downloads: Arc::new(Semaphore::new(parts.limits.downloads)),
            parsing: Arc::new(Semaphore::new(2)),
            familiar_bases: FamiliarBases::default(),
            commits: CommitQueue::new(sender),
            committing: tokio::sync::Mutex::default(),
            counters: Counters::default(),
            health: HealthCache::default(),
            held_sizes: HeldSizes::default(),
            mirrors,
            last_room_made: AtomicI64::new(i64::MIN),
        });
        Committer::start(&engine, receiver);
        engine.keep_origins();
        engine
    }

    /// Takes a new configuration into use. What was served under the old one is no longer served from memory.
    pub fn replace_repositories(
        self: &Arc<Self>,
        repositories: Vec<Arc<Repository>>,
        not_built: &BTreeMap<String, String>,
        public_urls: PublicUrls,
    ) {
        let next =
            self.repositories
                .load()
                .next(repositories, not_built, &self.link_key, &self.metadata);
        self.public_urls.store(Arc::new(public_urls));
        self.repositories.store(Arc::new(next));
        self.refusals.forget(|_| true);
        self.keep_origins();
    }

    /// The repository of that name.
    pub fn repository(&self, name: &str) -> Option<Arc<Repository>> {
        let name = RepositoryName::parse(name).ok()?;
        self.repositories
            .load()
            .get(&name)
            .map(|entry| Arc::clone(&entry.repository))
    }

    /// Why requests to the repository of that name are answered 501, if they are.
    pub fn not_built(&self, name: &str) -> Option<String> {
        let name = RepositoryName::parse(name).ok()?;
        let entry = self.repositories.load().get(&name).cloned()?;
        let kind = || {
            let kind = entry.repository.kind();
            (kind != RepositoryKind::Remote).then(|| {
                format!(
                    "{} repositories are not built in this version of larder",
                    kind.as_str()
                )
            })
        };
        entry.not_built.as_deref().map(str::to_owned).or_else(kind)
    }

    /// All repositories, sorted by name.
    pub fn repositories(&self) -> Vec<Arc<Repository>> {
        self.repositories
            .load()
            .all()
            .into_iter()
            .map(|entry| Arc::clone(&entry.repository))
            .collect()
    }

    /// Counters of the whole process.
    pub fn counters(&self) -> &Counters {
        self.count_damage();
        &self.counters
    }

    /// Counters of each repository, sorted by name.
    pub fn repository_counters(&self) -> Vec<(RepositoryName, Arc<RepositoryCounters>)> {
        let all = self.repositories.load().all();
        all.into_iter()
            .map(|entry| (entry.repository.name.clone(), Arc::clone(&entry.counters)))
            .collect()
    }

    /// Every mirror of every repository, as it does at present.
    pub fn mirror_reports(&self) -> Vec<MirrorReport> {
        let all = self.repositories.load().all();
        let report = |entry: &Entry| {
            let name = entry.repository.name.to_string();
            let one = |mirror: &Arc<crate::mirrors::Mirror>| MirrorReport {
                repository: name.clone(),
                mirror: mirror.shown(),
                counters: mirror.counters().snapshot(),
                healthy: match entry.mirrors.len() {
                    // The only one is never put aside; its origin may be left alone for a while.
                    1 => self.upstream.health(&entry.repository.name) == BreakerState::Closed,
                    _ => self.mirrors.state(mirror) == BreakerState::Closed,
                },
            };
            entry.mirrors.iter().map(one).collect::<Vec<_>>()
        };
        all.iter().flat_map(|entry| report(entry)).collect()
    }

    /// What each repository's upstream last said of its rate limit, sorted by name.
    pub fn upstream_quotas(&self) -> Vec<(RepositoryName, Arc<UpstreamQuota>)> {
        let all = self.repositories.load().all();
        all.into_iter()
            .map(|entry| (entry.repository.name.clone(), Arc::clone(&entry.quota)))
            .collect()
    }

    /// Downloads that are running.
    pub fn flights_active(&self) -> usize {
        self.flights.len()
    }

    /// Downloads of files that may run at once.
    pub fn downloads_limit(&self) -> usize {
        self.limits.downloads
    }

    /// The engine's present time.
    pub fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    pub(crate) fn link_key(&self) -> &LinkKey {
        &self.link_key
    }

    /// Where links into a repository start: the public URL, else what the client used; path-absolute where the format wants that.
    pub(crate) fn link_base(
        &self,
        entry: &Entry,
        format: &dyn Format,
        client_base: &str,
    ) -> LinkBase {
        let public = self.public_urls.load();
        let root = match public.of_client(client_base) {
            Some(url) if format.absolute_links() => url.as_str().trim_end_matches('/').to_owned(),
            Some(url) => url.path().trim_end_matches('/').to_owned(),
            None if format.absolute_links() => client_base.to_owned(),
            None => String::new(),
        };
        LinkBase(format!("{root}/api/v1/remote/{}/", entry.repository.name))
    }

    /// Whether links depend on the `Host` that the client used.
    pub(crate) fn links_depend_on_host(&self, format: &dyn Format) -> bool {
        self.public_urls
            .load()
            .depend_on_client(format.absolute_links())
    }

    /// Whether the bases of links are those that the operator has named, and not whatever clients call larder.
    pub(crate) fn link_bases_are_known(&self, format: &dyn Format) -> bool {
        !format.absolute_links() || !self.public_urls.load().is_empty()
    }

    /// Answers a request on `/api/v1/remote`. What it makes larder ask upstream says which larders it has passed.
    pub async fn read(self: &Arc<Self>, request: ArtifactRequest<'_>) -> Result<Answer, Fault> {
        let trail = Trail::of(request.headers);
        if trail.is_empty() {
            return self.answer(request).await;
        }
        Box::pin(on_behalf(trail, self.answer(request))).await
    }

    async fn answer(self: &Arc<Self>, request: ArtifactRequest<'_>) -> Result<Answer, Fault> {
        match self.admit(&request)? {
            Admission::Read(admitted) => match admitted.form() {
                Form::Verbatim => self.serve_verbatim(&admitted, &request).await,
                Form::Derived(form) => self.serve_derived(&admitted, form, &request).await,
            }
            .map_err(|fault| fault.about(&admitted.wanted().key)),
            Admission::Other { entry, operation } => {
                self.serve_other(&entry, operation, &request).await
            }
        }
    }

    async fn serve_other(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        operation: Operation,
        request: &ArtifactRequest<'_>,
    ) -> Result<Answer, Fault> {
        match operation {
            Operation::Redirect(to) => {
                let location = self.location(entry, &to, request.client_base);
                Ok(Answer {
                    location: Some(location),
                    ..self.plain(StatusCode::MOVED_PERMANENTLY, Body::Empty, Some(0))
                })
            }
            Operation::Answer(answer) => {
                let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
                let length = answer.body.len() as u64;
                let mut made = self.plain(status, Body::Bytes(answer.body), Some(length));
                made.representation.content_type = Some(answer.content_type.to_owned());
                Ok(made)
            }
            Operation::PassThrough(pass) => self.pass_through(entry, &pass, request).await,
            Operation::Refuse(refusal) => {
                let kind = match refusal.status {
                    401 => FaultKind::Unauthorized,
                    403 => FaultKind::Forbidden,
                    404 => FaultKind::NotFound,
                    405 => FaultKind::MethodNotAllowed,
                    413 => FaultKind::TooLarge,
                    _ => FaultKind::BadRequest,
                };
                Err(Fault::new(kind, refusal.code, refusal.message)
                    .in_repository(&entry.repository.name))
            }
            Operation::Read(_) => Err(Fault::new(
                FaultKind::Internal,
                ErrorCode::Internal,
                "a read was not admitted",
            )),
        }
    }

    /// The path at which this client finds something of a repository, percent-encoded and query included.
    pub(crate) fn location(&self, entry: &Entry, to: &str, client_base: &str) -> String {
        let public = self.public_urls.load();
        let prefix = public
            .of_client(client_base)
            .map_or("", |url| url.path().trim_end_matches('/'));
        format!("{prefix}/api/v1/remote/{}/{to}", entry.repository.name)
    }

    /// Stops what nobody waits for and gives the rest `grace`; then makes what was downloaded durable.
    pub async fn drain(&self, grace: Duration) {
        self.flights.stop_unread();
        let idle = async {
            while self.flights.len() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(grace, idle).await;
        self.flights.stop_all();
        let _ = tokio::time::timeout(Duration::from_secs(10), self.commits.barrier()).await;
    }

    /// An answer of larder's own making: it is no artifact and is not cached.
    pub(crate) fn plain(&self, status: StatusCode, body: Body, length: Option<u64>) -> Answer {
        Answer {
            status,
            representation: Representation {
                length,
                ..Representation::default()
            },
            body: clear_non_artifact(body),
            cache_status: CacheStatus::default(),
            source: Source::Cache,
            freshness: Freshness {
                contacted_at: self.now(),
                remaining: Some(Duration::ZERO),
                no_store: false,
            },
            location: None,
            hot: None,
        }
    }
}
