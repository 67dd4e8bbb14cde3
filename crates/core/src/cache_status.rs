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
    /// A fresh copy was held, and the request would not have it.
    Request,
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
            Self::Request => "request",
            Self::Method => "method",
            Self::Bypass => "bypass",
        }
    }
}

/// The value of `Cache-Status`. Neither `hit` nor `forward` stands in an answer of larder's own making. Prints as RFC 9211 wants it, with `larder` as the cache's name.
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
    /// A word about unusual ways: `stale-error`, `stale-revalidating`, `stale-timeout`, `unchanged`, `not-kept`.
    pub detail: Option<&'static str>,
}

impl CacheStatus {
    /// The [`detail`](Self::detail) of a copy that was found unchanged by another answer than a 304.
    pub const UNCHANGED: &'static str = "unchanged";
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

#[cfg(test)]
mod tests {
    use super::*;

    /// After the examples of RFC 9211 section 4, with our name for the cache.
    #[test]
    fn prints_as_the_rfc_writes_it() {
        let none = CacheStatus::default();
        let hit = CacheStatus {
            hit: true,
            ttl: Some(376),
            ..none
        };
        assert_eq!(hit.to_string(), "larder; hit; ttl=376");
        let stale = CacheStatus {
            hit: true,
            ttl: Some(-412),
            detail: Some("stale-revalidating"),
            ..none
        };
        assert_eq!(
            stale.to_string(),
            "larder; hit; ttl=-412; detail=stale-revalidating"
        );
        let failed = CacheStatus {
            forward: Some(ForwardReason::Stale),
            forward_status: Some(503),
            detail: Some("stale-error"),
            ..none
        };
        assert_eq!(
            failed.to_string(),
            "larder; fwd=stale; fwd-status=503; detail=stale-error"
        );
        let unwanted = CacheStatus {
            forward: Some(ForwardReason::Request),
            ..none
        };
        assert_eq!(unwanted.to_string(), "larder; fwd=request");
        let miss = CacheStatus {
            forward: Some(ForwardReason::UriMiss),
            stored: true,
            ..none
        };
        assert_eq!(miss.to_string(), "larder; fwd=uri-miss; stored");
        let joined = CacheStatus {
            forward: Some(ForwardReason::UriMiss),
            collapsed: true,
            ..none
        };
        assert_eq!(joined.to_string(), "larder; fwd=uri-miss; collapsed");
        let revalidated = CacheStatus {
            forward: Some(ForwardReason::Stale),
            forward_status: Some(304),
            ..none
        };
        assert_eq!(revalidated.to_string(), "larder; fwd=stale; fwd-status=304");
        let head = CacheStatus {
            forward: Some(ForwardReason::Method),
            ..none
        };
        assert_eq!(head.to_string(), "larder; fwd=method");
        let passed = CacheStatus {
            forward: Some(ForwardReason::Bypass),
            ..none
        };
        assert_eq!(passed.to_string(), "larder; fwd=bypass");
    }
}
