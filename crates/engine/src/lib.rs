//! The one pipeline: admit, obtain, clear, answer. Every format and every kind of repository passes through it.
//!
//! Modules import each other in one direction only, from the top of this table to its end; `tests/rules.rs` asserts it.
//!
//! | module | knows |
//! |---|---|
//! | `lib.rs` | [`Engine`]: what the server and the program call |
//! | `jobs/`, `scrub/` | what fetches many files beforehand, and how far it has come; what reads all that is stored again, and mends it |
//! | `views/` | what people look at: folders, searches, one path, packages and images |
//! | `built.rs`, `read.rs` | how the parts are put together; from a request to an [`Answer`] |
//! | `operate/` | the operator's verbs and views: flush, collection, explanations, what is held, health, counters, history |
//! | `origin/` | where what a repository holds comes from: `remote/` asks an upstream, `local/` has it from uploads, `virtual_/` merges what others have |
//! | `document/` | what documents say of files, and the forms that are made of them |
//! | `cluster/` | whose turn it is to ask the upstream, of several replicas, and bytes from one to another |
//! | `presign.rs`, `representation.rs`, `answer.rs` | a redirect to the object store in place of a file; what an answer is made of |
//! | `transfer/` | bytes on their way, and where they are kept |
//! | `catalog/` | records, absences and epochs: the only way to change state |
//! | `policy/` | may it be asked for, and may it leave? |
//! | `fault.rs` | what is wrong, in words for users, and why there is no body |
//! | `decided.rs`, `loaded.rs` | what the log says of a decision; a document's bytes with what is needed to read them |
//! | `target.rs`, `claim.rs`, `keys.rs` | what is meant: a document or file, what is stated of it, and its key |
//! | `repositories/`, `parts.rs` | what an engine is built from; the configured repositories, their counters and the state of their upstreams |
//! | `budget.rs`, `counters.rs`, `causes.rs`, `news.rs` | bounds, numbers, what the log has spoken of, what one replica has learnt of an upstream for the others |

#![cfg_attr(not(test), warn(clippy::too_many_lines))]

mod answer;
mod budget;
mod built;
mod catalog;
mod causes;
mod claim;
mod cluster;
mod counters;
mod decided;
mod document;
mod fault;
mod jobs;
mod keys;
mod loaded;
mod news;
mod operate;
mod origin;
mod parts;
mod policy;
mod presign;
mod read;
mod repositories;
mod representation;
#[doc(hidden)]
pub mod scripted;
mod scrub;
mod target;
mod transfer;
mod views;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use larder_budget::{BudgetUse, Budgets};
use larder_core::{Clock, Fault, PublicUrls, Repository, RepositoryName, Trail, UnixMillis};
use larder_storage::Heartbeats;
use larder_upstream::on_behalf;
use tokio::sync::watch;

use catalog::Catalog;
use operate::{Explainer, Offers, Operator};
use origin::local::{self, Local};
use origin::remote::Remote;
use policy::addressed;
use policy::admission::{self, Admission};
use read::Pipeline;
use repositories::{Registry, RepositoryState};
use transfer::Transfers;

