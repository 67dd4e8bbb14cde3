//! What all requests share, and what the requests of one connection share.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use larder_core::Pseudonym;
use larder_sendfile::FileSender;

use crate::activity::Activity;
use crate::hot::HotSet;
use crate::metrics::Metrics;
use crate::request_body::BodyBudget;
use crate::settings::{LiveSettings, ServerLimits};

/// Shared by all requests, whatever answers them.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) live: ArcSwap<LiveSettings>,
    pub(crate) hot: HotSet,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: ServerLimits,
    pub(crate) bodies: BodyBudget,
    pub(crate) loopback_only: bool,
    pub(crate) version: &'static str,
    /// What larder calls itself in the `Via` of what it sends.
    pub(crate) pseudonym: Pseudonym,
}

/// Shared by the requests of one connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: SocketAddr,
    pub(crate) scheme: &'static str,
    /// Whether it came in by a listener on a loopback address.
    pub(crate) on_loopback: bool,
    /// `None` where bytes must pass through the process (TLS, HTTP/2).
    pub(crate) sender: Option<FileSender>,
    pub(crate) activity: Arc<Activity>,
}
