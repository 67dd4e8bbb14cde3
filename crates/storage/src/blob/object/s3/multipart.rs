//! A multipart upload from its beginning to its end. It is leased for as long as it is under way, and taken back if it is given up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use larder_core::{Clock as _, SystemClock};
use object_store::multipart::MultipartStore as _;
use object_store::path::Path;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::{S3, failed};
use crate::blob::object::{MultipartUpload, UploadLeases};
use crate::error::StorageError;

const DOING: &str = "put an object";

/// Where uploads are leased, and for how long each time.
#[derive(Debug)]
pub(super) struct Leases {
    pub(super) book: Arc<dyn UploadLeases>,
    pub(super) life: Duration,
}

/// An upload that has been begun. Dropped before it is over, it is aborted.
pub(super) struct Multipart {
    s3: Arc<S3>,
    path: Path,
    upload: MultipartUpload,
    /// Keeps the lease.
    keeping: Option<JoinHandle<()>>,
    is_over: bool,
}

impl fmt::Debug for Multipart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Multipart").field(&self.upload).finish()
    }
}

impl Multipart {
    pub(super) async fn begin(s3: &Arc<S3>, path: Path) -> Result<Self, StorageError> {
        let begun = s3.within(DOING, s3.store.create_multipart(&path)).await?;
        let id = begun.map_err(|error| failed(DOING, error))?;
        s3.own().insert(id.clone());
        let key = path.as_ref().to_owned();
        let mut begun = Self {
            s3: Arc::clone(s3),
            path,
            upload: MultipartUpload { key, id },
            keeping: None,
            is_over: false,
        };
        if let Some(leases) = s3.leases.get() {
            let (book, life) = (Arc::clone(&leases.book), leases.life);
            hold(&*book, &begun.upload, life).await;
            let upload = begun.upload.clone();
            begun.keeping = Some(tokio::spawn(async move {
                loop {
                    tokio::time::sleep(life / 3).await;
                    hold(&*book, &upload, life).await;
                }
            }));
        }
        Ok(begun)
    }

    pub(super) fn s3(&self) -> &Arc<S3> {
        &self.s3
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn id(&self) -> &String {
        &self.upload.id
    }

    /// Whether somebody else, on another replica perhaps, sends the same object: of several the one with the first name goes on. Where
    /// that cannot be told, bytes are sent twice, and are the same.
    pub(super) async fn gives_way(&self) -> bool {
        let Some(leases) = self.s3.leases.get() else {
            return false;
        };
        let rivals = leases.book.rivals(&self.upload, SystemClock.now()).await;
        rivals.is_ok_and(|rivals| rivals.iter().any(|id| *id < self.upload.id))
    }

    /// It has been completed: there is nothing to abort any more.
    pub(super) fn is_over(&mut self) {
        self.is_over = true;
    }
}

/// An upload goes on without a lease where it cannot be written down: this process knows of it, and others let it be for an hour.
async fn hold(book: &dyn UploadLeases, upload: &MultipartUpload, life: Duration) {
    if let Err(error) = book.hold(upload, SystemClock.now().plus(life)).await {
        tracing::debug!(%error, "the lease of a multipart upload was not written down");
    }
}

impl Drop for Multipart {
    fn drop(&mut self) {
        if let Some(keeping) = self.keeping.take() {
            keeping.abort();
        }
        let Ok(runtime) = Handle::try_current() else {
            self.s3.own().remove(&self.upload.id);
            return;
        };
        let (s3, path, upload) = (Arc::clone(&self.s3), self.path.clone(), self.upload.clone());
        let is_over = self.is_over;
        runtime.spawn(async move {
            let aborted = is_over || s3.abort(&path, &upload.id).await.is_ok();
            if !aborted {
                tracing::debug!(
                    key = upload.key,
                    "an upload was not aborted; a sweep will do it"
                );
            } else if let Some(leases) = s3.leases.get()
                && let Err(error) = leases.book.forget(&upload).await
            {
                tracing::debug!(%error, "the lease of a multipart upload runs on to its end");
            }
            s3.own().remove(&upload.id);
        });
    }
}

impl S3 {
    /// Aborts an upload; whether there was one.
    pub(super) async fn abort(&self, path: &Path, id: &String) -> Result<bool, StorageError> {
        const DOING: &str = "abort an upload";
        let aborted = self.store.abort_multipart(path, id);
        match self.within(DOING, aborted).await? {
            Ok(()) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(failed(DOING, error)),
        }
    }
}
