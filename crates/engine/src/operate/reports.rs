//! Counters and the state of upstreams, and what is written down of where copies came from.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use larder_core::RepositoryName;
use larder_upstream::BreakerState;

use super::operator::Operator;
use crate::counters::{Counters, MirrorReport, RepositoryCounters, UpstreamQuota};
use crate::repositories::RepositoryState;
use crate::repositories::lag::IndexLag;
use crate::repositories::mirror::Mirror;
use crate::repositories::upstreams::UpstreamReport;

impl Operator {
    /// Counters of the whole process.
    pub(crate) fn counters(&self) -> &Counters {
        self.count_damage();
        &self.counters
    }

    /// Counters of each repository, sorted by name.
    pub(crate) fn repository_counters(&self) -> Vec<(RepositoryName, Arc<RepositoryCounters>)> {
        let all = self.registry.load().all();
        all.into_iter()
            .map(|entry| (entry.repository.name.clone(), Arc::clone(&entry.counters)))
            .collect()
    }

    /// Every mirror of every repository, as it does at present.
    pub(crate) fn mirror_reports(&self) -> Vec<MirrorReport> {
        let all = self.registry.load().all();
        let report = |entry: &RepositoryState| {
            let name = entry.repository.name.to_string();
            let one = |mirror: &Arc<Mirror>| MirrorReport {
                repository: name.clone(),
                mirror: mirror.shown(),
                counters: mirror.counters().snapshot(),
                healthy: match entry.mirrors.len() {
                    // The only one is never put aside; its origin may be left alone for a while.
                    1 => self.upstream.health(&entry.repository.name) == BreakerState::Closed,
                    _ => self.remote.mirrors.state(mirror) == BreakerState::Closed,
                },
                latency: mirror.latency().report(),
                lag: match mirror.lag(&entry.mirrors) {
                    IndexLag::Known { behind, .. } => Some(behind),
                    IndexLag::Unknown(_) => None,
                },
            };
            entry.mirrors.iter().map(one).collect::<Vec<_>>()
        };
        all.iter().flat_map(|entry| report(entry)).collect()
    }

    /// What each repository's upstream last said of its rate limit, sorted by name.
    pub(crate) fn upstream_quotas(&self) -> Vec<(RepositoryName, Arc<UpstreamQuota>)> {
        let all = self.registry.load().all();
        all.into_iter()
            .map(|entry| (entry.repository.name.clone(), Arc::clone(&entry.quota)))
            .collect()
    }

    /// Takes over what the database counts itself.
    pub(crate) fn count_damage(&self) {
        let damage = self.catalog.damage();
        let Counters {
            metadata_damaged_rows,
            metadata_damage_failures,
            metadata_put_aside,
            ..
        } = &*self.counters;
        metadata_damaged_rows.store(damage.rows, Ordering::Relaxed);
        metadata_damage_failures.store(damage.failures, Ordering::Relaxed);
        metadata_put_aside.store(damage.put_aside, Ordering::Relaxed);
    }

    /// Every place of every upstream, as it does at present. Other hosts that documents name are shown once one of them has failed.
    pub(crate) fn upstream_reports(&self) -> Vec<UpstreamReport> {
        let mut reports = Vec::new();
        for entry in self.registry.load().all() {
            let name = &entry.repository.name;
            let of_mirror = |mirror: &Arc<Mirror>| {
                let report = mirror.state().report(name, Some(mirror.shown()))?;
                Some(UpstreamReport {
                    last_answer: mirror.latency().last(),
                    latency: mirror.latency().mean(),
                    lag: mirror.lag(&entry.mirrors),
                    ..report
                })
            };
            reports.extend(entry.mirrors.iter().filter_map(of_mirror));
            reports.extend(entry.elsewhere.report(name, None));
        }
        reports
    }

    /// Failures of the upstreams of each repository by cause; those that have counted.
    pub(crate) fn upstream_failures(&self) -> Vec<(RepositoryName, Vec<(&'static str, u64)>)> {
        let all = self.registry.load().all();
        all.into_iter()
            .map(|entry| (entry.repository.name.clone(), entry.failures.snapshot()))
            .collect()
    }

    /// Writes down which upstreams the repositories have, behind the scenes, and says where copies of others are left.
    pub(crate) fn keep_origins(self: &Arc<Self>) {
        let engine = Arc::clone(self);
        tokio::spawn(async move {
            let all = engine.registry.load().all();
            let marks = |index: &[Arc<str>; 2]| [index[0].to_string(), index[1].to_string()];
            let current: Vec<(RepositoryName, [String; 2])> = all
                .iter()
                .map(|entry| (entry.repository.name.clone(), marks(&entry.origins)))
                .collect();
            match engine.catalog.keep_origins(&current).await {
                Ok(others) => others
                    .iter()
                    .for_each(|(repository, copies)| tell_of_others(repository, *copies)),
                Err(error) => {
                    tracing::error!(%error, "it was not noted which upstreams copies came from");
                }
            }
        });
    }
}

fn tell_of_others(repository: &RepositoryName, copies: u64) {
    tracing::warn!(
        %repository,
        copies,
        "base_url leads to another server than these copies came from: they are not served. To free their space, flush the repository \
         (PUT /cache/flush?remote={repository}); if both addresses have the same files, list both in base_url once, then the old \
         one can go"
    );
}
