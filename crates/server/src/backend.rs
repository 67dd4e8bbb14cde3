//! What the server asks of the pipeline behind it. The one real implementation is the engine's (`engine_backend.rs`); tests
//! bring a scripted one.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures_core::Stream;
use larder_budget::BudgetUse;
use larder_core::{ErrorCode, Fault, FaultKind, PackageType, Repository, UnixMillis};
use larder_engine::{
    Answer, Archive, ArtifactRequest, Body, Cleared, ClusterReport, DiskSpace, DiskUse,
    Explanation, FlightReport, FlushReport, FlushRequest, Garbage, Health, HeldPage, HeldRequest,
    HeldSize, HeldSummary, History, HotTicket, JobReport, JobRequest, JobsPage, MirrorReport,
    OfferPage, OfferRequest, Outage, Queries, RecentError, RecentErrors, RefusedGroup, ScrubReport,
    Span, StoreReport, TrafficSource, UploadPart, UpstreamReport, Written,
};
use larder_engine::{
    ArtifactView, FolderPage, FolderRequest, ImageRequest, ImageView, PackageRequest, PackageView,
    SearchPage, SearchRequest,
};
use larder_formats::ErrorBody;
use tokio::sync::watch;

/// The body of an upload while it arrives. A fault ends it, and the upload.
pub type UploadBody<'a> = Pin<Box<dyn Stream<Item = Result<UploadPart, Fault>> + Send + 'a>>;

