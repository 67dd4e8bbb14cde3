//! Changes, applied together or not at all.

use larder_core::{ArtifactRecord, BlobDescriptor, Digest, RepositoryName, SourceKey, UnixMillis};
use sqlx::sqlite::SqliteConnection;

use super::{MetadataStore, artifacts, derivations};
use crate::blob::BlobInfo;
use crate::error::StorageError;

const EMPTY_LOG: &str = "PRAGMA wal_checkpoint(TRUNCATE)";
/// Deletions that are written together where there is no space.
const FEW: usize = 20;
const PUT_BLOB: &str = "INSERT INTO blobs (digest, size, modified_ns, delete_after) VALUES ($1, $2, $3, NULL) \
     ON CONFLICT (digest) DO UPDATE SET size = excluded.size, modified_ns = excluded.modified_ns, delete_after = NULL";
const KEEP_BLOB: &str = "UPDATE blobs SET delete_after = NULL WHERE digest = $1";

/// One change of what is remembered.
#[derive(Debug, Clone)]
pub enum Change {
    /// Remembers a document or file, in place of what was known of it.
    PutRecord {
        /// Of which source.
        key: SourceKey,
        /// What is known.
        record: ArtifactRecord,
        /// The blob just published, which stays undeletable until the change is applied; `None` when the record brings no new blob
        /// (a renewal, a negative answer). A renewal whose blob has meanwhile been collected is dropped: its record was deleted
        /// before, and a row without a blob must not be (hazard L2).
        blob: Option<BlobInfo>,
    },
    /// Forgets one.
    DeleteRecord {
        /// Which.
        key: SourceKey,
    },
    /// Remembers a derived document.
    PutDerivation {
        /// Hexadecimal representation key.
        key: String,
        /// Whose document it is.
        repository: RepositoryName,
        /// Digests of the documents it was derived from: it goes when one of them is no longer any record's.
        sources: Vec<Digest>,
        /// What was derived.
        derived: DerivedRecord,
        /// Its blob, just published.
        blob: BlobInfo,
    },
    /// Forgets one.
    DeleteDerivation {
        /// Hexadecimal representation key.
        key: String,
    },
}

/// A derived document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DerivedRecord {
    /// Its bytes.
    pub blob: BlobDescriptor,
    /// Its media type.
    pub content_type: String,
    /// When it was derived.
    pub made_at: UnixMillis,
}

impl MetadataStore {
    /// Applies all changes in their order, in one transaction. After an error nothing of them has happened; but where there is no
    /// space left and all of them only delete, they are applied a few at a time.
    pub async fn apply(&self, changes: Vec<Change>) -> Result<(), StorageError> {
        if changes.is_empty() {
            return Ok(());
        }
        let result = self.apply_with_little_space(&changes).await;
        self.noticed(result)
        // The pins in `changes` go here, after the commit.
    }

    async fn apply_with_little_space(&self, changes: &[Change]) -> Result<(), StorageError> {
        match self.apply_all(changes).await {
            Err(error) if error.is_full() => {
                // The write-ahead log may be what takes up the space: write it back, cut it off, and try once more.
                let written_back = sqlx::query(EMPTY_LOG).execute(&self.writer()).await;
                match written_back {
                    Ok(_) => match self.apply_all(changes).await {
                        Err(error) if error.is_full() => {
                            self.delete_on_a_full_disk(changes, error).await
                        }
                        other => other,
                    },
                    Err(_) => self.delete_on_a_full_disk(changes, error).await,
                }
            }
            other => other,
        }
    }

    /// What frees space is done with the space that was set aside for it, a few rows at a time so that it suffices.
    async fn delete_on_a_full_disk(
        &self,
        changes: &[Change],
        error: StorageError,
    ) -> Result<(), StorageError> {
        let only_deletes = |change: &Change| {
            matches!(
                change,
                Change::DeleteRecord { .. } | Change::DeleteDerivation { .. }
            )
        };
        if !changes.iter().all(only_deletes) || !self.give_back_spare_space() {
            return Err(error);
        }
        for few in changes.chunks(FEW) {
            self.apply_all(few).await?;
            let written_back = sqlx::query(EMPTY_LOG).execute(&self.writer()).await;
            written_back
                .map_err(|error| StorageError::from_sql("write to the metadata database", error))?;
        }
        Ok(())
    }

    async fn apply_all(&self, changes: &[Change]) -> Result<(), StorageError> {
        let failed = |error| StorageError::from_sql("write to the metadata database", error);
        let mut transaction = self.begin().await.map_err(failed)?;
        for change in changes {
            apply_one(&mut transaction, change).await?;
        }
        transaction.commit().await.map_err(failed)
    }
}

async fn apply_one(connection: &mut SqliteConnection, change: &Change) -> Result<(), StorageError> {
    match change {
        Change::PutRecord { key, record, blob } => {
            if let Some(info) = blob {
                put_blob(connection, info).await?;
            }
            if let Some(held) = record.blob()
                && blob.as_ref().is_none_or(|info| info.descriptor != *held)
                && !keep_blob(connection, &held.digest).await?
            {
                tracing::warn!(%key, blob = %held.digest, "a record was not renewed: it and its blob have been removed meanwhile");
                return Ok(());
            }
            artifacts::put(connection, key, record).await
        }
        Change::DeleteRecord { key } => artifacts::delete(connection, key).await,
        Change::PutDerivation {
            key,
            repository,
            sources,
            derived,
            blob,
        } => {
            put_blob(connection, blob).await?;
            derivations::put(connection, key, repository, sources, derived).await
        }
        Change::DeleteDerivation { key } => derivations::delete(connection, key).await,
    }
}

pub(super) async fn put_blob(
    connection: &mut SqliteConnection,
    info: &BlobInfo,
) -> Result<(), StorageError> {
    sqlx::query(PUT_BLOB)
        .bind(info.descriptor.digest.to_string())
        .bind(info.descriptor.size as i64)
        .bind(info.modified_ns)
        .execute(connection)
        .await
        .map_err(|e| StorageError::from_sql("write a blob's row", e))?;
    Ok(())
}

/// Takes a blob off the collector's list; `false` if it has no row.
async fn keep_blob(
    connection: &mut SqliteConnection,
    digest: &Digest,
) -> Result<bool, StorageError> {
    let kept = sqlx::query(KEEP_BLOB)
        .bind(digest.to_string())
        .execute(connection)
        .await;
    Ok(kept
        .map_err(|e| StorageError::from_sql("write a blob's row", e))?
        .rows_affected()
        > 0)
}
