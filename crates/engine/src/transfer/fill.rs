//! A download while it arrives: its growing spool, what its head said, and from when on its bytes may leave.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use larder_core::ArtifactRecord;
use larder_storage::{End, GrowingSpool, Progress, Withheld};
use tokio::time::Instant;

/// Bodies up to this size are verified before a byte of them is sent (contract, section 3).
pub(crate) const SMALL_BODY: u64 = 1 << 20;
/// Of larger bodies this much waits for verification.
pub(crate) const HELD_BACK: u64 = 64 << 10;

/// From when on the bytes of a large body may leave.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Release {
    AtOnce,
    /// Somebody else could be asked if the body turns out to be wrong: until then, or until it has been verified, none leaves.
    From(Instant),
    /// What it is (or whether it may be served) is known only at the end.
    AtTheEnd,
}

/// Shared between the task that fills and the clients that read.
#[derive(Debug)]
pub(crate) struct Fill {
    /// Headers and dates as the upstream's head gave them; content is not final.
    pub(crate) draft: ArtifactRecord,
    /// Whether a digest is expected: then a range, too, ends only after verification.
    pub(crate) expects_digest: bool,
    release: Release,
    will_be_kept: AtomicBool,
    spool: Arc<GrowingSpool>,
}

/// What concerns bytes alone is the spool's.
impl Deref for Fill {
    type Target = Arc<GrowingSpool>;

    fn deref(&self) -> &Arc<GrowingSpool> {
        &self.spool
    }
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
        let withheld = Withheld {
            tail: HELD_BACK,
            of_parts: expects_digest,
        };
        Self {
            draft,
            expects_digest,
            release,
            will_be_kept: AtomicBool::new(will_be_kept),
            spool: Arc::new(GrowingSpool::new(total, withheld, ring_capacity)),
        }
    }

    /// A body that is complete and in memory.
    pub(crate) fn complete(draft: ArtifactRecord, body: Bytes) -> Self {
        Self {
            draft,
            expects_digest: false,
            release: Release::AtOnce,
            will_be_kept: AtomicBool::new(true),
            spool: Arc::new(GrowingSpool::complete(body)),
        }
    }

    /// Whether it will be kept, as far as that is known.
    pub(crate) fn will_be_kept(&self) -> bool {
        self.will_be_kept.load(Ordering::Relaxed)
    }

    /// From `offset` on its bytes are in memory only, and nothing of it will be kept.
    pub(crate) fn start_ring(&self, offset: u64) {
        self.will_be_kept.store(false, Ordering::Relaxed);
        self.spool.start_ring(offset);
    }

    /// Whether bytes may go out before the end.
    pub(crate) fn may_stream(&self) -> bool {
        let released = match self.release {
            Release::AtOnce => true,
            Release::From(time) => Instant::now() >= time,
            Release::AtTheEnd => false,
        };
        released && self.is_large(self.spool.progress())
    }

    /// Whether the body is still arriving and known to be too large to be verified as a whole first.
    fn is_large(&self, progress: Progress) -> bool {
        progress.end == End::Open && self.spool.total().unwrap_or(progress.available) > SMALL_BODY
    }

    /// Waits until [`may_stream`](Self::may_stream) could have become true; for ever if it cannot.
    pub(crate) async fn until_streamable(&self) {
        if matches!(self.release, Release::AtTheEnd) {
            return std::future::pending().await;
        }
        let mut progress = self.spool.subscribe();
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
}
