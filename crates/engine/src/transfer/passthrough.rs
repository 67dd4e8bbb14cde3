//! Bodies that go through to the client as they come.

use std::io;

use bytes::Bytes;
use futures_util::StreamExt as _;
use larder_core::{Fault, FaultKind};
use larder_storage::Body;
use larder_upstream::{BodyStream, UpstreamError};
use tokio::time::{Instant, timeout_at};

use crate::budget::{Lease, Usage};
use crate::fault::{FetchError, gave_way};
use crate::transfer::looks::{LOOK_AROUND, Looks};

/// A body on its way through, which can be read once, and its place among such questions. An error means: abort the connection.
pub(crate) fn passed_through(body: BodyStream, place: Option<Lease>) -> Body {
    let passing = Passing {
        body,
        place,
        come: 0,
        looks: Looks::new(0),
        next_look: Instant::now() + LOOK_AROUND,
    };
    let chunks =
        futures_util::stream::unfold(Some(passing), |passing: Option<Passing>| async move {
            let mut passing = passing?;
            match passing.next().await? {
                Ok(chunk) => Some((Ok(chunk), Some(passing))),
                Err(no_body) => Some((Err(io::Error::other(broken_off(no_body))), None)),
            }
        });
    Body::once(None, Box::pin(chunks))
}

struct Passing {
    body: BodyStream,
    /// Held until the body has gone through.
    place: Option<Lease>,
    come: u64,
    looks: Looks,
    next_look: Instant,
}

impl Passing {
    async fn next(&mut self) -> Option<Result<Bytes, FetchError>> {
        loop {
            if let Ok(next) = timeout_at(self.next_look, self.body.next()).await {
                let chunk = next?.map_err(|error: UpstreamError| FetchError::from(error));
                self.come += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
                return Some(chunk);
            }
            self.next_look = Instant::now() + LOOK_AROUND;
            let usage = self.looks.usage(self.come, true);
            if self
                .place
                .as_ref()
                .is_some_and(|place| place.should_yield(usage))
            {
                return Some(Err(gave_way(Usage::Slow)));
            }
        }
    }
}

/// Why a body that is passed through breaks off.
fn broken_off(no_body: FetchError) -> Fault {
    Fault::new(FaultKind::BadGateway, no_body.code, no_body.message)
        .by_rule("upstream")
        .upstream_said("broken off")
}
