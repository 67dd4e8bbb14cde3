//! Operators' regular expressions: look-ahead allowed, time bounded.

use regex_syntax::hir::Look;
use regex_syntax::hir::literal::Extractor;

/// A compiled pattern, searched unanchored in the decoded path without its leading slash.
///
/// The linear-time engine is tried first; only patterns it refuses (look-around, back-references) are compiled with the
/// backtracking engine, with a limit of steps.
#[derive(Debug, Clone)]
pub struct Pattern {
    source: std::sync::Arc<str>,
    engine: std::sync::Arc<Engine>,
}

#[derive(Debug)]
enum Engine {
    Linear(regex::Regex),
    /// The same pattern twice, with the step limit for short paths and for long ones.
    Backtracking {
        short: fancy_regex::Regex,
        long: fancy_regex::Regex,
    },
}

/// Why a text cannot be a pattern, for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Longer than 4,096 bytes.
    #[error("pattern is longer than 4096 bytes")]
    TooLong,
    /// Holds a control character: most often `"\b"` or `"\t"` inside double quotes.
    #[error(
        "pattern holds the control character {0:?}: inside double quotes write \"\\\\b\", or use single quotes"
    )]
    Control(char),
    /// Compiles to more than the size limit.
    #[error("pattern is too large once compiled: use smaller repetition counts")]
    TooBig,
    /// Refused by both engines.
    #[error("pattern does not compile: {reason}{}", .at.map_or_else(String::new, |at| format!(", at character {at}")))]
    Syntax {
        /// What is wrong.
        reason: String,
        /// The character, from 1, where it is; `None` where the engine does not say.
        at: Option<usize>,
    },
}

/// The step limit was hit: the path is denied, whichever list the pattern stands in, and a metric rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepLimit;

/// Longest pattern, in bytes.
const MAX_PATTERN_BYTES: usize = 4096;
/// Largest compiled form, in bytes. Counted repetitions of Unicode classes grow fast: `\w{1,255}` takes some 16 MiB.
const COMPILED_LIMIT: usize = 32 << 20;
/// Memory for the lazily built automaton, in bytes per thread and pattern.
const DFA_LIMIT: usize = 2 << 20;
/// Longest path, in bytes, that is matched with the generous step limit.
const SHORT_PATH: usize = 256;
/// Backtracking steps of one match. A step may scan the rest of the path in a look-around, so that 100,000 were measured to
/// take up to 190 ms on the longest path, where the specification allows 50 ms; on a short path they stay far below. Fewer for
/// all would deny ordinary files: an unanchored `(?:(?!test).)*\.zip$` needs more than 50,000 to reject 231 bytes.
const SHORT_PATH_STEPS: usize = 100_000;
/// As [`SHORT_PATH_STEPS`], for longer paths.
const LONG_PATH_STEPS: usize = 10_000;

impl Pattern {
    /// Compiles `text`.
    ///
    /// ```
    /// use larder_core::Pattern;
    ///
    /// let all_but_tarballs = Pattern::compile(r"^(?!.*\.tgz$).*")?;
    /// assert_eq!(all_but_tarballs.matches("@babel/core"), Ok(true));
    /// assert_eq!(all_but_tarballs.matches("express/-/express-4.18.2.tgz"), Ok(false));
    /// # Ok::<(), larder_core::PatternError>(())
    /// ```
    pub fn compile(text: &str) -> Result<Self, PatternError> {
        if text.len() > MAX_PATTERN_BYTES {
            return Err(PatternError::TooLong);
        }
        if let Some(control) = text.chars().find(|c| c.is_control()) {
            return Err(PatternError::Control(control));
        }
        let linear = regex::RegexBuilder::new(text)
            .size_limit(COMPILED_LIMIT)
            .dfa_size_limit(DFA_LIMIT)
            .build();
        let engine = match linear {
            Ok(regex) => Engine::Linear(regex),
            Err(regex::Error::CompiledTooBig(_)) => return Err(PatternError::TooBig),
            Err(refused) => Engine::Backtracking {
                short: compile_backtracking(text, SHORT_PATH_STEPS, &refused)?,
                long: compile_backtracking(text, LONG_PATH_STEPS, &refused)?,
            },
        };
        Ok(Self {
            source: text.into(),
            engine: engine.into(),
        })
    }

    /// Whether the pattern is found anywhere in `path`.
    pub fn matches(&self, path: &str) -> Result<bool, StepLimit> {
        match &*self.engine {
            Engine::Linear(regex) => Ok(regex.is_match(path)),
            Engine::Backtracking { short, long } => {
                let regex = if path.len() <= SHORT_PATH {
                    short
                } else {
                    long
                };
                regex.is_match(path).map_err(|_| StepLimit)
            }
        }
    }

