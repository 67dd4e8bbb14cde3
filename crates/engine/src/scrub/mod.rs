//! Scrubs (`POST /api/v1/scrub`): begun, shown, cancelled, and worked on in the background by one of all replicas. What a scrub finds wrong
//! of what was fetched is forgotten and fetched again at once, by a request like a client's; of what was uploaded there is no other copy,
//! and it is told (docs/adr/0096).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use larder_core::{Clock, ErrorCode, Fault, FaultKind};
use larder_storage::{DamagedBlob, Mend, Named, PathOf, ScrubFinding, ScrubRow, StorageError};
use tokio::sync::Notify;

use crate::counters::Counters;
use crate::jobs::Jobs;
use crate::keys;
use crate::operate::storage_unavailable;
use crate::read::Pipeline;

/// What a scrub reads each second if nobody says otherwise: a spinning disk has room for others beside it.
pub const SCRUB_RATE: u64 = 50 << 20;
/// The least that makes sense: a gigabyte a day.
const LEAST_RATE: u64 = 16 << 10;
/// How often it is looked whether there is something to do.
const LOOK: Duration = Duration::from_secs(1);
/// How long a scrub waits for one file that is fetched again.
const LONGEST_FETCH: Duration = Duration::from_mins(5);
/// A scrub that has not come further for so long, though it was tried every second, is given up: whoever waits for its end is told.
const LONGEST_STUCK: Duration = Duration::from_hours(1);

/// A scrub, with a page of what it has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScrubReport {
    /// The scrub.
    pub scrub: ScrubRow,
    /// Some of what it has found.
    pub findings: Vec<ScrubFinding>,
    /// The number behind which the next page begins; `None`: there is none.
    pub next: Option<i64>,
}

/// Where a scrub could not go on, and since when.
#[derive(Debug, Default)]
struct Stuck(Option<(String, u64, Instant)>);

impl Stuck {
    /// A scrub could not go on at `now`, having read so many blobs. Whether it has been there for too long.
    fn is_too_long(&mut self, scrub: &ScrubRow, now: Instant) -> bool {
        match &self.0 {
            Some((id, blobs, since)) if (id, blobs) == (&scrub.id, &scrub.blobs) => {
                now.saturating_duration_since(*since) >= LONGEST_STUCK
            }
            _ => {
                self.0 = Some((scrub.id.clone(), scrub.blobs, now));
                false
            }
        }
    }
}

/// The scrubs of a database.
#[derive(Debug)]
pub struct Scrubs {
    pipeline: Arc<Pipeline>,
    jobs: Arc<Jobs>,
    counters: Arc<Counters>,
    clock: Arc<dyn Clock>,
    /// What tells this process from others that take scrubs up.
    runner: String,
    /// There may be something to do.
    woken: Notify,
}

