//! Names that belong to one repository, whether it has them or not (`reserved`).

use std::fmt;

/// Longest glob, in bytes.
const LONGEST: usize = 256;

/// Globs over names of packages: `*` stands for any run of characters, a slash included, `?` for one character, and all else for itself.
/// Names are compared as they are written.
///
/// ```
/// use larder_core::ReservedNames;
/// let reserved = ReservedNames::parse(["acme-*", "@acme/*"]).unwrap();
/// assert!(reserved.has("acme-web") && reserved.has("@acme/ui/x"));
/// assert!(!reserved.has("acme") && !reserved.has("my-acme-web"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReservedNames(Vec<String>);

/// Why a glob cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GlobError {
    /// It has no characters.
    Empty,
    /// It has more than 256 bytes.
    TooLong,
    /// Brackets, braces and backslashes mean something in other globs, and stand in no name.
    Unknown(char),
}

impl fmt::Display for GlobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a glob must have at least one character"),
            Self::TooLong => write!(f, "a glob may have {LONGEST} bytes"),
            Self::Unknown(c) => write!(
                f,
                "`{c}` stands in no name; `*` is any run of characters and `?` is one"
            ),
        }
    }
}

impl std::error::Error for GlobError {}

impl ReservedNames {
    /// From globs.
    ///
    /// # Errors
    /// The first that cannot be used, by its place in the list.
    pub fn parse<'a>(globs: impl IntoIterator<Item = &'a str>) -> Result<Self, (usize, GlobError)> {
        let mut parsed = Vec::new();
        for (at, glob) in globs.into_iter().enumerate() {
            check(glob).map_err(|error| (at, error))?;
            parsed.push(glob.to_owned());
        }
        Ok(Self(parsed))
    }

    /// Whether a name is one of them.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|glob| matches(glob, name))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The globs, as they were written.
    pub fn globs(&self) -> &[String] {
        &self.0
    }
}

fn check(glob: &str) -> Result<(), GlobError> {
    if glob.is_empty() {
        return Err(GlobError::Empty);
    }
    if glob.len() > LONGEST {
        return Err(GlobError::TooLong);
    }
    let unknown = |c: &char| matches!(c, '[' | ']' | '{' | '}' | '\\') || c.is_control();
    glob.chars()
        .find(unknown)
        .map_or(Ok(()), |c| Err(GlobError::Unknown(c)))
}

/// Goes back to the last `*` alone, so that the time is at most the product of both lengths.
fn matches(glob: &str, name: &str) -> bool {
    let (mut glob, mut name) = (glob.chars(), name.chars());
    let mut last_star: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let (mut glob_rest, mut name_rest) = (glob.clone(), name.clone());
        match (glob_rest.next(), name_rest.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                last_star = Some((glob_rest.clone(), name.clone()));
                glob = glob_rest;
                continue;
            }
            (Some(wanted), Some(c)) if wanted == '?' || wanted == c => {
                (glob, name) = (glob_rest, name_rest);
                continue;
            }
            _ => {}
        }
        // One more character for the last `*`.
        let Some((after_star, mut from)) = last_star.take() else {
            return false;
        };
        if from.next().is_none() {
            return false;
        }
        (glob, name) = (after_star.clone(), from.clone());
        last_star = Some((after_star, from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_names() {
        for (glob, name, is) in [
            ("acme", "acme", true),
            ("acme", "acme-web", false),
            ("acme-*", "acme-", true),
            ("acme-*", "acme-web", true),
            ("acme-*", "acme", false),
            ("*-acme", "web-acme", true),
            ("*-acme", "web-acme-x", false),
            ("a*b*c", "axbxxbc", true),
            ("a*b*c", "axbxxbcd", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a?c", "aéc", true),
            ("*", "", true),
            ("**", "x", true),
            ("@acme/*", "@acme/ui", true),
            ("team/*", "team/a/b", true),
            ("a.c", "abc", false),
        ] {
            let reserved = ReservedNames::parse([glob]).unwrap();
            assert_eq!(reserved.has(name), is, "{glob} {name}");
        }
    }

    #[test]
    fn a_glob_of_many_stars_takes_no_time() {
        let reserved = ReservedNames::parse([&*("a*".repeat(120) + "c")]).unwrap();
        assert!(!reserved.has(&("a".repeat(5_000) + "b")));
    }

    #[test]
    fn what_is_no_glob_is_refused_with_its_place() {
        let parse = |globs: [&str; 2]| ReservedNames::parse(globs).unwrap_err();
        assert_eq!(parse(["a", ""]), (1, GlobError::Empty));
        assert_eq!(parse(["[ab]*", "a"]), (0, GlobError::Unknown('[')));
        assert_eq!(parse(["a", "{a,b}"]), (1, GlobError::Unknown('{')));
        assert_eq!(parse(["a", &"x".repeat(257)]), (1, GlobError::TooLong));
    }
}
