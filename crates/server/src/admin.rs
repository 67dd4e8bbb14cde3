//! What operators and monitoring ask: flush, configuration, the list of repositories.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use larder_core::{ErrorCode, Fault, FaultKind, RepositoryKind, shown};
use larder_engine::{CacheType, FlushRequest};
use serde_json::{Value, json};

use crate::backend::Backend;
use crate::body::ResponseBody;
use crate::exchange::{Exchange, Handled};
use crate::openapi::OPENAPI;
use crate::problem::{self, Audience};
use crate::respond::insert;
use crate::routes::Endpoint;
use crate::{health_page, metrics_page, unknown};

const JSON: &str = "application/json";
/// Keys of `/config` that take effect only at the next start.
const WAITING: HeaderName = HeaderName::from_static("x-larder-waiting-for-restart");

pub(crate) async fn serve<B: Backend>(exchange: &Exchange<'_, B>, endpoint: Endpoint) -> Handled {
    let result = match endpoint {
        Endpoint::Flush => flush(exchange).await,
        Endpoint::Health => Ok(health_page::health(exchange).await),
        Endpoint::Ready => Ok(health_page::ready(exchange).await),
        // Asks nobody: a slow store must not get the process killed (hazard A4).
        Endpoint::Live => Ok(json_response(StatusCode::OK, &json!({"status": "ok"}))),
        Endpoint::Config => Ok(config(exchange)),
        Endpoint::Root => Ok(root(exchange)),
        Endpoint::Metrics => metrics_page::serve(exchange).await,
        Endpoint::OpenApi => Ok(text(StatusCode::OK, JSON, OPENAPI)),
        _ => Err(Fault::not_built(
            "this is not built in this version of larder",
        )),
    };
    let response = result.unwrap_or_else(|fault| {
        problem::response(&**exchange.backend, &fault, Audience::Repository(None))
    });
    Handled::other(response)
}

/// The configuration as loaded. Which of its keys are not in force yet stands beside it: the document itself is one that loads.
fn config<B>(exchange: &Exchange<'_, B>) -> Response<ResponseBody> {
    let live = exchange.shared.live.load();
    let mut response = json_response(StatusCode::OK, &live.config_view);
    if !live.config_waiting.is_empty() {
        let keys = live.config_waiting.join(", ");
        insert(response.headers_mut(), WAITING, keys);
    }
    response
}

async fn flush<B: Backend>(exchange: &Exchange<'_, B>) -> Result<Response<ResponseBody>, Fault> {
    let request = flush_request(exchange.head.uri.query().unwrap_or_default())?;
    let copies = !matches!(request.cache_type, CacheType::Metrics);
    let asked = request.clone();
    let report = exchange
        .backend
        .flush(request)
        .await
        .map_err(|fault| match &asked.remote {
            Some(name) if fault.code == unknown::CODE => {
                unknown::unknown(&**exchange.backend, name, false).by_rule("remote")
            }
            _ => fault,
        })?;
    if report.metrics {
        exchange.shared.metrics.reset(asked.remote.as_deref());
    }
    if copies {
        exchange.shared.hot.clear();
    }
    tracing::info!(
        client = %exchange.client.address, repository = &*shown(asked.remote.as_deref().unwrap_or("all")),
        cache_type = asked.cache_type.as_str(), pattern = asked.pattern.as_deref().map(|pattern| shown(pattern).into_owned()),
        index = report.index, files = report.files, metrics = report.metrics, "flushed"
    );
    let counts = json!({"index": report.index, "files": report.files, "metrics": report.metrics});
    Ok(json_response(StatusCode::OK, &json!({"flushed": counts})))
}

/// Parses the query of `PUT /cache/flush`. A parameter that is not known could be a misspelt restriction: it is refused.
fn flush_request(query: &str) -> Result<FlushRequest, Fault> {
    let refuse = |message: String| {
        Fault::new(FaultKind::BadRequest, ErrorCode::BadRequest, message)
            .by_rule("PUT /cache/flush")
    };
    let (mut remote, mut cache_type, mut pattern) = (None, None, None);
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let told = shown(&name);
        let slot = match &*name {
            "remote" => &mut remote,
            "cache_type" => &mut cache_type,
            "pattern" => &mut pattern,
            _ => {
                return Err(refuse(format!(
                    "unknown parameter {told:?}; known are remote, cache_type and pattern"
                )));
            }
        };
        if slot.replace(value.into_owned()).is_some() {
            return Err(refuse(format!("the parameter {told:?} is given twice")));
        }
    }
    if pattern.as_deref() == Some("") {
        // A variable of a script that was never set: it restricts nothing, and was to restrict something.
        return Err(refuse(
            "pattern is empty and would match every path; leave it out if that is meant".to_owned(),
        ));
    }
    let cache_type = match cache_type.as_deref() {
        None | Some("all") => CacheType::All,
        Some("index") => CacheType::Index,
        Some("files") => CacheType::Files,
        Some("metrics") => CacheType::Metrics,
        Some(other) => {
            return Err(refuse(format!(
                "cache_type is {:?}; it can be all, index, files or metrics",
                shown(other)
            )));
        }
    };
    Ok(FlushRequest {
        remote,
        cache_type,
        pattern,
    })
}

fn root<B: Backend>(exchange: &Exchange<'_, B>) -> Response<ResponseBody> {
    let live = exchange.shared.live.load();
    let base = live
        .public_urls
        .of_client(&exchange.client.base)
        .map_or(exchange.client.base.as_str(), |url| url.as_str());
    let base = base.trim_end_matches('/');
    let remotes: BTreeMap<String, Value> = exchange
        .backend
        .repositories()
        .iter()
        .map(|repository| {
            let root = if repository.kind() == RepositoryKind::Virtual {
                "virtual"
            } else {
                "remote"
            };
            let shown = json!({
                "type": repository.kind().as_str(),
                "package": repository.package.as_str(),
                "description": repository.description,
                "url": format!("{base}/api/v1/{root}/{}", repository.name),
            });
            (repository.name.to_string(), shown)
        })
        .collect();
    let mut response = json_response(
        StatusCode::OK,
        &json!({"name": "larder", "version": exchange.shared.version, "remotes": remotes}),
    );
    // Who would rather have a page is sent to one.
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    response
}

pub(crate) fn json_response(status: StatusCode, value: &Value) -> Response<ResponseBody> {
    text(status, JSON, value.to_string())
}

pub(crate) fn text(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<ResponseBody> {
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
        for query in [
            "remotes=pypi",
            "cache_type=indexes",
            "cache_type=",
            "remote=a&remote=b",
            "type=index",
        ] {
            assert_eq!(
                flush_request(query).unwrap_err().kind,
                FaultKind::BadRequest,
                "{query}"
            );
        }
    }
}
