//! `GET /api/v1/explain/{repo}/{path}`: why a path is answered as it is, step by step, each with the line of the configuration that decided.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use larder_core::{Fault, Mount, RepositoryKind, UnixMillis};
use larder_engine::{ArtifactRequest, Explanation, Point, PointValue};
use serde_json::{Value, json};

use crate::admin::json_response;
use crate::attempts::try_bearer;
use crate::backend::Backend;
use crate::exchange::{Exchange, Handled};
use crate::metrics::RequestKind;
use crate::origin_guard::may_see_configuration;
use crate::problem::{self, Audience};
use crate::unknown;

pub(crate) async fn serve<B: Backend>(
    exchange: &Exchange<'_, B>,
    name: &str,
    path: &str,
) -> Handled {
    let repository = exchange.backend.repository(name);
    let shared = exchange.shared;
    let may_see = try_bearer(&exchange.head.headers, exchange.client.address, shared)
        .and_then(|()| may_see_configuration(exchange.principal, &shared.live.load()));
    let explained = match may_see {
        Ok(()) => explain(exchange, name, path).await,
        Err(fault) => Err(fault),
    };
    match explained {
        Ok(explanation) => Handled {
            response: json_response(
                StatusCode::OK,
                &shown(&explanation, &exchange.shared.live.load().config_lines),
            ),
            kind: RequestKind::Other,
            repository,
        },
        Err(fault) => {
            let fault = if fault.code == unknown::CODE {
                unknown::unknown(&**exchange.backend, name, false)
            } else {
                fault
            };
            let audience = Audience::Repository(None);
            Handled {
                response: problem::response(&**exchange.backend, &fault, audience),
                kind: RequestKind::Refused,
                repository,
            }
        }
    }
}

/// What a GET of the path would be told, whatever the method of this request is.
async fn explain<B: Backend>(
    exchange: &Exchange<'_, B>,
    name: &str,
    path: &str,
) -> Result<Explanation, Fault> {
    let kind = exchange.backend.repository(name);
    let kind = kind.map_or(RepositoryKind::Remote, |repository| repository.kind());
    let mount = Mount::api(&exchange.client.base, kind, name);
    let asked = exchange.request(name, path, mount, bytes::Bytes::new());
    let asked = ArtifactRequest {
        method: &Method::GET,
        ..asked
    };
    exchange.backend.explain(asked).await
}

fn shown(explanation: &Explanation, lines: &BTreeMap<String, String>) -> Value {
    let Explanation {
        repository,
        path,
        verdict,
        pattern,
        class,
        ttl,
        freshness,
        quarantine,
        member,
        digest,
    } = explanation;
    let point = |shown| point(shown, lines);
    json!({
        "repository": point(repository), "path": path, "verdict": point(verdict), "pattern": point(pattern),
        "class": point(class), "ttl": point(ttl), "freshness": point(freshness), "quarantine": point(quarantine),
        "member": point(member), "digest": point(digest),
    })
}

/// `lines`: where each key stands.
fn point(point: &Point, lines: &BTreeMap<String, String>) -> Value {
    let Point {
        value,
        until,
        decided_by,
        because,
    } = point;
    let value = match value {
        PointValue::None => Value::Null,
        PointValue::Text(text) => json!(text),
        PointValue::Seconds(seconds) => json!(seconds),
    };
    let until = until.map(UnixMillis::to_rfc3339);
    let line = decided_by.as_ref().and_then(|key| lines.get(key));
    json!({
        "value": value, "until": until, "decided_by": decided_by, "line": line, "because": because,
    })
}
