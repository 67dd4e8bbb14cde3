//! Blobs as objects of another service, which knows no files: it takes and gives streams, at its own pace.

mod ahead;
mod leases;
mod memory;
mod publish;
mod s3;
mod sums;

use std::collections::HashSet;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as PlainMutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, Either};
use larder_core::{BlobDescriptor, Digest, DigestAlgorithm};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::Mutex;

use super::local::FsBlobStore;
use super::pins::Pins;
use super::{
    BlobInfo, BlobStore, ExpectedBlob, Opening, PresignedUrl, SealedSpool, Space, Spool,
    StoreReport, StoredBlob, check_length, not_found,
};
use crate::body::{Body, Chunks};
use crate::error::{StorageError, StorageErrorKind};

use self::ahead::Ahead;
use self::sums::{Checked, Sums, damaged, has_sums};

pub use self::ahead::Growth;
pub use self::leases::{MultipartUpload, UploadLeases};
pub use self::memory::MemoryObjects;
pub(super) use self::publish::ToPut;
pub use self::s3::{Refused, S3Objects, S3Settings};

/// A reader has the first bytes by then, or is told: looking for the blob, its sums and the bytes themselves take no longer together.
const FIRST_BYTES: Duration = Duration::from_secs(8);
/// A store that took its time to be found has this much at least to give something.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);
/// What all keys begin with. The rest is the digest in hexadecimal digits.
const PREFIX: &str = "sha256/";
/// What the keys of sums begin with.
const SUMS_PREFIX: &str = "sums/";
/// Blobs whose sums are usually in memory: eight bytes for each MiB of them.
const USUAL_SUMS: usize = 64;
/// What all sums in memory may take, in bytes: those of a tebibyte.
const KEPT_SUMS: u64 = 8 << 20;
/// Blobs are told apart by the last byte of their digest where one must wait for another: many come in the order of their digests, and then
/// those that begin alike come together.
const TURNS: usize = 64;
/// Objects that are deleted at the same time.
const DELETED_AT_ONCE: usize = 16;
/// How long a presigned URL is good: for the time in which a client begins to read.
const PRESIGN_LIFE: Duration = Duration::from_mins(5);
/// A store that does not say by then that it has the blob is not where clients are sent.
const PRESIGN_WAIT: Duration = Duration::from_secs(1);

/// A service that keeps objects under keys. Each call may take its time, and fail.
pub trait ObjectStore: Send + Sync + Debug {
    /// What is there under a key; `None` if nothing is.
    ///
    /// # Errors
    /// The service cannot be asked.
    fn head<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<ObjectInfo>, StorageError>>;

    /// Asked when [`head`](Self::head) has found nothing, and that is about to have consequences: whether it is the object that is not
    /// there, and not the service.
    ///
    /// # Errors
    /// The service cannot be asked, or something else is missing.
    fn confirm_absent<'a>(&'a self, _key: &'a str) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Why the service fails at present, and for how long; `None` if it answered when it was asked last. Asks nobody.
    fn trouble(&self) -> Option<(String, Duration)> {
        None
    }

    /// Asks whether the service is there and does what larder asks for: [`trouble`](Self::trouble) tells what came of it.
    fn ping(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    /// The bytes of an object from `range.start` to before `range.end`.
    fn get(&self, key: &str, range: Range<u64>) -> Chunks;

    /// Puts an object in place of what there may be, durably: under its key there is all of it, or what was there before.
    ///
    /// # Errors
    /// The body cannot be read, or the service does not take it.
    fn put<'a>(
        &'a self,
        key: &'a str,
        body: Body,
    ) -> BoxFuture<'a, Result<ObjectInfo, StorageError>>;

