//! One file of a job, by a request through the pipeline: with the rules, the checks and the one download that a client's would have.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use http::{HeaderMap, Method};
use larder_budget::BudgetKind;
use larder_core::{
    ArtifactPath, ArtifactRecord, ErrorCode, Fault, FaultKind, Mount, Principal, RepositoryKind,
};
use larder_storage::{Body, JobItem};

use super::Jobs;
use crate::fault::storage_fault;
use crate::policy::admission::{self, Admission, Admitted};
use crate::target::{ArtifactRequest, Target};

/// How often a file is asked for whose upstream says when to ask again.
const ATTEMPTS: u32 = 4;
/// What such a time is below, for the file to be waited for: the jobs behind this one wait, too.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// How often it is looked whether what has arrived is kept by now.
const LOOK: Duration = Duration::from_millis(20);
/// How long a file waits for its turn among those of all jobs.
const LONGEST_WAIT: Duration = Duration::from_hours(24);
/// What larder calls itself in requests of its own; nothing that is kept depends on it.
const BASE: &str = "http://localhost";

impl Jobs {
    /// Fetches a file, by a query if there is one; gives what came of it, and the paths of files that it is of no use without.
    pub(crate) async fn fetch(
        &self,
        repository: &str,
        path: String,
        query: Option<&str>,
    ) -> (JobItem, Vec<String>) {
        let fetched = self
            .fetch_patiently(repository, (path.as_str(), query))
            .await;
        let (state, bytes, reason, more) = match fetched {
            Ok((bytes, more)) => ("cached", bytes, String::new(), more),
            Err(fault) => ("failed", 0, fault.message, Vec::new()),
        };
        let item = JobItem {
            path,
            state: state.to_owned(),
            bytes,
            reason,
        };
        (item, more)
    }

    async fn fetch_patiently(
        &self,
        repository: &str,
        file: (&str, Option<&str>),
    ) -> Result<(u64, Vec<String>), Fault> {
        let kind = BudgetKind::JobFiles;
        let turn = self.budgets.lease_within(kind, repository, 1, LONGEST_WAIT);
        let _turn = turn.await.map_err(|_| {
            let message = "other files of jobs have taken all places for a day";
            Fault::new(FaultKind::Unavailable, ErrorCode::Busy, message)
        })?;
        let mut attempt = 1;
        loop {
            let fault = match self.fetch_once(repository, file).await {
                Err(fault) if attempt < ATTEMPTS => fault,
                result => return result,
            };
            let is_soon = |pause: &Duration| *pause < LONGEST_PAUSE && is_for_now(&fault);
            let Some(pause) = fault.retry_after.filter(is_soon) else {
                return Err(fault);
            };
            tokio::time::sleep(pause.max(Duration::from_millis(100))).await;
            attempt += 1;
        }
    }

    async fn fetch_once(
        &self,
        repository: &str,
        (path, query): (&str, Option<&str>),
    ) -> Result<(u64, Vec<String>), Fault> {
        let path = ArtifactPath::from_decoded(path).map_err(admission::path_fault)?;
        let headers = HeaderMap::new();
        let request = ArtifactRequest {
            repository,
            raw_path: path.encoded(),
            query,
            method: &Method::GET,
            headers: &headers,
            principal: Principal::Anonymous,
            mount: Mount::api(BASE, RepositoryKind::Remote, repository),
            body: bytes::Bytes::new(),
        };
        let message = match admission::admit(&self.pipeline.registry, &request)? {
            Admission::Read(admitted) => {
                let queries = match query {
                    None => self.queries_of(admitted.wanted()).await,
                    Some(_) => Vec::new(),
                };
                if queries.is_empty() {
                    return self.fetch_admitted(&admitted, &request).await;
                }
                return self.fetch_each(repository, path.as_str(), &queries).await;
            }
            Admission::PassThrough { .. } => {
                "this path is passed through to the upstream and never kept: there is nothing to fetch"
            }
            Admission::Other { .. } | Admission::Local(_) => {
                // What larder answers or refuses by itself.
                self.pipeline.answer(request).await?;
                "larder answers this path by itself: there is nothing to fetch"
            }
        };
        Err(Fault::new(
            FaultKind::BadRequest,
            ErrorCode::BadRequest,
            message,
        ))
    }

