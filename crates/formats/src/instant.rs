//! Points in time as registries state them.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use larder_core::UnixMillis;

/// RFC 3339 (a blank for `T`, and UTC where the offset is left out), or an HTTP date in one of its three forms; anything else counts as no date
/// (docs/reference/protocols/quarantine.md, section 5).
pub(crate) fn instant(text: &str) -> Option<UnixMillis> {
    let text = text.trim();
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(UnixMillis(time.as_millisecond()));
    }
    let utc = |time: DateTime| time.to_zoned(TimeZone::UTC).ok();
    match text.parse::<DateTime>().ok().and_then(utc) {
        Some(time) => Some(UnixMillis(time.timestamp().as_millisecond())),
        None => UnixMillis::from_http_date(text),
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
        ] {
            assert_eq!(instant(text), None, "{text}");
        }
    }
}