    /// Sends the bytes of an object, and does not put them under its key yet. `None` where the service takes whole objects only, or the
    /// source is so short that nothing would be gained.
    ///
    /// # Errors
    /// As for [`put`](Self::put).
    fn stage<'a>(
        &'a self,
        _key: &'a str,
        _source: Source,
    ) -> BoxFuture<'a, Result<Option<Box<dyn Staged>>, StorageError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// A URL by which anybody can GET an object for `life`, whether it is there or not; `None` where the service has none.
    ///
    /// # Errors
    /// It cannot be signed.
    fn presign<'a>(
        &'a self,
        _key: &'a str,
        _life: Duration,
    ) -> BoxFuture<'a, Result<Option<PresignedUrl>, StorageError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Deletes an object, whether there is one or not.
    ///
    /// # Errors
    /// The service cannot be asked; it may delete it yet.
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), StorageError>>;

    /// Up to `limit` objects with keys above `after`, in ascending order.
    ///
    /// # Errors
    /// The service cannot be asked.
    fn list<'a>(
        &'a self,
        after: &'a str,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(String, ObjectInfo)>, StorageError>>;
}

/// Where the bytes of an object come from that is sent in parts.
#[derive(Debug, Clone)]
pub enum Source {
    /// All of them are there. Parts of it can be read.
    Whole(Body),
    /// They are still being written; so many will be, if that is known.
    Growing(Growth, Option<u64>),
}

/// Bytes that a service has, and that are not under their key. Dropped, they are taken back.
pub trait Staged: Send + Debug {
    /// Puts them in place of what there may be, durably.
    ///
    /// # Errors
    /// The service does not do it; they are taken back.
    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<ObjectInfo, StorageError>>;
}

/// What a service tells of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Length in bytes.
    pub length: u64,
    /// When it was put, nanoseconds since 1970.
    pub modified_ns: i64,
}

/// A store over the objects of a service. Spools are local files.
#[derive(Debug)]
pub struct ObjectBlobStore {
    shared: Arc<Shared>,
    local: FsBlobStore,
}

/// A digest and its entry in the table count, too.
#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Digest, Arc<Sums>> for ByBytes {
    fn weight(&self, digest: &Digest, sums: &Arc<Sums>) -> u64 {
        (digest.as_bytes().len() + 128) as u64 + sums.bytes()
    }
}

/// What goes on after a call has been given up.
#[derive(Debug)]
struct Shared {
    objects: Arc<dyn ObjectStore>,
    pins: Arc<Pins>,
    /// Held while a blob is deleted, and by who is about to publish it until it is pinned: an object that is looked for and found must
    /// not go meanwhile (hazard L3).
    turns: [Mutex<()>; TURNS],
    /// Of the blobs that were read last.
    sums: Cache<Digest, Arc<Sums>, ByBytes>,
    /// Blobs whose objects were found to have other bytes: as good as absent, and replaced when they are published again.
    damaged: PlainMutex<HashSet<Digest>>,
    /// Blocks that were not what they should have been.
    mismatches: AtomicU64,
    presigned: AtomicU64,
}

impl ObjectBlobStore {
    /// A store over `objects`. In `local` are its spools, and no blobs.
    pub fn new(objects: Arc<dyn ObjectStore>, local: FsBlobStore) -> Self {
        Self {
            shared: Arc::new(Shared {
                objects,
                pins: Arc::default(),
                turns: std::array::from_fn(|_| Mutex::new(())),
                sums: Cache::with_weighter(USUAL_SUMS, KEPT_SUMS, ByBytes),
                damaged: PlainMutex::default(),
                mismatches: AtomicU64::new(0),
                presigned: AtomicU64::new(0),
            }),
            local,
        }
    }

    /// Puts bytes that stay where they are; as [`publish`](BlobStore::publish).
    pub(super) async fn put_all(&self, batch: Vec<ToPut>) -> Vec<Result<BlobInfo, StorageError>> {
        self.shared.put_all(batch).await
    }

