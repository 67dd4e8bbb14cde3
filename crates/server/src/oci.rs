//! The distribution API below `/v2/`: which repository a request means. What it asks for there is the format's knowledge, and
//! answering is the one handler's (`artifact.rs`).

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue, Method, Response};
use larder_core::{ErrorCode, Fault, FaultKind, PackageType, Repository, fold_segments, shown};

use crate::artifact::{self, Address};
use crate::backend::Backend;
use crate::body::ResponseBody;
use crate::exchange::{Exchange, Handled};
use crate::metrics::RequestKind;
use crate::problem::{self, Audience};
use crate::root_page;
use crate::unknown::unknown;

/// Tells clients that this is a registry; on everything below `/v2/`.
pub(crate) const API_VERSION: (HeaderName, HeaderValue) = (
    HeaderName::from_static("docker-distribution-api-version"),
    HeaderValue::from_static("registry/2.0"),
);

/// `/v2/{rest}`.
pub(crate) async fn serve<B: Backend>(exchange: &Exchange<'_, B>, rest: &str) -> Handled {
    let reads = matches!(exchange.head.method, Method::GET | Method::HEAD);
    let rest = &*fold_segments(rest);
    match rest {
        "" | "_catalog" if !reads => refuse(exchange, &not_offered(), None),
        "" => json(b"{}"),
        // Of what larder holds itself, that is: remotes are not listed, and there are no local repositories yet.
        "_catalog" => json(br#"{"repositories":[]}"#),
        _ => match choose(exchange, rest) {
            Ok((repository, path)) => {
                if let Some(page) = registry_page(exchange, &repository, path) {
                    return page;
                }
                let mount = mount_of(&repository, path, rest);
                answer(exchange, &repository, path, &mount).await
            }
            Err(fault) => refuse(exchange, &fault, None),
        },
    }
}

/// `/v2/{repository}/`: no address of the distribution API, so people have it to themselves.
fn registry_page<B: Backend>(
    exchange: &Exchange<'_, B>,
    name: &str,
    path: &str,
) -> Option<Handled> {
    let mut page = if root_page::is_root(&exchange.head.method, path) {
        root_page::of(exchange, name)?
    } else {
        return None;
    };
    let (name, value) = API_VERSION;
    page.response.headers_mut().insert(name, value);
    Some(page)
}

/// `/{repository}/v2/{path}`, as clients send it that put the path of a mirror in front of everything. `None`: there is no such registry.
pub(crate) async fn serve_alias<B: Backend>(
    exchange: &Exchange<'_, B>,
    name: &str,
    path: &str,
) -> Option<Handled> {
    docker(exchange, name)?;
    let path = &*fold_segments(path);
    Some(
        match (
            path,
            matches!(exchange.head.method, Method::GET | Method::HEAD),
        ) {
            ("", true) => json(b"{}"),
            ("", false) => refuse(exchange, &not_offered(), None),
            _ => answer(exchange, name, path, &format!("/{name}/v2")).await,
        },
    )
}

fn docker<B: Backend>(
    exchange: &Exchange<'_, B>,
    name: &str,
) -> Option<std::sync::Arc<Repository>> {
    exchange
        .backend
        .repository(name)
        .filter(|repository| repository.package == PackageType::Docker)
}

/// A first segment that is a docker repository's name always means it. Anything else is an image of the repository that stands for the
/// registry whose mirror the client takes larder for (`?ns=`) and of no other, for elsewhere the name is another image's; where the client
/// names no registry, of the default remote.
pub(crate) fn choose<'p, B: Backend>(
    exchange: &Exchange<'_, B>,
    rest: &'p str,
) -> Result<(String, &'p str), Fault> {
    let (first, after) = rest.split_once('/').unwrap_or((rest, ""));
    if docker(exchange, first).is_some() {
        return Ok((first.to_owned(), after));
    }
    let live = exchange.shared.live.load();
    let registry = namespace(exchange.head.uri.query());
    let meant = match &registry {
        Some(registry) => live.docker_registries.get(registry),
        None => live.docker_default_remote.as_ref(),
    };
    if let Some(name) = meant {
        return Ok((name.clone(), rest));
    }
    let mut fault = unknown(&**exchange.backend, first, true);
    if let Some(registry) = registry {
        fault.message = format!(
            "there is not exactly one docker repository here that pulls from {:?}, the registry that `ns` names; {}",
            shown(&registry),
            fault.message
        );
    } else if exchange.backend.repository(first).is_none() {
        fault.message.push_str(
            "; image names begin with the name of a docker repository, unless docker_default_remote is set or `ns` names the registry \
             of one",
        );
    }
    Err(fault)
}

/// Where a client sees the repository that `rest` means: one that stands for a registry, or for all of them, has no name in the path.
fn mount_of<'m>(name: &str, path: &str, rest: &str) -> Cow<'m, str> {
    if path.len() == rest.len() {
        Cow::Borrowed("/v2")
    } else {
        Cow::Owned(format!("/v2/{name}"))
    }
}

/// The registry that a client would have asked without larder; `None`: it names none.
fn namespace(query: Option<&str>) -> Option<String> {
    let mut parameters = url::form_urlencoded::parse(query?.as_bytes());
    parameters
        .find(|(name, _)| name == "ns")
        .map(|(_, registry)| registry.to_ascii_lowercase())
        .filter(|registry| !registry.is_empty())
}

/// The repository that a path below `/v2/` means, if it means one.
pub(crate) fn repository_of<B: Backend>(exchange: &Exchange<'_, B>, rest: &str) -> Option<String> {
    choose(exchange, rest).ok().map(|(name, _)| name)
}

async fn answer<B: Backend>(
    exchange: &Exchange<'_, B>,
    name: &str,
    path: &str,
    mount: &str,
) -> Handled {
    if matches!(exchange.head.method, Method::GET | Method::HEAD) {
        return artifact::serve(
            exchange,
            Address {
                repository: name,
                path,
                mount: Some(mount),
                audience: Audience::Oci,
            },
            Bytes::new(),
        )
        .await;
    }
    let repository = exchange.backend.repository(name);
    let unbuilt = exchange.backend.not_built(name);
    let fault = match repository.as_deref() {
        Some(other) if let Some(reason) = &unbuilt => Fault::unbuilt(&other.name, reason),
        Some(other) => {
            let message = format!(
                "{name} is a {} repository: images are pulled from it, not pushed to it",
                other.kind().as_str()
            );
            Fault::new(FaultKind::MethodNotAllowed, ErrorCode::ReadOnly, message)
                .in_repository(&other.name)
        }
        None => unknown(&**exchange.backend, name, true),
    };
    refuse(exchange, &fault, repository)
}

fn refuse<B: Backend>(
    exchange: &Exchange<'_, B>,
    fault: &Fault,
    repository: Option<std::sync::Arc<Repository>>,
) -> Handled {
    let response = problem::response(&**exchange.backend, fault, Audience::Oci);
    Handled {
        response,
        kind: RequestKind::Refused,
        repository,
    }
}

fn not_offered() -> Fault {
    Fault::new(
        FaultKind::MethodNotAllowed,
        ErrorCode::MethodNotAllowed,
        "this address is read with GET and HEAD",
    )
}

fn json(body: &'static [u8]) -> Handled {
    let mut response = Response::new(ResponseBody::bytes(Bytes::from_static(body)));
    let (name, value) = API_VERSION;
    response.headers_mut().insert(name, value);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
        .headers_mut()
        .insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Handled::other(response)
}
