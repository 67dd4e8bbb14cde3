//! Points in time, as Helm's reader takes them: Go's, for RFC 3339, which is more lenient than the standard in some places.

use jiff::civil::{Date, date};
use larder_core::UnixMillis;

/// The point in time that a text means to Helm; `None`: it would refuse it. An hour may have one digit, a fraction any number of them, also
/// behind a comma, and an offset goes up to 24 hours and 60 minutes.
pub(super) fn of(text: &str) -> Option<UnixMillis> {
    let rest = &mut text.as_bytes();
    let year = number(rest, 4)?;
    one_of(rest, b"-")?;
    let month = number(rest, 2)?;
    one_of(rest, b"-")?;
    let day = number(rest, 2)?;
    one_of(rest, b"T")?;
    let hour = number(rest, 2).or_else(|| number(rest, 1))?;
    one_of(rest, b":")?;
    let minute = number(rest, 2)?;
    one_of(rest, b":")?;
    let second = number(rest, 2)?;
    let millis = fraction(rest);
    let offset = offset(rest)?;
    if !rest.is_empty() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let day = Date::new(year as i16, month as i8, day as i8).ok()?;
    let days = i64::from((day - date(1970, 1, 1)).get_days());
    let minutes = (days * 24 + hour) * 60 + minute - offset;
    Some(UnixMillis((minutes * 60 + second) * 1000 + millis))
}

/// Takes a number of so many digits.
fn number(rest: &mut &[u8], length: usize) -> Option<i64> {
    let (digits, after) = rest.split_at_checked(length)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    *rest = after;
    let value = |value, digit: &u8| value * 10 + i64::from(digit - b'0');
    Some(digits.iter().fold(0, value))
}

/// Takes a byte that is one of these.
fn one_of(rest: &mut &[u8], wanted: &[u8]) -> Option<u8> {
    let (first, after) = rest.split_first()?;
    if !wanted.contains(first) {
        return None;
    }
    *rest = after;
    Some(*first)
}

/// Takes a fraction of a second, if there is one: its milliseconds.
fn fraction(rest: &mut &[u8]) -> i64 {
    let before = *rest;
    if one_of(rest, b".,").is_none() {
        return 0;
    }
    let length = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    if length == 0 {
        *rest = before;
        return 0;
    }
    let (digits, after) = rest.split_at(length);
    *rest = after;
    let mut digits = digits.iter().map(|digit| i64::from(digit - b'0'));
    (0..3).fold(0, |value, _| value * 10 + digits.next().unwrap_or(0))
}

/// Takes the distance from UTC, in minutes.
fn offset(rest: &mut &[u8]) -> Option<i64> {
    let sign = one_of(rest, b"Z+-")?;
    if sign == b'Z' {
        return Some(0);
    }
    let hours = number(rest, 2)?;
    one_of(rest, b":")?;
    let minutes = number(rest, 2)?;
    let offset = hours * 60 + minutes;
    (hours <= 24 && minutes <= 60).then_some(if sign == b'-' { -offset } else { offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds by `date -u -d … +%s`.
    #[test]
    fn times_are_those_that_helm_takes() {
        for (text, millis) in [
            ("2024-01-02T03:04:05Z", 1_704_164_645_000),
            ("2024-01-02T3:04:05Z", 1_704_164_645_000),
            ("2024-01-02T03:04:05.5Z", 1_704_164_645_500),
            ("2024-01-02T03:04:05,25Z", 1_704_164_645_250),
            ("2024-01-02T03:04:05.1234567890123Z", 1_704_164_645_123),
            ("2024-01-02T03:04:05.123456789+01:00", 1_704_161_045_123),
            ("2020-02-29T23:59:59-07:00", 1_583_045_999_000),
            ("2024-01-02T03:04:05+24:60", 1_704_074_645_000),
            ("9999-12-31T23:59:59Z", 253_402_300_799_000),
            ("1969-12-31T23:59:59Z", -1_000),
            ("0000-02-29T00:00:00Z", -62_162_121_600_000),
        ] {
            assert_eq!(of(text), Some(UnixMillis(millis)), "{text}");
        }
    }

    #[test]
    fn whatever_helm_would_refuse_is_none() {
        for text in [
            "",
            "2024-01-02",
            "2024-01-02 03:04:05Z",
            "2024-01-02T03:04:05",
            "2024-13-02T03:04:05Z",
            "2024-1-02T03:04:05Z",
            "2024-01-2T03:04:05Z",
            "2023-02-29T00:00:00Z",
            "2024-01-02t03:04:05Z",
            "2024-01-02T03:04:05z",
            "2024-01-02T24:04:05Z",
            "2024-01-02T03:60:05Z",
            "2024-01-02T03:04:60Z",
            "2024-01-02T03:04:05.Z",
            "2024-01-02T03:04:05+25:00",
            "2024-01-02T03:04:05+12:61",
            "2024-01-02T03:04:05+0100",
            "2024-01-02T03:04:05Z ",
            "-024-01-02T03:04:05Z",
            "yesterday",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
