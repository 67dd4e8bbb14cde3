//! Jobs that fetch many files into the cache: `POST /api/v1/artifacts/{repo}/cache` makes one, `GET /api/v1/jobs[/{id}]` shows them,
//! `DELETE /api/v1/jobs/{id}` cancels one.

use http::header::LOCATION;
use http::{HeaderValue, Method, Response, StatusCode};
use hyper::body::Incoming;
use larder_core::{ErrorCode, Fault, FaultKind, Mount};
use larder_engine::{HeldCursor, JobCounts, JobItem, JobReport, JobRequest, JobRow};
use serde_json::{Value, json};

use crate::admin::json_response;
use crate::backend::Backend;
use crate::body::ResponseBody;
use crate::discovery::{cursor_of, cursor_text, limit, time};
use crate::exchange::{Exchange, Handled};
use crate::problem::{self, Audience};
use crate::request_body;

const DEFAULT_LIMIT: u32 = 100;
const MOST: u32 = 1_000;
/// The longest list of paths, in bytes.
const MOST_BODY: u64 = 10 << 20;

/// `/api/v1/artifacts/…/cache` and `/api/v1/jobs…`; `named` is the repository or the job that the path names, if it names one.
pub(crate) async fn serve<B: Backend>(
    exchange: &Exchange<'_, B>,
    named: &str,
    body: &mut Incoming,
) -> Handled {
    let response = match exchange.head.method {
        Method::POST => create(exchange, named, body).await,
        Method::DELETE => exchange
            .backend
            .cancel_job(named)
            .await
            .map(|report| json_response(StatusCode::OK, &report_json(&report))),
        _ if named.is_empty() => list(exchange).await,
        _ => shown(exchange, named).await,
    };
    let response = response.unwrap_or_else(|fault| {
        problem::response(&**exchange.backend, &fault, Audience::Repository(None))
    });
    Handled::other(response)
}

/// What a job is asked for. A key that is not known could be a misspelt restriction: it is refused.
fn asked(body: &[u8], named: &str) -> Result<JobRequest, Fault> {
    let form = "it is {\"paths\": [\"…\"]} or {\"pattern\": \"…\"}";
    let parsed: Value = serde_json::from_slice(body)
        .map_err(|error| refuse(format!("the body is no JSON ({error}); {form}")))?;
    let Value::Object(keys) = parsed else {
        return Err(refuse(format!("the body is no JSON object; {form}")));
    };
    let mut request = JobRequest::default();
    for (key, value) in keys {
        let misfit = || refuse(format!("{key:?} is not what it should be; {form}"));
        let text = || value.as_str().map(str::to_owned).ok_or_else(misfit);
        match &*key {
            "remote" => request.repository = text()?,
            "pattern" => request.pattern = Some(text()?),
            "name" => request.name = Some(text()?),
            "paths" => {
                let paths = value.as_array().ok_or_else(misfit)?.iter();
                let paths = paths.map(|path| path.as_str().map(str::to_owned));
                request.paths = Some(paths.collect::<Option<_>>().ok_or_else(misfit)?);
            }
            _ => {
                let message =
                    format!("unknown key {key:?}; known are paths, pattern, name and remote");
                return Err(refuse(message));
            }
        }
    }
    match (named, &*request.repository) {
        ("", "") => Err(refuse("name the repository with \"remote\"".to_owned())),
        ("", _) => Ok(request),
        (named, remote) if remote.is_empty() || remote == named => Ok(JobRequest {
            repository: named.to_owned(),
            ..request
        }),
        _ => Err(refuse(
            "\"remote\" and the address name two repositories".to_owned(),
        )),
    }
}

async fn create<B: Backend>(
    exchange: &Exchange<'_, B>,
    named: &str,
    body: &mut Incoming,
) -> Result<Response<ResponseBody>, Fault> {
    let shared = &exchange.shared;
    let room = (&*shared.budgets, named);
    let body = request_body::collect(body, MOST_BODY, room, &shared.limits).await?;
    let request = asked(&body, named)?;
    let report = exchange.backend.create_job(request).await?;
    let mut response = json_response(StatusCode::ACCEPTED, &report_json(&report));
    let address = format!("/api/v1/jobs/{}", report.job.id);
    let place = Mount::at(&exchange.client.base, &address).path(&shared.live.load().public_urls);
    if let Ok(place) = HeaderValue::try_from(place) {
        response.headers_mut().insert(LOCATION, place);
    }
    Ok(response)
}

