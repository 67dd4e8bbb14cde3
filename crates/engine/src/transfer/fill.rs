//! The bytes of a download while they arrive: a spool file that readers follow, or a ring in memory when the disk cannot take them.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use larder_core::{ArtifactRecord, ErrorCode, Fault, FaultKind};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::budget::Lease;

/// Bodies up to this size are verified before a byte of them is sent (contract, section 3).
pub(crate) const SMALL_BODY: u64 = 1 << 20;
/// Of larger bodies this much waits for verification.
pub(crate) const HELD_BACK: u64 = 64 << 10;
/// How much a reader takes at a time.
const READ_CHUNK: u64 = 64 << 10;
/// A download that is not kept and that nobody reads is given up after this.
const UNREAD_RING: Duration = Duration::from_secs(10);

/// From when on the bytes of a large body may leave.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Release {
    AtOnce,
    /// Somebody else could be asked if the body turns out to be wrong: until then, or until it has been verified, none leaves.
    From(Instant),
    /// What it is (or whether it may be served) is known only at the end.
    AtTheEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Open,
    Verified,
    Failed,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    pub(crate) available: u64,
    pub(crate) end: End,
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

/// Shared between the task that fills and the clients that read.
#[derive(Debug)]
pub(crate) struct Fill {
    /// Headers and dates as the upstream's head gave them; content is not final.
    pub(crate) draft: ArtifactRecord,
    /// Declared length.
    pub(crate) total: Option<u64>,
    /// Whether a digest is expected: then a range, too, ends only after verification.
    pub(crate) expects_digest: bool,
    release: Release,
    /// As far as the upstream's head can tell: a body without a marked end may have been cut (hazard W2), unless a digest is expected.
    pub(crate) will_be_kept: bool,
    spool: OnceLock<Arc<File>>,
    ring: Mutex<Ring>,
    ring_capacity: usize,
    ring_moved: Notify,
    progress: watch::Sender<Progress>,
    /// Why it failed.
    cause: OnceLock<Fault>,
    positions: Mutex<HashMap<u64, Arc<AtomicU64>>>,
    next_reader: AtomicU64,
    /// The room that its bytes take in memory.
    room: Mutex<Vec<Lease>>,
}

impl Fill {
    pub(crate) fn new(
        draft: ArtifactRecord,
        total: Option<u64>,
        expects_digest: bool,
        release: Release,
        will_be_kept: bool,
        ring_capacity: usize,
    ) -> Self {
        Self {
            draft,
            total,
            expects_digest,
            release,
            will_be_kept,
            spool: OnceLock::new(),
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
            room: Mutex::default(),
        }
    }

    /// A body that is complete and in memory.
    pub(crate) fn complete(draft: ArtifactRecord, body: Bytes) -> Self {
        let length = body.len() as u64;
        let fill = Self::new(
            draft,
            Some(length),
            false,
            Release::AtOnce,
            true,
            body.len(),
        );
        {
            let mut ring = fill.ring();
            ring.started = true;
            ring.held = body.len();
            ring.chunks.push_back(body);
        }
        fill.verified(length);
        fill
    }

    /// Where readers find the bytes that reached the disk.
    pub(crate) fn set_spool(&self, file: Arc<File>) {
        let _ = self.spool.set(file);
    }

