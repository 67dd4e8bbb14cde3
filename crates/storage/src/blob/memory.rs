//! Blobs in unnamed temporary files that nobody else can reach: gone with the process. For tests.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use larder_core::{BlobDescriptor, Digest};

use super::layout::modified_ns;
use super::pins::Pins;
use super::{
    BlobInfo, BlobStore, OpenBlob, SealedSpool, Space, Spool, StoredBlob, check_length, not_found,
};
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
    file: Arc<File>,
    length: u64,
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
        let metadata = spool
            .file()
            .metadata()
            .map_err(|e| StorageError::from_io("publish a blob", e))?;
        let new = Entry {
            file: spool.reader(),
            length: spool.len(),
            modified_ns: modified_ns(&metadata),
        };
        let mut blobs = self.blobs();
        let entry = blobs
            .entry(descriptor.digest.clone())
            .or_insert_with(|| new.clone());
        if entry.length != descriptor.size {
            *entry = new;
        }
        Ok(BlobInfo {
            descriptor: descriptor.clone(),
            modified_ns: entry.modified_ns,
            pin: Some(pin),
        })
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

    fn open(&self, blob: &BlobDescriptor) -> Result<OpenBlob, StorageError> {
        let entry = self
            .blobs()
            .get(&blob.digest)
            .cloned()
            .ok_or_else(|| not_found(&blob.digest))?;
        check_length(blob, entry.length)?;
        Ok(OpenBlob {
            file: entry.file,
            length: entry.length,
        })
    }

    fn publish(&self, batch: Vec<SealedSpool>) -> Vec<Result<BlobInfo, StorageError>> {
        batch.iter().map(|sealed| self.keep(sealed)).collect()
    }

    fn delete(&self, digest: &Digest) -> Result<bool, StorageError> {
        Ok(self
            .pins
            .unless_pinned(digest, || self.blobs().remove(digest).is_some())
            .unwrap_or(false))
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

    fn list(&self, after: Option<&Digest>, limit: usize) -> Result<Vec<StoredBlob>, StorageError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let stored = |(digest, entry): (&Digest, &Entry)| StoredBlob {
            descriptor: BlobDescriptor {
                digest: digest.clone(),
                size: entry.length,
            },
            modified_ns: entry.modified_ns,
        };
        Ok(self
            .blobs()
            .range((from, Bound::Unbounded))
            .take(limit)
            .map(stored)
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
