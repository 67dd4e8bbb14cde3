//! Blobs in memory, gone with the process. For tests.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either, ready};
use larder_core::{BlobDescriptor, Digest};

use super::local::modified_ns;
use super::pins::Pins;
use super::{
    BlobInfo, BlobStore, Opening, SealedSpool, Space, Spool, StoredBlob, check_length, not_found,
};
use crate::body::Body;
use crate::error::{StorageError, StorageErrorKind};

/// A store that forgets everything when it is dropped.
#[derive(Debug, Default)]
pub struct MemoryBlobStore {
    blobs: Mutex<BTreeMap<Digest, Entry>>,
    pins: Arc<Pins>,
    full: AtomicBool,
}

#[derive(Debug, Clone)]
struct Entry {
    bytes: Bytes,
    modified_ns: i64,
}

impl MemoryBlobStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on behaves as if the disk's reserve were reached, or no longer.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    fn blobs(&self) -> MutexGuard<'_, BTreeMap<Digest, Entry>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, sealed: &SealedSpool) -> Result<BlobInfo, StorageError> {
        let SealedSpool { spool, descriptor } = sealed;
        check_length(descriptor, spool.len())?;
        let pin = self.pins.pin(&descriptor.digest, None);
        let read = || {
            let mut bytes = vec![0; spool.len() as usize];
            spool.file().read_exact_at(&mut bytes, 0)?;
            Ok((spool.file().metadata()?, bytes))
        };
        let (metadata, bytes) = read().map_err(|e| StorageError::from_io("publish a blob", e))?;
        let new = Entry {
            bytes: bytes.into(),
            modified_ns: modified_ns(&metadata),
        };
        let mut blobs = self.blobs();
        let entry = blobs
            .entry(descriptor.digest.clone())
            .or_insert_with(|| new.clone());
        if entry.bytes.len() as u64 != descriptor.size {
            *entry = new;
        }
        Ok(BlobInfo {
            descriptor: descriptor.clone(),
            modified_ns: entry.modified_ns,
            pin: Some(pin),
        })
    }

    fn find(&self, blob: &BlobDescriptor) -> Result<Body, StorageError> {
        let entry = self.blobs().get(&blob.digest).cloned();
        let bytes = entry.ok_or_else(|| not_found(&blob.digest))?.bytes;
        check_length(blob, bytes.len() as u64)?;
        Ok(Body::Memory(bytes))
    }
}

impl BlobStore for MemoryBlobStore {
    fn spool(&self) -> Result<Spool, StorageError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(StorageError::new(
                StorageErrorKind::Full,
                "the store has been told to be full",
            ));
        }
        let file = tempfile::tempfile().map_err(|e| StorageError::from_io("make a spool", e))?;
        Ok(Spool::new(file, None, None))
    }

    fn open<'a>(&'a self, blob: &'a BlobDescriptor) -> Opening<'a> {
        Either::Left(ready(self.find(blob)))
    }

    fn publish(
        &self,
        batch: Vec<SealedSpool>,
    ) -> BoxFuture<'static, Vec<Result<BlobInfo, StorageError>>> {
        let published = batch.iter().map(|sealed| self.keep(sealed)).collect();
        Box::pin(ready(published))
    }

    fn delete<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool, StorageError>> {
        let deleted = self
            .pins
            .unless_pinned(digest, || self.blobs().remove(digest).is_some());
        Box::pin(ready(Ok(deleted.unwrap_or(false))))
    }

    fn free_space(&self) -> Result<Space, StorageError> {
        Ok(Space::new(
            1 << 40,
            if self.full.load(Ordering::SeqCst) {
                0
            } else {
                1 << 40
            },
        ))
    }

    fn list<'a>(
        &'a self,
        after: Option<&'a Digest>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<StoredBlob>, StorageError>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let stored = |(digest, entry): (&Digest, &Entry)| StoredBlob {
            descriptor: BlobDescriptor {
                digest: digest.clone(),
                size: entry.bytes.len() as u64,
            },
            modified_ns: entry.modified_ns,
        };
        let blobs = self.blobs();
        let found = blobs.range((from, Bound::Unbounded)).take(limit);
        Box::pin(ready(Ok(found.map(stored).collect())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::conformance;

    #[tokio::test(flavor = "multi_thread")]
    async fn conforms() {
        conformance::suite(Arc::new(MemoryBlobStore::new())).await;
    }

    #[test]
    fn full_on_demand() {
        let store = MemoryBlobStore::new();
        store.set_full(true);
        assert!(store.spool().unwrap_err().is_full());
        assert!(store.free_space().unwrap().is_low());
        store.set_full(false);
        store.spool().unwrap();
    }
}