    /// The file at a path with each of these queries.
    async fn fetch_each(
        &self,
        repository: &str,
        path: &str,
        queries: &[String],
    ) -> Result<(u64, Vec<String>), Fault> {
        let (mut bytes, mut more) = (0, Vec::new());
        for query in queries {
            let one = Box::pin(self.fetch_once(repository, (path, Some(query))));
            let (length, needed) = one.await?;
            bytes += length;
            more.extend(needed);
        }
        Ok((bytes, more))
    }

    async fn fetch_admitted(
        &self,
        admitted: &Admitted,
        request: &ArtifactRequest<'_>,
    ) -> Result<(u64, Vec<String>), Fault> {
        let wanted = Arc::clone(admitted.wanted());
        let flushes = wanted.entry.flushes.load(Ordering::Acquire);
        let answer = self.pipeline.read(admitted, request).await?;
        if let body @ (Body::Growing(_) | Body::Stream(_)) = answer.body.get().clone() {
            let mut chunks = body.chunks();
            while let Some(chunk) = chunks.next().await {
                chunk.map_err(|_| {
                    let message = "the download broke off, or was not what it should be";
                    Fault::new(FaultKind::BadGateway, ErrorCode::UpstreamCut, message)
                })?;
            }
        }
        let record = self.kept(&wanted, flushes).await?;
        self.bring_index_of(&wanted).await;
        let more = self.needed(&wanted, &record).await?;
        Ok((record.blob().map_or(0, |blob| blob.size), more))
    }

    /// The record of what has been answered, once it is there. `flushes`: how often the repository had been flushed when it was asked for.
    async fn kept(&self, wanted: &Arc<Target>, flushes: u64) -> Result<Arc<ArtifactRecord>, Fault> {
        loop {
            let is_coming = self.pipeline.flights.running(&wanted.key).is_some();
            let record = self.pipeline.catalog.record(&wanted.key).await;
            let mut record = record.map_err(|error| storage_fault(&wanted.entry, &error))?;
            if let Some(pointer) = &record
                && let Some((held, _)) = self
                    .pipeline
                    .remote
                    .copies
                    .follow_pointer(wanted, pointer)
                    .await
            {
                record = Some(held);
            }
            if let Some(record) = record.filter(|record| record.has_body()) {
                return Ok(record);
            }
            if !is_coming && wanted.entry.flushes.load(Ordering::Acquire) != flushes {
                let message = "a flush forgot it while it was fetched";
                let fault = Fault::new(FaultKind::Unavailable, ErrorCode::Busy, message);
                return Err(fault.retry_after(Some(Duration::ZERO)));
            }
            if !is_coming {
                let message = "it was fetched and is not kept: it is larger than max_size, or the disk is nearly full";
                let kind = FaultKind::InsufficientStorage;
                return Err(Fault::new(kind, ErrorCode::StorageFull, message));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The paths of the files that a file is of no use without.
    async fn needed(
        &self,
        wanted: &Arc<Target>,
        record: &Arc<ArtifactRecord>,
    ) -> Result<Vec<String>, Fault> {
        if !wanted.format.needs_what_it_names(&wanted.spec.key_path) {
            return Ok(Vec::new());
        }
        let table = self.pipeline.documents.claim_table(wanted, record).await?;
        Ok(table.iter().map(|(path, _)| path.to_owned()).collect())
    }
}

/// Whether whoever said no said so for the time being.
fn is_for_now(fault: &Fault) -> bool {
    matches!(
        fault.kind,
        FaultKind::Unavailable | FaultKind::Upstream(429 | 503)
    )
}
