//! `settle`: given the upstream's outcome, what becomes of the record and of the client. Pure.
//!
//! Knows the contract's stale rules (contract, section 3) and RFC 5861. Does not know how the upstream was asked.

use std::time::Duration;

use crate::cache_policy::CachePolicy;
use crate::clock::UnixMillis;
use crate::decide::{Class, stale_allowed};
use crate::precondition::{is_strong_tag, weak_match};
use crate::record::ArtifactRecord;

/// What came of asking the upstream, without the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A complete, verified new body.
    Body,
    /// The copy is unchanged (304 to a conditional request, or equal validators).
    NotModified,
    /// 404 or 410.
    Missing(u16),
    /// 401, 407, 403 or 451.
    Denied(u16),
    /// 429 or 5xx, and any other 4xx.
    Refused {
        /// The upstream's status.
        status: u16,
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// No usable connection: refused, DNS failure, reset before the head, TLS failure.
    Unreachable,
    /// No answer, or no byte for the read time-out.
    TimedOut,
    /// An answer that cannot be used: wrong digest, short body, malformed document, unasked 206 or 304, refused redirect.
    Unusable,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// Store the new record and serve it.
    Replace,
    /// Restart the copy's time-to-live (good contact) and serve it.
    Renew,
    /// Serve the expired copy.
    ServeStale {
        /// Whether the time-to-live restarts: after network failures, not after statuses.
        renew: bool,
    },
    /// Pass the upstream's status on.
    PassOn {
        /// The status the client sees.
        status: u16,
        /// Whether the expired copy stays for a later network failure (else it is dropped).
        keep_copy: bool,
        /// Remember the absence for this long.
        negative_ttl: Option<Duration>,
        /// For the client.
        retry_after: Option<Duration>,
    },
    /// 502, or 504 when `timed_out`. The copy, if any, stays.
    Fail {
        /// Whether it was a time-out.
        timed_out: bool,
    },
}

/// What a revalidating HEAD says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadVerdict {
    /// 304, or 200 with the stored validators: renew.
    Unchanged,
    /// 200 with other validators: GET.
    Changed,
    /// HEAD is not supported here (400, 403, 405, 501): conditional GET.
    AskWithGet,
    /// Anything else: settle it as an outcome.
    Other,
}

/// Whether an upstream's status is a client's business and reaches it as it is: it says something of the request or of the file
/// that clients act on (they retry a 502 in vain). 401 and 407 speak of larder's own credentials; nothing else has a meaning for
/// the client either.
pub fn keeps_status(status: u16) -> bool {
    matches!(
        status,
        400 | 403..=405 | 408..=410 | 414 | 416 | 421 | 425 | 426 | 428 | 429 | 431 | 451 | 500..=599
    )
}

/// What to do about the upstream's `outcome`, given the `record` of before it (contract, section 3, "Stale").
///
/// The class is taken for symmetry with [`decide`](crate::decide()) and changes nothing: "an expired `immutable_ttl` follows the
/// same rules".
///
/// ```
/// use larder_core::{CachePolicy, Mutability, Outcome, Settlement, UnixMillis, settle};
///
/// let settlement = settle(Outcome::TimedOut, None, Mutability::Immutable, &CachePolicy::default(), UnixMillis(0));
/// assert_eq!(settlement, Settlement::Fail { timed_out: true });
/// ```
pub fn settle(
    outcome: Outcome,
    record: Option<&ArtifactRecord>,
    _class: Class,
    policy: &CachePolicy,
    now: UnixMillis,
) -> Settlement {
    let may_serve_stale = record.is_some_and(|r| stale_allowed(r, policy, now));
    let stale_or_fail = |renew, timed_out| {
        if may_serve_stale {
            Settlement::ServeStale { renew }
        } else {
            Settlement::Fail { timed_out }
        }
    };
    match outcome {
        Outcome::Body => Settlement::Replace,
        Outcome::NotModified if record.is_some_and(ArtifactRecord::has_body) => Settlement::Renew,
        // Nothing was held that could have been "not modified": an unasked 304.
        Outcome::NotModified => Settlement::Fail { timed_out: false },
        Outcome::Unreachable => stale_or_fail(true, false),
        Outcome::TimedOut => stale_or_fail(true, true),
        Outcome::Unusable => stale_or_fail(false, false),
        Outcome::Missing(status) | Outcome::Denied(status) => {
            settle_status(status, None, may_serve_stale, policy)
        }
        Outcome::Refused {
            status,
            retry_after,
        } => settle_status(status, retry_after, may_serve_stale, policy),
    }
}

