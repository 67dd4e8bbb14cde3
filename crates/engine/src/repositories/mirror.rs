//! One of several places of an upstream.

use std::sync::Arc;

use larder_core::{Repository, RepositoryName, SafeUrl};
use url::Url;

use super::lag::{IndexDates, IndexLag};
use super::latency::Latency;
use super::upstreams::UpstreamState;
use crate::counters::MirrorCounters;

/// One of the places of a remote's upstream.
#[derive(Debug)]
pub(crate) struct Mirror {
    pub(crate) root: Url,
    pub(crate) key: MirrorKey,
    pub(crate) counters: MirrorCounters,
    state: UpstreamState,
    latency: Latency,
    indexes: IndexDates,
}

/// Names a mirror of a repository.
pub(crate) type MirrorKey = (RepositoryName, Arc<str>);

impl Mirror {
    /// The places of a repository, in the operator's order; those of `before` keep their counters.
    pub(crate) fn all(repository: &Repository, before: &[Arc<Self>]) -> Vec<Arc<Self>> {
        let roots = repository
            .upstream()
            .map_or(&[][..], |upstream| &upstream.base_urls);
        let make = |root: &Url| {
            let old = before
                .iter()
                .find(|mirror| mirror.root == *root && mirror.key.0 == repository.name);
            old.cloned().unwrap_or_else(|| {
                let key = (repository.name.clone(), root.as_str().into());
                let (counters, state) = (MirrorCounters::default(), UpstreamState::default());
                Arc::new(Self {
                    root: root.clone(),
                    key,
                    counters,
                    state,
                    latency: Latency::default(),
                    indexes: IndexDates::default(),
                })
            })
        };
        roots.iter().map(make).collect()
    }

    /// The address as it may be shown.
    pub(crate) fn shown(&self) -> String {
        SafeUrl(self.root.clone()).to_string()
    }

    pub(crate) fn counters(&self) -> &MirrorCounters {
        &self.counters
    }

    /// How quickly it answers.
    pub(crate) fn latency(&self) -> &Latency {
        &self.latency
    }

    /// The dates of the documents that it gave.
    pub(crate) fn indexes(&self) -> &IndexDates {
        &self.indexes
    }

    /// How far its index is behind the newest of all mirrors of its repository.
    pub(crate) fn lag(&self, all: &[Arc<Self>]) -> IndexLag {
        self.indexes.lag(all.iter().map(|mirror| mirror.indexes()))
    }

    /// How it is doing, for operators.
    pub(crate) fn state(&self) -> &UpstreamState {
        &self.state
    }

    /// Whether both are the same place of the same repository.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.key == other.key
    }
}