    /// What every path begins with that the pattern is found in; empty where that is not known.
    ///
    /// ```
    /// use larder_core::Pattern;
    ///
    /// assert_eq!(Pattern::compile(r"^pool/(main|misc)/")?.literal_prefix(), "pool/m");
    /// assert_eq!(Pattern::compile(r"pool/")?.literal_prefix(), "");
    /// # Ok::<(), larder_core::PatternError>(())
    /// ```
    pub fn literal_prefix(&self) -> String {
        match &*self.engine {
            Engine::Linear(_) => literal_prefix(&self.source),
            Engine::Backtracking { .. } => String::new(),
        }
    }

    /// The pattern as the operator wrote it.
    pub fn as_str(&self) -> &str {
        &self.source
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

/// What every text begins with that a pattern of the linear engine matches; empty where that is not known.
fn literal_prefix(pattern: &str) -> String {
    let Ok(parsed) = regex_syntax::parse(pattern) else {
        return String::new();
    };
    // Anywhere else than at the beginning, the first literal is not that of the text.
    let begins = parsed.properties().look_set_prefix().contains(Look::Start);
    let literals = Extractor::new().extract(&parsed);
    let common = literals.longest_common_prefix().filter(|_| begins);
    // Literals are cut in bytes.
    let common = common.and_then(|bytes| bytes.utf8_chunks().next());
    let prefix = common.map_or("", |chunk| chunk.valid());
    // No path holds the character zero, and PostgreSQL takes no text with it.
    prefix.split('\0').next().unwrap_or_default().to_owned()
}

/// The engine for look-around and back-references. `refused` is what the linear engine said of the same text.
fn compile_backtracking(
    text: &str,
    steps: usize,
    refused: &regex::Error,
) -> Result<fancy_regex::Regex, PatternError> {
    fancy_regex::RegexBuilder::new(text)
        .backtrack_limit(steps)
        .delegate_size_limit(COMPILED_LIMIT)
        .delegate_dfa_size_limit(DFA_LIMIT)
        .build()
        .map_err(|error| {
            // The linear engine's last line says what is wrong; the lines before it draw the pattern.
            let said = refused.to_string();
            let reason = said
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ");
            let unsupported = reason.contains("not supported");
            if unsupported {
                return PatternError::Syntax {
                    reason: error.to_string(),
                    at: None,
                };
            }
            PatternError::Syntax {
                reason: reason.to_owned(),
                at: place_in(&said),
            }
        })
}

/// Where the drawing of the linear engine points to: below the pattern, which it indents by four, it puts a `^`.
fn place_in(said: &str) -> Option<usize> {
    let pointer = said
        .lines()
        .find(|line| line.contains('^') && line.chars().all(|c| matches!(c, ' ' | '^')))?;
    (pointer.find('^')? + 1).checked_sub(4)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::compile(text).expect(text)
    }

    #[test]
    fn look_ahead_as_in_wide_use_behaves_as_written() {
        let all_but_tarballs = pattern(r"^(?!.*\.tgz$).*");
        for path in [
            "express",
            "@babel/core",
            "-/npm/v1/security/advisories/bulk",
            "x.tgz/y",
            "",
        ] {
            assert_eq!(all_but_tarballs.matches(path), Ok(true), "{path}");
        }
        for path in [
            "express/-/express-4.18.2.tgz",
            "@babel/core/-/core-7.0.0.tgz",
            ".tgz",
        ] {
            assert_eq!(all_but_tarballs.matches(path), Ok(false), "{path}");
        }
    }

    #[test]
    fn the_search_is_not_anchored() {
        let tool = pattern(r"owner/tool/.*linux");
        assert_eq!(tool.matches("owner/tool/v1/linux.tgz"), Ok(true));
        assert_eq!(tool.matches("other/owner/tool/x-linux"), Ok(true));
        assert_eq!(tool.matches("owner/tools/linux"), Ok(false));
        assert_eq!(tool.as_str(), r"owner/tool/.*linux");
    }

    #[test]
    fn a_literal_prefix_is_what_every_path_begins_with() {
        for (text, prefix) in [
            ("^pool/main/", "pool/main/"),
            (r"\Apool/", "pool/"),
            (r"^simple/[a-c]x", "simple/"),
            ("^(?:pool/a|pool/b)", "pool/"),
            ("^a+b", "a"),
            ("^a?b", ""),
            ("^a*", ""),
            ("^straße$", "straße"),
            ("^(?:ä|å)", ""),
            // Found elsewhere, or only sometimes at the beginning.
            ("pool/", ""),
            ("^a|b", ""),
            ("(^pool/)?x", ""),
            ("(?m)^pool/", ""),
            ("(?i)^pool/", ""),
            ("^(?!x)pool/", ""),
            ("", ""),
            ("^", ""),
        ] {
            assert_eq!(pattern(text).literal_prefix(), prefix, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_matches_begins_with_the_literal_prefix(text in r"\^?[ab.|()*+?\[\]^$-]{0,12}", path in "[abc]{0,6}") {
            if let Ok(pattern) = Pattern::compile(&text)
                && pattern.matches(&path) == Ok(true)
            {
                let prefix = pattern.literal_prefix();
                proptest::prop_assert!(path.starts_with(&prefix), "{text} {path} {prefix}");
            }
        }
    }

    #[test]
    fn plain_patterns_run_on_the_linear_engine() {
        assert!(matches!(*pattern(r"\.tar\.gz$").engine, Engine::Linear(_)));
        assert!(matches!(
            *pattern(r"(?<!-debug)\.rpm$").engine,
            Engine::Backtracking { .. }
        ));
        assert!(matches!(
            *pattern(r"(\w+)/\1\.zip$").engine,
            Engine::Backtracking { .. }
        ));
    }

    #[test]
    fn what_cannot_be_a_pattern_is_refused_with_its_reason() {
        assert_eq!(
            Pattern::compile("a\u{8}"),
            Err(PatternError::Control('\u{8}'))
        );
        assert_eq!(Pattern::compile("a\n"), Err(PatternError::Control('\n')));
        assert!(Pattern::compile(&"a".repeat(4096)).is_ok());
        assert_eq!(
            Pattern::compile(&"a".repeat(4097)),
            Err(PatternError::TooLong)
        );
        for (text, said) in [
            ("(", "unclosed group"),
            ("*a", "repetition operator missing"),
            (r"(?!a", "parenthesis"),
        ] {
            let error = Pattern::compile(text).expect_err(text).to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn generous_unicode_repetitions_still_compile() {
        assert_eq!(pattern(r"^[\w.-]{1,255}$").matches("ünïcode-1.0"), Ok(true));
    }

    const BOUND: Duration = Duration::from_millis(500);

    /// Matches within the bound in one of twenty runs: other processes on the machine must not fail the test.
    fn bounded(pattern: &Pattern, path: &str) -> Result<bool, StepLimit> {
        let mut best = Duration::MAX;
        for _ in 0..20 {
            let start = Instant::now();
            let result = pattern.matches(path);
            best = best.min(start.elapsed());
            if best < BOUND {
                return result;
            }
        }
        panic!("{} took {best:?} on {} bytes", pattern.as_str(), path.len());
    }

    #[test]
    fn hazard_r6_catastrophic_patterns_are_bounded() {
        for text in [
            r"(a*)*\1b",
            r"(.*)(.*)(.*)(.*)\1x",
            r"(?:(?!z).)*(?:(?!z).)*(?:(?!z).)*!!",
            r"((?=(\w*)\W\W)|a)+$",
            r"(?:(?![a!/]*[^a!/])a|aa|/)+(?!x)#",
        ] {
            let catastrophic = pattern(text);
            assert_eq!(
                bounded(&catastrophic, &format!("{}!", "a".repeat(2_047))),
                Err(StepLimit),
                "{text}"
            );
            let _ = bounded(&catastrophic, &"a/".repeat(1_024));
            let _ = bounded(&catastrophic, &format!("{}!", "a".repeat(SHORT_PATH - 1)));
        }
        // Exponential for a backtracking engine, linear here.
        assert_eq!(
            bounded(&pattern(r"^(a+)+$"), &format!("{}!", "a".repeat(2_047))),
            Ok(false)
        );
    }

    #[test]
    fn ordinary_look_around_stays_within_the_step_limit() {
        let short = format!(
            "{}package-name-1.2.3-4.x86_64.deb",
            "some-dir-name/".repeat(14)
        );
        let long = format!(
            "{}package-name-1.2.3-4.x86_64.deb",
            "some-dir-name/".repeat(140)
        );
        for text in [
            r"^(?!.*-debug).*\.rpm$",
            r"(?!.*beta).*\.whl$",
            r"^(?:(?!test).)*\.zip$",
            r"(?=.*linux)(?=.*arm).*\.tgz$",
        ] {
            assert_eq!(pattern(text).matches(&short), Ok(false), "{text}");
            assert_eq!(pattern(text).matches(&long), Ok(false), "{text}");
        }
        assert_eq!(pattern(r"(?:(?!test).)*\.zip$").matches(&short), Ok(false));
    }

    #[test]
    fn hazard_r6_patterns_that_explode_on_compiling_are_refused() {
        let start = Instant::now();
        assert_eq!(
            Pattern::compile(r"((\w{1000}){1000}){1000}"),
            Err(PatternError::TooBig)
        );
        assert!(Pattern::compile(r"(?!x)((\w{1000}){1000}){1000}").is_err());
        assert!(Pattern::compile(&"(".repeat(2_000)).is_err());
        assert!(
            Pattern::compile(&format!("{}(?!a){}", "(".repeat(1_500), ")".repeat(1_500))).is_err()
        );
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}
