//! The engine as the server's [`Backend`].

use std::sync::Arc;

use http::StatusCode;
use larder_core::{ByteRange, Fault, PackageType, Repository, UnixMillis};
use larder_engine::{
    ArtifactRequest, BackendHealth, Body, Engine, FlightBody, FlushReport, FlushRequest, HeldPage,
    HeldRequest, HeldSummary, HotTicket, SplicedBody,
};
use larder_formats::{format_of, standard_error_body};

use crate::backend::{
    Backend, BackendState, BoxFuture, ByteStream, Content, CounterSnapshot, DiskSpace, ErrorShape,
    InFlight, Reply, Ticket, UpstreamReport,
};

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

    async fn read(&self, request: ArtifactRequest<'_>) -> Result<Reply, Fault> {
        let answer = Engine::read(self, request).await?;
        let content = match answer.body.into_inner() {
            Body::Empty => Content::Empty,
            Body::Bytes(bytes) => Content::Bytes(bytes),
            Body::File { file, length } => Content::File { file, length },
            Body::InFlight(flight) => Content::InFlight(Box::new(flight)),
            Body::Spliced(body) => Content::InFlight(Box::new(body)),
            Body::Stream(stream) => Content::Stream(Box::pin(stream)),
        };
        Ok(Reply {
            status: answer.status,
            representation: answer.representation,
            content,
            cache_status: answer.cache_status,
            source: answer.source,
            freshness: answer.freshness,
            location: answer.location,
            ticket: answer
                .hot
                .filter(|_| answer.status == StatusCode::OK)
                .map(ticket),
        })
    }

    async fn flush(&self, request: FlushRequest) -> Result<FlushReport, Fault> {
        Engine::flush(self, request).await
    }

    async fn forget(&self, request: ArtifactRequest<'_>) -> Result<bool, Fault> {
        Engine::forget(self, &request).await
    }

    async fn held_artifacts(&self, request: HeldRequest) -> Result<HeldPage, Fault> {
        Engine::held_artifacts(self, &request).await
    }

    async fn held_summary(&self, repository: Option<&str>) -> Result<HeldSummary, Fault> {
        Engine::held_summary(self, repository).await
    }

    async fn health(&self) -> Vec<BackendState> {
        let health = Engine::health(self).await;
        vec![
            state("metadata", health.metadata),
            state("blobs", health.blobs),
        ]
    }

    fn upstreams(&self) -> Vec<UpstreamReport> {
        self.upstream_reports()
    }

    fn disk(&self) -> Option<DiskSpace> {
        Engine::disk(self)
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
                .map(|(name, quota)| (name.to_string(), quota.snapshot()))
                .collect(),
            failures: self
                .upstream_failures()
                .into_iter()
                .map(|(name, causes)| (name.to_string(), causes))
                .collect(),
            held: self.held_sizes(),
            flights_active: self.flights_active() as u64,
            downloads_limit: self.downloads_limit() as u64,
        }
    }

    fn error_body(&self, fault: &Fault, package: Option<PackageType>) -> ErrorShape {
        let format = package.and_then(format_of);
        let shape = format.map_or_else(
            || standard_error_body(fault),
            |format| format.error_body(fault),
        );
        ErrorShape {
            content_type: shape.content_type,
            body: shape.body,
        }
    }
}

fn ticket(ticket: HotTicket) -> Ticket {
    Ticket {
        fresh_until: ticket.fresh_until,
        contacted_at: ticket.contacted_at,
        is_good: Box::new(move |now| ticket.is_good(now)),
    }
}

fn state(role: &'static str, health: BackendHealth) -> BackendState {
    BackendState {
        role,
        kind: health.kind,
        ok: health.ok,
        detail: health.detail,
    }
}

impl InFlight for SplicedBody {
    fn length(&self) -> Option<u64> {
        Some(SplicedBody::length(self))
    }

    fn wait_length(&self) -> BoxFuture<'_, Result<u64, Fault>> {
        Box::pin(std::future::ready(Ok(SplicedBody::length(self))))
    }

    fn reader(&self, range: Option<ByteRange>) -> ByteStream {
        Box::pin(SplicedBody::reader(self, range))
    }
}

impl InFlight for FlightBody {
    fn length(&self) -> Option<u64> {
        FlightBody::length(self)
    }

    fn wait_length(&self) -> BoxFuture<'_, Result<u64, Fault>> {
        Box::pin(FlightBody::wait_length(self))
    }

    fn reader(&self, range: Option<ByteRange>) -> ByteStream {
        Box::pin(FlightBody::reader(self, range))
    }
}
