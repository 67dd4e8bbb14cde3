//! What operators have looked after: `POST /api/v1/gc` runs the collector, or says what it would delete; `/api/v1/scrub` has all that is
//! stored read again.

use http::{Method, Response, StatusCode};
use larder_core::{ErrorCode, Fault, FaultKind, UnixMillis, shown};
use larder_engine::{Garbage, Heap, SCRUB_RATE, ScrubFinding, ScrubReport};
use serde_json::{Value, json};

use crate::admin::json_response;
use crate::backend::Backend;
use crate::body::ResponseBody;
use crate::discovery;
use crate::exchange::{Exchange, Handled};
use crate::problem::{self, Audience};
use crate::routes::Endpoint;

const DEFAULT_LIMIT: u32 = 100;
const MOST: u32 = 1_000;

/// `/api/v1/gc` and `/api/v1/scrub`.
pub(crate) async fn serve<B: Backend>(exchange: &Exchange<'_, B>, endpoint: Endpoint) -> Handled {
    let query = exchange.head.uri.query().unwrap_or_default();
    let answer = match (endpoint, &exchange.head.method) {
        (Endpoint::Gc, _) => gc(exchange, query).await,
        (_, &Method::POST) => begin(exchange, query).await,
        (_, &Method::DELETE) => cancel(exchange, query).await,
        _ => progress(exchange, query).await,
    };
    let response = answer.unwrap_or_else(|fault| {
        problem::response(&**exchange.backend, &fault, Audience::Repository(None))
    });
    Handled::other(response)
}

async fn gc<B: Backend>(
    exchange: &Exchange<'_, B>,
    query: &str,
) -> Result<Response<ResponseBody>, Fault> {
    let rule = "POST /api/v1/gc";
    let only_look = match one(query, "dry_run", rule)?.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            let message = format!("dry_run is {:?}; it can be true or false", shown(other));
            return Err(refuse(message, rule));
        }
    };
    let garbage = exchange.backend.collect(only_look).await?;
    if !only_look {
        tracing::info!(
            client = %exchange.client.address,
            unreferenced = garbage.unreferenced.blobs,
            left_behind = garbage.left_behind.blobs,
            orphans = garbage.orphans.blobs,
            undeleted = garbage.undeleted.blobs,
            "the collector was run"
        );
    }
    Ok(json_response(
        StatusCode::OK,
        &garbage_json(&garbage, only_look),
    ))
}

async fn begin<B: Backend>(
    exchange: &Exchange<'_, B>,
    query: &str,
) -> Result<Response<ResponseBody>, Fault> {
    let rule = "POST /api/v1/scrub";
    let rate = match one(query, "rate", rule)? {
        None => SCRUB_RATE,
        Some(text) => text.parse().map_err(|_| {
            let message = format!(
                "rate is {:?}; it is a number of bytes a second",
                shown(&text)
            );
            refuse(message, rule)
        })?,
    };
    let report = exchange.backend.begin_scrub(rate).await?;
    tracing::info!(client = %exchange.client.address, rate = report.scrub.rate, "a scrub was asked for");
    Ok(json_response(StatusCode::ACCEPTED, &scrub_json(&report)))
}

async fn cancel<B: Backend>(
    exchange: &Exchange<'_, B>,
    query: &str,
) -> Result<Response<ResponseBody>, Fault> {
    known(query, &[], "DELETE /api/v1/scrub")?;
    let report = exchange.backend.cancel_scrub().await?;
    Ok(json_response(StatusCode::OK, &scrub_json(&report)))
}

