//! What the pipeline gives to the HTTP layer: a representation, where its bytes are, and how it came about.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use larder_core::{
    ArtifactRecord, BlobDescriptor, CacheStatus, Fault, FaultKind, Source, UnixMillis,
};

use crate::catalog::{NotHeld, Reading, Use};
use crate::counters::{RepositoryCounters, count};
use crate::policy::clearance::{Cleared, Pass};

pub use larder_storage::Body;

/// An answer to a request for an artifact. Conditional headers, ranges and HEAD are applied by the HTTP layer.
#[derive(Debug)]
pub struct Answer {
    /// 200 for a representation; 301 or 307 for a redirect (`location` set); otherwise a passed-through status.
    pub status: StatusCode,
    /// What it is.
    pub representation: Representation,
    /// Where its bytes are. [`Body::Empty`] for an answer to HEAD that was forwarded, or a redirect: `Representation::length` is still
    /// the GET's.
    pub body: Cleared<Body>,
    /// For `Cache-Status`.
    pub cache_status: CacheStatus,
    /// For `X-Artifact-Source`.
    pub source: Source,
    /// For `Age` and `Cache-Control`.
    pub freshness: Freshness,
    /// For `Location`, only with a 3xx status: an absolute path, or with 307 a presigned URL, which is a secret while it lives.
    pub location: Option<String>,
    /// Whether the answer may be remembered in the hot set, and until when it holds.
    pub hot: Option<HotTicket>,
    /// Held until the body has been sent, where it is bytes that may be evicted; counts the answer, where it is a record's or an upload's.
    pub reading: Option<Reading>,
}

/// Why what was asked for could not be answered from what is held; `None`: it could, or a rule or larder itself is in the way. What has
/// come from upstream may be kept by now: whoever writes this down looks.
pub(crate) fn not_held(answered: &Result<Answer, Fault>) -> Option<NotHeld> {
    match answered {
        Ok(answer) => (answer.source == Source::Remote).then_some(NotHeld::NotKept),
        // Quarantine holds back what may well be there.
        Err(fault) if fault.held_until.is_some() => None,
        Err(fault) => match fault.kind {
            FaultKind::NotFound | FaultKind::Upstream(404 | 410) => Some(NotHeld::Absent),
            FaultKind::Upstream(_) | FaultKind::BadGateway | FaultKind::GatewayTimeout => {
                Some(NotHeld::Failed)
            }
            _ => None,
        },
    }
}

/// The headers of a representation, before ranges and conditions.
#[derive(Debug, Clone, Default)]
pub struct Representation {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// `ETag`, complete with quotes; `None` while in flight without an upstream tag.
    pub etag: Option<String>,
    /// `Last-Modified`, an HTTP date.
    pub last_modified: Option<String>,
    /// When larder began to serve this body (for `If-Modified-Since`).
    pub served_since: Option<UnixMillis>,
    /// Length in bytes, if known already.
    pub length: Option<u64>,
    /// Names for `Vary`; empty = no `Vary`.
    pub vary: &'static [&'static str],
    /// Headers that a format lets through beside these (pass-through answers).
    pub extra: HeaderMap,
    /// What caches behind the upstream said that they did (`Cache-Status`, RFC 9211) when it last answered: for an answer that it had a part
    /// in.
    pub upstream_status: Option<String>,
    /// The upstream's answer came from a cache, and had an age.
    pub is_aged: bool,
}

/// How long the answer may be reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// The last good upstream contact, less the age that its answer had: `Date`, and where `Age` counts from.
    pub contacted_at: UnixMillis,
    /// Remaining life; `None` = unlimited (`public, max-age=31536000, immutable`); zero when stale or mutable with TTL 0.
    pub remaining: Option<Duration>,
    /// `Cache-Control: no-store` instead (pass-through answers).
    pub no_store: bool,
}

