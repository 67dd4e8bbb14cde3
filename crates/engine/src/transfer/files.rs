//! Whole files: read, hashed and stored.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use larder_core::{BlobDescriptor, Digest, DigestAlgorithm, ErrorCode, Hasher, sha256};
use larder_storage::{BlobInfo, Body, ExpectedBlob, SealedSpool, Spool, StorageError};

use super::Transfers;
use super::fill::Fill;
use super::received::Received;
use crate::fault::FetchError;

impl Transfers {
    /// All bytes of a small or medium blob.
    pub(crate) async fn read_blob(&self, blob: &BlobDescriptor) -> Result<Bytes, StorageError> {
        let body = self.blobs.open(blob).await?;
        let read = body.read(blob.size).await;
        read.map_err(|error| StorageError::from_io("read a blob", error))
    }

    /// Stores bytes of larder's own making: `None` if the disk is nearly full.
    pub(crate) async fn put_bytes(&self, bytes: Bytes) -> Result<Option<BlobInfo>, StorageError> {
        let blobs = Arc::clone(&self.blobs);
        let spooled = tokio::task::spawn_blocking(move || {
            let mut spool = blobs.spool()?;
            spool.append(&bytes)?;
            let descriptor = BlobDescriptor {
                digest: sha256(&bytes),
                size: bytes.len() as u64,
            };
            Ok(SealedSpool { spool, descriptor })
        });
        let published = match spooled.await {
            Ok(Ok(sealed)) => self.blobs.publish(vec![sealed]).await.pop(),
            Ok(Err(error)) => Some(Err(error)),
            Err(_) => None,
        };
        match published {
            Some(Err(error)) if !error.is_full() => Err(error),
            published => Ok(published.and_then(Result::ok)),
        }
    }

    /// A temporary file, unless the disk is nearly full.
    pub(crate) fn new_spool(&self) -> Option<Spool> {
        self.new_spool_for(None, None)
    }

    /// The same for bytes of which it may be known what they are to be.
    pub(crate) fn new_spool_for(
        &self,
        digest: Option<Digest>,
        length: Option<u64>,
    ) -> Option<Spool> {
        let spool = match digest {
            Some(digest) => self.blobs.spool_for(&ExpectedBlob { digest, length }),
            None => self.blobs.spool(),
        };
        match spool {
            Ok(spool) => Some(spool),
            Err(error) => {
                self.catalog.trouble().warn_not_kept(&error);
                self.catalog.make_room();
                None
            }
        }
    }

    pub(crate) async fn hash_file(
        &self,
        file: Arc<File>,
        length: u64,
        algorithm: DigestAlgorithm,
    ) -> Result<Digest, StorageError> {
        hash_body(Body::file(file, length), algorithm).await
    }

    /// The digest of stored bytes by another algorithm than their own.
    pub(crate) async fn rehash(
        &self,
        blob: &BlobDescriptor,
        algorithm: DigestAlgorithm,
    ) -> Result<Digest, StorageError> {
        hash_body(self.blobs.open(blob).await?, algorithm).await
    }
}

async fn hash_body(body: Body, algorithm: DigestAlgorithm) -> Result<Digest, StorageError> {
    measure(body, move |chunks| {
        let mut hasher = Hasher::new(&[algorithm]);
        chunks(&mut |chunk| hasher.update(chunk))?;
        Ok(last_of(hasher, algorithm))
    })
    .await
}

pub(crate) fn received_bytes(fill: &Arc<Fill>, received: &Received) -> Result<Vec<u8>, FetchError> {
    let spool = received.spool.as_ref().map(Spool::reader);
    read_received(fill, spool, received.length)
}

/// All bytes of a received body: from its spool, else from the fill.
pub(crate) fn read_received(
    fill: &Arc<Fill>,
    spool: Option<Arc<File>>,
    length: u64,
) -> Result<Vec<u8>, FetchError> {
    let read = match spool {
        Some(file) => Body::file(file, length).read_blocking(length),
        None => fill.read_arrived(length),
    };
    read.map_err(|_| {
        FetchError::unusable(
            ErrorCode::Internal,
            "a downloaded document could not be read back",
        )
    })
}

/// Hands every chunk of a body to a function.
pub(crate) type Chunks<'a> = &'a dyn Fn(&mut dyn FnMut(&[u8])) -> std::io::Result<()>;

/// Reads a whole body on a blocking thread and makes something of its chunks.
pub(crate) async fn measure<T: Send + 'static>(
    body: Body,
    make: impl FnOnce(Chunks<'_>) -> std::io::Result<T> + Send + 'static,
) -> Result<T, StorageError> {
    let measured = tokio::task::spawn_blocking(move || {
        make(&|take| {
            body.each_blocking(&mut |chunk| {
                take(chunk);
                Ok(())
            })
        })
    });
    measured
        .await
        .unwrap_or_else(|_| Err(std::io::Error::other("interrupted")))
        .map_err(|error| StorageError::from_io("hash a blob", error))
}

pub(crate) fn hash_bytes(bytes: &[u8], algorithm: DigestAlgorithm) -> Digest {
    let mut hasher = Hasher::new(&[algorithm]);
    hasher.update(bytes);
    last_of(hasher, algorithm)
}

pub(crate) fn last_of(hasher: Hasher, algorithm: DigestAlgorithm) -> Digest {
    let mut all = hasher.finish();
    let at = all
        .iter()
        .position(|digest| digest.algorithm() == algorithm)
        .unwrap_or(0);
    all.swap_remove(at)
}
