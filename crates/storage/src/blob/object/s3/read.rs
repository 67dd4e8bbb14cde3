//! Reading an object. A read that breaks off goes on where it was, from the very same object (`Range` and `If-Match`), and whoever reads
//! does not notice.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectStore as _};

use super::{S3, failed, no_answer};
use crate::body::Chunks;
use crate::error::StorageError;

/// Failures in a row, with no more than [`SOME`] bytes between them, that end a read.
const MOST_FAILURES: u32 = 5;
/// So many bytes make earlier failures forgotten.
const SOME: u64 = 1 << 20;
/// A read that has begun is given up when it has got nothing for so long.
const MOST_SILENCE: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const DOING: &str = "read an object";

pub(super) struct Reading {
    s3: Arc<S3>,
    path: Path,
    next: u64,
    end: u64,
    /// Of the object that the first bytes came from.
    etag: Option<String>,
    stream: Option<BoxStream<'static, object_store::Result<Bytes>>>,
    failures: u32,
    since_failure: u64,
    has_given: bool,
    last_gift: Instant,
}

impl Reading {
    pub(super) fn new(s3: Arc<S3>, path: Path, range: Range<u64>) -> Self {
        Self {
            s3,
            path,
            next: range.start,
            end: range.end,
            etag: None,
            stream: None,
            failures: 0,
            since_failure: 0,
            has_given: false,
            last_gift: Instant::now(),
        }
    }

    pub(super) fn chunks(self) -> Chunks {
        Box::pin(futures_util::stream::unfold(
            Some(self),
            |reading| async move {
                let mut reading = reading?;
                match reading.step().await {
                    Ok(Some(bytes)) => Some((Ok(bytes), Some(reading))),
                    Ok(None) => None,
                    Err(error) => Some((Err(io::Error::other(error)), None)),
                }
            },
        ))
    }

    async fn step(&mut self) -> Result<Option<Bytes>, StorageError> {
        while self.next < self.end {
            let Some(stream) = &mut self.stream else {
                self.open().await?;
                continue;
            };
            match stream.next().await {
                Some(Ok(bytes)) if bytes.is_empty() => {}
                Some(Ok(bytes)) => return Ok(Some(self.take(bytes))),
                Some(Err(error)) => self.broke_off(Some(error)).await?,
                None => self.broke_off(None).await?,
            }
        }
        Ok(None)
    }

    fn take(&mut self, mut bytes: Bytes) -> Bytes {
        let left = self.end - self.next;
        if bytes.len() as u64 > left {
            bytes.truncate(left as usize);
        }
        self.next += bytes.len() as u64;
        self.since_failure += bytes.len() as u64;
        if self.since_failure >= SOME {
            self.failures = 0;
        }
        self.has_given = true;
        self.last_gift = Instant::now();
        bytes
    }

    async fn open(&mut self) -> Result<(), StorageError> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(self.next..self.end)),
            if_match: self.etag.clone(),
            ..GetOptions::default()
        };
        let asked = self.s3.store.get_opts(&self.path, options);
        match self.s3.within(DOING, asked).await {
            Ok(Ok(got)) => {
                if self.etag.is_none() {
                    self.etag.clone_from(&got.meta.e_tag);
                }
                self.stream = Some(got.into_stream());
                Ok(())
            }
            // Another object, or none: there is no way on.
            Ok(Err(
                error @ (Error::NotFound { .. }
                | Error::Precondition { .. }
                | Error::PermissionDenied { .. }
                | Error::Unauthenticated { .. }),
            )) => Err(failed(DOING, error)),
            Ok(Err(error)) if !self.has_given => Err(failed(DOING, error)),
            Err(error) if !self.has_given => Err(error),
            Ok(Err(error)) => self.broke_off(Some(error)).await,
            Err(_) => self.broke_off(None).await,
        }
    }

    /// Waits a little before the read goes on, or gives it up.
    async fn broke_off(&mut self, error: Option<Error>) -> Result<(), StorageError> {
        self.stream = None;
        self.failures += 1;
        self.since_failure = 0;
        let is_over = self.failures > MOST_FAILURES || self.last_gift.elapsed() > MOST_SILENCE;
        if is_over {
            return Err(error.map_or_else(|| no_answer(DOING), |error| failed(DOING, error)));
        }
        let at = self.next;
        tracing::debug!(?error, at, "a read of an object broke off and goes on");
        tokio::time::sleep(FIRST_PAUSE * (1 << (self.failures - 1))).await;
        Ok(())
    }
}
