//! Multipart uploads are leased: each is written down with the time until which somebody is at it, so that whoever comes after a
//! process that died knows what to abort (hazard L8).

use std::fmt::Debug;

use futures_util::future::BoxFuture;
use larder_core::UnixMillis;

use crate::error::StorageError;

/// A multipart upload as a service names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultipartUpload {
    /// The whole key of the object that it would become.
    pub key: String,
    /// What the service has called it.
    pub id: String,
}

/// Where leases of multipart uploads are written down: the same place for all processes that use the store.
pub trait UploadLeases: Send + Sync + Debug {
    /// Leases an upload until `until`, or prolongs its lease.
    ///
    /// # Errors
    /// It cannot be written down.
    fn hold<'a>(
        &'a self,
        upload: &'a MultipartUpload,
        until: UnixMillis,
    ) -> BoxFuture<'a, Result<(), StorageError>>;

    /// Forgets an upload that has been completed or aborted.
    ///
    /// # Errors
    /// It cannot be written down.
    fn forget<'a>(&'a self, upload: &'a MultipartUpload)
    -> BoxFuture<'a, Result<(), StorageError>>;

    /// Uploads whose lease has ended at `now`, at most `limit` of them.
    ///
    /// # Errors
    /// They cannot be read.
    fn ended(
        &self,
        now: UnixMillis,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<MultipartUpload>, StorageError>>;

    /// Whether an upload is written down, its lease ended or not.
    ///
    /// # Errors
    /// It cannot be read.
    fn knows<'a>(
        &'a self,
        upload: &'a MultipartUpload,
    ) -> BoxFuture<'a, Result<bool, StorageError>>;

    /// What else of the same key is leased at `now`: the names that the service has given to those uploads.
    ///
    /// # Errors
    /// They cannot be read.
    fn rivals<'a>(
        &'a self,
        upload: &'a MultipartUpload,
        now: UnixMillis,
    ) -> BoxFuture<'a, Result<Vec<String>, StorageError>>;
}
