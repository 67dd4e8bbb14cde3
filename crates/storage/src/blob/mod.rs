//! Bytes under the name of their SHA-256. A blob is complete and immutable from the moment its name exists; nothing else is ever
//! reachable by a reader.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::{BoxFuture, Either, Ready};
use larder_core::{BlobDescriptor, Digest, sha256};

use crate::body::Body;
use crate::error::{StorageError, StorageErrorKind};

mod checked;
pub mod conformance;
mod growing;
mod growing_body;
mod growing_follower;
mod local;
mod memory;
mod object;
mod pins;
mod presigned;
mod tier;

pub use checked::{Flaw, is_sound};
pub(crate) use checked::{Rate, check};
pub use growing::{End, GrowingSpool, Progress, Unread, Withheld};
pub use growing_body::GrowingBody;
pub use growing_follower::Arriving;
pub use local::{FsBlobStore, MOST_OPEN_BLOBS, Space, Spool};
pub use memory::MemoryBlobStore;
pub use object::{
    Growth, MemoryObjects, MultipartUpload, ObjectBlobStore, ObjectInfo, ObjectStore, Refused,
    S3Objects, S3Settings, Source, Staged, UploadLeases,
};
pub use pins::BlobPin;
pub use presigned::PresignedUrl;
pub use tier::TieredBlobStore;

/// A blob on its way to be read: there at once where the store has it at hand, and then nothing has been allocated for it.
pub type Opening<'a> =
    Either<Ready<Result<Body, StorageError>>, BoxFuture<'a, Result<Body, StorageError>>>;

/// Where blobs are kept: files, memory, or the objects of another service.
pub trait BlobStore: Send + Sync + Debug {
    /// A new empty spool. Cheap, and without a wait: a spool is always local.
    ///
    /// # Errors
    /// `Full` when free space is below the reserve ([`Space::reserve`]).
    fn spool(&self) -> Result<Spool, StorageError>;

    /// The same for bytes of which it is known what they should become: a store that is somewhere else may begin to take them while they
    /// come. Nobody can read them there before they are published.
    ///
    /// # Errors
    /// As for [`spool`](Self::spool).
    fn spool_for(&self, _coming: &ExpectedBlob) -> Result<Spool, StorageError> {
        self.spool()
    }

    /// Opens a blob for reading. Of a local file: one open and one fstat, made where it is called.
    ///
    /// # Errors
    /// `NotFound` if there is none, `Corrupt` if its length is not `blob.size`, and what else keeps the store from telling.
    fn open<'a>(&'a self, blob: &'a BlobDescriptor) -> Opening<'a>;

    /// Opens a blob that is read once, as a whole: it does not stay open, and its length is not looked at, so that the reader has to
    /// find out whether it is `blob.size`. Cheap: one open of a local file. `None` if it is no such file.
    fn open_once(&self, _blob: &BlobDescriptor) -> Option<Body> {
        None
    }

