//! Jobs that fetch many files into the cache: a row for each job, and one for each of its files. The oldest job that has not ended is
//! worked on by one process at a time, which holds a lease of it; whoever finds that lease ended takes the job over.

use larder_core::UnixMillis;

use super::db::{Durability, Row, Sql, locking};
use super::{DbError, MetadataStore, Tx};
use crate::error::StorageError;

const INSERT: &str = "INSERT INTO jobs (id, repository, state, reason, created_at, ended_at, runner, lease_until) \
     VALUES ($1, $2, 'queued', '', $3, NULL, '', 0)";
const ADD_ITEMS: Sql = Sql {
    sqlite: "INSERT INTO job_items (job, path, state, bytes, reason) SELECT $1, value, 'queued', 0, '' \
         FROM json_each($2) WHERE TRUE ON CONFLICT (job, path) DO NOTHING",
    postgres: "INSERT INTO job_items (job, path, state, bytes, reason) SELECT $1, k #>> '{}', 'queued', 0, '' \
         FROM json_array_elements($2::json) AS k WHERE TRUE ON CONFLICT (job, path) DO NOTHING",
};
const PAGE: &str = "SELECT id, repository, state, reason, created_at, ended_at FROM jobs WHERE id < $1 ORDER BY id DESC LIMIT $2";
const ONE: &str =
    "SELECT id, repository, state, reason, created_at, ended_at FROM jobs WHERE id = $1";
const COUNT: &str = "SELECT state, COUNT(*) FROM job_items WHERE job = $1 GROUP BY state";
const ITEMS: &str = "SELECT path, state, bytes, reason FROM job_items WHERE job = $1 AND path > $2 ORDER BY path LIMIT $3";
const OLDEST: &str = "SELECT id, repository, runner, lease_until FROM jobs WHERE ended_at IS NULL ORDER BY id LIMIT 1";
const LOCK: Sql =
    locking!("SELECT repository, runner, lease_until FROM jobs WHERE id = $1 AND ended_at IS NULL");
const TAKE: &str = "UPDATE jobs SET state = 'running', runner = $2, lease_until = $3 WHERE id = $1";
const BEGIN_AGAIN: &str =
    "UPDATE job_items SET state = 'queued' WHERE job = $1 AND state = 'running'";
const RENEW: &str =
    "UPDATE jobs SET lease_until = $3 WHERE id = $1 AND runner = $2 AND ended_at IS NULL";
const NEXT: &str =
    "SELECT path FROM job_items WHERE job = $1 AND state = 'queued' ORDER BY path LIMIT $2";
const BEGIN_ITEM: &str =
    "UPDATE job_items SET state = 'running' WHERE job = $1 AND path = $2 AND state = 'queued'";
const END_ITEM: &str = "UPDATE job_items SET state = $3, bytes = $4, reason = $5 WHERE job = $1 AND path = $2 AND state = 'running'";
const END: &str = "UPDATE jobs SET state = $3, reason = $4, ended_at = $5, runner = '', lease_until = 0 \
     WHERE id = $1 AND runner = $2 AND ended_at IS NULL";
const CANCEL: &str = "UPDATE jobs SET state = 'cancelled', ended_at = $2, runner = '', lease_until = 0 WHERE id = $1 AND ended_at IS NULL";
const SKIP: &str = "UPDATE job_items SET state = 'skipped', reason = $2 WHERE job = $1 AND state IN ('queued', 'running')";
const ENDED: &str =
    "SELECT id FROM jobs WHERE ended_at IS NOT NULL AND ended_at < $1 ORDER BY ended_at LIMIT $2";
const DELETE_ITEMS: &str = "DELETE FROM job_items WHERE job = $1";
const DELETE: &str = "DELETE FROM jobs WHERE id = $1";

/// Behind every id: they are of hexadecimal digits.
const LAST: &str = "~";
/// Paths that one statement writes.
const AT_ONCE: usize = 5_000;

/// A job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRow {
    /// Its name; later ones come later in the order of texts.
    pub id: String,
    /// The repository's name.
    pub repository: String,
    /// `queued`, `running`, `done`, `cancelled` or `failed`.
    pub state: String,
    /// Why it has failed; empty if it has not.
    pub reason: String,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When it ended, if it has.
    pub ended_at: Option<UnixMillis>,
}

/// A file of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobItem {
    /// Decoded path below the job's repository.
    pub path: String,
    /// `queued`, `running`, `cached`, `skipped` or `failed`.
    pub state: String,
    /// Bytes that are held of it.
    pub bytes: u64,
    /// Why it was skipped or has failed; else empty.
    pub reason: String,
}

/// How many files of a job are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JobCounts {
    /// Still to be fetched.
    pub queued: u64,
    /// Being fetched.
    pub running: u64,
    /// Held.
    pub cached: u64,
    /// Left out.
    pub skipped: u64,
    /// Not to be had.
    pub failed: u64,
}

impl JobCounts {
    /// All files of the job.
    pub fn all(&self) -> u64 {
        self.queued + self.running + self.cached + self.skipped + self.failed
    }
}

