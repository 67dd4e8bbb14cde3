//! What all requests share, and what the requests of one connection share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use larder_budget::Budgets;
use larder_core::{Pseudonym, UnixMillis};
use larder_sendfile::FileSender;

use crate::activity::Activity;
use crate::attempts::Attempts;
use crate::health_page::ReloadReport;
use crate::hot::HotSet;
use crate::metrics::Metrics;
use crate::places::Seat;
use crate::settings::{LiveSettings, ServerLimits};
use crate::tls::Tls;
use crate::warm::{Sightings, WarmSet};

/// Shared by all requests, whatever answers them.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) live: ArcSwap<LiveSettings>,
    pub(crate) hot: HotSet,
    pub(crate) warm: WarmSet,
    pub(crate) sightings: Sightings,
    /// Who has sent wrong admin tokens lately.
    pub(crate) attempts: Attempts,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: ServerLimits,
    /// Bytes that the hot set may take.
    pub(crate) hot_set_limit: u64,
    /// Where uploads and the bytes of request bodies are leased.
    pub(crate) budgets: Arc<Budgets>,
    pub(crate) loopback_only: bool,
    pub(crate) version: &'static str,
    pub(crate) started: UnixMillis,
    /// The last reload of the configuration; none yet if empty.
    pub(crate) reload: ArcSwapOption<ReloadReport>,
    /// Larder has been told to stop, and still answers.
    pub(crate) stopping: AtomicBool,
    pub(crate) tls: Option<Arc<Tls>>,
    /// What larder calls itself in the `Via` of what it sends.
    pub(crate) pseudonym: Pseudonym,
}

impl Shared {
    /// Whether larder has been told to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
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
    pub(crate) seat: Seat,
}
