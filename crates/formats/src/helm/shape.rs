//! What Helm expects where in a chart version: its reader refuses a whole index for one field of another type, one key that it does
//! not know, or one key that stands twice.

use super::scan::Kind;

/// What a value is expected to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// The index itself.
    Root,
    /// `entries`.
    Entries,
    /// The list of a chart's versions.
    Versions,
    /// A chart version.
    Entry,
    /// A text.
    Text,
    /// A list of texts.
    Texts,
    /// `urls`.
    Urls,
    /// A mapping of texts (`annotations`).
    Labels,
    /// A truth value.
    Flag,
    /// A point in time.
    Instant,
    Maintainers,
    Maintainer,
    Dependencies,
    Dependency,
    /// A list of whatever it is.
    List,
    /// Whatever it is.
    Any,
}

/// The fields of a chart version, as far as they are told apart.
pub(super) const NAME: u8 = 0;
pub(super) const VERSION: u8 = 1;
pub(super) const CREATED: u8 = 2;
pub(super) const DEPRECATED: u8 = 21;
/// What the number of a field is greater by where its key is spelt in another case. Helm takes keys in the order of their bytes and the
/// last of one field, which is the usual one.
pub(super) const OTHERWISE: u8 = 32;

impl Shape {
    /// The number of a key in a mapping of this shape, and what its value is expected to be; `None` for a key that Helm does not know.
    /// Go's JSON reader does not tell upper from lower case.
    pub(super) fn field(self, key: &[u8]) -> Option<(u8, Self)> {
        let known = match self {
            Self::Entry => entry,
            Self::Maintainer => maintainer,
            Self::Dependency => dependency,
            _ => return None,
        };
        known(key).or_else(|| {
            let (field, shape) = known(&key.to_ascii_lowercase())?;
            Some((field + OTHERWISE, shape))
        })
    }

    /// What the value of a key of the index itself is expected to be; `None` for one that does not matter.
    pub(super) fn of_root(key: &str) -> Option<Self> {
        if key.eq_ignore_ascii_case("entries") {
            Some(Self::Entries)
        } else {
            key.eq_ignore_ascii_case("generated")
                .then_some(Self::Instant)
        }
    }

    /// Whether a mapping of this shape has fields that are known by name.
    pub(super) fn has_fields(self) -> bool {
        matches!(self, Self::Entry | Self::Maintainer | Self::Dependency)
    }

    /// What the items of a list of this shape are.
    pub(super) fn item(self) -> Self {
        match self {
            Self::Versions => Self::Entry,
            Self::Maintainers => Self::Maintainer,
            Self::Dependencies => Self::Dependency,
            Self::Texts | Self::Urls => Self::Text,
            _ => Self::Any,
        }
    }

    /// Whether a collection may stand where this is expected.
    pub(super) fn takes(self, kind: Kind) -> bool {
        match self {
            Self::Any => true,
            Self::Versions
            | Self::Texts
            | Self::Urls
            | Self::Maintainers
            | Self::Dependencies
            | Self::List => kind == Kind::Sequence,
            Self::Root
            | Self::Entries
            | Self::Entry
            | Self::Labels
            | Self::Maintainer
            | Self::Dependency => kind == Kind::Mapping,
            Self::Text | Self::Flag | Self::Instant => false,
        }
    }

    /// For messages.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Flag => "true or false",
            Self::Instant => "a time (RFC 3339)",
            Self::Texts
            | Self::Urls
            | Self::Versions
            | Self::Maintainers
            | Self::Dependencies
            | Self::List => "a list",
            Self::Any => "a finite value",
            _ => "a mapping",
        }
    }
}

fn entry(key: &[u8]) -> Option<(u8, Shape)> {
    Some(match key {
        b"name" => (NAME, Shape::Text),
        b"version" => (VERSION, Shape::Text),
        b"created" => (CREATED, Shape::Instant),
        b"urls" => (3, Shape::Urls),
        b"digest" => (4, Shape::Text),
        b"apiVersion" | b"apiversion" => (5, Shape::Text),
        b"appVersion" | b"appversion" => (6, Shape::Text),
        b"description" => (7, Shape::Text),
        b"home" => (8, Shape::Text),
        b"icon" => (9, Shape::Text),
        b"kubeVersion" | b"kubeversion" => (10, Shape::Text),
        b"type" => (11, Shape::Text),
        b"condition" => (12, Shape::Text),
        b"tags" => (13, Shape::Text),
        b"checksum" => (14, Shape::Text),
        b"engine" => (15, Shape::Text),
        b"tillerVersion" | b"tillerversion" => (16, Shape::Text),
        b"url" => (17, Shape::Text),
        b"sources" => (18, Shape::Texts),
        b"keywords" => (19, Shape::Texts),
        b"annotations" => (20, Shape::Labels),
        b"deprecated" => (DEPRECATED, Shape::Flag),
        b"removed" => (22, Shape::Flag),
        b"maintainers" => (23, Shape::Maintainers),
        b"dependencies" => (24, Shape::Dependencies),
        _ => return None,
    })
}

