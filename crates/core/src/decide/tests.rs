use proptest::prelude::*;

use super::*;
use crate::testing::{
    BUILT_IN, NAMED_BY_DIGEST, NOW, USER_DEFINED, any_class, any_interval, any_policy, any_record,
    record, seconds_ago,
};

/// Every state of the record (rows, with every class) under every setting of `revalidate` (columns), from contract, section 3.
///
/// The immutable time-to-live is 1,000 s, the mutable one 100 s, the negative one 10 s; `stale.max_age` is 5,000 s.
/// `check` is `check_mutable_updates: true` without `revalidate`. S serve, R serve and refresh, N serve the negative,
/// F fetch with nothing held, E fetch with an expired copy held, H and G revalidate by HEAD and GET.
const TABLE: &str = "
    # state              class      base check head get never
    nothing              immutable  F F F F F
    nothing              built-in   F F F F F
    nothing              user       F F F F F
    nothing              digest     F F F F F
    head-only            immutable  F F F F F
    head-only            built-in   F F F F F
    head-only            user       F F F F F
    head-only            digest     F F F F F
    negative-fresh       immutable  N N N N N
    negative-fresh       built-in   N N N N N
    negative-fresh       user       N N N N N
    negative-fresh       digest     N N N N N
    negative-expired     immutable  F F F F F
    negative-expired     built-in   F F F F F
    negative-expired     user       F F F F F
    negative-expired     digest     F F F F F
    fresh                immutable  S S S S S
    fresh                built-in   S S S S S
    fresh                user       S S S S S
    fresh                digest     S S S S S
    expired              immutable  E E H G E
    expired              built-in   E E H G E
    expired              user       E H H G E
    expired              digest     S S S S S
    expired-pointer      immutable  E E H G E
    expired-pointer      built-in   E E H G E
    expired-pointer      user       E H H G E
    expired-pointer      digest     S S S S S
    expired-bare         immutable  E E E E E
    expired-bare         built-in   E E E E E
    expired-bare         user       E E E E E
    expired-bare         digest     S S S S S
    expired-in-window    immutable  R R R R R
    expired-in-window    built-in   R R R R R
    expired-in-window    user       R R R R R
    expired-in-window    digest     S S S S S
    expired-past-window  immutable  E E H G E
    expired-past-window  built-in   E E H G E
    expired-past-window  user       E H H G E
    expired-past-window  digest     S S S S S
    too-old-in-window    immutable  E E H G E
    too-old-in-window    built-in   E E H G E
    too-old-in-window    user       E H H G E
    too-old-in-window    digest     S S S S S
    from-the-future      immutable  E E H G E
    from-the-future      built-in   E E H G E
    from-the-future      user       E H H G E
    from-the-future      digest     S S S S S
";

const STATES: usize = 12;
const CLASSES: usize = 4;
const SETTINGS: usize = 5;

fn class_named(name: &str) -> Class {
    match name {
        "immutable" => Mutability::Immutable,
        "built-in" => BUILT_IN,
        "user" => USER_DEFINED,
        "digest" => NAMED_BY_DIGEST,
        other => panic!("no class {other}"),
    }
}

fn policy(column: usize) -> CachePolicy {
    CachePolicy {
        immutable_ttl: Some(Duration::from_secs(1_000)),
        mutable_ttl: Duration::from_secs(100),
        negative_ttl: Duration::from_secs(10),
        stale_max_age: Some(Duration::from_secs(5_000)),
        check_mutable_updates: column == 1,
        revalidate: [
            None,
            None,
            Some(Revalidate::Head),
            Some(Revalidate::Get),
            Some(Revalidate::Never),
        ][column],
        ..CachePolicy::default()
    }
}

/// The record of a state, and the policy with what the state needs of it.
fn state(
    name: &str,
    class: Class,
    mut policy: CachePolicy,
) -> (Option<ArtifactRecord>, CachePolicy) {
    let ttl = if class == Mutability::Immutable {
        1_000
    } else {
        100
    };
    let mut copy = record();
    copy.fresh_since = seconds_ago(ttl);
    copy.contacted_at = seconds_ago(ttl);
    match name {
        "nothing" => return (None, policy),
        "head-only" => copy.content = Content::HeadOnly,
        "negative-fresh" | "negative-expired" => {
            copy.content = Content::Negative { status: 410 };
            copy.fresh_since = if name == "negative-fresh" {
                seconds_ago(10).plus(Duration::from_millis(1))
            } else {
                seconds_ago(10)
            };
        }
        "fresh" => copy.fresh_since = seconds_ago(ttl).plus(Duration::from_millis(1)),
        "expired" => {}
        "expired-pointer" => copy.content = Content::Pointer("generation/1".into()),
        "expired-bare" => (copy.headers.etag, copy.headers.last_modified) = (None, None),
        "expired-in-window" => policy.stale_while_revalidate = Duration::from_millis(1),
        "expired-past-window" => {
            copy.fresh_since = seconds_ago(ttl + 60);
            policy.stale_while_revalidate = Duration::from_mins(1);
        }
        "too-old-in-window" => {
            policy.stale_while_revalidate = Duration::from_mins(1);
            copy.contacted_at = seconds_ago(5_001);
        }
        "from-the-future" => {
            policy.stale_while_revalidate = Duration::from_mins(1);
            copy.fresh_since = NOW
                .plus(Duration::from_mins(5))
                .plus(Duration::from_millis(1));
        }
        other => panic!("no state {other}"),
    }
    (Some(copy), policy)
}

