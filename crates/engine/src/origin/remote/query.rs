//! What is asked of an upstream, and an answer to it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use larder_core::ArtifactRecord;
use larder_upstream::{Resume, UpstreamResponse};
use url::Url;

use crate::fault::FetchError;
use crate::repositories::mirror::Mirror;

/// What is asked of an upstream, whichever of its places it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct UpstreamQuery<'a> {
    pub(crate) method: Method,
    /// In place of the source's own.
    pub(crate) accept: Option<&'static str>,
    /// A URL that a document gave, in place of the usual one.
    pub(crate) claimed: Option<Url>,
    /// Ask only whether this has changed.
    pub(crate) unless_changed: Option<&'a ArtifactRecord>,
    pub(crate) resume: Option<Resume>,
    /// Of these nothing is wanted any more.
    pub(crate) avoid: &'a [Arc<Mirror>],
    /// Whether a copy may be served if nobody answers.
    pub(crate) has_stale_fallback: bool,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
}

/// An answer, and whose it is.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) response: UpstreamResponse,
    pub(crate) mirror: Option<Arc<Mirror>>,
    /// The place that was asked instead of the usual one.
    pub(crate) claimed: Option<Url>,
    /// Whether another mirror could be asked if this one's body turns out to be wrong.
    pub(crate) has_mirror_beside: bool,
    /// Why a mirror asked before it had nothing to say.
    pub(crate) failed: Option<FetchError>,
    /// How long everybody who was asked wants to be left alone with this (429 and 503 with `Retry-After`).
    pub(crate) come_back_in: Option<Duration>,
}
