//! Bytes are what they were when they were stored, or they are not given: a blob of up to one block is compared with its digest, and of a
//! longer one each block with the sum that was recorded when it was committed.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use larder_core::{BlobDescriptor, Digest, Hasher, sha256};
use tokio::time::Instant;

use super::{Growth, Shared, key_of_sums, too_late};
use crate::body::{Body, Chunks, Source};
use crate::error::{StorageError, StorageErrorKind};

/// Bytes that have one sum.
pub(super) const BLOCK: u64 = 1 << 20;
/// What an object of sums begins with.
const MAGIC: &[u8] = b"larder-sums-1\n";
/// The length of a sum: the first bytes of a SHA-256.
const SUM: usize = 8;
/// Before and behind the sums stand magic and length of the blob, and the sum of all that.
const FRAME: usize = MAGIC.len() + 8 + SUM;

type Sum = [u8; SUM];

/// The sums of a blob's blocks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sums(Vec<Sum>);

impl Sums {
    /// What they take in memory.
    pub(super) fn bytes(&self) -> u64 {
        size_of_val(self.0.as_slice()) as u64
    }
}

/// Whether a blob of this length has sums of its own.
pub(super) fn has_sums(size: u64) -> bool {
    size > BLOCK
}

fn short(digest: &Digest) -> Sum {
    let mut sum = Sum::default();
    for (to, from) in sum.iter_mut().zip(digest.as_bytes()) {
        *to = *from;
    }
    sum
}

/// Sums of what is handed to it, and its digest if that is wanted.
struct Summer {
    /// Where nobody has compared the whole yet.
    whole: Option<Hasher>,
    block: Hasher,
    in_block: u64,
    sums: Vec<Sum>,
}

impl Summer {
    fn new(whole: Option<Hasher>) -> Self {
        Self {
            whole,
            block: Hasher::new(&[]),
            in_block: 0,
            sums: Vec::new(),
        }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        if let Some(whole) = &mut self.whole {
            whole.update(bytes);
        }
        while !bytes.is_empty() {
            let fits = (BLOCK - self.in_block).min(bytes.len() as u64);
            let (now, later) = bytes.split_at(fits as usize);
            self.block.update(now);
            self.in_block += fits;
            bytes = later;
            if self.in_block == BLOCK {
                self.end_block();
            }
        }
    }

    async fn all(mut self, body: Body) -> Result<(Sums, Option<Digest>), StorageError> {
        let mut chunks = body.chunks();
        while let Some(chunk) = chunks.next().await {
            self.update(&chunk.map_err(|error| StorageError::from_io("read a blob", error))?);
        }
        Ok(self.finish())
    }

    fn end_block(&mut self) {
        let block = std::mem::replace(&mut self.block, Hasher::new(&[]));
        self.sums.push(short(&block.finish_sha256()));
        self.in_block = 0;
    }

    fn finish(mut self) -> (Sums, Option<Digest>) {
        if self.in_block > 0 {
            self.end_block();
        }
        (Sums(self.sums), self.whole.map(Hasher::finish_sha256))
    }
}

impl Sums {
    /// The sums of a body that is known to be the right one.
    pub(super) async fn of(body: Body) -> Result<Self, StorageError> {
        Ok(Summer::new(None).all(body).await?.0)
    }

    /// The sums of what is still being written, when it has come to its end.
    pub(super) async fn of_growing(mut growth: Growth) -> Result<Self, StorageError> {
        let (mut summer, mut at) = (Summer::new(None), 0);
        loop {
            let to = at + BLOCK;
            let there = growth.reach(to).await?;
            if there > at {
                let block = growth.part(at, there).read(BLOCK).await;
                summer.update(&block.map_err(|e| StorageError::from_io("read a blob", e))?);
            }
            at = there;
            if there < to {
                return Ok(summer.finish().0);
            }
        }
    }

