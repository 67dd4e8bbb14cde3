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
    fn what_would_steer_a_terminal_is_replaced() {
        assert_eq!(
            plain("a\u{1b}[31mb\r\u{9b}c\nd"),
            "a\u{fffd}[31mb\u{fffd}\u{fffd}c\nd"
        );
        assert!(matches!(plain("größe"), Cow::Borrowed("größe")));
    }
}
