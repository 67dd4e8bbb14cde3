//! The operator's verbs and views: flush, explanations, the collection of what nothing refers to, what is held, and how all is doing. Nothing here is
//! on the way of a request for an artifact.

mod archive;
mod explain;
mod flush;
mod forget;
mod health;
mod hearsay;
mod held;
mod ledger;
mod offered;
mod reports;

use std::sync::Arc;

use health::HealthCache;
use held::HeldSizes;
use larder_core::{Fault, RepositoryName};
use larder_storage::{BlobStore, Garbage};
use larder_upstream::Upstream;

use crate::catalog::{Catalog, Foreign};
use crate::counters::Counters;
use crate::origin::remote::{self, Remote};
use crate::repositories::{Registry, RepositoryState};
use crate::transfer::flights::Flights;

pub use crate::counters::LatencyReport;
pub use crate::repositories::lag::IndexLag;
pub use archive::{
    Archive, ArchiveLink, ArchivePage, ArchiveRow, ArchiveTaken, ArchivedFile, LeftAlone,
};
pub(crate) use explain::Explainer;
pub use flush::{CacheType, FlushReport, FlushRequest};
pub use health::{BackendHealth, DiskSpace, Health};
pub(crate) use held::storage_unavailable;
pub use held::{HeldArtifact, HeldCursor, HeldPage, HeldRequest, HeldSummary};
pub use ledger::{
    Forecast, History, HistoryPoint, Ledger, MissingPath, Outage, RecentError, RecentErrors,
    RefusedGroup, Span, TrafficSource,
};
pub(crate) use offered::Offers;
pub use offered::{OfferPage, OfferRequest, OfferedArtifact};

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
}

/// What was looked at last.
#[derive(Debug, Default)]
pub(crate) struct Caches {
    health: HealthCache,
    held_sizes: HeldSizes,
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
        })
    }

    /// Runs the collector, or looks what it would do.
    pub(crate) async fn collect(&self, only_look: bool) -> Result<Garbage, Fault> {
        let garbage = if only_look {
            self.catalog.look_for_garbage().await
        } else {
            self.catalog.collect_thoroughly().await
        };
        garbage.map_err(|error| storage_unavailable(&error))
    }

    /// The configuration has changed.
    pub(crate) fn reconfigured(self: &Arc<Self>) {
        self.remote.refusals.forget(|_| true);
        self.catalog.bound_each(self.registry.load().all());
        self.keep_origins();
    }
}

impl Foreign for Operator {
    fn entry(&self, name: &RepositoryName) -> Option<Arc<RepositoryState>> {
        self.registry.load().get(name).cloned()
    }

    fn entries(&self) -> Vec<Arc<RepositoryState>> {
        self.registry.load().all()
    }

    fn flushed(&self, entry: &RepositoryState) {
        let name = &entry.repository.name;
        self.flights.flush(|key| key.repository == *name);
        self.remote.refusals.forget(|key| key.repository == *name);
    }
}
