//! Points in time as registries state them.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use larder_core::UnixMillis;

/// RFC 3339 (a blank for `T`, and UTC where the offset is left out), or an HTTP date in one of its three forms; anything else counts as no date
/// (docs/reference/protocols/quarantine.md, section 5).
pub(crate) fn instant(text: &str) -> Option<UnixMillis> {
    let text = &*with_nine_digits(text.trim());
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(UnixMillis(time.as_millisecond()));
    }
    let utc = |time: DateTime| time.to_zoned(TimeZone::UTC).ok();
    match text.parse::<DateTime>().ok().and_then(utc) {
        Some(time) => Some(UnixMillis(time.timestamp().as_millisecond())),
        None if is_in_the_last_days(text) => Some(LAST),
        None => UnixMillis::from_http_date(text),
    }
}

/// The last second of the year 9999.
const LAST: UnixMillis = UnixMillis(253_402_300_799_000);

/// Whether this is a date at the end of the year 9999, with which nobody can compute: some servers write it for "never".
fn is_in_the_last_days(text: &str) -> bool {
    const LOCAL: usize = "9999-12-31T23:59:59".len();
    let local = text
        .get(..LOCAL)
        .filter(|local| local.starts_with("9999-12-3"));
    let time = local.and_then(|local| local.parse::<DateTime>().ok());
    let rest = text.get(LOCAL..).unwrap_or_default();
    // The offset of another day is as good as this one's.
    time.is_some()
        && format!("2000-01-01T00:00:00{rest}")
            .parse::<Timestamp>()
            .is_ok()
}

/// The same with at most nine digits of a second: RFC 3339 allows any number of them.
fn with_nine_digits(text: &str) -> Cow<'_, str> {
    const MOST: usize = 9;
    let Some((seconds, rest)) = text.split_once('.') else {
        return Cow::Borrowed(text);
    };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    match rest.get(..MOST) {
        Some(first) if digits > MOST => {
            let after = rest.get(digits..).unwrap_or_default();
            Cow::Owned(format!("{seconds}.{first}{after}"))
        }
        _ => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_in_every_usual_spelling() {
        let expected = Some(UnixMillis(1_704_164_645_000));
        for text in [
            "2024-01-02T03:04:05Z",
            "2024-01-02T03:04:05.000Z",
            "2024-01-02T05:04:05+02:00",
            "2024-01-02T05:04:05+0200",
            "2024-01-02t03:04:05z",
            "2024-01-02T03:04:05",
            "2024-01-02T03:04:05.000000",
            "2024-01-02T03:04:05.000000000000Z",
            "2024-01-02T05:04:05.0000000000+02:00",
            "2024-01-02 03:04:05.00000000000000000000",
            "2024-01-02 03:04:05",
            " 2024-01-02T03:04:05Z\n",
            "Tue, 02 Jan 2024 03:04:05 GMT",
            "Tuesday, 02-Jan-24 03:04:05 GMT",
            "Tue Jan  2 03:04:05 2024",
        ] {
            assert_eq!(instant(text), expected, "{text}");
        }
        assert_eq!(
            instant("1960-01-01T00:00:00Z"),
            Some(UnixMillis(-315_619_200_000))
        );
        assert!(instant("9999-12-30T00:00:00Z").is_some());
        for text in [
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59.999999999Z",
            "9999-12-31T23:59:59.9999999999999Z",
            "9999-12-31T23:59:59-12:00",
            "9999-12-31 00:00:00Z",
            "Fri, 31 Dec 9999 23:59:59 GMT",
        ] {
            assert_eq!(instant(text), Some(LAST), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_no_date() {
        for text in [
            "",
            "yesterday",
            "2024-13-01T00:00:00Z",
            "1704164645000",
            "99999-01-01T00:00:00Z",
            "2024-01-02T03:04:05+99:00",
            "9999-12-32T00:00:00Z",
            "9999-12-31T23:59:59+99:00",
            "9999-12-31T23:59:59 or so",
            "2024-01-02T03:04:05.0000000000x",
        ] {
            assert_eq!(instant(text), None, "{text}");
        }
    }
}
