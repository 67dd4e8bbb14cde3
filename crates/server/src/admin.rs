//! What operators and monitoring ask: flush, health, configuration, metrics, the list of repositories.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response, StatusCode};
use larder_core::{Fault, FaultKind, RepositoryKind};
use larder_engine::{CacheType, FlushRequest};
use serde_json::{Value, json};

use crate::backend::{Backend, BackendState};
use crate::body::ResponseBody;
use crate::openapi::OPENAPI;
use crate::problem::{self, Audience};
use crate::routes::Endpoint;
use crate::service::{Exchange, Handled};

const JSON: &str = "application/json";
const TEXT_0_0_4: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(crate) async fn serve<B: Backend>(exchange: &Exchange<'_, B>, endpoint: Endpoint) -> Handled {
    let result = match endpoint {
        Endpoint::Flush => flush(exchange).await,
        Endpoint::Health => Ok(health(exchange).await),
        Endpoint::Ready => Ok(ready(exchange).await),
        // Asks nobody: a slow store must not get the process killed (hazard A4).
        Endpoint::Live => Ok(json_response(StatusCode::OK, &json!({"status": "ok"}))),
        Endpoint::Config => Ok(json_response(StatusCode::OK, &exchange.shared.live.load().config_view)),
        Endpoint::Root => Ok(root(exchange)),
        Endpoint::Metrics => metrics(exchange),
        Endpoint::OpenApi => Ok(text(StatusCode::OK, JSON, OPENAPI)),
        _ => Err(Fault::new(FaultKind::NotImplemented, "not_implemented", "this is not built in this version of larder")),
    };
    let response = result.unwrap_or_else(|fault| problem::response(&**exchange.backend, &fault, Audience::Repository(None)));
    Handled::other(response)
}

async fn flush<B: Backend>(exchange: &Exchange<'_, B>) -> Result<Response<ResponseBody>, Fault> {
    let request = flush_request(exchange.head.uri.query().unwrap_or_default())?;
    let everywhere = request.remote.is_none();
    let copies = !matches!(request.cache_type, CacheType::Metrics);
    let report = exchange.backend.flush(request).await?;
    if report.metrics && everywhere {
        exchange.shared.metrics.reset();
    }
    if copies {
        exchange.shared.hot.clear();
    }
    let counts = json!({"index": report.index, "files": report.files, "metrics": report.metrics});
    Ok(json_response(StatusCode::OK, &json!({"flushed": counts})))
}

/// Parses the query of `PUT /cache/flush`. A parameter that is not known could be a misspelt restriction: it is refused.
fn flush_request(query: &str) -> Result<FlushRequest, Fault> {
    let refuse = |message: String| Fault::new(FaultKind::BadRequest, "bad_request", message).by_rule("PUT /cache/flush");
    let (mut remote, mut cache_type, mut pattern) = (None, None, None);
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let slot = match &*name {
            "remote" => &mut remote,
            "cache_type" => &mut cache_type,
            "pattern" => &mut pattern,
            _ => return Err(refuse(format!("unknown parameter {name:?}; known are remote, cache_type and pattern"))),
        };
        if slot.replace(value.into_owned()).is_some() {
            return Err(refuse(format!("the parameter {name:?} is given twice")));
        }
    }
    let cache_type = match cache_type.as_deref() {
        None | Some("all") => CacheType::All,
        Some("index") => CacheType::Index,
        Some("files") => CacheType::Files,
        Some("metrics") => CacheType::Metrics,
        Some(other) => {
            return Err(refuse(format!("cache_type is {other:?}; it can be all, index, files or metrics")));
        }
    };
    Ok(FlushRequest { remote, cache_type, pattern })
}

async fn health<B: Backend>(exchange: &Exchange<'_, B>) -> Response<ResponseBody> {
    let states = exchange.backend.health().await;
    let ok = states.iter().all(|state| state.ok);
    let backends: BTreeMap<&str, Value> = states.iter().map(|state| (state.role, state_json(state))).collect();
    json_response(verdict(ok), &json!({"status": word(ok), "backends": backends}))
}

async fn ready<B: Backend>(exchange: &Exchange<'_, B>) -> Response<ResponseBody> {
    let ok = exchange.backend.health().await.iter().all(|state| state.ok);
    json_response(verdict(ok), &json!({"status": word(ok)}))
}