async fn list<B: Backend>(exchange: &Exchange<'_, B>) -> Result<Response<ResponseBody>, Fault> {
    let (limit, after) = parse(exchange.head.uri.query().unwrap_or_default())?;
    let before = place_in("", after)?;
    let page = exchange.backend.jobs(before.as_deref(), limit).await?;
    let jobs = page.jobs.iter();
    let jobs: Vec<Value> = jobs.map(|(job, counts)| job_json(job, counts)).collect();
    let next = page.next.map(|id| cursor(String::new(), id));
    Ok(json_response(
        StatusCode::OK,
        &json!({"jobs": jobs, "next": next}),
    ))
}

async fn shown<B: Backend>(
    exchange: &Exchange<'_, B>,
    id: &str,
) -> Result<Response<ResponseBody>, Fault> {
    let (limit, after) = parse(exchange.head.uri.query().unwrap_or_default())?;
    let after = place_in(id, after)?;
    let report = exchange.backend.job(id, after.as_deref(), limit).await?;
    Ok(json_response(StatusCode::OK, &report_json(&report)))
}

/// Where a cursor of the list `of` stands.
fn place_in(of: &str, cursor: Option<HeldCursor>) -> Result<Option<String>, Fault> {
    if cursor
        .as_ref()
        .is_some_and(|cursor| cursor.repository != of)
    {
        let message = "cursor is of another list; begin without one";
        return Err(refuse(message.to_owned()));
    }
    Ok(cursor.map(|cursor| cursor.path))
}

fn cursor(of: String, path: String) -> String {
    cursor_text(&HeldCursor {
        repository: of,
        row: 0,
        path,
    })
}

fn report_json(report: &JobReport) -> Value {
    let mut shown = job_json(&report.job, &report.counts);
    let items: Vec<Value> = report.items.iter().map(item_json).collect();
    shown["items"] = Value::from(items);
    let next = report.next.clone();
    shown["next"] = Value::from(next.map(|path| cursor(report.job.id.clone(), path)));
    shown
}

fn job_json(job: &JobRow, counts: &JobCounts) -> Value {
    let JobCounts {
        queued,
        running,
        cached,
        skipped,
        failed,
    } = counts;
    json!({
        "id": job.id, "repository": job.repository, "state": job.state,
        "reason": Some(&job.reason).filter(|reason| !reason.is_empty()),
        "created_at": time(job.created_at), "ended_at": job.ended_at.and_then(time),
        "counts": {"queued": queued, "running": running, "cached": cached, "skipped": skipped, "failed": failed},
    })
}

fn item_json(item: &JobItem) -> Value {
    let bytes = (item.state == "cached").then_some(item.bytes);
    let reason = Some(&item.reason).filter(|reason| !reason.is_empty());
    json!({"path": item.path, "state": item.state, "bytes": bytes, "reason": reason})
}

/// How many are asked for, and behind what.
fn parse(query: &str) -> Result<(u32, Option<HeldCursor>), Fault> {
    let (mut most, mut after) = (None, None);
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let is_new = match &*name {
            "limit" => {
                let refused = || refuse(format!("limit is {value:?}; it can be 1 to {MOST}"));
                most.replace(limit(&value).ok_or_else(refused)?).is_none()
            }
            "cursor" => {
                let refused = || refuse("cursor is none of larder's; begin without one".to_owned());
                after
                    .replace(cursor_of(&value).ok_or_else(refused)?)
                    .is_none()
            }
            _ => {
                let message = format!("unknown parameter {name:?}; known are limit and cursor");
                return Err(refuse(message));
            }
        };
        if !is_new {
            return Err(refuse(format!("the parameter {name:?} is given twice")));
        }
    }
    Ok((most.unwrap_or(DEFAULT_LIMIT).min(MOST), after))
}

fn refuse(message: String) -> Fault {
    Fault::new(FaultKind::BadRequest, ErrorCode::BadRequest, message).by_rule("jobs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_for_a_job() {
        let of = |body: &str, named: &str| asked(body.as_bytes(), named);
        let request = of(r#"{"paths":["a","b c"]}"#, "files").unwrap();
        assert_eq!(request.repository, "files");
        assert_eq!(request.paths, Some(vec!["a".to_owned(), "b c".to_owned()]));
        let request = of(r#"{"remote":"pypi","pattern":"whl$","name":"x"}"#, "").unwrap();
        assert_eq!(
            (request.repository.as_str(), request.name.as_deref()),
            ("pypi", Some("x"))
        );
        for (body, named) in [
            ("", "files"),
            ("[]", "files"),
            (r#"{"paths":"a"}"#, "files"),
            (r#"{"paths":[1]}"#, "files"),
            (r#"{"path":["a"]}"#, "files"),
            (r#"{"paths":["a"],"remote":"other"}"#, "files"),
            (r#"{"paths":["a"]}"#, ""),
        ] {
            let refused = of(body, named).expect_err(body);
            assert_eq!(refused.kind, FaultKind::BadRequest, "{body}");
        }
    }
}
