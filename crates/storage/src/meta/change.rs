//! Changes, applied together or not at all.

use larder_core::{ArtifactRecord, BlobDescriptor, Digest, RepositoryName, SourceKey, UnixMillis};

use super::ages::{self, Age};
use super::feed::{self, Notice, Writer};
use super::invalid::{self, RecordKey};
use super::patience::{Obstacle, Patience};
use super::{Durability, MetadataStore, Tx, artifacts, blobs, derivations, uses};
use crate::blob::BlobInfo;
use crate::error::StorageError;

/// Deletions that are written together where there is no space.
const FEW: usize = 20;
const WRITE: &str = "write to the metadata database";

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
    /// Writes down when a record that is there expires.
    Expires {
        /// Which.
        key: SourceKey,
        /// When.
        at: UnixMillis,
    },
    /// Writes down how old a file is, apart from its record, which has just been written; left out with that.
    NoteAge {
        /// Which.
        key: SourceKey,
        /// How old.
        age: Age,
    },
    /// Forgets many of one repository. What nothing refers to any more then may be deleted at once
    /// ([`free_due`](MetadataStore::free_due)).
    DeleteRecords {
        /// Whose.
        repository: RepositoryName,
        /// Which.
        keys: Vec<RecordKey>,
    },
    /// As that, but their rows are deleted later, by [`MetadataStore::sweep_invalid`].
    InvalidateRecords {
        /// Whose.
        repository: RepositoryName,
        /// Which.
        keys: Vec<RecordKey>,
    },
    /// As that, of all that a repository has.
    InvalidateRepository {
        /// Whose.
        repository: RepositoryName,
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
            Self::Expires { .. }
            | Self::NoteAge { .. }
            | Self::DeleteRecords { .. }
            | Self::InvalidateRecords { .. }
            | Self::InvalidateRepository { .. }
            | Self::PutDerivation { .. }
            | Self::DeleteDerivation { .. } => None,
        }
    }

    /// The repository of which many records go.
    fn of_many(&self) -> Option<&RepositoryName> {
        match self {
            Self::DeleteRecords { repository, .. }
            | Self::InvalidateRecords { repository, .. }
            | Self::InvalidateRepository { repository } => Some(repository),
            _ => None,
        }
    }

    /// The same in parts that little space suffices for.
    fn in_parts(&self) -> Vec<Self> {
        match self {
            Self::DeleteRecords { repository, keys } => {
                let part = |keys: &[RecordKey]| Self::DeleteRecords {
                    repository: repository.clone(),
                    keys: keys.to_vec(),
                };
                keys.chunks(FEW).map(part).collect()
            }
            other => vec![other.clone()],
        }
    }

    /// Whether it frees space and needs none.
    fn only_deletes(&self) -> bool {
        match self {
            Self::DeleteRecord { .. }
            | Self::DeleteRecords { .. }
            | Self::InvalidateRecords { .. }
            | Self::InvalidateRepository { .. }
            | Self::DeleteDerivation { .. } => true,
            Self::If { change, .. } => change.only_deletes(),
            Self::PutRecord { .. }
            | Self::Expires { .. }
            | Self::NoteAge { .. }
            | Self::PutDerivation { .. } => false,
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
        let told = Told {
            writer: Writer::unique(),
            notices: Vec::new(),
            durability,
        };
        self.apply_told(changes, told).await.map(drop)
    }

    /// As [`apply`](Self::apply), for a user who hears what others change, with what the changes themselves do not tell the others.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub async fn apply_by(
        &self,
        writer: Writer,
        changes: Vec<Change>,
        notices: Vec<Notice>,
    ) -> Result<Receipt, StorageError> {
        let told = Told {
            writer,
            notices,
            durability: Durability::Grouped,
        };
        self.apply_told(changes, told).await
    }

    async fn apply_told(&self, changes: Vec<Change>, told: Told) -> Result<Receipt, StorageError> {
        if changes.is_empty() && told.notices.is_empty() {
            return Ok(Receipt::default());
        }
        let result = self.apply_with_little_space(&changes, &told).await;
        let receipt = self.noticed(result)?;
        self.tell(told.writer, || told.about(&changes, &receipt));
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
                let written_back = self.db().empty_log().await;
                match written_back {
                    Ok(()) => match self.apply_all(changes, told).await {
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
        let parts: Vec<Change> = changes.iter().flat_map(Change::in_parts).collect();
        let is_many = changes.iter().any(|change| change.of_many().is_some());
        for few in parts.chunks(if is_many { 1 } else { FEW }) {
            receipt.left.extend(self.apply_all(few, told).await?.left);
            let written_back = self.db().empty_log().await;
            written_back
                .map_err(|error| StorageError::from_sql("write to the metadata database", error))?;
        }
        Ok(receipt)
    }

    async fn apply_all(&self, changes: &[Change], told: &Told) -> Result<Receipt, StorageError> {
        let mut patience = Patience::default();
        loop {
            match self.try_to_apply(changes, told).await {
                Ok(receipt) => return Ok(receipt),
                Err(obstacle) => patience.after(obstacle, WRITE).await?,
            }
        }
    }

    async fn try_to_apply<'a>(
        &self,
        changes: &'a [Change],
        told: &Told,
    ) -> Result<Receipt, Obstacle<'a>> {
        let failed = |error| Obstacle::of(WRITE, error);
        let mut tx = self.db().begin(told.durability).await.map_err(failed)?;
        let mut receipt = Receipt::default();
        for change in changes {
            if let Err(obstacle) = self.apply_one(&mut tx, change, &mut receipt).await {
                tx.rollback().await;
                return Err(obstacle);
            }
        }
        let notices = if self.is_shared() {
            told.about(changes, &receipt)
        } else {
            Vec::new()
        };
        tx.commit_with(&feed::noting(told.writer, &notices))
            .await
            .map_err(failed)?;
        Ok(receipt)
    }

    async fn apply_one<'a>(
        &self,
        tx: &mut Tx,
        change: &'a Change,
        receipt: &mut Receipt,
    ) -> Result<(), Obstacle<'a>> {
        if let Change::NoteAge { key, .. } = change
            && receipt.left.contains(key)
        {
            return Ok(());
        }
        let Change::If { expected, change } = change else {
            return apply_one(tx, change, Before::Any).await;
        };
        let Some((key, _)) = change.record() else {
            return apply_one(tx, change, Before::Any).await;
        };
        // The row is locked: what is decided from it holds until the commit. That there is none cannot be locked.
        let present = artifacts::present(tx, &self.shared.damage, key).await;
        let present = present.map_err(|error| Obstacle::of("read a record", error))?;
        let before = if present.has_row {
            Before::Any
        } else {
            Before::Nothing
        };
        if !expected.allows(present.record.as_ref()) {
            tracing::debug!(%key, "a record is left as it is: it has changed meanwhile");
            receipt.left.push(key.clone());
            return Ok(());
        }
        apply_one(tx, change, before).await
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
    durability: Durability,
}

