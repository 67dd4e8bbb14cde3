//! `/ui/health`: backends, upstreams and limits.

use larder_engine::{BackendHealth, ClusterReport, UpstreamStanding};
use larder_ui::pages::{
    self, Backend as Shown, Certificate, Limit, Refusals, Reload, Replica, UpstreamRow,
};
use larder_ui::{Bytes, Count, Moment};

use super::numbers::{Numbers, disk, mirror, mirrors};
use super::visit::{Outcome, Visit};
use crate::backend::Backend;

/// Places of upstreams that are shown at most, those that fail first: the others are on the pages of their repositories.
const MOST_UPSTREAMS: usize = 150;
/// Causes that are shown at most, those that are met most.
const MOST_REFUSALS: usize = 100;

pub(crate) async fn show<B: Backend>(visit: &Visit<'_, B>) -> Outcome {
    let (backend, shared) = (visit.backend(), visit.exchange.shared);
    let health = backend.health().await;
    let numbers = Numbers::read(visit);
    let counted = mirrors(&numbers.engine);
    let mut upstreams: Vec<_> = numbers.upstreams.iter().collect();
    upstreams.sort_by_key(|report| report.standing != UpstreamStanding::Failing);
    let reload = shared.reload.load_full();
    let refusals = shared.metrics.refused().counts().into_iter();
    let mut refusals: Vec<Refusals> = refusals
        .map(|((repository, code), count)| Refusals {
            repository,
            code: code.to_string(),
            count: Count(count),
        })
        .collect();
    refusals.sort_by_key(|refusal| std::cmp::Reverse(refusal.count));
    refusals.truncate(MOST_REFUSALS);
    visit.page(&pages::Health {
        status: word(health.can_serve()),
        started: Moment(shared.started),
        backends: vec![
            shown("metadata", &health.metadata),
            shown("files", &health.blobs),
        ],
        disk: disk(backend, health.disk),
        cluster: backend.cluster().map(|report| replicas(&report)),
        upstreams: upstreams
            .iter()
            .take(MOST_UPSTREAMS)
            .map(|report| UpstreamRow {
                repository: report.repository.clone(),
                mirror: mirror(report, &counted),
            })
            .collect(),
        upstreams_in_all: upstreams.len(),
        limits: limits(&numbers),
        refusals,
        certificate: shared.tls.as_ref().map(|tls| {
            let certificate = tls.certificate();
            Certificate {
                not_after: Moment(certificate.dates.not_after),
                names: certificate.names.clone(),
            }
        }),
        reload: reload.map(|reload| Reload {
            at: Moment(reload.at),
            error: reload.error.clone(),
            changed: reload.changed.clone(),
            waiting: visit.live.config_waiting.clone(),
        }),
    })
}

fn word(ok: bool) -> &'static str {
    if ok { "ok" } else { "unavailable" }
}

fn shown(name: &'static str, state: &BackendHealth) -> Shown {
    Shown {
        name,
        kind: state.kind,
        state: word(state.ok),
        detail: state.detail.clone(),
    }
}

fn replicas(report: &ClusterReport) -> pages::Replicas {
    let shared = &report.shared;
    pages::Replicas {
        shared: Shown {
            name: "what replicas share",
            kind: shared.kind,
            state: word(shared.ok),
            detail: shared.detail.clone(),
        },
        replicas: report
            .replicas
            .iter()
            .map(|replica| Replica {
                address: replica.address.clone(),
                version: replica.version.clone(),
                same_configuration: replica.config == report.config,
                clock_skew_ms: replica.skew_ms,
            })
            .collect(),
        alarms: crate::health_page::alarms(report)
            .into_iter()
            .map(str::to_owned)
            .collect(),
    }
}

fn limits(numbers: &Numbers) -> Vec<Limit> {
    let all = numbers.engine.budgets.iter().map(|used| {
        let name = used.kind.as_str();
        let amount = |amount: u64| {
            if name.ends_with("_bytes") || name == "store_parts" {
                Bytes(amount).to_string()
            } else {
                Count(amount).to_string()
            }
        };
        Limit {
            name,
            used: amount(used.held),
            limit: amount(used.limit),
            waiting: Count(used.waiting),
        }
    });
    all.collect()
}
