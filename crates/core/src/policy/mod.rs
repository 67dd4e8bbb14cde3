//! What "allowed" means, in evaluation order: deny and allow lists, then class (contract, section 3, "Class").
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

/// A path that may be served: whoever holds one has asked the rules, for only [`AccessPolicy::classify`] makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    mutability: Mutability,
}

impl Access {
    /// The class of the path.
    pub fn mutability(self) -> Mutability {
        self.mutability
    }
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
    /// assert_eq!(rules.classify("tool-1.0.tgz", BuiltIn::None).unwrap().mutability(), Mutability::Immutable);
    /// assert_eq!(rules.classify("notes.txt", BuiltIn::None).unwrap_err().rule, "immutable_patterns");
    /// # Ok::<(), larder_core::PatternError>(())
    /// ```
    pub fn classify(&self, path: &str, built_in: BuiltIn) -> Result<Access, AccessDenied> {
        if any_match(&self.deny, path, "deny_patterns")? {
            return Err(AccessDenied {
                rule: "deny_patterns",
                pattern_limit: false,
            });
        }
        if !self.allow.is_empty() && !any_match(&self.allow, path, "allow_patterns")? {
            return Err(AccessDenied {
                rule: "allow_patterns",
                pattern_limit: false,
            });
        }
        let built_in_mutable = match built_in {
            BuiltIn::Mutable | BuiltIn::MutableNamedByDigest => true,
            BuiltIn::MutableUnlessConfigured => self.mutable.is_none() && self.immutable.is_none(),
            BuiltIn::None => false,
        };
        if built_in_mutable
            || any_match(
                self.mutable.as_deref().unwrap_or_default(),
                path,
                "mutable_patterns",
            )?
        {
            let named_by_digest = built_in == BuiltIn::MutableNamedByDigest;
            return Ok(Access {
                mutability: Mutability::Mutable {
                    user_defined: !built_in_mutable,
                    named_by_digest,
                },
            });
        }
        match &self.immutable {
            Some(patterns) if !any_match(patterns, path, "immutable_patterns")? => {
                Err(AccessDenied {
                    rule: "immutable_patterns",
                    pattern_limit: false,
                })
            }
            Some(_) | None => Ok(Access {
                mutability: Mutability::Immutable,
            }),
        }
    }
}

