//! The engine as the server's [`Backend`].

use std::sync::Arc;

use larder_core::{Fault, PackageType, Repository, UnixMillis};
use larder_engine::{
    Answer, Archive, ArtifactRequest, Body, Cleared, ClusterReport, DiskSpace, DiskUse, Engine,
    Explanation, FlightReport, FlushReport, FlushRequest, Garbage, Health, HeldPage, HeldRequest,
    HeldSummary, History, HotTicket, JobReport, JobRequest, JobsPage, OfferPage, OfferRequest,
    Outage, Queries, RecentError, RecentErrors, RefusedGroup, ScrubReport, Span, StoreReport,
    TrafficSource, UpstreamReport, Written,
};
use larder_engine::{
    ArtifactView, FolderPage, FolderRequest, ImageRequest, ImageView, PackageRequest, PackageView,
    SearchPage, SearchRequest,
};
use larder_formats::{ErrorBody, format_of, standard_error_body};
use tokio::sync::watch;

use crate::backend::{Backend, CounterSnapshot, UploadBody};

impl Backend for Arc<Engine> {
    fn now(&self) -> UnixMillis {
        Engine::now(self)
    }

    fn repository(&self, name: &str) -> Option<Arc<Repository>> {
        Engine::repository(self, name)
    }

    fn repositories(&self) -> Vec<Arc<Repository>> {
        Engine::repositories(self)
    }

    fn body_limit(&self, request: &ArtifactRequest<'_>) -> Result<Option<u64>, Fault> {
        Engine::body_limit(self, request)
    }

    fn not_built(&self, name: &str) -> Option<String> {
        Engine::not_built(self, name)
    }

    async fn read(&self, request: ArtifactRequest<'_>) -> Result<Answer, Fault> {
        Engine::read(self, request).await
    }

    fn reopen(&self, ticket: &HotTicket, kept: bool) -> Option<Cleared<Body>> {
        Engine::reopen(self, ticket, kept)
    }

    async fn explain(&self, request: ArtifactRequest<'_>) -> Result<Explanation, Fault> {
        Engine::explain(self, &request).await
    }

    fn peer_flight(&self, signature: Option<&str>, target: &str) -> Result<Body, Fault> {
        Engine::peer_flight(self, signature, target)
    }

    fn cluster(&self) -> Option<ClusterReport> {
        Engine::cluster(self)
    }

    async fn flush(&self, request: FlushRequest) -> Result<FlushReport, Fault> {
        Engine::flush(self, request).await
    }

    async fn forget(&self, request: ArtifactRequest<'_>, of: Queries) -> Result<bool, Fault> {
        Engine::forget(self, &request, of).await
    }

    async fn write(
        &self,
        request: ArtifactRequest<'_>,
        length: Option<u64>,
        body: UploadBody<'_>,
    ) -> Result<Written, Fault> {
        Engine::write(self, &request, length, body).await
    }

    async fn delete_file(&self, request: ArtifactRequest<'_>) -> Result<(), Fault> {
        Engine::delete_file(self, &request).await
    }

    async fn held_artifacts(&self, request: HeldRequest) -> Result<HeldPage, Fault> {
        Engine::held_artifacts(self, &request).await
    }

    async fn offered_artifacts(&self, request: OfferRequest) -> Result<OfferPage, Fault> {
        Engine::offered_artifacts(self, &request).await
    }

    async fn folder(&self, request: FolderRequest) -> Result<FolderPage, Fault> {
        Engine::views(self).folder(&request).await
    }

    async fn search(&self, request: SearchRequest) -> Result<SearchPage, Fault> {
        Engine::views(self).search(&request).await
    }

    async fn artifact(&self, repository: &str, path: &str) -> Result<ArtifactView, Fault> {
        Engine::views(self).artifact(repository, path).await
    }

    async fn package(&self, request: PackageRequest) -> Result<PackageView, Fault> {
        Engine::views(self).package(&request).await
    }

    async fn image(&self, request: ImageRequest) -> Result<ImageView, Fault> {
        Engine::views(self).image(&request).await
    }

    async fn create_job(&self, request: JobRequest) -> Result<JobReport, Fault> {
        Engine::jobs(self).create(request).await
    }

