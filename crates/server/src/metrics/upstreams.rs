//! The part of `/metrics` that tells of upstreams: mirrors, their state, failures and what they say of their rate limits.

use std::collections::BTreeSet;
use std::fmt;

use larder_engine::{LatencyReport, MirrorReport, UpstreamStanding};
use prometheus_client::encoding::NoLabelSet;

use super::page::{Page, Scrape};

impl Scrape {
    /// One metric for each counter of a mirror, with all mirrors under it; how quickly each answers, how far it is behind, and whether it is
    /// healthy.
    pub(super) fn mirrors(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let mirrors = &self.engine.mirrors;
        let labels = |mirror: &MirrorReport| {
            [
                ("repository", mirror.repository.clone()),
                ("mirror", mirror.mirror.clone()),
            ]
        };
        let names: BTreeSet<&str> = mirrors
            .iter()
            .flat_map(|mirror| mirror.counters.iter().map(|(name, _)| *name))
            .collect();
        for name in names {
            let full_name = format!("mirror_{name}");
            let mut family = page.counters(&full_name)?;
            for mirror in mirrors {
                let Some((_, value)) = mirror.counters.iter().find(|(known, _)| *known == name)
                else {
                    continue;
                };
                family
                    .encode_family(&labels(mirror))?
                    .encode_counter::<NoLabelSet, _, u64>(value, None)?;
            }
        }
        let mut family = page.histograms("mirror_first_byte_seconds")?;
        for mirror in mirrors.iter().filter(|one| one.latency.count() > 0) {
            let LatencyReport { buckets, sum } = &mirror.latency;
            family
                .encode_family(&labels(mirror))?
                .encode_histogram::<NoLabelSet>(*sum, mirror.latency.count(), buckets, None)?;
        }
        let mut family = page.gauges("mirror_index_lag_seconds")?;
        for (mirror, lag) in mirrors.iter().filter_map(|one| Some((one, one.lag?))) {
            family
                .encode_family(&labels(mirror))?
                .encode_gauge(&lag.as_secs())?;
        }
        let mut family = page.gauges("mirror_healthy")?;
        for mirror in mirrors {
            family
                .encode_family(&labels(mirror))?
                .encode_gauge(&i64::from(mirror.healthy))?;
        }
        Ok(())
    }

    /// Whether each place answers; those that were not asked yet are left out.
    pub(super) fn upstreams(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let mut family = page.gauges("upstream_up")?;
        for report in &self.node.upstreams {
            let up = match report.standing {
                UpstreamStanding::Unknown => continue,
                UpstreamStanding::Ok => 1_i64,
                UpstreamStanding::Failing => 0,
            };
            let labels = [
                ("repository", report.repository.as_str()),
                ("upstream", report.upstream.as_str()),
            ];
            family.encode_family(&labels)?.encode_gauge(&up)?;
        }
        Ok(())
    }

    pub(super) fn failures(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let mut family = page.counters("upstream_failures")?;
        for (repository, causes) in &self.engine.failures {
            for (cause, count) in causes {
                let labels = [("repository", repository.as_str()), ("cause", *cause)];
                family
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, u64>(count, None)?;
            }
        }
        Ok(())
    }

    /// What upstreams said of their rate limits.
    pub(super) fn quotas(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        for name in ["upstream_quota_limit", "upstream_quota_remaining"] {
            let said = |(repository, numbers): &(String, Vec<(&'static str, u64)>)| {
                numbers
                    .iter()
                    .find(|(said, _)| *said == name)
                    .map(|(_, number)| (repository.clone(), *number))
            };
            let values: Vec<(String, u64)> = self.engine.quotas.iter().filter_map(said).collect();
            let full_name = format!("repository_{name}");
            let mut family = page.gauges(&full_name)?;
            for (repository, value) in values {
                family
                    .encode_family(&[("repository", repository.as_str())])?
                    .encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}
