//! Whole files: read, hashed and stored.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use larder_core::{BlobDescriptor, Digest, DigestAlgorithm, ErrorCode, Hasher};
use larder_storage::{BlobInfo, OpenBlob, Spool, StorageError};

use super::Transfers;
use super::fill::Fill;
use super::received::Received;
use crate::fault::FetchError;

const CHUNK: usize = 256 << 10;

impl Transfers {
    /// All bytes of a small or medium blob.
    pub(crate) async fn read_blob(&self, blob: &BlobDescriptor) -> Result<Vec<u8>, StorageError> {
        let OpenBlob { file, length } = self.blobs.open(blob)?;
        let read = tokio::task::spawn_blocking(move || read_file(&file, length)).await;
        read.unwrap_or_else(|_| Err(std::io::Error::other("interrupted")))
            .map_err(|error| StorageError::from_io("read a blob", error))
    }

    /// Stores bytes of larder's own making: `None` if the disk is nearly full.
    pub(crate) async fn put_bytes(&self, bytes: Bytes) -> Result<Option<BlobInfo>, StorageError> {
        let blobs = Arc::clone(&self.blobs);
        match tokio::task::spawn_blocking(move || blobs.put_bytes(&bytes)).await {
            Ok(Ok(info)) => Ok(Some(info)),
            Ok(Err(error)) if error.is_full() => Ok(None),
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// A temporary file, unless the disk is nearly full.
    pub(crate) fn new_spool(&self) -> Option<Spool> {
        match self.blobs.spool() {
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
        measure(file, length, move |chunks| {
            let mut hasher = Hasher::new(&[algorithm]);
            chunks(&mut |chunk| hasher.update(chunk))?;
            Ok(last_of(hasher, algorithm))
        })
        .await
    }

    /// The digest of stored bytes by another algorithm than their own.
    pub(crate) async fn rehash(
        &self,
        blob: &BlobDescriptor,
        algorithm: DigestAlgorithm,
    ) -> Result<Digest, StorageError> {
        let open = self.blobs.open(blob)?;
        self.hash_file(open.file, open.length, algorithm).await
    }
}

pub(crate) fn received_bytes(fill: &Arc<Fill>, received: &Received) -> Result<Vec<u8>, FetchError> {
    let spool = received.spool.as_ref().map(Spool::reader);
    read_received(fill, spool.as_deref(), received.length)
}

/// All bytes of a received body: from its spool, else from the fill.
pub(crate) fn read_received(
    fill: &Arc<Fill>,
    spool: Option<&File>,
    length: u64,
) -> Result<Vec<u8>, FetchError> {
    let read = match spool {
        Some(file) => read_file(file, length),
        None => read_fill(fill, length),
    };
    read.map_err(|_| {
        FetchError::unusable(
            ErrorCode::Internal,
            "a downloaded document could not be read back",
        )
    })
}

/// All bytes of a fill that holds everything.
pub(crate) fn read_fill(fill: &Arc<Fill>, length: u64) -> std::io::Result<Vec<u8>> {
    let attached = fill.attach(0);
    let mut bytes = Vec::with_capacity(length as usize);
    while (bytes.len() as u64) < length {
        bytes.extend_from_slice(&attached.read(length)?);
    }
    Ok(bytes)
}

/// Hands every chunk of a file to a function.
pub(crate) type Chunks<'a> = &'a dyn Fn(&mut dyn FnMut(&[u8])) -> std::io::Result<()>;

/// Reads a whole file on a blocking thread and makes something of its chunks.
pub(crate) async fn measure<T: Send + 'static>(
    file: Arc<File>,
    length: u64,
    make: impl FnOnce(Chunks<'_>) -> std::io::Result<T> + Send + 'static,
) -> Result<T, StorageError> {
    let measured = tokio::task::spawn_blocking(move || {
        make(&|take| {
            let mut buffer = vec![0; CHUNK];
            let mut at = 0;
            while at < length {
                let want = (length - at).min(CHUNK as u64) as usize;
                file.read_exact_at(&mut buffer[..want], at)?;
                take(&buffer[..want]);
                at += want as u64;
            }
            Ok(())
        })
    });
    measured
        .await
        .unwrap_or_else(|_| Err(std::io::Error::other("interrupted")))
        .map_err(|error| StorageError::from_io("hash a blob", error))
}

/// Reads a whole file by position, so that its offset, which others share, does not matter.
pub(crate) fn read_file(file: &File, length: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length as usize);
    Positioned { file, at: 0 }
        .take(length)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

struct Positioned<'a> {
    file: &'a File,
    at: u64,
}

impl std::io::Read for Positioned<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
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
