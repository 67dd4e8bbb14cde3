//! HTML character references, in both directions (WHATWG HTML section 13.2.5.72).
//!
//! What [`decode`] does not know is no reference to browsers either: it stays text, and [`escape_into`] escapes it again. Nothing
//! that a browser would read as markup can come out.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

/// All named references of the standard, sorted bytewise: the name with its `;` (some may stand without), and the one or two characters in
/// hexadecimal digits.
const NAMED: &str = include_str!("named_references.txt");
/// The longest name that may stand without its semicolon.
const LONGEST_WITHOUT_SEMICOLON: usize = 6;

/// The characters that a name stands for.
fn named(name: &str) -> Option<&'static str> {
    static TABLE: LazyLock<HashMap<&str, String>> = LazyLock::new(|| {
        let characters = |codes: &str| -> Option<String> {
            let code = |hex| char::from_u32(u32::from_str_radix(hex, 16).ok()?);
            codes.split(' ').map(code).collect()
        };
        let entries = NAMED.lines().filter_map(|line| line.split_once(' '));
        let entries = entries.filter_map(|(name, codes)| Some((name, characters(codes)?)));
        entries.collect()
    });
    TABLE.get(name).map(String::as_str)
}

/// Replaces character references by what they stand for.
pub(super) fn decode(text: &str, in_attribute: bool) -> Cow<'_, str> {
    let Some(first) = memchr::memchr(b'&', text.as_bytes()) else {
        return Cow::Borrowed(text);
    };
    let mut out = String::with_capacity(text.len());
    let (before, mut rest) = text.split_at(first);
    out.push_str(before);
    while let Some(reference) = rest.strip_prefix('&') {
        if let Some(length) = take_reference(reference, in_attribute, &mut out) {
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

/// Appends what a reference (after its `&`) stands for: how many bytes the reference takes.
fn take_reference(reference: &str, in_attribute: bool, out: &mut String) -> Option<usize> {
    if let Some(number) = reference.strip_prefix('#') {
        let (c, length) = numeric(number)?;
        out.push(c);
        return Some(length + 1);
    }
    let bytes = reference.as_bytes();
    let length = bytes
        .iter()
        .take_while(|b| b.is_ascii_alphanumeric())
        .count();
    if let (Some(b';'), Some(text)) = (
        bytes.get(length),
        named(reference.get(..=length).unwrap_or_default()),
    ) {
        out.push_str(text);
        return Some(length + 1);
    }
    let shorter = (1..=length.min(LONGEST_WITHOUT_SEMICOLON)).rev();
    let mut known = shorter.filter_map(|length| Some((length, named(reference.get(..length)?)?)));
    let (length, text) = known.next()?;
    // `?a=1&lt=2` in an attribute is a query, not a reference.
    let is_query = |next: &u8| in_attribute && (*next == b'=' || next.is_ascii_alphanumeric());
    if bytes.get(length).is_some_and(is_query) {
        return None;
    }
    out.push_str(text);
    Some(length)
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
    let c = match value {
        0 => char::REPLACEMENT_CHARACTER,
        // Where ISO 8859-1 has control characters, pages mean those of Windows.
        0x80..=0x9f => {
            let byte = [value as u8];
            let meant = encoding_rs::WINDOWS_1252
                .decode_without_bom_handling(&byte)
                .0;
            meant.chars().next().unwrap_or(char::REPLACEMENT_CHARACTER)
        }
        value => char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER),
    };
    Some((c, prefix + count + semicolon))
}

/// The most that a text takes once it is escaped, in either syntax: a byte becomes six at most (`&quot;`, `\u0000`).
pub(super) fn longest_escaped(text: &str) -> usize {
    const SHORT: usize = 4 << 10;
    let grows = |byte: &u8| byte.is_ascii_control() || b"&<>\"\\".contains(byte);
    let growing = if text.len() <= SHORT {
        text.len()
    } else {
        text.as_bytes().iter().filter(|byte| grows(byte)).count()
    };
    text.len() + 5 * growing
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
            (
                "Sicherheitsl&uuml;cke &ndash; &Eacute;t&eacute;&rsquo;s",
                "Sicherheitsl\u{fc}cke \u{2013} \u{c9}t\u{e9}\u{2019}s",
            ),
            ("&notin;&NotEqualTilde;", "\u{2209}\u{2242}\u{338}"),
            ("&#150;&#x80;&#129;", "\u{2013}\u{20ac}\u{81}"),
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
        // The examples of the standard, section 13.2.5.73.
        assert_eq!(
            decode("I'm &notit; I tell you", false),
            "I'm \u{ac}it; I tell you"
        );
        assert_eq!(
            decode("I'm &notit; I tell you", true),
            "I'm &notit; I tell you"
        );
        assert_eq!(decode("&uumlx &uuml", false), "\u{fc}x \u{fc}");
    }

    #[test]
    fn every_name_of_the_standard_is_known() {
        assert_eq!(NAMED.lines().count(), 2231);
        for line in NAMED.lines() {
            let (name, codes) = line.split_once(' ').unwrap();
            let text: Vec<char> = named(name).unwrap().chars().collect();
            assert_eq!(text.len(), codes.split(' ').count(), "{name}");
            assert!(
                name.ends_with(';') || name.len() <= LONGEST_WITHOUT_SEMICOLON,
                "{name}"
            );
        }
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
