//! How the backends and the disk are, as `/health` tells it.

use std::sync::Mutex;

use tokio::time::Instant;

/// What `/health` reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Where records are.
    pub metadata: BackendHealth,
    /// Where bytes are.
    pub blobs: BackendHealth,
    /// The room that there is for them; `None` if it cannot be told.
    pub disk: Option<DiskSpace>,
}

/// Room in the file system that holds the data directory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// What larder may still write.
    pub free: u64,
    /// Size of the file system.
    pub total: u64,
    /// With less than this free, nothing more is kept.
    pub reserve: u64,
    /// Whether the last download could not be written for another reason than want of room.
    pub failing: bool,
}

impl DiskSpace {
    /// Whether downloads are kept.
    pub fn is_keeping(&self) -> bool {
        self.free >= self.reserve && !self.failing
    }
}

impl Health {
    /// Whether this node can serve.
    pub fn can_serve(&self) -> bool {
        // Without its server larder still serves what it has in memory, and what upstreams have.
        self.blobs.ok && (self.metadata.ok || self.metadata.kind == SERVER)
    }
}

/// The state of one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendHealth {
    /// Whether it answered.
    pub ok: bool,
    /// `sqlite`, `postgresql`, `filesystem`, `s3`.
    pub kind: &'static str,
    /// A word for people; no internal paths.
    pub detail: Option<String>,
}

/// The kind of a metadata database that is a server of its own.
pub(super) const SERVER: &str = "postgresql";

#[derive(Debug, Default)]
pub(crate) struct HealthCache {
    pub(super) last: Mutex<Option<(Instant, Health)>>,
}
