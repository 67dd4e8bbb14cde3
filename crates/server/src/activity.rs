//! What one connection is doing, as far as time-outs are concerned.
//!
//! hyper has one timer for heads, and it also runs between requests; larder wants 10 s for a head and 60 s between requests
//! (hazard R1), so the socket wrapper, the service and the response bodies note here what happens, and `drive.rs` acts on it.
//! All of one HTTP/1 connection's notes are made by one task: relaxed atomics are enough, and cost what plain fields cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use crate::framing::FramingDefect;
use crate::settings::ServerLimits;

/// "Not set" for the atomics that hold a moment or a number.
const NONE: u64 = u64::MAX;

/// One connection's notes.
#[derive(Debug)]
pub(crate) struct Activity {
    start: Instant,
    /// Whether single heads can be told apart in the byte stream: not in HTTP/2.
    http1: AtomicBool,
    /// Milliseconds from `start` to the first byte of a head that is not complete yet.
    head_since: AtomicU64,
    /// Milliseconds from `start` to the last request or the end of its answer; `NONE` before the first byte.
    last: AtomicU64,
    /// Requests that wait for their answer or its body.
    running: AtomicU32,
    /// Whether the socket takes no more bytes at the moment.
    blocked: AtomicBool,
    /// Bytes that it has taken.
    taken: AtomicU64,
    /// Heads handed to the service.
    heads: AtomicU64,
    /// Number of the head that the scanner found wanting.
    defective_head: AtomicU64,
    defect: AtomicU8,
    /// Whether an answer broke off in a way that only a reset can tell the client.
    reset: AtomicBool,
    /// Whether the client may still be sending when the connection is closed.
    lingers: AtomicBool,
}

impl Activity {
    /// Of a connection that speaks HTTP/1 until [`Self::speaks_http2`].
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            http1: AtomicBool::new(true),
            head_since: AtomicU64::new(NONE),
            last: AtomicU64::new(NONE),
            running: AtomicU32::new(0),
            blocked: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            heads: AtomicU64::new(0),
            defective_head: AtomicU64::new(NONE),
            defect: AtomicU8::new(0),
            reset: AtomicBool::new(false),
            lingers: AtomicBool::new(false),
        })
    }

    fn elapsed(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// Bytes have arrived.
    pub(crate) fn bytes_read(&self) {
        if self.running.load(Relaxed) > 0 {
            return;
        }
        if self.is_http1() {
            if self.head_since.load(Relaxed) == NONE {
                let now = self.elapsed();
                self.head_since.store(now, Relaxed);
                self.last.store(now, Relaxed);
            }
        } else if self.last.load(Relaxed) == NONE {
            self.last.store(self.elapsed(), Relaxed);
        }
    }

    /// The socket has taken so many bytes; `None` if it wants to be asked again.
    pub(crate) fn written(&self, bytes: Option<usize>) {
        self.blocked.store(bytes.is_none(), Relaxed);
        if let Some(bytes @ 1..) = bytes {
            let taken = self.taken.load(Relaxed);
            self.taken.store(taken + bytes as u64, Relaxed);
        }
    }

    /// A head is complete and has come to the service. Gives its defect, if the scanner has found one.
    pub(crate) fn head_complete(&self) -> Option<FramingDefect> {
        self.head_since.store(NONE, Relaxed);
        if !self.is_http1() {
            self.last.store(self.elapsed(), Relaxed);
            return None;
        }
        let number = self.heads.load(Relaxed);
        self.heads.store(number + 1, Relaxed);
        (number >= self.defective_head.load(Relaxed)).then(|| defect_of(self.defect.load(Relaxed)))
    }

    /// The scanner's verdict over head number `number`.
    pub(crate) fn set_defect(&self, number: u64, defect: FramingDefect) {
        self.defect.store(defect as u8, Relaxed);
        self.defective_head.store(number, Relaxed);
    }

    /// A request whose answer takes time; it counts as running until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, Relaxed);
        Running(Arc::clone(self))
    }

    /// An answer has failed: the connection must not end as if it were complete.
    pub(crate) fn ask_for_reset(&self) {
        self.reset.store(true, Relaxed);
    }

    pub(crate) fn reset_asked(&self) -> bool {
        self.reset.load(Relaxed)
    }

    /// A request is answered whose body has not been read to its end: the client must get to read the answer.
    pub(crate) fn ask_to_linger(&self) {
        self.lingers.store(true, Relaxed);
    }

    pub(crate) fn lingers(&self) -> bool {
        self.lingers.load(Relaxed)
    }

    /// When the connection is to be closed if nothing further happens; `None` while an answer is under way.
    pub(crate) fn deadline(&self, limits: &ServerLimits) -> Option<Instant> {
        if self.running.load(Relaxed) > 0 || self.blocked.load(Relaxed) {
            return None;
        }
        let (since, allowed) = match (self.head_since.load(Relaxed), self.last.load(Relaxed)) {
            (NONE, NONE) => (0, limits.header_timeout),
            (NONE, last) => (last, limits.idle_timeout),
            (head, _) => (head, limits.header_timeout),
        };
        Some(self.start + Duration::from_millis(since) + allowed)
    }

    /// Whether a head has begun and is not complete: the one state whose deadline is nearer than the one before it.
    pub(crate) fn within_head(&self) -> bool {
        self.head_since.load(Relaxed) != NONE
    }

    pub(crate) fn is_http1(&self) -> bool {
        self.http1.load(Relaxed)
    }

    pub(crate) fn speaks_http2(&self) {
        self.http1.store(false, Relaxed);
    }

    /// Whether an answer is being made or sent.
    pub(crate) fn is_answering(&self) -> bool {
        self.running.load(Relaxed) > 0 || self.blocked.load(Relaxed)
    }

    /// For how long the connection could have been closed without anybody missing an answer; `None` if it cannot be.
    pub(crate) fn quiet_for(&self) -> Option<Duration> {
        if !self.is_quiet() {
            return None;
        }
        let since = match self.last.load(Relaxed) {
            NONE => 0,
            last => last,
        };
        Some(Duration::from_millis(self.elapsed().saturating_sub(since)))
    }

    /// Whether the socket takes no more bytes.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Relaxed)
    }

    /// Bytes that the socket has taken so far.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Relaxed)
    }

    /// Whether the connection may be closed without anybody missing an answer.
    pub(crate) fn is_quiet(&self) -> bool {
        self.running.load(Relaxed) == 0 && !self.blocked.load(Relaxed) && !self.within_head()
    }
}

fn defect_of(number: u8) -> FramingDefect {
    use FramingDefect::{
        BadLength, BadTarget, Fragment, LengthAndEncoding, RepeatedEncoding, RepeatedLength,
        TooLong,
    };
    [
        RepeatedLength,
        LengthAndEncoding,
        RepeatedEncoding,
        TooLong,
        Fragment,
        BadTarget,
    ]
    .into_iter()
    .find(|defect| *defect as u8 == number)
    .unwrap_or(BadLength)
}

/// Marks a request as running.
#[derive(Debug)]
pub(crate) struct Running(Arc<Activity>);

impl Running {
    pub(crate) fn activity(&self) -> &Activity {
        &self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.last.store(self.0.elapsed(), Relaxed);
        self.0.running.fetch_sub(1, Relaxed);
    }
}
