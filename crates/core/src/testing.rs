//! Records, classes and policies for the tests of `decide` and `settle`.

use std::time::Duration;

use proptest::prelude::*;

use crate::{
    ArtifactRecord, BlobDescriptor, CachePolicy, Content, Mutability, Revalidate, StoredHeaders,
    UnixMillis, Verify, sha256,
};

pub(crate) const BUILT_IN: Mutability = Mutability::Mutable {
    user_defined: false,
    named_by_digest: false,
};
pub(crate) const USER_DEFINED: Mutability = Mutability::Mutable {
    user_defined: true,
    named_by_digest: false,
};
pub(crate) const NAMED_BY_DIGEST: Mutability = Mutability::Mutable {
    user_defined: false,
    named_by_digest: true,
};
pub(crate) const CLASSES: [Mutability; 4] = [
    Mutability::Immutable,
    BUILT_IN,
    USER_DEFINED,
    NAMED_BY_DIGEST,
];

/// 2027-01-15T08:00:00Z.
pub(crate) const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

pub(crate) fn seconds_ago(seconds: u64) -> UnixMillis {
    UnixMillis(NOW.0 - i64::try_from(seconds).unwrap() * 1_000)
}

/// A blob of five bytes with both validators, renewed at [`NOW`].
pub(crate) fn record() -> ArtifactRecord {
    ArtifactRecord {
        content: Content::Blob(BlobDescriptor {
            digest: sha256(b"hello"),
            size: 5,
        }),
        headers: StoredHeaders {
            etag: Some("\"v1\"".into()),
            last_modified: Some("Sun, 06 Nov 1994 08:49:37 GMT".into()),
            ..StoredHeaders::default()
        },
        source_url: "https://example.com/hello".into(),
        published_at: None,
        first_seen_at: seconds_ago(1_000_000),
        contacted_at: NOW,
        fresh_since: NOW,
        served_since: seconds_ago(1_000_000),
        verified: false,
    }
}

pub(crate) fn any_class() -> impl Strategy<Value = Mutability> {
    proptest::sample::select(CLASSES.to_vec())
}

fn any_time() -> impl Strategy<Value = UnixMillis> {
    (0_i64..4_000_000_000_000).prop_map(UnixMillis)
}

/// Milliseconds from a remembered time to now: minutes, days or decades, and some of them backwards.
pub(crate) fn any_interval() -> impl Strategy<Value = i64> {
    prop_oneof![
        -200_000_i64..200_000,
        -200_000_000_i64..200_000_000,
        0_i64..2_000_000_000_000
    ]
}

fn any_life() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        (1_u64..200).prop_map(Duration::from_secs),
        (1_u64..1_000_000_000).prop_map(Duration::from_secs)
    ]
}

pub(crate) fn any_record() -> impl Strategy<Value = ArtifactRecord> {
    let content = prop_oneof![
        3 => Just(record().content),
        1 => Just(Content::Pointer("other".into())),
        1 => proptest::sample::select(vec![404, 410]).prop_map(|status| Content::Negative { status }),
        1 => Just(Content::HeadOnly),
    ];
    (content, any::<bool>(), any_time(), any_time()).prop_map(
        |(content, validators, contacted_at, fresh_since)| {
            let mut made = ArtifactRecord {
                content,
                contacted_at,
                fresh_since,
                ..record()
            };
            if !validators {
                made.headers = StoredHeaders::default();
            }
            made
        },
    )
}

pub(crate) fn any_policy() -> impl Strategy<Value = CachePolicy> {
    let ways = vec![
        None,
        Some(Revalidate::Head),
        Some(Revalidate::Get),
        Some(Revalidate::Never),
    ];
    (
        (
            proptest::option::of(any_life()),
            any_life(),
            any_life(),
            any_life(),
        ),
        proptest::option::of(any_life()),
        any::<bool>(),
        proptest::sample::select(ways),
        proptest::collection::vec(400_u16..600, 0..20),
    )
        .prop_map(
            |(lives, stale_max_age, check_mutable_updates, revalidate, stale_on_status)| {
                CachePolicy {
                    immutable_ttl: lives.0,
                    mutable_ttl: lives.1,
                    negative_ttl: lives.2,
                    missing_status: Vec::new(),
                    no_rollback: false,
                    verify: Verify::Enforce,
                    presign: false,
                    stale_while_revalidate: lives.3,
                    stale_wait: CachePolicy::STALE_WAIT,
                    stale_max_age,
                    check_mutable_updates,
                    revalidate,
                    stale_on_status,
                }
            },
        )
}
