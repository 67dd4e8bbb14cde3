//! A spool that others read while it grows: in a file that they follow, or in a ring in memory where the disk cannot take it.
//!
//! Knows bytes, how far they have come, and who reads them at which pace. Whether they are the right ones is for whoever writes it to
//! say: the last bytes wait for that word.

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use larder_core::{ErrorCode, Fault, FaultKind};
use tokio::sync::{Notify, watch};

use super::growing_body::GrowingBody;

/// How much a reader takes at a time.
const READ_CHUNK: u64 = 64 << 10;
/// A spool that is not kept and that nobody reads is given up after this.
const UNREAD_RING: Duration = Duration::from_secs(10);

/// How a spool has ended, if it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It still grows, or waits for the word on its bytes.
    Open,
    /// Its bytes are complete and the right ones.
    Verified,
    /// It stays incomplete, or its bytes are wrong.
    Failed,
}

/// How far a spool has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Bytes that can be read, were they not withheld.
    pub available: u64,
    /// How it has ended, if it has.
    pub end: End,
}

/// What readers do not get before the bytes are known to be the right ones.
#[derive(Debug, Clone, Copy, Default)]
pub struct Withheld {
    /// So many bytes at the end of the body.
    pub tail: u64,
    /// Whether also at the end of a part that does not reach the end of the body.
    pub of_parts: bool,
}

#[derive(Debug, Default)]
struct Ring {
    /// Offset in the body of the first byte held.
    base: u64,
    held: usize,
    chunks: VecDeque<Bytes>,
    started: bool,
    /// Whether bytes have been let go.
    discarded: bool,
}

/// Shared between the task that fills it and those that read.
#[derive(Debug)]
pub struct GrowingSpool {
    total: Option<u64>,
    pub(super) withheld: Withheld,
    file: OnceLock<Arc<File>>,
    /// The piece of the file that was read last, and where it begins.
    recent: Mutex<Option<(u64, Bytes)>>,
    ring: Mutex<Ring>,
    ring_capacity: usize,
    ring_moved: Notify,
    progress: watch::Sender<Progress>,
    /// Why it failed.
    cause: OnceLock<Fault>,
    positions: Mutex<HashMap<u64, Arc<AtomicU64>>>,
    next_reader: AtomicU64,
    /// What is leased for its bytes in memory.
    leases: Mutex<Vec<Box<dyn Lease>>>,
}

/// Whatever is given back when it is dropped.
trait Lease: Debug + Send {}

impl<T: Debug + Send> Lease for T {}

/// Nobody reads a spool that is not kept.
#[derive(Debug)]
pub struct Unread;

impl GrowingSpool {
    /// An empty one, for `total` bytes if that is known. In memory it holds about `ring_capacity` bytes.
    pub fn new(total: Option<u64>, withheld: Withheld, ring_capacity: usize) -> Self {
        Self {
            total,
            withheld,
            file: OnceLock::new(),
            recent: Mutex::default(),
            ring: Mutex::default(),
            ring_capacity,
            ring_moved: Notify::new(),
            cause: OnceLock::new(),
            progress: watch::Sender::new(Progress {
                available: 0,
                end: End::Open,
            }),
            positions: Mutex::default(),
            next_reader: AtomicU64::new(0),
            leases: Mutex::default(),
        }
    }

    /// One whose bytes are complete, the right ones, and in memory.
    pub fn complete(body: Bytes) -> Self {
        let length = body.len() as u64;
        let spool = Self::new(Some(length), Withheld::default(), body.len());
        {
            let mut ring = spool.ring();
            ring.started = true;
            ring.held = body.len();
            ring.chunks.push_back(body);
        }
        spool.verified(length);
        spool
    }

    /// The length that its source has declared, in bytes.
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// Where readers find the bytes that reached the disk.
    pub fn set_spool(&self, file: Arc<File>) {
        let _ = self.file.set(file);
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From `offset` on, bytes are kept in memory only.
    pub fn start_ring(&self, offset: u64) {
        let mut ring = self.ring();
        ring.started = true;
        ring.base = offset;
    }

    /// Whether a newcomer could still read from the start.
    pub fn holds_everything(&self) -> bool {
        !self.ring().discarded
    }

    /// Whether the bytes from `position` on can still be read, as far as they are there.
    pub(super) fn still_holds(&self, position: u64) -> bool {
        let ring = self.ring();
        !ring.discarded || position >= ring.base
    }

    /// Adds a chunk to the ring, waiting until the slowest reader has made room. A reader that takes nothing meanwhile is cut off.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub async fn push_ring(&self, chunk: Bytes) -> Result<(), Unread> {
        loop {
            let moved = self.ring_moved.notified();
            if self.try_push(&chunk) {
                return Ok(());
            }
            let before = self.slowest_reader();
            if tokio::time::timeout(UNREAD_RING, moved).await.is_ok() {
                continue;
            }
            match (before, self.slowest_reader()) {
                (None, None) => return Err(Unread),
                (Some(before), Some(now)) if before == now => self.cut_off(now),
                _ => {}
            }
        }
    }

