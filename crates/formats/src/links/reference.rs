//! The text of a link as a document holds it, before it is parsed: parsing a URL hides what must be refused.

/// Whether a reference (absolute or relative) can be trusted to mean what it says: no dot segment, no encoded slash, no
/// backslash, no white space or control character (a URL parser drops or repairs all of them). The query may hold anything
/// printable.
pub(crate) fn is_clean(reference: &str) -> bool {
    let legal = |b: u8| b > b' ' && b != b'\\' && b != 0x7f;
    if !reference.bytes().all(legal) {
        return false;
    }
    let path = reference.split(['?', '#']).next().unwrap_or(reference);
    !path.split('/').any(is_dot_segment) && !has_hidden_delimiter(path)
}

/// Whether a relative path is made of unreserved characters, `+` and single slashes, without segments that start with a dot:
/// its encoded and decoded forms are the same, and no rule refuses it. Not every path that is fine is plain.
pub(crate) fn is_plain(path: &str) -> bool {
    let mut before = b'/';
    for byte in path.bytes() {
        let starts_segment = before == b'/';
        let legal = match byte {
            b'/' | b'.' => !starts_segment,
            _ => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~' | b'+'),
        };
        if !legal {
            return false;
        }
        before = byte;
    }
    before != b'/' && path.len() <= 1024
}

/// Whether a reference names its scheme and host (`https://host/path`), in the only spelling that every client reads alike.
pub(crate) fn is_absolute(reference: &str) -> bool {
    reference.split_once("://").is_some_and(|(scheme, _)| is_scheme(scheme))
}

/// Decodes `%XX`; a `%` that starts no escape stands for itself. `None` if the result is not UTF-8.
pub(crate) fn percent_decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let value = escaped(bytes.get(at + 1..at + 3)).filter(|_| byte == b'%');
        decoded.push(value.unwrap_or(byte));
        at += if value.is_some() { 3 } else { 1 };
    }
    String::from_utf8(decoded).ok()
}

fn escaped(digits: Option<&[u8]>) -> Option<u8> {
    let digits = digits.filter(|d| d.iter().all(u8::is_ascii_hexdigit))?;
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// `.`, `..` and their encoded spellings.
fn is_dot_segment(segment: &str) -> bool {
    if segment.len() > 6 || segment.is_empty() {
        return false;
    }
    let plain = segment.replace("%2e", ".").replace("%2E", ".");
    plain == "." || plain == ".."
}

/// `%2f`, `%5c` or an encoded control character.
fn has_hidden_delimiter(path: &str) -> bool {
    let bytes = path.as_bytes();
    memchr::memchr_iter(b'%', bytes)
        .filter_map(|at| escaped(bytes.get(at + 1..at + 3)))
        .any(|value| matches!(value, b'/' | b'\\' | 0x7f) || value < b' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_a_url_parser_would_repair() {
        for text in [
            "../a",
            "a/..",
            "./a",
            "a/%2e%2E/b",
            "a/%2e/b",
            ".%2e/a",
            "a%2fb",
            "a%5Cb",
            "a\\b",
            "a b",
            " a",
            "a\n",
            "a%00",
            "a%0d%0ab",
            "a\u{7f}",
        ] {
            assert!(!is_clean(text), "{text:?}");
        }
        for text in ["a/b-1.0.0+x.tgz", "https://h.example/a..b/c.tgz?x=../y", "a%2Bb", "...", "..a", "ä/b"] {
            assert!(is_clean(text), "{text:?}");
        }
    }

    #[test]
    fn plain_paths_hold_nothing_special() {
        for path in ["a.tgz", "charts/foo-1.0.0+build.4.tgz", "a/b_c~d"] {
            assert!(is_plain(path), "{path}");
        }
        for path in
            ["", "/a", "a/", "a//b", ".a", "a/../b", "a/.b", "a%2Fb", "a b", "a?b", "a#b", "a:b", "a\\b", "\u{e9}", "a;b", "@a/b"]
        {
            assert!(!is_plain(path), "{path}");
        }
        assert!(!is_plain(&"a".repeat(1025)));
    }

    #[test]
    fn absolute_means_scheme_and_two_slashes() {
        assert!(is_absolute("https://h.example/x"));
        assert!(is_absolute("oci://h.example/x"));
        for text in ["charts/x.tgz", "/x", "//h.example/x", "https:h.example", "1a://x", "a/b://c", "://x"] {
            assert!(!is_absolute(text), "{text:?}");
        }
    }

    #[test]
    fn decodes_once_and_keeps_lone_percent_signs() {
        assert_eq!(percent_decode("a%2Bb%20c").as_deref(), Some("a+b c"));
        assert_eq!(percent_decode("100%").as_deref(), Some("100%"));
        assert_eq!(percent_decode("%zz%2").as_deref(), Some("%zz%2"));
        assert_eq!(percent_decode("%252e").as_deref(), Some("%2e"));
        assert_eq!(percent_decode("%ff"), None);
    }
}