async fn progress<B: Backend>(
    exchange: &Exchange<'_, B>,
    query: &str,
) -> Result<Response<ResponseBody>, Fault> {
    let rule = "GET /api/v1/scrub";
    let (mut limit, mut after) = (None, None);
    for (name, value) in known(query, &["limit", "after"], rule)? {
        let number = value.parse::<u32>().ok();
        let number = number.filter(|number| *name == *"after" || *number > 0);
        let number = number.ok_or_else(|| {
            let message = format!("{name} is {:?}, which is no such number", shown(&value));
            refuse(message, rule)
        })?;
        let slot = if name == "limit" {
            &mut limit
        } else {
            &mut after
        };
        *slot = Some(number);
    }
    let limit = limit.unwrap_or(DEFAULT_LIMIT).min(MOST);
    let report = exchange
        .backend
        .scrub(i64::from(after.unwrap_or(0)), limit)
        .await?;
    Ok(json_response(StatusCode::OK, &scrub_json(&report)))
}

/// The parameters of a query. One that is not known could be a misspelt restriction: it is refused.
fn known(query: &str, names: &[&str], rule: &'static str) -> Result<Vec<(String, String)>, Fault> {
    let mut found: Vec<(String, String)> = Vec::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if !names.contains(&&*name) {
            let message = format!(
                "unknown parameter {:?}; known are: {}",
                shown(&name),
                if names.is_empty() {
                    "none".to_owned()
                } else {
                    names.join(", ")
                }
            );
            return Err(refuse(message, rule));
        }
        if found.iter().any(|(other, _)| *other == *name) {
            let message = format!("the parameter {:?} is given twice", shown(&name));
            return Err(refuse(message, rule));
        }
        found.push((name.into_owned(), value.into_owned()));
    }
    Ok(found)
}

fn one(query: &str, name: &str, rule: &'static str) -> Result<Option<String>, Fault> {
    let mut found = known(query, &[name], rule)?;
    Ok(found.pop().map(|(_, value)| value))
}

fn refuse(message: String, rule: &'static str) -> Fault {
    Fault::new(FaultKind::BadRequest, ErrorCode::BadRequest, message).by_rule(rule)
}

/// What the collector has deleted, or would delete, as `POST /api/v1/gc` and `larder gc --json` say it.
fn garbage_json(garbage: &Garbage, only_look: bool) -> Value {
    let heap = |heap: Heap| json!({"blobs": heap.blobs, "bytes": heap.bytes});
    json!({
        "dry_run": only_look,
        "deleted": {
            "unreferenced": heap(garbage.unreferenced),
            "left_behind": heap(garbage.left_behind),
            "orphans": heap(garbage.orphans),
        },
        "undeleted": heap(garbage.undeleted),
        "superseded": garbage.superseded,
        "waiting": heap(garbage.waiting),
    })
}

/// A scrub, as `/api/v1/scrub` and `larder scrub --json` show it.
fn scrub_json(report: &ScrubReport) -> Value {
    let scrub = &report.scrub;
    let time = |at: UnixMillis| discovery::time(at);
    let findings: Vec<Value> = report.findings.iter().map(finding_json).collect();
    json!({
        "id": scrub.id, "state": scrub.state, "rate": scrub.rate,
        "blobs": scrub.blobs, "bytes": scrub.bytes,
        "total_blobs": scrub.total_blobs, "total_bytes": scrub.total_bytes,
        "damaged": scrub.damaged,
        "begun_at": time(scrub.begun_at), "ended_at": scrub.ended_at.and_then(time),
        "findings": findings, "next": report.next,
    })
}

fn finding_json(finding: &ScrubFinding) -> Value {
    json!({
        "number": finding.number, "digest": finding.digest, "repository": finding.repository,
        "path": Some(&finding.path).filter(|path| !path.is_empty()),
        "kind": finding.kind, "flaw": finding.flaw, "outcome": finding.outcome,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_a_misspelt_restriction_is_refused() {
        let rule = "a rule";
        assert_eq!(
            one("dry_run=true", "dry_run", rule),
            Ok(Some("true".to_owned()))
        );
        assert_eq!(one("", "dry_run", rule), Ok(None));
        for query in ["dryrun=true", "dry-run", "dry_run=true&dry_run=false"] {
            let refused = one(query, "dry_run", rule).expect_err(query);
            assert_eq!(refused.kind, FaultKind::BadRequest, "{query}");
        }
    }
}