    /// Opens a blob where it is kept for good, past all that is in front of that: for who wants to know whether it is still what it was.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    fn open_kept<'a>(
        &'a self,
        blob: &'a BlobDescriptor,
    ) -> BoxFuture<'a, Result<Body, StorageError>> {
        match self.open(blob) {
            Either::Left(ready) => Box::pin(ready),
            Either::Right(coming) => coming,
        }
    }

    /// A blob was found to have other bytes: from now on it is as good as absent for who publishes it, and what is there is replaced. It is
    /// known to this store as long as it is open.
    fn doubt(&self, _digest: &Digest) {}

    /// Reads some of what is kept in front of the store for its readers, from behind a digest on and at so many bytes a second, and drops what
    /// is not what it should be. Nothing, where everything is read from where it is kept for good.
    ///
    /// # Errors
    /// It cannot be read at present.
    fn check_copies<'a>(
        &'a self,
        _after: Option<&'a Digest>,
        _rate: u64,
    ) -> BoxFuture<'a, Result<CheckedCopies, StorageError>> {
        Box::pin(std::future::ready(Ok(CheckedCopies::default())))
    }

    /// Where anybody may read the whole of a blob with a GET for some minutes, without asking here; `None` where that is not to be had, or
    /// not known to be there at present.
    fn presign<'a>(&'a self, _blob: &'a BlobDescriptor) -> BoxFuture<'a, Option<PresignedUrl>> {
        Box::pin(std::future::ready(None))
    }

    /// Makes spools durable under their digests, in the order of `batch`: every file is on stable storage before its name appears,
    /// and every directory touched is synchronised once per batch (hazard L1). Of a store that is not files the same is asked: what
    /// is acknowledged is durable, and a name stands for all of its bytes or for none. It may be done though nobody waits for it.
    ///
    /// A blob that is there already with the same size is left alone; one of another size is replaced in one atomic step. The
    /// caller answers for digest and bytes agreeing. The blob cannot be deleted while a returned [`BlobInfo`] or a clone of it
    /// lives: hold it until the row that refers to it is committed (hazard L3).
    fn publish(
        &self,
        batch: Vec<SealedSpool>,
    ) -> BoxFuture<'static, Vec<Result<BlobInfo, StorageError>>>;

    /// Removes a blob. `false` when there was none, or when it is held by a live [`BlobInfo`]. Open files stay readable.
    ///
    /// # Errors
    /// The store fails; the blob may still be there.
    fn delete<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool, StorageError>>;

    /// Removes some blobs, each as by [`delete`](Self::delete), several at once where that is of use, and begins with none after `until`. Gives
    /// what became of each, in their order; `None` where it was not tried.
    fn delete_all(
        &self,
        digests: Vec<Digest>,
        until: Instant,
    ) -> BoxFuture<'_, Vec<Option<Result<bool, StorageError>>>> {
        Box::pin(async move {
            let mut outcomes = Vec::with_capacity(digests.len());
            for digest in &digests {
                outcomes.push(if Instant::now() < until {
                    Some(self.delete(digest).await)
                } else {
                    None
                });
            }
            outcomes
        })
    }

    /// How much space there is for spools, at most one second old.
    ///
    /// # Errors
    /// It cannot be measured.
    fn free_space(&self) -> Result<Space, StorageError>;

    /// Asks the service that keeps the blobs, if there is one, whether it does: [`report`](Self::report) tells what came of it.
    fn ping(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    /// How the store is, and what it has noticed since the start. Asks nobody.
    fn report(&self) -> StoreReport {
        StoreReport::default()
    }

    /// Up to `limit` blobs with digests above `after`, in ascending order: what is really there, for the sweeper of orphans.
    ///
    /// # Errors
    /// The store fails.
    fn list<'a>(
        &'a self,
        after: Option<&'a Digest>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<StoredBlob>, StorageError>>;

    /// Stores a few bytes that are at hand: they are hashed and spooled where this is called.
    ///
    /// # Errors
    /// As for [`spool`](Self::spool) and [`publish`](Self::publish).
    fn put_bytes<'a>(&'a self, bytes: &'a [u8]) -> BoxFuture<'a, Result<BlobInfo, StorageError>> {
        Box::pin(async move {
            let mut spool = self.spool()?;
            spool.append(bytes)?;
            let descriptor = BlobDescriptor {
                digest: sha256(bytes),
                size: bytes.len() as u64,
            };
            let sealed = SealedSpool { spool, descriptor };
            self.publish(vec![sealed]).await.pop().unwrap_or_else(lost)
        })
    }
}

/// How a store is, for whoever operates it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreReport {
    /// What it is, in one word.
    pub kind: &'static str,
    /// Whether it has not answered yet since the start, so that nothing can be said of what it has.
    pub is_waiting: bool,
    /// Why it fails at present.
    pub trouble: Option<String>,
    /// Blocks of bytes that were not what had been stored, and were not given.
    pub mismatches: u64,
    /// Presigned URLs that were made.
    pub presigned: u64,
    /// The local tier in front of it, if there is one.
    pub tier: Option<TierReport>,
}

impl Default for StoreReport {
    fn default() -> Self {
        Self {
            kind: "filesystem",
            is_waiting: false,
            trouble: None,
            mismatches: 0,
            presigned: 0,
            tier: None,
        }
    }
}

/// What a local tier holds and has done since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TierReport {
    /// Bytes of the blobs that it holds.
    pub bytes: u64,
    /// What it may hold.
    pub budget: u64,
    /// Blobs that were fetched into it.
    pub fills: u64,
    /// Blobs that were taken out of it to make room.
    pub evicted: u64,
    /// Blobs that were taken out of it because they were not what they should be.
    pub spoilt: u64,
}

/// What came of a look at copies in front of a store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckedCopies {
    /// The last one that was looked at; `None`: there are no more.
    pub last: Option<Digest>,
    /// Bytes that were read.
    pub bytes: u64,
    /// Those that were not what they should be, and are gone.
    pub dropped: Vec<BlobDescriptor>,
}

/// What is known of bytes before they come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedBlob {
    /// The SHA-256 that they must have.
    pub digest: Digest,
    /// How many there should be, if that is known.
    pub length: Option<u64>,
}

/// A spool whose bytes are complete and verified, on its way to [`BlobStore::publish`].
#[derive(Debug)]
pub struct SealedSpool {
    /// The bytes.
    pub spool: Spool,
    /// Their SHA-256 and length.
    pub descriptor: BlobDescriptor,
}

impl SealedSpool {
    /// A stored file, known to have this digest and length, on its way to another store than the one it is in; `None` if the body is not
    /// a whole file. It is not written again before it is put there.
    pub fn of_stored(descriptor: BlobDescriptor, body: &Body) -> Option<Self> {
        match body {
            Body::File {
                file,
                offset: 0,
                length,
            } if *length == descriptor.size => Some(Self {
                spool: Spool::over(Arc::clone(file), *length),
                descriptor,
            }),
            _ => None,
        }
    }

    /// Its bytes, which stay readable when it has been published or is gone.
    pub fn body(&self) -> Body {
        Body::file(self.spool.reader(), self.descriptor.size)
    }
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

/// A batch gave fewer results than it had blobs.
fn lost<T>() -> Result<T, StorageError> {
    Err(StorageError::new(
        StorageErrorKind::Io,
        "the blob store lost a blob of a batch",
    ))
}
