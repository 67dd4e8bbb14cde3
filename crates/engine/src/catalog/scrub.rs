//! Blobs that are not what they should be, and what nothing refers to, when an operator asks.

use std::sync::Arc;

use larder_core::{BlobDescriptor, Digest, RepositoryName, SourceKey};
use larder_storage::{
    DamagedBlob, Flaw, Garbage, Mend, ScrubFinding, ScrubRow, StorageError, Undeleted, is_sound,
};

use super::room::GRACE;
use super::state::Catalog;
use crate::repositories::RepositoryState;

impl Catalog {
    /// What the collector would delete now. Changes nothing.
    ///
    /// # Errors
    /// Storage fails.
    pub(crate) async fn look_for_garbage(&self) -> Result<Garbage, StorageError> {
        let now = self.now();
        self.metadata
            .look_for_garbage(now, GRACE, &self.blobs)
            .await
    }

    /// Runs the collector; gives what it has deleted.
    ///
    /// # Errors
    /// Storage fails; the next run goes on.
    pub(crate) async fn collect_thoroughly(&self) -> Result<Garbage, StorageError> {
        self.sweep().await;
        let collected = self
            .metadata
            .collect_garbage(self.now(), GRACE, &self.blobs)
            .await;
        self.shrink().await;
        self.note_freed();
        let garbage = collected?;
        let deleted = [garbage.unreferenced, garbage.left_behind, garbage.orphans];
        let (files, bytes) = deleted.iter().fold((0, 0), |(files, bytes), heap| {
            (files + heap.blobs, bytes + heap.bytes)
        });
        self.count_deleted(files, bytes);
        Ok(garbage)
    }

    /// Blobs that would go, and whose files could not be deleted.
    pub(crate) fn undeleted(&self) -> Undeleted {
        self.metadata.undeleted()
    }

    /// Begins a scrub; `false` if one is under way.
    ///
    /// # Errors
    /// The database does not take it.
    pub(crate) async fn begin_scrub(&self, id: &str, rate: u64) -> Result<bool, StorageError> {
        self.metadata.begin_scrub(id, rate, self.now()).await
    }

    /// The scrub that was begun last, with up to `limit` of what it has found from behind a number on.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn scrub(
        &self,
        after: i64,
        limit: u32,
    ) -> Result<Option<(ScrubRow, Vec<ScrubFinding>)>, StorageError> {
        let Some(scrub) = self.metadata.last_scrub().await? else {
            return Ok(None);
        };
        let found = self
            .metadata
            .scrub_findings(&scrub.id, after, limit)
            .await?;
        Ok(Some((scrub, found)))
    }

    /// Cancels the scrub that is under way; whether there was one.
    ///
    /// # Errors
    /// The database does not take it.
    pub(crate) async fn cancel_scrub(&self) -> Result<bool, StorageError> {
        self.metadata.cancel_scrub(self.now()).await
    }

    /// Ends a scrub that cannot go on where it is; whether it was still there.
    ///
    /// # Errors
    /// The database does not take it.
    pub(crate) async fn give_scrub_up(&self, scrub: &ScrubRow) -> Result<bool, StorageError> {
        self.metadata.give_scrub_up(scrub, self.now()).await
    }

    /// Works on the scrub that is under way, if it is this process's turn; whether it was.
    ///
    /// # Errors
    /// Storage fails: the next call goes on.
    pub(crate) async fn run_scrub(
        &self,
        runner: &str,
        mend: &dyn Mend,
    ) -> Result<bool, StorageError> {
        let clock = &*self.clock;
        self.metadata
            .run_scrub(&self.blobs, runner, clock, mend)
            .await
    }

    /// Whether something is kept in front of the store, for the readers of this process alone.
    pub(crate) fn has_copies(&self) -> bool {
        self.blobs.report().tier.is_some()
    }

    /// Reads some of what is kept in front of the store, from behind a digest on, and drops what is wrong: what is remembered of that is
    /// void. Gives the digest to go on behind; `None`: there is no more.
    ///
    /// # Errors
    /// Storage fails.
    pub(crate) async fn check_copies(
        &self,
        after: Option<&Digest>,
        rate: u64,
        entries: &[Arc<RepositoryState>],
    ) -> Result<Option<Digest>, StorageError> {
        let checked = self.blobs.check_copies(after, rate).await?;
        for blob in checked.dropped {
            let users = self.metadata.users_of_blob(&blob.digest).await?;
            let flaw = Flaw::Wrong;
            self.void(&DamagedBlob { blob, flaw, users }, entries);
        }
        Ok(checked.last)
    }

    /// Uploaded files that scrubs have found damaged.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn damaged_files(&self) -> Result<u64, StorageError> {
        self.metadata.damaged_files().await
    }

    /// Forgets what refers to a damaged blob and can be had again. What is remembered of it is void; `entries` are all that are
    /// configured.
    ///
    /// # Errors
    /// Storage fails.
    pub(crate) async fn forget_damaged(
        &self,
        damaged: &DamagedBlob,
        entries: &[Arc<RepositoryState>],
    ) -> Result<(), StorageError> {
        let forgotten = self
            .metadata
            .forget_damaged(self.writer, damaged, &self.blobs, false)
            .await;
        for (repository, keys) in &damaged.users.records {
            let Ok(repository) = RepositoryName::parse(repository) else {
                continue;
            };
            for (path, variant) in keys {
                self.records.remove(&SourceKey {
                    repository: repository.clone(),
                    path: path.as_str().into(),
                    variant: variant.clone().into(),
                });
            }
        }
        self.void(damaged, entries);
        forgotten
    }

    /// Deletes a damaged blob that nothing refers to any more.
    ///
    /// # Errors
    /// Storage fails.
    pub(crate) async fn drop_damaged(&self, blob: &BlobDescriptor) -> Result<(), StorageError> {
        self.metadata
            .collect_blob(blob, &self.blobs)
            .await
            .map(drop)
    }

    /// Whether a blob is stored as it should be, by all of its bytes.
    pub(crate) async fn is_sound(&self, blob: &BlobDescriptor) -> bool {
        is_sound(&*self.blobs, blob).await
    }

    /// What is remembered of a blob's bytes is not to be served any more.
    pub(crate) fn void(&self, damaged: &DamagedBlob, entries: &[Arc<RepositoryState>]) {
        let users = &damaged.users;
        let files = users.files.iter().map(|(repository, _)| repository);
        let derived = users.derived.iter().map(|(repository, _)| repository);
        let names: std::collections::BTreeSet<&String> =
            users.records.keys().chain(files).chain(derived).collect();
        let concerned = entries.iter().filter(|entry| {
            names
                .iter()
                .any(|name| entry.repository.name.as_str() == **name)
        });
        concerned.for_each(|entry| entry.bump());
        self.note_freed();
    }
}
