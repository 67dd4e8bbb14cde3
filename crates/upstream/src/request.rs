//! What is asked of an upstream. Knows nothing of how it is sent.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use larder_core::{Repository, SafeUrl, UpstreamSettings};
use url::Url;

/// Validators for a conditional request (RFC 9110 section 13.1). Both may be given; the upstream then heeds the entity tag.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// An entity tag as the upstream gave it, quotes and `W/` included.
    pub if_none_match: Option<String>,
    /// An HTTP date.
    pub if_modified_since: Option<String>,
}

/// Asks for the rest of a body that was cut (RFC 9110 sections 13.1.5 and 14.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// The first byte wanted, counted from 0; sent as `Range: bytes={offset}-`.
    pub offset: u64,
    /// The strong validator of the part that is already there; sent as `If-Range`.
    pub if_range: String,
    /// A digest will say whether the parts belong together: the range may be asked for without a validator.
    pub vouched: bool,
}

/// One request to an upstream.
#[derive(Clone)]
pub struct UpstreamRequest {
    /// On whose behalf: brings credentials, proxies, time-outs and address rules.
    pub repository: Arc<Repository>,
    /// GET and HEAD follow redirects and are sent again on a stale connection; every other method neither.
    pub method: Method,
    /// Where to. It may have a query; a fragment is not sent.
    pub url: Url,
    /// The URL was read in a document rather than made from the configuration. (The address rule holds for every URL outside the
    /// configured origins either way; this says it in errors.)
    pub learned: bool,
    /// The `Accept` field; `None` sends `*/*`.
    pub accept: Option<&'static str>,
    /// Validators of the copy that is held.
    pub conditions: Conditions,
    /// Ask only for the rest.
    pub resume: Option<Resume>,
    /// Further fields that the format lets through. Fields that this crate owns, credentials, cookies and hop-by-hop fields are dropped.
    pub headers: HeaderMap,
    /// A body, for POST.
    pub body: Option<Bytes>,
    /// How long to wait for a byte, if that is less than `timeouts.read`: where there is somebody else to ask.
    pub patience: Option<Duration>,
    /// Whether the caller has something to fall back on: then an origin that keeps failing is not asked, and nobody waits for it.
    pub has_stale_fallback: bool,
}

impl UpstreamRequest {
    /// How long a byte may take.
    pub(crate) fn read_timeout(&self, settings: &UpstreamSettings) -> Duration {
        self.patience.map_or(settings.read_timeout, |patience| {
            patience.min(settings.read_timeout)
        })
    }

    /// A plain request without conditions.
    pub fn new(repository: Arc<Repository>, method: Method, url: Url) -> Self {
        Self {
            repository,
            method,
            url,
            learned: false,
            accept: None,
            conditions: Conditions::default(),
            resume: None,
            headers: HeaderMap::new(),
            body: None,
            patience: None,
            has_stale_fallback: false,
        }
    }

    /// Whether the request can be sent twice without harm and its redirects be followed.
    pub(crate) fn is_idempotent(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }
}

impl fmt::Debug for UpstreamRequest {
    /// Shows no query, no header values and no body: all of them may carry secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamRequest")
            .field("repository", &self.repository.name)
            .field("method", &self.method)
            .field("url", &SafeUrl(self.url.clone()))
            .field("learned", &self.learned)
            .field("accept", &self.accept)
            .field("conditions", &self.conditions)
            .field("resume", &self.resume)
            .field(
                "headers",
                &self
                    .headers
                    .keys()
                    .map(http::HeaderName::as_str)
                    .collect::<Vec<_>>(),
            )
            .field("body_length", &self.body.as_ref().map(Bytes::len))
            .field("patience", &self.patience)
            .field("has_stale_fallback", &self.has_stale_fallback)
            .finish()
    }
}