pub use answer::{Answer, Body, Freshness, HotTicket, Representation};
pub use budget::{Limits, MOST_DERIVED_FILES};
pub use catalog::{DiskUse, Reading};
pub use cluster::{
    CLUSTER_HEADER, ClusterParts, ClusterReport, ClusterSecret, FLIGHT_PATH, FlightRequest, Peers,
    ReplicaReport,
};
pub use counters::{Counters, MirrorCounters, MirrorReport, RepositoryCounters, UpstreamQuota};
pub use jobs::{JobReport, JobRequest, Jobs, JobsPage};
pub use larder_storage::{
    Chunks, Figures, Garbage, GrowingBody, Heap, HeldSize, JobCounts, JobItem, JobRow,
    ScrubFinding, ScrubRow, StoreReport, TierReport,
};
pub use operate::{
    Archive, ArchiveLink, ArchivePage, ArchiveRow, ArchiveTaken, ArchivedFile, BackendHealth,
    CacheType, DiskSpace, FlushReport, FlushRequest, Forecast, Health, HeldArtifact, HeldCursor,
    HeldPage, HeldRequest, HeldSummary, History, HistoryPoint, IndexLag, LatencyReport, Ledger,
    LeftAlone, MissingPath, OfferPage, OfferRequest, OfferedArtifact, Outage, Queries, RecentError,
    RecentErrors, RefusedGroup, Span, TrafficSource,
};
pub use origin::local::{UploadPart, Written};
pub use parts::EngineParts;
pub use policy::clearance::Cleared;
pub use policy::explain::{Explanation, Point, PointValue};
pub use repositories::upstreams::{UpstreamFailure, UpstreamReport, UpstreamStanding};
pub use scrub::{SCRUB_RATE, ScrubReport, Scrubs};
pub use target::ArtifactRequest;
pub use transfer::flight::FlightReport;
pub use views::{
    ArtifactView, FolderFile, FolderPage, FolderRequest, HeldCopy, ImagePart, ImageRequest,
    ImageView, Manifest, Naming, PackageFile, PackageRequest, PackageView, Room, SearchHit,
    SearchKind, SearchPage, SearchRequest, Stated, Views,
};

/// The pipeline and its components. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Engine {
    registry: Arc<Registry>,
    catalog: Arc<Catalog>,
    transfers: Arc<Transfers>,
    pipeline: Arc<Pipeline>,
    local: Arc<Local>,
    operator: Arc<Operator>,
    explainer: Explainer,
    offers: Arc<Offers>,
    jobs: Arc<Jobs>,
    views: Views,
    ledger: Arc<Ledger>,
    scrubs: Arc<Scrubs>,
    archive: Archive,
    budgets: Arc<Budgets>,
    clock: Arc<dyn Clock>,
}

impl Engine {
    /// Builds an engine and starts its commit task. Must be called within a Tokio runtime.
    pub fn new(parts: EngineParts) -> Arc<Self> {
        let counters = Arc::<Counters>::default();
        let (store, budgets) = (parts.metadata.job_store(), Arc::clone(&parts.budgets));
        let base = built::base(parts, &counters);
        let (registry, catalog) = (Arc::clone(&base.registry), Arc::clone(&base.catalog));
        let (transfers, clock) = (Arc::clone(&base.transfers), Arc::clone(&base.clock));
        let remote = Remote::new(base.clone());
        let pipeline = Arc::new(built::pipeline(&base, &remote));
        let explainer = || Explainer::new(&base, &remote, &pipeline.virtuals);
        let (views, explainer) = (Views::new(&base, &remote, explainer()), explainer());
        let offers = Arc::new(Offers::new(&base, &remote));
        let jobs = Jobs::new(jobs::Parts {
            store,
            pipeline: Arc::clone(&pipeline),
            offers: Arc::clone(&offers),
            budgets: Arc::clone(&budgets),
            clock: Arc::clone(&clock),
        });
        let scrubs = Scrubs::new(&pipeline, &jobs, &counters, &clock);
        let archive = Archive::new(&base, &remote, Arc::clone(&pipeline.local));
        let operator = Operator::new(base, remote, counters);
        catalog.follow_others(&operator);
        operator.note_held();
        let ledger = Ledger::new(&operator);
        Arc::new(Self {
            registry,
            catalog,
            transfers,
            local: Arc::clone(&pipeline.local),
            pipeline,
            operator,
            explainer,
            offers,
            jobs,
            views,
            ledger,
            scrubs,
            archive,
            budgets,
            clock,
        })
    }

    /// Makes this one of several replicas, before it serves; the first call counts. Must be called within a Tokio runtime.
    pub fn join_cluster(&self, parts: ClusterParts) {
        let remote = &self.pipeline.remote;
        let cluster = remote.cluster.join(parts, &self.clock);
        remote.mirrors.keep_to(Arc::clone(cluster) as _);
        cluster.share_news(self.catalog.news(), &self.operator);
    }

