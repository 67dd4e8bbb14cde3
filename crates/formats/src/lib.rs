//! Knowledge of each package format: pure functions over bytes. No I/O, no cache, no control flow.
//!
//! To add a format: a folder with an implementation of [`Format`], and a line in [`format_of`].
//! What a format says is acted on by the one pipeline in `larder-engine`; a format never serves anything itself.

mod alpine;
mod budget;
mod client_lines;
mod generic;
mod helm;
mod links;
mod merge;
mod npm;
mod oci;
mod operation;
mod pypi;
mod rpm;
mod splice;
#[cfg(test)]
mod testing;

use std::any::Any;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::OnceLock;

use http::HeaderMap;
use larder_core::{
    BuiltIn, Digest, ErrorCode, Fault, PackageType, Repository, StoredHeaders, UnixMillis,
};
use url::Url;

pub use budget::{Budget, Meter};
pub use client_lines::{ClientLines, client_lines, repository_url};
pub use links::{ExternalLink, LeftOut, LinkBase, LinkKey, Links, Mark};
pub use merge::{MergeFault, MergeMember, Merged};
pub use operation::{
    Form, Operation, PassThrough, Read, Refusal, RequestParts, SourceBase, SourceSpec, StaticAnswer,
};

/// A whole upstream document, on its way to be checked or derived from.
#[derive(Debug, Clone, Copy)]
pub struct Document<'a> {
    /// The bytes, without content coding.
    pub body: &'a [u8],
    /// The upstream's `Content-Type`, empty if it sent none.
    pub content_type: &'a str,
    /// Final URL after redirects: relative links are resolved against it.
    pub url: &'a Url,
    /// Decoded path within the repository.
    pub key_path: &'a str,
    /// The source's variant.
    pub variant: &'a str,
    /// Where a format may keep what it has found out about these bytes.
    pub memo: Option<&'a Memo>,
}

impl Document<'_> {
    /// What counts one reading of it, from now on and on this thread, within the usual budget.
    pub fn meter(&self) -> Meter {
        Meter::new(Budget::default(), self.body.len())
    }
}

/// What a format found out about one document when it read it: for the derivations from the same bytes, where it only ever saves
/// time, and for the operator.
#[derive(Default)]
pub struct Memo {
    found: OnceLock<Box<dyn Any + Send + Sync>>,
    remark: OnceLock<String>,
}

impl Memo {
    /// What was kept, if it is of this kind.
    fn get<T: Any>(&self) -> Option<&T> {
        self.found.get()?.downcast_ref()
    }

    /// Keeps something; the first one stays.
    fn keep<T: Any + Send + Sync>(&self, found: T) {
        let _ = self.found.set(Box::new(found));
    }

    /// Says something that the operator should know of the document; the first remark stays. It ends a sentence that begins with
    /// the document's name.
    fn remark(&self, text: String) {
        let _ = self.remark.set(text);
    }

    /// What the operator should know of the document.
    pub fn remarked(&self) -> Option<&str> {
        self.remark.get().map(String::as_str)
    }
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memo")
            .field("found", &self.found.get().is_some())
            .field("remark", &self.remark.get())
            .finish()
    }
}

/// What a document says of one file it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Decoded path within the repository under which clients ask for the file (`_ext/…` for other hosts).
    pub path: String,
    /// The file's true URL; empty if that is its own path below `base_url`.
    pub url: String,
    /// Stated digests; empty if none.
    pub digests: Vec<Digest>,
    /// What else the document names the bytes by, where that is no digest of the whole file: one of what [`Format::identifier`]
    /// computes.
    pub identity: Option<String>,
    /// Stated length.
    pub size: Option<u64>,
    /// Stated publish time.
    pub published_at: Option<UnixMillis>,
}

impl Claim {
    /// What it takes of memory, in bytes.
    pub fn weight(&self) -> usize {
        let texts = self.path.capacity()
            + self.url.capacity()
            + self.identity.as_ref().map_or(0, String::capacity);
        size_of::<Self>() + texts + self.digests.capacity() * size_of::<Digest>()
    }
}

/// Files that are only right together, such as an index and its signature: they are fetched, kept and exchanged as one
/// (docs/adr/0023).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The document that the others go with, and that names most of them.
    pub document: SourceSpec,
    /// Files that it does not name and that may be missing (`repomd.xml.asc`).
    pub companions: Vec<Companion>,
}

/// A file that goes with a document and that the document does not name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Companion {
    /// Where it is.
    pub source: SourceSpec,
    /// Whether it signs the document: then another document has another one, and does not come without if the one before had one.
    pub signs: bool,
}

/// The result of a derivation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derived {
    /// Whole body.
    pub body: Vec<u8>,
    /// `Content-Type`.
    pub content_type: &'static str,
}

/// Something on its way to a client, as it is held or as the upstream's head describes it.
#[derive(Debug, Clone, Copy)]
pub struct Held<'a> {
    /// Decoded path within the repository.
    pub path: &'a str,
    /// The digest of the bytes: computed, or (where only the head is known) as the upstream states it. `None` while they arrive.
    pub digest: Option<&'a Digest>,
    /// What was kept of the upstream's head.
    pub headers: &'a StoredHeaders,
    /// Signs what clients are given to bring back unchanged.
    pub key: &'a LinkKey,
}