    /// Keeps the room that its bytes take in memory for as long as they may be there.
    pub(crate) fn holds_room(&self, lease: Lease) {
        self.room
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(lease);
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From `offset` on, bytes are kept in memory only.
    pub(crate) fn start_ring(&self, offset: u64) {
        let mut ring = self.ring();
        ring.started = true;
        ring.base = offset;
    }

    /// Whether a newcomer could still read from the start.
    pub(crate) fn holds_everything(&self) -> bool {
        !self.ring().discarded
    }

    /// Adds a chunk to the ring, waiting until the slowest reader has made room. A reader that takes nothing meanwhile is cut off. `Err` if
    /// nobody reads any more.
    pub(crate) async fn push_ring(&self, chunk: Bytes) -> Result<(), Unread> {
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

    pub(crate) fn readers(&self) -> usize {
        self.positions().len()
    }

    /// Registers a reader at the start; `None` if bytes have been let go already.
    pub(crate) fn attach_at_start(self: &Arc<Self>) -> Option<Attached> {
        let ring = self.ring();
        (!ring.discarded).then(|| self.attach(0))
    }

    /// Registers a reader at `start`; it paces the ring until it is dropped.
    pub(crate) fn attach(self: &Arc<Self>, start: u64) -> Attached {
        let id = self.next_reader.fetch_add(1, Ordering::Relaxed);
        let position = Arc::new(AtomicU64::new(start));
        self.positions().insert(id, Arc::clone(&position));
        Attached {
            fill: Arc::clone(self),
            id,
            position,
        }
    }

    /// Tells readers how far the body has come.
    pub(crate) fn publish(&self, available: u64) {
        self.progress
            .send_modify(|progress| progress.available = available);
    }

    pub(crate) fn verified(&self, available: u64) {
        self.progress.send_replace(Progress {
            available,
            end: End::Verified,
        });
    }

    /// Readers get an error: their connections are aborted, never ended well.
    pub(crate) fn fail(&self, cause: Fault) {
        let _ = self.cause.set(cause);
        self.progress
            .send_modify(|progress| progress.end = End::Failed);
        // Nobody gets any of it any more, though readers that take nothing may stay for long.
        let mut ring = self.ring();
        (ring.held, ring.discarded) = (0, true);
        ring.chunks.clear();
        self.room
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Why it failed.
    pub(crate) fn cause(&self) -> Fault {
        let unknown = || {
            Fault::new(
                FaultKind::BadGateway,
                ErrorCode::UpstreamCut,
                "the upstream broke off the transfer",
            )
        };
        self.cause.get().cloned().unwrap_or_else(unknown)
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    pub(crate) fn is_verified(&self) -> bool {
        self.progress.borrow().end == End::Verified
    }

    /// Whether bytes may go out before the end.
    pub(crate) fn may_stream(&self) -> bool {
        let released = match self.release {
            Release::AtOnce => true,
            Release::From(time) => Instant::now() >= time,
            Release::AtTheEnd => false,
        };
        released && self.is_large(*self.progress.borrow())
    }

    /// Whether the body is still arriving and known to be too large to be verified as a whole first.
    fn is_large(&self, progress: Progress) -> bool {
        progress.end == End::Open && self.total.unwrap_or(progress.available) > SMALL_BODY
    }

    /// Waits until [`may_stream`](Self::may_stream) could have become true; for ever if it cannot.
    pub(crate) async fn until_streamable(&self) {
        if matches!(self.release, Release::AtTheEnd) {
            return std::future::pending().await;
        }
        let mut progress = self.subscribe();
        let large = progress
            .wait_for(|progress| self.is_large(*progress))
            .await
            .is_ok();
        if !large {
            std::future::pending::<()>().await;
        }
        if let Release::From(time) = self.release {
            tokio::time::sleep_until(time).await;
        }
    }

    /// Whether these very bytes are held at `position`.
    pub(crate) fn holds_at(&self, position: u64, bytes: &[u8]) -> bool {
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
        let file = self
            .spool
            .get()
            .ok_or_else(|| io::Error::other("bytes of this download are gone"))?;
        let mut buffer = vec![0; want as usize];
        file.read_exact_at(&mut buffer, position)?;
        Ok(buffer.into())
    }
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

/// Nobody reads a download that is not kept.
#[derive(Debug)]
pub(crate) struct Unread;

/// A reader's place in a fill.
#[derive(Debug)]
pub(crate) struct Attached {
    fill: Arc<Fill>,
    id: u64,
    position: Arc<AtomicU64>,
}

impl Attached {
    pub(crate) fn fill(&self) -> &Arc<Fill> {
        &self.fill
    }

    /// Reads on from the present position and moves it.
    pub(crate) fn read(&self, limit: u64) -> io::Result<Bytes> {
        let position = self.position.load(Ordering::Acquire);
        let bytes = self.fill.read_at(position, limit)?;
        self.position
            .store(position + bytes.len() as u64, Ordering::Release);
        self.fill.ring_moved.notify_waiters();
        Ok(bytes)
    }

    pub(crate) fn position(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    pub(crate) fn seek(&self, position: u64) {
        self.position.store(position, Ordering::Release);
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.fill.positions().remove(&self.id);
        self.fill.ring_moved.notify_waiters();
    }
}
