//! What the server asks of the pipeline behind it. The one real implementation is the engine's (`engine_backend.rs`); tests
//! bring a scripted one.

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_core::Stream;
use http::StatusCode;
use larder_core::{
    ByteRange, CacheStatus, ErrorCode, Fault, FaultKind, PackageType, Repository, Source,
    UnixMillis,
};
pub use larder_engine::{ArtifactRequest, Freshness, MirrorReport, Representation, Written};
pub use larder_engine::{DiskSpace, UpstreamFailure, UpstreamReport, UpstreamStanding};
use larder_engine::{FlushReport, FlushRequest, HeldPage, HeldRequest, HeldSize, HeldSummary};

/// A stream of body bytes. An error aborts the connection.
pub type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// The body of an upload while it arrives. A fault ends it, and the upload.
pub type UploadBody<'a> = Pin<Box<dyn Stream<Item = Result<Bytes, Fault>> + Send + 'a>>;

/// A boxed future, for what is not on the path of hits.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The pipeline, as the server sees it.
pub trait Backend: Send + Sync + 'static {
    /// The present time.
    fn now(&self) -> UnixMillis;

    /// The repository of that name.
    fn repository(&self, name: &str) -> Option<Arc<Repository>>;

    /// All repositories, sorted by name.
    fn repositories(&self) -> Vec<Arc<Repository>>;

    /// How long a body this POST may have, in bytes: asked before any of it is read. `None` if nobody would look at it.
    ///
    /// # Errors
    /// The fault that the request ends in whatever its body is.
    fn body_limit(&self, request: &ArtifactRequest<'_>) -> Result<Option<u64>, Fault>;

    /// Why requests to the repository of that name are answered 501, if they are.
    fn not_built(&self, _name: &str) -> Option<String> {
        None
    }

    /// Answers GET, HEAD and POST on `/api/v1/remote`, GET and HEAD below `/v2/`.
    fn read(
        &self,
        request: ArtifactRequest<'_>,
    ) -> impl Future<Output = Result<Reply, Fault>> + Send;

    /// Forgets copies (`PUT /cache/flush`).
    fn flush(
        &self,
        request: FlushRequest,
    ) -> impl Future<Output = Result<FlushReport, Fault>> + Send;

    /// Forgets what is held under the path of a request (`DELETE`); whether there was anything.
    fn forget(
        &self,
        _request: ArtifactRequest<'_>,
    ) -> impl Future<Output = Result<bool, Fault>> + Send {
        async { Ok(false) }
    }

    /// Takes a file into a local repository (`PUT`). `length` is what `Content-Length` says; the body is polled once the request has been
    /// admitted.
    fn write(
        &self,
        request: ArtifactRequest<'_>,
        _length: Option<u64>,
        _body: UploadBody<'_>,
    ) -> impl Future<Output = Result<Written, Fault>> + Send {
        let fault = no_uploads(request.repository);
        async { Err(fault) }
    }

    /// Deletes a file of a local repository (`DELETE`).
    fn delete_file(
        &self,
        request: ArtifactRequest<'_>,
    ) -> impl Future<Output = Result<(), Fault>> + Send {
        let fault = no_uploads(request.repository);
        async { Err(fault) }
    }

    /// A page of what is held.
    fn held_artifacts(
        &self,
        _request: HeldRequest,
    ) -> impl Future<Output = Result<HeldPage, Fault>> + Send {
        async { Ok(HeldPage::default()) }
    }

    /// How much is held, of one repository or of all.
    fn held_summary(
        &self,
        _repository: Option<&str>,
    ) -> impl Future<Output = Result<HeldSummary, Fault>> + Send {
        async { Ok(HeldSummary::default()) }
    }

    /// The state of each backend, from verdicts that are at most a few seconds old.
    fn health(&self) -> impl Future<Output = Vec<BackendState>> + Send;

    /// How the upstreams are doing.
    fn upstreams(&self) -> Vec<UpstreamReport> {
        Vec::new()
    }

    /// The room on the disk when the backends' state was last looked at.
    fn disk(&self) -> Option<DiskSpace> {
        None
    }

    /// Counters for `/metrics`.
    fn counters(&self) -> CounterSnapshot;

    /// The body of an error in the shape that a package type's clients print; larder's own without one.
    fn error_body(&self, fault: &Fault, package: Option<PackageType>) -> ErrorShape;
}