    /// The sums of a body, which must have the digest of `blob`.
    pub(super) async fn of_checked(
        body: Body,
        blob: &BlobDescriptor,
    ) -> Result<Self, StorageError> {
        let (sums, digest) = Summer::new(Some(Hasher::new(&[]))).all(body).await?;
        if digest.as_ref() == Some(&blob.digest) {
            Ok(sums)
        } else {
            Err(damaged(&blob.digest))
        }
    }

    /// The length of the object that has the sums of a blob.
    pub(super) fn encoded_length(size: u64) -> u64 {
        FRAME as u64 + size.div_ceil(BLOCK) * SUM as u64
    }

    pub(super) fn encode(&self, size: u64) -> Bytes {
        let mut bytes = Vec::with_capacity(FRAME + self.0.len() * SUM);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&size.to_be_bytes());
        bytes.extend(self.0.iter().flatten());
        let own = short(&sha256(&bytes));
        bytes.extend_from_slice(&own);
        bytes.into()
    }

    /// `None` if these are not the sums of a blob of this length.
    pub(super) fn decode(bytes: &[u8], size: u64) -> Option<Self> {
        if bytes.len() as u64 != Self::encoded_length(size) {
            return None;
        }
        let (stated, own) = bytes.split_at(bytes.len() - SUM);
        if short(&sha256(stated)) != own {
            return None;
        }
        let rest = stated.strip_prefix(MAGIC)?;
        let sums = rest.strip_prefix(&size.to_be_bytes())?;
        let sums = sums.chunks_exact(SUM).map(Sum::try_from);
        sums.collect::<Result<_, _>>().ok().map(Self)
    }
}

impl Shared {
    pub(super) async fn keep_sums(
        &self,
        blob: &BlobDescriptor,
        sums: Sums,
    ) -> Result<Arc<Sums>, StorageError> {
        let body = Body::Memory(sums.encode(blob.size));
        let key = key_of_sums(&blob.digest);
        self.objects.put(&key, body).await?;
        let sums = Arc::new(sums);
        self.sums.insert(blob.digest.clone(), Arc::clone(&sums));
        Ok(sums)
    }

    /// The sums of a blob that is there. Where they are missing or spoilt, all of the blob is read and compared with its digest, and they
    /// are made anew.
    async fn sums(
        &self,
        blob: &BlobDescriptor,
        key: &str,
        patience: Duration,
    ) -> Result<Arc<Sums>, StorageError> {
        if let Some(sums) = self.sums.get(&blob.digest) {
            return Ok(sums);
        }
        let (sums_key, length) = (key_of_sums(&blob.digest), Sums::encoded_length(blob.size));
        let stored = Body::once(Some(length), self.objects.get(&sums_key, 0..length));
        let read = tokio::time::timeout(patience, stored.read(length)).await;
        match read.map_err(|_| too_late(&blob.digest))? {
            Ok(bytes) => {
                if let Some(sums) = Sums::decode(&bytes, blob.size) {
                    let sums = Arc::new(sums);
                    self.sums.insert(blob.digest.clone(), Arc::clone(&sums));
                    return Ok(sums);
                }
            }
            Err(error) => match self.objects.head(&sums_key).await? {
                None => self.objects.confirm_absent(&sums_key).await?,
                Some(info) if info.length != length => {}
                Some(_) => return Err(StorageError::from_io("read the sums of a blob", error)),
            },
        }
        tracing::warn!(digest = %blob.digest, "the sums of a stored object are missing or spoilt: it is read to the end to make them anew");
        let whole = Body::once(Some(blob.size), self.objects.get(key, 0..blob.size));
        let sums = Sums::of_checked(whole, blob).await.inspect_err(|error| {
            if error.kind == StorageErrorKind::Corrupt {
                self.mismatches.fetch_add(1, Ordering::Relaxed);
                self.damaged().insert(blob.digest.clone());
            }
        })?;
        self.keep_sums(blob, sums).await
    }
}

