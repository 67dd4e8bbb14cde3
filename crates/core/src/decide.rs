//! `decide`: given what is remembered, the rules and the time, what to do with a request. Pure.
//!
//! Knows freshness in the words of RFC 9111 and RFC 5861. Knows nothing of quarantine, access or how the upstream is asked.

use std::time::Duration;

use crate::cache_policy::{CachePolicy, Revalidate};
use crate::clock::UnixMillis;
use crate::policy::mutability::Mutability;
use crate::record::{ArtifactRecord, Content, StoredHeaders};

/// What kind of file the request is for.
pub type Class = Mutability;

/// How to compare an expired copy with the upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevalidateWith {
    /// Conditional HEAD first.
    Head,
    /// Conditional GET.
    Get,
}

/// What to do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The copy is good: serve it.
    Serve,
    /// The copy has expired but may be served at once while it is refreshed behind the scenes.
    ServeAndRefresh,
    /// The upstream said 404 or 410 a moment ago: say so again.
    ServeNegative(u16),
    /// Ask the upstream whether the copy is still good.
    Revalidate(RevalidateWith),
    /// Get the body; `expired` if a copy exists that may serve if the upstream cannot be reached.
    Fetch {
        /// Whether a copy is held.
        expired: bool,
    },
}

/// The life of a copy of this class; `None` = unlimited.
pub fn time_to_live(class: Class, policy: &CachePolicy) -> Option<Duration> {
    match class {
        Mutability::Mutable {
            named_by_digest: true,
            ..
        } => None,
        Mutability::Mutable { .. } => Some(policy.mutable_ttl),
        Mutability::Immutable => policy.immutable_ttl,
    }
}

/// What lacks a member, or has a copy in the place of one that failed, holds no longer than this.
pub const INCOMPLETE: Duration = Duration::from_secs(30);

/// The life of this copy: of its class, but that of what another larder merged without all of its members is short.
fn life(record: &ArtifactRecord, class: Class, policy: &CachePolicy) -> Option<Duration> {
    let lacks_members = || {
        record
            .headers
            .further
            .contains_key(StoredHeaders::SKIPPED_MEMBERS)
    };
    let is_short = matches!(class, Mutability::Mutable { .. }) && lacks_members();
    time_to_live(class, policy).map(|ttl| if is_short { ttl.min(INCOMPLETE) } else { ttl })
}

/// When the copy expires; `None` = never. A copy is fresh while `now` is before this.
pub fn fresh_until(
    record: &ArtifactRecord,
    class: Class,
    policy: &CachePolicy,
) -> Option<UnixMillis> {
    life(record, class, policy).map(|ttl| record.fresh_since.plus(ttl))
}

/// How far in the future a remembered time may lie before it is taken for the mark of a clock that was wrong.
/// Minutes: clocks of several machines differ by less, and a copy whose life is short must not outlive it by hours because the
/// clock was set back while larder was down.
const CLOCK_TOLERANCE: Duration = Duration::from_mins(5);

/// Whether `time` lies so far ahead that it cannot be trusted.
fn implausible(time: UnixMillis, now: UnixMillis) -> bool {
    time > now.plus(CLOCK_TOLERANCE)
}

/// A record as it is believed at `now`, when it comes out of a store that may have been written under a clock that was wrong: what it
/// says to have happened well after `now` happened now, and its life has ended.
pub fn believed(record: ArtifactRecord, now: UnixMillis) -> ArtifactRecord {
    let no_later = |time: UnixMillis| if implausible(time, now) { now } else { time };
    ArtifactRecord {
        fresh_since: if implausible(record.fresh_since, now) {
            UnixMillis::default()
        } else {
            record.fresh_since
        },
        contacted_at: no_later(record.contacted_at),
        served_since: no_later(record.served_since),
        first_seen_at: no_later(record.first_seen_at),
        ..record
    }
}

/// How long a copy that was renewed at `fresh_since` has been expired; `None` while it is fresh.
///
/// A zero `ttl` is never fresh ("check on every request"), whatever other replicas' clocks say. A time further ahead of `now`
/// than clocks differ is no proof of freshness: the clock was wrong once, and the record must not live for ever because of it.
fn expired_for(fresh_since: UnixMillis, ttl: Duration, now: UnixMillis) -> Option<Duration> {
    if implausible(fresh_since, now) {
        return Some(Duration::MAX);
    }
    let until = fresh_since.plus(ttl);
    (now >= until || ttl.is_zero()).then(|| now.since(until))
}

/// Whether the copy may serve though it has expired: there is one, and the last good upstream contact is at most
/// `stale.max_age` ago (contract, section 2; `None` = no bound).
pub fn stale_allowed(record: &ArtifactRecord, policy: &CachePolicy, now: UnixMillis) -> bool {
    record.has_body()
        && policy.stale_max_age.is_none_or(|bound| {
            !implausible(record.contacted_at, now) && now.since(record.contacted_at) <= bound
        })
}

/// What to do with a request for a file of `class`, given what is remembered of it (contract, section 3).
///
/// ```
/// use larder_core::{CachePolicy, Decision, Mutability, UnixMillis, decide};
///
/// let nothing_held = decide(None, Mutability::Immutable, &CachePolicy::default(), UnixMillis(0));
/// assert_eq!(nothing_held, Decision::Fetch { expired: false });
/// ```
pub fn decide(
    record: Option<&ArtifactRecord>,
    class: Class,
    policy: &CachePolicy,
    now: UnixMillis,
) -> Decision {
    let Some(record) = record else {
        return Decision::Fetch { expired: false };
    };
    match record.content {
        Content::HeadOnly => Decision::Fetch { expired: false },
        Content::Negative { status } => {
            match expired_for(record.fresh_since, policy.negative_ttl, now) {
                None => Decision::ServeNegative(status),
                Some(_) => Decision::Fetch { expired: false },
            }
        }
        Content::Blob(_) | Content::Pointer(_) => {
            match life(record, class, policy)
                .and_then(|ttl| expired_for(record.fresh_since, ttl, now))
            {
                None => Decision::Serve,
                Some(expired)
                    if expired < policy.stale_while_revalidate
                        && stale_allowed(record, policy, now) =>
                {
                    Decision::ServeAndRefresh
                }
                Some(_) => refresh(record, class, policy),
            }
        }
    }
}

/// How an expired copy is brought up to date.
fn refresh(record: &ArtifactRecord, class: Class, policy: &CachePolicy) -> Decision {
    let head = Decision::Revalidate(RevalidateWith::Head);
    let get = Decision::Revalidate(RevalidateWith::Get);
    let plain = Decision::Fetch { expired: true };
    if !record.has_validators() {
        return plain;
    }
    match (policy.revalidate, class) {
        (Some(Revalidate::Head), _) => head,
        (Some(Revalidate::Get), _) => get,
        // The contract: only what the operator called mutable is asked about, built-in patterns are fetched again.
        (
            None,
            Mutability::Mutable {
                user_defined: true, ..
            },
        ) if policy.check_mutable_updates => head,
        (Some(Revalidate::Never) | None, _) => plain,
    }
}

#[cfg(test)]
mod tests;
