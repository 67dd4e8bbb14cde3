//! Blobs on a local (or network) file system. A blob that is there is open without a wait; everything else is done on the pool for
//! blocking work.

mod check;
mod files;
mod layout;
mod open_files;
mod parallel;
mod space;
mod spool;
mod strangers;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::{BoxFuture, Either, ready};
use larder_core::{BlobDescriptor, Digest};

use self::files::Files;
use super::{BlobInfo, BlobStore, Opening, SealedSpool, StoredBlob};
use crate::body::Body;
use crate::error::{StorageError, StorageErrorKind};

pub use self::open_files::MOST_OPEN_BLOBS;
pub use self::space::Space;
pub use self::spool::Spool;

pub(super) use self::layout::modified_ns;
pub(super) use self::spool::{Follower, TemporaryName};

/// The store on a file system. Clones are the same.
#[derive(Debug, Clone)]
pub struct FsBlobStore(Arc<Files>);

impl FsBlobStore {
    /// Opens the store in `data_dir`, making its directories where they are missing. Takes the same time however many blobs there
    /// are. Blocking.
    ///
    /// # Errors
    /// The directories cannot be made or read.
    pub fn open(data_dir: &Path) -> Result<Self, StorageError> {
        Self::keeping_open(data_dir, MOST_OPEN_BLOBS)
    }

    /// As [`open`](Self::open), with at most `files` blobs kept open that were read lately.
    ///
    /// # Errors
    /// The directories cannot be made or read.
    pub fn keeping_open(data_dir: &Path, files: usize) -> Result<Self, StorageError> {
        let store = Files::open_with(data_dir, true)?.keeping_open(files);
        Ok(Self(Arc::new(store)))
    }

    /// Whether the store itself keeps a blob's file open.
    pub(crate) fn keeps_open(&self, digest: &Digest) -> bool {
        self.0.open_files.has(digest)
    }

    /// The store in `data_dir` to read from only: nothing is made or removed there, and nothing may be published. It may hold nothing.
    pub fn to_read(data_dir: &Path) -> Self {
        Self(Arc::new(Files::to_read(data_dir)))
    }

    /// Whether [`open`](Self::open) would succeed where `data_dir` exists, and files can be written there. Blocking; leaves nothing
    /// behind.
    ///
    /// # Errors
    /// What stands in the way.
    pub fn check(data_dir: &Path) -> Result<(), StorageError> {
        check::check(data_dir)
    }

    /// Does `work` on the pool for blocking work, to the end though nobody may wait for it any more.
    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Files) -> Result<T, StorageError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StorageError>> {
        let files = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || work(&files));
        Box::pin(async move { done.await.unwrap_or_else(|error| Err(broken_off(error))) })
    }
}

impl BlobStore for FsBlobStore {
    fn spool(&self) -> Result<Spool, StorageError> {
        self.0.spool()
    }

    fn open<'a>(&'a self, blob: &'a BlobDescriptor) -> Opening<'a> {
        Either::Left(ready(self.0.open(blob)))
    }

    fn open_kept<'a>(
        &'a self,
        blob: &'a BlobDescriptor,
    ) -> BoxFuture<'a, Result<Body, StorageError>> {
        let blob = blob.clone();
        self.blocking(move |files| files.open_kept(&blob))
    }

    fn doubt(&self, digest: &Digest) {
        self.0.doubt(digest);
    }

    fn open_once(&self, blob: &BlobDescriptor) -> Option<Body> {
        self.0.open_once(blob)
    }

    fn publish(
        &self,
        batch: Vec<SealedSpool>,
    ) -> BoxFuture<'static, Vec<Result<BlobInfo, StorageError>>> {
        let count = batch.len();
        let published = self.blocking(move |files| Ok(files.publish(&batch)));
        Box::pin(async move {
            let failed = |error: StorageError| (0..count).map(|_| Err(error.again())).collect();
            published.await.unwrap_or_else(failed)
        })
    }

    fn delete<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool, StorageError>> {
        let digest = digest.clone();
        self.blocking(move |files| files.delete(&digest))
    }

    fn delete_all(
        &self,
        digests: Vec<Digest>,
        until: Instant,
    ) -> BoxFuture<'_, Vec<Option<Result<bool, StorageError>>>> {
        let count = digests.len();
        // One job for all: handing each to the pool would take longer than deleting it.
        let deleted = self.blocking(move |files| {
            let in_time = |digest| (Instant::now() < until).then(|| files.delete(digest));
            Ok(digests.iter().map(in_time).collect::<Vec<_>>())
        });
        Box::pin(async move {
            let failed =
                |error: StorageError| (0..count).map(|_| Some(Err(error.again()))).collect();
            deleted.await.unwrap_or_else(failed)
        })
    }

    fn free_space(&self) -> Result<Space, StorageError> {
        self.0.free_space()
    }

    fn list<'a>(
        &'a self,
        after: Option<&'a Digest>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<StoredBlob>, StorageError>> {
        let after = after.cloned();
        self.blocking(move |files| files.list(after.as_ref(), limit))
    }
}

fn broken_off(error: tokio::task::JoinError) -> StorageError {
    StorageError {
        kind: StorageErrorKind::Unavailable,
        message: "work on the blob store was broken off".to_owned(),
        source: Some(Box::new(error)),
    }
}
