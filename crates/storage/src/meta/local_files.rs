//! What was uploaded to local repositories: one row for each file, and the sum of each repository.
//!
//! Every change is decided inside the transaction that makes it, from the row as it is at that moment, and is on stable storage when
//! the call returns. Rows that are damaged are errors here and never count as absent: nobody else has them.

use larder_core::{BlobDescriptor, RepositoryName, StoredHeaders, UnixMillis};
use sqlx::Connection as _;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{Sqlite, SqliteConnection};

use super::change::put_blob;
use super::seal::{Unsealed, seal, unseal};
use super::{BEGIN, MetadataStore, parse_digest};
use crate::blob::BlobInfo;
use crate::error::{StorageError, StorageErrorKind};

const GET: &str = "SELECT path, blob, size, uploaded_at, headers FROM local_files WHERE repository = $1 AND path = $2";
const PUT: &str = "INSERT INTO local_files (repository, path, blob, size, uploaded_at, headers) VALUES ($1, $2, $3, $4, $5, $6) \
     ON CONFLICT (repository, path) DO UPDATE SET blob = excluded.blob, size = excluded.size, \
     uploaded_at = excluded.uploaded_at, headers = excluded.headers";
const DELETE: &str = "DELETE FROM local_files WHERE repository = $1 AND path = $2";
const USAGE: &str = "SELECT files, bytes FROM local_usage WHERE repository = $1";
const ADD_USAGE: &str = "INSERT INTO local_usage (repository, files, bytes) VALUES ($1, $2, $3) \
     ON CONFLICT (repository) DO UPDATE SET files = local_usage.files + excluded.files, bytes = local_usage.bytes + excluded.bytes";
/// Each commit synchronises the log (<https://www.sqlite.org/pragma.html#pragma_synchronous>). A setting of the connection.
const DURABLE: &str = "PRAGMA synchronous = FULL";
/// What all other transactions of the connection have.
const USUAL: &str = "PRAGMA synchronous = NORMAL";
const EMPTY_LOG: &str = "PRAGMA wal_checkpoint(TRUNCATE)";
/// A file of a local repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalFile {
    /// Its bytes.
    pub blob: BlobDescriptor,
    /// What the upload said of them.
    pub headers: StoredHeaders,
    /// When these bytes were uploaded.
    pub uploaded_at: UnixMillis,
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

pub(super) type Row = (String, String, i64, i64, String);

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
        let row: Result<Option<Row>, _> = sqlx::query_as(GET)
            .bind(repository.as_str())
            .bind(path)
            .fetch_optional(&self.reader())
            .await;
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
            let mut connection = self
                .reader()
                .acquire()
                .await
                .map_err(|error| StorageError::from_sql("look for an uploaded file", error))?;
            self.state(&mut connection, repository, path).await
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
            let _ = sqlx::query(EMPTY_LOG).execute(&self.writer()).await;
            result = self.change(repository, path, change, &decide).await;
            if result.as_ref().is_err_and(StorageError::is_full)
                && matches!(change, LocalChange::Delete)
                && self.give_back_spare_space()
            {
                result = self.change(repository, path, change, &decide).await;
                let _ = sqlx::query(EMPTY_LOG).execute(&self.writer()).await;
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
        let failed = |error| StorageError::from_sql("write what was uploaded", error);
        let mut connection = self.durable_writer().await.map_err(failed)?;
        let outcome = async {
            let mut transaction = match connection.begin_with(BEGIN).await {
                Err(sqlx::Error::InvalidSavePointStatement) => return Err(stuck()),
                other => other.map_err(failed)?,
            };
            let state = self.state(&mut transaction, repository, path).await?;
            let decision = match decide(&state) {
                LocalDecision::Refuse(why) => LocalOutcome::Refused(why),
                LocalDecision::Keep => LocalOutcome::Kept(state),
                LocalDecision::Change => {
                    write(&mut transaction, repository, path, change, &state).await?;
                    LocalOutcome::Changed(state)
                }
            };
            if matches!(decision, LocalOutcome::Changed(_)) {
                transaction.commit().await.map_err(failed)?;
            } else {
                transaction.rollback().await.map_err(failed)?;
            }
            Ok(decision)
        }
        .await;
        match &outcome {
            // On a full disk SQLite rolls back by itself, and sqlx goes on believing that a transaction is open.
            Err(error) if error.is_full() => connection.close().await.map_err(failed)?,
            _ => {
                let usual = sqlx::query(USUAL).execute(&mut *connection).await;
                usual.map_err(failed)?;
            }
        }
        outcome
    }

    /// The connection that writes, with every commit synchronised until it is told otherwise.
    async fn durable_writer(&self) -> Result<PoolConnection<Sqlite>, sqlx::Error> {
        let mut connection = self.writer().acquire().await?;
        sqlx::query(DURABLE).execute(&mut *connection).await?;
        Ok(connection)
    }

    async fn state(
        &self,
        connection: &mut SqliteConnection,
        repository: &RepositoryName,
        path: &str,
    ) -> Result<LocalState, StorageError> {
        let failed = |error| StorageError::from_sql("look for an uploaded file", error);
        let row: Option<Row> = sqlx::query_as(GET)
            .bind(repository.as_str())
            .bind(path)
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed)?;
        let usage: Option<(i64, i64)> = sqlx::query_as(USAGE)
            .bind(repository.as_str())
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed)?;
        let usage = usage.map_or_else(LocalUsage::default, |(files, bytes)| LocalUsage {
            files: files.max(0).unsigned_abs(),
            bytes: bytes.max(0).unsigned_abs(),
        });
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
        (path, blob, size, uploaded_at, headers): Row,
    ) -> (String, Option<LocalFile>) {
        let key = row_key(repository, &path, &blob, size, uploaded_at);
        let headers = match unseal(&key.each_ref().map(String::as_str), &headers) {
            Unsealed::Intact(text) => serde_json::from_str(text).ok(),
            Unsealed::Bare(_) | Unsealed::Damaged => None,
        };
        let file = headers
            .zip(parse_digest(&blob).ok())
            .map(|(headers, digest)| LocalFile {
                blob: BlobDescriptor {
                    digest,
                    size: size.unsigned_abs(),
                },
                headers,
                uploaded_at: UnixMillis(uploaded_at),
            });
        if file.is_none() {
            self.shared.damage.note_row("uploaded file", &path);
        }
        (path, file)
    }
}

