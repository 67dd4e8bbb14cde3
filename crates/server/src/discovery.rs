//! What is held and what upstreams offer (`GET /api/v1/artifacts[/{repo}]`), and the flush of one path (`DELETE` on a remote's path).

use std::fmt::Write as _;

use http::{Response, StatusCode};
use larder_core::{ErrorCode, Fault, FaultKind, Mount, RepositoryKind, UnixMillis};
use larder_engine::{
    HeldArtifact, HeldCursor, HeldRequest, HeldSize, OfferRequest, OfferedArtifact, Queries,
};
use serde_json::{Value, json};

use crate::admin::{json_response, text};
use crate::backend::Backend;
use crate::body::ResponseBody;
use crate::exchange::{Exchange, Handled};
use crate::metrics::RequestKind;
use crate::problem::{self, Audience};
use crate::upload::refuse_upload;

const DEFAULT_LIMIT: u32 = 100;
const MOST: u32 = 1_000;

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Listing {
    pattern: Option<String>,
    cached: Option<bool>,
    limit: Option<u32>,
    cursor: Option<HeldCursor>,
    of_upstream: bool,
    name: Option<String>,
    summary: bool,
}

/// `/api/v1/artifacts[/{repo}]`; `repository` is empty where the path names none.
pub(crate) async fn serve<B: Backend>(exchange: &Exchange<'_, B>, repository: &str) -> Handled {
    let response = listing(exchange, repository).await;
    let response = response.unwrap_or_else(|fault| {
        problem::response(&**exchange.backend, &fault, Audience::Repository(None))
    });
    Handled::other(response)
}

async fn listing<B: Backend>(
    exchange: &Exchange<'_, B>,
    repository: &str,
) -> Result<Response<ResponseBody>, Fault> {
    let asked = parse(exchange.head.uri.query().unwrap_or_default())?;
    if asked.of_upstream {
        return offered(exchange, repository, asked).await;
    }
    let repository = (!repository.is_empty()).then(|| repository.to_owned());
    if asked.summary {
        let summary = exchange.backend.held_summary(repository.as_deref()).await?;
        let sizes: Vec<Value> = summary.repositories.iter().map(size_json).collect();
        let mut shown = json!({"repositories": sizes});
        if repository.is_none() {
            shown["stored"] = json!({"blobs": summary.stored_blobs, "bytes": summary.stored_bytes});
        }
        return Ok(json_response(StatusCode::OK, &shown));
    }
    let Listing {
        pattern,
        cached,
        limit,
        cursor,
        ..
    } = asked;
    let limit = limit.unwrap_or(DEFAULT_LIMIT).min(MOST);
    let page = exchange
        .backend
        .held_artifacts(HeldRequest {
            repository,
            pattern,
            cached,
            limit,
            after: cursor,
        })
        .await?;
    let artifacts: Vec<Value> = page.artifacts.iter().map(artifact_json).collect();
    Ok(json_response(
        StatusCode::OK,
        &json!({"artifacts": artifacts, "next": page.next.as_ref().map(cursor_text)}),
    ))
}

/// What the upstream of a repository offers.
async fn offered<B: Backend>(
    exchange: &Exchange<'_, B>,
    repository: &str,
    asked: Listing,
) -> Result<Response<ResponseBody>, Fault> {
    if repository.is_empty() {
        return Err(refuse(
            "what an upstream offers is asked of one repository: GET /api/v1/artifacts/{repo}?source=upstream"
                .to_owned(),
        ));
    }
    let request = OfferRequest {
        repository: repository.to_owned(),
        name: asked.name,
        pattern: asked.pattern,
        cached: asked.cached,
        limit: asked.limit.unwrap_or(DEFAULT_LIMIT).min(MOST),
        after: asked.cursor,
    };
    let page = exchange.backend.offered_artifacts(request).await?;
    let artifacts: Vec<Value> = page.artifacts.iter().map(offered_json).collect();
    Ok(json_response(
        StatusCode::OK,
        &json!({"artifacts": artifacts, "next": page.next.as_ref().map(cursor_text)}),
    ))
}

