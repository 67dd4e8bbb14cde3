//! `GET /health` and `GET /ready`: how this node and the upstreams behind it are doing. Answered from memory and from verdicts that are
//! a few seconds old; upstreams in trouble are shown and make nothing unavailable, for held copies are served without them.

use std::collections::BTreeMap;

use http::{Response, StatusCode};
use jiff::Timestamp;
use larder_core::UnixMillis;
use larder_engine::{
    BackendHealth, ClusterReport, DiskSpace, IndexLag, ReplicaReport, UpstreamReport,
};
use serde_json::{Value, json};

use crate::admin::json_response;
use crate::backend::Backend;
use crate::body::ResponseBody;
use crate::exchange::Exchange;
use crate::settings::LiveSettings;
use crate::state::Shared;
use crate::tls::Certificate;

const DAY_MS: i64 = 86_400_000;

/// What came of a reload of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReloadReport {
    /// When it was.
    pub at: UnixMillis,
    /// The first thing that is wrong with the new configuration, without secrets; `None` if it is in force.
    pub error: Option<String>,
    /// What is new, changed or gone: `remotes.NAME`, or the name of a top-level key. Empty if nothing is, or the old one stays in force.
    pub changed: Vec<String>,
}

pub(crate) async fn health<B: Backend>(exchange: &Exchange<'_, B>) -> Response<ResponseBody> {
    let (backend, shared) = (exchange.backend, exchange.shared);
    let health = backend.health().await;
    let ok = health.can_serve();
    let backends = BTreeMap::from([
        ("metadata", state_json(&health.metadata)),
        ("blobs", state_json(&health.blobs)),
    ]);
    let upstreams: Vec<Value> = backend.upstreams().iter().map(upstream_json).collect();
    let mut page = json!({
        "status": word(ok),
        "version": shared.version,
        "started": time(shared.started),
        "backends": backends,
        "upstreams": upstreams,
        "disk": backend.disk().map(disk_json),
        "reload": shared.reload.load().as_deref().map(|reload| reload_json(reload, &shared.live.load())),
        "certificate": certificate_json(shared, backend.now()),
        "refusals": shared.metrics.refused().report(),
    });
    let allowances = allowances_json(backend.counters().quotas);
    if !allowances.is_empty() {
        page["allowances"] = Value::from(allowances);
    }
    if let Some(cluster) = backend.cluster() {
        page["cluster"] = cluster_json(&cluster);
    }
    json_response(verdict(ok), &page)
}

/// What upstreams that count requests allow, as they said last: by repository.
fn allowances_json(quotas: Vec<(String, Vec<(&'static str, u64)>)>) -> Vec<Value> {
    let shown = |(repository, numbers): (String, Vec<(&'static str, u64)>)| {
        let said = |name: &str| {
            let named = numbers.iter().find(|(said, _)| *said == name);
            named.map(|(_, number)| *number)
        };
        json!({
            "repository": repository,
            "limit": said("upstream_quota_limit"),
            "remaining": said("upstream_quota_remaining"),
            "retry_in_seconds": said("upstream_quota_retry_in_seconds"),
        })
    };
    let said = quotas
        .into_iter()
        .filter(|(_, numbers)| !numbers.is_empty());
    said.map(shown).collect()
}

/// What replicas share makes nothing unavailable: without it each asks for itself.
fn cluster_json(report: &ClusterReport) -> Value {
    let shared = &report.shared;
    let downloads: BTreeMap<&str, u64> = report.counts.into_iter().collect();
    json!({
        "shared": {"kind": shared.kind, "status": word(shared.ok), "detail": shared.detail},
        "advertised": report.is_advertised,
        "downloads": downloads,
        "configuration": report.config,
        "replicas": report.replicas.iter().map(|replica| replica_json(replica, report)).collect::<Value>(),
        "alarms": alarms(report),
    })
}

fn replica_json(replica: &ReplicaReport, report: &ClusterReport) -> Value {
    json!({
        "address": replica.address,
        "version": replica.version,
        "configuration": replica.config,
        "same_configuration": replica.config == report.config,
        "clock_skew_ms": replica.skew_ms,
    })
}

/// What the operator should see to.
pub(crate) fn alarms(report: &ClusterReport) -> Vec<&'static str> {
    let differs = report.configurations() > 1;
    let skewed = report.replicas.iter().any(ReplicaReport::is_skewed);
    let drift = differs.then_some("replicas have different configurations");
    let skew = skewed.then_some("clocks of replicas differ by more than 5 s");
    drift.into_iter().chain(skew).collect()
}

/// Also 503 from the moment that larder is told to stop, so that nothing new is sent here.
pub(crate) async fn ready<B: Backend>(exchange: &Exchange<'_, B>) -> Response<ResponseBody> {
    if exchange.shared.is_stopping() {
        return json_response(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({"status": "stopping"}),
        );
    }
    let ok = exchange.backend.health().await.can_serve();
    json_response(verdict(ok), &json!({"status": word(ok)}))
}

fn state_json(state: &BackendHealth) -> Value {
    let mut shown = json!({"kind": state.kind, "status": word(state.ok)});
    if let Some(detail) = &state.detail {
        shown["detail"] = Value::from(detail.as_str());
    }
    shown
}

fn upstream_json(report: &UpstreamReport) -> Value {
    let last_error = report.last_error.as_ref().map(
        |failure| json!({"at": time(failure.at), "cause": failure.cause.as_str(), "reason": failure.reason, "key": failure.key}),
    );
    json!({
        "repository": report.repository,
        "upstream": report.upstream,
        "state": report.standing.as_str(),
        "since": report.since.map(time),
        "failures": report.failures,
        "last_error": last_error,
        "last_answer": report.last_answer.map(time),
        "first_byte_ms": report.latency.map(|latency| latency.as_secs_f64() * 1_000.0),
        "index_lag": lag_json(&report.lag),
    })
}

fn lag_json(lag: &IndexLag) -> Value {
    match lag {
        IndexLag::Known { behind, index, at } => {
            json!({"seconds": behind.as_secs(), "index": index, "at": time(*at)})
        }
        IndexLag::Unknown(why) => json!({"seconds": null, "unknown": why}),
    }
}

fn disk_json(disk: DiskSpace) -> Value {
    json!({"free_bytes": disk.free, "total_bytes": disk.total, "reserve_bytes": disk.reserve, "keeping": disk.is_keeping()})
}

fn reload_json(reload: &ReloadReport, live: &LiveSettings) -> Value {
    json!({
        "at": time(reload.at),
        "ok": reload.error.is_none(),
        "error": reload.error,
        "changed": reload.changed,
        "waiting_for_restart": live.config_waiting,
    })
}

fn certificate_json(shared: &Shared, now: UnixMillis) -> Option<Value> {
    let Certificate { dates, names } = &*shared.tls.as_ref()?.certificate();
    let not_after = dates.not_after;
    // Down, so that the last day counts as none, and an expired one as less than none.
    let days = not_after.0.saturating_sub(now.0).div_euclid(DAY_MS);
    Some(json!({"not_after": time(not_after), "expires_in_days": days, "names": names}))
}

/// RFC 3339, as people and monitoring read it.
fn time(time: UnixMillis) -> String {
    Timestamp::from_millisecond(time.0)
        .map_or_else(|_| "unknown".to_owned(), |time| time.to_string())
}

fn verdict(ok: bool) -> StatusCode {
    if ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

fn word(ok: bool) -> &'static str {
    if ok { "ok" } else { "unavailable" }
}
