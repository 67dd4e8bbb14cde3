//! Changes, applied together or not at all.

use std::time::Duration;

use larder_core::{ArtifactRecord, BlobDescriptor, Digest, RepositoryName, SourceKey, UnixMillis};

use super::{Durability, MetadataStore, Tx, artifacts, blobs, derivations};
use crate::blob::BlobInfo;
use crate::error::{StorageError, StorageErrorKind};

/// Deletions that are written together where there is no space.
const FEW: usize = 20;
/// How often a transaction is tried again for the sake of a blob that is being deleted, and the pause before each.
const TRIES: usize = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// Why a transaction did not come about.
enum Obstacle<'a> {
    Failed(StorageError),
    /// A blob's file is being deleted.
    Condemned,
    /// Another store has deleted it.
    Missing(&'a BlobInfo),
}

impl From<StorageError> for Obstacle<'_> {
    fn from(error: StorageError) -> Self {
        Self::Failed(error)
    }
}

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
    ///
    /// # Errors
    /// `Full` where there is no space, `Unavailable` and `Corrupt` where the database does not answer.
    pub async fn apply(&self, changes: Vec<Change>) -> Result<(), StorageError> {
        self.apply_with(changes, Durability::Grouped).await
    }

    /// As [`apply`](Self::apply), with what is promised when it returns. [`Durability::Durable`] costs one synchronisation of the
    /// write-ahead log.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub async fn apply_with(
        &self,
        changes: Vec<Change>,
        durability: Durability,
    ) -> Result<(), StorageError> {
        if changes.is_empty() {
            return Ok(());
        }
        let result = self.apply_with_little_space(&changes, durability).await;
        self.noticed(result)
        // The pins in `changes` go here, after the commit.
    }

    async fn apply_with_little_space(
        &self,
        changes: &[Change],
        durability: Durability,
    ) -> Result<(), StorageError> {
        match self.apply_all(changes, durability).await {
            Err(error) if error.is_full() => {
                // The write-ahead log may be what takes up the space: write it back, cut it off, and try once more.
                let written_back = self.db().empty_log().await;
                match written_back {
                    Ok(()) => match self.apply_all(changes, durability).await {
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
            self.apply_all(few, Durability::Grouped).await?;
            let written_back = self.db().empty_log().await;
            written_back
                .map_err(|error| StorageError::from_sql("write to the metadata database", error))?;
        }
        Ok(())
    }

    async fn apply_all(
        &self,
        changes: &[Change],
        durability: Durability,
    ) -> Result<(), StorageError> {
        for _ in 0..TRIES {
            match self.try_to_apply(changes, durability).await {
                Ok(()) => return Ok(()),
                Err(Obstacle::Failed(error)) => return Err(error),
                Err(Obstacle::Condemned) => tokio::time::sleep(PAUSE).await,
                Err(Obstacle::Missing(info)) => put_back(info).await?,
            }
        }
        Err(StorageError::new(
            StorageErrorKind::Unavailable,
            "cannot write to the metadata database: a blob that is to be kept is being deleted",
        ))
    }

    async fn try_to_apply<'a>(
        &self,
        changes: &'a [Change],
        durability: Durability,
    ) -> Result<(), Obstacle<'a>> {
        let failed = |error| StorageError::from_sql("write to the metadata database", error);
        let mut tx = self.db().begin(durability).await.map_err(failed)?;
        for change in changes {
            apply_one(&mut tx, change).await?;
        }
        Ok(tx.commit().await.map_err(failed)?)
    }
}

async fn apply_one<'a>(tx: &mut Tx, change: &'a Change) -> Result<(), Obstacle<'a>> {
    match change {
        Change::PutRecord { key, record, blob } => {
            if let Some(info) = blob {
                put_blob(tx, info).await?;
            }
            if let Some(held) = record.blob()
                && blob.as_ref().is_none_or(|info| info.descriptor != *held)
                && !keep_blob(tx, &held.digest).await?
            {
                tracing::warn!(%key, blob = %held.digest, "a record was not renewed: it and its blob have been removed meanwhile");
                return Ok(());
            }
            artifacts::put(tx, key, record).await?;
        }
        Change::DeleteRecord { key } => artifacts::delete(tx, key).await?,
        Change::PutDerivation {
            key,
            repository,
            sources,
            derived,
            blob,
        } => {
            put_blob(tx, blob).await?;
            derivations::put(tx, key, repository, sources, derived).await?;
        }
        Change::DeleteDerivation { key } => derivations::delete(tx, key).await?,
    }
    Ok(())
}

async fn put_blob<'a>(tx: &mut Tx, info: &'a BlobInfo) -> Result<(), Obstacle<'a>> {
    let put = blobs::put(tx, info).await;
    match put.map_err(|e| StorageError::from_sql("write a blob's row", e))? {
        blobs::Put::Held => Ok(()),
        blobs::Put::Condemned => Err(Obstacle::Condemned),
        blobs::Put::Missing => Err(Obstacle::Missing(info)),
    }
}

async fn keep_blob(tx: &mut Tx, digest: &Digest) -> Result<bool, StorageError> {
    let kept = blobs::keep(tx, digest).await;
    kept.map_err(|e| StorageError::from_sql("write a blob's row", e))
}

/// Publishes a blob again, of which another store has deleted the file.
async fn put_back(info: &BlobInfo) -> Result<(), StorageError> {
    let Some(pin) = info.pin.clone() else {
        return Ok(());
    };
    let done = tokio::task::spawn_blocking(move || pin.put_back()).await;
    done.unwrap_or_else(|error| {
        Err(StorageError {
            kind: StorageErrorKind::Unavailable,
            message: "cannot publish a blob again: the work was broken off".to_owned(),
            source: Some(Box::new(error)),
        })
    })
}