/// The pipeline, as the server sees it.
pub trait Backend: Send + Sync + 'static {
    /// The present time.
    fn now(&self) -> UnixMillis;

    /// The repository of that name.
    fn repository(&self, name: &str) -> Option<Arc<Repository>>;

    /// All repositories, sorted by name.
    fn repositories(&self) -> Vec<Arc<Repository>>;

    /// How long a body this POST may have, in bytes: asked before any of it is read. `None` if nobody would look at it.
    ///
    /// # Errors
    /// The fault that the request ends in whatever its body is.
    fn body_limit(&self, request: &ArtifactRequest<'_>) -> Result<Option<u64>, Fault>;

    /// Why requests to the repository of that name are answered 501, if they are.
    fn not_built(&self, _name: &str) -> Option<String> {
        None
    }

    /// Answers GET, HEAD and POST on `/api/v1/remote`, GET and HEAD below `/v2/`.
    fn read(
        &self,
        request: ArtifactRequest<'_>,
    ) -> impl Future<Output = Result<Answer, Fault>> + Send;

    /// The stored bytes of an answer that was given before, by a ticket that is still good. `kept`: the file stays open for others; else
    /// its length has not been looked at. `None`: the request is to be read as any other.
    fn reopen(&self, _ticket: &HotTicket, _kept: bool) -> Option<Cleared<Body>> {
        None
    }

    /// Why a path is answered as it is (`GET /api/v1/explain`). Asks nobody and changes nothing.
    fn explain(
        &self,
        _request: ArtifactRequest<'_>,
    ) -> impl Future<Output = Result<Explanation, Fault>> + Send {
        async { Err(Fault::not_built("explanations are not built here")) }
    }

    /// Forgets copies (`PUT /cache/flush`).
    fn flush(
        &self,
        request: FlushRequest,
    ) -> impl Future<Output = Result<FlushReport, Fault>> + Send;

    /// Forgets what is held under the path of a request (`DELETE`); whether there was anything.
    fn forget(
        &self,
        _request: ArtifactRequest<'_>,
        _of: Queries,
    ) -> impl Future<Output = Result<bool, Fault>> + Send {
        async { Ok(false) }
    }

    /// Takes a file into a local repository (`PUT`). `length` is what `Content-Length` says; the body is polled once the request has been
    /// admitted.
    fn write(
        &self,
        request: ArtifactRequest<'_>,
        _length: Option<u64>,
        _body: UploadBody<'_>,
    ) -> impl Future<Output = Result<Written, Fault>> + Send {
        let fault = no_uploads(request.repository);
        async { Err(fault) }
    }

    /// Deletes a file of a local repository (`DELETE`).
    fn delete_file(
        &self,
        request: ArtifactRequest<'_>,
    ) -> impl Future<Output = Result<(), Fault>> + Send {
        let fault = no_uploads(request.repository);
        async { Err(fault) }
    }

    /// A page of what is held.
    fn held_artifacts(
        &self,
        _request: HeldRequest,
    ) -> impl Future<Output = Result<HeldPage, Fault>> + Send {
        async { Ok(HeldPage::default()) }
    }

    /// A page of what an upstream offers.
    fn offered_artifacts(
        &self,
        _request: OfferRequest,
    ) -> impl Future<Output = Result<OfferPage, Fault>> + Send {
        async { Ok(OfferPage::default()) }
    }

    /// One level of a repository.
    fn folder(
        &self,
        _request: FolderRequest,
    ) -> impl Future<Output = Result<FolderPage, Fault>> + Send {
        async { Ok(FolderPage::default()) }
    }

    /// What is held and found by a part of its path, or by its digest.
    fn search(
        &self,
        _request: SearchRequest,
    ) -> impl Future<Output = Result<SearchPage, Fault>> + Send {
        async { Ok(SearchPage::default()) }
    }

    /// One path with all that is known of it.
    fn artifact(
        &self,
        _repository: &str,
        _path: &str,
    ) -> impl Future<Output = Result<ArtifactView, Fault>> + Send {
        async { Err(no_views()) }
    }

    /// The versions that a held index names.
    fn package(
        &self,
        _request: PackageRequest,
    ) -> impl Future<Output = Result<PackageView, Fault>> + Send {
        async { Err(no_views()) }
    }

    /// The held tags of an image, and what one of its manifests consists of.
    fn image(
        &self,
        _request: ImageRequest,
    ) -> impl Future<Output = Result<ImageView, Fault>> + Send {
        async { Err(no_views()) }
    }

    /// Makes a job that fetches many files.
    fn create_job(
        &self,
        _request: JobRequest,
    ) -> impl Future<Output = Result<JobReport, Fault>> + Send {
        async { Err(no_jobs()) }
    }

    /// A job, with up to `limit` of its files from behind a path on.
    fn job(
        &self,
        _id: &str,
        _after: Option<&str>,
        _limit: u32,
    ) -> impl Future<Output = Result<JobReport, Fault>> + Send {
        async { Err(no_jobs()) }
    }

    /// Up to `limit` jobs, the latest first, from before a job on.
    fn jobs(
        &self,
        _before: Option<&str>,
        _limit: u32,
    ) -> impl Future<Output = Result<JobsPage, Fault>> + Send {
        async { Ok(JobsPage::default()) }
    }

    /// Cancels a job.
    fn cancel_job(&self, _id: &str) -> impl Future<Output = Result<JobReport, Fault>> + Send {
        async { Err(no_jobs()) }
    }

    /// Runs the collector (`POST /api/v1/gc`), or says what it would delete.
    fn collect(&self, _only_look: bool) -> impl Future<Output = Result<Garbage, Fault>> + Send {
        async { Err(no_upkeep()) }
    }

    /// Begins a scrub, at so many bytes a second (`POST /api/v1/scrub`); or gives the one that is under way.
    fn begin_scrub(&self, _rate: u64) -> impl Future<Output = Result<ScrubReport, Fault>> + Send {
        async { Err(no_upkeep()) }
    }

    /// The last scrub, with up to `limit` of what it has found from behind a number on.
    fn scrub(
        &self,
        _after: i64,
        _limit: u32,
    ) -> impl Future<Output = Result<ScrubReport, Fault>> + Send {
        async { Err(no_upkeep()) }
    }

    /// Cancels the scrub that is under way.
    fn cancel_scrub(&self) -> impl Future<Output = Result<ScrubReport, Fault>> + Send {
        async { Err(no_upkeep()) }
    }

    /// What goes into an archive, and comes out of one; `None` where there are none.
    fn archive(&self) -> Option<&Archive> {
        None
    }

    /// How much is held, of one repository or of all.
    fn held_summary(
        &self,
        _repository: Option<&str>,
    ) -> impl Future<Output = Result<HeldSummary, Fault>> + Send {
        async { Ok(HeldSummary::default()) }
    }

    /// What is downloaded here, for another replica (`larder_engine::Engine::peer_flight`).
    fn peer_flight(&self, _signature: Option<&str>, _target: &str) -> Result<Body, Fault> {
        let message = "this is none of several replicas";
        Err(Fault::new(
            FaultKind::NotFound,
            ErrorCode::NotFound,
            message,
        ))
    }

    /// How this replica does among the others; `None` if it is alone.
    fn cluster(&self) -> Option<ClusterReport> {
        None
    }

    /// The state of each backend, from verdicts that are at most a few seconds old.
    fn health(&self) -> impl Future<Output = Health> + Send;

    /// How the upstreams are doing.
    fn upstreams(&self) -> Vec<UpstreamReport> {
        Vec::new()
    }

    /// The room on the disk when the backends' state was last looked at.
    fn disk(&self) -> Option<DiskSpace> {
        None
    }

    /// How the store of blobs is; asks nobody.
    fn store(&self) -> StoreReport {
        StoreReport::default()
    }

    /// What is kept, where that is bounded.
    fn disk_use(&self) -> DiskUse {
        DiskUse::default()
    }

    /// Changes whenever files are deleted that answers of before may hold open; `None`: that never happens.
    fn freed(&self) -> Option<watch::Receiver<u64>> {
        None
    }

    /// From now on requests are counted there; gives where errors are to be noted, if they are.
    fn observed_by(&self, _source: Arc<dyn TrafficSource>) -> Option<Arc<RecentErrors>> {
        None
    }

    /// What was counted of one repository, or of all together.
    fn history(
        &self,
        _repository: Option<&str>,
        _span: Span,
    ) -> impl Future<Output = Result<History, Fault>> + Send {
        async { Err(Fault::not_built("no history is kept here")) }
    }

    /// The last errors, the last of all first.
    fn recent_errors(&self) -> Vec<RecentError> {
        Vec::new()
    }

    /// What the rules of a repository have refused, in groups of what one pattern would admit.
    fn refused(&self, _repository: &str) -> Result<Vec<RefusedGroup>, Fault> {
        Ok(Vec::new())
    }

    /// The repositories that hold what a repository shows: the members of a virtual one, or itself.
    fn holders(&self, repository: &str) -> Result<Vec<String>, Fault> {
        Ok(vec![repository.to_owned()])
    }

    /// Asks all mirrors of a repository how old their indexes are.
    fn compare_mirrors(&self, _repository: &str) -> impl Future<Output = Result<(), Fault>> + Send {
        async { Err(Fault::not_built("there are no mirrors here")) }
    }

    /// What is being downloaded here.
    fn flights(&self) -> Vec<FlightReport> {
        Vec::new()
    }

    /// What would be answered if the repository's upstream were away, with up to `limit` of what would not be, behind a page before.
    fn outage(
        &self,
        _repository: &str,
        _after: Option<&str>,
        _limit: u32,
    ) -> impl Future<Output = Result<Outage, Fault>> + Send {
        async { Err(Fault::not_built("no history is kept here")) }
    }

    /// Counters for `/metrics`.
    fn counters(&self) -> CounterSnapshot;

    /// The body of an error in the shape that a package type's clients print; larder's own without one.
    fn error_body(&self, fault: &Fault, package: Option<PackageType>) -> ErrorBody;
}

