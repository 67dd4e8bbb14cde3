//! Patterns that look like globs (`*.tar.gz`): what is wrong with a pattern, and the regular expression that was meant.

use larder_core::PatternError;

/// Longest pattern that is quoted whole, in characters.
const QUOTED: usize = 120;

/// What to say about a pattern that does not compile: the pattern itself, the place in it, and what was meant if it looks like a glob.
pub(super) fn refusal(text: &str, error: &PatternError) -> String {
    let quoted: String = text
        .chars()
        .take(QUOTED)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    let more = if text.chars().count() > QUOTED {
        "…"
    } else {
        ""
    };
    let place = match error {
        PatternError::Syntax { at: Some(at), .. } => {
            let rest: String = text.chars().skip(at - 1).take(20).collect();
            if rest.is_empty() {
                " (its end)".to_owned()
            } else {
                format!(" (`{rest}`)")
            }
        }
        _ => String::new(),
    };
    let meant = looks_like_one(text).map_or_else(String::new, |advice| format!("; {advice}"));
    format!("`{quoted}{more}`: {error}{place}{meant}")
}

/// What to say about a text that reads as a glob: nobody writes `/*` or a leading `*` in a regular expression on purpose.
pub(super) fn looks_like_one(text: &str) -> Option<String> {
    let is_regular = text.contains(['\\', '^', '$', '(', ')', '|', '+', '[', ']', '{'])
        || text.contains(".*")
        || text.contains(".?");
    let is_glob = text.starts_with('*') || text.contains("/*") || text.contains("**");
    if !is_glob || is_regular || text.contains(char::is_control) {
        return None;
    }
    Some(format!(
        "it looks like a glob; as a regular expression that is '{}'",
        regular(text)
    ))
}

/// What to say about a text that no path can match: paths have neither a leading slash nor a scheme.
pub(super) fn never_matches(text: &str) -> Option<&'static str> {
    if text.contains('|') {
        return None;
    }
    if text.starts_with("^/") {
        return Some(
            "no path begins with a slash here: it is searched in what stands behind the repository's name, without the slash",
        );
    }
    let scheme = ["^http://", "^https://", "^https?://", "http://", "https://"];
    scheme
        .iter()
        .any(|scheme| text.starts_with(scheme))
        .then_some("no path holds a scheme and a host: it is searched in the path alone")
}

/// The regular expression for a glob. It is searched anywhere, so that stars in front say nothing.
fn regular(glob: &str) -> String {
    let inner = glob.trim_start_matches(['*', '/']);
    let mut made = String::new();
    let mut chars = inner.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.peek() == Some(&'*') => {
                while chars.next_if_eq(&'*').is_some() {}
                // `**/` is any number of folders, also none.
                if chars.next_if_eq(&'/').is_some() {
                    made.push_str("(.*/)?");
                } else {
                    made.push_str(".*");
                }
            }
            '*' => made.push_str("[^/]*"),
            '?' => made.push_str("[^/]"),
            '.' => made.push_str("\\."),
            c => made.push(c),
        }
    }
    let start = if inner.len() == glob.len() { "^" } else { "" };
    format!("{start}{made}$")
}

#[cfg(test)]
mod tests {
    use larder_core::Pattern;

    use super::*;

    #[test]
    fn globs_are_told_the_regular_expression_that_was_meant() {
        for (glob, regex, matching, other) in [
            ("*.tar.gz", r"\.tar\.gz$", "a/b.tar.gz", "a/b.tar.gzip"),
            ("**/*.whl", r"\.whl$", "a/b.whl", "a/b.whl.asc"),
            ("pool/*", "^pool/[^/]*$", "pool/x", "pool/x/y"),
            ("pool/**", "^pool/.*$", "pool/x/y", "other/pool"),
            (
                "a/**/b?.zip",
                r"^a/(.*/)?b[^/]\.zip$",
                "a/b1.zip",
                "a/b.zip",
            ),
        ] {
            assert!(
                looks_like_one(glob).is_some_and(|said| said.contains(&format!("'{regex}'"))),
                "{glob}"
            );
            let pattern = Pattern::compile(regex).unwrap();
            assert_eq!(
                (pattern.matches(matching), pattern.matches(other)),
                (Ok(true), Ok(false)),
                "{glob}"
            );
        }
        for regex in [
            r"\.tgz$",
            "(a$|b$)",
            ".*",
            "a/.*",
            "x",
            "^(?!.*x).*",
            "[*]",
            "",
        ] {
            assert_eq!(looks_like_one(regex), None, "{regex}");
        }
    }

    #[test]
    fn a_refusal_quotes_the_pattern_and_the_place() {
        for (text, want) in [
            (
                "*.tar.gz",
                "`*.tar.gz`: pattern does not compile: repetition operator missing expression, at character 1 (`*.tar.gz`)",
            ),
            (
                "a(b",
                "`a(b`: pattern does not compile: unclosed group, at character 2 (`(b`)",
            ),
            ("x[z-a]", "at character 3 (`z-a]`)"),
        ] {
            let said = refusal(text, &Pattern::compile(text).unwrap_err());
            assert!(said.contains(want), "{said}");
        }
    }
}
