//! What was uploaded to local repositories: one row for each file, and the sum of each repository.
//!
//! Every change is decided inside the transaction that makes it, from the row as it is at that moment, and is on stable storage when
//! the call returns. Rows that are damaged are errors here and never count as absent: nobody else has them.

use std::time::Duration;

use larder_core::{BlobDescriptor, Clock, RepositoryName, StoredHeaders, UnixMillis};
use serde::{Deserialize, Serialize};

use super::change::put_blob;
use super::db::{DbError, Row, Sql, locking};
use super::feed::{self, Notice, Writer};
use super::patience::{Obstacle, Patience};
use super::seal::{Unsealed, seal, unseal};
use super::{Durability, MetadataStore, Tx, parse_digest};
use crate::blob::BlobInfo;
use crate::error::{StorageError, StorageErrorKind};

const GET: &str = "SELECT path, blob, size, uploaded_at, headers FROM local_files WHERE repository = $1 AND path = $2";
const PUT: &str = "INSERT INTO local_files (repository, path, blob, size, uploaded_at, headers) VALUES ($1, $2, $3, $4, $5, $6) \
     ON CONFLICT (repository, path) DO UPDATE SET blob = excluded.blob, size = excluded.size, \
     uploaded_at = excluded.uploaded_at, headers = excluded.headers";
const DELETE: &str = "DELETE FROM local_files WHERE repository = $1 AND path = $2";
const USAGE: &str = "SELECT files, bytes FROM local_usage WHERE repository = $1";
/// Whoever changes a file of a repository has the row of its sums to itself: who is first and what the quota leaves is decided by one
/// after the other.
const LOCK_USAGE: Sql = locking!("SELECT files, bytes FROM local_usage WHERE repository = $1");
const BEGIN_USAGE: &str = "INSERT INTO local_usage (repository, files, bytes) VALUES ($1, 0, 0) ON CONFLICT (repository) DO NOTHING";
const ADD_USAGE: &str = "INSERT INTO local_usage (repository, files, bytes) VALUES ($1, $2, $3) \
     ON CONFLICT (repository) DO UPDATE SET files = local_usage.files + excluded.files, bytes = local_usage.bytes + excluded.bytes";
const WRITE: &str = "write what was uploaded";

/// A file of a local repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalFile {
    /// Its bytes.
    pub blob: BlobDescriptor,
    /// What the upload said of them.
    pub headers: StoredHeaders,
    /// When these bytes were uploaded, be it to another larder.
    pub uploaded_at: UnixMillis,
    /// When they took their place here, in the order of what is written under a path. Whatever a change says: the transaction that makes
    /// it takes the moment.
    pub written_at: UnixMillis,
}

/// The column `headers` of a row.
#[derive(Serialize, Deserialize)]
struct Kept<H> {
    #[serde(flatten)]
    headers: H,
    /// Not there in rows of before: then the time of the upload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written_at: Option<UnixMillis>,
}

/// How much a local repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LocalUsage {
    /// Files.
    pub files: u64,
    /// Bytes of all files; those that two files share count twice.
    pub bytes: u64,
}

/// What there is before a change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalState {
    /// Whether there is a file under the path.
    pub exists: bool,
    /// The file; `None` if there is none, or if its row is damaged.
    pub file: Option<LocalFile>,
    /// How much the repository holds, that file included.
    pub usage: LocalUsage,
    /// The bytes of that file, as they are counted in `usage`.
    pub size: u64,
}

/// A change of one file.
#[derive(Debug, Clone, Copy)]
pub enum LocalChange<'a> {
    /// These bytes take the place of what is there.
    Put {
        /// What is to be remembered of them.
        file: &'a LocalFile,
        /// Their blob, just published.
        blob: &'a BlobInfo,
        /// What says when.
        clock: &'a dyn Clock,
    },
    /// The file goes.
    Delete,
}

/// What a rule says of a change, from what is there.
#[derive(Debug)]
pub enum LocalDecision<R> {
    /// It is made.
    Change,
    /// There is nothing to do: it is as it should be already.
    Keep,
    /// It may not be made.
    Refuse(R),
}

/// What became of a change.
#[derive(Debug)]
pub enum LocalOutcome<R> {
    /// It was made, durably; what was there before.
    Changed(LocalState),
    /// Nothing was to be done; what is there.
    Kept(LocalState),
    /// It was refused, and nothing has changed.
    Refused(R),
}

/// A row as it is read: path, blob, size, time of the upload, headers.
pub(super) type FileRow = (String, String, i64, i64, String);

/// Reads such a row.
pub(super) fn file_row(row: &Row) -> Result<FileRow, DbError> {
    Ok((
        row.get(0)?,
        row.get(1)?,
        row.get(2)?,
        row.get(3)?,
        row.get(4)?,
    ))
}

