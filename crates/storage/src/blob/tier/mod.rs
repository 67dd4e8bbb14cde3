//! Files in front of a store of objects: what was read or written of late is there at once, and stays so when the store does not answer.
//!
//! The files are a store of their own ([`FsBlobStore`]) in a folder of their own, so that they are never taken for the only copy. Nothing
//! in them is needed: they may be deleted while larder does not run. A file has its name only when all of it is on the disk.

mod copies;
mod fill;
mod recency;

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use futures_util::future::{BoxFuture, Either, ready};
use larder_core::{BlobDescriptor, Digest};

use self::fill::{Cold, fill};
use self::recency::Recency;
use super::local::FsBlobStore;
use super::object::{ObjectBlobStore, ObjectStore, ToPut};
use super::{
    BlobInfo, BlobStore, CheckedCopies, ExpectedBlob, GrowingSpool, Opening, PresignedUrl,
    SealedSpool, Space, Spool, StoreReport, StoredBlob, TierReport, Withheld,
};
use crate::body::Body;
use crate::error::{StorageError, StorageErrorKind};

/// Fills that run at once; what is asked for beyond them comes from the store itself.
const MOST_FILLS: usize = 64;
/// The last bytes of a blob wait until all of it has been compared with its digest.
const TAIL: u64 = 16 << 10;
/// What is longer takes its time on the way to the disk.
const LONG: u64 = 8 << 20;
/// Blobs that are found in one look into the folder.
const PAGE: usize = 1_000;

/// A store of objects behind a local tier.
#[derive(Debug)]
pub struct TieredBlobStore(Arc<Tier>);

#[derive(Debug)]
struct Tier {
    local: FsBlobStore,
    remote: ObjectBlobStore,
    recency: Recency,
    /// Bytes; `None`: four fifths of what is free.
    budget: Option<u64>,
    filling: Mutex<HashMap<Digest, Arc<GrowingSpool>>>,
    is_evicting: AtomicBool,
    /// What the store has said so far, while it has not answered as it should since the start.
    waiting: Mutex<Option<String>>,
    fills: AtomicU64,
    evicted: AtomicU64,
    /// Files that were not what they should be.
    spoilt: AtomicU64,
}

impl TieredBlobStore {
    /// A tier in `directory` in front of `objects`, of at most `budget` bytes, or of four fifths of the space that is free there. At most
    /// `open_files` of its blobs stay open. What the folder holds already is looked through in the background. Blocking.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn open(
        objects: Arc<dyn ObjectStore>,
        directory: &Path,
        budget: Option<u64>,
        open_files: usize,
    ) -> Result<Self, StorageError> {
        std::fs::create_dir_all(directory)
            .map_err(|e| StorageError::from_io("make the folder of the local tier", e))?;
        let local = FsBlobStore::keeping_open(directory, open_files)?;
        // Spools of both are in one folder.
        let spools = local.clone();
        let tier = Arc::new(Tier {
            local,
            remote: ObjectBlobStore::new(objects, spools),
            recency: Recency::default(),
            budget,
            filling: Mutex::default(),
            is_evicting: AtomicBool::new(false),
            waiting: Mutex::default(),
            fills: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            spoilt: AtomicU64::new(0),
        });
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(Arc::clone(&tier).look_through());
        }
        Ok(Self(tier))
    }

    /// Notes why the store has still to answer for the first time; `None`: it has. [`report`](BlobStore::report) says so.
    pub fn set_waiting(&self, why: Option<String>) {
        *self.0.waiting() = why;
    }
}