/// Why a document cannot be used. The text goes to users: it says what was wrong, at which byte or field, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// An error body in the shape that a format's clients print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorBody {
    /// `Content-Type`.
    pub content_type: &'static str,
    /// Body.
    pub body: Vec<u8>,
}

/// Computes what a document names a file by, where that is no digest of the whole file. Gets every byte, in order.
pub trait Identifier: Send + std::fmt::Debug {
    /// Takes the next bytes.
    fn update(&mut self, bytes: &[u8]);

    /// The identities, each in the form in which a [`Claim::identity`] may state it; none if the bytes have none.
    fn finish(self: Box<Self>) -> Vec<String>;
}

/// What the engine needs to know of a format. All functions are pure.
pub trait Format: Send + Sync + std::fmt::Debug {
    /// Parses a request. Paths have passed [`larder_core::ArtifactPath::parse`]; `_ext/` paths never come here
    /// where documents [link elsewhere](Format::links_elsewhere).
    fn operation(&self, request: &RequestParts<'_>) -> Operation;

    /// What the format itself says about a decoded path (of a sidecar: of its subject).
    fn built_in(&self, repository: &Repository, path: &str) -> BuiltIn;

    /// The decoded path whose class, access and clearance a sidecar takes (`x.whl.metadata` -> `x.whl`); `None` if `path` is no sidecar.
    fn subject<'p>(&self, path: &'p str) -> Option<&'p str>;

    /// The document that names this file, with its digest and true URL; `None` if there is none.
    fn named_by(&self, repository: &Repository, path: &str) -> Option<SourceSpec>;

    /// The document to be fetched where the upstream does not have that of [`named_by`](Format::named_by).
    fn else_named_by(&self, _repository: &Repository, _path: &str) -> Option<SourceSpec> {
        None
    }

    /// As [`named_by`](Format::named_by), where a path alone does not tell which document names it: all that may, the likeliest
    /// first. Of these only documents that are held are asked; none is fetched for a file's sake.
    fn possibly_named_by(&self, _repository: &Repository, _path: &str) -> Vec<SourceSpec> {
        Vec::new()
    }

    /// The generation that a file belongs to (the document itself, too); `None` if it stands for itself.
    fn generation(&self, _path: &str) -> Option<Generation> {
        None
    }

    /// Whether a file that a generation's document names is to be there before clients see the generation.
    fn is_essential(&self, _path: &str) -> bool {
        false
    }

    /// The digest that a file's own name states of its bytes (an OCI blob's, an RPM repository's metadata's).
    fn digest_in_name(&self, _path: &str) -> Option<Digest> {
        None
    }

    /// Whether a file that a document names has [`claims`](Format::claims) of its own to make, of further files.
    fn names_files(&self, _path: &str) -> bool {
        false
    }

    /// A number that a newer state of the document never has lower than an older one; `None` if it states none.
    fn revision(&self, _document: &Document<'_>) -> Option<u64> {
        None
    }