impl MetadataStore {
    /// The file under a path.
    ///
    /// # Errors
    /// `Corrupt` if its row is damaged; as every statement, if the database fails.
    pub async fn local_file(
        &self,
        repository: &RepositoryName,
        path: &str,
    ) -> Result<Option<LocalFile>, StorageError> {
        let values = [repository.as_str().into(), path.into()];
        let row = self.db().optional(GET, &values).await;
        let row = row.and_then(|row| row.as_ref().map(file_row).transpose());
        let row = row.map_err(|error| StorageError::from_sql("find an uploaded file", error));
        let Some(row) = self.noticed(row)? else {
            return Ok(None);
        };
        let (path, file) = self.local_row(repository, row);
        file.map(Some).ok_or_else(|| damaged(&path))
    }

    /// What there is under a path, and in the repository: what a change would be decided from at this moment.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn local_state(
        &self,
        repository: &RepositoryName,
        path: &str,
    ) -> Result<LocalState, StorageError> {
        let looked = async {
            let failed = |error| StorageError::from_sql("look for an uploaded file", error);
            let values = [repository.as_str().into(), path.into()];
            let row = self.db().optional(GET, &values).await.map_err(failed)?;
            let values = [repository.as_str().into()];
            let usage = self.db().optional(USAGE, &values).await.map_err(failed)?;
            self.state(repository, row.as_ref(), usage.as_ref())
                .map_err(failed)
        };
        self.noticed(looked.await)
    }

    /// Changes one file as `decide` says of what is there, in one transaction that is on stable storage when this returns.
    /// `decide` is asked again where the first try found no space.
    ///
    /// # Errors
    /// `Full` where there is no space for it, and whatever else makes the database fail. Nothing has changed then, unless the
    /// failure came while the commit was being written.
    pub async fn change_local_file<R>(
        &self,
        repository: &RepositoryName,
        path: &str,
        change: LocalChange<'_>,
        decide: impl Fn(&LocalState) -> LocalDecision<R>,
    ) -> Result<LocalOutcome<R>, StorageError> {
        let mut result = self.change(repository, path, change, &decide).await;
        if result.as_ref().is_err_and(StorageError::is_full) {
            // The write-ahead log may be what takes up the space; and what deletes may use what was set aside for that.
            let _ = self.db().empty_log().await;
            result = self.change(repository, path, change, &decide).await;
            if result.as_ref().is_err_and(StorageError::is_full)
                && matches!(change, LocalChange::Delete)
                && self.give_back_spare_space()
            {
                result = self.change(repository, path, change, &decide).await;
                let _ = self.db().empty_log().await;
            }
        }
        self.noticed(result)
    }

    async fn change<R>(
        &self,
        repository: &RepositoryName,
        path: &str,
        change: LocalChange<'_>,
        decide: impl Fn(&LocalState) -> LocalDecision<R>,
    ) -> Result<LocalOutcome<R>, StorageError> {
        let mut patience = Patience::default();
        loop {
            match self.try_to_change(repository, path, change, &decide).await {
                Ok(outcome) => return Ok(outcome),
                Err(obstacle) => patience.after(obstacle, WRITE).await?,
            }
        }
    }

    async fn try_to_change<'c, R>(
        &self,
        repository: &RepositoryName,
        path: &str,
        change: LocalChange<'c>,
        decide: impl Fn(&LocalState) -> LocalDecision<R>,
    ) -> Result<LocalOutcome<R>, Obstacle<'c>> {
        let failed = |error| Obstacle::of(WRITE, error);
        let mut tx = self.db().begin(Durability::Durable).await.map_err(failed)?;
        let decided = self
            .decide(&mut tx, repository, path, change, &decide)
            .await;
        if !matches!(decided, Ok(LocalOutcome::Changed(_))) {
            tx.rollback().await;
            return decided;
        }
        // The writer that nobody is: whoever shares the database hears of it, also if this process ends before it can tell.
        let told = [Notice::Superseded(repository.clone())];
        let notices = if self.is_shared() {
            feed::noting(Writer::unique(), &told)
        } else {
            Vec::new()
        };
        tx.commit_with(&notices).await.map_err(failed)?;
        decided
    }

    async fn decide<'c, R>(
        &self,
        tx: &mut Tx,
        repository: &RepositoryName,
        path: &str,
        change: LocalChange<'c>,
        decide: impl Fn(&LocalState) -> LocalDecision<R>,
    ) -> Result<LocalOutcome<R>, Obstacle<'c>> {
        let failed = |error| Obstacle::of(WRITE, error);
        let of_repository = [repository.as_str().into()];
        let mut usage = tx.optional(LOCK_USAGE, &of_repository).await;
        if matches!(usage, Ok(None)) {
            tx.execute(BEGIN_USAGE, &of_repository)
                .await
                .map_err(failed)?;
            usage = tx.optional(LOCK_USAGE, &of_repository).await;
        }
        let usage = usage.map_err(failed)?;
        let values = [repository.as_str().into(), path.into()];
        let row = tx.optional(GET, &values).await.map_err(failed)?;
        let state = self
            .state(repository, row.as_ref(), usage.as_ref())
            .map_err(failed)?;
        match decide(&state) {
            LocalDecision::Refuse(why) => Ok(LocalOutcome::Refused(why)),
            LocalDecision::Keep => Ok(LocalOutcome::Kept(state)),
            LocalDecision::Change => {
                write(tx, repository, path, change, &state).await?;
                Ok(LocalOutcome::Changed(state))
            }
        }
    }

    fn state(
        &self,
        repository: &RepositoryName,
        row: Option<&Row>,
        usage: Option<&Row>,
    ) -> Result<LocalState, DbError> {
        let row = row.map(file_row).transpose()?;
        let usage = match usage {
            None => LocalUsage::default(),
            Some(usage) => LocalUsage {
                files: usage.get::<i64>(0)?.max(0).unsigned_abs(),
                bytes: usage.get::<i64>(1)?.max(0).unsigned_abs(),
            },
        };
        let size = row.as_ref().map_or(0, |row| row.2.max(0).unsigned_abs());
        Ok(LocalState {
            exists: row.is_some(),
            file: row.and_then(|row| self.local_row(repository, row).1),
            usage,
            size,
        })
    }

    /// A row's path, and its file unless the row is damaged.
    pub(super) fn local_row(
        &self,
        repository: &RepositoryName,
        (path, blob, size, uploaded_at, headers): FileRow,
    ) -> (String, Option<LocalFile>) {
        let key = row_key(repository, &path, &blob, size, uploaded_at);
        let kept: Option<Kept<StoredHeaders>> =
            match unseal(&key.each_ref().map(String::as_str), &headers) {
                Unsealed::Intact(text) => serde_json::from_str(text).ok(),
                Unsealed::Bare(_) | Unsealed::Damaged => None,
            };
        let uploaded_at = UnixMillis(uploaded_at);
        let file = kept
            .zip(parse_digest(&blob).ok())
            .map(|(kept, digest)| LocalFile {
                blob: BlobDescriptor {
                    digest,
                    size: size.unsigned_abs(),
                },
                headers: kept.headers,
                uploaded_at,
                written_at: kept.written_at.unwrap_or(uploaded_at),
            });
        if file.is_none() {
            self.shared.damage.note_row("uploaded file", &path);
        }
        (path, file)
    }
}