    async fn job(&self, id: &str, after: Option<&str>, limit: u32) -> Result<JobReport, Fault> {
        Engine::jobs(self).get(id, after, limit).await
    }

    async fn jobs(&self, before: Option<&str>, limit: u32) -> Result<JobsPage, Fault> {
        Engine::jobs(self).list(before, limit).await
    }

    async fn cancel_job(&self, id: &str) -> Result<JobReport, Fault> {
        Engine::jobs(self).cancel(id).await
    }

    async fn collect(&self, only_look: bool) -> Result<Garbage, Fault> {
        Engine::collect(self, only_look).await
    }

    async fn begin_scrub(&self, rate: u64) -> Result<ScrubReport, Fault> {
        self.scrubs().begin(rate).await
    }

    async fn scrub(&self, after: i64, limit: u32) -> Result<ScrubReport, Fault> {
        self.scrubs().get(after, limit).await
    }

    async fn cancel_scrub(&self) -> Result<ScrubReport, Fault> {
        self.scrubs().cancel().await
    }

    fn archive(&self) -> Option<&Archive> {
        Some(Engine::archive(self))
    }

    async fn held_summary(&self, repository: Option<&str>) -> Result<HeldSummary, Fault> {
        Engine::held_summary(self, repository).await
    }

    async fn health(&self) -> Health {
        Engine::health(self).await
    }

    fn upstreams(&self) -> Vec<UpstreamReport> {
        self.upstream_reports()
    }

    fn disk(&self) -> Option<DiskSpace> {
        Engine::disk(self)
    }

    fn store(&self) -> StoreReport {
        Engine::store(self)
    }

    fn disk_use(&self) -> DiskUse {
        Engine::disk_use(self)
    }

    fn freed(&self) -> Option<watch::Receiver<u64>> {
        Some(Engine::freed(self))
    }

    fn observed_by(&self, source: Arc<dyn TrafficSource>) -> Option<Arc<RecentErrors>> {
        self.ledger().counted_by(source);
        Some(Arc::clone(self.ledger().errors()))
    }

    async fn history(&self, repository: Option<&str>, span: Span) -> Result<History, Fault> {
        self.ledger().history(repository, span).await
    }

    fn recent_errors(&self) -> Vec<RecentError> {
        self.ledger().recent_errors()
    }

    fn holders(&self, repository: &str) -> Result<Vec<String>, Fault> {
        self.views().holders_of(repository)
    }

    async fn compare_mirrors(&self, repository: &str) -> Result<(), Fault> {
        self.ledger().compare_mirrors(repository).await
    }

    fn refused(&self, repository: &str) -> Result<Vec<RefusedGroup>, Fault> {
        self.ledger().refused(repository)
    }

    fn flights(&self) -> Vec<FlightReport> {
        self.ledger().flights()
    }

    async fn outage(
        &self,
        repository: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Outage, Fault> {
        let holders = self.views().holders_of(repository)?;
        self.ledger()
            .outage(repository, &holders, after, limit)
            .await
    }

    fn counters(&self) -> CounterSnapshot {
        let repositories = self.repository_counters().into_iter();
        CounterSnapshot {
            process: Engine::counters(self).snapshot(),
            repositories: repositories
                .map(|(name, counters)| (name.to_string(), counters.snapshot()))
                .collect(),
            mirrors: self.mirror_reports(),
            quotas: self
                .upstream_quotas()
                .into_iter()
                .map(|(name, quota)| (name.to_string(), quota.snapshot_at(self.now())))
                .collect(),
            failures: self
                .upstream_failures()
                .into_iter()
                .map(|(name, causes)| (name.to_string(), causes))
                .collect(),
            held: self.held_sizes(),
            flights_active: self.flights_active() as u64,
            downloads_limit: self.downloads_limit() as u64,
            budgets: self.budgets_in_use(),
        }
    }

    fn error_body(&self, fault: &Fault, package: Option<PackageType>) -> ErrorBody {
        package.map(format_of).map_or_else(
            || standard_error_body(fault),
            |format| format.error_body(fault),
        )
    }
}