/// A job that this process works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobClaim {
    /// The job.
    pub id: String,
    /// The repository's name.
    pub repository: String,
}

/// The jobs of a metadata database, and nothing else of it. Clones share it.
#[derive(Debug, Clone)]
pub struct JobStore(MetadataStore);

impl MetadataStore {
    /// Its jobs, for who has nothing to do with the rest.
    pub fn job_store(&self) -> JobStore {
        JobStore(self.clone())
    }
}

impl JobStore {
    /// Makes a job of these files; it is on stable storage when this returns.
    ///
    /// # Errors
    /// The database does not take it.
    pub async fn create_job(
        &self,
        id: &str,
        repository: &str,
        paths: &[String],
        now: UnixMillis,
    ) -> Result<(), StorageError> {
        let made = async {
            let mut tx = self.0.db().begin(Durability::Durable).await?;
            tx.execute(INSERT, &[id.into(), repository.into(), now.0.into()])
                .await?;
            add(&mut tx, id, paths).await?;
            tx.commit().await
        };
        self.0.noticed(made.await.map_err(failed))
    }

    /// Up to `limit` jobs, the latest first, from before a job on.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn jobs(
        &self,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Vec<JobRow>, StorageError> {
        let values = [before.unwrap_or(LAST).into(), i64::from(limit).into()];
        let rows = self.0.db().all(PAGE, &values).await;
        let jobs = rows.and_then(|rows| rows.iter().map(job).collect());
        self.0.noticed(jobs.map_err(failed))
    }

