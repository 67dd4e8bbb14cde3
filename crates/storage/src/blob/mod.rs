//! Bytes under the name of their SHA-256. A blob is complete and immutable from the moment its name exists; nothing else is ever
//! reachable by a reader.

use std::fmt::Debug;
use std::fs::File;
use std::sync::Arc;

use larder_core::{BlobDescriptor, Digest, sha256};

use crate::error::{StorageError, StorageErrorKind};

pub mod conformance;
mod fs;
mod layout;
mod memory;
mod open_files;
mod pins;
mod side_by_side;
mod space;
mod spool;

pub use fs::FsBlobStore;
pub use memory::MemoryBlobStore;
pub use open_files::MOST_OPEN_BLOBS;
pub use pins::BlobPin;
pub use space::Space;
pub use spool::Spool;

/// Where blobs are kept. All calls are synchronous: those that are cheap may be made inline by an async task, the others say so.
pub trait BlobStore: Send + Sync + Debug {
    /// A new empty spool. Cheap. `Full` when free space is below the reserve ([`Space::reserve`]).
    fn spool(&self) -> Result<Spool, StorageError>;

    /// Opens a blob for reading. Cheap: one open and one fstat. `NotFound` if there is none, `Corrupt` if its length is not
    /// `blob.size`.
    fn open(&self, blob: &BlobDescriptor) -> Result<OpenBlob, StorageError>;

    /// Opens a blob that is read once, as a whole: it does not stay open, and its length is not looked at, so that the reader has to
    /// find out whether it is `blob.size`. Cheap: one open. `NotFound` if there is none.
    fn open_once(&self, blob: &BlobDescriptor) -> Result<OpenBlob, StorageError> {
        self.open(blob)
    }

    /// Makes spools durable under their digests, in the order of `batch`: every file is on stable storage before its name appears,
    /// and every directory touched is synchronised once per batch (hazard L1). Blocking: call it on a blocking thread.
    ///
    /// A blob that is there already with the same size is left alone; one of another size is replaced in one atomic step. The
    /// caller answers for digest and bytes agreeing. The blob cannot be deleted while a returned [`BlobInfo`] or a clone of it
    /// lives: hold it until the row that refers to it is committed (hazard L3).
    fn publish(&self, batch: Vec<SealedSpool>) -> Vec<Result<BlobInfo, StorageError>>;

    /// Removes a blob. `false` when there was none, or when it is held by a live [`BlobInfo`]. Open files stay readable.
    fn delete(&self, digest: &Digest) -> Result<bool, StorageError>;

    /// How much space there is, at most one second old.
    fn free_space(&self) -> Result<Space, StorageError>;

    /// Up to `limit` blobs with digests above `after`, in ascending order: what is really there, for the sweeper of orphans.
    /// Blocking, and bounded by `limit`.
    fn list(&self, after: Option<&Digest>, limit: usize) -> Result<Vec<StoredBlob>, StorageError>;

    /// Stores bytes that are at hand. Blocking.
    fn put_bytes(&self, bytes: &[u8]) -> Result<BlobInfo, StorageError> {
        let mut spool = self.spool()?;
        spool.append(bytes)?;
        let descriptor = BlobDescriptor {
            digest: sha256(bytes),
            size: bytes.len() as u64,
        };
        self.publish(vec![SealedSpool { spool, descriptor }])
            .pop()
            .unwrap_or_else(|| {
                Err(StorageError::new(
                    StorageErrorKind::Io,
                    "the blob store lost a blob of a batch",
                ))
            })
    }
}

/// A spool whose bytes are complete and verified, on its way to [`BlobStore::publish`].
#[derive(Debug)]
pub struct SealedSpool {
    /// The bytes.
    pub spool: Spool,
    /// Their SHA-256 and length.
    pub descriptor: BlobDescriptor,
}

/// A published blob. While it or a clone lives, the blob is not deleted.
#[derive(Debug, Clone)]
pub struct BlobInfo {
    /// Digest and length.
    pub descriptor: BlobDescriptor,
    /// Modification time of the stored file, nanoseconds since 1970; zero where the store has none.
    pub modified_ns: i64,
    /// What keeps the collector away; `None` for a blob that nobody published just now.
    pub pin: Option<Arc<BlobPin>>,
}

/// A blob opened for reading: by position only, the file's own offset is shared.
#[derive(Debug, Clone)]
pub struct OpenBlob {
    /// The file; it stays readable when the blob is deleted.
    pub file: Arc<File>,
    /// Its length in bytes.
    pub length: u64,
}

/// A blob as the store itself knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBlob {
    /// Digest and length.
    pub descriptor: BlobDescriptor,
    /// Modification time, nanoseconds since 1970.
    pub modified_ns: i64,
}

/// `Corrupt` unless a blob found has the length that it should have.
fn check_length(blob: &BlobDescriptor, found: u64) -> Result<(), StorageError> {
    if found == blob.size {
        return Ok(());
    }
    let message = format!(
        "stored blob {} has {found} bytes instead of {}",
        blob.digest, blob.size
    );
    Err(StorageError::new(StorageErrorKind::Corrupt, message))
}

fn not_found(digest: &Digest) -> StorageError {
    StorageError::new(
        StorageErrorKind::NotFound,
        format!("blob {digest} is not in the store"),
    )
}
