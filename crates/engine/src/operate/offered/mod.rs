//! What upstreams offer, by their own indexes (`GET /api/v1/artifacts/{repo}?source=upstream`). An index is obtained as a client's request
//! would obtain it, and what it names is shown as far as the same client would get it: the rules and quarantine are asked of each file.

mod index;
mod page;

use std::sync::Arc;

use http::{HeaderMap, Method};
use larder_core::{Clock, Mount, Principal, RepositoryKind, UnixMillis};

use crate::document::Documents;
use crate::operate::held::HeldCursor;
use crate::origin::remote::{self, Remote};
use crate::repositories::{Registry, RepositoryState};
use crate::target::ArtifactRequest;

/// What of an upstream's offer is wanted.
#[derive(Debug, Clone, Default)]
pub struct OfferRequest {
    /// The repository.
    pub repository: String,
    /// The project, package or image that is meant, or the folder of an index.
    pub name: Option<String>,
    /// Regular expression searched in the decoded path.
    pub pattern: Option<String>,
    /// Only what is held, or only what is not.
    pub cached: Option<bool>,
    /// At most so many.
    pub limit: u32,
    /// Where the page before ended.
    pub after: Option<HeldCursor>,
}

/// Something that an upstream offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedArtifact {
    /// The repository's name.
    pub repository: String,
    /// Decoded path below it, as clients ask for it, without a query.
    pub path: String,
    /// Bytes, as the index states it.
    pub size: Option<u64>,
    /// SHA-256 of the bytes in hexadecimal digits, as the index states it.
    pub sha256: Option<String>,
    /// When the held copy was fetched; `None`: there is none.
    pub cached_at: Option<UnixMillis>,
    /// When the upstream is asked again for what is held; `None`: never, or nothing is held.
    pub fresh_until: Option<UnixMillis>,
}

/// A page of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OfferPage {
    /// In the order of their paths.
    pub artifacts: Vec<OfferedArtifact>,
    /// Where the next page begins; `None`: there is none.
    pub next: Option<HeldCursor>,
}

/// Reads what upstreams offer.
#[derive(Debug)]
pub(crate) struct Offers {
    registry: Arc<Registry>,
    documents: Arc<Documents>,
    remote: Arc<Remote>,
    clock: Arc<dyn Clock>,
}

impl Offers {
    /// Over what the origins are made of.
    pub(crate) fn new(base: &remote::Parts, remote: &Arc<Remote>) -> Self {
        Self {
            registry: Arc::clone(&base.registry),
            documents: Arc::clone(&base.documents),
            remote: Arc::clone(remote),
            clock: Arc::clone(&base.clock),
        }
    }
}

/// A request of larder's own, as a client would make it.
fn request<'a>(
    entry: &'a RepositoryState,
    raw_path: &'a str,
    query: Option<&'a str>,
    headers: &'a HeaderMap,
) -> ArtifactRequest<'a> {
    let name = entry.repository.name.as_str();
    ArtifactRequest {
        repository: name,
        raw_path,
        query,
        method: &Method::GET,
        headers,
        principal: Principal::Anonymous,
        mount: Mount::api("", RepositoryKind::Remote, name),
        body: bytes::Bytes::new(),
    }
}
