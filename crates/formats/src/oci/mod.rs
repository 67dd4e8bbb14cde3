//! Container registries: the pull side of the OCI distribution specification, as a remote repository (docs/reference/protocols/oci.md).
//!
//! | file | knows |
//! |---|---|
//! | `path` | names, tags, digests, and what a path asks for |
//! | `accept` | which kinds of manifest a client takes, and the classes that tags are kept in |
//! | `request` | from a request to a source |
//! | `manifest` | what a manifest must look like before it is kept |
//! | `named` | what a manifest, an index or a list of tags names |
//! | `pages` | how lists go on |
//! | `signed` | what the digest of a signed manifest is of |
//! | `answer` | the header fields that clients rely on |
//! | `error` | the bodies of errors |
//!
//! Pushing, and answering for referrers of larder's own, are not known here.

mod accept;
mod answer;
mod browsed;
mod error;
mod manifest;
mod named;
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
    Claim, Document, DocumentFormat, ErrorBody, Format, Held, Links, Malformed, Meter, Offering,
    Operation, PathFacts, Profile, Protocol, Refusal, RequestParts, SourceSpec,
};
use path::{Route, Target};
pub(crate) use request::api_root;

/// Docker and OCI registries.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Oci;

impl Format for Oci {
    fn operation(&self, request: &RequestParts<'_>) -> Operation {
        request::operation(request)
    }

    fn facts(&self, _repository: &Repository, path: &str) -> PathFacts {
        Route::parse(path).map_or_else(
            |_| PathFacts {
                missing_code: ErrorCode::NameUnknown,
                ..PathFacts::default()
            },
            facts,
        )
    }

    fn profile(&self) -> &'static Profile {
        const PROFILE: Profile = Profile {
            kept_headers: answer::KEPT,
            ..Profile::PLAIN
        };
        &PROFILE
    }
}

/// What a path with this route is.
fn facts(route: Route<'_>) -> PathFacts {
    let manifest = PathFacts {
        check_limit: Some(manifest::MAX_MANIFEST),
        missing_code: ErrorCode::ManifestUnknown,
        ..PathFacts::default()
    };
    match route.target {
        Target::Tag(_) => PathFacts {
            built_in: BuiltIn::Mutable,
            vary: &["accept"],
            has_name_by_digest: true,
            ..manifest
        },
        Target::Manifest(digest) => PathFacts {
            digest: Some(digest),
            ..manifest
        },
        // Clients ask for a tag made of the digest where there is no list of referrers, and only a 404 says that there is none.
        // The digest is that of its subject.
        Target::Referrers(_) => PathFacts {
            built_in: BuiltIn::Mutable,
            missing_statuses: &[400, 405, 406, 501],
            ..manifest
        },
        Target::Blob(digest) => PathFacts {
            digest: Some(digest),
            missing_code: ErrorCode::BlobUnknown,
            ..PathFacts::default()
        },
        Target::Tags => PathFacts {
            built_in: BuiltIn::Mutable,
            check_limit: Some(manifest::MAX_TAGS),
            missing_code: ErrorCode::NameUnknown,
            ..PathFacts::default()
        },
    }
}

impl DocumentFormat for Oci {
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

    fn claims(
        &self,
        document: &Document<'_>,
        links: &Links<'_>,
        sink: &mut dyn FnMut(Claim),
    ) -> Result<(), Malformed> {
        links.begin(document.body.len());
        match Route::parse(document.key_path) {
            Ok(Route {
                name,
                target: Target::Tag(_) | Target::Manifest(_) | Target::Referrers(_),
            }) => named::by_manifest(document.body, name, links, sink),
            Ok(Route {
                name,
                target: Target::Tags,
            }) => named::by_tags(document.body, name, links, sink),
            Ok(_) | Err(_) => Ok(()),
        }?;
        links.end()
    }

    fn offering(&self, _repository: &Repository, name: Option<&str>) -> Offering {
        let Some(name) = name else {
            return Offering::Unnamed("an image");
        };
        let path = format!("{name}/tags/list");
        if !matches!(Route::parse(&path), Ok(route) if route.target == Target::Tags) {
            return Offering::Misnamed("an image");
        }
        Offering::at(path)
    }

    fn needs_what_it_names(&self, path: &str) -> bool {
        let route = Route::parse(path);
        route.is_ok_and(|route| matches!(route.target, Target::Tag(_) | Target::Manifest(_)))
    }
}

impl Protocol for Oci {
    fn next_page(&self, repository: &Repository, held: &Held<'_>) -> Option<String> {
        answer::next_page(repository, held)
    }

    fn ends_early(&self, repository: &Repository, held: &Held<'_>) -> bool {
        answer::ends_early(repository, held)
    }

    fn query_in_key<'q>(&self, query: &'q str) -> Cow<'q, str> {
        pages::in_key(query)
    }

    fn digest_in_head(&self, facts: &PathFacts, headers: &HeaderMap) -> Option<Digest> {
        facts
            .has_name_by_digest
            .then(|| answer::stated_digest(headers))?
    }

    fn by_digest(&self, source: &SourceSpec, digest: &Digest) -> Option<SourceSpec> {
        let Route {
            name,
            target: Target::Tag(_),
        } = Route::parse(&source.key_path).ok()?
        else {
            return None;
        };
        let key_path = format!("{name}/manifests/{digest}");
        Some(SourceSpec {
            path: key_path.clone(),
            key_path,
            accept: Some(accept::Accepted::everything().field()),
            variant: "",
            ..source.clone()
        })
    }

    fn digested_part(&self, _path: &str, content_type: &str, body: &[u8]) -> Option<Vec<u8>> {
        signed::payload(content_type, body)
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

    fn in_variant(&self, source: &SourceSpec, variant: &str) -> Option<SourceSpec> {
        let is_negotiated = !source.variant.is_empty() && !variant.is_empty();
        let accepted = accept::Accepted::of_class(variant).filter(|_| is_negotiated)?;
        Some(SourceSpec {
            accept: Some(accepted.field()),
            variant: accepted.class(),
            ..source.clone()
        })
    }

    fn refused_to_anybody(&self, repository: &Repository, path: &str) -> Option<Refusal> {
        request::refused_to_anybody(repository, path)
    }

    fn answer_headers(&self, repository: &Repository, held: &Held<'_>) -> HeaderMap {
        answer::headers(repository, held)
    }

    fn error_body(&self, fault: &Fault) -> ErrorBody {
        error::body(fault)
    }
}
