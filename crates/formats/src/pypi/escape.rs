//! HTML character references, in both directions (WHATWG HTML section 13.2.5.72).
//!
//! Whatever [`decode`] does not know it leaves as text, and [`escape_into`] escapes it again: nothing is lost, and nothing
//! that a browser would read as markup can come out.

use std::borrow::Cow;

/// Named references that simple pages hold. The full table has 2,231 entries, nearly all of them for mathematics.
const NAMED: [(&str, char); 26] = [
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("nbsp", '\u{a0}'),
    ("colon", ':'),
    ("sol", '/'),
    ("bsol", '\\'),
    ("num", '#'),
    ("plus", '+'),
    ("equals", '='),
    ("period", '.'),
    ("comma", ','),
    ("lowbar", '_'),
    ("hyphen", '\u{2010}'),
    ("percnt", '%'),
    ("quest", '?'),
    ("commat", '@'),
    ("lpar", '('),
    ("rpar", ')'),
    ("Tab", '\t'),
    ("NewLine", '\n'),
    ("copy", '\u{a9}'),
    ("mdash", '\u{2014}'),
    ("hellip", '\u{2026}'),
];

/// Names that history allows without a semicolon.
const WITHOUT_SEMICOLON: [(&str, char); 8] = [
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("AMP", '&'),
    ("LT", '<'),
    ("GT", '>'),
    ("QUOT", '"'),
];

/// Replaces character references by what they stand for.
pub(super) fn decode(text: &str, in_attribute: bool) -> Cow<'_, str> {
    let Some(first) = memchr::memchr(b'&', text.as_bytes()) else {
        return Cow::Borrowed(text);
    };
    let mut out = String::with_capacity(text.len());
    let (before, mut rest) = text.split_at(first);
    out.push_str(before);
    while let Some(reference) = rest.strip_prefix('&') {
        if let Some((c, length)) = character(reference, in_attribute) {
            out.push(c);
            rest = reference.get(length..).unwrap_or_default();
        } else {
            out.push('&');
            rest = reference;
        }
        let (plain, next) =
            rest.split_at(memchr::memchr(b'&', rest.as_bytes()).unwrap_or(rest.len()));
        out.push_str(plain);
        rest = next;
    }
    Cow::Owned(out)
}

/// The character that a reference (after its `&`) stands for, and how many bytes the reference takes.
fn character(reference: &str, in_attribute: bool) -> Option<(char, usize)> {
    if let Some(number) = reference.strip_prefix('#') {
        return numeric(number).map(|(c, length)| (c, length + 1));
    }
    let name_end = reference
        .bytes()
        .position(|b| !b.is_ascii_alphanumeric())
        .unwrap_or(reference.len());
    let name = reference.get(..name_end)?;
    let named = || NAMED.iter().find(|(known, _)| *known == name);
    if let (Some(b';'), Some((_, c))) = (reference.as_bytes().get(name_end), named()) {
        return Some((*c, name_end + 1));
    }
    let (known, c) = WITHOUT_SEMICOLON
        .iter()
        .find(|(known, _)| name.starts_with(known))?;
    let next = reference.as_bytes().get(known.len());
    match next {
        Some(b';') => Some((*c, known.len() + 1)),
        // `?a=1&lt=2` in an attribute is a query, not a reference.
        Some(b) if in_attribute && (*b == b'=' || b.is_ascii_alphanumeric()) => None,
        _ => Some((*c, known.len())),
    }
}

fn numeric(number: &str) -> Option<(char, usize)> {
    let (digits, radix, prefix) = match number.strip_prefix(['x', 'X']) {
        Some(hex) => (hex, 16, 1),
        None => (number, 10, 0),
    };
    let count = digits.chars().take_while(|c| c.is_digit(radix)).count();
    if count == 0 {
        return None;
    }
    // Leading zeros may be any number; a value that does not fit is no character either way.
    let value = digits.get(..count)?.trim_start_matches('0');
    let value = if value.is_empty() {
        0
    } else {
        u32::from_str_radix(value, radix).unwrap_or(u32::MAX)
    };
    let semicolon = usize::from(digits.as_bytes().get(count) == Some(&b';'));
    let c = if value == 0 {
        char::REPLACEMENT_CHARACTER
    } else {
        char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER)
    };
    Some((c, prefix + count + semicolon))
}

/// Appends `text` so that it stands for itself both between tags and between double quotes.
pub(super) fn escape_into(text: &str, out: &mut String) {
    let bytes = text.as_bytes();
    // Nearly every text of a page is a name, a link or a digest with nothing to escape: two quick looks say so.
    if memchr::memchr3(b'&', b'<', b'>', bytes).is_none()
        && memchr::memchr3(b'"', b'\r', 0, bytes).is_none()
    {
        out.push_str(text);
        return;
    }
    let mut copied = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escaped = match byte {
            b'&' => "&amp;",
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'"' => "&quot;",
            // A parser would turn these into something else: CR becomes LF, NUL is replaced.
            b'\r' => "&#13;",
            0 => "\u{fffd}",
            _ => continue,
        };
        out.push_str(text.get(copied..at).unwrap_or_default());
        out.push_str(escaped);
        copied = at + 1;
    }
    out.push_str(text.get(copied..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn references_are_decoded_as_the_html_standard_says() {
        for (text, expected) in [
            ("&gt;=3.8", ">=3.8"),
            ("a&amp;b&#38;c&#x26;d&#X26;e", "a&b&c&d&e"),
            ("&lt;script&gt;", "<script>"),
            ("javascript&colon;alert&lpar;1&rpar;", "javascript:alert(1)"),
            (
                "&#0;&#x110000;&#xD800;&#99999999999;",
                "\u{fffd}\u{fffd}\u{fffd}\u{fffd}",
            ),
            ("&#0000000000062;", ">"),
            (
                "&unknown; & && &; &#; &#x; &",
                "&unknown; & && &; &#; &#x; &",
            ),
            ("&#62x", ">x"),
            ("plain", "plain"),
        ] {
            assert_eq!(decode(text, false), expected, "{text}");
            assert_eq!(decode(text, true), expected, "{text}");
        }
    }

    #[test]
    fn a_missing_semicolon_counts_in_text_but_not_in_queries() {
        assert_eq!(decode("&gt3", false), ">3");
        assert_eq!(decode("?a&gt3&lt=1&amp", true), "?a&gt3&lt=1&");
    }

    #[test]
    fn hazard_s15_escaped_text_holds_no_markup() {
        let mut out = String::new();
        escape_into("\"><script>'&\0", &mut out);
        assert_eq!(out, "&quot;&gt;&lt;script&gt;'&amp;\u{fffd}");
    }

    proptest! {
        #[test]
        fn escaping_is_undone_by_decoding(text in "[^\0]*", in_attribute: bool) {
            let mut escaped = String::new();
            escape_into(&text, &mut escaped);
            prop_assert!(!escaped.contains(['<', '>', '"']));
            prop_assert_eq!(decode(&escaped, in_attribute), text);
        }

        #[test]
        fn decoding_never_fails(text in "[&#;x0-9a-z<é]*", in_attribute: bool) {
            let decoded = decode(&text, in_attribute);
            prop_assert!(decoded.len() <= text.len() * 3);
        }
    }
}
