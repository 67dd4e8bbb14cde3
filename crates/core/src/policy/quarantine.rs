//! Minimum release age: publish date + age -> clear, or held until.

use std::time::Duration;

use crate::clock::UnixMillis;

/// What the operator set for one repository.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QuarantinePolicy {
    /// `None` = off. The contract's `quarantine_new` with `quarantine_days`.
    pub hold: Option<Duration>,
    /// What to do when no publish date is known.
    pub missing_date: MissingDate,
}

/// `quarantine_missing_date`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissingDate {
    /// Let it through: the contract's rule.
    #[default]
    Allow,
    /// Hold it for ever.
    Deny,
    /// Count from the first time larder saw it.
    FirstSeen,
}

/// What quarantine says of an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// May be served.
    Clear,
    /// May not be served before this time; `None` = not known when (`missing_date: deny`).
    Held {
        /// When it becomes clear.
        until: Option<UnixMillis>,
    },
}

impl QuarantinePolicy {
    /// Whether an artifact may be served at `now` (contract, section 5).
    ///
    /// It is held while `now < published + hold`; at that very moment it is clear. A publish date after the first contact
    /// counts as the first contact, or a wrong upstream clock would hold the artifact for years.
    ///
    /// ```
    /// use std::time::Duration;
    /// use larder_core::{QuarantinePolicy, UnixMillis, Verdict};
    ///
    /// let policy = QuarantinePolicy { hold: Some(Duration::from_secs(60)), ..QuarantinePolicy::default() };
    /// let published = Some(UnixMillis(0));
    /// let held = Verdict::Held { until: Some(UnixMillis(60_000)) };
    /// assert_eq!(policy.verdict(published, UnixMillis(5), UnixMillis(59_999)), held);
    /// assert_eq!(policy.verdict(published, UnixMillis(5), UnixMillis(60_000)), Verdict::Clear);
    /// ```
    pub fn verdict(
        &self,
        published_at: Option<UnixMillis>,
        first_seen_at: UnixMillis,
        now: UnixMillis,
    ) -> Verdict {
        let Some(hold) = self.hold else {
            return Verdict::Clear;
        };
        let since = match (published_at, self.missing_date) {
            (Some(published), _) => published.min(first_seen_at),
            (None, MissingDate::FirstSeen) => first_seen_at,
            (None, MissingDate::Allow) => return Verdict::Clear,
            (None, MissingDate::Deny) => return Verdict::Held { until: None },
        };
        let until = since.plus(hold);
        if now < until {
            Verdict::Held { until: Some(until) }
        } else {
            Verdict::Clear
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = 86_400_000;

    fn days(count: u64) -> Duration {
        Duration::from_hours(count * 24)
    }

    fn held(until: i64) -> Verdict {
        Verdict::Held {
            until: Some(UnixMillis(until)),
        }
    }

    #[test]
    fn held_until_the_hold_is_over_and_clear_at_that_very_moment() {
        let policy = QuarantinePolicy {
            hold: Some(days(3)),
            missing_date: MissingDate::Allow,
        };
        let verdict = |now| {
            policy.verdict(
                Some(UnixMillis(10 * DAY)),
                UnixMillis(11 * DAY),
                UnixMillis(now),
            )
        };
        assert_eq!(verdict(11 * DAY), held(13 * DAY));
        assert_eq!(verdict(13 * DAY - 1), held(13 * DAY));
        assert_eq!(verdict(13 * DAY), Verdict::Clear);
        assert_eq!(verdict(100 * DAY), Verdict::Clear);
    }

    #[test]
    fn off_means_off() {
        for missing_date in [
            MissingDate::Allow,
            MissingDate::Deny,
            MissingDate::FirstSeen,
        ] {
            let policy = QuarantinePolicy {
                hold: None,
                missing_date,
            };
            for published in [None, Some(UnixMillis(DAY))] {
                assert_eq!(
                    policy.verdict(published, UnixMillis(DAY), UnixMillis(DAY)),
                    Verdict::Clear
                );
            }
        }
    }

    #[test]
    fn without_a_date_the_setting_decides() {
        let verdict = |missing_date, now| {
            QuarantinePolicy {
                hold: Some(days(3)),
                missing_date,
            }
            .verdict(None, UnixMillis(10 * DAY), UnixMillis(now))
        };
        assert_eq!(
            verdict(MissingDate::Allow, 10 * DAY),
            Verdict::Clear,
            "the contract lets it through"
        );
        assert_eq!(
            verdict(MissingDate::Deny, 1_000 * DAY),
            Verdict::Held { until: None }
        );
        assert_eq!(
            verdict(MissingDate::FirstSeen, 13 * DAY - 1),
            held(13 * DAY)
        );
        assert_eq!(verdict(MissingDate::FirstSeen, 13 * DAY), Verdict::Clear);
        assert_eq!(QuarantinePolicy::default().missing_date, MissingDate::Allow);
    }

    #[test]
    fn a_date_in_the_future_counts_as_first_seen() {
        let policy = QuarantinePolicy {
            hold: Some(days(3)),
            missing_date: MissingDate::Allow,
        };
        let verdict = |now| {
            policy.verdict(
                Some(UnixMillis(5_000 * DAY)),
                UnixMillis(10 * DAY),
                UnixMillis(now),
            )
        };
        assert_eq!(verdict(10 * DAY), held(13 * DAY));
        assert_eq!(verdict(13 * DAY), Verdict::Clear);
    }

    #[test]
    fn an_enormous_hold_does_not_wrap_round() {
        let policy = QuarantinePolicy {
            hold: Some(Duration::MAX),
            missing_date: MissingDate::Allow,
        };
        assert_eq!(
            policy.verdict(Some(UnixMillis(0)), UnixMillis(0), UnixMillis(i64::MAX - 1)),
            held(i64::MAX)
        );
    }

    proptest! {
        #[test]
        fn a_held_artifact_is_never_clear_before_its_time(
            published in proptest::option::of(any::<i32>()), seen in 0_i64..4_000_000_000_000, hold in 0_u64..100_000_000,
            missing_date in proptest::sample::select(vec![MissingDate::Allow, MissingDate::Deny, MissingDate::FirstSeen]),
            now in 0_i64..4_000_000_000_000, earlier in 0_i64..4_000_000_000,
        ) {
            let policy = QuarantinePolicy { hold: Some(Duration::from_secs(hold)), missing_date };
            let published = published.map(|offset| UnixMillis(seen + i64::from(offset)));
            let verdict = |now| policy.verdict(published, UnixMillis(seen), UnixMillis(now));
            match verdict(now) {
                Verdict::Held { until: Some(until) } => {
                    prop_assert!(now < until.0);
                    prop_assert!(until.0 <= seen + i64::try_from(hold).unwrap() * 1_000, "first contact bounds the wait");
                    prop_assert_eq!(verdict(now - earlier), Verdict::Held { until: Some(until) });
                    prop_assert_eq!(verdict(until.0 - 1), Verdict::Held { until: Some(until) });
                    prop_assert_eq!(verdict(until.0), Verdict::Clear);
                }
                Verdict::Held { until: None } => {
                    prop_assert!(published.is_none());
                    prop_assert_eq!(missing_date, MissingDate::Deny);
                }
                Verdict::Clear => prop_assert_eq!(verdict(now + earlier), Verdict::Clear, "clear for good"),
            }
        }
    }
}