fn maintainer(key: &[u8]) -> Option<(u8, Shape)> {
    match key {
        b"name" => Some((0, Shape::Text)),
        b"email" => Some((1, Shape::Text)),
        b"url" => Some((2, Shape::Text)),
        _ => None,
    }
}

fn dependency(key: &[u8]) -> Option<(u8, Shape)> {
    Some(match key {
        b"name" => (0, Shape::Text),
        b"version" => (1, Shape::Text),
        b"repository" => (2, Shape::Text),
        b"condition" => (3, Shape::Text),
        b"tags" => (4, Shape::Texts),
        b"enabled" => (5, Shape::Flag),
        b"import-values" => (6, Shape::List),
        b"alias" => (7, Shape::Text),
        _ => return None,
    })
}

/// Whether a plain scalar is null.
pub(super) fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// The truth value that a plain scalar is to Helm's reader, which knows these spellings and no others.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "true" | "True" | "TRUE" => {
            Some(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "false" | "False" | "FALSE" => {
            Some(false)
        }
        _ => None,
    }
}

/// Whether a plain scalar is a number to Helm's reader that it cannot write as JSON, into which it turns the whole index.
pub(super) fn is_endless(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN")
}

/// A number, as Helm's reader tells it from others: `1` and `1.0` are two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Number {
    Integer(i128),
    /// Its bits.
    Float(u64),
}

/// The number that a plain scalar is to Helm's reader.
pub(super) fn number(text: &str) -> Option<Number> {
    if is_endless(text) && !text.ends_with(['n', 'N']) {
        let end = if text.starts_with('-') {
            f64::NEG_INFINITY
        } else {
            f64::INFINITY
        };
        return Some(Number::Float(end.to_bits()));
    }
    match text.as_bytes().first()? {
        b'.' => float(text),
        b'0'..=b'9' | b'+' | b'-' => {
            let digits: String = text.chars().filter(|c| *c != '_').collect();
            integer(&digits).or_else(|| float(&digits))
        }
        _ => None,
    }
}

/// Of 64 bits, in the radix that its first digits say.
fn integer(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (radix, digits) = match unsigned.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, unsigned.get(2..)?),
        [b'0', b'o' | b'O', ..] => (8, unsigned.get(2..)?),
        [b'0', b'b' | b'B', ..] => (2, unsigned.get(2..)?),
        [b'0', _, ..] => (8, unsigned.get(1..)?),
        _ => (10, unsigned),
    };
    let is_digits = digits.chars().all(|c| c.is_digit(radix));
    let size = i128::from_str_radix(digits, radix)
        .ok()
        .filter(|_| is_digits)?;
    let value = if text.starts_with('-') { -size } else { size };
    let most = if unsigned == text {
        i128::from(u64::MAX)
    } else {
        i128::from(i64::MAX)
    };
    (i128::from(i64::MIN)..=most)
        .contains(&value)
        .then_some(Number::Integer(value))
}

fn float(text: &str) -> Option<Number> {
    let is_decimal = text
        .bytes()
        .all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    let value = text
        .parse::<f64>()
        .ok()
        .filter(|value| is_decimal && value.is_finite())?;
    // Zero has two signs and is one.
    Some(Number::Float((value + 0.0).to_bits()))
}

/// Whether a plain scalar is a truth value to some reader, in whichever case.
fn is_truth(text: &str) -> bool {
    matches!(
        text.to_ascii_lowercase().as_str(),
        "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false"
    )
}

/// Whether some YAML reader takes a plain scalar for anything but text or null: truth values, numbers, times (YAML 1.1 and 1.2), merge
/// keys. What is a time to some is text to Helm, and stays the same text in quotes.
pub(super) fn is_no_text(text: &str) -> bool {
    if matches!(text, "<<" | "=") {
        return true;
    }
    match text.as_bytes().first() {
        Some(b'0'..=b'9' | b'+' | b'-' | b'.') => is_number(text) || is_time(text),
        Some(_) => text.len() <= 5 && is_truth(text),
        None => false,
    }
}

fn is_number(text: &str) -> bool {
    // Most of what begins with a digit is a version.
    if text.bytes().filter(|b| *b == b'.').count() > 1 && !text.contains(':') {
        return false;
    }
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(&digits);
    let lower = unsigned.to_ascii_lowercase();
    let of_radix = |prefix: &str, radix: u32| {
        lower
            .strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix)))
    };
    let is_decimal = lower.bytes().any(|b| b.is_ascii_digit())
        && lower
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'+' | b'-'))
        && lower.parse::<f64>().is_ok();
    let is_sexagesimal = lower.contains(':')
        && lower
            .split(':')
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
    is_decimal
        || matches!(lower.as_str(), ".inf" | ".nan")
        || of_radix("0x", 16)
        || of_radix("0o", 8)
        || of_radix("0b", 2)
        || is_sexagesimal
}

