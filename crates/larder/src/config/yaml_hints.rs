//! What to say beside the words of the YAML parser, which are about grammar: what people usually have written there.

/// Parts of the parser's messages, and what helps.
const HINTS: &[(&str, &str)] = &[
    (
        "tabs disallowed",
        "YAML takes spaces only, no tabs, to indent",
    ),
    (
        "unknown anchor",
        "a text that begins with `*` must stand in quotation marks",
    ),
    (
        "unexpected character",
        "a text that begins with a special character must stand in quotation marks",
    ),
    (
        "mapping values are not allowed",
        "a text that holds `: ` must stand in quotation marks; else look at the indentation",
    ),
    (
        "while scanning a quoted scalar",
        "a quotation mark that is opened is not closed",
    ),
    (
        "illegal placement of ':'",
        "is a `[` or `{` above not closed?",
    ),
];

/// The message for what the parser says of a text.
pub(super) fn explained(info: &str, source: &str) -> String {
    let said = format!("not valid YAML: {info}");
    if is_toml(source) {
        return format!("{said}; it looks like TOML, and larder reads YAML or JSON");
    }
    match HINTS.iter().find(|(part, _)| info.contains(part)) {
        Some((_, hint)) => format!("{said}; {hint}"),
        None => said,
    }
}

/// Whether the first line that says something is a table's head.
fn is_toml(source: &str) -> bool {
    let mut lines = source
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let table = lines
        .next()
        .is_some_and(|first| first.starts_with('[') && first.ends_with(']'));
    table
        && lines.next().is_some_and(|second| {
            second
                .split_once('=')
                .is_some_and(|(key, _)| !key.contains(':'))
        })
}

/// What is wrong where a mapping is expected and a text stands: `key:value` without the space is one word.
pub(super) fn missing_space(text: &str, known: &[&str]) -> Option<String> {
    let (key, _) = text.split_once(':')?;
    known
        .contains(&key)
        .then(|| format!("a space must stand behind the colon: `{key}: …`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_told_apart() {
        for (info, source, want) in [
            (
                "tabs disallowed within this context",
                "a:\n\tb: 1\n",
                "no tabs",
            ),
            (
                "while parsing node, found unknown anchor",
                "a: [*.json]\n",
                "quotation marks",
            ),
            (
                "did not find expected <document start>",
                "# c\n[a]\nb = 1\n",
                "looks like TOML",
            ),
            ("unexpected character: `%'", "a: %b\n", "quotation marks"),
        ] {
            let said = explained(info, source);
            assert!(
                said.starts_with("not valid YAML: ") && said.contains(info) && said.contains(want),
                "{said}"
            );
        }
        assert_eq!(
            explained("some news", "a: 1\n"),
            "not valid YAML: some news"
        );
        assert_eq!(
            missing_space("base_url:http://x", &["base_url"]).as_deref(),
            Some("a space must stand behind the colon: `base_url: …`")
        );
        assert_eq!(missing_space("http://x", &["base_url"]), None);
    }
}
