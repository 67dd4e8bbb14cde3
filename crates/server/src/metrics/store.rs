//! The store of blobs on the page of metrics, where it is one of objects behind a local tier.

use std::fmt;

use larder_engine::{DiskUse, StoreReport};

use super::page::Page;

/// Nothing where blobs are files.
pub(super) fn write(page: &mut Page<'_, '_>, store: &StoreReport) -> fmt::Result {
    let Some(tier) = store.tier else {
        return Ok(());
    };
    let answers = store.trouble.is_none() && !store.is_waiting;
    page.gauge("object_store_up", &i64::from(answers))?;
    page.counter("object_store_mismatches", &store.mismatches)?;
    page.counter("object_store_redirects", &store.presigned)?;
    page.gauge("tier_bytes", &tier.bytes)?;
    page.gauge("tier_limit_bytes", &tier.budget)?;
    page.counter("tier_fills", &tier.fills)?;
    page.counter("tier_evicted_blobs", &tier.evicted)?;
    page.counter("tier_spoilt_blobs", &tier.spoilt)
}

/// What is kept and may be kept, where that is bounded.
pub(super) fn bounds(page: &mut Page<'_, '_>, disk: &DiskUse) -> fmt::Result {
    page.gauge_if("kept_bytes", disk.kept)?;
    page.gauge_if("kept_limit_bytes", disk.limit)?;
    if disk.repositories.is_empty() {
        return Ok(());
    }
    let mut limits = page.gauges("repository_limit_bytes")?;
    for (repository, limit) in &disk.repositories {
        limits
            .encode_family(&[("repository", &**repository)])?
            .encode_gauge(limit)?;
    }
    Ok(())
}

/// A store that fails, for the test of the page.
#[cfg(test)]
pub(super) fn sample() -> StoreReport {
    StoreReport {
        kind: "s3",
        is_waiting: false,
        trouble: Some("refused".to_owned()),
        mismatches: 3,
        presigned: 4,
        tier: Some(larder_engine::TierReport {
            bytes: 40,
            budget: 50,
            fills: 6,
            evicted: 2,
            spoilt: 1,
        }),
    }
}
