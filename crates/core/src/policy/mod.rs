//! What "allowed" means, in evaluation order: deny and allow lists, then class (spec section 3 "Class").
//!
//! Knows paths and patterns only: no query, no client, no time.

pub(crate) mod mutability;
pub(crate) mod pattern;
pub(crate) mod quarantine;

use mutability::{BuiltIn, Mutability};
use pattern::Pattern;

/// The path rules of one repository.
#[derive(Debug, Clone, Default)]
pub struct AccessPolicy {
    /// `allow_patterns`: if not empty, a path must match one. Checked first, for mutable paths too.
    pub allow: Vec<Pattern>,
    /// `deny_patterns`: a path must match none. Checked together with `allow`.
    pub deny: Vec<Pattern>,
    /// `mutable_patterns`; `None` if the key is absent.
    pub mutable: Option<Vec<Pattern>>,
    /// `immutable_patterns`; `None` if the key is absent (everything is admitted), empty if it was `[]`.
    pub immutable: Option<Vec<Pattern>>,
}

/// A path that may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Its class.
    pub mutability: Mutability,
}

/// A path that may not, and the rule that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessDenied {
    /// `allow_patterns`, `deny_patterns` or `immutable_patterns`.
    pub rule: &'static str,
    /// Whether a pattern ran into its step limit (counts as a deny and raises a metric).
    pub pattern_limit: bool,
}

impl AccessPolicy {
    /// The class of a decoded `path` (no leading slash, no query), given what its format says of it.
    ///
    /// The deny and allow lists come first, for mutable paths too. Then built-in and configured mutable patterns, then the
    /// immutable ones; without that key every path is admitted as immutable. A pattern that runs into its step limit denies
    /// the path: what it would have said is not known, and a guess could open the upstream or keep an index for ever.
    ///
    /// ```
    /// use larder_core::{AccessPolicy, BuiltIn, Mutability, Pattern};
    ///
    /// let rules = AccessPolicy { immutable: Some(vec![Pattern::compile(r"\.tgz$")?]), ..AccessPolicy::default() };
    /// assert_eq!(rules.classify("tool-1.0.tgz", BuiltIn::None).unwrap().mutability, Mutability::Immutable);
    /// assert_eq!(rules.classify("notes.txt", BuiltIn::None).unwrap_err().rule, "immutable_patterns");
    /// # Ok::<(), larder_core::PatternError>(())
    /// ```
    pub fn classify(&self, path: &str, built_in: BuiltIn) -> Result<Access, AccessDenied> {
        if any_match(&self.deny, path, "deny_patterns")? {
            return Err(AccessDenied { rule: "deny_patterns", pattern_limit: false });
        }
        if !self.allow.is_empty() && !any_match(&self.allow, path, "allow_patterns")? {
            return Err(AccessDenied { rule: "allow_patterns", pattern_limit: false });
        }
        let built_in_mutable = match built_in {
            BuiltIn::Mutable | BuiltIn::MutableNamedByDigest => true,
            BuiltIn::MutableUnlessConfigured => self.mutable.is_none() && self.immutable.is_none(),
            BuiltIn::None => false,
        };
        if built_in_mutable || any_match(self.mutable.as_deref().unwrap_or_default(), path, "mutable_patterns")? {
            let named_by_digest = built_in == BuiltIn::MutableNamedByDigest;
            return Ok(Access { mutability: Mutability::Mutable { user_defined: !built_in_mutable, named_by_digest } });
        }
        match &self.immutable {
            Some(patterns) if !any_match(patterns, path, "immutable_patterns")? => {
                Err(AccessDenied { rule: "immutable_patterns", pattern_limit: false })
            }
            Some(_) | None => Ok(Access { mutability: Mutability::Immutable }),
        }
    }
}

/// Whether one of `patterns` matches; the list named `rule` denies when a step limit is hit first.
fn any_match(patterns: &[Pattern], path: &str, rule: &'static str) -> Result<bool, AccessDenied> {
    for pattern in patterns {
        match pattern.matches(path) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(pattern::StepLimit) => return Err(AccessDenied { rule, pattern_limit: true }),
        }
    }
    Ok(false)
}
