//! How much is held of each repository and in all, for operators (`larder du` and the gauges).

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use larder_core::{Fault, RepositoryKind};
use larder_storage::HeldSize;

use crate::operate::operator::{Operator, storage_unavailable};
use crate::operate::sizes::Counted;
use crate::policy::admission;

/// What is counted so quickly is counted anew for whoever asks.
const QUICK: Duration = Duration::from_millis(20);

/// How much is held in all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldSummary {
    /// Of each repository, sorted by name. Bytes that several names have are counted with each.
    pub repositories: Vec<HeldSize>,
    /// Blobs on disk, each counted once: derived forms, and what has been flushed and not yet been collected, are among them.
    pub stored_blobs: u64,
    /// Their bytes.
    pub stored_bytes: u64,
}

impl Operator {
    /// How much each configured remote and local repository holds, as it was last counted; empty before the first time. Asks nobody: if the count is
    /// old, the next one is started behind the scenes.
    pub(crate) fn held_sizes(self: &Arc<Self>) -> Vec<HeldSize> {
        let last = self.cache.held_sizes.last();
        let is_due = |last: &Counted| self.cache.held_sizes.is_due(last);
        if last.as_ref().is_none_or(is_due)
            && !self.cache.held_sizes.counting.swap(true, Ordering::AcqRel)
        {
            let engine = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(error) = engine.count_held().await {
                    tracing::warn!(%error, "what is held could not be counted");
                }
                engine
                    .cache
                    .held_sizes
                    .counting
                    .store(false, Ordering::Release);
            });
        }
        let Some(counted) = last else {
            return Vec::new();
        };
        let entries = self.registry.load().all();
        let remotes = entries
            .iter()
            .filter(|entry| entry.repository.kind() != RepositoryKind::Virtual);
        remotes
            .map(|entry| size_of(&counted.sizes, entry.repository.name.as_str()))
            .collect()
    }

    async fn count_held(&self) -> Result<Counted, larder_storage::StorageError> {
        let started = Instant::now();
        let outdated = self.cache.held_sizes.outdated.load(Ordering::Acquire);
        let mut sizes = self.catalog.held_sizes().await?;
        add_local(&mut sizes, self.catalog.local_sizes().await?);
        let took = started.elapsed();
        let stored = self.catalog.counts().await?;
        let counted = Counted {
            at: Instant::now(),
            took,
            sizes: Arc::new(sizes),
            stored,
            outdated,
        };
        *self
            .cache
            .held_sizes
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(counted.clone());
        Ok(counted)
    }

    /// How much is held, of one repository or of all: all that are configured, and those that the database still has something of.
    pub(crate) async fn held_summary(
        &self,
        repository: Option<&str>,
    ) -> Result<HeldSummary, Fault> {
        let only = repository
            .map(|name| admission::entry(&self.registry, name))
            .transpose()?;
        let failed = |error| storage_unavailable(&error);
        let last = self.cache.held_sizes.last();
        let is_due = |last: &Counted| self.cache.held_sizes.is_due(last);
        let counted = match last.filter(|last| last.took > QUICK && !is_due(last)) {
            Some(last) => last,
            None => self.count_held().await.map_err(failed)?,
        };
        let sizes = &counted.sizes;
        if let Some(entry) = only {
            return Ok(HeldSummary {
                repositories: vec![size_of(sizes, entry.repository.name.as_str())],
                ..HeldSummary::default()
            });
        }
        let entries = self.registry.load().all();
        let remotes = entries
            .iter()
            .filter(|entry| entry.repository.kind() != RepositoryKind::Virtual);
        let names = remotes
            .map(|entry| entry.repository.name.to_string())
            .chain(sizes.iter().map(|size| size.repository.clone()));
        let names: BTreeSet<String> = names.collect();
        Ok(HeldSummary {
            repositories: names.iter().map(|name| size_of(sizes, name)).collect(),
            stored_blobs: counted.stored.blobs,
            stored_bytes: counted.stored.bytes,
        })
    }
}

/// Adds what was uploaded to what is held of remotes; a repository may have been both.
fn add_local(sizes: &mut Vec<HeldSize>, local: Vec<HeldSize>) {
    sizes.extend(local);
    sizes.sort_by(|a, b| a.repository.cmp(&b.repository));
    sizes.dedup_by(|size, kept| {
        let is_same = size.repository == kept.repository;
        if is_same {
            kept.files += size.files;
            kept.bytes += size.bytes;
        }
        is_same
    });
}

/// `sizes` are sorted by name.
fn size_of(sizes: &[HeldSize], name: &str) -> HeldSize {
    let place = sizes.binary_search_by(|size| size.repository.as_str().cmp(name));
    let known = place.ok().and_then(|place| sizes.get(place)).cloned();
    known.unwrap_or_else(|| HeldSize {
        repository: name.to_owned(),
        files: 0,
        bytes: 0,
    })
}