fn state_json(state: &BackendState) -> Value {
    let mut shown = json!({"kind": state.kind, "status": word(state.ok)});
    if let Some(detail) = &state.detail {
        shown["detail"] = Value::from(detail.as_str());
    }
    shown
}

fn verdict(ok: bool) -> StatusCode {
    if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn word(ok: bool) -> &'static str {
    if ok { "ok" } else { "unavailable" }
}

fn root<B: Backend>(exchange: &Exchange<'_, B>) -> Response<ResponseBody> {
    let live = exchange.shared.live.load();
    let base = live.public_urls.of_client(&exchange.client.base).map_or(exchange.client.base.as_str(), |url| url.as_str());
    let base = base.trim_end_matches('/');
    let remotes: BTreeMap<String, Value> = exchange
        .backend
        .repositories()
        .iter()
        .map(|repository| {
            let root = if repository.kind == RepositoryKind::Virtual { "virtual" } else { "remote" };
            let shown = json!({
                "type": repository.kind.as_str(),
                "package": repository.package.as_str(),
                "description": repository.description,
                "url": format!("{base}/api/v1/{root}/{}", repository.name),
            });
            (repository.name.to_string(), shown)
        })
        .collect();
    json_response(StatusCode::OK, &json!({"name": "larder", "version": exchange.shared.version, "remotes": remotes}))
}

fn metrics<B: Backend>(exchange: &Exchange<'_, B>) -> Result<Response<ResponseBody>, Fault> {
    let shared = exchange.shared;
    let text_format = shared.metrics.render(exchange.backend.counters(), shared.hot.size());
    let body = text_format.map_err(|_| Fault::new(FaultKind::Internal, "internal", "the metrics cannot be rendered"))?;
    let accept = exchange.head.headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let open = accept.into_iter().any(|line| line.contains("application/openmetrics-text"));
    Ok(if open { text(StatusCode::OK, OPEN_METRICS, body) } else { text(StatusCode::OK, TEXT_0_0_4, older_text(&body)) })
}

/// OpenMetrics as Prometheus' older text format: there, a counter's help and type stand under its sample's own name.
fn older_text(open_metrics: &str) -> String {
    let counters: HashSet<&str> =
        open_metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut older = String::with_capacity(open_metrics.len() + counters.len() * 16);
    for line in open_metrics.lines().filter(|line| *line != "# EOF") {
        let comment = line.strip_prefix("# ").and_then(|rest| rest.split_once(' '));
        match comment.and_then(|(word, rest)| Some((word, rest.split_once(' ')?))) {
            Some((word, (name, rest))) if counters.contains(name) => {
                older.extend(["# ", word, " ", name, "_total ", rest]);
            }
            _ => older.push_str(line),
        }
        older.push('\n');
    }
    older
}

pub(crate) fn json_response(status: StatusCode, value: &Value) -> Response<ResponseBody> {
    text(status, JSON, value.to_string())
}

pub(crate) fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::bytes(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_in_the_older_text_format_are_described_under_their_samples_names() {
        let open = "# HELP larder_requests Requests answered.\n# TYPE larder_requests counter\nlarder_requests_total{a=\"b\"} 1\n\
            # HELP larder_open Open connections.\n# TYPE larder_open gauge\nlarder_open 2\n# EOF\n";
        let expected = "# HELP larder_requests_total Requests answered.\n# TYPE larder_requests_total counter\n\
            larder_requests_total{a=\"b\"} 1\n# HELP larder_open Open connections.\n# TYPE larder_open gauge\nlarder_open 2\n";
        assert_eq!(older_text(open), expected);
    }

    #[test]
    fn the_parameters_of_a_flush() {
        let request = flush_request("remote=pypi&cache_type=index&pattern=%5Esimple%2F").unwrap();
        assert_eq!(request.remote.as_deref(), Some("pypi"));
        assert_eq!(request.pattern.as_deref(), Some("^simple/"));
        assert!(matches!(request.cache_type, CacheType::Index));
        let everything = flush_request("").unwrap();
        assert!(matches!(everything.cache_type, CacheType::All));
        assert_eq!((everything.remote, everything.pattern), (None, None));
    }

    #[test]
    fn what_could_be_a_misspelt_restriction_is_refused() {
        for query in ["remotes=pypi", "cache_type=indexes", "cache_type=", "remote=a&remote=b", "type=index"] {
            assert_eq!(flush_request(query).unwrap_err().kind, FaultKind::BadRequest, "{query}");
        }
    }
}