/// Whether one of `patterns` matches; the list named `rule` denies when a step limit is hit first.
fn any_match(patterns: &[Pattern], path: &str, rule: &'static str) -> Result<bool, AccessDenied> {
    for pattern in patterns {
        match pattern.matches(path) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(pattern::StepLimit) => {
                return Err(AccessDenied {
                    rule,
                    pattern_limit: true,
                });
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IMMUTABLE: Mutability = Mutability::Immutable;
    const BUILT_IN: Mutability = Mutability::Mutable {
        user_defined: false,
        named_by_digest: false,
    };
    const USER: Mutability = Mutability::Mutable {
        user_defined: true,
        named_by_digest: false,
    };
    const DIGEST: Mutability = Mutability::Mutable {
        user_defined: false,
        named_by_digest: true,
    };

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts
            .iter()
            .map(|text| Pattern::compile(text).unwrap())
            .collect()
    }

    fn rules(mutable: Option<&[&str]>, immutable: Option<&[&str]>) -> AccessPolicy {
        AccessPolicy {
            mutable: mutable.map(patterns),
            immutable: immutable.map(patterns),
            ..AccessPolicy::default()
        }
    }

    fn denied(rule: &'static str) -> Result<Mutability, AccessDenied> {
        Err(AccessDenied {
            rule,
            pattern_limit: false,
        })
    }

    fn class(
        rules: &AccessPolicy,
        path: &str,
        built_in: BuiltIn,
    ) -> Result<Mutability, AccessDenied> {
        rules.classify(path, built_in).map(Access::mutability)
    }

    /// Contract, section 3, "Class", every row of it.
    #[test]
    fn built_in_then_mutable_then_immutable_then_nothing() {
        let none: Option<&[&str]> = None;
        let nothing: Option<&[&str]> = Some(&[]);
        let (m, i): (Option<&[&str]>, Option<&[&str]>) = (Some(&["index"]), Some(&["file"]));
        let rows = [
            // mutable, immutable, path, built-in, class
            (none, none, "x", BuiltIn::None, Ok(IMMUTABLE)),
            (none, none, "x", BuiltIn::Mutable, Ok(BUILT_IN)),
            (none, none, "x", BuiltIn::MutableNamedByDigest, Ok(DIGEST)),
            (
                none,
                none,
                "x",
                BuiltIn::MutableUnlessConfigured,
                Ok(BUILT_IN),
            ),
            (
                none,
                nothing,
                "x",
                BuiltIn::None,
                denied("immutable_patterns"),
            ),
            (none, nothing, "x", BuiltIn::Mutable, Ok(BUILT_IN)),
            (
                none,
                nothing,
                "x",
                BuiltIn::MutableNamedByDigest,
                Ok(DIGEST),
            ),
            (
                none,
                nothing,
                "x",
                BuiltIn::MutableUnlessConfigured,
                denied("immutable_patterns"),
            ),
            (
                nothing,
                none,
                "x",
                BuiltIn::MutableUnlessConfigured,
                Ok(IMMUTABLE),
            ),
            (
                m,
                none,
                "x",
                BuiltIn::MutableUnlessConfigured,
                Ok(IMMUTABLE),
            ),
            (m, none, "index", BuiltIn::MutableUnlessConfigured, Ok(USER)),
            (m, none, "x", BuiltIn::None, Ok(IMMUTABLE)),
            (m, i, "x", BuiltIn::None, denied("immutable_patterns")),
            (m, i, "x", BuiltIn::Mutable, Ok(BUILT_IN)),
            (m, i, "index", BuiltIn::None, Ok(USER)),
            (m, i, "index", BuiltIn::Mutable, Ok(BUILT_IN)),
            (m, i, "index", BuiltIn::MutableNamedByDigest, Ok(DIGEST)),
            (m, i, "file", BuiltIn::None, Ok(IMMUTABLE)),
            (m, i, "index-file", BuiltIn::None, Ok(USER)),
            (m, nothing, "index", BuiltIn::None, Ok(USER)),
            (
                m,
                nothing,
                "file",
                BuiltIn::None,
                denied("immutable_patterns"),
            ),
        ];
        for (mutable, immutable, path, built_in, expected) in rows {
            let found = class(&rules(mutable, immutable), path, built_in);
            assert_eq!(
                found, expected,
                "{mutable:?} {immutable:?} {path} {built_in:?}"
            );
        }
    }

    #[test]
    fn allow_and_deny_lists_come_before_the_class_for_mutable_paths_too() {
        let mut policy = rules(Some(&["index"]), None);
        policy.deny = patterns(&["secret"]);
        policy.allow = patterns(&["^team/", "^shared/"]);
        assert_eq!(class(&policy, "team/tool", BuiltIn::None), Ok(IMMUTABLE));
        assert_eq!(class(&policy, "shared/index", BuiltIn::None), Ok(USER));
        for built_in in [
            BuiltIn::None,
            BuiltIn::Mutable,
            BuiltIn::MutableNamedByDigest,
            BuiltIn::MutableUnlessConfigured,
        ] {
            assert_eq!(
                class(&policy, "other/index", built_in),
                denied("allow_patterns")
            );
            assert_eq!(
                class(&policy, "team/secret/index", built_in),
                denied("deny_patterns")
            );
        }
    }

    /// Contract, section 2: "a limit hit is a deny plus a metric", in whichever list.
    #[test]
    fn hazard_r6_a_step_limit_denies_and_is_marked() {
        let explosive = r"(.*)(.*)(.*)(.*)\1x";
        let path = "a/".repeat(500);
        let limit = |rule| {
            Err(AccessDenied {
                rule,
                pattern_limit: true,
            })
        };
        let deny = AccessPolicy {
            deny: patterns(&[explosive]),
            ..AccessPolicy::default()
        };
        let allow = AccessPolicy {
            allow: patterns(&[explosive]),
            ..AccessPolicy::default()
        };
        assert_eq!(
            class(&deny, &path, BuiltIn::Mutable),
            limit("deny_patterns")
        );
        assert_eq!(
            class(&allow, &path, BuiltIn::Mutable),
            limit("allow_patterns")
        );
        assert_eq!(
            class(&rules(Some(&[explosive]), None), &path, BuiltIn::None),
            limit("mutable_patterns")
        );
        assert_eq!(
            class(&rules(None, Some(&[explosive])), &path, BuiltIn::None),
            limit("immutable_patterns")
        );
        // A pattern that has matched before it, or a built-in one, has already decided.
        assert_eq!(
            class(
                &rules(Some(&["^a/", explosive]), None),
                &path,
                BuiltIn::None
            ),
            Ok(USER)
        );
        assert_eq!(
            class(&rules(Some(&[explosive]), None), &path, BuiltIn::Mutable),
            Ok(BUILT_IN)
        );
    }

    proptest! {
        #[test]
        fn nothing_unmatched_passes_and_nothing_denied_ever_does(path in "[a-d/.]{0,20}") {
            let mut policy = rules(Some(&["^a"]), Some(&["^b"]));
            policy.deny = patterns(&["d"]);
            let found = class(&policy, &path, BuiltIn::None);
            let expected = match path.as_bytes().first() {
                _ if path.contains('d') => denied("deny_patterns"),
                Some(b'a') => Ok(USER),
                Some(b'b') => Ok(IMMUTABLE),
                _ => denied("immutable_patterns"),
            };
            prop_assert_eq!(found, expected);
        }
    }
}
