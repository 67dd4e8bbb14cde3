//! The metrics of one of several replicas.

use std::collections::BTreeSet;
use std::fmt;

use larder_engine::ClusterReport;
use prometheus_client::encoding::NoLabelSet;

use super::page::Page;

pub(super) fn encode(page: &mut Page<'_, '_>, report: &ClusterReport) -> fmt::Result {
    page.gauge("cluster_shared_up", &i64::from(report.shared.ok))?;
    page.gauge("cluster_replicas", &(1 + report.replicas.len() as u64))?;
    let configurations = report.configurations() as u64;
    page.gauge("cluster_configurations", &configurations)?;
    let mut each = page.gauges("cluster_configuration")?;
    for (replica, digest) in configurations_of(report) {
        each.encode_family(&[("replica", replica), ("digest", digest)])?
            .encode_gauge(&1_u64)?;
    }
    let skew = report.skew_ms() as f64 / 1e3;
    page.gauge("cluster_clock_skew_seconds", &skew)?;
    let mut downloads = page.counters("cluster_downloads")?;
    for (how, count) in report.counts {
        downloads
            .encode_family(&[("how", how)])?
            .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
    }
    Ok(())
}

/// Each replica with its configuration. Those that have no address are one.
fn configurations_of(report: &ClusterReport) -> BTreeSet<(&str, &str)> {
    let others = report.replicas.iter();
    let others = others.map(|replica| (replica.address.as_str(), replica.config.as_str()));
    others.chain([("this", report.config.as_str())]).collect()
}
