//! Addresses that are secrets.

use larder_core::Secret;
use url::Url;

/// A URL whose holder may read one object for some minutes. It is not printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresignedUrl(Secret<Url>);

impl PresignedUrl {
    pub(super) fn new(url: Url) -> Self {
        Self(Secret::new(url))
    }

    /// The URL, for the client that is sent there and for nobody else.
    pub fn expose(&self) -> &str {
        self.0.expose().as_str()
    }

    /// Its host in lower case, without brackets.
    pub fn host(&self) -> &str {
        let host = self.0.expose().host_str().unwrap_or_default();
        host.trim_matches(['[', ']'])
    }
}
