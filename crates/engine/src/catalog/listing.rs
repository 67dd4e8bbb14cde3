//! Pages of records, sizes, and what is cleared away: for operators, and for work behind the scenes.

use std::sync::Arc;
use std::time::Duration;

use larder_core::{ArtifactRecord, RepositoryName, SourceKey};
use larder_storage::{
    BlobHolder, Change, CollectReport, Counts, DamageReport, HeldRow, HeldSize, HolderRange,
    KeyRange, PageRow, RecordKey, StorageError, Swept, Unswept, Usage,
};
use tokio::sync::oneshot;

use super::state::Catalog;
use super::uses::upload_key;

/// Rows of earlier versions about what is not there that one collection deletes.
const ABSENCES_AT_ONCE: usize = 200_000;
/// While rows are deleted, the files that they have left go so often.
const FREED_EVERY: Duration = Duration::from_secs(1);

impl Catalog {
    /// Up to `limit` records of a repository after a path and variant, in their order; those that cannot be read are passed over.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn page(
        &self,
        repository: &RepositoryName,
        after: Option<&(String, String)>,
        limit: u32,
    ) -> Result<Vec<(String, String, ArtifactRecord)>, StorageError> {
        self.metadata.page(repository, after, limit).await
    }

    /// As [`page`](Self::page), with `None` in place of what cannot be read.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn rows(
        &self,
        repository: &RepositoryName,
        after: Option<&(String, String)>,
        limit: u32,
    ) -> Result<Vec<PageRow>, StorageError> {
        self.metadata.rows(repository, after, limit).await
    }

    /// Up to `limit` keys of a repository from the beginning of a range on, in their order, from an index alone.
    /// `leaving_out`: which of invalid records there may be, that are left out.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn record_keys(
        &self,
        repository: &RepositoryName,
        range: &KeyRange,
        limit: u32,
        leaving_out: Unswept,
    ) -> Result<Vec<RecordKey>, StorageError> {
        let keys = self
            .metadata
            .record_keys(repository, range, limit, leaving_out);
        keys.await
    }

    /// Which rows of invalid records of a repository are still there.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn unswept(
        &self,
        repository: &RepositoryName,
    ) -> Result<Unswept, StorageError> {
        self.metadata.unswept(repository).await
    }

    /// Drops many records: deletes or invalidates them. What is in memory of them is for [`end_flush`](Self::end_flush) to forget.
    ///
    /// # Errors
    /// The database does not take it.
    pub(crate) async fn drop_many(&self, change: Change) -> Result<(), StorageError> {
        let applied = self
            .metadata
            .apply_by(self.writer, vec![change], Vec::new());
        applied.await.map(drop)
    }

    /// Deletes the rows of invalid records behind the scenes, and gives the space of what they have left back meanwhile: neither waits for
    /// the other.
    pub(crate) fn begin_sweep(self: &Arc<Self>) {
        let catalog = Arc::clone(self);
        tokio::spawn(async move {
            let (over, is_over) = oneshot::channel::<()>();
            let sweep = async {
                let rows = catalog.sweep().await;
                drop(over);
                rows
            };
            let free = async {
                tokio::pin!(is_over);
                while tokio::time::timeout(FREED_EVERY, &mut is_over)
                    .await
                    .is_err()
                {
                    catalog.free().await;
                }
            };
            let (rows, ()) = tokio::join!(sweep, free);
            catalog.free().await;
            if rows > 0 {
                catalog.shrink().await;
            }
        });
    }

    /// The files that deleted records have left go behind the scenes.
    pub(crate) fn begin_freeing(self: &Arc<Self>) {
        let catalog = Arc::clone(self);
        tokio::spawn(async move { catalog.free().await });
    }

    async fn free(&self) {
        match self.free_due().await {
            Ok(0) => {}
            Ok(bytes) => {
                tracing::info!(bytes, "files of copies that were dropped have been deleted");
            }
            Err(error) => {
                tracing::warn!(%error, "the files of flushed records could not be deleted, and will be later");
            }
        }
        self.note_freed();
    }

    /// Deletes the rows of invalid records, and the files that only they referred to; gives how many rows.
    pub(super) async fn sweep(&self) -> u64 {
        let _alone = self.sweeping.lock().await;
        let mut sweep = self.metadata.sweep_invalid(&self.blobs);
        let mut swept = Swept::default();
        loop {
            match sweep.next().await {
                Ok(Some(few)) => {
                    self.count_deleted(few.files, few.bytes);
                    swept.add(few);
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "the rows of flushed records could not be deleted, and will be later");
                    break;
                }
            }
        }
        let Swept { rows, files, bytes } = swept;
        if rows > 0 {
            tracing::info!(
                rows,
                files,
                bytes,
                "the rows of flushed records were deleted, and their files"
            );
        }
        rows
    }

    /// The variants under which there is a record of a path.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn variants(
        &self,
        repository: &RepositoryName,
        path: &str,
    ) -> Result<Vec<String>, StorageError> {
        self.metadata.variants(repository, path).await
    }

    /// How much each repository holds.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn held_sizes(&self) -> Result<Vec<HeldSize>, StorageError> {
        self.metadata.held_sizes().await
    }

    /// Rows of what is held from the beginning of a range on.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn held_rows(
        &self,
        repository: &RepositoryName,
        range: &KeyRange,
        limit: u32,
    ) -> Result<Vec<HeldRow>, StorageError> {
        self.metadata.held_rows(repository, range, limit).await
    }

    /// Path and variant of a row of what is held.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn held_place(
        &self,
        repository: &RepositoryName,
        row: i64,
    ) -> Result<Option<(String, String)>, StorageError> {
        self.metadata.held_place(repository, row).await
    }

    /// A page of those who have bytes with such a SHA-256; invalid records are among them.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn blob_holders(
        &self,
        range: HolderRange<'_>,
        limit: u32,
    ) -> Result<Vec<BlobHolder>, StorageError> {
        self.metadata.blob_holders(range, limit).await
    }

    /// How a record is used.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn usage(
        &self,
        repository: &RepositoryName,
        path: &str,
        variant: &str,
    ) -> Result<Usage, StorageError> {
        let usage = self.metadata.usage(repository, path, variant).await?;
        let key = SourceKey {
            repository: repository.clone(),
            path: path.into(),
            variant: variant.to_owned().into(),
        };
        Ok(self.uses.beside(&key, false, usage))
    }

    /// How an uploaded file is used.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn upload_usage(
        &self,
        repository: &RepositoryName,
        path: &str,
    ) -> Result<Usage, StorageError> {
        let usage = self.metadata.upload_usage(repository, path).await?;
        Ok(self.uses.beside(&upload_key(repository, path), true, usage))
    }

    /// How much is stored in all.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn counts(&self) -> Result<Counts, StorageError> {
        self.metadata.counts().await
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// It does not.
    pub(crate) async fn ping(&self) -> Result<(), StorageError> {
        self.metadata.ping().await
    }

    /// `sqlite` or `postgresql`.
    pub(crate) fn database_kind(&self) -> &'static str {
        self.metadata.kind()
    }

    /// Whether records count as absent because the database's server does not answer.
    pub(crate) fn is_database_away(&self) -> bool {
        self.metadata.is_away()
    }

    /// The damage that the database has met with.
    pub(crate) fn damage(&self) -> DamageReport {
        self.metadata.damage()
    }

    /// The mark of the upstream at these addresses.
    pub(crate) fn origin(&self, repository: &RepositoryName, addresses: &[String]) -> String {
        self.metadata.origin(repository, addresses)
    }

    /// Writes down which upstreams repositories have; gives how many copies of others are held.
    ///
    /// # Errors
    /// The database does not take it.
    pub(crate) async fn keep_origins(
        &self,
        current: &[(RepositoryName, [String; 2])],
    ) -> Result<Vec<(RepositoryName, u64)>, StorageError> {
        self.metadata.keep_origins(current).await
    }

    /// What the database no longer needs goes back to the file system.
    pub(crate) async fn shrink(&self) {
        let room = self
            .blobs
            .free_space()
            .map_or(0, |space| space.available.saturating_sub(space.reserve));
        match self.metadata.shrink(room).await {
            Ok(0) => {}
            Ok(bytes) => tracing::info!(bytes, "the metadata database became smaller"),
            Err(error) => tracing::warn!(%error, "the metadata database could not be made smaller"),
        }
    }

    /// Deletes blobs and derivations that nothing has referred to for `grace`.
    ///
    /// # Errors
    /// It was interrupted, and goes on with the next call.
    pub(crate) async fn collect(&self, grace: Duration) -> Result<CollectReport, StorageError> {
        if let Err(error) = self.metadata.forget_absences(ABSENCES_AT_ONCE).await {
            tracing::warn!(%error, "what an earlier version remembered of missing files could not be deleted");
        }
        self.forget_absences(|_| false);
        // What a process has left that ended meanwhile.
        self.sweep().await;
        let collected = self.metadata.collect(self.now(), grace, &self.blobs).await;
        self.shrink().await;
        collected
    }
}