    /// Every source variant under which a document of this format may be held, the cheapest first.
    fn document_variants(&self) -> &'static [&'static str] {
        &[""]
    }

    /// Whether a document is what it should be. Called once per new upstream document, before it is committed; must
    /// be cheap (hundreds of MB/s), bounded in memory and depth, and refuse whatever [`derive`](Format::derive) or [`claims`](Format::claims) would refuse.
    /// What it takes is counted on `meter`.
    fn check(
        &self,
        repository: &Repository,
        document: &Document<'_>,
        meter: &Meter,
    ) -> Result<(), Malformed>;

    /// For files that are not documents: if `Some`, the whole body, at most this many bytes, is put to [`check`](Format::check) before it
    /// is kept.
    fn check_limit(&self, _path: &str) -> Option<u64> {
        None
    }

    /// The digest that the head of an upstream's answer states of its body (an OCI manifest's). It is a claim like any other: a body
    /// that differs is not kept.
    fn digest_in_head(&self, _path: &str, _headers: &HeaderMap) -> Option<Digest> {
        None
    }

    /// The source that names the same bytes by their digest (an OCI tag's manifest): it is kept along with `source`, and its bytes
    /// are taken where the upstream says that `source` has that digest now.
    fn by_digest(
        &self,
        _repository: &Repository,
        _source: &SourceSpec,
        _digest: &Digest,
    ) -> Option<SourceSpec> {
        None
    }

    /// Whether what is held of the same path under another `variant`, with this `Content-Type`, is among what `source` asks for: it will
    /// do where the upstream cannot be asked.
    fn stands_in(&self, _source: &SourceSpec, _variant: &str, _content_type: &str) -> bool {
        false
    }

    /// The part of a body that its digest is of, where that is not all of it (a signed manifest's payload).
    fn digested_part(&self, _path: &str, _content_type: &str, _body: &[u8]) -> Option<Vec<u8>> {
        None
    }

    /// A query as it stands in keys, and so in logs.
    fn query_in_key<'q>(&self, query: &'q str) -> Cow<'q, str> {
        Cow::Borrowed(query)
    }

    /// Whether an upstream's status says that it has no such thing, beside 404 and 410.
    fn is_missing(&self, _path: &str, _status: u16) -> bool {
        false
    }

    /// What clients are told where the upstream wants a login and the repository has none; `None`: that it is the operator's mistake.
    fn refused_to_anybody(&self, _repository: &Repository, _path: &str) -> Option<Refusal> {
        None
    }

    /// The `Accept` with which a document is asked for once more where the upstream answered this status to its own: some servers have
    /// nothing for those who mention a media type that they do not know. What has another one at all has one for 406.
    fn accept_otherwise(&self, _source: &SourceSpec, _status: u16) -> Option<&'static str> {
        None
    }

    /// Names (lower case) of further fields of an upstream's head that are kept with the bytes.
    fn kept_headers(&self) -> &'static [&'static str] {
        &[]
    }

    /// Fields of an answer that this format's clients rely on. A `Content-Type` among them takes the place of the upstream's.
    fn answer_headers(&self, _repository: &Repository, _held: &Held<'_>) -> HeaderMap {
        HeaderMap::new()
    }

    /// The word for an error about something that the upstream does not have.
    fn missing_code(&self, _path: &str) -> ErrorCode {
        ErrorCode::NotFound
    }

    /// All files that a document names, in any order. A claim whose link may not be carried is left out. What it takes, the claims
    /// included, is counted on the meter of `links`.
    fn claims(
        &self,
        document: &Document<'_>,
        links: &Links<'_>,
        sink: &mut dyn FnMut(Claim),
    ) -> Result<(), Malformed>;

    /// Makes `form` of a document, links leading back to larder. What it takes is counted on the meter of `links`.
    fn derive(
        &self,
        document: &Document<'_>,
        form: &'static str,
        links: &Links<'_>,
    ) -> Result<Derived, Malformed>;

    /// Whether documents of several repositories can be [merged](Format::merge).
    fn merges(&self) -> bool {
        false
    }

    /// Makes one document of those of several repositories, the first of them having priority; `None` where `form` is nothing that is
    /// merged. Pure: equal inputs give equal bytes.
    fn merge(
        &self,
        _members: &[MergeMember<'_>],
        _form: &'static str,
    ) -> Option<Result<Merged, MergeFault>> {
        None
    }

    /// The names of everything that an index has.
    ///
    /// # Errors
    /// If the document cannot be read.
    fn names(&self, _document: &Document<'_>) -> Result<HashSet<String>, Malformed> {
        Ok(HashSet::new())
    }

    /// Whether the file at a decoded path may be one of the package of that name, by its own name.
    fn is_named(&self, _path: &str, _name: &str) -> bool {
        false
    }

    /// What computes the identity of the file at a decoded path; `None` where documents state digests, or nothing.
    fn identifier(&self, _path: &str) -> Option<Box<dyn Identifier>> {
        None
    }

    /// Names of request headers that choose between forms, for `Vary`; empty if the path has one form.
    fn varies_by(&self, path: &str) -> &'static [&'static str];

    /// Whether links are absolute URLs (npm, helm) rather than path-absolute (pypi).
    fn absolute_links(&self) -> bool;

    /// Version of the code behind [`derive`](Format::derive) and [`claims`](Format::claims): raise it when their output changes.
    fn rewriter_version(&self) -> u32;

    /// Whether its documents may link to other hosts, so that `_ext/` is for such links. Elsewhere it is a folder like any other.
    fn links_elsewhere(&self) -> bool {
        false
    }

    /// Whether a path that the upstream redirects to a folder (a path that ends in a slash) is a folder itself: it is mutable, and
    /// clients are redirected as well, because what comes from there has links that are relative to the folder.
    fn passes_folders_on(&self) -> bool {
        false
    }

    /// Whether its documents state something of sidecars by themselves (`x.whl.metadata`); elsewhere a sidecar is where its subject is.
    fn names_sidecars(&self) -> bool {
        false
    }

    /// Rules for paths.
    fn path_rules(&self) -> larder_core::PathRules {
        larder_core::PathRules::default()
    }

    /// The error body for this format's clients; the default is `{"error": "message", "code", "repository", "rule"}`.
    fn error_body(&self, fault: &Fault) -> ErrorBody {
        standard_error_body(fault)
    }
}

/// The endings of sidecars: a link to `x` also carries `x` with one of these ([`Links::resolve_external`]).
pub const SIDECAR_SUFFIXES: &[&str] = &[".metadata", ".prov", ".asc", ".sig"];

/// The formats that are built; `None` for package types that load with a warning and answer 501.
pub fn format_of(package: PackageType) -> Option<&'static dyn Format> {
    match package {
        PackageType::Generic => Some(&generic::Generic),
        PackageType::Pypi => Some(&pypi::Pypi),
        PackageType::Npm => Some(&npm::Npm),
        PackageType::Helm => Some(&helm::Helm),
        PackageType::Alpine => Some(&alpine::Alpine),
        PackageType::Rpm => Some(&rpm::Rpm),
        PackageType::Docker => Some(&oci::Oci),
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
