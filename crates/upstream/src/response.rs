//! The head of an upstream's final response, with its body still to be read.

use std::fmt;

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode};
use larder_core::SafeUrl;
use url::Url;

use crate::body::BodyStream;

/// A redirect from a path that does not end in a slash to one that does: relative links in what comes from there are only right if
/// clients know of it.
#[derive(Clone, PartialEq, Eq)]
pub struct FolderRedirect {
    /// The upstream's status: 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// Where it led. It may carry a query.
    pub to: Url,
}

/// A response of any status but a followed redirect. Its headers are the upstream's own and must not be handed on unfiltered.
pub struct UpstreamResponse {
    /// The status, 304 and an unasked 206 included.
    pub status: StatusCode,
    /// All header fields as received, `Content-Encoding` included: nothing is decoded.
    pub headers: HeaderMap,
    /// The URL that gave this response, after redirects. It may carry a signature in its query: show it as `SafeUrl` only.
    pub final_url: Url,
    /// The first redirect on the way here that led from a file's address to a folder's, if there was one.
    pub folder: Option<FolderRedirect>,
    /// The body. Dropping it unread breaks off the transfer.
    pub body: BodyStream,
}

impl fmt::Debug for FolderRedirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FolderRedirect")
            .field("status", &self.status)
            .field("to", &SafeUrl(self.to.clone()))
            .finish()
    }
}

impl UpstreamResponse {
    /// `Content-Length` in bytes, for HEAD too (where no body follows); `None` if absent or not a number.
    pub fn declared_length(&self) -> Option<u64> {
        self.headers
            .get(CONTENT_LENGTH)?
            .to_str()
            .ok()?
            .parse()
            .ok()
    }

    /// The text of a header field; `None` if absent or not visible ASCII.
    pub fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl fmt::Debug for UpstreamResponse {
    /// Shows no header values: cookies and signed links are among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamResponse")
            .field("status", &self.status)
            .field(
                "headers",
                &self
                    .headers
                    .keys()
                    .map(http::HeaderName::as_str)
                    .collect::<Vec<_>>(),
            )
            .field("final_url", &SafeUrl(self.final_url.clone()))
            .field("folder", &self.folder)
            .field("body", &self.body)
            .finish()
    }
}
