//! Changes, applied together or not at all.

use larder_core::{ArtifactRecord, BlobDescriptor, Digest, RepositoryName, SourceKey, UnixMillis};
use sqlx::sqlite::SqliteConnection;

use super::feed::{self, Notice, Writer};
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
    /// A change of a record that happens only if what is known of its source is still what the change was made from. Else it is left
    /// out, and the [`Receipt`] names it.
    If {
        /// What has to be known.
        expected: Expected,
        /// A [`PutRecord`](Self::PutRecord) or [`DeleteRecord`](Self::DeleteRecord).
        change: Box<Change>,
    },
}

/// What a change of a record replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// A record with one of these bytes, or one without bytes; not that there is none. What is said of bytes that are held must bring
    /// back neither those of before nor what was flushed.
    Bytes(Vec<Digest>),
    /// Anything but bytes that were heard of later than `heard_of`, unless they are among `but`.
    NotLater {
        /// When the upstream said so.
        heard_of: UnixMillis,
        /// Bytes that may be replaced in any case.
        but: Vec<Digest>,
    },
}

/// What became of changes that depended on what was known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Records that were left as they are, because they were not as expected.
    pub left: Vec<SourceKey>,
}

impl Change {
    /// The record that is changed, and the bytes that it has afterwards.
    fn record(&self) -> Option<(&SourceKey, Option<&Digest>)> {
        match self {
            Self::PutRecord { key, record, .. } => {
                Some((key, record.blob().map(|blob| &blob.digest)))
            }
            Self::DeleteRecord { key } => Some((key, None)),
            Self::If { change, .. } => change.record(),
            Self::PutDerivation { .. } | Self::DeleteDerivation { .. } => None,
        }
    }

    /// Whether it frees space and needs none.
    fn only_deletes(&self) -> bool {
        match self {
            Self::DeleteRecord { .. } | Self::DeleteDerivation { .. } => true,
            Self::If { change, .. } => change.only_deletes(),
            Self::PutRecord { .. } | Self::PutDerivation { .. } => false,
        }
    }
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
    /// The database does not take them.
    pub async fn apply(&self, changes: Vec<Change>) -> Result<(), StorageError> {
        self.apply_by(Writer::unique(), changes, Vec::new())
            .await
            .map(drop)
    }

    /// The same for a user who hears what others change, with what the changes themselves do not tell the others.
    ///
    /// # Errors
    /// The database does not take them.
    pub async fn apply_by(
        &self,
        writer: Writer,
        changes: Vec<Change>,
        notices: Vec<Notice>,
    ) -> Result<Receipt, StorageError> {
        if changes.is_empty() && notices.is_empty() {
            return Ok(Receipt::default());
        }
        let told = Told { writer, notices };
        let result = self.apply_with_little_space(&changes, &told).await;
        let receipt = self.noticed(result)?;
        self.tell(writer, || told.about(&changes, &receipt));
        Ok(receipt)
        // The pins in `changes` go here, after the commit.
    }

    async fn apply_with_little_space(
        &self,
        changes: &[Change],
        told: &Told,
    ) -> Result<Receipt, StorageError> {
        match self.apply_all(changes, told).await {
            Err(error) if error.is_full() => {
                // The write-ahead log may be what takes up the space: write it back, cut it off, and try once more.
                let written_back = sqlx::query(EMPTY_LOG).execute(&self.writer()).await;
                match written_back {
                    Ok(_) => match self.apply_all(changes, told).await {
                        Err(error) if error.is_full() => {
                            self.delete_on_a_full_disk(changes, told, error).await
                        }
                        other => other,
                    },
                    Err(_) => self.delete_on_a_full_disk(changes, told, error).await,
                }
            }
            other => other,
        }
    }

    /// What frees space is done with the space that was set aside for it, a few rows at a time so that it suffices.
    async fn delete_on_a_full_disk(
        &self,
        changes: &[Change],
        told: &Told,
        error: StorageError,
    ) -> Result<Receipt, StorageError> {
        if !changes.iter().all(Change::only_deletes) || !self.give_back_spare_space() {
            return Err(error);
        }
        let mut receipt = Receipt::default();
        for few in changes.chunks(FEW) {
            receipt.left.extend(self.apply_all(few, told).await?.left);
            let written_back = sqlx::query(EMPTY_LOG).execute(&self.writer()).await;
            written_back
                .map_err(|error| StorageError::from_sql("write to the metadata database", error))?;
        }
        Ok(receipt)
    }

    async fn apply_all(&self, changes: &[Change], told: &Told) -> Result<Receipt, StorageError> {
        let failed = |error| StorageError::from_sql("write to the metadata database", error);
        let mut transaction = self.begin().await.map_err(failed)?;
        let mut receipt = Receipt::default();
        for change in changes {
            self.apply_one(&mut transaction, change, &mut receipt)
                .await?;
        }
        if self.is_shared() {
            let notices = told.about(changes, &receipt);
            feed::note(&mut transaction, told.writer, &notices).await?;
        }
        transaction.commit().await.map_err(failed)?;
        Ok(receipt)
    }

    async fn apply_one(
        &self,
        connection: &mut SqliteConnection,
        change: &Change,
        receipt: &mut Receipt,
    ) -> Result<(), StorageError> {
        let Change::If { expected, change } = change else {
            return apply_one(connection, change).await;
        };
        if let Some((key, _)) = change.record()
            && !expected.allows(self.present(connection, key).await?.as_ref())
        {
            tracing::debug!(%key, "a record is left as it is: it has changed meanwhile");
            receipt.left.push(key.clone());
            return Ok(());
        }
        apply_one(connection, change).await
    }

    /// The row of a record, in the transaction that is to change it. One that cannot be read counts as absent.
    async fn present(
        &self,
        connection: &mut SqliteConnection,
        key: &SourceKey,
    ) -> Result<Option<ArtifactRecord>, StorageError> {
        artifacts::present(connection, &self.shared.damage, key).await
    }
}

impl Expected {
    fn allows(&self, present: Option<&ArtifactRecord>) -> bool {
        let Some(present) = present else {
            return matches!(self, Self::NotLater { .. });
        };
        let Some(blob) = present.blob() else {
            return true;
        };
        match self {
            Self::Bytes(expected) => expected.contains(&blob.digest),
            Self::NotLater { heard_of, but } => {
                present.contacted_at <= *heard_of || but.contains(&blob.digest)
            }
        }
    }
}

/// What the other users are told along with changes.
struct Told {
    writer: Writer,
    notices: Vec<Notice>,
}

impl Told {
    fn about(&self, changes: &[Change], receipt: &Receipt) -> Vec<Notice> {
        let records = changes.iter().filter_map(Change::record);
        let changed = records.filter(|(key, _)| !receipt.left.contains(key));
        changed
            .map(|(key, blob)| Notice::Record {
                key: key.clone(),
                blob: blob.cloned(),
            })
            .chain(self.notices.iter().cloned())
            .collect()
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
        // One condition is enough; it was looked at where this one was taken out of it.
        Change::If { change, .. } => Box::pin(apply_one(connection, change)).await,
    }
}

async fn put_blob(connection: &mut SqliteConnection, info: &BlobInfo) -> Result<(), StorageError> {
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
