//! Whose turn it is to work on jobs, and how far it has come. One job at a time, the oldest first, by whoever holds the lease of it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use larder_core::RepositoryName;
use larder_storage::{JobClaim, JobItem, StorageError};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use super::{Jobs, MOST_ITEMS};

/// Files of a job that are fetched at once, where there are places for so many.
const AT_ONCE: usize = 4;
/// How long a job is left to a process that is not heard of.
const LEASE: Duration = Duration::from_secs(20);
const RENEW: Duration = Duration::from_secs(5);
/// How often it is looked whether another process has left something to do.
const LOOK: Duration = Duration::from_secs(1);

impl Jobs {
    /// Works on jobs, for ever. When it is dropped, what is being fetched is fetched once more by whoever takes the job up.
    pub async fn run(self: Arc<Self>) {
        let mut told = false;
        loop {
            let until = self.clock.now().plus(LEASE);
            let claimed = self.store.claim_job(&self.runner, self.clock.now(), until);
            let worked = match claimed.await {
                Ok(Some(claim)) => self.work_on(&claim).await.map(|()| true),
                Ok(None) => Ok(false),
                Err(error) => Err(error),
            };
            match worked {
                Ok(true) => told = false,
                Ok(false) => {
                    told = false;
                    self.rest().await;
                }
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%error, "jobs cannot go on; they are tried again every second");
                    }
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }

    async fn rest(&self) {
        tokio::select! {
            () = self.woken.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }

    /// Works on a job until it has ended, is cancelled, or is another process's.
    async fn work_on(self: &Arc<Self>, claim: &JobClaim) -> Result<(), StorageError> {
        let id = &*claim.id;
        let name = RepositoryName::parse(&claim.repository).ok();
        let registry = &self.pipeline.registry;
        if name.is_none_or(|name| registry.load().get(&name).is_none()) {
            let reason = format!("there is no repository named {}", claim.repository);
            return self.ended(claim, ("failed", reason.as_str())).await;
        }
        let mut renewal = interval(RENEW);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting = VecDeque::new();
        let mut running = Running::default();
        loop {
            if waiting.is_empty() && running.paths.len() < AT_ONCE {
                let free = (AT_ONCE - running.paths.len()) as u32;
                waiting.extend(self.store.begin_job_items(id, free).await?);
            }
            while running.paths.len() < AT_ONCE
                && let Some(path) = waiting.pop_front()
            {
                running.begin(self, &claim.repository, path);
            }
            if running.paths.is_empty() {
                return self.ended(claim, ("done", "")).await;
            }
            tokio::select! {
                Some((mut item, more)) = running.next() => {
                    let has_room = more.is_empty()
                        || self.store.job_counts(id).await?.all() as usize + more.len() <= MOST_ITEMS;
                    if !has_room {
                        "failed".clone_into(&mut item.state);
                        item.reason = format!("it needs more files than the {MOST_ITEMS} that a job has at most");
                    }
                    let more: &[String] = if has_room { &more } else { &[] };
                    self.store.end_job_item(id, &item, more).await?;
                }
                _ = renewal.tick() => if !self.renewed(id).await? { return Ok(()) },
                () = self.cancelled.notified() => if !self.renewed(id).await? { return Ok(()) },
            }
        }
    }

    async fn renewed(&self, id: &str) -> Result<bool, StorageError> {
        let until = self.clock.now().plus(LEASE);
        self.store.renew_job(id, &self.runner, until).await
    }

    async fn ended(&self, claim: &JobClaim, how: (&str, &str)) -> Result<(), StorageError> {
        let now = self.clock.now();
        let ended = self
            .store
            .end_job(&claim.id, &self.runner, how, now)
            .await?;
        if ended {
            tracing::info!(
                job = claim.id,
                repository = claim.repository,
                state = how.0,
                "a job has ended"
            );
        }
        Ok(())
    }
}

/// The files that are being fetched, each in a task of its own: one may be in the middle of a transaction while the job's rows are
/// written, which wait for it. They end when this is dropped.
#[derive(Default)]
struct Running {
    tasks: JoinSet<(JobItem, Vec<String>)>,
    paths: HashMap<Id, String>,
}

impl Running {
    fn begin(&mut self, jobs: &Arc<Jobs>, repository: &str, path: String) {
        let (jobs, repository, of) = (Arc::clone(jobs), repository.to_owned(), path.clone());
        let task = self
            .tasks
            .spawn(async move { jobs.fetch(&repository, path, None).await });
        self.paths.insert(task.id(), of);
    }

    /// What came of the next one that ends, and the paths of what it is of no use without; `None` if there is none.
    async fn next(&mut self) -> Option<(JobItem, Vec<String>)> {
        let ended = self.tasks.join_next_with_id().await?;
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let path = self.paths.remove(&id).unwrap_or_default();
        Some(ended.map_or_else(|error| (broken(path, &error), Vec::new()), |(_, item)| item))
    }
}

/// What came of a file whose task has died of a fault of larder's own.
fn broken(path: String, error: &JoinError) -> JobItem {
    tracing::error!(path, %error, "a file of a job could not be fetched: a fault of larder's");
    JobItem {
        path,
        state: "failed".to_owned(),
        bytes: 0,
        reason: "a fault of larder's own; its log says more".to_owned(),
    }
}