async fn write(
    connection: &mut SqliteConnection,
    repository: &RepositoryName,
    path: &str,
    change: LocalChange<'_>,
    before: &LocalState,
) -> Result<(), StorageError> {
    let failed = |error| StorageError::from_sql("write what was uploaded", error);
    let (mut files, mut bytes) = (-i64::from(before.exists), -(before.size as i64));
    match change {
        LocalChange::Put { file, blob } => {
            put_blob(connection, blob).await?;
            let (digest, size) = (file.blob.digest.to_string(), file.blob.size as i64);
            let key = row_key(repository, path, &digest, size, file.uploaded_at.0);
            let text = serde_json::to_string(&file.headers).map_err(|error| StorageError {
                kind: StorageErrorKind::Io,
                message: "cannot write what was uploaded".to_owned(),
                source: Some(Box::new(error)),
            })?;
            sqlx::query(PUT)
                .bind(repository.as_str())
                .bind(path)
                .bind(&*digest)
                .bind(size)
                .bind(file.uploaded_at.0)
                .bind(seal(&key.each_ref().map(String::as_str), &text))
                .execute(&mut *connection)
                .await
                .map_err(failed)?;
            files += 1;
            bytes += size;
        }
        LocalChange::Delete => {
            sqlx::query(DELETE)
                .bind(repository.as_str())
                .bind(path)
                .execute(&mut *connection)
                .await
                .map_err(failed)?;
        }
    }
    sqlx::query(ADD_USAGE)
        .bind(repository.as_str())
        .bind(files)
        .bind(bytes)
        .execute(connection)
        .await
        .map_err(failed)?;
    Ok(())
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

/// sqlx believes that a transaction is open that SQLite has rolled back: the connection is made anew before the next try.
fn stuck() -> StorageError {
    StorageError::new(
        StorageErrorKind::Full,
        "cannot write what was uploaded: no space left for the metadata database",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of <https://www.sqlite.org/pragma.html#pragma_synchronous>: 1 is NORMAL, 2 is FULL.
    #[tokio::test]
    async fn hazard_l1_a_change_is_synchronised_and_what_others_write_is_not_slowed_down() {
        let directory = tempfile::tempdir().unwrap();
        let meta = MetadataStore::open(&directory.path().join("db"))
            .await
            .unwrap();
        let level = async |connection: &mut SqliteConnection| -> i64 {
            let level = sqlx::query_scalar("PRAGMA synchronous");
            level.fetch_one(connection).await.unwrap()
        };
        let mut durable = meta.durable_writer().await.unwrap();
        assert_eq!(level(&mut durable).await, 2);
        drop(durable);
        let name = RepositoryName::parse("a").unwrap();
        let done = meta
            .change_local_file(&name, "x", LocalChange::Delete, |_| {
                LocalDecision::<()>::Keep
            })
            .await;
        assert!(matches!(done, Ok(LocalOutcome::Kept(_))));
        let mut usual = meta.writer().acquire().await.unwrap();
        assert_eq!(level(&mut usual).await, 1);
    }
}