    /// A job, with how far it has come.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn job(&self, id: &str) -> Result<Option<(JobRow, JobCounts)>, StorageError> {
        let found = async {
            let row = self.0.db().optional(ONE, &[id.into()]).await?;
            let Some(row) = row else { return Ok(None) };
            Ok(Some((job(&row)?, self.counted(id).await?)))
        };
        self.0.noticed(found.await.map_err(failed))
    }

    /// How far a job has come.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn job_counts(&self, id: &str) -> Result<JobCounts, StorageError> {
        self.0.noticed(self.counted(id).await.map_err(failed))
    }

    async fn counted(&self, id: &str) -> Result<JobCounts, DbError> {
        let mut counts = JobCounts::default();
        for row in self.0.db().all(COUNT, &[id.into()]).await? {
            let number = row.get::<i64>(1)?.unsigned_abs();
            match row.get::<String>(0)?.as_str() {
                "queued" => counts.queued = number,
                "running" => counts.running = number,
                "cached" => counts.cached = number,
                "skipped" => counts.skipped = number,
                _ => counts.failed += number,
            }
        }
        Ok(counts)
    }

    /// Up to `limit` files of a job, in the order of their paths, from behind a path on.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn job_items(
        &self,
        id: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<JobItem>, StorageError> {
        let values = [id.into(), after.into(), i64::from(limit).into()];
        let rows = self.0.db().all(ITEMS, &values).await;
        let items = rows.and_then(|rows| rows.iter().map(item).collect());
        self.0.noticed(items.map_err(failed))
    }

    /// Takes up the oldest job that has not ended, unless another process holds the lease of it. What was being fetched of it is to be
    /// fetched once more. A file is one process's own: whoever held a lease there is gone.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn claim_job(
        &self,
        runner: &str,
        now: UnixMillis,
        until: UnixMillis,
    ) -> Result<Option<JobClaim>, StorageError> {
        let claimed = self.try_to_claim(runner, now, until).await;
        self.0.noticed(claimed.map_err(failed))
    }

    async fn try_to_claim(
        &self,
        runner: &str,
        now: UnixMillis,
        until: UnixMillis,
    ) -> Result<Option<JobClaim>, DbError> {
        let is_own = self.0.db().is_file();
        let is_free = |holder: &str, lease: i64| is_own || holder == runner || lease <= now.0;
        let Some(oldest) = self.0.db().optional(OLDEST, &[]).await? else {
            return Ok(None);
        };
        if !is_free(&oldest.get::<String>(2)?, oldest.get(3)?) {
            return Ok(None);
        }
        let id: String = oldest.get(0)?;
        let mut tx = self.0.db().begin(Durability::Grouped).await?;
        let row = tx.optional(LOCK, &[(&*id).into()]).await?;
        let Some(row) = row else { return Ok(None) };
        if !is_free(&row.get::<String>(1)?, row.get(2)?) {
            return Ok(None);
        }
        let repository = row.get(0)?;
        tx.execute(TAKE, &[(&*id).into(), runner.into(), until.0.into()])
            .await?;
        tx.execute(BEGIN_AGAIN, &[(&*id).into()]).await?;
        tx.commit().await?;
        Ok(Some(JobClaim { id, repository }))
    }

    /// Keeps the lease of a job until a later time; whether it is still this process's to work on.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn renew_job(
        &self,
        id: &str,
        runner: &str,
        until: UnixMillis,
    ) -> Result<bool, StorageError> {
        let values = [id.into(), runner.into(), until.0.into()];
        let renewed = self.0.db().execute(RENEW, &values).await;
        self.0.noticed(renewed.map(|rows| rows > 0).map_err(failed))
    }

    /// Up to `limit` files that are to be fetched next: they are being fetched from now on.
    ///
    /// # Errors
    /// The database does not take it.
    pub async fn begin_job_items(&self, id: &str, limit: u32) -> Result<Vec<String>, StorageError> {
        let begun = async {
            let mut tx = self.0.db().begin(Durability::Grouped).await?;
            let rows = tx.all(NEXT, &[id.into(), i64::from(limit).into()]).await?;
            let mut paths = Vec::with_capacity(rows.len());
            for row in rows {
                let path: String = row.get(0)?;
                if tx
                    .execute(BEGIN_ITEM, &[id.into(), (&*path).into()])
                    .await?
                    > 0
                {
                    paths.push(path);
                }
            }
            tx.commit().await?;
            Ok(paths)
        };
        self.0.noticed(begun.await.map_err(failed))
    }

    /// A file that was being fetched has come to its end; with it come `more`, which are to be fetched, too. If it is not being fetched
    /// any more, as after a cancellation, nothing changes.
    ///
    /// # Errors
    /// The database does not take it.
    pub async fn end_job_item(
        &self,
        id: &str,
        item: &JobItem,
        more: &[String],
    ) -> Result<(), StorageError> {
        let ended = async {
            let mut tx = self.0.db().begin(Durability::Grouped).await?;
            let values = [
                id.into(),
                (&*item.path).into(),
                (&*item.state).into(),
                i64::try_from(item.bytes).unwrap_or(i64::MAX).into(),
                (&*item.reason).into(),
            ];
            if tx.execute(END_ITEM, &values).await? > 0 {
                add(&mut tx, id, more).await?;
            }
            tx.commit().await
        };
        self.0.noticed(ended.await.map_err(failed))
    }

    /// A job that this process works on has ended; whether it was still this process's.
    ///
    /// # Errors
    /// The database does not take it.
    pub async fn end_job(
        &self,
        id: &str,
        runner: &str,
        (state, reason): (&str, &str),
        now: UnixMillis,
    ) -> Result<bool, StorageError> {
        let values = [
            id.into(),
            runner.into(),
            state.into(),
            reason.into(),
            now.0.into(),
        ];
        let ended = async {
            let mut tx = self.0.db().begin(Durability::Grouped).await?;
            let ended = tx.execute(END, &values).await? > 0;
            if ended {
                tx.execute(SKIP, &[id.into(), reason.into()]).await?;
            }
            tx.commit().await?;
            Ok(ended)
        };
        self.0.noticed(ended.await.map_err(failed))
    }

    /// Cancels a job: what is not fetched yet is skipped. Whether it had not ended before.
    ///
    /// # Errors
    /// The database does not take it.
    pub async fn cancel_job(&self, id: &str, now: UnixMillis) -> Result<bool, StorageError> {
        let cancelled = async {
            let mut tx = self.0.db().begin(Durability::Durable).await?;
            let cancelled = tx.execute(CANCEL, &[id.into(), now.0.into()]).await? > 0;
            if cancelled {
                tx.execute(SKIP, &[id.into(), "cancelled".into()]).await?;
            }
            tx.commit().await?;
            Ok(cancelled)
        };
        self.0.noticed(cancelled.await.map_err(failed))
    }

    /// Deletes up to `most` jobs that ended before a time.
    ///
    /// # Errors
    /// The database does not take it.
    pub async fn forget_jobs(&self, before: UnixMillis, most: u32) -> Result<(), StorageError> {
        let forgotten = async {
            let values = [before.0.into(), i64::from(most).into()];
            for row in self.0.db().all(ENDED, &values).await? {
                let id: String = row.get(0)?;
                let mut tx = self.0.db().begin(Durability::Grouped).await?;
                tx.execute(DELETE_ITEMS, &[(&*id).into()]).await?;
                tx.execute(DELETE, &[(&*id).into()]).await?;
                tx.commit().await?;
            }
            Ok(())
        };
        self.0.noticed(forgotten.await.map_err(failed))
    }
}

async fn add(tx: &mut Tx, id: &str, paths: &[String]) -> Result<(), DbError> {
    for some in paths.chunks(AT_ONCE) {
        let list = serde_json::Value::from(some).to_string();
        tx.execute(ADD_ITEMS, &[id.into(), list.into()]).await?;
    }
    Ok(())
}

fn job(row: &Row) -> Result<JobRow, DbError> {
    Ok(JobRow {
        id: row.get(0)?,
        repository: row.get(1)?,
        state: row.get(2)?,
        reason: row.get(3)?,
        created_at: UnixMillis(row.get(4)?),
        ended_at: row.get::<Option<i64>>(5)?.map(UnixMillis),
    })
}

fn item(row: &Row) -> Result<JobItem, DbError> {
    Ok(JobItem {
        path: row.get(0)?,
        state: row.get(1)?,
        bytes: row.get::<i64>(2)?.unsigned_abs(),
        reason: row.get(3)?,
    })
}

fn failed(error: DbError) -> StorageError {
    StorageError::from_sql("keep jobs", error)
}
