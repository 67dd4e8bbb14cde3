//! Container registries: the pull side of the OCI distribution specification, as a remote repository (docs/reference/protocols/oci.md).
//!
//! | file | knows |
//! |---|---|
//! | `path` | names, tags, digests, and what a path asks for |
//! | `accept` | which kinds of manifest a client takes, and the classes that tags are kept in |
//! | `request` | from a request to a source |
//! | `manifest` | what a manifest must look like before it is kept |
//! | `pages` | how lists go on |
//! | `signed` | what the digest of a signed manifest is of |
//! | `answer` | the header fields that clients rely on |
//! | `error` | the bodies of errors |
//!
//! Pushing, and answering for referrers of larder's own, are not known here.

mod accept;
mod answer;
mod error;
mod manifest;
mod pages;
mod path;
mod request;
mod signed;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use http::HeaderMap;
use larder_core::{BuiltIn, Digest, ErrorCode, Fault, Repository};

use crate::{
    Claim, Derived, Document, ErrorBody, Format, Held, Links, Malformed, Meter, Operation, Refusal,
    RequestParts, SourceSpec,
};
use path::{Route, Target};

/// Docker and OCI registries.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Oci;

impl Format for Oci {
    fn operation(&self, request: &RequestParts<'_>) -> Operation {
        request::operation(request)
    }

    fn built_in(&self, _repository: &Repository, path: &str) -> BuiltIn {
        match Route::parse(path) {
            Ok(route) if route.is_mutable() => BuiltIn::Mutable,
            _ => BuiltIn::None,
        }
    }

    fn subject<'p>(&self, _path: &'p str) -> Option<&'p str> {
        None
    }

    fn named_by(&self, _repository: &Repository, _path: &str) -> Option<SourceSpec> {
        None
    }

    fn check(
        &self,
        _repository: &Repository,
        document: &Document<'_>,
        meter: &Meter,
    ) -> Result<(), Malformed> {
        match Route::parse(document.key_path).map(|route| route.target) {
            Ok(Target::Tag(_) | Target::Manifest(_) | Target::Referrers(_)) => {
                manifest::check_manifest(document.body, document.content_type)
            }
            Ok(Target::Tags) => manifest::check_tags(document.body, meter),
            // Layers are opaque.
            Ok(Target::Blob(_)) | Err(_) => Ok(()),
        }
    }

    fn check_limit(&self, path: &str) -> Option<u64> {
        match Route::parse(path).ok()?.target {
            Target::Tag(_) | Target::Manifest(_) | Target::Referrers(_) => {
                Some(manifest::MAX_MANIFEST)
            }
            Target::Tags => Some(manifest::MAX_TAGS),
            Target::Blob(_) => None,
        }
    }

    fn digest_in_name(&self, path: &str) -> Option<Digest> {
        Route::parse(path).ok()?.digest().cloned()
    }

    fn digest_in_head(&self, path: &str, headers: &HeaderMap) -> Option<Digest> {
        match Route::parse(path).ok()?.target {
            Target::Tag(_) => answer::stated_digest(headers),
            _ => None,
        }
    }

    fn by_digest(
        &self,
        repository: &Repository,
        source: &SourceSpec,
        digest: &Digest,
    ) -> Option<SourceSpec> {
        let Route {
            name,
            target: Target::Tag(_),
        } = Route::parse(&source.key_path).ok()?
        else {
            return None;
        };
        let key_path = format!("{name}/manifests/{digest}");
        Some(SourceSpec {
            path: request::upstream_path(repository, &key_path),
            key_path,
            accept: Some(accept::Accepted::everything().field()),
            variant: "",
            ..source.clone()
        })
    }

    /// A tag's manifest, whatever else the client that brought it would have taken.
    fn stands_in(&self, source: &SourceSpec, _variant: &str, content_type: &str) -> bool {
        let is_tag = matches!(
            Route::parse(&source.key_path),
            Ok(Route {
                target: Target::Tag(_),
                ..
            })
        );
        let sent = content_type.split(';').next().unwrap_or_default().trim();
        is_tag
            && source.accept.is_some_and(|accept| {
                accept
                    .split(", ")
                    .any(|known| known.eq_ignore_ascii_case(sent))
            })
    }

    fn digested_part(&self, _path: &str, content_type: &str, body: &[u8]) -> Option<Vec<u8>> {
        signed::payload(content_type, body)
    }

    fn query_in_key<'q>(&self, query: &'q str) -> Cow<'q, str> {
        pages::in_key(query)
    }

    /// Clients ask for a tag made of the digest where there is no list of referrers, and only a 404 says that there is none.
    fn is_missing(&self, path: &str, status: u16) -> bool {
        let is_referrers = matches!(
            Route::parse(path),
            Ok(Route {
                target: Target::Referrers(_),
                ..
            })
        );
        is_referrers && matches!(status, 400 | 405 | 406 | 501)
    }

    fn refused_to_anybody(&self, repository: &Repository, path: &str) -> Option<Refusal> {
        request::refused_to_anybody(repository, path)
    }

    fn kept_headers(&self) -> &'static [&'static str] {
        answer::KEPT
    }

    fn answer_headers(&self, repository: &Repository, held: &Held<'_>) -> HeaderMap {
        Route::parse(held.path)
            .map(|route| answer::headers(repository, &route, held))
            .unwrap_or_default()
    }

    fn missing_code(&self, path: &str) -> ErrorCode {
        match Route::parse(path).map(|route| route.target) {
            Ok(Target::Tag(_) | Target::Manifest(_) | Target::Referrers(_)) => {
                ErrorCode::ManifestUnknown
            }
            Ok(Target::Blob(_)) => ErrorCode::BlobUnknown,
            Ok(Target::Tags) | Err(_) => ErrorCode::NameUnknown,
        }
    }

    fn claims(
        &self,
        _document: &Document<'_>,
        _links: &Links<'_>,
        _sink: &mut dyn FnMut(Claim),
    ) -> Result<(), Malformed> {
        Ok(())
    }

    fn derive(
        &self,
        _document: &Document<'_>,
        form: &'static str,
        _links: &Links<'_>,
    ) -> Result<Derived, Malformed> {
        Err(Malformed(format!(
            "what a registry holds has no form {form:?}"
        )))
    }

    fn varies_by(&self, path: &str) -> &'static [&'static str] {
        match Route::parse(path).map(|route| route.target) {
            Ok(Target::Tag(_)) => &["accept"],
            _ => &[],
        }
    }

    fn absolute_links(&self) -> bool {
        false
    }

    fn rewriter_version(&self) -> u32 {
        1
    }

    fn error_body(&self, fault: &Fault) -> ErrorBody {
        error::body(fault)
    }
}