/// `2024-01-02`, and whatever begins so.
fn is_time(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let is = |part: Option<&str>, most: usize| {
        part.is_some_and(|part| {
            (1..=most).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
        })
    };
    text.get(..4)
        .is_some_and(|year| year.bytes().all(|b| b.is_ascii_digit()))
        && is(parts.next(), 4)
        && is(parts.next(), 2)
        && parts
            .next()
            .is_some_and(|day| day.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of these is a number, a truth value or a time to a YAML 1.1 reader (yaml.org/type/).
    #[test]
    fn what_is_no_text_is_known() {
        for text in [
            "1",
            "1.10",
            "-1",
            "+12",
            "1_000",
            "0x1F",
            "0b101",
            "0o17",
            "017",
            "1e3",
            "1.5E+3",
            ".5",
            "1.",
            ".inf",
            "-.INF",
            ".NaN",
            "12:30:00",
            "2024-01-02",
            "2024-01-02T03:04:05Z",
            "yes",
            "No",
            "ON",
            "off",
            "true",
            "False",
            "y",
            "N",
            "<<",
            "12345678901234567890123",
        ] {
            assert!(is_no_text(text), "{text}");
        }
        for text in [
            "1.2.3",
            "v1",
            "1.2.3-rc.1",
            "10.1.2.3",
            "a",
            "yesterday",
            "x1",
            "-",
            "--",
            "1.x",
            ">=1.2",
            "+",
            ".",
            "1-2",
            "12:30 pm",
            "1a",
            "0xg",
            "e1",
            "~",
            "null",
            "2024.1.2",
            "nope",
        ] {
            assert!(!is_no_text(text), "{text}");
        }
    }

    /// The lists of yaml.org/type/bool.html, which Helm's reader takes by the letter.
    #[test]
    fn truth_values_have_three_cases_each() {
        for text in ["y", "Yes", "ON", "true", "TRUE"] {
            assert_eq!(truth(text), Some(true), "{text}");
        }
        for text in ["N", "no", "Off", "FALSE"] {
            assert_eq!(truth(text), Some(false), "{text}");
        }
        for text in ["tRue", "yEs", "YeS", "oN", "1", "", "yess"] {
            assert_eq!(truth(text), None, "{text}");
        }
    }

    /// Each line is one number in several spellings, and a number of its own: the integers of YAML 1.1 and of Go's literals.
    #[test]
    fn a_number_is_known_in_each_spelling() {
        let lines: [&[&str]; 12] = [
            &["1", "0x1", "+1", "01", "0b1", "0o1", "0X1", "0_1"],
            &["1.0", "1.", "1.00", "1e0", "+1.0", "10e-1"],
            &["1000", "1_000", "0x3e8"],
            &["1e3", "1000.0", "1E+3", "1_000.0"],
            &["15", "017", "0o17", "0xf"],
            &["-3", "-0b11", "-03"],
            &["0.1", ".1", "1e-1", "+.1"],
            &["1.1", "1.10"],
            &["0", "-0", "+0", "00"],
            &["0.0", "-0.0", "-.0"],
            &["18446744073709551615", "0xffffffffffffffff"],
            &[".inf", "+.INF", ".Inf"],
        ];
        let mut known = std::collections::HashSet::new();
        for line in lines {
            let numbers: Vec<_> = line.iter().map(|text| number(text)).collect();
            assert!(
                numbers[0].is_some() && numbers.iter().all(|one| *one == numbers[0]),
                "{line:?}: {numbers:?}"
            );
            assert!(known.insert(numbers[0]), "{line:?}");
        }
        // Beyond 64 bits an integer is a float, and so is a decimal that octal digits do not make up.
        assert_eq!(
            number("+18446744073709551615"),
            number("18446744073709551615.0")
        );
        assert_eq!(number("08"), number("8.0"));
        for text in [
            "",
            "a",
            "1a",
            "0x",
            "0xg",
            "0b2",
            "1.2.3",
            "-",
            "+-1",
            "--1",
            ".",
            "1e999",
            ".nan",
            "inf",
            "e1",
            "._1",
            "2024-01-02",
        ] {
            assert_eq!(number(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_without_an_end_are_known_in_each_spelling() {
        for text in [".nan", ".NaN", ".NAN", ".inf", "+.Inf", "-.INF"] {
            assert!(is_endless(text), "{text}");
        }
        for text in ["+.nan", ".nAn", ".iNf", "inf", "nan", "1e999"] {
            assert!(!is_endless(text), "{text}");
        }
    }
}
