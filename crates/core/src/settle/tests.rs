use proptest::prelude::*;

use super::*;
use crate::record::Content;
use crate::testing::{
    CLASSES, NOW, any_class, any_interval, any_policy, any_record, record, seconds_ago,
};

const RETRY: Duration = Duration::from_secs(7);

/// Every outcome (rows) with every record (columns), from contract, section 3, "Stale", and contract, section 1, "Errors".
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
        fresh_since: seconds_ago(50),
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
        fresh_since: UnixMillis(0),
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