impl Tier {
    /// Finds what an earlier run has left, page by page.
    async fn look_through(self: Arc<Self>) {
        let mut after: Option<Digest> = None;
        loop {
            let page = match self.local.list(after.as_ref(), PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%error, "the local tier was not looked through: what it holds is found when it is read");
                    break;
                }
            };
            let Some(last) = page.last() else { break };
            after = Some(last.descriptor.digest.clone());
            for found in &page {
                self.recency
                    .found(&found.descriptor, found.modified_ns / 1_000_000);
            }
        }
        self.make_room();
    }

    fn waiting(&self) -> MutexGuard<'_, Option<String>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn filling(&self) -> MutexGuard<'_, HashMap<Digest, Arc<GrowingSpool>>> {
        self.filling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes the tier may hold now: its budget, and never so many that the disk's reserve is touched.
    fn budget(&self) -> u64 {
        let Ok(space) = self.local.free_space() else {
            return self.budget.unwrap_or(0);
        };
        let held = self.recency.bytes();
        let room = (held + space.available).saturating_sub(space.reserve);
        match self.budget {
            // A little above the reserve, so that spools find room.
            Some(budget) => budget.min(room - room / 20),
            None => room / 5 * 4,
        }
    }

    /// Takes out what was read longest ago, in the background, if there is more than there may be.
    fn make_room(self: &Arc<Self>) {
        if self.recency.bytes() <= self.budget() || self.is_evicting.swap(true, Ordering::AcqRel) {
            return;
        }
        let tier = Arc::clone(self);
        tokio::spawn(async move {
            tier.evict().await;
            tier.is_evicting.store(false, Ordering::Release);
        });
    }

    async fn evict(&self) {
        let budget = self.budget();
        // A twentieth more than must be, so that it need not be done for each blob.
        let keeps_open = |digest: &Digest| self.local.keeps_open(digest);
        for blob in self.recency.oldest(budget - budget / 20, keeps_open) {
            match self.local.delete(&blob.digest).await {
                Ok(true) => drop(self.evicted.fetch_add(1, Ordering::Relaxed)),
                // Held by who publishes it just now, or gone.
                Ok(false) if self.local.open_once(&blob).is_some() => continue,
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(%error, "a blob was not taken out of the local tier");
                    continue;
                }
            }
            self.recency.remove(&blob.digest);
        }
    }

    /// The blob's file, if it is here.
    fn here(&self, blob: &BlobDescriptor) -> Option<Body> {
        let Either::Left(at_hand) = self.local.open(blob) else {
            return None;
        };
        let body = at_hand.into_inner().ok()?;
        match &body {
            Body::File { file, .. } => self.recency.opened(blob, file),
            _ => self.recency.touch(blob),
        }
        Some(body)
    }

    /// Opens a blob that is not here. Nothing is fetched before it is read.
    async fn fetch(self: &Arc<Self>, blob: &BlobDescriptor) -> Result<Body, StorageError> {
        let remote = self.remote.open(blob).await?;
        Ok(Body::streamed(Cold {
            tier: Arc::clone(self),
            blob: blob.clone(),
            remote,
            filling: OnceLock::new(),
        }))
    }

    /// What brings a blob here, for those who read along.
    fn filling_of(
        self: &Arc<Self>,
        blob: &BlobDescriptor,
        remote: &Body,
    ) -> Option<Arc<GrowingSpool>> {
        let running = self.filling().get(&blob.digest).cloned();
        running.or_else(|| self.start_filling(blob, remote))
    }

    /// `None` where it cannot be, or need not be any more.
    fn start_filling(
        self: &Arc<Self>,
        blob: &BlobDescriptor,
        remote: &Body,
    ) -> Option<Arc<GrowingSpool>> {
        if blob.size > self.budget() {
            return None;
        }
        let mut filling = self.filling();
        // Somebody else may have begun meanwhile, or ended.
        if let Some(running) = filling.get(&blob.digest) {
            return Some(Arc::clone(running));
        }
        // Who finds too many under way reads from the store: nobody waits here.
        if filling.len() >= MOST_FILLS || self.here(blob).is_some() {
            return None;
        }
        let spool = self.spool().ok()?;
        let withheld = Withheld {
            tail: TAIL,
            of_parts: false,
        };
        let growing = Arc::new(GrowingSpool::new(Some(blob.size), withheld, 0));
        filling.insert(blob.digest.clone(), Arc::clone(&growing));
        drop(filling);
        self.fills.fetch_add(1, Ordering::Relaxed);
        let (tier, blob, remote) = (Arc::clone(self), blob.clone(), remote.clone());
        let filled = Arc::clone(&growing);
        tokio::spawn(async move {
            let brought = fill(&blob, remote, spool, &filled).await;
            let kept = match brought {
                Ok(sealed) => tier.keep(vec![sealed]).await,
                Err(error) => Err(error),
            };
            tier.filling().remove(&blob.digest);
            if let Err(error) = kept {
                tracing::debug!(%error, digest = %blob.digest, "a blob was not brought into the local tier");
            }
        });
        Some(growing)
    }

    /// Puts spools among the files. What fails is only not here.
    async fn keep(self: &Arc<Self>, batch: Vec<SealedSpool>) -> Result<(), StorageError> {
        let mut outcome = Ok(());
        for published in self.local.publish(batch).await {
            match published {
                Ok(info) => self.recency.touch(&info.descriptor),
                Err(error) => outcome = Err(error),
            }
        }
        self.make_room();
        outcome
    }

    /// A spool, for which something is taken out of the tier if need be.
    fn spool(self: &Arc<Self>) -> Result<Spool, StorageError> {
        let spool = self.local.spool();
        if matches!(&spool, Err(error) if error.is_full()) {
            self.make_room();
        }
        spool
    }
}

/// Brings the bytes of long spools to the disk, while others take them too; which of them may be kept. A failure is told once only, so that it counts here.
async fn synced(batch: &[SealedSpool]) -> Vec<bool> {
    let long = |sealed: &SealedSpool| sealed.descriptor.size > LONG;
    let files = batch
        .iter()
        .map(|sealed| long(sealed).then(|| sealed.spool.reader()));
    let files: Vec<_> = files.collect();
    let count = files.len();
    let synced = tokio::task::spawn_blocking(move || {
        let is_synced = |file: Arc<File>| file.sync_data().is_ok();
        files
            .into_iter()
            .map(|file| file.is_none_or(is_synced))
            .collect()
    });
    synced.await.unwrap_or_else(|_| vec![false; count])
}

impl BlobStore for TieredBlobStore {
    fn spool(&self) -> Result<Spool, StorageError> {
        self.0.spool()
    }

