//! Spellings of paths: which of them mean themselves, and what the others mean.

use std::borrow::Cow;

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

/// The path with doubled slashes taken for one, as larder reads what clients ask it for.
pub(crate) fn fold(path: &str) -> Cow<'_, str> {
    if !path.contains("//") && !path.starts_with('/') {
        return Cow::Borrowed(path);
    }
    let mut folded = String::with_capacity(path.len());
    for segment in path.split_inclusive('/').filter(|segment| *segment != "/") {
        folded.push_str(segment);
    }
    Cow::Owned(folded)
}

/// Decodes `%XX`; a `%` that starts no escape stands for itself. `None` if the result is not UTF-8.
pub(crate) fn percent_decode(text: &str) -> Option<String> {
    if text.contains('%') {
        String::from_utf8(decoded(text)).ok()
    } else {
        Some(text.to_owned())
    }
}

/// As [`percent_decode`], with what is not UTF-8 replaced.
pub(super) fn percent_decode_lossy(text: &str) -> String {
    String::from_utf8_lossy(&decoded(text)).into_owned()
}

fn decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let value = escaped(bytes.get(at + 1..at + 3)).filter(|_| byte == b'%');
        decoded.push(value.unwrap_or(byte));
        at += if value.is_some() { 3 } else { 1 };
    }
    decoded
}

fn escaped(digits: Option<&[u8]>) -> Option<u8> {
    let digits = digits.filter(|d| d.iter().all(u8::is_ascii_hexdigit))?;
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_hold_nothing_special() {
        for path in ["a.tgz", "charts/foo-1.0.0+build.4.tgz", "a/b_c~d"] {
            assert!(is_plain(path), "{path}");
        }
        for path in [
            "", "/a", "a/", "a//b", ".a", "a/../b", "a/.b", "a%2Fb", "a b", "a?b", "a#b", "a:b",
            "a\\b", "\u{e9}", "a;b", "@a/b",
        ] {
            assert!(!is_plain(path), "{path}");
        }
        assert!(!is_plain(&"a".repeat(1025)));
    }

    #[test]
    fn doubled_slashes_are_one() {
        for (path, folded) in [
            ("a/b", "a/b"),
            ("a//b///c", "a/b/c"),
            ("//a", "a"),
            ("a//", "a/"),
            ("", ""),
            ("/", ""),
        ] {
            assert_eq!(fold(path), folded, "{path}");
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