fn offered_json(artifact: &OfferedArtifact) -> Value {
    let OfferedArtifact {
        repository,
        path,
        size,
        sha256,
        cached_at,
        fresh_until,
    } = artifact;
    json!({
        "repository": repository, "path": path, "size": size, "sha256": sha256, "cached": cached_at.is_some(),
        "cached_at": cached_at.and_then(time), "fresh_until": fresh_until.and_then(time),
    })
}

fn size_json(size: &HeldSize) -> Value {
    json!({"repository": size.repository, "files": size.files, "bytes": size.bytes})
}

fn artifact_json(artifact: &HeldArtifact) -> Value {
    let HeldArtifact {
        repository,
        path,
        size,
        sha256,
        cached,
        cached_at,
        fresh_until,
    } = artifact;
    json!({
        "repository": repository, "path": path, "size": size, "sha256": sha256, "cached": cached,
        "cached_at": time(*cached_at), "fresh_until": fresh_until.and_then(time),
    })
}

/// RFC 3339, in UTC.
pub(crate) fn time(at: UnixMillis) -> Option<String> {
    jiff::Timestamp::from_millisecond(at.0)
        .ok()
        .map(|at| format!("{at:.0}"))
}

fn refuse(message: String) -> Fault {
    Fault::new(FaultKind::BadRequest, ErrorCode::BadRequest, message)
        .by_rule("GET /api/v1/artifacts")
}

/// Parses the query. A parameter that is not known could be a misspelt restriction: it is refused.
fn parse(query: &str) -> Result<Listing, Fault> {
    let mut asked = Listing::default();
    let mut seen: Vec<String> = Vec::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if seen.iter().any(|seen| **seen == *name) {
            return Err(refuse(format!("the parameter {name:?} is given twice")));
        }
        asked.take(&name, &value)?;
        seen.push(name.into_owned());
    }
    if seen.iter().any(|name| name == "name") && !asked.of_upstream {
        return Err(refuse(
            "name goes with source=upstream; what is held is chosen with pattern".to_owned(),
        ));
    }
    if asked.summary && asked.of_upstream {
        return Err(refuse(
            "a summary is of what a repository holds; it does not go with source=upstream"
                .to_owned(),
        ));
    }
    if let (true, Some(name)) = (
        asked.summary,
        seen.iter()
            .find(|name| !matches!(&***name, "summary" | "source" | "name")),
    ) {
        return Err(refuse(format!(
            "{name} restricts a list; a summary is of all that a repository holds"
        )));
    }
    Ok(asked)
}

impl Listing {
    /// Takes one parameter up.
    fn take(&mut self, name: &str, value: &str) -> Result<(), Fault> {
        let truth = |value: &str| match value {
            "true" => Ok(true),
            "false" => Ok(false),
            other => Err(refuse(format!(
                "{name} is {other:?}; it can be true or false"
            ))),
        };
        match name {
            "pattern" => self.pattern = Some(value.to_owned()),
            "cached" => self.cached = Some(truth(value)?),
            "summary" => self.summary = truth(value)?,
            "limit" => {
                let refused = || refuse(format!("limit is {value:?}; it can be 1 to {MOST}"));
                self.limit = Some(limit(value).ok_or_else(refused)?);
            }
            "cursor" => {
                let cursor = cursor_of(value);
                self.cursor = Some(cursor.ok_or_else(|| {
                    refuse("cursor is none of larder's; begin without one".to_owned())
                })?);
            }
            "source" => match value {
                "held" => {}
                "upstream" => self.of_upstream = true,
                other => {
                    return Err(refuse(format!(
                        "source is {other:?}; it can be held or upstream"
                    )));
                }
            },
            // What of the upstream's offer is meant.
            "name" => self.name = Some(value.to_owned()).filter(|name| !name.is_empty()),
            _ => {
                let known = "pattern, cached, limit, cursor, source, summary and, with source=upstream, name";
                return Err(refuse(format!(
                    "unknown parameter {name:?}; known are {known}"
                )));
            }
        }
        Ok(())
    }
}

/// A number from 1; what is too large for one is capped like any other that is too large.
pub(crate) fn limit(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number
        .then(|| text.parse().unwrap_or(u32::MAX))
        .filter(|limit| *limit > 0)
}

