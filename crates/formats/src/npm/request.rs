//! From a request to what the engine shall do: sources, forms, answers and refusals.

use bytes::Bytes;
use http::Method;
use larder_core::ErrorCode;

use super::accept;
use super::path::{Route, Unroutable};
use crate::{
    Form, Operation, PassThrough, Read, Refusal, RequestParts, SourceBase, SourceSpec, StaticAnswer,
};

/// Variants of a source: which of the upstream's documents it is.
pub(super) const FULL: &str = "full";
pub(super) const ABBREVIATED: &str = "abbreviated";
pub(super) const VERSION: &str = "version";

/// Forms that are derived.
pub(super) const FORM_PACKUMENT: &str = "packument";
pub(super) const FORM_VERSION: &str = "version";

const ACCEPT_JSON: &str = "application/json";
/// What npm itself sends; registries without the abbreviated form then answer with the full one.
const ACCEPT_ABBREVIATED: &str =
    "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*";
/// Largest audit request: a lock file's worth of names and versions, compressed.
const MAX_AUDIT_BODY: u64 = 10 << 20;
/// Largest page of search results that is asked for upstream (hazard S16).
const MAX_SEARCH_SIZE: u32 = 1000;
/// The parameters of a search, in the order in which they are part of the key.
const SEARCH_PARAMETERS: [&str; 6] = [
    "text",
    "size",
    "from",
    "quality",
    "popularity",
    "maintenance",
];

/// Parses a request to a remote repository.
pub(super) fn operation(request: &RequestParts<'_>) -> Operation {
    let is_read = matches!(*request.method, Method::GET | Method::HEAD);
    if !is_read && request.method != Method::POST {
        return refuse_method();
    }
    let route = match Route::parse(request.path.as_str()) {
        Ok(route) => route,
        Err(reason) => return refuse_path(reason),
    };
    match route {
        Route::Account => refuse(
            401,
            ErrorCode::Unauthorized,
            "This repository is a cache without accounts: there is no user and no token to tell about.",
        ),
        Route::Login => refuse(
            404,
            ErrorCode::NotFound,
            "This repository is a cache without accounts: installing needs no login.",
        ),
        Route::Audit if !is_read => audit(request.path.as_str()),
        Route::Audit => refuse_method(),
        _ if !is_read => refuse_method(),
        Route::Ping => Operation::Answer(StaticAnswer {
            status: 200,
            content_type: "application/json",
            body: Bytes::from_static(b"{}"),
        }),
        _ => read(request, route),
    }
}

/// A GET of what is cached.
fn read(request: &RequestParts<'_>, route: Route<'_>) -> Operation {
    let (source, form) = match route {
        Route::Packument(_) => (
            packument(route, accept::prefers_abbreviated(request.headers)),
            Form::Derived(FORM_PACKUMENT),
        ),
        Route::Manifest(..) => (
            source(route, Some(ACCEPT_JSON), VERSION),
            Form::Derived(FORM_VERSION),
        ),
        Route::Tarball(..) => (
            SourceSpec {
                is_document: false,
                ..source(route, None, "")
            },
            Form::Verbatim,
        ),
        Route::Search => (
            SourceSpec {
                query: search_query(request.query),
                ..source(route, Some(ACCEPT_JSON), "")
            },
            Form::Verbatim,
        ),
        _ => (source(route, Some(ACCEPT_JSON), ""), Form::Verbatim),
    };
    Operation::Read(Read {
        facts: super::facts(Some(route), &source.key_path),
        bypass_cache: source.is_document && asks_for_the_live_document(request.query),
        source,
        form,
    })
}

/// A packument as a source.
pub(super) fn packument(route: Route<'_>, abbreviated: bool) -> SourceSpec {
    let (accept, variant) = if abbreviated {
        (ACCEPT_ABBREVIATED, ABBREVIATED)
    } else {
        (ACCEPT_JSON, FULL)
    };
    source(route, Some(accept), variant)
}

/// The form of a packument of this name, with the `Accept` that it is asked for with.
pub(super) fn form(variant: &str) -> Option<(&'static str, &'static str)> {
    let forms = [(ACCEPT_ABBREVIATED, ABBREVIATED), (ACCEPT_JSON, FULL)];
    forms.into_iter().find(|(_, known)| *known == variant)
}

fn source(route: Route<'_>, accept: Option<&'static str>, variant: &'static str) -> SourceSpec {
    SourceSpec {
        base: SourceBase::Files,
        path: route.upstream_path(),
        query: None,
        key_path: route.key_path(),
        accept,
        variant,
        is_document: true,
    }
}

fn audit(path: &str) -> Operation {
    Operation::PassThrough(PassThrough {
        base: SourceBase::Files,
        path: path.trim_end_matches('/').to_owned(),
        query: None,
        request_headers: &["content-type", "content-encoding"],
        response_headers: &["content-type", "content-encoding"],
        max_body: MAX_AUDIT_BODY,
    })
}

/// `?write=true`: someone is about to change what they read (docs/reference/protocols/npm.md, section 4).
fn asks_for_the_live_document(query: Option<&str>) -> bool {
    parameters(query).any(|(name, value)| name == "write" && value == "true")
}

/// The search parameters that npm names, the first of each, in a fixed order; `None` if there is none.
fn search_query(query: Option<&str>) -> Option<String> {
    let mut kept = String::new();
    for name in SEARCH_PARAMETERS {
        let Some((_, value)) = parameters(query).find(|(other, _)| *other == name) else {
            continue;
        };
        let too_large = |size: &str| {
            !size.is_empty()
                && size.bytes().all(|b| b.is_ascii_digit())
                && size.parse().map_or(true, |n: u32| n > MAX_SEARCH_SIZE)
        };
        if !kept.is_empty() {
            kept.push('&');
        }
        kept.push_str(name);
        kept.push('=');
        if name == "size" && too_large(value) {
            kept.push_str(&MAX_SEARCH_SIZE.to_string());
        } else {
            kept.push_str(value);
        }
    }
    (!kept.is_empty()).then_some(kept)
}

fn parameters(query: Option<&str>) -> impl Iterator<Item = (&str, &str)> {
    query
        .unwrap_or_default()
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn refuse_method() -> Operation {
    refuse(
        405,
        ErrorCode::MethodNotAllowed,
        "This repository is a read-only copy of a registry: publish to the registry itself.",
    )
}

fn refuse_path(reason: Unroutable) -> Operation {
    match reason {
        Unroutable::Name => refuse(
            400,
            ErrorCode::BadPackageName,
            "This is no package name: at most 214 of A-Z a-z 0-9 - _ . ! ~ * ' ( ), one optional @scope/ in front, and no leading dot or underscore.",
        ),
        Unroutable::Version => refuse(400, ErrorCode::BadVersion, "This is no version or tag."),
        Unroutable::File => refuse(
            404,
            ErrorCode::NotFound,
            "This package has no such file: its tarballs are {package}/-/{name}-{version}.tgz, the name being without its scope.",
        ),
        Unroutable::Endpoint => refuse(
            404,
            ErrorCode::NotFound,
            "A remote npm repository does not offer this path.",
        ),
    }
}

fn refuse(status: u16, code: ErrorCode, message: &str) -> Operation {
    Operation::Refuse(Refusal {
        status,
        code,
        message: message.to_owned(),
    })
}

#[cfg(test)]
mod tests;