    fn try_push(&self, chunk: &Bytes) -> bool {
        // Under the ring's lock nobody joins at the start, so no byte is let go that a newcomer was promised.
        let mut ring = self.ring();
        let slowest = self.slowest_reader();
        while ring.held + chunk.len() > self.ring_capacity {
            let Some(front) = ring.chunks.front() else {
                break;
            };
            let front_length = front.len();
            // A chunk goes only when every reader is past it, and never while nobody has come to read.
            if slowest.is_none_or(|position| position < ring.base + front_length as u64) {
                return false;
            }
            ring.chunks.pop_front();
            ring.held -= front_length;
            ring.base += front_length as u64;
            ring.discarded = true;
        }
        ring.held += chunk.len();
        ring.chunks.push_back(chunk.clone());
        true
    }

    /// Readers that are no further than this no longer pace the ring: what they have not read may go, and they end with an error.
    fn cut_off(&self, position: u64) {
        self.positions()
            .retain(|_, reader| reader.load(Ordering::Acquire) > position);
    }

    fn positions(&self) -> MutexGuard<'_, HashMap<u64, Arc<AtomicU64>>> {
        self.positions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn slowest_reader(&self) -> Option<u64> {
        self.positions()
            .values()
            .map(|position| position.load(Ordering::Acquire))
            .min()
    }

    /// How many read it, or hold a place to read from.
    pub fn readers(&self) -> usize {
        self.positions().len()
    }

    /// All of it, from the start. While this lives, no byte of it is let go that has not been read through it.
    pub fn body(self: &Arc<Self>) -> GrowingBody {
        GrowingBody::new(self.attach(0))
    }

    /// As [`body`](Self::body); `None` if bytes have been let go already.
    pub fn body_from_start(self: &Arc<Self>) -> Option<GrowingBody> {
        let ring = self.ring();
        (!ring.discarded).then(|| self.body())
    }

    /// Registers a reader at `start`; it paces the ring until it is dropped.
    pub(super) fn attach(self: &Arc<Self>, start: u64) -> Place {
        let id = self.next_reader.fetch_add(1, Ordering::Relaxed);
        let position = Arc::new(AtomicU64::new(start));
        self.positions().insert(id, Arc::clone(&position));
        Place {
            spool: Arc::clone(self),
            id,
            position,
        }
    }

    /// Tells readers how far the body has come.
    pub fn publish(&self, available: u64) {
        self.progress
            .send_modify(|progress| progress.available = available);
    }

    /// The body has ended after so many bytes, and they are the right ones.
    pub fn verified(&self, available: u64) {
        self.progress.send_replace(Progress {
            available,
            end: End::Verified,
        });
    }

    /// Readers get an error: their connections are aborted, never ended well.
    pub fn fail(&self, cause: Fault) {
        let _ = self.cause.set(cause);
        self.progress
            .send_modify(|progress| progress.end = End::Failed);
        // Nobody gets any of it any more, though readers that take nothing may stay for long.
        let mut ring = self.ring();
        (ring.held, ring.discarded) = (0, true);
        ring.chunks.clear();
        drop(ring);
        self.leases().clear();
    }

    /// Keeps what is leased for its bytes in memory for as long as they may be there.
    pub fn holds(&self, lease: impl Debug + Send + 'static) {
        self.leases().push(Box::new(lease));
    }