/// The answer of a pipeline that has no local repositories.
fn no_uploads(repository: &str) -> Fault {
    let message = format!("{repository} takes no uploads: local repositories are not built here");
    Fault::new(
        FaultKind::NotImplemented,
        ErrorCode::NotImplemented,
        message,
    )
}

/// An error body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorShape {
    /// `Content-Type`.
    pub content_type: &'static str,
    /// Body.
    pub body: Vec<u8>,
}

/// One backend's state in `GET /health`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendState {
    /// What it is for: `metadata`, `blobs`.
    pub role: &'static str,
    /// What it is: `sqlite`, `filesystem`.
    pub kind: &'static str,
    /// Whether larder can serve with it.
    pub ok: bool,
    /// What is wrong; no internal paths, no secrets.
    pub detail: Option<String>,
}

/// Counters at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CounterSnapshot {
    /// Of the whole process.
    pub process: Vec<(&'static str, u64)>,
    /// Of each repository.
    pub repositories: Vec<(String, Vec<(&'static str, u64)>)>,
    /// Of each mirror of each repository.
    pub mirrors: Vec<MirrorReport>,
    /// What upstreams last said of their rate limits, of each repository whose upstream says it.
    pub quotas: Vec<(String, Vec<(&'static str, u64)>)>,
    /// Failures of the upstreams of each repository, by cause.
    pub failures: Vec<(String, Vec<(&'static str, u64)>)>,
    /// What each repository holds, as it was last counted.
    pub held: Vec<HeldSize>,
    /// Downloads that are running.
    pub flights_active: u64,
    /// Downloads of files that may run at once.
    pub downloads_limit: u64,
}

/// An answer of the pipeline. Conditional headers, ranges and HEAD are applied by the server.
#[derive(Debug)]
pub struct Reply {
    /// 200 for a representation, 301 for a redirect, otherwise a passed-through status.
    pub status: StatusCode,
    /// What it is.
    pub representation: Representation,
    /// Where its bytes are.
    pub content: Content,
    /// For `Cache-Status`.
    pub cache_status: CacheStatus,
    /// For `X-Artifact-Source`.
    pub source: Source,
    /// For `Age` and `Cache-Control`.
    pub freshness: Freshness,
    /// For `Location`.
    pub location: Option<String>,
    /// Whether the answer may be remembered.
    pub ticket: Option<Ticket>,
}

/// Where an answer's bytes are.
pub enum Content {
    /// No body; the representation's length is still that of GET.
    Empty,
    /// In memory.
    Bytes(Bytes),
    /// A whole stored file: immutable, replaced by rename, never truncated.
    File {
        /// Open for reading.
        file: Arc<File>,
        /// Its length.
        length: u64,
    },
    /// Still arriving.
    InFlight(Box<dyn InFlight>),
    /// Passed through; no ranges.
    Stream(ByteStream),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::File { length, .. } => write!(f, "File({length})"),
            Self::InFlight(flight) => write!(f, "InFlight({:?})", flight.length()),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// A body that is still arriving.
pub trait InFlight: Send + Sync {
    /// Its length, if known already.
    fn length(&self) -> Option<u64>;

    /// Waits until the length is known.
    fn wait_length(&self) -> BoxFuture<'_, Result<u64, Fault>>;

    /// The bytes, all or a range of them.
    fn reader(&self, range: Option<ByteRange>) -> ByteStream;
}

/// Permission to remember an answer.
pub struct Ticket {
    /// Whether the answer still holds at a moment: no flush, replacement or reload since, and still fresh.
    pub is_good: Box<dyn Fn(UnixMillis) -> bool + Send + Sync>,
    /// When the copy stops being fresh; `None` = never.
    pub fresh_until: Option<UnixMillis>,
    /// `Age` counts from here.
    pub contacted_at: UnixMillis,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("fresh_until", &self.fresh_until)
            .field("contacted_at", &self.contacted_at)
            .finish_non_exhaustive()
    }
}
