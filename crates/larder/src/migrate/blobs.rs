//! Blobs on their way from one store to another, by their digests: each is hashed while it is read, and none is copied that is there.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use larder_core::{BlobDescriptor, Digest, Hasher};
use larder_storage::{
    BlobStore, Body, Chunks, MetadataStore, NamedBlobs, SealedSpool, StorageError,
    StorageErrorKind, StoredBlob,
};

use super::progress::Progress;

/// Blobs that are under way at once. What each holds in memory is bounded by the stores: parts of uploads, blocks of reads.
const AT_ONCE: usize = 16;
/// Blobs that are looked at together.
const PAGE: u32 = 1_000;
/// How long is waited before each further try where a store does not answer.
const PAUSES: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(20),
];

/// What is wrong with a blob that a store does not list as it should.
const NOT_THERE: &str = "is not there, or not in its length";

/// The blobs that a database names, and the stores that they are in and shall be in.
pub(super) struct Freight<'f> {
    pub(super) rows: &'f MetadataStore,
    pub(super) which: NamedBlobs,
    pub(super) from: &'f Arc<dyn BlobStore>,
    /// Where they shall be; `from`, if they stay.
    pub(super) to: &'f Arc<dyn BlobStore>,
    pub(super) stays: bool,
    /// Whether all bytes are read, where blobs shall be.
    pub(super) reads_all: bool,
    pub(super) progress: &'f Progress,
}

/// What became of all blobs.
#[derive(Debug, Default)]
pub(super) struct Carried {
    pub(super) blobs: u64,
    pub(super) bytes: u64,
    pub(super) copied: u64,
    pub(super) copied_bytes: u64,
    /// Those that the source does not have as they were.
    pub(super) lost: Vec<(Digest, String)>,
}

impl Carried {
    /// What is not to be copied.
    pub(super) fn left_out(&self) -> BTreeSet<Digest> {
        self.lost.iter().map(|(digest, _)| digest.clone()).collect()
    }
}

/// What became of one blob.
enum Outcome {
    Copied(BlobDescriptor),
    Lost(Digest, String),
}

/// What a store has, read along in the order of digests.
struct Inventory<'i> {
    store: &'i dyn BlobStore,
    page: VecDeque<StoredBlob>,
    after: Option<Digest>,
    is_over: bool,
}

impl<'i> Inventory<'i> {
    fn of(store: &'i dyn BlobStore) -> Self {
        Self {
            store,
            page: VecDeque::new(),
            after: None,
            is_over: false,
        }
    }

    /// The length of a blob, if the store has it. Digests are asked for in ascending order.
    async fn length_of(&mut self, digest: &Digest) -> Result<Option<u64>, StorageError> {
        loop {
            match self.page.front() {
                Some(next) if next.descriptor.digest < *digest => drop(self.page.pop_front()),
                Some(next) if next.descriptor.digest == *digest => {
                    return Ok(Some(next.descriptor.size));
                }
                Some(_) => return Ok(None),
                None if self.is_over => return Ok(None),
                None => self.read_on().await?,
            }
        }
    }

    async fn read_on(&mut self) -> Result<(), StorageError> {
        let after = self.after.as_ref();
        let page = patiently(|| self.store.list(after, PAGE as usize)).await?;
        match page.last() {
            Some(last) => self.after = Some(last.descriptor.digest.clone()),
            None => self.is_over = true,
        }
        self.page = page.into();
        Ok(())
    }
}

