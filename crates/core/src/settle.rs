//! `settle`: given the upstream's outcome, what becomes of the record and of the client. Pure.
//!
//! Knows the contract's stale rules (spec section 3) and RFC 5861. Does not know how the upstream was asked.

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

/// What to do about the upstream's `outcome`, given the `record` of before it (spec section 3 "Stale").
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::Content;
    use crate::testing::{
        CLASSES, NOW, any_class, any_interval, any_policy, any_record, record, seconds_ago,
    };

    const RETRY: Duration = Duration::from_secs(7);

    /// Every outcome (rows) with every record (columns), from spec section 3 "Stale" and section 1 "Errors".
    ///
    /// `stale.max_age` is 100 s; the columns too-old and pointer hold a copy 101 s and 100 s after the last good contact.
    /// replace, renew, stale+ (serve stale, life renewed), stale (not renewed), keep (status passed on, copy stays),
    /// neg (status passed on, copy dropped, absence remembered), 502, 504.
    const BASE: &str = "
        # outcome     nothing  fresh    expired  pointer  negative  head-only  too-old
        body          replace  replace  replace  replace  replace   replace    replace
        not-modified  502      renew    renew    renew    502       502        renew
        unreachable   502      stale+   stale+   stale+   502       502        502
        timed-out     504      stale+   stale+   stale+   504       504        504
        unusable      502      stale    stale    stale    502       502        502
        404           neg      neg      neg      neg      neg       neg        neg
        410           neg      neg      neg      neg      neg       neg        neg
        401           502      502      502      502      502       502        502
        407           502      502      502      502      502       502        502
        403           keep     keep     keep     keep     keep      keep       keep
        451           keep     keep     keep     keep     keep      keep       keep
        400           keep     keep     keep     keep     keep      keep       keep
        418           502      502      502      502      502       502        502
        429           keep     keep     keep     keep     keep      keep       keep
        500           keep     keep     keep     keep     keep      keep       keep
        503           keep     keep     keep     keep     keep      keep       keep
        504           keep     keep     keep     keep     keep      keep       keep
        599           keep     keep     keep     keep     keep      keep       keep
        204           502      502      502      502      502       502        502
    ";

    /// The same with every status but 204 and 599 in `stale.on_status`; those that may never be papered over stay as above.
    const LISTED: &str = "
        # outcome     nothing  fresh    expired  pointer  negative  head-only  too-old
        body          replace  replace  replace  replace  replace   replace    replace
        not-modified  502      renew    renew    renew    502       502        renew
        unreachable   502      stale+   stale+   stale+   502       502        502
        timed-out     504      stale+   stale+   stale+   504       504        504
        unusable      502      stale    stale    stale    502       502        502
        404           neg      neg      neg      neg      neg       neg        neg
        410           neg      neg      neg      neg      neg       neg        neg
        401           502      stale    stale    stale    502       502        502
        407           502      stale    stale    stale    502       502        502
        403           keep     stale    stale    stale    keep      keep       keep
        451           keep     keep     keep     keep     keep      keep       keep
        400           keep     stale    stale    stale    keep      keep       keep
        418           502      stale    stale    stale    502       502        502
        429           keep     stale    stale    stale    keep      keep       keep
        500           keep     stale    stale    stale    keep      keep       keep
        503           keep     stale    stale    stale    keep      keep       keep
        504           keep     stale    stale    stale    keep      keep       keep
        599           keep     keep     keep     keep     keep      keep       keep
        204           502      502      502      502      502       502        502
    ";

    fn records() -> [Option<ArtifactRecord>; 7] {
        let expired = ArtifactRecord {
            renewed_at: seconds_ago(50),
            contacted_at: seconds_ago(50),
            ..record()
        };
        [
            None,
            Some(record()),
            Some(expired.clone()),
            Some(ArtifactRecord {
                content: Content::Pointer("p".into()),
                contacted_at: seconds_ago(100),
                ..expired.clone()
            }),
            Some(ArtifactRecord {
                content: Content::Negative { status: 404 },
                ..expired.clone()
            }),
            Some(ArtifactRecord {
                content: Content::HeadOnly,
                ..expired.clone()
            }),
            Some(ArtifactRecord {
                contacted_at: seconds_ago(101),
                ..expired
            }),
        ]
    }

    fn policy() -> CachePolicy {
        CachePolicy {
            stale_max_age: Some(Duration::from_secs(100)),
            negative_ttl: Duration::from_secs(10),
            immutable_ttl: Some(Duration::from_secs(20)),
            mutable_ttl: Duration::from_secs(20),
            ..CachePolicy::default()
        }
    }

    fn outcome_named(name: &str) -> Outcome {
        match name {
            "body" => Outcome::Body,
            "not-modified" => Outcome::NotModified,
            "unreachable" => Outcome::Unreachable,
            "timed-out" => Outcome::TimedOut,
            "unusable" => Outcome::Unusable,
            "404" | "410" => Outcome::Missing(name.parse().unwrap()),
            "401" | "407" | "403" | "451" => Outcome::Denied(name.parse().unwrap()),
            _ => Outcome::Refused {
                status: name.parse().unwrap(),
                retry_after: Some(RETRY),
            },
        }
    }

    fn settlement_named(cell: &str, outcome: Outcome) -> Settlement {
        let (status, retry_after) = match outcome {
            Outcome::Missing(status) | Outcome::Denied(status) => (status, None),
            Outcome::Refused {
                status,
                retry_after,
            } => (status, retry_after),
            _ => (0, None),
        };
        match cell {
            "replace" => Settlement::Replace,
            "renew" => Settlement::Renew,
            "stale+" => Settlement::ServeStale { renew: true },
            "stale" => Settlement::ServeStale { renew: false },
            "keep" => Settlement::PassOn {
                status,
                keep_copy: true,
                negative_ttl: None,
                retry_after,
            },
            "neg" => {
                let negative_ttl = Some(Duration::from_secs(10));
                Settlement::PassOn {
                    status,
                    keep_copy: false,
                    negative_ttl,
                    retry_after,
                }
            }
            "502" => Settlement::Fail { timed_out: false },
            "504" => Settlement::Fail { timed_out: true },
            other => panic!("no settlement {other}"),
        }
    }

    fn check(table: &str, policy: &CachePolicy) {
        let mut outcomes = std::collections::BTreeSet::new();
        for line in table
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let words: Vec<&str> = line.split_whitespace().collect();
            let outcome = outcome_named(words[0]);
            assert_eq!(words.len(), 1 + records().len(), "{line}");
            for (column, (cell, record)) in words[1..].iter().zip(records()).enumerate() {
                for class in CLASSES {
                    let settlement = settle(outcome, record.as_ref(), class, policy, NOW);
                    assert_eq!(
                        settlement,
                        settlement_named(cell, outcome),
                        "{class:?}, column {column} of: {line}"
                    );
                }
            }
            assert!(outcomes.insert(words[0].to_owned()), "twice: {line}");
        }
        assert_eq!(outcomes.len(), 19, "every outcome once");
    }

    #[test]
    fn every_outcome_with_every_record_settles_as_the_contract_says() {
        check(BASE, &policy());
    }

    #[test]
    fn listed_statuses_serve_stale_but_never_those_about_absence_or_the_law() {
        let stale_on_status = vec![400, 401, 403, 404, 407, 410, 418, 429, 451, 500, 503, 504];
        check(
            LISTED,
            &CachePolicy {
                stale_on_status,
                ..policy()
            },
        );
    }

    /// Each status of RFC 9110 section 15.5 and its extensions; the list of those that clients act on is the contract's.
    #[test]
    fn every_client_error_keeps_its_status_or_becomes_a_502() {
        let kept = [
            400, 403, 404, 405, 408, 409, 410, 414, 416, 421, 425, 426, 428, 429, 431, 451,
        ];
        for status in 400..500 {
            let outcome = match status {
                404 | 410 => Outcome::Missing(status),
                _ => Outcome::Refused {
                    status,
                    retry_after: None,
                },
            };
            let settlement = settle(outcome, None, Class::Immutable, &policy(), NOW);
            let passed_on =
                matches!(settlement, Settlement::PassOn { status: seen, .. } if seen == status);
            assert_eq!(
                passed_on,
                kept.contains(&status),
                "{status}: {settlement:?}"
            );
        }
    }

    /// RFC 9111 section 4.3.4: a 304 with a strong validator is about the stored responses that have the same, and about no other.
    #[test]
    fn a_304_that_names_another_body_renews_nothing() {
        for (stored, now, unchanged) in [
            (Some("\"v1\""), Some("\"v1\""), true),
            (Some("\"v1\""), Some("\"v2\""), false),
            (Some("W/\"v1\""), Some("\"v2\""), false),
            (Some("W/\"v1\""), Some("\"v1\""), true),
            (Some("\"v1\""), Some("W/\"v2\""), true),
            (Some("\"v1\""), Some("v2"), true),
            (Some("\"v1\""), None, true),
            (None, Some("\"v2\""), true),
        ] {
            let mut copy = record();
            copy.headers.etag = stored.map(str::to_owned);
            let verdict = judge_head(304, now, None, None, &copy);
            assert_eq!(
                verdict == HeadVerdict::Unchanged,
                unchanged,
                "{stored:?} {now:?}: {verdict:?}"
            );
        }
    }

    #[test]
    fn without_a_bound_even_an_ancient_copy_serves_a_network_failure() {
        let policy = CachePolicy {
            stale_max_age: None,
            ..policy()
        };
        let ancient = ArtifactRecord {
            contacted_at: UnixMillis(0),
            renewed_at: UnixMillis(0),
            ..record()
        };
        let settlement = settle(
            Outcome::Unreachable,
            Some(&ancient),
            Class::Immutable,
            &policy,
            NOW,
        );
        assert_eq!(settlement, Settlement::ServeStale { renew: true });
    }

    #[test]
    fn negative_ttl_zero_remembers_no_absence() {
        let policy = CachePolicy {
            negative_ttl: Duration::ZERO,
            ..policy()
        };
        let settlement = settle(Outcome::Missing(404), None, Class::Immutable, &policy, NOW);
        let expected = Settlement::PassOn {
            status: 404,
            keep_copy: false,
            negative_ttl: None,
            retry_after: None,
        };
        assert_eq!(settlement, expected);
    }

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    /// `record()` has the tag "v1", the date `DATE` and five bytes.
    #[test]
    fn a_revalidating_head_is_judged_by_its_validators() {
        use HeadVerdict::{AskWithGet, Changed, Other, Unchanged};
        let rows = [
            (304, None, None, None, Unchanged),
            (200, Some("\"v1\""), None, None, Unchanged),
            (200, Some("W/\"v1\""), None, None, Unchanged),
            (200, Some("\"v2\""), None, None, Changed),
            (200, Some("\"v2\""), Some(DATE), Some(5), Changed),
            (200, Some("\"v1\""), Some(LATER), Some(6), Unchanged),
            (200, None, Some(DATE), Some(5), Unchanged),
            (
                200,
                None,
                Some("Sunday, 06-Nov-94 08:49:37 GMT"),
                Some(5),
                Unchanged,
            ),
            (200, None, Some(DATE), Some(6), Changed),
            (200, None, Some(DATE), None, Changed),
            (200, None, Some(LATER), Some(5), Changed),
            (200, None, None, Some(5), Changed),
            (200, None, Some("yesterday"), Some(5), Changed),
            (200, None, None, None, Changed),
            (400, None, None, None, AskWithGet),
            (403, None, None, None, AskWithGet),
            (405, None, None, None, AskWithGet),
            (501, None, None, None, AskWithGet),
            (404, None, None, None, Other),
            (410, None, None, None, Other),
            (401, None, None, None, Other),
            (429, None, None, None, Other),
            (500, None, None, None, Other),
            (206, Some("\"v1\""), Some(DATE), Some(5), Other),
            (204, Some("\"v1\""), Some(DATE), Some(5), Other),
        ];
        for (status, etag, date, length, expected) in rows {
            let verdict = judge_head(status, etag, date, length, &record());
            assert_eq!(verdict, expected, "{status} {etag:?} {date:?} {length:?}");
        }
    }

    #[test]
    fn a_head_cannot_confirm_what_was_never_stored() {
        let mut bare = record();
        bare.headers.etag = None;
        assert_eq!(
            judge_head(200, Some("\"v1\""), Some(DATE), Some(5), &bare),
            HeadVerdict::Unchanged,
            "date and length"
        );
        bare.headers.last_modified = Some("not a date".into());
        assert_eq!(
            judge_head(200, Some("\"v1\""), Some("not a date"), Some(5), &bare),
            HeadVerdict::Changed
        );
        let pointer = ArtifactRecord {
            content: Content::Pointer("p".into()),
            ..bare
        };
        assert_eq!(
            judge_head(200, None, Some(DATE), Some(5), &pointer),
            HeadVerdict::Changed,
            "length unknown"
        );
    }

    fn any_outcome() -> impl Strategy<Value = Outcome> {
        let retry = proptest::option::of((0_u64..100).prop_map(Duration::from_secs));
        prop_oneof![
            Just(Outcome::Body),
            Just(Outcome::NotModified),
            Just(Outcome::Unreachable),
            Just(Outcome::TimedOut),
            Just(Outcome::Unusable),
            (100_u16..700).prop_map(Outcome::Missing),
            (100_u16..700).prop_map(Outcome::Denied),
            (100_u16..700, retry).prop_map(|(status, retry_after)| Outcome::Refused {
                status,
                retry_after
            }),
        ]
    }

    proptest! {
        #[test]
        fn no_outcome_leaks_credentials_trouble_or_serves_what_is_too_old(
            outcome in any_outcome(), record in proptest::option::of(any_record()), class in any_class(),
            policy in any_policy(), after in any_interval(),
        ) {
            let now = UnixMillis(record.as_ref().map_or(0, |r| r.contacted_at.0) + after);
            let held = record.as_ref().is_some_and(ArtifactRecord::has_body);
            match settle(outcome, record.as_ref(), class, &policy, now) {
                Settlement::PassOn { status, keep_copy, negative_ttl, .. } => {
                    prop_assert!(!matches!(status, 401 | 407) && status >= 400, "{}", status);
                    prop_assert_eq!(keep_copy, !matches!(status, 404 | 410));
                    prop_assert!(negative_ttl.is_none_or(|ttl| !ttl.is_zero() && !keep_copy));
                }
                Settlement::ServeStale { renew } => {
                    prop_assert!(held);
                    let age = now.since(record.as_ref().unwrap().contacted_at);
                    prop_assert!(policy.stale_max_age.is_none_or(|bound| age <= bound));
                    prop_assert_eq!(renew, matches!(outcome, Outcome::Unreachable | Outcome::TimedOut));
                }
                Settlement::Renew => prop_assert!(held && outcome == Outcome::NotModified),
                Settlement::Replace => prop_assert_eq!(outcome, Outcome::Body),
                Settlement::Fail { timed_out } => prop_assert_eq!(timed_out, outcome == Outcome::TimedOut),
            }
        }
    }
}