pub(crate) fn cursor_text(cursor: &HeldCursor) -> String {
    let text = format!("{}\0{}\0{}", cursor.repository, cursor.row, cursor.path);
    text.bytes()
        .fold(String::with_capacity(2 * text.len()), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

pub(crate) fn cursor_of(text: &str) -> Option<HeldCursor> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = text.as_bytes().chunks(2);
    let bytes = pairs
        .map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?))
        .collect::<Option<Vec<u8>>>()?;
    let text = String::from_utf8(bytes).ok()?;
    let mut parts = text.splitn(3, '\0');
    let (repository, row, path) = (parts.next()?, parts.next()?, parts.next()?);
    // No path has it, and it is no text for every database.
    if path.contains('\0') {
        return None;
    }
    Some(HeldCursor {
        repository: repository.to_owned(),
        row: row.parse().ok()?,
        path: path.to_owned(),
    })
}

/// `DELETE` on a path: the flush of exactly that path of a remote repository.
pub(crate) async fn forget<B: Backend>(
    exchange: &Exchange<'_, B>,
    name: &str,
    path: &str,
) -> Handled {
    let repository = exchange.backend.repository(name);
    let Some(remote) = repository
        .as_ref()
        .filter(|repository| repository.kind() == RepositoryKind::Remote)
    else {
        return refuse_upload(exchange, name);
    };
    let mount = Mount::api(&exchange.client.base, RepositoryKind::Remote, name);
    let request = exchange.request(name, path, mount, bytes::Bytes::new());
    let audience = Audience::Repository(Some(remote));
    let (response, kind) = match exchange.backend.forget(request, Queries::AsAsked).await {
        Ok(true) => (
            text(StatusCode::NO_CONTENT, "text/plain", ""),
            RequestKind::Other,
        ),
        Ok(false) => {
            let message = format!(
                "repository {name} holds nothing under this path: there is nothing to flush"
            );
            let fault = Fault::new(FaultKind::NotFound, ErrorCode::NotHeld, message)
                .in_repository(&remote.name);
            (
                problem::response(&**exchange.backend, &fault, audience),
                RequestKind::Other,
            )
        }
        Err(fault) => (
            problem::response(&**exchange.backend, &fault, audience),
            RequestKind::Refused,
        ),
    };
    Handled {
        response,
        kind,
        repository,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_of_a_list() {
        let asked = parse("pattern=%5Ea%2F&cached=true&limit=7&source=held&summary=false").unwrap();
        assert_eq!(
            (asked.pattern.as_deref(), asked.cached, asked.limit),
            (Some("^a/"), Some(true), Some(7))
        );
        assert!(!asked.of_upstream && !asked.summary);
        let asked = parse("source=upstream&name=demo").unwrap();
        assert!(asked.of_upstream);
        assert_eq!(asked.name.as_deref(), Some("demo"));
        assert_eq!(
            parse("limit=99999999999999999999").unwrap().limit,
            Some(u32::MAX),
            "capped afterwards"
        );
        assert_eq!(parse("").unwrap(), Listing::default());
    }

    #[test]
    fn what_is_malformed_or_could_be_a_misspelt_restriction_is_refused() {
        for query in [
            "limit=0",
            "limit=",
            "limit=-1",
            "limit=1.5",
            "limit=ten",
            "limit=+5",
            "cached=yes",
            "summary=1",
            "source=all",
            "cursor=zz",
            "cursor=6",
            "cursor=",
            // Of a path with the character zero.
            "cursor=61003000780079",
            "patern=a",
            "pattern=a&pattern=b",
            "name=demo",
            // A sum of everything is not what was asked for.
            "summary=true&pattern=a",
            "cached=false&summary=true",
            "summary=true&source=upstream",
        ] {
            assert_eq!(
                parse(query).map_err(|fault| fault.kind),
                Err(FaultKind::BadRequest),
                "{query}"
            );
        }
    }

    #[test]
    fn a_cursor_comes_back_as_it_was() {
        let cursor = HeldCursor {
            repository: "files".into(),
            row: 42,
            path: "dir/ü+%2F\u{1F600}".into(),
        };
        assert_eq!(cursor_of(&cursor_text(&cursor)), Some(cursor));
    }
}