    /// A spool of `local` whose bytes go to the service while it grows, as far as that takes objects in parts.
    pub(super) fn ahead(&self, mut spool: Spool, expected: &ExpectedBlob) -> Spool {
        if let Ok(key) = key_of(&expected.digest)
            && let Some(ahead) = Ahead::of(&self.shared, key, expected, spool.reader())
        {
            spool.be_followed(Box::new(ahead));
        }
        spool
    }
}

fn too_late(digest: &Digest) -> StorageError {
    StorageError::new(
        StorageErrorKind::Unavailable,
        format!("cannot read blob {digest}: the object store does not answer in time"),
    )
}

/// The key of a blob. Only SHA-256 names blobs.
fn key_of(digest: &Digest) -> Result<String, StorageError> {
    if digest.algorithm() == DigestAlgorithm::Sha256 {
        return Ok(format!("{PREFIX}{}", digest.to_hex()));
    }
    let message = format!("blobs are named by their SHA-256, not by {digest}");
    Err(StorageError::new(StorageErrorKind::NotFound, message))
}

fn key_of_sums(digest: &Digest) -> String {
    format!("{SUMS_PREFIX}{}", digest.to_hex())
}

impl Shared {
    fn turn(&self, digest: &Digest) -> &Mutex<()> {
        let last = digest.as_bytes().last().copied().unwrap_or(0);
        &self.turns[usize::from(last) % TURNS]
    }

    fn damaged(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That the blob is there, with its length.
    async fn find(&self, blob: &BlobDescriptor, key: &str) -> Result<(), StorageError> {
        let Some(info) = self.objects.head(key).await? else {
            self.objects.confirm_absent(key).await?;
            return Err(not_found(&blob.digest));
        };
        check_length(blob, info.length)
    }

    /// Nobody is sent to a store that does not answer, or does not have the blob, or has been found to have other bytes.
    async fn presign(&self, blob: &BlobDescriptor) -> Option<PresignedUrl> {
        let key = key_of(&blob.digest).ok()?;
        if self.objects.trouble().is_some() || self.damaged().contains(&blob.digest) {
            return None;
        }
        let found = tokio::time::timeout(PRESIGN_WAIT, self.objects.head(&key)).await;
        let found = found.ok()?.ok()??;
        if found.length != blob.size {
            return None;
        }
        match self.objects.presign(&key, PRESIGN_LIFE).await {
            Ok(url) => {
                let url = url?;
                self.presigned.fetch_add(1, Ordering::Relaxed);
                Some(url)
            }
            Err(error) => {
                tracing::warn!(%error, "no presigned URL: the file is sent from here");
                None
            }
        }
    }

    async fn delete(&self, digest: &Digest) -> Result<bool, StorageError> {
        let key = key_of(digest)?;
        let _turn = self.turn(digest).lock().await;
        if self.pins.unless_pinned(digest, || ()).is_none() {
            return Ok(false);
        }
        // The answer to a deletion does not say whether there was anything.
        let found = self.objects.head(&key).await?;
        if found.is_some() {
            self.objects.delete(&key).await?;
        }
        self.sums.remove(digest);
        self.damaged().remove(digest);
        if found.is_none_or(|found| has_sums(found.length))
            && let Err(error) = self.objects.delete(&key_of_sums(digest)).await
        {
            tracing::debug!(%error, "the sums of a deleted object were left behind");
        }
        Ok(found.is_some())
    }
}

impl BlobStore for ObjectBlobStore {
    fn spool(&self) -> Result<Spool, StorageError> {
        self.local.spool()
    }

    fn spool_for(&self, expected: &ExpectedBlob) -> Result<Spool, StorageError> {
        Ok(self.ahead(self.local.spool()?, expected))
    }

