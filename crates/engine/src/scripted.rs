//! What a scripted pipeline answers with, for the tests of what stands in front of the engine. Nothing else makes answers outside of it:
//! what is cleared here no rule has looked at.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use larder_core::{
    ArtifactRecord, Content, ErrorCode, Fault, FaultKind, RepositoryName, StoredHeaders, UnixMillis,
};
use larder_upstream::BodyStream;
use url::Url;

use crate::answer::{Body, HotTicket};
use crate::policy::clearance::{Cleared, clear_non_artifact};
use crate::transfer::fill::{Fill, Release};
use crate::transfer::passthrough::PassThroughBody;
use crate::transfer::reader::FlightBody;

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
        contacted_at,
        for_anyone: true,
        held: None,
    }
}

/// A body that is passed through: these bytes, without a declared length.
pub fn pass_through(repository: RepositoryName, url: Url, bytes: Bytes) -> Body {
    Body::Stream(PassThroughBody(BodyStream::scripted(
        repository, url, bytes,
    )))
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
        renewed_at: UnixMillis(0),
        began_at: UnixMillis(0),
        verified: false,
    };
    let fill = Fill::new(draft, length, false, Release::AtOnce, true, usize::MAX);
    fill.start_ring(0);
    let fill = Arc::new(fill);
    let body = FlightBody::new(fill.attach(0));
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
    Body::InFlight(body)
}