    fn spool_for(&self, expected: &ExpectedBlob) -> Result<Spool, StorageError> {
        Ok(self.0.remote.ahead(self.0.spool()?, expected))
    }

    fn open<'a>(&'a self, blob: &'a BlobDescriptor) -> Opening<'a> {
        match self.0.here(blob) {
            Some(body) => Either::Left(ready(Ok(body))),
            None => Either::Right(Box::pin(self.0.fetch(blob))),
        }
    }

    fn presign<'a>(&'a self, blob: &'a BlobDescriptor) -> BoxFuture<'a, Option<PresignedUrl>> {
        self.0.remote.presign(blob)
    }

    fn open_kept<'a>(
        &'a self,
        blob: &'a BlobDescriptor,
    ) -> BoxFuture<'a, Result<Body, StorageError>> {
        self.0.remote.open_kept(blob)
    }

    fn doubt(&self, digest: &Digest) {
        self.0.remote.doubt(digest);
    }

    fn check_copies<'a>(
        &'a self,
        after: Option<&'a Digest>,
        rate: u64,
    ) -> BoxFuture<'a, Result<CheckedCopies, StorageError>> {
        Box::pin(self.0.check_copies(after, rate))
    }

    fn open_once(&self, blob: &BlobDescriptor) -> Option<Body> {
        let body = self.0.local.open_once(blob)?;
        self.0.recency.touch(blob);
        Some(body)
    }

    fn publish(
        &self,
        batch: Vec<SealedSpool>,
    ) -> BoxFuture<'static, Vec<Result<BlobInfo, StorageError>>> {
        let (tier, count) = (Arc::clone(&self.0), batch.len());
        // It is done to the end though nobody may wait for it any more.
        let published = tokio::spawn(async move {
            let mut batch = batch;
            let put = batch.iter_mut().map(ToPut::of).collect();
            // Both take long for large ones, and neither needs the other.
            let (results, synced) = tokio::join!(tier.remote.put_all(put), synced(&batch));
            // One that is larger than the tier would push everything else out of it, and go itself.
            let budget = tier.budget();
            let kept = batch.into_iter().zip(&results).zip(synced);
            let kept = kept.filter_map(|((sealed, result), is_synced)| {
                let fits = sealed.descriptor.size <= budget;
                (result.is_ok() && is_synced && fits).then_some(sealed)
            });
            if let Err(error) = tier.keep(kept.collect()).await {
                tracing::debug!(%error, "a blob is in the object store and not in the local tier");
            }
            results
        });
        Box::pin(async move {
            let broken_off = |error: tokio::task::JoinError| StorageError {
                kind: StorageErrorKind::Unavailable,
                message: "work on the object store was broken off".to_owned(),
                source: Some(Box::new(error)),
            };
            published.await.unwrap_or_else(|error| {
                let error = broken_off(error);
                (0..count).map(|_| Err(error.again())).collect()
            })
        })
    }

    fn delete<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool, StorageError>> {
        Box::pin(async move {
            let was_there = self.0.remote.delete(digest).await?;
            if was_there && self.0.local.delete(digest).await.unwrap_or(false) {
                self.0.recency.remove(digest);
            }
            Ok(was_there)
        })
    }

    fn delete_all(
        &self,
        digests: Vec<Digest>,
        until: Instant,
    ) -> BoxFuture<'_, Vec<Option<Result<bool, StorageError>>>> {
        Box::pin(async move {
            let outcomes = self.0.remote.delete_all(digests.clone(), until).await;
            let gone = digests.into_iter().zip(&outcomes);
            let gone = gone.filter(|(_, outcome)| matches!(outcome, Some(Ok(true))));
            let gone: Vec<Digest> = gone.map(|(digest, _)| digest).collect();
            // What stays here is nothing that anybody needs, and goes with time.
            let here = self.0.local.delete_all(gone.clone(), until).await;
            for (digest, outcome) in gone.iter().zip(here) {
                if matches!(outcome, Some(Ok(true))) {
                    self.0.recency.remove(digest);
                }
            }
            outcomes
        })
    }

    fn free_space(&self) -> Result<Space, StorageError> {
        self.0.local.free_space()
    }

    fn ping(&self) -> BoxFuture<'static, ()> {
        self.0.remote.ping()
    }

    fn report(&self) -> StoreReport {
        let (waiting, remote) = (self.0.waiting().clone(), self.0.remote.report());
        StoreReport {
            trouble: remote.trouble.or_else(|| waiting.clone()),
            is_waiting: waiting.is_some(),
            tier: Some(TierReport {
                bytes: self.0.recency.bytes(),
                budget: self.0.budget(),
                fills: self.0.fills.load(Ordering::Relaxed),
                evicted: self.0.evicted.load(Ordering::Relaxed),
                spoilt: self.0.spoilt.load(Ordering::Relaxed),
            }),
            ..remote
        }
    }

    fn list<'a>(
        &'a self,
        after: Option<&'a Digest>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<StoredBlob>, StorageError>> {
        self.0.remote.list(after, limit)
    }
}