impl Freight<'_> {
    /// Calls `each` for all pages of the blobs that are named, with those of a page that `store` does not have in their length.
    async fn pages(
        &self,
        store: &dyn BlobStore,
        mut each: impl AsyncFnMut(&[BlobDescriptor], Vec<BlobDescriptor>) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let mut inventory = Inventory::of(store);
        let mut after: Option<Digest> = None;
        loop {
            let page = self.rows.named_blobs(self.which, after.as_ref(), PAGE);
            let page = page.await?;
            let mut missing = Vec::new();
            for blob in &page {
                if inventory.length_of(&blob.digest).await? != Some(blob.size) {
                    missing.push(blob.clone());
                }
            }
            each(&page, missing).await?;
            match page.last() {
                Some(last) if page.len() == PAGE as usize => after = Some(last.digest.clone()),
                _ => return Ok(()),
            }
        }
    }

    /// How many blobs are named, and how many of them the target does not have, with their bytes.
    pub(super) async fn look(&self) -> Result<Carried, StorageError> {
        let mut carried = Carried::default();
        self.pages(&**self.to, async |page, missing| {
            carried.blobs += page.len() as u64;
            carried.bytes += bytes_of(page);
            carried.copied += missing.len() as u64;
            carried.copied_bytes += bytes_of(&missing);
            Ok(())
        })
        .await?;
        Ok(carried)
    }

    /// Copies what the target does not have.
    pub(super) async fn carry(&self) -> Result<Carried, StorageError> {
        let mut carried = Carried::default();
        self.pages(&**self.to, async |page, missing| {
            carried.blobs += page.len() as u64;
            carried.bytes += bytes_of(page);
            if self.stays && self.reads_all {
                let absent: BTreeSet<&Digest> = missing.iter().map(|blob| &blob.digest).collect();
                let there = page.iter().filter(|blob| !absent.contains(&blob.digest));
                carried.lost.extend(self.check_all(there).await?);
            } else {
                let present = page.len() - missing.len();
                let present_bytes = bytes_of(page) - bytes_of(&missing);
                self.progress.add(present as u64, present_bytes);
            }
            // Boxed, so that what is awaited does not depend on the lifetime of an item.
            let carry = missing.into_iter().map(|blob| {
                Box::pin(self.carry_one(blob)) as BoxFuture<'_, Result<Outcome, StorageError>>
            });
            let mut outcomes =
                futures_util::stream::iter(carry.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
            while let Some(outcome) = outcomes.next().await {
                match outcome? {
                    Outcome::Copied(blob) => {
                        carried.copied += 1;
                        carried.copied_bytes += blob.size;
                        self.progress.add(1, blob.size);
                    }
                    Outcome::Lost(digest, why) => {
                        self.progress.add(1, 0);
                        carried.lost.push((digest, why));
                    }
                }
            }
            Ok(())
        })
        .await?;
        Ok(carried)
    }

    /// Looks for all blobs where they shall be, but for those of `left_out`, and reads them if that is wanted. Gives those that are not
    /// there as they should be. A copy that has other bytes is deleted, so that it is made again.
    pub(super) async fn verify(
        &self,
        left_out: &BTreeSet<Digest>,
    ) -> Result<Vec<(Digest, String)>, StorageError> {
        let mut wrong = Vec::new();
        self.pages(&**self.to, async |page, missing| {
            let missing: BTreeSet<Digest> = missing.into_iter().map(|blob| blob.digest).collect();
            let missed = missing.difference(left_out);
            wrong.extend(missed.map(|digest| (digest.clone(), NOT_THERE.to_owned())));
            // Those that stay have been read when they were looked for.
            if self.reads_all && !self.stays {
                let there = page.iter().filter(|blob| !missing.contains(&blob.digest));
                let others = self.check_all(there).await?;
                for (digest, _) in &others {
                    self.to.delete(digest).await?;
                }
                wrong.extend(others);
            } else {
                self.progress.add(page.len() as u64, bytes_of(page));
            }
            Ok(())
        })
        .await?;
        Ok(wrong)
    }

    /// Reads blobs that are where they shall be; gives those that have other bytes.
    async fn check_all<'b>(
        &self,
        blobs: impl Iterator<Item = &'b BlobDescriptor>,
    ) -> Result<Vec<(Digest, String)>, StorageError> {
        let mut wrong = Vec::new();
        let checks = blobs.map(|blob| {
            let check = async move { (blob, self.check(blob).await) };
            Box::pin(check) as BoxFuture<'_, (&BlobDescriptor, Result<(), Why>)>
        });
        let mut checks =
            futures_util::stream::iter(checks.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        while let Some((blob, checked)) = checks.next().await {
            self.progress.add(1, blob.size);
            match checked {
                Ok(()) => {}
                Err(Why::Lost(why)) => wrong.push((blob.digest.clone(), why)),
                Err(Why::Failed(error)) => return Err(error),
            }
        }
        Ok(wrong)
    }

    /// Reads a blob of the target, and compares it with its digest.
    async fn check(&self, blob: &BlobDescriptor) -> Result<(), Why> {
        let check = || async move {
            let body = open(self.to, blob).await?;
            hashed(body, blob, |_| Ok(())).await
        };
        patiently_or(check, Why::is_for_now).await
    }

    async fn carry_one(&self, blob: BlobDescriptor) -> Result<Outcome, StorageError> {
        if self.stays {
            return Ok(Outcome::Lost(blob.digest, NOT_THERE.to_owned()));
        }
        let carried = patiently_or(|| self.try_to_carry(&blob), Why::is_for_now).await;
        match carried {
            Ok(()) => Ok(Outcome::Copied(blob)),
            Err(Why::Lost(why)) => Ok(Outcome::Lost(blob.digest, why)),
            Err(Why::Failed(error)) => Err(error),
        }
    }

    async fn try_to_carry(&self, blob: &BlobDescriptor) -> Result<(), Why> {
        let body = open(self.from, blob).await?;
        let sealed = if let Some(sealed) = SealedSpool::of_stored(blob.clone(), &body) {
            hashed(body, blob, |_| Ok(())).await?;
            sealed
        } else {
            let mut spool = self.to.spool()?;
            hashed(body, blob, |bytes| spool.append(bytes)).await?;
            SealedSpool {
                spool,
                descriptor: blob.clone(),
            }
        };
        let published = self.to.publish(vec![sealed]).await.pop();
        let lost = || StorageError::new(StorageErrorKind::Io, "the blob store lost a blob");
        published.ok_or_else(lost)?.map(drop)?;
        Ok(())
    }
}

