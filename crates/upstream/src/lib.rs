//! The outside: one request to an upstream server in, one checked response out.
//!
//! Knows HTTP, redirects, TLS, which addresses may be contacted, where credentials belong and when an origin is better left alone
//! for a moment. Does not know caching, package formats, or what a status means for a client: every status other than a followed
//! redirect is handed on as it came.
//!
//! What holds for every user of [`Upstream`]: credentials and extra headers reach the configured origins only, each
//! connection goes to a checked address, and a body either is complete or ends in an error.

#![cfg_attr(not(test), warn(clippy::too_many_lines))]

mod address;
mod ask;
mod auth;
mod body;
mod breaker;
mod cause;
mod classify;
mod client;
mod collector;
mod connect_watch;
mod error;
mod handshake;
mod headers;
mod hop;
mod http;
mod limits;
mod lookups;
mod peer;
mod redirect;
mod request;
mod resolver;
mod response;
mod retry;
mod scripted;
mod trail;
mod trust;

pub use ask::{Asked, Asker, NoAnswer, Sent, Watcher};
pub use body::{BodyStream, Framing};
pub use breaker::{BreakerState, Breakers, Permit};
pub use cause::Cause;
pub use collector::Collector;
pub use error::{UpstreamError, UpstreamErrorKind};
pub use http::{HttpUpstream, Options};
pub use limits::{ClusterLimits, HostClaim, Moment};
pub use peer::{PeerChunks, PeerClient, PeerError};
pub use request::{Conditions, Resume, UpstreamRequest};
pub use resolver::{NameLookup, SystemLookup};
pub use response::{FolderRedirect, UpstreamResponse};
pub use retry::retry_after;
pub use scripted::{RecordedRequest, ScriptedReply, ScriptedUpstream};
pub use trail::{in_request, on_behalf, request_span, spawn};
pub use trust::check_ca_file;

use std::sync::Arc;

use async_trait::async_trait;
use larder_core::RepositoryName;

/// Someone who can carry a request to an upstream server: [`HttpUpstream`] over the network, [`ScriptedUpstream`] in tests.
#[async_trait]
pub trait Upstream: Send + Sync + std::fmt::Debug {
    /// Sends `request`, follows its redirects, and gives the head of the final response with its body still to be read.
    ///
    /// # Errors
    /// No usable head arrived: see [`UpstreamErrorKind`]. A response of any status is `Ok`.
    async fn send(&self, request: UpstreamRequest) -> Result<UpstreamResponse, UpstreamError>;

    /// How the configured origins of `repository` are doing: the worst state among them, [`BreakerState::Closed`] if it was never
    /// asked for anything.
    fn health(&self, repository: &RepositoryName) -> BreakerState;

    /// From now on bounds on requests to one host are kept by all replicas together. Nothing where there are no such bounds.
    fn keep_to(&self, limits: Arc<dyn ClusterLimits>) {
        drop(limits);
    }
}