impl Scrubs {
    pub(crate) fn new(
        pipeline: &Arc<Pipeline>,
        jobs: &Arc<Jobs>,
        counters: &Arc<Counters>,
        clock: &Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            runner: jobs.runner().to_owned(),
            pipeline: Arc::clone(pipeline),
            jobs: Arc::clone(jobs),
            counters: Arc::clone(counters),
            clock: Arc::clone(clock),
            woken: Notify::new(),
        })
    }

    /// Begins a scrub of all that is stored, at so many bytes a second; if one is under way, that one goes on as it is. It is on stable
    /// storage when this returns.
    ///
    /// # Errors
    /// The rate is too low (400), or storage fails.
    pub async fn begin(&self, rate: u64) -> Result<ScrubReport, Fault> {
        if rate < LEAST_RATE {
            let message = format!(
                "rate is {rate} bytes a second; it can be {LEAST_RATE} or more, and is {SCRUB_RATE} if it is not given"
            );
            let fault = Fault::new(FaultKind::BadRequest, ErrorCode::BadRequest, message);
            return Err(fault.by_rule("POST /api/v1/scrub"));
        }
        let now = self.clock.now().0.max(0);
        let id = format!("{now:012x}{}", self.runner);
        let begun = self.pipeline.catalog.begin_scrub(&id, rate).await;
        if begun.map_err(|error| storage_unavailable(&error))? {
            self.woken.notify_one();
        }
        self.get(0, 0).await
    }

    /// The scrub that was begun last, with up to `limit` of what it has found from behind a number on.
    ///
    /// # Errors
    /// There was none (404), or storage fails.
    pub async fn get(&self, after: i64, limit: u32) -> Result<ScrubReport, Fault> {
        let found = self.pipeline.catalog.scrub(after, limit).await;
        let found = found.map_err(|error| storage_unavailable(&error))?;
        let (scrub, findings) = found.ok_or_else(|| {
            let message = "nothing has been scrubbed yet: POST /api/v1/scrub begins";
            Fault::new(FaultKind::NotFound, ErrorCode::NotFound, message)
        })?;
        let last = findings.last().map(|finding| finding.number);
        Ok(ScrubReport {
            next: last.filter(|_| findings.len() as u64 >= u64::from(limit)),
            scrub,
            findings,
        })
    }

    /// Cancels the scrub that is under way; what it has found stays. One that has ended stays as it is.
    ///
    /// # Errors
    /// There was none (404), or storage fails.
    pub async fn cancel(&self) -> Result<ScrubReport, Fault> {
        let cancelled = self.pipeline.catalog.cancel_scrub().await;
        if cancelled.map_err(|error| storage_unavailable(&error))? {
            tracing::info!("a scrub was cancelled");
        }
        self.get(0, 0).await
    }

    /// Works on scrubs, for ever. When it is dropped, whoever takes the scrub up goes on where it was.
    pub async fn run(self: Arc<Self>) {
        tokio::join!(self.scrub_what_is_kept(), self.scrub_copies());
    }

    /// Each process reads what it has in front of the store itself, once for each scrub, and as long as that is not cancelled.
    async fn scrub_copies(&self) {
        if !self.pipeline.catalog.has_copies() {
            return;
        }
        // One that has ended before this process began is of the past.
        let begun = self.last().await.filter(|scrub| scrub.ended_at.is_some());
        let mut done = begun.map(|scrub| scrub.id).unwrap_or_default();
        loop {
            tokio::time::sleep(LOOK).await;
            let Some(scrub) = self.last().await.filter(|scrub| scrub.id > done) else {
                continue;
            };
            done.clone_from(&scrub.id);
            let work = self.check_copies(scrub.rate);
            tokio::select! {
                checked = work => if let Err(error) = checked {
                    tracing::warn!(%error, "the local tier was not scrubbed to its end");
                },
                () = self.cancelled(&scrub.id) => {}
            }
        }
    }

    async fn last(&self) -> Option<ScrubRow> {
        let found = self.pipeline.catalog.scrub(0, 0).await;
        found.ok().flatten().map(|(scrub, _)| scrub)
    }

    async fn check_copies(&self, rate: u64) -> Result<(), StorageError> {
        let mut after = None;
        loop {
            let entries = self.pipeline.registry.load().all();
            let catalog = &self.pipeline.catalog;
            after = catalog.check_copies(after.as_ref(), rate, &entries).await?;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn cancelled(&self, id: &str) {
        loop {
            tokio::time::sleep(LOOK).await;
            let last = self.last().await;
            if last.is_some_and(|scrub| scrub.id == id && scrub.state == "cancelled") {
                return;
            }
        }
    }

    async fn scrub_what_is_kept(&self) {
        let (mut told, mut stuck) = (false, Stuck::default());
        loop {
            match self.pipeline.catalog.run_scrub(&self.runner, self).await {
                Ok(true) => {
                    told = false;
                    self.tell_end().await;
                }
                Ok(false) => {
                    told = false;
                    tokio::select! {
                        () = self.woken.notified() => {}
                        () = tokio::time::sleep(LOOK) => {}
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%error, "a scrub cannot go on; it is tried again every second, for an hour");
                    }
                    self.give_up(&mut stuck, &error).await;
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }

    /// Ends the scrub that is under way if it has been stuck for too long.
    async fn give_up(&self, stuck: &mut Stuck, why: &StorageError) {
        let last = self.last().await;
        let Some(scrub) = last.filter(|scrub| scrub.ended_at.is_none()) else {
            return;
        };
        if !stuck.is_too_long(&scrub, Instant::now()) {
            return;
        }
        match self.pipeline.catalog.give_scrub_up(&scrub).await {
            Ok(true) => {
                tracing::error!(error = %why, "a scrub was given up: it could not go on for an hour; begin another one when that is mended");
            }
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "a scrub could not be given up"),
        }
    }

    async fn tell_end(&self) {
        let Ok(Some((scrub, _))) = self.pipeline.catalog.scrub(0, 0).await else {
            return;
        };
        tracing::info!(
            state = scrub.state,
            blobs = scrub.blobs,
            bytes = scrub.bytes,
            damaged = scrub.damaged,
            "a scrub has ended"
        );
    }

    /// Fetches what was forgotten once more, by each query that it was asked for with; what cannot be had now is fetched when it is asked
    /// for. Whether anything came.
    async fn refetch(&self, name: &mut Named, damaged: &DamagedBlob) -> bool {
        let keys = damaged.users.records.get(&name.repository);
        let keys = keys.into_iter().flatten();
        let own = keys.filter(|(path, variant)| keys::path_of(path, variant) == name.path);
        let queries = own.map(|(path, variant)| keys::query_of(path, variant));
        let queries: BTreeSet<_> = queries.collect();
        let (mut is_all, mut is_any) = (true, false);
        for query in queries {
            let has_come = match query {
                Ok(query) => self.fetch(name, query).await,
                Err(keys::Hashed) => false,
            };
            is_all &= has_come;
            is_any |= has_come;
        }
        if is_any && is_all {
            name.outcome = "refetched";
            self.counters
                .scrub_refetched
                .fetch_add(1, Ordering::Relaxed);
        }
        is_any
    }

    async fn fetch(&self, name: &Named, query: Option<&str>) -> bool {
        let fetch = self.jobs.fetch(&name.repository, name.path.clone(), query);
        match tokio::time::timeout(LONGEST_FETCH, fetch).await {
            Ok((item, _)) if item.state == "cached" => return true,
            Ok((item, _)) => {
                tracing::info!(
                    repository = name.repository,
                    path = name.path,
                    reason = item.reason,
                    "what a scrub has dropped is fetched when it is asked for"
                );
            }
            Err(_) => {
                tracing::info!(
                    repository = name.repository,
                    path = name.path,
                    "what a scrub has dropped did not arrive in time"
                );
            }
        }
        false
    }

    async fn see_to(&self, damaged: &DamagedBlob) -> Result<Vec<Named>, StorageError> {
        let entries = || self.pipeline.registry.load().all();
        self.counters.scrub_damaged.fetch_add(1, Ordering::Relaxed);
        self.pipeline
            .catalog
            .forget_damaged(damaged, &entries())
            .await?;
        let mut names = Named::all_of(damaged, self.path_of());
        let mut is_refetched = false;
        for name in names.iter_mut().filter(|name| name.kind == "cached") {
            is_refetched |= self.refetch(name, damaged).await;
        }
        if !is_refetched && damaged.users.files.is_empty() {
            self.pipeline.catalog.drop_damaged(&damaged.blob).await?;
        }
        // What was uploaded too has its bytes back where an upstream had them.
        let is_back = is_refetched
            && !damaged.users.files.is_empty()
            && self.pipeline.catalog.is_sound(&damaged.blob).await;
        if is_back {
            self.pipeline.catalog.void(damaged, &entries());
        }
        let flaw = damaged.flaw.as_str();
        for name in &mut names {
            if name.kind != "local" {
                tracing::warn!(digest = %damaged.blob.digest, repository = name.repository, path = name.path, flaw, outcome = name.outcome, "a stored blob was not what it should be");
                continue;
            }
            if is_back {
                name.outcome = "restored";
                continue;
            }
            self.counters
                .scrub_local_damaged
                .fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                digest = %damaged.blob.digest, repository = name.repository, path = name.path, flaw,
                "an uploaded file is damaged, and larder has no other copy: upload it again, or restore it from a backup"
            );
        }
        Ok(names)
    }
}

impl Mend for Scrubs {
    fn path_of(&self) -> PathOf {
        keys::path_of
    }

    fn looked_at(&self, bytes: u64) {
        self.counters.scrub_blobs.fetch_add(1, Ordering::Relaxed);
        self.counters
            .scrub_bytes
            .fetch_add(bytes, Ordering::Relaxed);
    }

    fn mend<'a>(
        &'a self,
        damaged: &'a DamagedBlob,
    ) -> BoxFuture<'a, Result<Vec<Named>, StorageError>> {
        self.see_to(damaged).boxed()
    }
}

#[cfg(test)]
mod tests {
    use larder_core::UnixMillis;

    use super::*;

    #[test]
    fn a_scrub_is_given_up_where_it_has_not_come_further_for_an_hour() {
        let scrub = |id: &str, blobs| ScrubRow {
            id: id.to_owned(),
            state: "running".to_owned(),
            rate: SCRUB_RATE,
            total_blobs: 9,
            total_bytes: 90,
            blobs,
            bytes: blobs * 10,
            damaged: 0,
            begun_at: UnixMillis(0),
            ended_at: None,
        };
        let (mut stuck, begun) = (Stuck::default(), Instant::now());
        let mut at = |minutes, id, blobs| {
            let now = begun + Duration::from_mins(minutes);
            stuck.is_too_long(&scrub(id, blobs), now)
        };
        assert!(!at(0, "a", 0));
        assert!(!at(59, "a", 0));
        assert!(!at(60, "a", 1), "it has come further");
        assert!(!at(119, "a", 1));
        assert!(!at(120, "b", 1), "it is another one");
        assert!(at(180, "b", 1));
    }
}
