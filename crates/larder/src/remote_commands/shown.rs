//! How answers are shown to people: sizes, and texts of strangers without what would steer a terminal.

use std::borrow::Cow;

use serde_json::Value;

/// A text for a terminal: control characters, which could move its cursor or colour it, are replaced.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_control) {
        let replaced = |c| if is_control(c) { '\u{fffd}' } else { c };
        Cow::Owned(text.chars().map(replaced).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// A path as lists show it, for a terminal. Behind a `?` would be a query: one of the name is `%3F`, and a percent sign before `3F` or
/// `25` is `%25`.
pub(super) fn path(path: &str) -> String {
    escaped(&plain(path))
}

/// A path written as [`path`] shows it.
pub(super) fn escaped(path: &str) -> String {
    path.replace("%25", "%2525")
        .replace("%3F", "%253F")
        .replace('?', "%3F")
}

/// The path that is written so.
pub(super) fn meant(written: &str) -> String {
    let parts = written.split("%25").map(|part| part.replace("%3F", "?"));
    parts.collect::<Vec<String>>().join("%")
}

fn is_control(c: char) -> bool {
    c.is_control() && c != '\n'
}

pub(super) fn items<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value
        .get(name)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

pub(super) fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn number(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or_default()
}

/// Bytes for people: in steps of 1,024, with one digit behind the point.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1_024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next().unwrap_or(&"");
    // What would be shown as 1024.0 is one of the next unit.
    while value >= 1_023.95
        && let Some(next) = units.next()
    {
        value /= 1_024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_536, "1.5 KiB"),
            (1_048_575, "1.0 MiB"),
            (1 << 20, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), shown, "{bytes}");
        }
    }

    #[test]
    fn a_shown_path_means_the_path() {
        for (path, shown) in [
            ("a b/100%.txt", "a b/100%.txt"),
            ("x?y", "x%3Fy"),
            ("x%3Fy", "x%253Fy"),
            ("x%25y", "x%2525y"),
            ("%%25?%2", "%%2525%3F%2"),
            ("a%20%3f", "a%20%3f"),
        ] {
            assert_eq!(escaped(path), shown);
            assert_eq!(meant(shown), path);
        }
    }

    #[test]
    fn what_would_steer_a_terminal_is_replaced() {
        assert_eq!(
            plain("a\u{1b}[31mb\r\u{9b}c\nd"),
            "a\u{fffd}[31mb\u{fffd}\u{fffd}c\nd"
        );
        assert!(matches!(plain("größe"), Cow::Borrowed("größe")));
    }
}
