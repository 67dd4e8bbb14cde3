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
    /// Whether an artifact may be served at `now` (spec section 5).
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
    pub fn verdict(&self, published_at: Option<UnixMillis>, first_seen_at: UnixMillis, now: UnixMillis) -> Verdict {
        let Some(hold) = self.hold else { return Verdict::Clear };
        let since = match (published_at, self.missing_date) {
            (Some(published), _) => published.min(first_seen_at),
            (None, MissingDate::FirstSeen) => first_seen_at,
            (None, MissingDate::Allow) => return Verdict::Clear,
            (None, MissingDate::Deny) => return Verdict::Held { until: None },
        };
        let until = since.plus(hold);
        if now < until { Verdict::Held { until: Some(until) } } else { Verdict::Clear }
    }
}
