//! What a request asks for, in format-free terms. Formats produce it, the engine acts on it.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, Method};
use larder_core::{ArtifactPath, ErrorCode, Repository};
use url::Url;

use crate::PathFacts;
use crate::links::LinkKey;

/// A request as a format sees it.
#[derive(Debug, Clone, Copy)]
pub struct RequestParts<'a> {
    /// The repository addressed.
    pub repository: &'a Repository,
    /// Method: GET, HEAD, or POST for pass-through endpoints.
    pub method: &'a Method,
    /// Path within the repository.
    pub path: &'a ArtifactPath,
    /// Raw query, without `?`.
    pub query: Option<&'a str>,
    /// All request headers. Only what a format needs for negotiation may be read.
    pub headers: &'a HeaderMap,
    /// Signs what clients are given to bring back unchanged.
    pub key: &'a LinkKey,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// An artifact or document, through the cache.
    Read(Read),
    /// Another spelling of the path: answer 301 with this location, relative to the repository's root, percent-encoded, query included.
    Redirect(String),
    /// Answered by larder itself (npm ping).
    Answer(StaticAnswer),
    /// Sent to the upstream and back without the cache, body and all (npm audit).
    PassThrough(PassThrough),
    /// Not offered on this kind of repository.
    Refuse(Refusal),
}

/// A read through the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Where the bytes come from and under which key they are remembered.
    pub source: SourceSpec,
    /// What its path is.
    pub facts: PathFacts,
    /// What the client gets: the stored bytes as they are, or a derivation.
    pub form: Form,
    /// Upstream statuses of a miss are passed on unchanged; this asks for a live document that bypasses the copy (npm `?write=true`).
    pub bypass_cache: bool,
}

/// Names an upstream document or file. Two requests with equal `key_path` and `variant` share one download and one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSpec {
    /// Which root `path` is relative to.
    pub base: SourceBase,
    /// Percent-encoded path below the root, as it is sent upstream.
    pub path: String,
    /// Raw query sent upstream; part of the key.
    pub query: Option<String>,
    /// Decoded path within the repository: what patterns are matched against and records are named by.
    pub key_path: String,
    /// Value of the `Accept` header sent upstream; `None` = `*/*`.
    pub accept: Option<&'static str>,
    /// Distinguishes negotiated upstream forms under one path; empty where there is one.
    pub variant: &'static str,
    /// A document that is checked, and from which claims and derivations are made (never a plain file).
    pub is_document: bool,
}

/// The root of a source's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceBase {
    /// `base_url`.
    Files,
    /// pypi: the parent of the simple root (`index_url` without its last segment). Equal to `Files` elsewhere.
    Index,
    /// docker: the root of the API, `v2/` below `base_url` unless that holds it already.
    Registry,
    /// A link to another host, already verified by its mac; `path` and `query` are then unused.
    External(Box<Url>),
}

impl SourceBase {
    /// This root below one of an upstream's addresses.
    pub fn below<'u>(&self, base_url: &'u Url) -> Cow<'u, Url> {
        match self {
            Self::Registry => crate::oci::api_root(base_url),
            Self::Files | Self::Index | Self::External(_) => Cow::Borrowed(base_url),
        }
    }
}

/// The representation of a source that a client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// The stored bytes.
    Verbatim,
    /// A derivation, by the format's own name for it (`simple+json`, `simple+html`, `packument`, `abbreviated`, `index`).
    /// The name is part of the derivation's key.
    Derived(&'static str),
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticAnswer {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// Body.
    pub body: Bytes,
}

/// A request that goes to the upstream uncached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassThrough {
    /// Which root `path` is relative to.
    pub base: SourceBase,
    /// Percent-encoded path below the root.
    pub path: String,
    /// Raw query.
    pub query: Option<String>,
    /// Names of request headers that travel along (lower case), such as `content-type`, `content-encoding`.
    pub request_headers: &'static [&'static str],
    /// Names of response headers that travel back (lower case).
    pub response_headers: &'static [&'static str],
    /// Largest request body, in bytes.
    pub max_body: u64,
}

/// Why a format refuses a request without asking anyone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status, 4xx.
    pub status: u16,
    /// Stable word for the error body.
    pub code: ErrorCode,
    /// For the user.
    pub message: String,
}
