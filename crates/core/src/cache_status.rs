//! How an answer came about: `Cache-Status` (RFC 9211) and the contract's `X-Artifact-Source`.

use std::fmt;

/// `X-Artifact-Source`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// No byte of the answer, nor of an input it was derived from, arrived from upstream after the request began.
    Cache,
    /// Some byte did, or the answer joined a running download.
    Remote,
}

impl Source {
    /// The header's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Remote => "remote",
        }
    }
}

/// Why a request went to the upstream (RFC 9211 section 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardReason {
    /// Nothing was held.
    UriMiss,
    /// The copy had expired.
    Stale,
    /// The method is not cached (forwarded HEAD, POST).
    Method,
    /// Passed through by the format's rules.
    Bypass,
}

impl ForwardReason {
    fn as_str(self) -> &'static str {
        match self {
            Self::UriMiss => "uri-miss",
            Self::Stale => "stale",
            Self::Method => "method",
            Self::Bypass => "bypass",
        }
    }
}

/// The value of `Cache-Status`. Prints as RFC 9211 wants it, with `larder` as the cache's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStatus {
    /// Served without contact to the upstream.
    pub hit: bool,
    /// Why the upstream was asked.
    pub forward: Option<ForwardReason>,
    /// The status the upstream gave.
    pub forward_status: Option<u16>,
    /// Remaining life in seconds; negative when stale.
    pub ttl: Option<i64>,
    /// Whether the upstream's answer was kept.
    pub stored: bool,
    /// Whether the request joined another one's download.
    pub collapsed: bool,
    /// A word about unusual ways: `stale-error`, `stale-revalidating`, `no-space`, `malformed`.
    pub detail: Option<&'static str>,
}

impl fmt::Display for CacheStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("larder")?;
        if self.hit {
            f.write_str("; hit")?;
        }
        if let Some(reason) = self.forward {
            write!(f, "; fwd={}", reason.as_str())?;
        }
        if let Some(status) = self.forward_status {
            write!(f, "; fwd-status={status}")?;
        }
        if let Some(ttl) = self.ttl {
            write!(f, "; ttl={ttl}")?;
        }
        if self.stored {
            f.write_str("; stored")?;
        }
        if self.collapsed {
            f.write_str("; collapsed")?;
        }
        if let Some(detail) = self.detail {
            write!(f, "; detail={detail}")?;
        }
        Ok(())
    }
}
