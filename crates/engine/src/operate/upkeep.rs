//! The collector, a changed configuration, and what a flush in another engine means here.

use std::sync::Arc;

use larder_core::{Fault, RepositoryName};
use larder_storage::Garbage;

use crate::catalog::Foreign;
use crate::operate::operator::{Operator, storage_unavailable};
use crate::repositories::RepositoryState;

impl Operator {
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
        self.note_held();
    }

    /// Notes behind the scenes what is to outlive what is held, and the configuration: whose it is, and how old.
    pub(crate) fn note_held(self: &Arc<Self>) {
        self.keep_origins();
        self.keep_ages();
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
