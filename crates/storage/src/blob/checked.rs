//! A blob read to its end and compared with its digest, no faster than it may be.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use larder_core::{BlobDescriptor, Hasher};
use tokio::time::Instant;

use super::BlobStore;
use crate::body::Body;
use crate::error::{StorageError, StorageErrorKind};

/// Of a file so much is read and hashed at a time, on the pool for blocking work.
const STEP: u64 = 1 << 20;
/// What is said of this process, of the machine or of a server of files, and not of the one file (errno of Linux): `EINTR`, `EAGAIN`, `ENOMEM`,
/// `ENFILE`, `EMFILE`, `ENETUNREACH`, `ENOBUFS`, `ENOTCONN`, `ESHUTDOWN`, `ETIMEDOUT`, `ECONNREFUSED`, `EHOSTDOWN`, `EHOSTUNREACH`.
const NOT_OF_THE_FILE: [i32; 13] = [4, 11, 12, 23, 24, 101, 105, 107, 108, 110, 111, 112, 113];

/// What is wrong with a stored blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// It is not there.
    Missing,
    /// It has other bytes, or more or fewer.
    Wrong,
    /// It cannot be read to its end.
    Unreadable,
}

impl Flaw {
    /// In one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Wrong => "wrong",
            Self::Unreadable => "unreadable",
        }
    }
}

/// How many bytes a second are read, by all who share it.
#[derive(Debug)]
pub(crate) struct Rate {
    per_second: f64,
    next: Mutex<Instant>,
}

impl Rate {
    #[expect(
        clippy::cast_precision_loss,
        reason = "of a rate the first fifteen digits are enough"
    )]
    pub(crate) fn new(per_second: u64) -> Self {
        Self {
            per_second: per_second.max(1) as f64,
            next: Mutex::new(Instant::now()),
        }
    }

    /// Waits until so many more may be read.
    #[expect(clippy::cast_precision_loss, reason = "as above")]
    async fn wait(&self, bytes: u64) {
        let begin = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = (*next).max(Instant::now());
            *next = begin + Duration::from_secs_f64(bytes as f64 / self.per_second);
            begin
        };
        tokio::time::sleep_until(begin).await;
    }
}

/// Reads a blob where it is kept; gives what is wrong with it.
///
/// # Errors
/// The store cannot tell at present.
pub(crate) async fn check(
    store: &dyn BlobStore,
    blob: &BlobDescriptor,
    rate: &Rate,
) -> Result<Option<Flaw>, StorageError> {
    let body = match store.open_kept(blob).await {
        Ok(body) => body,
        Err(error) => return flaw_of(error).map(Some),
    };
    let hashed = match body {
        Body::File { .. } => hash_file(body, blob.size, rate).await,
        body => hash_stream(body, rate).await,
    };
    match hashed {
        Ok((hasher, length)) => {
            let is_same = length == blob.size && hasher.finish_sha256() == blob.digest;
            Ok((!is_same).then_some(Flaw::Wrong))
        }
        Err(error) => flaw_of_io(error).map(Some),
    }
}

/// Whether a blob is stored as it should be, by all of its bytes. `false` where that cannot be told, too.
pub async fn is_sound(store: &dyn BlobStore, blob: &BlobDescriptor) -> bool {
    matches!(check(store, blob, &Rate::new(u64::MAX)).await, Ok(None))
}

async fn hash_file(body: Body, size: u64, rate: &Rate) -> io::Result<(Hasher, u64)> {
    let mut hasher = Hasher::new(&[]);
    let mut at = 0;
    while at < size {
        let end = size.min(at + STEP);
        rate.wait(end - at).await;
        let Some(part) = body.range(at, end) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let hash = tokio::task::spawn_blocking(move || {
            part.each_blocking(&mut |bytes| {
                hasher.update(bytes);
                Ok(())
            })?;
            io::Result::Ok(hasher)
        });
        hasher = hash
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))?;
        at = end;
    }
    Ok((hasher, size))
}

async fn hash_stream(body: Body, rate: &Rate) -> io::Result<(Hasher, u64)> {
    let mut hasher = Hasher::new(&[]);
    let (mut chunks, mut length) = (body.chunks(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        rate.wait(chunk.len() as u64).await;
        hasher.update(&chunk);
        length += chunk.len() as u64;
    }
    Ok((hasher, length))
}

/// A failure that says something of the blob itself.
fn flaw_of(error: StorageError) -> Result<Flaw, StorageError> {
    match error.kind {
        StorageErrorKind::NotFound => Ok(Flaw::Missing),
        StorageErrorKind::Corrupt => Ok(Flaw::Wrong),
        _ => {
            let source = error.source.as_ref();
            let io = source.and_then(|source| source.downcast_ref::<io::Error>());
            if io.is_some_and(is_of_the_file) {
                return Ok(Flaw::Unreadable);
            }
            Err(error)
        }
    }
}

fn flaw_of_io(error: io::Error) -> Result<Flaw, StorageError> {
    if is_of_the_file(&error) {
        return Ok(Flaw::Unreadable);
    }
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return Ok(Flaw::Wrong);
    }
    let inner = error.get_ref();
    let inner = inner.and_then(|inner| inner.downcast_ref::<StorageError>());
    match inner.map(|inner| inner.kind) {
        Some(StorageErrorKind::Corrupt) => Ok(Flaw::Wrong),
        Some(StorageErrorKind::NotFound) => Ok(Flaw::Missing),
        _ => Err(StorageError {
            kind: StorageErrorKind::Unavailable,
            message: "a blob cannot be read to its end".to_owned(),
            source: Some(Box::new(error)),
        }),
    }
}

/// Whatever else the system says, it would say again, and a scrub would never end.
fn is_of_the_file(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code.is_some_and(|code| !NOT_OF_THE_FILE.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_by_all_who_share_it() {
        let rate = Rate::new(1_000);
        let since = Instant::now();
        tokio::join!(rate.wait(2_000), rate.wait(3_000), rate.wait(1));
        rate.wait(1).await;
        let took = since.elapsed();
        assert!(
            took >= Duration::from_secs(5) && took < Duration::from_millis(5_100),
            "{took:?}"
        );
    }

    #[test]
    fn only_what_is_of_the_file_is_a_flaw() {
        let of = |raw| flaw_of_io(io::Error::from_raw_os_error(raw));
        // EIO, ENXIO, EACCES, EISDIR, ELOOP, ENODATA, EBADMSG, ESTALE, EUCLEAN (errno of Linux).
        for code in [5, 6, 13, 21, 40, 61, 74, 116, 117] {
            assert!(matches!(of(code), Ok(Flaw::Unreadable)), "{code}");
        }
        // EMFILE, ENFILE, ENOMEM: nothing is wrong with this file.
        for code in [24, 23, 12] {
            assert!(of(code).is_err(), "{code}");
        }
    }
}