    fn open<'a>(&'a self, blob: &'a BlobDescriptor) -> Opening<'a> {
        Either::Right(Box::pin(async move {
            let key = key_of(&blob.digest)?;
            if self.shared.damaged().contains(&blob.digest) {
                return Err(damaged(&blob.digest));
            }
            let began = tokio::time::Instant::now();
            let found = tokio::time::timeout(FIRST_BYTES, self.shared.find(blob, &key)).await;
            found.map_err(|_| too_late(&blob.digest))??;
            let patience = FIRST_BYTES.saturating_sub(began.elapsed());
            Ok(Body::streamed(Checked {
                shared: Arc::clone(&self.shared),
                blob: blob.clone(),
                key,
                patience: patience.max(LEAST_PATIENCE),
            }))
        }))
    }

    fn presign<'a>(&'a self, blob: &'a BlobDescriptor) -> BoxFuture<'a, Option<PresignedUrl>> {
        Box::pin(self.shared.presign(blob))
    }

    fn doubt(&self, digest: &Digest) {
        self.shared.damaged().insert(digest.clone());
        self.shared.sums.remove(digest);
    }

    fn publish(
        &self,
        batch: Vec<SealedSpool>,
    ) -> BoxFuture<'static, Vec<Result<BlobInfo, StorageError>>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let mut batch = batch;
            let put = batch.iter_mut().map(ToPut::of).collect();
            shared.put_all(put).await
        })
    }

    fn delete<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool, StorageError>> {
        Box::pin(self.shared.delete(digest))
    }

    fn delete_all(
        &self,
        digests: Vec<Digest>,
        until: Instant,
    ) -> BoxFuture<'_, Vec<Option<Result<bool, StorageError>>>> {
        let deletions = digests.into_iter().map(|digest| {
            // Boxed, so that what is awaited does not depend on the lifetime of an item.
            Box::pin(async move {
                if Instant::now() < until {
                    Some(self.shared.delete(&digest).await)
                } else {
                    None
                }
            }) as BoxFuture<'_, _>
        });
        let deletions: Vec<_> = deletions.collect();
        Box::pin(
            futures_util::stream::iter(deletions)
                .buffered(DELETED_AT_ONCE)
                .collect(),
        )
    }

    fn free_space(&self) -> Result<Space, StorageError> {
        self.local.free_space()
    }

    fn ping(&self) -> BoxFuture<'static, ()> {
        self.shared.objects.ping()
    }

    fn report(&self) -> StoreReport {
        let trouble = self.shared.objects.trouble();
        StoreReport {
            kind: "s3",
            is_waiting: false,
            trouble: trouble.map(|(why, since)| {
                format!(
                    "the object store has failed for {} s: {why}",
                    since.as_secs()
                )
            }),
            mismatches: self.shared.mismatches.load(Ordering::Relaxed),
            presigned: self.shared.presigned.load(Ordering::Relaxed),
            tier: None,
        }
    }

    fn list<'a>(
        &'a self,
        after: Option<&'a Digest>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<StoredBlob>, StorageError>> {
        Box::pin(async move {
            let mut after = match after {
                Some(digest) => key_of(digest)?,
                None => PREFIX.to_owned(),
            };
            let mut found = Vec::new();
            while found.len() < limit {
                let left = limit - found.len();
                let page = self.shared.objects.list(&after, left).await?;
                let Some((last, _)) = page.last() else { break };
                after.clone_from(last);
                if !after.starts_with(PREFIX) {
                    // In order: what follows is none of ours.
                    found.extend(page.into_iter().filter_map(stored));
                    break;
                }
                // A key that is no digest is not ours.
                found.extend(page.into_iter().filter_map(stored));
            }
            Ok(found)
        })
    }
}

fn stored((key, info): (String, ObjectInfo)) -> Option<StoredBlob> {
    let digits = key.strip_prefix(PREFIX)?;
    let digest = Digest::from_hex(DigestAlgorithm::Sha256, digits).ok()?;
    Some(StoredBlob {
        descriptor: BlobDescriptor {
            digest,
            size: info.length,
        },
        modified_ns: info.modified_ns,
    })
}

#[cfg(test)]
#[path = "object_tests.rs"]
mod tests;
