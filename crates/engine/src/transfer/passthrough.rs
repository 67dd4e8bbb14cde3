//! Bodies that go through to the client as they come.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use larder_core::{Fault, FaultKind};
use larder_upstream::{BodyStream, UpstreamError};

use crate::budget::Lease;
use crate::fault::FetchError;

/// A body on its way through, and its place among such questions. An error means: abort the connection.
#[derive(Debug)]
pub struct PassThroughBody(
    pub(crate) BodyStream,
    #[expect(dead_code, reason = "it is held until the body has gone through")]
    pub(crate)  Option<Lease>,
);

impl Stream for PassThroughBody {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(context).map(|item| {
            item.map(|chunk| chunk.map_err(|error| io::Error::other(broken_off(error))))
        })
    }
}

/// Why a body that is passed through breaks off.
fn broken_off(error: UpstreamError) -> Fault {
    let no_body = FetchError::from(error);
    Fault::new(FaultKind::BadGateway, no_body.code, no_body.message)
        .by_rule("upstream")
        .upstream_said("broken off")
}