/// The upstream answered with a status that is no success: normal expiry, the answer is passed on, unless the operator listed it.
fn settle_status(
    status: u16,
    retry_after: Option<Duration>,
    may_serve_stale: bool,
    policy: &CachePolicy,
) -> Settlement {
    // What is gone, or may not be shown by law, is never papered over with an old copy. A refused login (401, 403, 407) may say that a
    // password was rotated or that an account was withdrawn: the operator decides which, by listing it.
    let listable = !matches!(status, 404 | 410 | 451);
    if listable && may_serve_stale && policy.stale_on_status.contains(&status) {
        return Settlement::ServeStale { renew: false };
    }
    match status {
        404 | 410 => Settlement::PassOn {
            status,
            keep_copy: false,
            negative_ttl: Some(policy.negative_ttl).filter(|ttl| !ttl.is_zero()),
            retry_after,
        },
        status if keeps_status(status) => Settlement::PassOn {
            status,
            keep_copy: true,
            negative_ttl: None,
            retry_after,
        },
        _ => Settlement::Fail { timed_out: false },
    }
}

/// Whether a 304 with this entity tag is about the stored body of `record`. One that names another body by a strong tag is not, and
/// must not renew it (RFC 9111 section 4.3.4).
pub fn confirms(etag: Option<&str>, record: &ArtifactRecord) -> bool {
    match (etag, record.headers.etag.as_deref()) {
        (Some(now), Some(stored)) => !is_strong_tag(now) || weak_match(now, stored),
        _ => true,
    }
}

/// What the answer to a revalidating HEAD says of the stored body of `record`.
///
/// A 304 is "unchanged" unless it [names another body](confirms). A 200 is "unchanged" if its entity tag is the stored one; without a tag on both sides, if `Last-Modified` and length are.
/// Two different tags are a change even when the dates agree: a file can change twice within a second.
pub fn judge_head(
    status: u16,
    etag: Option<&str>,
    last_modified: Option<&str>,
    content_length: Option<u64>,
    record: &ArtifactRecord,
) -> HeadVerdict {
    match status {
        304 if confirms(etag, record) => HeadVerdict::Unchanged,
        304 => HeadVerdict::Changed,
        200 => {
            let same = match (etag, record.headers.etag.as_deref()) {
                (Some(now), Some(stored)) => weak_match(now, stored),
                _ => same_date_and_length(last_modified, content_length, record),
            };
            if same {
                HeadVerdict::Unchanged
            } else {
                HeadVerdict::Changed
            }
        }
        400 | 403 | 405 | 501 => HeadVerdict::AskWithGet,
        _ => HeadVerdict::Other,
    }
}

/// Whether date and length are both known on both sides, and equal.
fn same_date_and_length(
    last_modified: Option<&str>,
    content_length: Option<u64>,
    record: &ArtifactRecord,
) -> bool {
    let date = |text: Option<&str>| text.and_then(UnixMillis::from_http_date);
    let same_date = date(last_modified)
        .is_some_and(|now| Some(now) == date(record.headers.last_modified.as_deref()));
    let same_length =
        content_length.is_some_and(|length| record.blob().is_some_and(|blob| blob.size == length));
    same_date && same_length
}

#[cfg(test)]
mod tests;