/// Why a blob could not be had.
#[derive(Debug)]
enum Why {
    /// The store does not have it as it was: completes "the blob …".
    Lost(String),
    Failed(StorageError),
}

impl Why {
    fn is_for_now(&self) -> bool {
        matches!(self, Self::Failed(error) if is_for_now(error))
    }
}

impl From<StorageError> for Why {
    fn from(error: StorageError) -> Self {
        Self::Failed(error)
    }
}

fn is_for_now(error: &StorageError) -> bool {
    error.kind == StorageErrorKind::Unavailable
}

fn bytes_of(blobs: &[BlobDescriptor]) -> u64 {
    blobs.iter().map(|blob| blob.size).sum()
}

async fn open(store: &Arc<dyn BlobStore>, blob: &BlobDescriptor) -> Result<Body, Why> {
    store.open(blob).await.map_err(|error| match error.kind {
        StorageErrorKind::NotFound => Why::Lost("is not there".to_owned()),
        StorageErrorKind::Corrupt => Why::Lost("has not its length, or other bytes".to_owned()),
        _ => Why::Failed(error),
    })
}

/// Hands all bytes of a body to `take`, and compares them with the digest that they should have.
async fn hashed(
    body: Body,
    blob: &BlobDescriptor,
    mut take: impl FnMut(&[u8]) -> Result<(), StorageError>,
) -> Result<(), Why> {
    let mut hasher = Hasher::new(&[]);
    let mut length = 0;
    let mut chunks: Chunks = body.chunks();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(unread)?;
        hasher.update(&chunk);
        length += chunk.len() as u64;
        take(&chunk)?;
    }
    if length == blob.size && hasher.finish_sha256() == blob.digest {
        return Ok(());
    }
    Err(Why::Lost("has other bytes".to_owned()))
}

/// A body that could not be read to its end.
fn unread(error: io::Error) -> Why {
    let inner = error.get_ref();
    let inner = inner.and_then(|inner| inner.downcast_ref::<StorageError>());
    if inner.is_some_and(|inner| inner.kind == StorageErrorKind::Corrupt) {
        return Why::Lost("has other bytes".to_owned());
    }
    // What the disk does not give back (EIO, 5 on Linux) is lost; anything else may be better later.
    if error.raw_os_error() == Some(5) {
        return Why::Lost("cannot be read from the disk".to_owned());
    }
    Why::Failed(StorageError {
        kind: StorageErrorKind::Unavailable,
        message: "a blob cannot be read to its end".to_owned(),
        source: Some(Box::new(error)),
    })
}

/// Asks again, after pauses, where a store does not answer.
async fn patiently<T, F: Future<Output = Result<T, StorageError>>>(
    ask: impl Fn() -> F,
) -> Result<T, StorageError> {
    patiently_or(ask, is_for_now).await
}

async fn patiently_or<T, E, F: Future<Output = Result<T, E>>>(
    ask: impl Fn() -> F,
    is_for_now: impl Fn(&E) -> bool,
) -> Result<T, E> {
    for pause in PAUSES {
        match ask().await {
            Err(error) if is_for_now(&error) => tokio::time::sleep(pause).await,
            other => return other,
        }
    }
    ask().await
}