#[test]
fn every_state_class_and_setting_decides_as_the_specification_says() {
    let mut seen = std::collections::BTreeSet::new();
    for line in TABLE
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, class_name, cells @ ..] = words.as_slice() else {
            panic!("short row: {line}")
        };
        assert_eq!(cells.len(), SETTINGS, "{line}");
        let class = class_named(class_name);
        for (column, cell) in cells.iter().enumerate() {
            let expected = match *cell {
                "S" => Decision::Serve,
                "R" => Decision::ServeAndRefresh,
                "N" => Decision::ServeNegative(410),
                "F" => Decision::Fetch { expired: false },
                "E" => Decision::Fetch { expired: true },
                "H" => Decision::Revalidate(RevalidateWith::Head),
                "G" => Decision::Revalidate(RevalidateWith::Get),
                other => panic!("no decision {other}"),
            };
            let (record, policy) = state(name, class, policy(column));
            assert_eq!(
                decide(record.as_ref(), class, &policy, NOW),
                expected,
                "column {column} of: {line}"
            );
            assert!(
                seen.insert((name.to_string(), class_name.to_string(), column)),
                "twice: {line}"
            );
        }
    }
    assert_eq!(seen.len(), STATES * CLASSES * SETTINGS, "every cell once");
}

#[test]
fn zero_immutable_ttl_is_for_ever_and_zero_mutable_ttl_asks_every_time() {
    let policy = CachePolicy {
        mutable_ttl: Duration::ZERO,
        ..CachePolicy::default()
    };
    let mut copy = record();
    copy.fresh_since = UnixMillis(0);
    assert_eq!(
        decide(Some(&copy), Mutability::Immutable, &policy, NOW),
        Decision::Serve
    );
    // Another replica's clock is a little ahead: still no request goes unasked.
    copy.fresh_since = NOW.plus(Duration::from_secs(5));
    assert_eq!(
        decide(Some(&copy), BUILT_IN, &policy, NOW),
        Decision::Fetch { expired: true }
    );
}

/// The clock was a year or an hour ahead when the record was written: nothing of it is from the future any more, and its life is over,
/// however it is looked at. What other machines' clocks make of a few minutes is let be.
#[test]
fn hazard_a_record_from_the_future_counts_as_contacted_now_and_expired() {
    let policy = CachePolicy {
        immutable_ttl: Some(Duration::from_hours(24)),
        ..CachePolicy::default()
    };
    for ahead in [
        Duration::from_mins(6),
        Duration::from_hours(1),
        Duration::from_hours(24 * 365),
    ] {
        let late = NOW.plus(ahead);
        let wrong = ArtifactRecord {
            first_seen_at: late,
            contacted_at: late,
            fresh_since: late,
            served_since: late,
            ..record()
        };
        let record = believed(wrong, NOW);
        assert_eq!(
            (
                record.contacted_at,
                record.served_since,
                record.first_seen_at
            ),
            (NOW, NOW, NOW)
        );
        for class in [Mutability::Immutable, BUILT_IN, USER_DEFINED] {
            assert!(
                fresh_until(&record, class, &policy).unwrap() < NOW,
                "{ahead:?}"
            );
            assert!(
                !matches!(decide(Some(&record), class, &policy, NOW), Decision::Serve),
                "{ahead:?}"
            );
        }
        assert_eq!(
            decide(Some(&record), NAMED_BY_DIGEST, &policy, NOW),
            Decision::Serve,
            "what has no life does not end"
        );
    }
    let skewed = ArtifactRecord {
        fresh_since: NOW.plus(Duration::from_mins(2)),
        ..record()
    };
    assert_eq!(believed(skewed.clone(), NOW), skewed);
}

#[test]
fn negative_ttl_zero_remembers_nothing() {
    let policy = CachePolicy {
        negative_ttl: Duration::ZERO,
        ..CachePolicy::default()
    };
    let mut absent = record();
    absent.content = Content::Negative { status: 404 };
    assert_eq!(
        decide(Some(&absent), BUILT_IN, &policy, NOW),
        Decision::Fetch { expired: false }
    );
}

