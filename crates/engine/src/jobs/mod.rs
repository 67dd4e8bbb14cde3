//! Jobs that fetch many files into the cache (`POST /api/v1/artifacts/{repo}/cache`): made, shown, cancelled, and worked on in the
//! background, each file by a request like a client's. What is to be done stands in the database, so that a job goes on after a restart,
//! and on another replica where the one that worked on it is gone.
//!
//! | file | knows |
//! |---|---|
//! | `mod.rs` | what operators ask of jobs |
//! | `work.rs` | whose turn it is to work, and how far it has come |
//! | `fetch.rs` | one file, by a request through the pipeline |
//! | `index.rs` | the document by which clients find the file |

mod fetch;
mod index;
mod work;

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;

use larder_budget::Budgets;
use larder_core::{
    ArtifactPath, Clock, ErrorCode, Fault, FaultKind, RepositoryKind, RepositoryName, UnixMillis,
    fold_segments,
};
use larder_storage::{JobCounts, JobItem, JobRow, JobStore};
use tokio::sync::Notify;

use crate::operate::{OfferRequest, Offers, storage_unavailable};
use crate::policy::admission;
use crate::read::Pipeline;

/// The files of one job.
const MOST_ITEMS: usize = 50_000;
/// Jobs that have ended are shown so long, in milliseconds.
const KEPT_MS: i64 = 7 * 24 * 3_600_000;
/// And so many of those that are older are deleted when one is made.
const FORGOTTEN_AT_ONCE: u32 = 20;
/// Entries of an offer that are asked for at once.
const PAGE: u32 = 1_000;

/// What a job is to fetch: the files at these paths, or what the upstream's own index offers and the pattern matches.
#[derive(Debug, Clone, Default)]
pub struct JobRequest {
    /// The repository.
    pub repository: String,
    /// Decoded paths below it.
    pub paths: Option<Vec<String>>,
    /// Regular expression searched in the decoded paths of what the upstream offers.
    pub pattern: Option<String>,
    /// With a pattern: whose offer is meant, as for [`OfferRequest::name`].
    pub name: Option<String>,
}

/// A job, with a page of its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobReport {
    /// The job.
    pub job: JobRow,
    /// How far it has come.
    pub counts: JobCounts,
    /// Some of its files, in the order of their paths.
    pub items: Vec<JobItem>,
    /// The path behind which the next page begins; `None`: there is none.
    pub next: Option<String>,
}

/// A page of jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobsPage {
    /// The latest first.
    pub jobs: Vec<(JobRow, JobCounts)>,
    /// The job before which the next page begins; `None`: there is none.
    pub next: Option<String>,
}

/// The jobs of a database.
#[derive(Debug)]
pub struct Jobs {
    store: JobStore,
    pipeline: Arc<Pipeline>,
    offers: Arc<Offers>,
    budgets: Arc<Budgets>,
    clock: Arc<dyn Clock>,
    /// What tells this process from others that take jobs up.
    runner: String,
    /// There may be something to do.
    woken: Notify,
    /// A job may have been cancelled.
    cancelled: Notify,
}

