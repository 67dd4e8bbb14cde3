//! Bodies that go through to the client as they come.

use std::io;

use futures_util::StreamExt as _;
use larder_core::{Fault, FaultKind};
use larder_storage::Body;
use larder_upstream::{BodyStream, UpstreamError};

use crate::fault::FetchError;

/// A body on its way through: it can be read once. An error means: abort the connection.
pub(crate) fn passed_through(body: BodyStream) -> Body {
    let chunks = body.map(|chunk| chunk.map_err(|error| io::Error::other(broken_off(error))));
    Body::once(None, Box::pin(chunks))
}

/// Why a body that is passed through breaks off.
fn broken_off(error: UpstreamError) -> Fault {
    let no_body = FetchError::from(error);
    Fault::new(FaultKind::BadGateway, no_body.code, no_body.message)
        .by_rule("upstream")
        .upstream_said("broken off")
}