    fn leases(&self) -> MutexGuard<'_, Vec<Box<dyn Lease>>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why it failed.
    pub(super) fn cause(&self) -> Fault {
        let unknown = || {
            Fault::new(
                FaultKind::Unavailable,
                ErrorCode::Interrupted,
                "the transfer was interrupted; ask again",
            )
        };
        self.cause.get().cloned().unwrap_or_else(unknown)
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// Tells of each step.
    pub fn subscribe(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Whether it is complete, and its bytes are the right ones.
    pub fn is_verified(&self) -> bool {
        self.progress().end == End::Verified
    }

    /// Whether these very bytes are held at `position`.
    pub fn holds_at(&self, position: u64, bytes: &[u8]) -> bool {
        let end = position + bytes.len() as u64;
        let mut rest = bytes;
        while !rest.is_empty() {
            let Ok(held) = self.read_at(end - rest.len() as u64, end) else {
                return false;
            };
            match rest.split_at_checked(held.len()) {
                Some((here, after)) if !held.is_empty() && *here == *held => rest = after,
                _ => return false,
            }
        }
        true
    }

    /// Its first `length` bytes, which must be there, withheld or not: for whoever finds out whether they are the right ones.
    ///
    /// # Errors
    /// They have been let go, or cannot be read.
    pub fn read_arrived(self: &Arc<Self>, length: u64) -> io::Result<Vec<u8>> {
        let place = self.attach(0);
        let mut bytes = Vec::with_capacity(length as usize);
        while (bytes.len() as u64) < length {
            bytes.extend_from_slice(&place.read(length)?);
        }
        Ok(bytes)
    }

    /// Bytes from `position` on, at most `limit` and at most a chunk. They must be available.
    fn read_at(&self, position: u64, limit: u64) -> io::Result<Bytes> {
        let want = (limit - position).min(READ_CHUNK);
        let ring = self.ring();
        if ring.started && position >= ring.base {
            return read_ring(&ring, position, want);
        }
        let want = if ring.started {
            want.min(ring.base - position)
        } else {
            want
        };
        drop(ring);
        if let Some(bytes) = self.read_recent(position, want) {
            return Ok(bytes);
        }
        let file = self
            .file
            .get()
            .ok_or_else(|| io::Error::other("bytes of this download are gone"))?;
        let bytes = read_file(file, position, want as usize)?;
        *self.recent() = Some((position, bytes.clone()));
        Ok(bytes)
    }

    /// What another reader has just read of the file: those who wait for the same bytes share them in memory.
    fn read_recent(&self, position: u64, want: u64) -> Option<Bytes> {
        let recent = self.recent();
        let (at, bytes) = recent.as_ref()?;
        let from = usize::try_from(position.checked_sub(*at)?).ok()?;
        let to = bytes.len().min(from.saturating_add(want as usize));
        (from < to).then(|| bytes.slice(from..to))
    }

    fn recent(&self) -> MutexGuard<'_, Option<(u64, Bytes)>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Exactly `length` bytes of a file. They are not set to zero first, which would cost about as much as reading them.
fn read_file(file: &File, position: u64, length: usize) -> io::Result<Bytes> {
    let mut buffer = Vec::with_capacity(length);
    while buffer.len() < length {
        let at = position + buffer.len() as u64;
        let free = rustix::buffer::spare_capacity(&mut buffer);
        match rustix::io::pread(file, free, at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    buffer.truncate(length);
    Ok(buffer.into())
}

fn read_ring(ring: &Ring, position: u64, want: u64) -> io::Result<Bytes> {
    let mut offset = ring.base;
    for chunk in &ring.chunks {
        let end = offset + chunk.len() as u64;
        if position < end {
            let from = (position - offset) as usize;
            let to = chunk.len().min(from + want as usize);
            return Ok(chunk.slice(from..to));
        }
        offset = end;
    }
    Err(io::Error::other("bytes of this download are not there yet"))
}

/// A place in a spool: of somebody who reads, or may yet.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) spool: Arc<GrowingSpool>,
    id: u64,
    position: Arc<AtomicU64>,
}

impl Place {
    /// Reads on from the present position and moves it.
    pub(super) fn read(&self, limit: u64) -> io::Result<Bytes> {
        let position = self.position();
        let bytes = self.spool.read_at(position, limit)?;
        self.position
            .store(position + bytes.len() as u64, Ordering::Release);
        self.spool.ring_moved.notify_waiters();
        Ok(bytes)
    }

    pub(super) fn position(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    pub(super) fn seek(&self, position: u64) {
        self.position.store(position, Ordering::Release);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.spool.positions().remove(&self.id);
        self.spool.ring_moved.notify_waiters();
    }
}

#[cfg(test)]
#[path = "growing_tests.rs"]
mod tests;
