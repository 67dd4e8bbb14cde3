//! Requests that this larder has sent itself, and that have come back to it (ADR 0041): a repository's upstream leads to larder, be it over
//! other proxies. Each would wait for the one before it, so they are refused at once.

use std::sync::Arc;

use http::Response;
use larder_core::{ErrorCode, Fault, FaultKind, Repository, Trail};

use crate::backend::Backend;
use crate::body::ResponseBody;
use crate::exchange::{Exchange, Handled};
use crate::metrics::RequestKind;
use crate::oci;
use crate::problem::{self, Audience};
use crate::routes::{Endpoint, Found, find};
use crate::state::Shared;

impl Shared {
    /// Whether a request has passed this larder before. Without `Via` that costs one look.
    pub(crate) fn has_seen(&self, headers: &http::HeaderMap) -> bool {
        headers.contains_key(http::header::VIA) && Trail::of(headers).is_loop(self.pseudonym)
    }
}

/// 508 (RFC 5842 section 7.2), in the shape that the path's clients read.
pub(crate) fn refuse<B: Backend>(exchange: &Exchange<'_, B>) -> Handled {
    let (name, is_oci) = addressed(exchange);
    let repository = name
        .as_deref()
        .and_then(|name| exchange.backend.repository(name));
    let audience = if is_oci {
        Audience::Oci
    } else {
        Audience::Repository(repository.as_deref())
    };
    let known = repository
        .as_ref()
        .map_or("", |repository| repository.name.as_str());
    let message = match known {
        "" => {
            "this request was sent by this larder itself: an upstream of one of its repositories leads back to it; correct that \
               repository's base_url"
                .to_owned()
        }
        name => format!(
            "this request for repository {name} was sent by this larder itself: the upstream of {name}, or of a repository that leads to \
             it, leads back here; correct its base_url"
        ),
    };
    let mut fault =
        Fault::new(FaultKind::LoopDetected, ErrorCode::LoopDetected, message).by_rule("via");
    if let Some(repository) = &repository {
        fault = fault.in_repository(&repository.name);
    }
    exchange.shared.metrics.repository(known).count_loop();
    let response: Response<ResponseBody> = problem::response(&**exchange.backend, &fault, audience);
    Handled {
        response,
        kind: RequestKind::Refused,
        repository,
    }
}

/// The configured repository that a request names.
pub(crate) fn repository_of<B: Backend>(exchange: &Exchange<'_, B>) -> Option<Arc<Repository>> {
    addressed(exchange)
        .0
        .and_then(|name| exchange.backend.repository(&name))
}

/// The repository that a request names, and whether its clients are those of a container registry.
fn addressed<B: Backend>(exchange: &Exchange<'_, B>) -> (Option<String>, bool) {
    match find(&exchange.head.method, exchange.head.uri.path()) {
        Found::Endpoint {
            endpoint: Endpoint::Oci,
            rest,
            ..
        } => (oci::repository_of(exchange, rest), true),
        Found::Endpoint {
            endpoint,
            repository,
            ..
        } => (Some(repository.to_owned()), endpoint == Endpoint::OciAlias),
        Found::OtherMethods(_) | Found::Nothing => {
            (None, exchange.head.uri.path().starts_with("/v2/"))
        }
    }
}