async fn write<'c>(
    tx: &mut Tx,
    repository: &RepositoryName,
    path: &str,
    change: LocalChange<'c>,
    before: &LocalState,
) -> Result<(), Obstacle<'c>> {
    let failed = |error| Obstacle::of(WRITE, error);
    let (mut files, mut bytes) = (-i64::from(before.exists), -(before.size as i64));
    match change {
        LocalChange::Put { file, blob, clock } => {
            put_blob(tx, blob).await?;
            let replaced = before.file.as_ref().map(|before| before.written_at);
            let kept = Kept {
                headers: &file.headers,
                written_at: Some(moment(clock.now(), replaced)),
            };
            let (digest, size) = (file.blob.digest.to_string(), file.blob.size as i64);
            let key = row_key(repository, path, &digest, size, file.uploaded_at.0);
            let text = serde_json::to_string(&kept).map_err(|error| StorageError {
                kind: StorageErrorKind::Io,
                message: "cannot write what was uploaded".to_owned(),
                source: Some(Box::new(error)),
            })?;
            let sealed = seal(&key.each_ref().map(String::as_str), &text);
            let values = [
                repository.as_str().into(),
                path.into(),
                digest.into(),
                size.into(),
                file.uploaded_at.0.into(),
                sealed.into(),
            ];
            tx.execute(PUT, &values).await.map_err(failed)?;
            files += 1;
            bytes += size;
        }
        LocalChange::Delete => {
            let values = [repository.as_str().into(), path.into()];
            tx.execute(DELETE, &values).await.map_err(failed)?;
        }
    }
    let values = [repository.as_str().into(), files.into(), bytes.into()];
    tx.execute(ADD_USAGE, &values).await.map_err(failed)?;
    Ok(())
}

/// When a change counts as made: never before what it replaces, whatever the clocks of two replicas say. Where a clock has been set back,
/// what is there may have been told with its date already, and dates of HTTP have seconds: then it is the next one.
fn moment(now: UnixMillis, replaced: Option<UnixMillis>) -> UnixMillis {
    match replaced {
        Some(before) if before.since(now) >= Duration::from_secs(1) => {
            UnixMillis((before.0.div_euclid(1000) + 1).saturating_mul(1000))
        }
        Some(before) if before >= now => UnixMillis(before.0 + 1),
        _ => now,
    }
}

/// What a row's seal covers beside its headers.
fn row_key(
    repository: &RepositoryName,
    path: &str,
    digest: &str,
    size: i64,
    uploaded_at: i64,
) -> [String; 5] {
    [
        repository.to_string(),
        path.to_owned(),
        digest.to_owned(),
        size.to_string(),
        uploaded_at.to_string(),
    ]
}

fn damaged(path: &str) -> StorageError {
    tracing::error!(path, "an uploaded file's row is damaged");
    StorageError::new(
        StorageErrorKind::Corrupt,
        "the row of an uploaded file is damaged",
    )
}