    /// From now on this replica, which has joined a cluster, is also seen by those that share only the database with it, and sees them.
    /// What it gives changes when one of them has taken another configuration into use and nothing quicker could say so; `None` if it
    /// has joined none.
    pub fn meet_in_database(&self, heartbeats: Heartbeats) -> Option<watch::Receiver<u64>> {
        let cluster = self.pipeline.remote.cluster.get()?;
        cluster.write_into(heartbeats);
        Some(cluster.reloads())
    }

    /// Tells the other replicas that this one has the configuration with this digest, for the operator to compare.
    pub fn configured_as(&self, digest: &str) {
        if let Some(cluster) = self.pipeline.remote.cluster.get() {
            cluster.configured(digest);
        }
    }

    /// How this replica does among the others; `None` if it is alone.
    pub fn cluster(&self) -> Option<ClusterReport> {
        Some(self.pipeline.remote.cluster.get()?.report())
    }

    /// What is downloaded here, for another replica: a GET of `target` (path and query) that carries `signature` in [`CLUSTER_HEADER`].
    /// Nothing is begun for it, and it is passed on to nobody.
    ///
    /// # Errors
    /// 404 if this is none of several replicas, or has no such download under way; 403 if no replica has signed it.
    pub fn peer_flight(&self, signature: Option<&str>, target: &str) -> Result<Body, Fault> {
        let (cluster, now) = (self.pipeline.remote.cluster.get(), self.now());
        cluster::peer_flight(cluster, &self.transfers.flights, (signature, target, now))
    }

    /// Takes a new configuration into use. What was served under the old one is no longer served from memory.
    pub fn replace_repositories(
        &self,
        repositories: Vec<Arc<Repository>>,
        not_built: &BTreeMap<String, String>,
        public_urls: PublicUrls,
    ) {
        self.budgets.configured(&repositories);
        let before = self.registry.load();
        self.catalog.reconfigured(&before.all());
        let next = before.next(
            repositories,
            not_built,
            &self.registry.link_key,
            &|name, addresses| self.catalog.origin(name, addresses),
        );
        self.registry.replace(next, public_urls);
        self.operator.reconfigured();
    }

    /// The repository of that name.
    pub fn repository(&self, name: &str) -> Option<Arc<Repository>> {
        Some(Arc::clone(&self.entry(name)?.repository))
    }

    /// Why requests to the repository of that name are answered 501, if they are.
    pub fn not_built(&self, name: &str) -> Option<String> {
        self.entry(name)?.not_built.as_deref().map(str::to_owned)
    }

    fn entry(&self, name: &str) -> Option<Arc<RepositoryState>> {
        let name = RepositoryName::parse(name).ok()?;
        self.registry.load().get(&name).cloned()
    }

    /// All repositories, sorted by name.
    pub fn repositories(&self) -> Vec<Arc<Repository>> {
        let all = self.registry.load().all();
        let repository = |entry: &Arc<RepositoryState>| Arc::clone(&entry.repository);
        all.iter().map(repository).collect()
    }

    /// Downloads that are running.
    pub fn flights_active(&self) -> usize {
        self.transfers.flights.len()
    }

    /// Downloads of files that may run at once.
    pub fn downloads_limit(&self) -> usize {
        self.budgets.totals().downloads
    }

    /// What of each scarce thing is in use, and who waits for it.
    pub fn budgets_in_use(&self) -> Vec<BudgetUse> {
        self.budgets.in_use()
    }

    /// The engine's present time.
    pub fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// Answers a request on `/api/v1/remote`. What it makes larder ask upstream says which larders it has passed.
    pub async fn read(self: &Arc<Self>, request: ArtifactRequest<'_>) -> Result<Answer, Fault> {
        let trail = Trail::of(request.headers);
        if trail.is_empty() {
            return self.pipeline.answer(request).await;
        }
        Box::pin(on_behalf(trail, self.pipeline.answer(request))).await
    }

