//! The order of chart versions: SemVer 2.0.0 precedence, read as leniently as Helm reads it (`v1`, `1.2`).

use std::cmp::Ordering;

/// A version as it is sorted. What is no version sorts below everything that is one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Precedence<'a> {
    /// No version: the text decides, so that the order does not depend on where it was found.
    Invalid(&'a str),
    Valid {
        numbers: [u64; 3],
        /// What follows the `-`; empty for a release.
        pre_release: &'a str,
    },
}

impl<'a> Precedence<'a> {
    /// Reads a version.
    pub(super) fn of(text: &'a str) -> Self {
        Self::read(text).unwrap_or(Self::Invalid(text))
    }

    fn read(text: &'a str) -> Option<Self> {
        let rest = text.strip_prefix('v').unwrap_or(text);
        let (rest, build) = rest
            .split_once('+')
            .map_or((rest, None), |(rest, build)| (rest, Some(build)));
        if build.is_some_and(|build| !are_identifiers(build)) {
            return None;
        }
        let (core, pre_release) = rest.split_once('-').unwrap_or((rest, ""));
        if core.len() < rest.len() && !are_identifiers(pre_release) {
            return None;
        }
        let mut numbers = [0; 3];
        let mut parts = core.split('.');
        for (at, number) in numbers.iter_mut().enumerate() {
            match parts.next() {
                Some(part) if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) => {
                    *number = part.parse().ok()?;
                }
                None if at > 0 => {}
                _ => return None,
            }
        }
        parts.next().is_none().then_some(Self::Valid {
            numbers,
            pre_release,
        })
    }
}

/// Whether a text is made of dot-separated identifiers.
fn are_identifiers(text: &str) -> bool {
    text.split('.').all(|part| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

impl Ord for Precedence<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Invalid(one), Self::Invalid(other)) => one.cmp(other),
            (Self::Invalid(_), Self::Valid { .. }) => Ordering::Less,
            (Self::Valid { .. }, Self::Invalid(_)) => Ordering::Greater,
            (
                Self::Valid {
                    numbers: one,
                    pre_release: of_one,
                },
                Self::Valid {
                    numbers: other,
                    pre_release: of_other,
                },
            ) => one
                .cmp(other)
                .then_with(|| compare_pre_releases(of_one, of_other)),
        }
    }
}

impl PartialOrd for Precedence<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// SemVer 2.0.0, section 11: a release is above its pre-releases; numbers are below words and compared as numbers.
fn compare_pre_releases(one: &str, other: &str) -> Ordering {
    match (one.is_empty(), other.is_empty()) {
        (true, true) => return Ordering::Equal,
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => {}
    }
    let (mut ours, mut theirs) = (one.split('.'), other.split('.'));
    loop {
        let order = match (ours.next(), theirs.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(one), Some(other)) => compare_identifiers(one, other),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

fn compare_identifiers(one: &str, other: &str) -> Ordering {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    match (digits(one), digits(other)) {
        (true, true) => {
            let (one, other) = (one.trim_start_matches('0'), other.trim_start_matches('0'));
            one.len().cmp(&other.len()).then_with(|| one.cmp(other))
        }
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => one.cmp(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of SemVer 2.0.0, section 11.4, and what Helm's reader takes besides.
    #[test]
    fn versions_are_ordered_as_semver_says() {
        let ascending = [
            "latest",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.2",
            "v1.2.1",
            "1.10.0",
            "2",
        ];
        for pair in ascending.windows(2) {
            assert!(
                Precedence::of(pair[0]) < Precedence::of(pair[1]),
                "{pair:?}"
            );
        }
    }

    #[test]
    fn build_metadata_and_spelling_have_no_precedence() {
        for (one, other) in [
            ("1.0.0+a", "1.0.0+b"),
            ("v1.0.0", "1.0"),
            ("1.0.0-01", "1.0.0-1"),
        ] {
            assert_eq!(
                Precedence::of(one).cmp(&Precedence::of(other)),
                Ordering::Equal,
                "{one} {other}"
            );
        }
    }

    #[test]
    fn what_is_no_version_is_below_all_that_are() {
        for text in [
            "",
            "v",
            "1.",
            "1..2",
            "1.2.3.4",
            "1.0.0-",
            "1.0.0+",
            "1.0.0-a..b",
            "x",
            "99999999999999999999",
            "1 ",
        ] {
            assert!(
                matches!(Precedence::of(text), Precedence::Invalid(_)),
                "{text:?}"
            );
        }
    }
}