/// Waits until files have been deleted that the hot set may hold open; for ever, where that never happens.
pub(crate) async fn changed(freed: &mut Option<watch::Receiver<u64>>) {
    let has_changed = match freed {
        Some(receiver) => receiver.changed().await.is_ok(),
        None => false,
    };
    if !has_changed {
        std::future::pending::<()>().await;
    }
}

/// The answer of a pipeline that keeps nothing.
fn no_upkeep() -> Fault {
    Fault::not_built("collector and scrubs are not built here")
}

/// The answer of a pipeline that has no jobs.
fn no_jobs() -> Fault {
    Fault::not_built("jobs are not built here")
}

/// The answer of a pipeline that cannot be looked into.
fn no_views() -> Fault {
    Fault::not_built("pages of single files are not built here")
}

/// The answer of a pipeline that has no local repositories.
fn no_uploads(repository: &str) -> Fault {
    let message = format!("{repository} takes no uploads: local repositories are not built here");
    Fault::not_built(message)
}

/// Counters at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CounterSnapshot {
    /// Of the whole process.
    pub process: Vec<(&'static str, u64)>,
    /// Of each repository.
    pub repositories: Vec<(String, Vec<(&'static str, u64)>)>,
    /// Of each mirror of each repository.
    pub mirrors: Vec<MirrorReport>,
    /// What upstreams last said of their rate limits, of each repository whose upstream says it.
    pub quotas: Vec<(String, Vec<(&'static str, u64)>)>,
    /// Failures of the upstreams of each repository, by cause.
    pub failures: Vec<(String, Vec<(&'static str, u64)>)>,
    /// What each repository holds, as it was last counted.
    pub held: Vec<HeldSize>,
    /// Downloads that are running.
    pub flights_active: u64,
    /// Downloads of files that may run at once.
    pub downloads_limit: u64,
    /// What of each scarce thing is in use.
    pub budgets: Vec<BudgetUse>,
}