    /// Stops what nobody waits for and gives the rest `grace`; then makes what was downloaded durable.
    pub async fn drain(&self, grace: Duration) {
        self.transfers.flights.stop_unread();
        let idle = async {
            while self.transfers.flights.len() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(grace, idle).await;
        self.transfers.flights.stop_all();
        let _ = tokio::time::timeout(Duration::from_secs(10), self.catalog.settled()).await;
        self.ledger.close().await;
    }

    /// How long a body this request may have, in bytes, asked before any of it is read: only what is passed through has one. `None` if
    /// nobody would look at it.
    ///
    /// # Errors
    /// The fault that the request ends in whatever its body is: no such repository, a path that is refused, a method that is not offered.
    pub fn body_limit(&self, request: &ArtifactRequest<'_>) -> Result<Option<u64>, Fault> {
        Ok(match admission::admit(&self.registry, request)? {
            Admission::PassThrough { pass, .. } => Some(pass.max_body),
            Admission::Local(entry) => return Err(local::other_method(&entry)),
            Admission::Other { .. } | Admission::Read(_) => None,
        })
    }

    /// Takes a file into a local repository (`PUT`). `length` is what the request says of the length of its body, which is read only
    /// after the request has been admitted. When this returns, the file is on stable storage and everybody sees it; before, nobody
    /// sees anything of it.
    ///
    /// # Errors
    /// 400 for what is malformed or does not have the digests that the request states, 403, 405, 409, 412, 413, 507 as the rules say,
    /// 503 where storage fails, and whatever fault the body itself ends with. Nothing is kept then.
    pub async fn write<S>(
        &self,
        request: &ArtifactRequest<'_>,
        length: Option<u64>,
        body: S,
    ) -> Result<Written, Fault>
    where
        S: Stream<Item = Result<UploadPart, Fault>> + Send + Unpin,
    {
        let entry = addressed::built(&self.registry, request.repository)?;
        self.local.write(&entry, request, length, body).await
    }

    /// Deletes a file of a local repository (`DELETE`), durably.
    ///
    /// # Errors
    /// 404 if there is none, 400, 403, 405 and 412 as for [`write`](Self::write), 503 where storage fails.
    pub async fn delete_file(&self, request: &ArtifactRequest<'_>) -> Result<(), Fault> {
        let entry = addressed::built(&self.registry, request.repository)?;
        self.local.delete(&entry, request).await
    }

    /// Why a request is answered as it is: the judge's trace, and what is held. Asks no upstream, counts and changes nothing.
    ///
    /// # Errors
    /// There is no such repository, it is not built, the path cannot be one, or storage fails.
    pub async fn explain(&self, request: &ArtifactRequest<'_>) -> Result<Explanation, Fault> {
        self.explainer.explain(request).await
    }

    /// Drops held copies. Downloads begun before serve their readers and commit nothing. Local repositories' files are never touched.
    ///
    /// # Errors
    /// There is no such repository, the pattern cannot be used, or storage fails.
    pub async fn flush(&self, request: FlushRequest) -> Result<FlushReport, Fault> {
        self.operator.flush(request).await
    }

    /// Forgets what is held under the path of a request; gives whether there was anything. Access rules are not asked: what they no longer
    /// admit can be flushed as well. A download begun before serves its readers and commits nothing.
    ///
    /// # Errors
    /// There is no such repository, the path cannot be one, or storage fails.
    pub async fn forget(&self, request: &ArtifactRequest<'_>, of: Queries) -> Result<bool, Fault> {
        self.operator.forget(request, of).await
    }

    /// Deletes blobs and derivations that nothing has referred to for a day.
    pub async fn collect_garbage(&self) {
        self.catalog.collect_garbage().await;
    }

    /// Runs the collector now, and looks at all files; gives what it has deleted, or would delete if it is only to look.
    ///
    /// # Errors
    /// Storage fails; the next run goes on.
    pub async fn collect(&self, only_look: bool) -> Result<Garbage, Fault> {
        self.operator.collect(only_look).await
    }

    /// What reads all that is stored again.
    pub fn scrubs(&self) -> &Arc<Scrubs> {
        &self.scrubs
    }

    /// The backends' state, at most five seconds old.
    pub async fn health(&self) -> Health {
        self.operator.health().await
    }

    /// The stored bytes of an answer that was given before, by its ticket, which must be good: without a look at the record or at the
    /// rules. `kept`: whether the file is to stay open for others; if not, its length has not been looked at, and the reader must find
    /// exactly [`HotTicket::held_length`] bytes. `None` if they are not to be had in this way: then the request is read as any other.
    pub fn reopen(&self, ticket: &HotTicket, kept: bool) -> Option<Cleared<Body>> {
        let held = ticket.held.as_ref()?;
        let body = self.catalog.reopen(&held.blob, kept)?;
        Some(policy::clearance::clear_again(ticket, body))
    }

    /// The room that there was when [`health`](Self::health) last looked.
    pub fn disk(&self) -> Option<DiskSpace> {
        self.operator.disk()
    }

    /// How the store of blobs is. Asks nobody.
    pub fn store(&self) -> StoreReport {
        self.operator.blobs.report()
    }

    /// How much each configured remote repository holds, as it was last counted; empty before the first time. Asks nobody: if the count is
    /// old, the next one is started behind the scenes.
    pub fn held_sizes(&self) -> Vec<HeldSize> {
        self.operator.held_sizes()
    }

    /// How much is held, of one repository or of all: all that are configured, and those that the database still has something of.
    ///
    /// # Errors
    /// There is no such repository, or storage fails.
    pub async fn held_summary(&self, repository: Option<&str>) -> Result<HeldSummary, Fault> {
        self.operator.held_summary(repository).await
    }

    /// A page of what is held. A page may be shorter than asked for and still have a next one.
    ///
    /// # Errors
    /// There is no such repository, the pattern cannot be used, or storage fails.
    pub async fn held_artifacts(&self, request: &HeldRequest) -> Result<HeldPage, Fault> {
        self.operator.held_artifacts(request).await
    }

    /// A page of what an upstream's own index offers. A page may be shorter than asked for and still have a next one.
    ///
    /// # Errors
    /// No such repository, no index (501), no name where one is needed (400), or what a request for the index is answered with.
    pub async fn offered_artifacts(&self, request: &OfferRequest) -> Result<OfferPage, Fault> {
        self.offers.page(request).await
    }

    /// What is kept, where that is bounded. Asks nobody.
    pub fn disk_use(&self) -> DiskUse {
        self.catalog.bounds_in_use()
    }

    /// Changes whenever files are deleted that answers of before may still hold open: those whose ticket is no longer good are to be let go.
    pub fn freed(&self) -> watch::Receiver<u64> {
        self.catalog.freed()
    }

    /// What goes into an archive, and comes out of one.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// The jobs that fetch many files into the cache.
    pub fn jobs(&self) -> &Arc<Jobs> {
        &self.jobs
    }

    /// What people look at who want to know what is held.
    pub fn views(&self) -> &Views {
        &self.views
    }

    /// What larder keeps of its own past: what was counted, the last errors, what was refused, what is missing.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Counters of the whole process.
    pub fn counters(&self) -> &Counters {
        self.operator.counters()
    }

    /// Counters of each repository, sorted by name.
    pub fn repository_counters(&self) -> Vec<(RepositoryName, Arc<RepositoryCounters>)> {
        self.operator.repository_counters()
    }

    /// Every mirror of every repository, as it does at present.
    pub fn mirror_reports(&self) -> Vec<MirrorReport> {
        self.operator.mirror_reports()
    }

    /// What each repository's upstream last said of its rate limit, sorted by name.
    pub fn upstream_quotas(&self) -> Vec<(RepositoryName, Arc<UpstreamQuota>)> {
        self.operator.upstream_quotas()
    }

    /// Every place of every upstream, as it does at present. Other hosts that documents name are shown once one of them has failed.
    pub fn upstream_reports(&self) -> Vec<UpstreamReport> {
        self.operator.upstream_reports()
    }

    /// Failures of the upstreams of each repository by cause; those that have counted.
    pub fn upstream_failures(&self) -> Vec<(RepositoryName, Vec<(&'static str, u64)>)> {
        self.operator.upstream_failures()
    }
}