#[test]
fn a_clock_that_went_back_makes_no_record_immortal() {
    let policy = CachePolicy {
        stale_max_age: Some(Duration::from_hours(1)),
        ..CachePolicy::default()
    };
    let mut copy = record();
    copy.fresh_since = NOW.plus(Duration::from_hours(25));
    copy.contacted_at = copy.fresh_since;
    assert_eq!(
        decide(Some(&copy), BUILT_IN, &policy, NOW),
        Decision::Fetch { expired: true }
    );
    assert!(!stale_allowed(&copy, &policy, NOW));
    let mut absent = copy;
    absent.content = Content::Negative { status: 404 };
    assert_eq!(
        decide(Some(&absent), BUILT_IN, &policy, NOW),
        Decision::Fetch { expired: false }
    );
}

#[test]
fn stale_max_age_counts_from_the_last_good_contact_and_includes_its_end() {
    let policy = CachePolicy {
        stale_max_age: Some(Duration::from_mins(1)),
        ..CachePolicy::default()
    };
    let mut copy = record();
    copy.fresh_since = NOW;
    copy.contacted_at = seconds_ago(60);
    assert!(stale_allowed(&copy, &policy, NOW));
    copy.contacted_at = UnixMillis(seconds_ago(60).0 - 1);
    assert!(
        !stale_allowed(&copy, &policy, NOW),
        "a stale renewal is no contact"
    );
    assert!(
        stale_allowed(&copy, &CachePolicy::default(), NOW),
        "no bound"
    );
    copy.content = Content::HeadOnly;
    assert!(
        !stale_allowed(&copy, &CachePolicy::default(), NOW),
        "nothing to serve"
    );
}

#[test]
fn what_another_larder_merged_without_all_members_is_fresh_for_half_a_minute() {
    let (mut copy, policy) = (record(), policy(0));
    copy.fresh_since = UnixMillis(7);
    let skipped = (StoredHeaders::SKIPPED_MEMBERS.to_owned(), "dead".to_owned());
    copy.headers.further.extend([skipped]);
    let until = fresh_until(&copy, BUILT_IN, &policy);
    assert_eq!(until, Some(UnixMillis(30_007)));
    assert_eq!(
        decide(Some(&copy), BUILT_IN, &policy, UnixMillis(30_006)),
        Decision::Serve
    );
    assert_ne!(
        decide(Some(&copy), BUILT_IN, &policy, UnixMillis(30_007)),
        Decision::Serve
    );
    // What never changes is no merged document, whatever its upstream says.
    let until = fresh_until(&copy, Mutability::Immutable, &policy);
    assert_eq!(until, Some(UnixMillis(1_000_007)));
}

#[test]
fn fresh_until_is_the_renewal_plus_the_life_of_the_class() {
    let policy = policy(0);
    let mut copy = record();
    copy.fresh_since = UnixMillis(7);
    assert_eq!(
        fresh_until(&copy, BUILT_IN, &policy),
        Some(UnixMillis(100_007))
    );
    assert_eq!(
        fresh_until(&copy, Mutability::Immutable, &policy),
        Some(UnixMillis(1_000_007))
    );
    assert_eq!(fresh_until(&copy, NAMED_BY_DIGEST, &policy), None);
    assert_eq!(
        fresh_until(&copy, Mutability::Immutable, &CachePolicy::default()),
        None
    );
}

proptest! {
    #[test]
    fn only_a_fresh_copy_is_served_without_asking(
        record in any_record(), class in any_class(), policy in any_policy(), after in any_interval(),
    ) {
        let now = UnixMillis(record.fresh_since.0 + after);
        let decision = decide(Some(&record), class, &policy, now);
        let held = matches!(record.content, Content::Blob(_) | Content::Pointer(_));
        match decision {
            Decision::Serve => {
                prop_assert!(held);
                if let Some(until) = fresh_until(&record, class, &policy) {
                    prop_assert!(now < until);
                    prop_assert!(record.fresh_since.0 <= now.0 + 300_000);
                }
            }
            Decision::ServeAndRefresh => {
                prop_assert!(held && !policy.stale_while_revalidate.is_zero());
                let until = fresh_until(&record, class, &policy).unwrap();
                prop_assert!(until <= now || until == record.fresh_since, "zero life is never fresh");
                prop_assert!(now < until.plus(policy.stale_while_revalidate));
            }
            Decision::Revalidate(_) => prop_assert!(held && record.has_validators()),
            Decision::ServeNegative(status) => prop_assert_eq!(record.content, Content::Negative { status }),
            Decision::Fetch { expired } => prop_assert_eq!(expired, held),
        }
    }
}
