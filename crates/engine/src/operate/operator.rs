//! What the operator's verbs and views need.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use larder_core::{ErrorCode, Fault, FaultKind, RepositoryName};
use larder_storage::{BlobStore, StorageError};
use larder_upstream::Upstream;
use tokio::sync::Mutex;

use crate::catalog::Catalog;
use crate::counters::Counters;
use crate::operate::condition::HealthCache;
use crate::operate::sizes::HeldSizes;
use crate::origin::remote::{self, Remote};
use crate::repositories::Registry;
use crate::transfer::flights::Flights;

/// What the operator's verbs and views need.
#[derive(Debug)]
pub(crate) struct Operator {
    pub(crate) registry: Arc<Registry>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) flights: Arc<Flights>,
    pub(crate) remote: Arc<Remote>,
    pub(crate) blobs: Arc<dyn BlobStore>,
    pub(crate) upstream: Arc<dyn Upstream>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) cache: Caches,
    /// Repositories of which it is noted how old all is that they hold.
    pub(super) aged: Mutex<HashSet<RepositoryName>>,
}

/// What was looked at last.
#[derive(Debug, Default)]
pub(crate) struct Caches {
    pub(super) health: HealthCache,
    pub(super) held_sizes: HeldSizes,
}

impl Operator {
    /// Over what the origins are made of.
    pub(crate) fn new(
        base: remote::Parts,
        remote: Arc<Remote>,
        counters: Arc<Counters>,
    ) -> Arc<Self> {
        let disk = base.transfers.limits().disk;
        base.catalog.bound(disk, base.registry.load().all());
        Arc::new(Self {
            registry: base.registry,
            catalog: base.catalog,
            flights: Arc::clone(&base.transfers.flights),
            remote,
            blobs: base.blobs,
            upstream: base.upstream,
            counters,
            cache: Caches::default(),
            aged: Mutex::default(),
        })
    }
}

/// Storage did not answer an operator: 503 with `Retry-After`.
pub(crate) fn storage_unavailable(error: &StorageError) -> Fault {
    tracing::error!(%error, "storage failed");
    if error.is_full() {
        // No waiting helps: somebody has to make room.
        let message = "larder's metadata has no room left on its disk: nothing was changed; free space, and ask again";
        let kind = FaultKind::InsufficientStorage;
        return Fault::new(kind, ErrorCode::StorageFull, message).by_rule("disk");
    }
    Fault::new(
        FaultKind::Unavailable,
        ErrorCode::StorageUnavailable,
        "larder's own storage did not answer; ask again in a moment",
    )
    .retry_after(Some(Duration::from_secs(2)))
}
