//! A blob on its way from the store into the tier, and those who read it meanwhile.

use std::io;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::StreamExt as _;
use larder_core::{BlobDescriptor, ErrorCode, Fault, FaultKind, Hasher};

use super::Tier;
use crate::blob::{End, GrowingSpool, SealedSpool, Spool, check_length};
use crate::body::{Body, Chunks, Source};
use crate::error::{StorageError, StorageErrorKind};

/// A part that begins further ahead of what has arrived than this is not waited for.
const AHEAD: u64 = 8 << 20;

/// Brings all bytes of `body` into `spool`, while others read what has come.
///
/// # Errors
/// They cannot be read or written, or are not those of `blob`. Readers have been told.
pub(super) async fn fill(
    blob: &BlobDescriptor,
    body: Body,
    spool: Spool,
    growing: &GrowingSpool,
) -> Result<SealedSpool, StorageError> {
    let filled = bring(blob, body, spool, growing).await;
    match &filled {
        Ok(_) => growing.verified(blob.size),
        Err(_) => growing.fail(Fault::new(
            FaultKind::Unavailable,
            ErrorCode::Interrupted,
            "the transfer from the object store was interrupted; ask again",
        )),
    }
    filled
}

async fn bring(
    blob: &BlobDescriptor,
    body: Body,
    mut spool: Spool,
    growing: &GrowingSpool,
) -> Result<SealedSpool, StorageError> {
    growing.set_spool(spool.reader());
    let mut hasher = Hasher::new(&[]);
    let mut chunks = body.chunks();
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|error| StorageError::from_io("read from the object store", error))?;
        hasher.update(&chunk);
        spool.append(&chunk)?;
        growing.publish(spool.len());
    }
    check_length(blob, spool.len())?;
    if hasher.finish_sha256() != blob.digest {
        let message = format!(
            "the object store gives other bytes than those of blob {}",
            blob.digest
        );
        return Err(StorageError::new(StorageErrorKind::Corrupt, message));
    }
    Ok(SealedSpool {
        spool,
        descriptor: blob.clone(),
    })
}

/// A blob that is not in the tier. Whoever begins to read it brings it there, once for all readers. Parts far ahead come from the store
/// itself, and so does what is left when the filling fails.
#[derive(Debug)]
pub(super) struct Cold {
    pub(super) tier: Arc<Tier>,
    pub(super) blob: BlobDescriptor,
    pub(super) remote: Body,
    /// What fills, once somebody reads; `None`: the store is read.
    pub(super) filling: OnceLock<Option<Arc<GrowingSpool>>>,
}

impl Cold {
    /// The part, as it comes into the tier or as it is there by now; `None` where the store has to be asked.
    fn tier_chunks(&self, range: &Range<u64>) -> Option<Chunks> {
        let filling = self
            .filling
            .get_or_init(|| self.tier.filling_of(&self.blob, &self.remote));
        let Some(growing) = filling else {
            let here = self.tier.here(&self.blob)?;
            return here.range(range.start, range.end).map(Body::chunks);
        };
        let progress = growing.progress();
        let is_ahead =
            progress.end == End::Open && range.start > progress.available.saturating_add(AHEAD);
        if is_ahead || progress.end == End::Failed {
            return None;
        }
        let body = Body::Growing(growing.body());
        body.range(range.start, range.end).map(Body::chunks)
    }
}

impl Source for Cold {
    fn length(&self) -> Option<u64> {
        Some(self.blob.size)
    }

    fn read(&self, range: Option<Range<u64>>) -> Chunks {
        let range = range.unwrap_or(0..self.blob.size);
        let chunks = self.tier_chunks(&range);
        let reader = Reader {
            is_direct: chunks.is_none(),
            chunks,
            remote: self.remote.clone(),
            at: range.start,
            end: range.end,
        };
        Box::pin(futures_util::stream::unfold(
            Some(reader),
            |reader| async move {
                let mut reader = reader?;
                match reader.step().await {
                    Ok(Some(bytes)) => Some((Ok(bytes), Some(reader))),
                    Ok(None) => None,
                    Err(error) => Some((Err(error), None)),
                }
            },
        ))
    }
}

struct Reader {
    chunks: Option<Chunks>,
    is_direct: bool,
    remote: Body,
    at: u64,
    end: u64,
}

impl Reader {
    async fn step(&mut self) -> io::Result<Option<Bytes>> {
        while self.at < self.end {
            let Some(chunks) = &mut self.chunks else {
                let rest = self.remote.range(self.at, self.end);
                self.is_direct = true;
                self.chunks = Some(rest.ok_or(io::ErrorKind::UnexpectedEof)?.chunks());
                continue;
            };
            match chunks.next().await {
                Some(Ok(bytes)) => {
                    self.at += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Some(Err(error)) if self.is_direct => return Err(error),
                None if self.is_direct => return Err(io::ErrorKind::UnexpectedEof.into()),
                // The filling has failed, of the disk perhaps: the store is asked for the rest.
                Some(Err(_)) | None => self.chunks = None,
            }
        }
        Ok(None)
    }
}
