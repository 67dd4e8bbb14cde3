//! Blobs as objects of another service, which knows no files: it takes and gives streams, at its own pace.

mod memory;

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, Either};
use larder_core::{BlobDescriptor, Digest, DigestAlgorithm};
use tokio::sync::Mutex;

use super::local::FsBlobStore;
use super::pins::Pins;
use super::{
    BlobInfo, BlobStore, Opening, SealedSpool, Space, Spool, StoredBlob, check_length, not_found,
};
use crate::body::{Body, Chunks, Source};
use crate::error::{StorageError, StorageErrorKind};

pub use self::memory::MemoryObjects;

/// What all keys begin with. The rest is the digest in hexadecimal digits.
const PREFIX: &str = "sha256/";
/// Objects of a batch that are put at the same time.
const AT_ONCE: usize = 16;
/// Blobs are told apart by the first byte of their digest where one must wait for another.
const TURNS: usize = 64;

/// A service that keeps objects under keys. Each call may take its time, and fail.
pub trait ObjectStore: Send + Sync + Debug {
    /// What is there under a key; `None` if nothing is.
    ///
    /// # Errors
    /// The service cannot be asked.
    fn head<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<ObjectInfo>, StorageError>>;

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

    /// Deletes an object; whether there was one.
    ///
    /// # Errors
    /// The service cannot be asked.
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, StorageError>>;

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
    objects: Arc<dyn ObjectStore>,
    local: FsBlobStore,
    pins: Arc<Pins>,
    /// Held while a blob is deleted, and by who is about to publish it until it is pinned: an object that is looked for and found must
    /// not go meanwhile (hazard L3).
    turns: Arc<[Mutex<()>; TURNS]>,
}

impl ObjectBlobStore {
    /// A store over `objects`. In `local` are its spools, and no blobs.
    pub fn new(objects: Arc<dyn ObjectStore>, local: FsBlobStore) -> Self {
        Self {
            objects,
            local,
            pins: Arc::default(),
            turns: Arc::new(std::array::from_fn(|_| Mutex::new(()))),
        }
    }
}

fn turn<'t>(turns: &'t [Mutex<()>; TURNS], digest: &Digest) -> &'t Mutex<()> {
    let first = digest.as_bytes().first().copied().unwrap_or(0);
    &turns[usize::from(first) % TURNS]
}

/// The key of a blob. Only SHA-256 names blobs.
fn key_of(digest: &Digest) -> Result<String, StorageError> {
    if digest.algorithm() == DigestAlgorithm::Sha256 {
        return Ok(format!("{PREFIX}{}", digest.to_hex()));
    }
    let message = format!("blobs are named by their SHA-256, not by {digest}");
    Err(StorageError::new(StorageErrorKind::NotFound, message))
}

async fn put(
    objects: &dyn ObjectStore,
    pins: &Arc<Pins>,
    turns: &[Mutex<()>; TURNS],
    sealed: SealedSpool,
) -> Result<BlobInfo, StorageError> {
    let descriptor = &sealed.descriptor;
    check_length(descriptor, sealed.spool.len())?;
    let key = key_of(&descriptor.digest)?;
    let pin = {
        let _turn = turn(turns, &descriptor.digest).lock().await;
        pins.pin(&descriptor.digest, None)
    };
    let present = objects.head(&key).await?;
    let info = match present.filter(|info| info.length == descriptor.size) {
        Some(info) => info,
        None => objects.put(&key, sealed.body()).await?,
    };
    Ok(BlobInfo {
        descriptor: sealed.descriptor,
        modified_ns: info.modified_ns,
        pin: Some(pin),
    })
}

impl BlobStore for ObjectBlobStore {
    fn spool(&self) -> Result<Spool, StorageError> {
        self.local.spool()
    }

    fn open<'a>(&'a self, blob: &'a BlobDescriptor) -> Opening<'a> {
        Either::Right(Box::pin(async move {
            let key = key_of(&blob.digest)?;
            let info = self.objects.head(&key).await?;
            let info = info.ok_or_else(|| not_found(&blob.digest))?;
            check_length(blob, info.length)?;
            Ok(Body::streamed(Object {
                objects: Arc::clone(&self.objects),
                key,
                length: info.length,
            }))
        }))
    }

