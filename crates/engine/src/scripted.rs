//! What a scripted pipeline answers with, for the tests of what stands in front of the engine. Nothing else makes answers outside of it:
//! what is cleared here no rule has looked at.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use larder_core::{
    ArtifactRecord, Content, ErrorCode, Fault, FaultKind, RepositoryName, StoredHeaders, UnixMillis,
};
use larder_storage::Chunks;
use larder_upstream::BodyStream;
use url::Url;

use crate::answer::{Body, HotTicket};
use crate::policy::clearance::{Cleared, clear_non_artifact};
use crate::transfer::fill::{Fill, Release};
use crate::transfer::passthrough::passed_through;

/// How much of a body comes at a time that is fetched.
const FETCHED: usize = 50_000;

/// A body that may leave.
pub fn cleared(body: Body) -> Cleared<Body> {
    clear_non_artifact(body)
}

/// Permission to remember an answer until `epoch` changes or `fresh_until` has come.
pub fn ticket(
    epoch: &Arc<AtomicU64>,
    fresh_until: Option<UnixMillis>,
    contacted_at: UnixMillis,
) -> HotTicket {
    HotTicket {
        epoch: Arc::clone(epoch),
        epoch_value: epoch.load(Ordering::Acquire),
        others: Vec::new(),
        fresh_until,
        whose_until: None,
        contacted_at,
        for_anyone: true,
        held: None,
        used: None,
    }
}

/// A body that is passed through: these bytes, without a declared length.
pub fn pass_through(repository: RepositoryName, url: Url, bytes: Bytes) -> Body {
    passed_through(BodyStream::scripted(repository, url, bytes), None)
}

/// A body that is fetched while it is read, as of a store that is a service: in chunks, each after a `pause`.
pub fn fetched(bytes: Bytes, pause: Duration) -> Body {
    Body::streamed(Fetched { bytes, pause })
}

#[derive(Debug)]
struct Fetched {
    bytes: Bytes,
    pause: Duration,
}

impl larder_storage::Source for Fetched {
    fn length(&self) -> Option<u64> {
        Some(self.bytes.len() as u64)
    }

    fn read(&self, range: Option<Range<u64>>) -> Chunks {
        let range = range.unwrap_or(0..self.bytes.len() as u64);
        let left = self.bytes.slice(range.start as usize..range.end as usize);
        let state = (left, self.pause);
        Box::pin(futures_util::stream::unfold(
            state,
            |(mut left, pause)| async move {
                if left.is_empty() {
                    return None;
                }
                tokio::time::sleep(pause).await;
                let chunk = left.split_to(left.len().min(FETCHED));
                Some((Ok(chunk), (left, pause)))
            },
        ))
    }
}

/// A body that arrives in frames, one every `pause`, of a declared length or without. `None` breaks it off. Must be called within a
/// Tokio runtime.
pub fn flight(frames: Vec<Option<Bytes>>, length: Option<u64>, pause: Duration) -> Body {
    let draft = ArtifactRecord {
        content: Content::HeadOnly,
        headers: StoredHeaders::default(),
        source_url: String::new(),
        published_at: None,
        first_seen_at: UnixMillis(0),
        contacted_at: UnixMillis(0),
        fresh_since: UnixMillis(0),
        served_since: UnixMillis(0),
        verified: false,
    };
    let fill = Fill::new(draft, length, false, Release::AtOnce, true, usize::MAX);
    fill.start_ring(0);
    let fill = Arc::new(fill);
    let body = fill.body();
    tokio::spawn(async move {
        let mut available = 0;
        for frame in frames {
            tokio::time::sleep(pause).await;
            let Some(bytes) = frame else {
                let message = "the upstream broke off";
                fill.fail(Fault::new(
                    FaultKind::BadGateway,
                    ErrorCode::UpstreamCut,
                    message,
                ));
                return;
            };
            available += bytes.len() as u64;
            if fill.push_ring(bytes).await.is_err() {
                return;
            }
            fill.publish(available);
        }
        fill.verified(available);
    });
    Body::Growing(body)
}