pub(super) fn damaged(digest: &Digest) -> StorageError {
    StorageError::new(
        StorageErrorKind::Corrupt,
        format!("the object store gives other bytes for blob {digest} than were stored"),
    )
}

/// A blob in the store, of which only such bytes are given as have been found to be the right ones.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) shared: Arc<Shared>,
    pub(super) blob: BlobDescriptor,
    pub(super) key: String,
    /// How long the first bytes are waited for.
    pub(super) patience: Duration,
}

impl Source for Checked {
    fn length(&self) -> Option<u64> {
        Some(self.blob.size)
    }

    fn read(&self, range: Option<Range<u64>>) -> Chunks {
        let range = range.unwrap_or(0..self.blob.size);
        let reading = Reading {
            shared: Arc::clone(&self.shared),
            blob: self.blob.clone(),
            key: self.key.clone(),
            at: range.start,
            end: range.end,
            deadline: None,
            has_come: false,
            patience: self.patience,
            sums: None,
            chunks: None,
            left: Bytes::new(),
            ready: VecDeque::new(),
        };
        Box::pin(futures_util::stream::unfold(
            Some(reading),
            |reading| async move {
                let mut reading = reading?;
                match reading.step().await {
                    Ok(Some(bytes)) => Some((Ok(bytes), Some(reading))),
                    Ok(None) => None,
                    Err(error) => Some((Err(error), None)),
                }
            },
        ))
    }
}

struct Reading {
    shared: Arc<Shared>,
    blob: BlobDescriptor,
    key: String,
    at: u64,
    end: u64,
    /// Since the first time that somebody has wanted bytes.
    deadline: Option<Instant>,
    has_come: bool,
    patience: Duration,
    sums: Option<Arc<Sums>>,
    chunks: Option<Chunks>,
    /// Of a chunk that reached into the next block.
    left: Bytes,
    /// Found to be right, on their way to the reader.
    ready: VecDeque<Bytes>,
}

