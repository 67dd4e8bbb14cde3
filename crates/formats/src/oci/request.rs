//! From a request below `/v2/{repository}/` to what the engine shall do.

use std::borrow::Cow;

use bytes::Bytes;
use http::Method;
use larder_core::{ErrorCode, Repository, shown};
use url::Url;

use super::accept::Accepted;
use super::pages::{List, REFERRER_PARAMETERS, TAG_PARAMETERS};
use super::path::{Route, Target, Unroutable};
use crate::{Form, Operation, Read, Refusal, RequestParts, SourceBase, SourceSpec, StaticAnswer};

/// What a list of referrers is.
const REFERRERS: &str = "application/vnd.oci.image.index.v1+json";

/// Parses a request to a remote repository.
pub(super) fn operation(request: &RequestParts<'_>) -> Operation {
    if !matches!(*request.method, Method::GET | Method::HEAD) {
        return read_only(request.repository);
    }
    if request.path.is_root() {
        // Some clients ask whether a registry is there below the address that they were given.
        return Operation::Answer(StaticAnswer {
            status: 200,
            content_type: "application/json",
            body: Bytes::from_static(b"{}"),
        });
    }
    match Route::parse(request.path.as_str()) {
        Ok(route) => Operation::Read(Read {
            source: source(request, &route),
            facts: super::facts(route),
            form: Form::Verbatim,
            bypass_cache: false,
        }),
        Err(why) => Operation::Refuse(refusal(why, request.path.as_str())),
    }
}

fn source(request: &RequestParts<'_>, route: &Route<'_>) -> SourceSpec {
    let accepted = Accepted::of(request.headers);
    let (accept, variant, parameters): (_, _, &'static [&'static str]) = match &route.target {
        Target::Tag(_) => (Some(accepted.field()), accepted.class(), &[]),
        // What a digest names is the same for everyone, so it is asked for on behalf of everyone.
        Target::Manifest(_) => (Some(Accepted::everything().field()), "", &[]),
        Target::Referrers(_) => (Some(REFERRERS), "", REFERRER_PARAMETERS),
        Target::Tags => (Some("application/json"), "", TAG_PARAMETERS),
        Target::Blob(_) => (None, "", &[]),
    };
    let key_path = full_path(request.repository, request.path.as_str(), route);
    let list = List {
        repository: request.repository,
        key: request.key,
        path: &key_path,
        known: parameters,
    };
    SourceSpec {
        base: SourceBase::Registry,
        // The grammar has no character that would have to be encoded.
        path: key_path.to_string(),
        query: request.query.and_then(|query| list.query(query)),
        key_path: key_path.into_owned(),
        accept,
        variant,
        is_document: false,
    }
}

/// The path with the namespace that short names have on the public hub.
fn full_path<'p>(repository: &Repository, path: &'p str, route: &Route<'_>) -> Cow<'p, str> {
    let namespace = repository
        .upstream()
        .and_then(|upstream| upstream.default_namespace.as_deref());
    match namespace {
        Some(namespace) if !route.name.contains('/') => Cow::Owned(format!("{namespace}/{path}")),
        _ => Cow::Borrowed(path),
    }
}

/// Below an address of a registry its API begins with `v2/`; one that holds that already names a part of the registry.
pub(crate) fn api_root(base_url: &Url) -> Cow<'_, Url> {
    let path = base_url.path();
    if path.starts_with("/v2/") || path.ends_with("/v2/") {
        return Cow::Borrowed(base_url);
    }
    base_url
        .join("v2/")
        .map_or(Cow::Borrowed(base_url), Cow::Owned)
}

fn read_only(repository: &Repository) -> Operation {
    let message = format!(
        "{} pulls from another registry: images cannot be pushed to it",
        repository.name
    );
    Operation::Refuse(Refusal {
        status: 405,
        code: ErrorCode::ReadOnly,
        message,
    })
}

fn refusal(why: Unroutable, path: &str) -> Refusal {
    let path = &*shown(path);
    let (status, code, message) = match why {
        Unroutable::Shape => (
            404,
            ErrorCode::NameUnknown,
            format!(
                "{path:?} is nothing that a registry has: NAME/manifests/REFERENCE, NAME/blobs/DIGEST, NAME/tags/list or NAME/referrers/DIGEST"
            ),
        ),
        Unroutable::Name => (
            400,
            ErrorCode::NameInvalid,
            format!(
                "{path:?} holds no name of an image: lower-case letters, digits, and . _ - between them"
            ),
        ),
        Unroutable::Tag => (
            400,
            ErrorCode::ManifestInvalid,
            format!("{path:?} does not end in a tag or digest"),
        ),
        Unroutable::Digest => (
            400,
            ErrorCode::DigestInvalid,
            format!(
                "{path:?} does not end in a digest: sha256: with 64 or sha512: with 128 hexadecimal digits, lower case"
            ),
        ),
    };
    Refusal {
        status,
        code,
        message,
    }
}

/// Without a login, a registry does not tell what is private from what is not there, and neither can larder.
pub(super) fn refused_to_anybody(repository: &Repository, path: &str) -> Option<Refusal> {
    let upstream = repository.upstream()?;
    let own = upstream
        .headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    if own || upstream.credentials.is_some() {
        return None;
    }
    let name = Route::parse(path).map_or(path, |route| route.name);
    let message = format!(
        "the registry of repository {} does not give {name} to anybody: the image is absent or private; if it is private, set username \
         and password of repository {}",
        repository.name, repository.name
    );
    Some(Refusal {
        status: 404,
        code: ErrorCode::NameUnknown,
        message,
    })
}