/// Under which circumstances a remembered answer still holds..
#[derive(Debug, Clone)]
pub struct HotTicket {
    /// The repository's epoch counter and its value when the answer was made.
    pub(crate) epoch: Arc<std::sync::atomic::AtomicU64>,
    pub(crate) epoch_value: u64,
    /// Further repositories that the answer depends on: a virtual one's members.
    pub(crate) others: Vec<Dependency>,
    /// When the copy stops being fresh; `None` = never.
    pub fresh_until: Option<UnixMillis>,
    /// When it is to be found out anew whose the copy is, or what may be said of it; `None` = never. Clients are not told.
    pub(crate) whose_until: Option<UnixMillis>,
    /// `Age` counts from here.
    pub contacted_at: UnixMillis,
    /// Whether anybody may read it. Of what only some may read, nothing is answered before it is known who asks.
    pub for_anyone: bool,
    /// The stored bytes that the answer is, if it is a stored file as it stands.
    pub(crate) held: Option<HeldBlob>,
    /// The use of the record or the uploaded file that it was made from.
    pub(crate) used: Option<Arc<Use>>,
}

/// A repository that an answer depends on, beside that of its own copy.
#[derive(Debug, Clone)]
pub(crate) struct Dependency {
    /// Its epoch counter, and the value when the answer was made.
    pub(crate) epoch: Arc<std::sync::atomic::AtomicU64>,
    pub(crate) epoch_value: u64,
    /// The use of its record that is in the answer.
    pub(crate) used: Option<Arc<Use>>,
}

impl Dependency {
    /// Whether nothing has changed there since.
    pub(crate) fn holds(&self) -> bool {
        is_at(&self.epoch, self.epoch_value)
    }
}

fn is_at(epoch: &std::sync::atomic::AtomicU64, value: u64) -> bool {
    epoch.load(std::sync::atomic::Ordering::Acquire) == value
}

/// Stored bytes that can be opened again, and where that is counted.
#[derive(Debug, Clone)]
pub(crate) struct HeldBlob {
    pub(crate) blob: BlobDescriptor,
    pub(crate) counters: Arc<RepositoryCounters>,
}

impl HeldBlob {
    /// A record's bytes, counted there.
    pub(crate) fn of(record: &ArtifactRecord, counters: &Arc<RepositoryCounters>) -> Option<Self> {
        let blob = record.blob()?.clone();
        let counters = Arc::clone(counters);
        Some(Self { blob, counters })
    }
}

impl Pass for HotTicket {}

impl HotTicket {
    /// The length in bytes of the stored file that the answer is; `None` if it is none, and cannot be opened again by this ticket.
    pub fn held_length(&self) -> Option<u64> {
        self.held.as_ref().map(|held| held.blob.size)
    }

    /// Counts a hit that was answered by this ticket with the stored file, once the answer is there.
    pub fn count_hit(&self) {
        if let Some(held) = &self.held {
            count(&held.counters.hits);
        }
    }

    /// The answer is given at `now`. A load, and a store if that was not done lately.
    pub fn touch(&self, now: UnixMillis) {
        let of_others = self.others.iter().filter_map(|other| other.used.as_ref());
        for used in self.used.iter().chain(of_others) {
            used.touch(now);
        }
    }

    /// An answer has gone out by this ticket that has the bytes, or a part of them. One addition.
    pub fn serve(&self) {
        if let Some(used) = &self.used {
            used.serve();
        }
    }

    /// Held until a body that is no copy in memory has been sent, so that it is not evicted meanwhile.
    pub fn reading(&self) -> Option<Reading> {
        self.used.as_ref().and_then(Reading::begin)
    }

    /// Whether the answer may still be given at `now`: no flush, replacement, eviction or reload since, and still fresh.
    pub fn is_good(&self, now: UnixMillis) -> bool {
        is_at(&self.epoch, self.epoch_value)
            && self.others.iter().all(Dependency::holds)
            && self.fresh_until.is_none_or(|until| now < until)
            && self.whose_until.is_none_or(|until| now < until)
            && self.used.as_ref().is_none_or(|used| !used.is_gone())
    }
}
