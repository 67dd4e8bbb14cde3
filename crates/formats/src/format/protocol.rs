//! What a format's servers and clients say to each other beside what HTTP has them say.

use std::borrow::Cow;

use http::HeaderMap;
use larder_core::{Digest, ErrorCode, Fault, Repository, StoredHeaders};

use crate::{LinkKey, PathFacts, Refusal, SourceSpec};

/// Something on its way to a client, as it is held or as the upstream's head describes it.
#[derive(Debug, Clone, Copy)]
pub struct Held<'a> {
    /// Decoded path within the repository.
    pub path: &'a str,
    /// The query with which the upstream was asked.
    pub query: Option<&'a str>,
    /// What that path is.
    pub facts: &'a PathFacts,
    /// The digest of the bytes: computed, or (where only the head is known) as the upstream states it. `None` while they arrive.
    pub digest: Option<&'a Digest>,
    /// What was kept of the upstream's head.
    pub headers: &'a StoredHeaders,
    /// Signs what clients are given to bring back unchanged.
    pub key: &'a LinkKey,
}

/// An error body in the shape that a format's clients print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorBody {
    /// `Content-Type`.
    pub content_type: &'static str,
    /// Body.
    pub body: Vec<u8>,
}

/// What a format adds to HTTP. All functions are pure. The defaults are those of a plain file server.
pub trait Protocol: Send + Sync + std::fmt::Debug {
    /// A query as it stands in keys, and so in logs.
    fn query_in_key<'q>(&self, query: &'q str) -> Cow<'q, str> {
        Cow::Borrowed(query)
    }

    /// The digest that the head of an upstream's answer states of the body at a path with these facts (an OCI manifest's). It is a claim
    /// like any other: a body that differs is not kept.
    fn digest_in_head(&self, _facts: &PathFacts, _headers: &HeaderMap) -> Option<Digest> {
        None
    }

    /// The source that names the same bytes by their digest (an OCI tag's manifest): it is kept along with `source`, and its bytes
    /// are taken where the upstream says that `source` has that digest now. Only asked where the
    /// [facts](PathFacts::has_name_by_digest) say that there is one.
    fn by_digest(&self, _source: &SourceSpec, _digest: &Digest) -> Option<SourceSpec> {
        None
    }

    /// The part of a body that its digest is of, where that is not all of it (a signed manifest's payload).
    fn digested_part(&self, _path: &str, _content_type: &str, _body: &[u8]) -> Option<Vec<u8>> {
        None
    }

    /// Whether what is held of the same path under another `variant`, with this `Content-Type`, is among what `source` asks for: it will
    /// do where the upstream cannot be asked.
    fn stands_in(&self, _source: &SourceSpec, _variant: &str, _content_type: &str) -> bool {
        false
    }

    /// What whoever gets the variant of this name asks for in the place of `source`; `None` if it has no such one.
    fn in_variant(&self, _source: &SourceSpec, _variant: &str) -> Option<SourceSpec> {
        None
    }

    /// The `Accept` with which a document is asked for once more where the upstream answered this status to its own: some servers have
    /// nothing for those who mention a media type that they do not know. What has another one at all has one for 406.
    fn accept_otherwise(&self, _source: &SourceSpec, _status: u16) -> Option<&'static str> {
        None
    }

    /// What clients are told where the upstream wants a login and the repository has none; `None`: that it is the operator's mistake.
    fn refused_to_anybody(&self, _repository: &Repository, _path: &str) -> Option<Refusal> {
        None
    }

    /// Fields of an answer that this format's clients rely on. A `Content-Type` among them takes the place of the upstream's.
    fn answer_headers(&self, _repository: &Repository, _held: &Held<'_>) -> HeaderMap {
        HeaderMap::new()
    }

    /// The query with which a client asks for the next page of a list that it has got; `None` if it has got all of it.
    fn next_page(&self, _repository: &Repository, _held: &Held<'_>) -> Option<String> {
        None
    }

    /// Whether the upstream says that a list goes on, in a way in which clients cannot be led to the rest of it.
    fn ends_early(&self, _repository: &Repository, _held: &Held<'_>) -> bool {
        false
    }

    /// The error body for this format's clients; the default is `{"error": "message", "code", "repository", "rule"}`.
    fn error_body(&self, fault: &Fault) -> ErrorBody {
        standard_error_body(fault)
    }
}

/// `{"error": "message", "code", "repository", "rule"}` (contract, section 1): `error` is a string, for npm prints it wherever it lands.
pub fn standard_error_body(fault: &Fault) -> ErrorBody {
    #[derive(serde::Serialize)]
    struct Body<'a> {
        error: &'a str,
        code: ErrorCode,
        repository: Option<&'a str>,
        rule: Option<&'a str>,
    }
    let body = Body {
        error: &fault.message,
        code: fault.code,
        repository: fault.repository.as_deref(),
        rule: fault.rule.as_deref(),
    };
    ErrorBody {
        content_type: "application/json",
        body: serde_json::to_vec(&body).unwrap_or_default(),
    }
}