/// What jobs are made with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) store: JobStore,
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) offers: Arc<Offers>,
    pub(crate) budgets: Arc<Budgets>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Jobs {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            store: parts.store,
            pipeline: parts.pipeline,
            offers: parts.offers,
            budgets: parts.budgets,
            clock: parts.clock,
            runner: random(),
            woken: Notify::new(),
            cancelled: Notify::new(),
        })
    }

    /// A name that no other process has.
    pub(crate) fn runner(&self) -> &str {
        &self.runner
    }

    /// Makes a job. It is on stable storage when this returns.
    ///
    /// # Errors
    /// There is no such remote repository, what is to be fetched is not said or cannot be (400), there is no index to match a pattern
    /// with (501), or storage fails.
    pub async fn create(&self, request: JobRequest) -> Result<JobReport, Fault> {
        let entry = admission::entry(&self.pipeline.registry, &request.repository)?;
        let name = entry.repository.name.clone();
        let why = match entry.repository.kind() {
            RepositoryKind::Remote => None,
            RepositoryKind::Local => {
                Some("is a local repository: it holds what was uploaded, and fetches nothing")
            }
            RepositoryKind::Virtual => Some(
                "is a virtual repository: its members hold what it serves; name the one that has the files",
            ),
        };
        if let Some(why) = why {
            return Err(bad(format!("{name} {why}")).in_repository(&name));
        }
        let paths = match (&request.paths, &request.pattern) {
            (Some(paths), None) if request.name.is_none() => cleaned(paths)?,
            (None, Some(_)) => self.offered(&request).await?,
            _ => {
                let message = "a job fetches either the files at \"paths\", or what \"pattern\" matches of the upstream's offer \
                               (of \"name\", where the upstream has an index of each)";
                return Err(bad(message.to_owned()).in_repository(&name));
            }
        };
        let now = self.clock.now();
        let forgotten = self
            .store
            .forget_jobs(UnixMillis(now.0.saturating_sub(KEPT_MS)), FORGOTTEN_AT_ONCE)
            .await;
        if let Err(error) = forgotten {
            tracing::warn!(%error, "old jobs were not deleted");
        }
        let id = format!("{:012x}{}", now.0.max(0), random());
        let made = self.store.create_job(&id, name.as_str(), &paths, now).await;
        made.map_err(|error| storage_unavailable(&error))?;
        self.woken.notify_one();
        self.get(&id, None, PAGE).await
    }

    /// A job, with up to `limit` of its files from behind a path on.
    ///
    /// # Errors
    /// There is no such job, or storage fails.
    pub async fn get(&self, id: &str, after: Option<&str>, limit: u32) -> Result<JobReport, Fault> {
        let failed = |error| storage_unavailable(&error);
        let found = self.store.job(id).await.map_err(failed)?;
        let found = found.filter(|(job, _)| self.may_be_seen(job));
        let (job, counts) = found.ok_or_else(|| {
            let message = "there is no such job; GET /api/v1/jobs lists them, those that have ended for seven days";
            Fault::new(FaultKind::NotFound, ErrorCode::NotFound, message)
        })?;
        let items = self.store.job_items(id, after.unwrap_or_default(), limit);
        let items = items.await.map_err(failed)?;
        let next = items
            .last()
            .filter(|_| items.len() as u64 >= u64::from(limit));
        Ok(JobReport {
            next: next.map(|item| item.path.clone()),
            job,
            counts,
            items,
        })
    }

    /// Up to `limit` jobs, the latest first, from before a job on.
    ///
    /// # Errors
    /// Storage fails.
    pub async fn list(&self, before: Option<&str>, limit: u32) -> Result<JobsPage, Fault> {
        let failed = |error| storage_unavailable(&error);
        let jobs = self.store.jobs(before, limit).await.map_err(failed)?;
        let last = jobs
            .last()
            .filter(|_| jobs.len() as u64 >= u64::from(limit));
        let mut page = JobsPage {
            jobs: Vec::new(),
            next: last.map(|job| job.id.clone()),
        };
        for job in jobs {
            if self.may_be_seen(&job) {
                let counts = self.store.job_counts(&job.id).await.map_err(failed)?;
                page.jobs.push((job, counts));
            }
        }
        Ok(page)
    }

    /// Cancels a job: what is not fetched yet is skipped. One that has ended stays as it is.
    ///
    /// # Errors
    /// There is no such job, or storage fails.
    pub async fn cancel(&self, id: &str) -> Result<JobReport, Fault> {
        self.get(id, None, 1).await?;
        let cancelled = self.store.cancel_job(id, self.clock.now()).await;
        cancelled.map_err(|error| storage_unavailable(&error))?;
        self.cancelled.notify_waiters();
        self.get(id, None, PAGE).await
    }

    /// Who may not read a repository does not see its jobs; of one that is not configured nobody may read anything.
    fn may_be_seen(&self, job: &JobRow) -> bool {
        let name = RepositoryName::parse(&job.repository);
        name.is_ok_and(|name| self.pipeline.registry.load().get(&name).is_some())
    }

    /// The paths of what an upstream offers and the pattern matches.
    async fn offered(&self, request: &JobRequest) -> Result<Vec<String>, Fault> {
        let mut asked = OfferRequest {
            repository: request.repository.clone(),
            name: request.name.clone(),
            pattern: request.pattern.clone(),
            cached: None,
            limit: PAGE,
            after: None,
        };
        let mut paths = BTreeSet::new();
        loop {
            let page = self.offers.page(&asked).await?;
            paths.extend(page.artifacts.into_iter().map(|artifact| artifact.path));
            if paths.len() > MOST_ITEMS {
                return Err(too_many());
            }
            match page.next {
                Some(next) => asked.after = Some(next),
                None => return Ok(paths.into_iter().collect()),
            }
        }
    }
}

/// Paths as they are asked for, each once.
fn cleaned(paths: &[String]) -> Result<Vec<String>, Fault> {
    if paths.len() > MOST_ITEMS {
        return Err(too_many());
    }
    let mut cleaned = BTreeSet::new();
    for (place, path) in paths.iter().enumerate() {
        // As a client's path is, where it comes in.
        let path = fold_segments(path.trim_start_matches('/'));
        let parsed = ArtifactPath::from_decoded(&path).map_err(|error| {
            bad(format!(
                "paths[{place}] can be no path of a repository: {error}"
            ))
        })?;
        if parsed.is_root() {
            return Err(bad(format!("paths[{place}] is empty")));
        }
        cleaned.insert(parsed.as_str().to_owned());
    }
    Ok(cleaned.into_iter().collect())
}

fn bad(message: String) -> Fault {
    Fault::new(FaultKind::BadRequest, ErrorCode::BadRequest, message)
        .by_rule("POST /api/v1/artifacts/{repo}/cache")
}

fn too_many() -> Fault {
    bad(format!(
        "a job fetches at most {MOST_ITEMS} files: narrow the pattern, or make several jobs"
    ))
}

/// Eight random bytes in hexadecimal digits.
fn random() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}
