//! Numbers and times: as they are in JSON, and as people read them in HTML.

use std::fmt::{self, Write as _};

use askama::filters::HtmlSafe;
use larder_core::UnixMillis;
use serde::{Serialize, Serializer};

use crate::page::Frame;

/// HTML that larder itself has made, of numbers and fixed words only. Nothing that somebody else has written is ever in it.
#[derive(Debug, Clone)]
pub struct Markup(pub(crate) String);

impl fmt::Display for Markup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl HtmlSafe for Markup {}

/// A number of bytes: shown as `1.4 GiB`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let (mut value, mut unit) = (self.0 as f64 / 1024.0, 0);
        // What would be rounded to 1024 of a unit is one of the next.
        while value >= 1023.95 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        let digits = usize::from(value < 99.95);
        write!(f, "{value:.digits$} {}", UNITS[unit])
    }
}

/// A difference of bytes, which may be less than nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Saved(pub i64);

impl fmt::Display for Saved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "\u{2212}" } else { "" };
        write!(f, "{sign}{}", Bytes(self.0.unsigned_abs()))
    }
}

/// A number of things: shown as `12 345`, with narrow spaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Count(pub u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (position, digit) in digits.chars().enumerate() {
            if position > 0 && (digits.len() - position).is_multiple_of(3) {
                f.write_char('\u{202f}')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}

/// A part of a whole, 0 to 1: shown as `93.4 %`. Only what is whole is shown as 100 %.
#[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Share(pub f64);

impl Share {
    /// `part` of `whole`; `None` of nothing.
    pub fn of(part: u64, whole: u64) -> Option<Self> {
        (whole > 0).then(|| Self(part as f64 / whole as f64))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = (self.0 * 1000.0).clamp(0.0, 1000.0);
        let tenths = if self.0 < 1.0 { tenths.floor() } else { tenths };
        write!(f, "{:.1}\u{202f}%", tenths / 10.0)
    }
}

/// A time that something takes, in seconds: shown as `3 h 20 min`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Span(pub u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
        let Some(first) = UNITS.iter().position(|(length, _)| self.0 >= *length) else {
            return f.write_str("0 s");
        };
        let (length, unit) = UNITS[first];
        write!(f, "{} {unit}", self.0 / length)?;
        let rest = self.0 % length;
        match UNITS.get(first + 1) {
            Some((length, unit)) if rest >= *length => write!(f, " {} {unit}", rest / length),
            _ => Ok(()),
        }
    }
}

/// A moment: RFC 3339 in JSON; `4 min ago` in HTML, or the day if that is long ago, with the moment itself in the element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub UnixMillis);

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_rfc3339())
    }
}

impl Moment {
    /// How long ago, or until then, as a `time` element.
    pub fn html(&self, frame: &Frame) -> Markup {
        let exact = self.0.to_rfc3339();
        let shown = self.relative(frame.now);
        Markup(format!(
            "<time datetime=\"{exact}\" title=\"{exact}\">{shown}</time>"
        ))
    }

    fn relative(self, now: UnixMillis) -> String {
        const LONG_AGO: u64 = 100 * 86_400;
        let (past, coming) = (now.since(self.0), self.0.since(now));
        let first = |span: Span| {
            let whole = span.to_string();
            let mut words = whole.split(' ');
            let (number, unit) = (words.next(), words.next());
            format!("{} {}", number.unwrap_or("0"), unit.unwrap_or("s"))
        };
        match (past.as_secs(), coming.as_secs()) {
            (0, 0) => "now".to_owned(),
            (past, 0) if past >= LONG_AGO => self.0.to_rfc3339().chars().take(10).collect(),
            (past, 0) => format!("{} ago", first(Span(past))),
            (_, coming) => format!("in {}", first(Span(coming))),
        }
    }
}

/// The beginning of a text, so that a page is short whatever somebody else has written. Its JSON has all of it.
#[derive(Debug, Clone, Copy)]
pub struct Beginning<'t> {
    pub(crate) text: &'t str,
    pub(crate) most: usize,
}

impl fmt::Display for Beginning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.text.floor_char_boundary(self.most);
        f.write_str(&self.text[..end])?;
        if end < self.text.len() {
            f.write_char('\u{2026}')?;
        }
        Ok(())
    }
}

/// RFC 3986: unreserved characters stay, and slashes where `path` says so.
pub(crate) fn percent_encoded(text: &str, path: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let stays = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~')
            || path && matches!(byte, b'/' | b'@' | b'+' | b':' | b'=' | b',');
        if stays {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits_and_the_unit_that_fits() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_536, "1.5 KiB"),
            (102_400, "100 KiB"),
            (1_048_575, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), shown, "{bytes}");
        }
        assert_eq!(Saved(-1_536).to_string(), "\u{2212}1.5 KiB");
    }

    #[test]
    fn counts_are_grouped_and_shares_never_rounded_to_all() {
        assert_eq!(Count(999).to_string(), "999");
        assert_eq!(Count(1_234_567).to_string(), "1\u{202f}234\u{202f}567");
        let share = |part, whole| Share::of(part, whole).map(|share| share.to_string());
        assert_eq!(share(99_999, 100_000).as_deref(), Some("99.9\u{202f}%"));
        assert_eq!(share(5, 5).as_deref(), Some("100.0\u{202f}%"));
        assert_eq!(share(0, 5).as_deref(), Some("0.0\u{202f}%"));
        assert_eq!(share(0, 0), None);
    }

    #[test]
    fn times_are_told_by_their_largest_units() {
        for (seconds, shown) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3_725, "1 h 2 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(Span(seconds).to_string(), shown);
        }
        let now = UnixMillis(1_700_000_000_000);
        let at = |seconds: i64| Moment(UnixMillis(now.0 + seconds * 1_000)).relative(now);
        assert_eq!(
            [at(0), at(-61), at(7_300), at(-200_000)],
            ["now", "1 min ago", "in 2 h", "2 d ago"]
        );
        let years_ago = Moment(UnixMillis(1_577_934_245_000));
        assert_eq!(years_ago.relative(now), "2020-01-02");
        let json = serde_json::to_string(&Moment(now)).unwrap();
        assert_eq!(json, "\"2023-11-14T22:13:20Z\"");
    }

    #[test]
    fn long_texts_are_cut_between_letters() {
        let cut = |text, most| Beginning { text, most }.to_string();
        assert_eq!(cut("äöü", 6), "äöü");
        assert_eq!(cut("äöü", 5), "äö\u{2026}");
        assert_eq!(cut("", 0), "");
    }

    #[test]
    fn hazard_nothing_leaves_its_place_in_an_address() {
        assert_eq!(
            percent_encoded("a b&c=\"<>/é", false),
            "a%20b%26c%3D%22%3C%3E%2F%C3%A9"
        );
        assert_eq!(percent_encoded("@a/b c?#%", true), "@a/b%20c%3F%23%25");
    }
}