    fn publish(
        &self,
        batch: Vec<SealedSpool>,
    ) -> BoxFuture<'static, Vec<Result<BlobInfo, StorageError>>> {
        let (objects, pins, turns) = (
            Arc::clone(&self.objects),
            Arc::clone(&self.pins),
            Arc::clone(&self.turns),
        );
        Box::pin(async move {
            let puts = batch
                .into_iter()
                .map(|sealed| put(&*objects, &pins, &turns, sealed));
            futures_util::stream::iter(puts)
                .buffered(AT_ONCE)
                .collect()
                .await
        })
    }

    fn delete<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool, StorageError>> {
        Box::pin(async move {
            let key = key_of(digest)?;
            let _turn = turn(&self.turns, digest).lock().await;
            match self.pins.unless_pinned(digest, || ()) {
                Some(()) => self.objects.delete(&key).await,
                None => Ok(false),
            }
        })
    }

    fn free_space(&self) -> Result<Space, StorageError> {
        self.local.free_space()
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
                let page = self.objects.list(&after, limit - found.len()).await?;
                let Some((last, _)) = page.last() else { break };
                after.clone_from(last);
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

/// An object that has been found.
#[derive(Debug)]
struct Object {
    objects: Arc<dyn ObjectStore>,
    key: String,
    length: u64,
}

impl Source for Object {
    fn length(&self) -> Option<u64> {
        Some(self.length)
    }

    fn read(&self, range: Option<Range<u64>>) -> Chunks {
        self.objects.get(&self.key, range.unwrap_or(0..self.length))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::blob::conformance;

    fn store(objects: &Arc<MemoryObjects>) -> (tempfile::TempDir, ObjectBlobStore) {
        let directory = tempfile::tempdir().unwrap();
        let local = FsBlobStore::open(directory.path()).unwrap();
        let objects = Arc::clone(objects) as Arc<dyn ObjectStore>;
        (directory, ObjectBlobStore::new(objects, local))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn conforms() {
        let objects = Arc::new(MemoryObjects::with_delay(Duration::from_micros(300)));
        let (_directory, store) = store(&objects);
        conformance::suite(Arc::new(store)).await;
    }

    #[tokio::test]
    async fn a_part_is_fetched_as_a_part() {
        let objects = Arc::new(MemoryObjects::default());
        let (_directory, store) = store(&objects);
        let bytes: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        let blob = store.put_bytes(&bytes).await.unwrap().descriptor;
        let part = store.open(&blob).await.unwrap().range(100_000, 100_010);
        assert_eq!(
            part.unwrap().read(10).await.unwrap(),
            bytes[100_000..100_010]
        );
        assert_eq!(objects.bytes_given(), 10);
    }

    #[tokio::test]
    async fn keys_of_others_are_passed_over() {
        let objects = Arc::new(MemoryObjects::default());
        let (_directory, store) = store(&objects);
        let blob = store.put_bytes(b"ours").await.unwrap().descriptor;
        for key in ["sha256/0000", "sha256/zz", "other/x"] {
            objects
                .put(key, Body::Memory("theirs".into()))
                .await
                .unwrap();
        }
        for limit in [1, 2, 10] {
            let found = store.list(None, limit).await.unwrap();
            assert_eq!(found.len(), 1, "limit {limit}");
            assert_eq!(found[0].descriptor, blob);
        }
    }

    #[tokio::test]
    async fn a_service_that_breaks_off_gives_no_body() {
        let objects = Arc::new(MemoryObjects::default());
        let (_directory, store) = store(&objects);
        let bytes = vec![7; 100_000];
        let blob = store.put_bytes(&bytes).await.unwrap().descriptor;
        let body = store.open(&blob).await.unwrap();
        objects.break_off(true);
        assert!(body.read(100_000).await.is_err());
        let error = store.open(&blob).await.unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Unavailable);
        objects.break_off(false);
        assert_eq!(body.read(100_000).await.unwrap(), bytes);
    }
}
