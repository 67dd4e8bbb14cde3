//! The rows of local repositories' files, and what becomes of the bytes that they no longer refer to.

use larder_core::{BlobDescriptor, Dates, RepositoryName};
use larder_storage::{
    HeldSize, LocalChange, LocalChild, LocalDecision, LocalFile, LocalOutcome, LocalState,
    StorageError,
};

use super::state::Catalog;
use crate::repositories::RepositoryState;

impl Catalog {
    /// The file under a path of a local repository.
    ///
    /// # Errors
    /// The database does not answer, or the row is damaged.
    pub(crate) async fn local_file(
        &self,
        repository: &RepositoryName,
        path: &str,
    ) -> Result<Option<LocalFile>, StorageError> {
        self.metadata.local_file(repository, path).await
    }

    /// By which dates quarantine clears an uploaded file: a sidecar by those of its subject, if that is there.
    ///
    /// # Errors
    /// The database does not answer, or the subject's row is damaged.
    pub(crate) async fn dates_of_upload(
        &self,
        entry: &RepositoryState,
        path: &str,
        file: &LocalFile,
    ) -> Result<Dates, StorageError> {
        let repository = &entry.repository;
        let facts = entry.facts(path);
        let subject = match facts.subject(path) {
            Some(subject) if repository.quarantine.hold.is_some() => {
                self.local_file(&repository.name, subject).await?
            }
            _ => None,
        };
        let at = subject.map_or(file.uploaded_at, |subject| subject.uploaded_at);
        Ok(Dates {
            stated: Some(at),
            last_modified: Some(at),
            first_seen_at: at,
        })
    }

    /// What there is under a path, and in the repository.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn local_state(
        &self,
        repository: &RepositoryName,
        path: &str,
    ) -> Result<LocalState, StorageError> {
        self.metadata.local_state(repository, path).await
    }

    /// Files after a path, in the order of their paths.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn local_page(
        &self,
        repository: &RepositoryName,
        after: &str,
        limit: u32,
    ) -> Result<Vec<(String, Option<LocalFile>)>, StorageError> {
        self.metadata.local_page(repository, after, limit).await
    }

    /// What is directly in a folder.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn local_children(
        &self,
        repository: &RepositoryName,
        folder: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<LocalChild>, StorageError> {
        let children = self
            .metadata
            .local_children(repository, folder, after, limit);
        children.await
    }

    /// How much each local repository holds.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn local_sizes(&self) -> Result<Vec<HeldSize>, StorageError> {
        self.metadata.local_sizes().await
    }

    /// Changes one file as `decide` says of what is there, in one durable transaction. Whoever changes something supersedes the
    /// repository's epoch afterwards.
    ///
    /// # Errors
    /// The database does not take it.
    pub(crate) async fn change_local_file<R>(
        &self,
        repository: &RepositoryName,
        path: &str,
        change: LocalChange<'_>,
        decide: impl Fn(&LocalState) -> LocalDecision<R>,
    ) -> Result<LocalOutcome<R>, StorageError> {
        let changed = self
            .metadata
            .change_local_file(repository, path, change, decide);
        changed.await
    }

    /// Deletes one blob at once, unless something refers to it or somebody has just published it.
    ///
    /// # Errors
    /// The database or the blob store fails.
    pub(crate) async fn collect_blob(&self, blob: &BlobDescriptor) -> Result<bool, StorageError> {
        self.metadata.collect_blob(blob, &self.blobs).await
    }
}