impl Told {
    fn about(&self, changes: &[Change], receipt: &Receipt) -> Vec<Notice> {
        let records = changes.iter().filter_map(Change::record);
        let changed = records.filter(|(key, _)| !receipt.left.contains(key));
        let many = changes.iter().filter_map(Change::of_many);
        let many = many.map(|repository| Notice::Records(repository.clone()));
        changed
            .map(|(key, blob)| Notice::Record {
                key: key.clone(),
                blob: blob.cloned(),
            })
            .chain(many)
            .chain(self.notices.iter().cloned())
            .collect()
    }
}

/// What a record may replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Whatever there is.
    Any,
    /// No row: if there is one by now, it has to be looked at.
    Nothing,
}

async fn apply_one<'a>(
    tx: &mut Tx,
    change: &'a Change,
    before: Before,
) -> Result<(), Obstacle<'a>> {
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
            let failed = |error| Obstacle::of("write a record", error);
            match before {
                Before::Any => artifacts::put(tx, key, record).await.map_err(failed)?,
                Before::Nothing => {
                    if !artifacts::add(tx, key, record).await.map_err(failed)? {
                        return Err(Obstacle::Conflict);
                    }
                }
            }
        }
        Change::DeleteRecord { key } => {
            let deleted = artifacts::delete(tx, key).await;
            deleted.map_err(|error| Obstacle::of("delete a record", error))?;
        }
        Change::Expires { key, at } => {
            let written = uses::expires(tx, key, *at).await;
            written.map_err(|error| Obstacle::of("write a record", error))?;
        }
        Change::NoteAge { key, age } => {
            let noted = ages::note(tx, key, age).await;
            noted.map_err(|error| Obstacle::of("write how old a file is", error))?;
        }
        Change::DeleteRecords { .. }
        | Change::InvalidateRecords { .. }
        | Change::InvalidateRepository { .. } => {
            let dropped = invalid::drop_many(tx, change).await;
            dropped.map_err(|error| Obstacle::of("drop records", error))?;
        }
        Change::PutDerivation {
            key,
            repository,
            sources,
            derived,
            blob,
        } => {
            put_blob(tx, blob).await?;
            let put = derivations::put(tx, key, repository, sources, derived).await;
            put.map_err(|error| Obstacle::of("write a derivation", error))?;
        }
        Change::DeleteDerivation { key } => {
            let deleted = derivations::delete(tx, key).await;
            deleted.map_err(|error| Obstacle::of("delete a derivation", error))?;
        }
        // One condition is enough; it was looked at where this one was taken out of it.
        Change::If { change, .. } => Box::pin(apply_one(tx, change, before)).await?,
    }
    Ok(())
}

pub(super) async fn put_blob<'a>(tx: &mut Tx, info: &'a BlobInfo) -> Result<(), Obstacle<'a>> {
    let put = blobs::put(tx, info).await;
    match put.map_err(|error| Obstacle::of("write a blob's row", error))? {
        blobs::Put::Held => Ok(()),
        blobs::Put::Condemned => Err(Obstacle::Condemned),
        blobs::Put::Missing => Err(Obstacle::Missing(info)),
    }
}

async fn keep_blob(tx: &mut Tx, digest: &Digest) -> Result<bool, Obstacle<'static>> {
    let kept = blobs::keep(tx, digest).await;
    kept.map_err(|error| Obstacle::of("write a blob's row", error))
}
