//! When what was made of a repository's records before is void. Each answer that may be served again carries the epoch that it was made
//! in; whoever supersedes what was served raises it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder_storage::Notice;

use super::state::Catalog;
use crate::repositories::RepositoryState;

/// The epoch of a repository at a moment.
#[derive(Debug, Clone)]
pub(crate) struct Epoch {
    /// Where it stands now.
    pub(crate) shared: Arc<AtomicU64>,
    /// Where it stood then.
    pub(crate) value: u64,
}

impl Epoch {
    /// The present epoch of a repository.
    pub(super) fn of(entry: &RepositoryState) -> Self {
        Self {
            shared: Arc::clone(&entry.epoch),
            value: entry.epoch.load(Ordering::Acquire),
        }
    }

    /// Whether it has not been raised since.
    pub(crate) fn still_holds(&self) -> bool {
        self.shared.load(Ordering::Acquire) == self.value
    }
}

impl Catalog {
    /// The present epoch of a repository: what is made in it may be served until the epoch is raised.
    #[expect(
        clippy::unused_self,
        reason = "epochs are the catalog's to give, wherever they stand"
    )]
    pub(crate) fn epoch(&self, entry: &RepositoryState) -> Epoch {
        Epoch::of(entry)
    }

    /// What was made of this repository's records before is void, here and in other engines.
    pub(crate) fn supersede(self: &Arc<Self>, entry: &RepositoryState) {
        entry.bump();
        self.announce(vec![Notice::Superseded(entry.repository.name.clone())]);
    }

    /// A flush begins: what is under way was asked before.
    pub(crate) fn begin_flush(self: &Arc<Self>, entry: &RepositoryState) {
        entry.flushed();
        self.announce(vec![Notice::Flushed(entry.repository.name.clone())]);
    }

    /// A flush has deleted what it should: nothing of before is served from memory.
    pub(crate) fn end_flush(self: &Arc<Self>, entry: &RepositoryState) {
        self.records.clear();
        self.supersede(entry);
    }

    /// The configuration has changed: what was served under the old one is void in this engine.
    #[expect(
        clippy::unused_self,
        reason = "epochs are the catalog's to raise, wherever they stand"
    )]
    pub(crate) fn reconfigured(&self, entries: &[Arc<RepositoryState>]) {
        for entry in entries {
            entry.flushed();
            entry.bump();
        }
    }

    fn announce(self: &Arc<Self>, notices: Vec<Notice>) {
        let catalog = Arc::clone(self);
        self.announcing.fetch_add(1, Ordering::AcqRel);
        let announced = async move {
            let told = catalog.metadata.announce(catalog.writer, notices).await;
            if let Err(error) = told {
                tracing::error!(%error, "other programs over the same data were not told of a change");
            }
            catalog.announcing.fetch_sub(1, Ordering::AcqRel);
        };
        tokio::spawn(announced);
    }

    /// Waits until what was enqueued is committed and other engines have been told: nothing of it is left for a database that is being
    /// closed.
    pub(crate) async fn settled(&self) {
        self.barrier().await;
        while self.announcing.load(Ordering::Acquire) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
