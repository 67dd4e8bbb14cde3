//! A service for objects that takes its time, in memory. For tests.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::{Bound, Range};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use larder_core::{Clock as _, SystemClock};

use super::{ObjectInfo, ObjectStore};
use crate::body::{Body, Chunks};
use crate::error::{StorageError, StorageErrorKind};

/// How much comes at a time.
const CHUNK: usize = 16 << 10;

/// Objects that are gone with the process.
#[derive(Debug, Default)]
pub struct MemoryObjects {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    objects: Mutex<BTreeMap<String, (Bytes, i64)>>,
    delay: Duration,
    broken: AtomicBool,
    /// Keys of objects that are not deleted.
    held: Mutex<BTreeSet<String>>,
    given: AtomicU64,
}

impl MemoryObjects {
    /// A service that takes `delay` for each answer, and before each chunk.
    pub fn with_delay(delay: Duration) -> Self {
        let inner = Inner {
            delay,
            ..Inner::default()
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// From now on fails each call, and each body after its first chunk; or no longer.
    pub fn break_off(&self, broken: bool) {
        self.inner.broken.store(broken, Ordering::SeqCst);
    }

    /// The object under a key is never deleted from now on.
    pub fn hold(&self, key: &str) {
        let held = &self.inner.held;
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        held.insert(key.to_owned());
    }

    /// Bytes that have been read of it.
    pub fn bytes_given(&self) -> u64 {
        self.inner.given.load(Ordering::SeqCst)
    }

    /// Objects that there are.
    pub fn count(&self) -> usize {
        self.inner.objects().len()
    }
}

impl Inner {
    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, (Bytes, i64)>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::SeqCst)
    }

    async fn answer(&self) -> Result<(), StorageError> {
        tokio::time::sleep(self.delay).await;
        if self.is_broken() {
            let message = "the service does not answer";
            return Err(StorageError::new(StorageErrorKind::Unavailable, message));
        }
        Ok(())
    }

    /// The next chunk of what is left.
    async fn chunk(&self, mut left: Bytes, is_first: bool) -> (io::Result<Bytes>, Bytes) {
        tokio::time::sleep(self.delay).await;
        if self.is_broken() && !is_first {
            let cut = io::Error::other("the service broke off");
            return (Err(cut), Bytes::new());
        }
        let chunk = left.split_to(left.len().min(CHUNK));
        self.given.fetch_add(chunk.len() as u64, Ordering::SeqCst);
        (Ok(chunk), left)
    }
}

fn info((bytes, modified_ns): &(Bytes, i64)) -> ObjectInfo {
    ObjectInfo {
        length: bytes.len() as u64,
        modified_ns: *modified_ns,
    }
}

impl ObjectStore for MemoryObjects {
    fn head<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<ObjectInfo>, StorageError>> {
        Box::pin(async move {
            self.inner.answer().await?;
            Ok(self.inner.objects().get(key).map(info))
        })
    }

    fn get(&self, key: &str, range: Range<u64>) -> Chunks {
        let found = self.inner.objects().get(key).and_then(|(bytes, _)| {
            let fits = range.start <= range.end && range.end <= bytes.len() as u64;
            fits.then(|| bytes.slice(range.start as usize..range.end as usize))
        });
        let Some(found) = found else {
            let gone = io::Error::other("the object is gone");
            return Box::pin(futures_util::stream::once(async { Err(gone) }));
        };
        let state = (Arc::clone(&self.inner), found, true);
        Box::pin(futures_util::stream::unfold(
            state,
            |(inner, left, is_first)| async move {
                if left.is_empty() {
                    return None;
                }
                let (chunk, left) = inner.chunk(left, is_first).await;
                Some((chunk, (inner, left, false)))
            },
        ))
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        body: Body,
    ) -> BoxFuture<'a, Result<ObjectInfo, StorageError>> {
        Box::pin(async move {
            self.inner.answer().await?;
            let bytes = body
                .read(u64::MAX)
                .await
                .map_err(|e| StorageError::from_io("put an object", e))?;
            let object = (bytes, SystemClock.now().0.saturating_mul(1_000_000));
            let info = info(&object);
            self.inner.objects().insert(key.to_owned(), object);
            Ok(info)
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move {
            self.inner.answer().await?;
            let held = &self.inner.held;
            if held
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .contains(key)
            {
                let message = "the object is held";
                return Err(StorageError::new(StorageErrorKind::Io, message));
            }
            self.inner.objects().remove(key);
            Ok(())
        })
    }

    fn list<'a>(
        &'a self,
        after: &'a str,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(String, ObjectInfo)>, StorageError>> {
        Box::pin(async move {
            self.inner.answer().await?;
            let objects = self.inner.objects();
            let above = (Bound::Excluded(after), Bound::Unbounded);
            let found = objects.range::<str, _>(above).take(limit);
            Ok(found
                .map(|(key, object)| (key.clone(), info(object)))
                .collect())
        })
    }
}
