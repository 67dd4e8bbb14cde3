//! Which texts are versions (packaging.python.org: "Version specifiers", PEP 440), in every spelling that is normalised to one.

/// Words of a version before the release, the longer ones first.
const PRE: [&str; 8] = ["preview", "alpha", "beta", "pre", "rc", "a", "b", "c"];
/// Words of a version behind it.
const POST: [&str; 3] = ["post", "rev", "r"];

/// Whether `text` is a version.
pub(super) fn is_valid(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    release(text.strip_prefix('v').unwrap_or(&text)).is_some_and(|rest| {
        let rest = word(rest, &PRE).unwrap_or(rest);
        let implicit_post = rest.strip_prefix('-').and_then(number);
        let rest = implicit_post.or_else(|| word(rest, &POST)).unwrap_or(rest);
        let rest = word(rest, &["dev"]).unwrap_or(rest);
        rest.is_empty() || rest.strip_prefix('+').is_some_and(is_local)
    })
}

/// What follows `N!N.N.N`, of which the first and the last parts may be missing.
fn release(text: &str) -> Option<&str> {
    let mut rest = number(text)?;
    if let Some(behind_epoch) = rest.strip_prefix('!') {
        rest = number(behind_epoch)?;
    }
    while let Some(next) = rest.strip_prefix('.').and_then(number) {
        rest = next;
    }
    Some(rest)
}

/// What follows a number; `None` if there is none.
fn number(text: &str) -> Option<&str> {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    (rest.len() < text.len()).then_some(rest)
}

/// What follows one of these words with its separator and number, either of which may be missing.
fn word<'t>(text: &'t str, words: &[&str]) -> Option<&'t str> {
    let behind_separator = |text: &'t str| text.strip_prefix(['-', '_', '.']).unwrap_or(text);
    let text = behind_separator(text);
    let rest = words.iter().find_map(|word| text.strip_prefix(word))?;
    Some(number(behind_separator(rest)).unwrap_or(rest))
}

/// Letters and digits with single separators between them.
fn is_local(text: &str) -> bool {
    text.split(['-', '_', '.'])
        .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PEP 440, "Summary of permitted suffixes and relative ordering" and "Normalization".
    #[test]
    fn every_spelling_of_the_standard_is_a_version() {
        for text in [
            "0",
            "1.0",
            "2013b",
            "1.0.dev456",
            "1.0a1",
            "1.0a2.dev456",
            "1.0a12",
            "1.0b1.dev456",
            "1.0b2.post345.dev456",
            "1.0rc1",
            "1.0+abc.5",
            "1.0+5",
            "1.0.post456.dev34",
            "1!1.0",
            "1.1RC1",
            "1.1.a1",
            "1.1-a1",
            "1.1_a_1",
            "1.1a.1",
            "1.1alpha1",
            "1.1preview2",
            "1.0-1",
            "1.0-r4",
            "1.0.rev",
            "1.2post",
            "1.2.post-2",
            "1.2-dev",
            "v1.0",
            "1.0+ubuntu-1",
            "1.2.3-45",
            "2004b-1",
            "1.0-beta-2",
            "1.0c1",
        ] {
            assert!(is_valid(text), "{text}");
        }
    }

    #[test]
    fn other_texts_are_none() {
        for text in [
            "",
            "v",
            "-1",
            "a1",
            "1.0-",
            "1.0-1.0",
            "2-1.0",
            "1-1.0-1",
            "3parclient-4.2",
            "bar-1.0",
            "1.0.win32-py2.7",
            "1.0+",
            "1.0+a..b",
            "1.0 ",
            "1.0-snapshot",
            "1..0",
            "1!",
            "\u{661}",
        ] {
            assert!(!is_valid(text), "{text:?}");
        }
    }
}
