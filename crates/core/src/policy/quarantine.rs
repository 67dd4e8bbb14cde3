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
    /// Which date is the publish date.
    pub date: DateSource,
    /// Whether versions that are held stay in indexes that are merged of several (`quarantine_index: false`).
    pub keeps_merged: bool,
}

impl QuarantinePolicy {
    /// Whether versions that are held are taken out of merged indexes.
    pub fn hides_in_merges(&self) -> bool {
        self.hold.is_some() && !self.keeps_merged
    }
}

/// `quarantine_date`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DateSource {
    /// The time of publication that the registry states, where it states one; else `Last-Modified`.
    #[default]
    Ecosystem,
    /// The upstream's `Last-Modified`, whatever else is stated: the letter of the contract.
    LastModified,
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

/// When an artifact was published, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dates {
    /// What the registry that published it states.
    pub stated: Option<UnixMillis>,
    /// The upstream's `Last-Modified` at the first contact.
    pub last_modified: Option<UnixMillis>,
    /// When larder first heard of it.
    pub first_seen_at: UnixMillis,
}

/// What a hold is counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountedFrom {
    /// The date that the registry states.
    Stated,
    /// `Last-Modified`.
    LastModified,
    /// The first contact: there is no other date, or it was still to come then.
    FirstSeen {
        /// The date that was still to come.
        instead_of: Option<UnixMillis>,
    },
}

/// What quarantine says of an artifact, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuarantineRuling {
    /// What it says.
    pub verdict: Verdict,
    /// What the hold is counted from, and when that was; `None` if it is off, or `quarantine_missing_date` decided without a date.
    pub counted: Option<(CountedFrom, UnixMillis)>,
}

impl QuarantinePolicy {
    /// Whether an artifact may be served at `now` (contract, section 5), and what that is counted from.
    ///
    /// It is held while `now < published + hold`; at that very moment it is clear. A publish date after the first contact
    /// counts as the first contact, or a wrong upstream clock would hold the artifact for years.
    ///
    /// ```
    /// use std::time::Duration;
    /// use larder_core::{Dates, QuarantinePolicy, UnixMillis, Verdict};
    ///
    /// let policy = QuarantinePolicy { hold: Some(Duration::from_secs(60)), ..QuarantinePolicy::default() };
    /// let dates = Dates { stated: None, last_modified: Some(UnixMillis(0)), first_seen_at: UnixMillis(5) };
    /// let held = Verdict::Held { until: Some(UnixMillis(60_000)) };
    /// assert_eq!(policy.judge(&dates, UnixMillis(59_999)).verdict, held);
    /// assert_eq!(policy.judge(&dates, UnixMillis(60_000)).verdict, Verdict::Clear);
    /// ```
    pub fn judge(&self, dates: &Dates, now: UnixMillis) -> QuarantineRuling {
        let without_date = |verdict| QuarantineRuling {
            verdict,
            counted: None,
        };
        let Some(hold) = self.hold else {
            return without_date(Verdict::Clear);
        };
        let stated = dates
            .stated
            .filter(|_| self.date == DateSource::Ecosystem)
            .map(|at| (CountedFrom::Stated, at));
        let modified = dates
            .last_modified
            .map(|at| (CountedFrom::LastModified, at));
        let first_seen = |instead_of| (CountedFrom::FirstSeen { instead_of }, dates.first_seen_at);
        let counted = match (stated.or(modified), self.missing_date) {
            (Some((_, at)), _) if at > dates.first_seen_at => first_seen(Some(at)),
            (Some(counted), _) => counted,
            (None, MissingDate::FirstSeen) => first_seen(None),
            (None, MissingDate::Allow) => return without_date(Verdict::Clear),
            (None, MissingDate::Deny) => return without_date(Verdict::Held { until: None }),
        };
        let until = counted.1.plus(hold);
        let verdict = if now < until {
            Verdict::Held { until: Some(until) }
        } else {
            Verdict::Clear
        };
        QuarantineRuling {
            verdict,
            counted: Some(counted),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = 86_400_000;

    impl QuarantinePolicy {
        /// Of an artifact whose registry states nothing.
        fn verdict(
            &self,
            last_modified: Option<UnixMillis>,
            first_seen_at: UnixMillis,
            now: UnixMillis,
        ) -> Verdict {
            let dates = Dates {
                stated: None,
                last_modified,
                first_seen_at,
            };
            self.judge(&dates, now).verdict
        }
    }

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
            ..QuarantinePolicy::default()
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
                ..QuarantinePolicy::default()
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
                ..QuarantinePolicy::default()
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
            ..QuarantinePolicy::default()
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

    /// Contract, section 5: "that is used instead"; `quarantine_date: last_modified` restores the letter.
    #[test]
    fn a_date_that_the_registry_states_is_used_instead() {
        let ruling = |date, stated: Option<i64>, last_modified: Option<i64>| {
            let policy = QuarantinePolicy {
                hold: Some(days(3)),
                date,
                ..QuarantinePolicy::default()
            };
            let dates = Dates {
                stated: stated.map(|day| UnixMillis(day * DAY)),
                last_modified: last_modified.map(|day| UnixMillis(day * DAY)),
                first_seen_at: UnixMillis(10 * DAY),
            };
            let ruling = policy.judge(&dates, UnixMillis(10 * DAY));
            (ruling.verdict, ruling.counted.map(|(from, _)| from))
        };
        let ecosystem = DateSource::Ecosystem;
        let stated = Some(CountedFrom::Stated);
        // A mirror that was synchronised anew is not a new release, and an old file time does not make an old one of it.
        assert_eq!(
            ruling(ecosystem, Some(1), Some(9)),
            (Verdict::Clear, stated)
        );
        assert_eq!(
            ruling(ecosystem, Some(9), Some(1)),
            (held(12 * DAY), stated)
        );
        assert_eq!(ruling(ecosystem, Some(9), None), (held(12 * DAY), stated));
        let modified = Some(CountedFrom::LastModified);
        assert_eq!(ruling(ecosystem, None, Some(9)), (held(12 * DAY), modified));
        let letter = DateSource::LastModified;
        assert_eq!(ruling(letter, Some(1), Some(9)), (held(12 * DAY), modified));
        assert_eq!(ruling(letter, Some(9), None), (Verdict::Clear, None));
        let seen = CountedFrom::FirstSeen {
            instead_of: Some(UnixMillis(5_000 * DAY)),
        };
        assert_eq!(
            ruling(ecosystem, Some(5_000), None),
            (held(13 * DAY), Some(seen)),
            "to come"
        );
    }

    #[test]
    fn an_enormous_hold_does_not_wrap_round() {
        let policy = QuarantinePolicy {
            hold: Some(Duration::MAX),
            missing_date: MissingDate::Allow,
            ..QuarantinePolicy::default()
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
            let policy = QuarantinePolicy {
                hold: Some(Duration::from_secs(hold)), missing_date, ..QuarantinePolicy::default()
            };
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
