//! `/ui/`: how everything does.

use std::cmp::Reverse;

use larder_engine::{Health, HeldSummary, UpstreamStanding};
use larder_ui::pages::{Allowance, Disk, Flight, Overview, Problem, RecentError, RepositoryRow};
use larder_ui::{Bytes, Count, Moment, Span};

use super::numbers::{Numbers, disk};
use super::trends::Spans;
use super::visit::{Outcome, Visit};
use crate::backend::Backend;

/// Repositories that are shown here at most; the others have a page of their own.
const MOST: usize = 20;
/// What is to be seen to, and allowances, that are shown at most.
const MOST_PROBLEMS: usize = 30;
const MOST_ALLOWANCES: usize = 20;
/// Downloads and errors that are shown at most.
const MOST_FLIGHTS: usize = 30;
const MOST_ERRORS: usize = 20;

pub(crate) async fn show<B: Backend>(visit: &Visit<'_, B>) -> Outcome {
    let backend = visit.backend();
    let (health, held) = (backend.health().await, backend.held_summary(None).await);
    // A database that does not answer is said below; the rest of the page needs none.
    let held = held.unwrap_or_default();
    let spans = Spans::read(visit, None).await.ok();
    let numbers = Numbers::read(visit);
    let repositories = backend.repositories();
    let mut problems = problems(visit, &numbers, &health);
    let problems_in_all = problems.len();
    problems.truncate(MOST_PROBLEMS);
    let (rows, in_all) = (rows(visit, &numbers, &held), repositories.len());
    let sizes = held.repositories.iter();
    let (files, bytes) = sizes.fold((0, 0), |(files, bytes), size| {
        (files + size.files, bytes + size.bytes)
    });
    visit.page(&Overview {
        serving: health.can_serve(),
        started: Moment(visit.exchange.shared.started),
        live: numbers.live(),
        replicas: backend
            .cluster()
            .map_or(1, |cluster| cluster.replicas.len() + 1),
        files: Count(files),
        bytes: Bytes(bytes),
        disk: disk(backend, health.disk).map(|disk| Disk {
            full_in_days: spans.as_ref().and_then(Spans::full_in_days),
            ..disk
        }),
        trends: spans.as_ref().map(Spans::shown),
        problems,
        problems_in_all,
        allowances: allowances(&numbers),
        flights: flights(visit),
        errors: Some(errors(visit)),
        repositories: rows,
        repositories_in_all: in_all,
    })
}

/// What upstreams that count requests still allow.
fn allowances(numbers: &Numbers) -> Vec<Allowance> {
    let quotas = numbers.engine.quotas.iter();
    let shown = |(repository, said): &(String, Vec<(&'static str, u64)>)| {
        let number = |name: &str| {
            let mut said = said.iter();
            said.find(|(known, _)| *known == name).map(|(_, n)| *n)
        };
        Allowance {
            repository: repository.clone(),
            limit: number("upstream_quota_limit").map(Count),
            left: number("upstream_quota_remaining").map(Count),
            retry_in: number("upstream_quota_retry_in_seconds").map(Span),
        }
    };
    let mut allowances: Vec<_> = quotas
        .filter(|(_, said)| !said.is_empty())
        .map(shown)
        .collect();
    allowances.sort_by_key(|allowance| allowance.left);
    allowances.truncate(MOST_ALLOWANCES);
    allowances
}

/// The downloads that run longest.
fn flights<B: Backend>(visit: &Visit<'_, B>) -> Vec<Flight> {
    let running = visit.backend().flights().into_iter().take(MOST_FLIGHTS);
    let shown = running.map(|flight| Flight {
        repository: flight.repository,
        path: flight.path,
        bytes: Bytes(flight.bytes),
        total: flight.total.map(Bytes),
        started: Moment(flight.started_at),
        readers: Count(flight.readers),
    });
    shown.collect()
}

fn errors<B: Backend>(visit: &Visit<'_, B>) -> Vec<RecentError> {
    let errors = visit.backend().recent_errors().into_iter();
    let shown = errors.take(MOST_ERRORS).map(|error| RecentError {
        at: Moment(error.at),
        repository: error.repository,
        path: error.path,
        code: error.code.to_string(),
        message: error.message,
        request_id: error.request_id,
        times: Count(error.times),
    });
    shown.collect()
}

/// Those that are asked most, then by size and name.
fn rows<B: Backend>(
    visit: &Visit<'_, B>,
    numbers: &Numbers,
    held: &HeldSummary,
) -> Vec<RepositoryRow> {
    let mut rows = numbers.rows(visit, held);
    rows.sort_by_key(|row| Reverse((row.requests, row.bytes)));
    rows.truncate(MOST);
    rows
}

/// What an operator should see to.
fn problems<B: Backend>(visit: &Visit<'_, B>, numbers: &Numbers, health: &Health) -> Vec<Problem> {
    let mut problems = Vec::new();
    let general = |what: &str, message: String| Problem {
        what: what.to_owned(),
        message,
        repository: None,
        at: None,
    };
    for (what, state) in [("Database", &health.metadata), ("Store", &health.blobs)] {
        if !state.ok {
            let detail = state.detail.clone();
            problems.push(general(
                what,
                detail.unwrap_or_else(|| "it does not answer".to_owned()),
            ));
        }
    }
    if health.disk.is_some_and(|disk| !disk.is_keeping()) {
        problems.push(general(
            "Disk",
            "there is too little room: downloads are served and not kept".to_owned(),
        ));
    }
    let reload = visit.exchange.shared.reload.load();
    if let Some(error) = reload.as_deref().and_then(|reload| reload.error.clone()) {
        let message = format!("the last change is not in force: {error}");
        problems.push(general("Configuration", message));
    }
    let failing = numbers.upstreams.iter();
    let failing = failing.filter(|report| report.standing == UpstreamStanding::Failing);
    problems.extend(failing.map(|report| {
        Problem {
            what: format!("Upstream {}", report.upstream),
            message: report
                .last_error
                .as_ref()
                .map_or_else(|| "it fails".to_owned(), |last| last.reason.clone()),
            repository: Some(report.repository.clone()),
            at: report.since.map(Moment),
        }
    }));
    let unserved = visit.backend().repositories();
    let unserved = unserved.iter().filter_map(|repository| {
        let reason = visit.backend().not_built(repository.name.as_str())?;
        Some(Problem {
            what: "All requests".to_owned(),
            message: format!("they are answered 501: {reason}"),
            repository: Some(repository.name.to_string()),
            at: None,
        })
    });
    problems.extend(unserved);
    problems
}
