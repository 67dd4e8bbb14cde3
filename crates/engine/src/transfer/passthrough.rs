//! Bodies that go through to the client as they come.

use std::io;

use futures_util::StreamExt as _;
use larder_core::{Fault, FaultKind};
use larder_storage::Body;
use larder_upstream::{BodyStream, UpstreamError};

use crate::budget::Lease;
use crate::fault::FetchError;

/// A body on its way through, which can be read once, and its place among such questions. An error means: abort the connection.
pub(crate) fn passed_through(body: BodyStream, place: Option<Lease>) -> Body {
    let chunks = body.map(move |chunk| {
        // The place is held until the body has gone through.
        let _held = &place;
        chunk.map_err(|error| io::Error::other(broken_off(error)))
    });
    Body::once(None, Box::pin(chunks))
}

/// Why a body that is passed through breaks off.
fn broken_off(error: UpstreamError) -> Fault {
    let no_body = FetchError::from(error);
    Fault::new(FaultKind::BadGateway, no_body.code, no_body.message)
        .by_rule("upstream")
        .upstream_said("broken off")
}