impl Reading {
    async fn step(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Ok(Some(bytes));
            }
            if self.at >= self.end {
                return Ok(None);
            }
            let number = self.at / BLOCK;
            let block = number * BLOCK..(number * BLOCK + BLOCK).min(self.blob.size);
            if has_sums(self.blob.size) && self.sums.is_none() {
                let patience = self.deadline().saturating_duration_since(Instant::now());
                let sums = self.shared.sums(&self.blob, &self.key, patience).await;
                self.sums = Some(sums.map_err(io::Error::other)?);
                // They were made anew, of all that the store has: it gives bytes.
                self.has_come |= Instant::now() >= self.deadline();
            }
            if self.chunks.is_none() {
                let last = self.end.next_multiple_of(BLOCK).min(self.blob.size);
                let chunks = self.shared.objects.get(&self.key, block.start..last);
                self.chunks = Some(chunks);
            }
            let mut pieces = self.take(block.end - block.start).await?;
            if !self.is_right(number, &pieces) {
                pieces = self.once_more(number, block.clone()).await?;
            }
            self.release(block, pieces);
        }
    }

    fn deadline(&mut self) -> Instant {
        let patience = self.patience;
        *self
            .deadline
            .get_or_insert_with(|| Instant::now() + patience)
    }

    /// What the store gives next. Only the first bytes have a time by which they must have come: a slow store is not a dead one.
    async fn next(&mut self) -> io::Result<Option<io::Result<Bytes>>> {
        let deadline = (!self.has_come).then(|| self.deadline());
        let Some(chunks) = &mut self.chunks else {
            return Ok(None);
        };
        let Some(deadline) = deadline else {
            return Ok(chunks.next().await);
        };
        let next = tokio::time::timeout_at(deadline, chunks.next()).await;
        let next = next.map_err(|_| io::Error::other(too_late(&self.blob.digest)))?;
        self.has_come = true;
        Ok(next)
    }

    /// The next bytes as they come.
    async fn take(&mut self, length: u64) -> io::Result<Vec<Bytes>> {
        let mut pieces = Vec::new();
        let mut missing = length as usize;
        while missing > 0 {
            if self.left.is_empty() {
                let next = self.next().await?;
                self.left = next.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))?;
                continue;
            }
            let piece = self.left.split_to(self.left.len().min(missing));
            missing -= piece.len();
            pieces.push(piece);
        }
        Ok(pieces)
    }

    fn is_right(&self, number: u64, pieces: &[Bytes]) -> bool {
        let mut hasher = Hasher::new(&[]);
        for piece in pieces {
            hasher.update(piece);
        }
        let digest = hasher.finish_sha256();
        match &self.sums {
            Some(sums) => sums.0.get(number as usize) == Some(&short(&digest)),
            None => digest == self.blob.digest,
        }
    }

    /// Bytes may have been spoilt on their way: the block is fetched again, and what then is wrong is wrong in the store.
    async fn once_more(&mut self, number: u64, block: Range<u64>) -> io::Result<Vec<Bytes>> {
        self.shared.mismatches.fetch_add(1, Ordering::Relaxed);
        let digest = &self.blob.digest;
        tracing::warn!(%digest, block = number, "the object store gave wrong bytes; they are fetched again");
        self.left = Bytes::new();
        self.chunks = Some(self.shared.objects.get(&self.key, block.clone()));
        let pieces = self.take(block.end - block.start).await?;
        // The rest comes by a new request.
        self.chunks = None;
        if self.is_right(number, &pieces) {
            return Ok(pieces);
        }
        self.shared.mismatches.fetch_add(1, Ordering::Relaxed);
        self.shared.damaged().insert(self.blob.digest.clone());
        tracing::error!(digest = %self.blob.digest, block = number, "a stored object is damaged: it is not given, and will be replaced when its bytes come again");
        let error = damaged(&self.blob.digest);
        Err(io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Hands on what the reader wants of a block.
    fn release(&mut self, block: Range<u64>, pieces: Vec<Bytes>) {
        let mut start = block.start;
        for piece in pieces {
            let end = start + piece.len() as u64;
            let (from, to) = (self.at.max(start), self.end.min(end));
            if from < to {
                let part = (from - start) as usize..(to - start) as usize;
                self.ready.push_back(piece.slice(part));
            }
            start = end;
        }
        self.at = block.end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(bytes: &[u8]) -> BlobDescriptor {
        BlobDescriptor {
            digest: sha256(bytes),
            size: bytes.len() as u64,
        }
    }

    #[tokio::test]
    async fn sums_survive_their_encoding_and_nothing_else_passes_for_them() {
        let bytes: Vec<u8> = (0..2_500_000_u32).map(|n| (n % 251) as u8).collect();
        let blob = blob(&bytes);
        let body = Body::Memory(bytes.clone().into());
        let sums = Sums::of_checked(body, &blob).await.unwrap();
        assert_eq!(sums.0.len(), 3);
        assert_eq!(sums.0[2], sha256(&bytes[2 << 20..]).as_bytes()[..8]);
        let encoded = sums.encode(blob.size);
        assert_eq!(encoded.len() as u64, Sums::encoded_length(blob.size));
        assert_eq!(Sums::decode(&encoded, blob.size), Some(sums));
        assert_eq!(Sums::decode(&encoded, blob.size + 1), None);
        for at in 0..encoded.len() {
            let mut spoilt = encoded.to_vec();
            spoilt[at] ^= 1;
            assert_eq!(Sums::decode(&spoilt, blob.size), None, "byte {at}");
        }
        let other = Sums::of_checked(Body::Memory(Bytes::from_static(b"x")), &blob).await;
        assert_eq!(other.unwrap_err().kind, StorageErrorKind::Corrupt);
    }
}
