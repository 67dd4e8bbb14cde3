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
    allowed_by: Option<usize>,
    classed_by: ClassRule,
}

impl Access {
    /// The class of the path.
    pub fn mutability(self) -> Mutability {
        self.mutability
    }

    /// The place in `allow_patterns` of the pattern that lets the path in; `None` if the list is empty, which lets in all.
    pub fn allowed_by(self) -> Option<usize> {
        self.allowed_by
    }

    /// What gives the path its class.
    pub fn classed_by(self) -> ClassRule {
        self.classed_by
    }
}

/// What gives a path its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClassRule {
    /// The format's own patterns.
    BuiltIn,
    /// The pattern at this place of `mutable_patterns`.
    MutablePattern(usize),
    /// The pattern at this place of `immutable_patterns`.
    ImmutablePattern(usize),
    /// The repository has no `immutable_patterns`: whatever is not mutable is immutable.
    NoImmutablePatterns,
}

/// A path that may not, and the rule that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessDenied {
    /// `allow_patterns`, `deny_patterns` or `immutable_patterns`.
    pub rule: &'static str,
    /// The place in that list of the pattern that decided; `None` if it was that none of them matches.
    pub pattern: Option<usize>,
    /// Whether a pattern ran into its step limit (counts as a deny and raises a metric).
    pub pattern_limit: bool,
}

impl AccessDenied {
    /// No pattern of the list matches.
    fn unmatched(rule: &'static str) -> Self {
        Self {
            rule,
            pattern: None,
            pattern_limit: false,
        }
    }
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
        if let Some(pattern) = first_match(&self.deny, path, "deny_patterns")? {
            return Err(AccessDenied {
                rule: "deny_patterns",
                pattern: Some(pattern),
                pattern_limit: false,
            });
        }
        let allowed_by = first_match(&self.allow, path, "allow_patterns")?;
        if !self.allow.is_empty() && allowed_by.is_none() {
            return Err(AccessDenied::unmatched("allow_patterns"));
        }
        let built_in_mutable = match built_in {
            BuiltIn::Mutable | BuiltIn::MutableNamedByDigest => true,
            BuiltIn::MutableUnlessConfigured => self.mutable.is_none() && self.immutable.is_none(),
            BuiltIn::None => false,
        };
        let mutable = self.mutable.as_deref().unwrap_or_default();
        let mutable_by = if built_in_mutable {
            Some(ClassRule::BuiltIn)
        } else {
            first_match(mutable, path, "mutable_patterns")?.map(ClassRule::MutablePattern)
        };
        if let Some(classed_by) = mutable_by {
            return Ok(Access {
                mutability: Mutability::Mutable {
                    user_defined: !built_in_mutable,
                    named_by_digest: built_in == BuiltIn::MutableNamedByDigest,
                },
                allowed_by,
                classed_by,
            });
        }
        let classed_by = match &self.immutable {
            None => ClassRule::NoImmutablePatterns,
            Some(patterns) => first_match(patterns, path, "immutable_patterns")?
                .map(ClassRule::ImmutablePattern)
                .ok_or_else(|| AccessDenied::unmatched("immutable_patterns"))?,
        };
        Ok(Access {
            mutability: Mutability::Immutable,
            allowed_by,
            classed_by,
        })
    }
}

/// The place of the first of `patterns` that matches; the list named `rule` denies when a step limit is hit first.
fn first_match(
    patterns: &[Pattern],
    path: &str,
    rule: &'static str,
) -> Result<Option<usize>, AccessDenied> {
    for (place, pattern) in patterns.iter().enumerate() {
        match pattern.matches(path) {
            Ok(true) => return Ok(Some(place)),
            Ok(false) => {}
            Err(pattern::StepLimit) => {
                return Err(AccessDenied {
                    rule,
                    pattern: Some(place),
                    pattern_limit: true,
                });
            }
        }
    }
    Ok(None)
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
        Err(AccessDenied::unmatched(rule))
    }

    /// Denied by the first pattern of a list that matches.
    fn refused(rule: &'static str, pattern: usize) -> Result<Mutability, AccessDenied> {
        Err(AccessDenied {
            rule,
            pattern: Some(pattern),
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
                refused("deny_patterns", 0)
            );
        }
    }

    /// Which pattern of which list decided, of several that match the first.
    #[test]
    fn access_says_what_decided() {
        let mut policy = rules(Some(&["^x", "index"]), Some(&["nothing", "file", "f"]));
        policy.allow = patterns(&["^a/", "^team/", "^t"]);
        policy.deny = patterns(&["never", "secret"]);
        let by = |path, built_in| {
            let access = policy.classify(path, built_in).unwrap();
            (access.allowed_by(), access.classed_by())
        };
        assert_eq!(
            by("team/file", BuiltIn::None),
            (Some(1), ClassRule::ImmutablePattern(1))
        );
        assert_eq!(
            by("a/index", BuiltIn::None),
            (Some(0), ClassRule::MutablePattern(1))
        );
        assert_eq!(
            by("a/index", BuiltIn::Mutable),
            (Some(0), ClassRule::BuiltIn)
        );
        let denied = |path| policy.classify(path, BuiltIn::None).unwrap_err();
        assert_eq!(denied("team/secret/file").pattern, Some(1));
        assert_eq!(denied("other/file").pattern, None);
        let open = AccessPolicy::default()
            .classify("x", BuiltIn::None)
            .unwrap();
        assert_eq!(
            (open.allowed_by(), open.classed_by()),
            (None, ClassRule::NoImmutablePatterns)
        );
    }

    /// Contract, section 2: "a limit hit is a deny plus a metric", in whichever list.
    #[test]
    fn hazard_r6_a_step_limit_denies_and_is_marked() {
        let explosive = r"(.*)(.*)(.*)(.*)\1x";
        let path = "a/".repeat(500);
        let limit = |rule| {
            Err(AccessDenied {
                rule,
                pattern: Some(0),
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
                _ if path.contains('d') => refused("deny_patterns", 0),
                Some(b'a') => Ok(USER),
                Some(b'b') => Ok(IMMUTABLE),
                _ => denied("immutable_patterns"),
            };
            prop_assert_eq!(found, expected);
        }
    }
}
