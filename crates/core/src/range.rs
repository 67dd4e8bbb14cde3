//! Byte ranges (RFC 9110 section 14): parsed, resolved against a length, merged.
//!
//! Knows header texts and lengths. Knows nothing of how the body is stored or sent, nor of multipart framing.

use crate::precondition::{Conditions, Current, if_range_holds, is_ows};

/// Inclusive byte positions of one range within a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// Last byte, inclusive.
    pub end: u64,
}

impl ByteRange {
    /// Number of bytes; never zero.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a range that holds no byte cannot be made"
    )]
    pub fn len(&self) -> u64 {
        self.end - self.start + 1
    }
}

/// What to answer to a `Range` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RangeAnswer {
    /// No usable range: 200 with the whole body.
    Whole,
    /// One range: 206 with `Content-Range`.
    Single(ByteRange),
    /// Two to 256 ranges after merging overlaps, in the order asked for: 206 `multipart/byteranges`.
    Multiple(Vec<ByteRange>),
    /// 416 with `Content-Range: bytes */length`.
    NotSatisfiable,
}

/// One element of a `Range` header, before the body's length is known. Numbers beyond `u64` are held as `u64::MAX`, which lies
/// behind the end of every body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeSpec {
    /// `first-`: from a position to the end.
    From(u64),
    /// `first-last`, both inclusive, `first <= last`.
    FromTo(u64, u64),
    /// `-count`: the last bytes.
    Suffix(u64),
}

impl RangeSpec {
    /// The bytes meant in a body of `length`; `None` if there are none.
    fn resolve(self, length: u64) -> Option<ByteRange> {
        let last = length.checked_sub(1)?;
        match self {
            Self::From(start) | Self::FromTo(start, _) if start > last => None,
            Self::From(start) => Some(ByteRange { start, end: last }),
            Self::FromTo(start, end) => Some(ByteRange {
                start,
                end: end.min(last),
            }),
            Self::Suffix(0) => None,
            Self::Suffix(count) => Some(ByteRange {
                start: length.saturating_sub(count),
                end: last,
            }),
        }
    }
}

/// Most parts of one `multipart/byteranges` answer: librepo asks for that many.
const MAX_RANGES: usize = 256;

/// Parses a `Range` header (RFC 9110 section 14.2); `None` if it is malformed or in another unit than bytes, and so ignored.
///
/// ```
/// use larder_core::{RangeSpec, parse_range};
///
/// assert_eq!(parse_range("bytes=0-9, -500"), Some(vec![RangeSpec::FromTo(0, 9), RangeSpec::Suffix(500)]));
/// assert_eq!(parse_range("lines=1-2"), None);
/// ```
pub fn parse_range(text: &str) -> Option<Vec<RangeSpec>> {
    let (unit, set) = text.trim_matches(is_ows).split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    // Empty list elements are legal (section 5.6.1.2), a list of nothing else is not.
    let elements = set
        .split(',')
        .map(|element| element.trim_matches(is_ows))
        .filter(|element| !element.is_empty());
    let specs = elements.map(parse_spec).collect::<Option<Vec<_>>>()?;
    (!specs.is_empty()).then_some(specs)
}

fn parse_spec(element: &str) -> Option<RangeSpec> {
    match element.split_once('-')? {
        ("", count) => Some(RangeSpec::Suffix(parse_number(count)?)),
        (first, "") => Some(RangeSpec::From(parse_number(first)?)),
        (first, last) => {
            let (first, last) = (parse_number(first)?, parse_number(last)?);
            (first <= last).then_some(RangeSpec::FromTo(first, last))
        }
    }
}

/// One or more decimal digits, and nothing else: `str::parse` would take a plus sign.
fn parse_number(digits: &str) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    // What does not fit lies behind the end of every body.
    all_digits.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// Evaluates `Range` and `If-Range` for a body of `length` bytes. Call it only when
/// [`evaluate_conditions`](crate::evaluate_conditions) says [`Proceed`](crate::Precondition::Proceed).
///
/// Overlapping and adjacent ranges are merged, so that the parts together are never longer than the body; more than 256 parts
/// after that give the whole body.
pub fn evaluate_range(
    conditions: &Conditions<'_>,
    current: &Current<'_>,
    length: u64,
) -> RangeAnswer {
    let Some(specs) = conditions.range.and_then(parse_range) else {
        return RangeAnswer::Whole;
    };
    if conditions
        .if_range
        .is_some_and(|validator| !if_range_holds(validator, current))
    {
        return RangeAnswer::Whole;
    }
    // A non-zero suffix is satisfiable even of an empty body (section 14.1.2), but `Content-Range` cannot express it.
    if length == 0
        && specs
            .iter()
            .any(|spec| matches!(spec, RangeSpec::Suffix(1..)))
    {
        return RangeAnswer::Whole;
    }
    let ranges = merge(specs.into_iter().filter_map(|spec| spec.resolve(length)));
    match ranges.as_slice() {
        [] => RangeAnswer::NotSatisfiable,
        [only] => RangeAnswer::Single(*only),
        several if several.len() > MAX_RANGES => RangeAnswer::Whole,
        _ => RangeAnswer::Multiple(ranges),
    }
}

/// Merges overlapping and adjacent ranges. Each result stands where the first of its parts stood in the request.
fn merge(ranges: impl Iterator<Item = ByteRange>) -> Vec<ByteRange> {
    let mut asked: Vec<(usize, ByteRange)> = ranges.enumerate().collect();
    asked.sort_unstable_by_key(|(_, range)| range.start);
    let mut merged: Vec<(usize, ByteRange)> = Vec::with_capacity(asked.len());
    for (position, range) in asked {
        match merged.last_mut() {
            Some((first, open)) if range.start <= open.end.saturating_add(1) => {
                open.end = open.end.max(range.end);
                *first = position.min(*first);
            }
            _ => merged.push((position, range)),
        }
    }
    merged.sort_unstable_by_key(|(position, _)| *position);
    merged.into_iter().map(|(_, range)| range).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(range: &str, length: u64) -> RangeAnswer {
        let conditions = Conditions {
            range: Some(range),
            ..Conditions::default()
        };
        evaluate_range(&conditions, &Current::default(), length)
    }

    fn single(start: u64, end: u64) -> RangeAnswer {
        RangeAnswer::Single(ByteRange { start, end })
    }

    fn multiple(ranges: &[(u64, u64)]) -> RangeAnswer {
        RangeAnswer::Multiple(
            ranges
                .iter()
                .map(|&(start, end)| ByteRange { start, end })
                .collect(),
        )
    }

    /// The examples of RFC 9110 section 14.1.2, for a representation of 10,000 bytes.
    #[test]
    fn the_rfc_s_examples() {
        assert_eq!(answer("bytes=0-499", 10_000), single(0, 499));
        assert_eq!(answer("bytes=500-999", 10_000), single(500, 999));
        assert_eq!(answer("bytes=-500", 10_000), single(9_500, 9_999));
        assert_eq!(answer("bytes=9500-", 10_000), single(9_500, 9_999));
        assert_eq!(
            answer("bytes=0-0,-1", 10_000),
            multiple(&[(0, 0), (9_999, 9_999)])
        );
        assert_eq!(
            answer("bytes= 0-999, 4500-5499, -1000", 10_000),
            multiple(&[(0, 999), (4_500, 5_499), (9_000, 9_999)])
        );
        // "other valid (but not canonical) specifications of the second 500 bytes"
        assert_eq!(answer("bytes=500-600,601-999", 10_000), single(500, 999));
        assert_eq!(answer("bytes=500-700,601-999", 10_000), single(500, 999));
    }

    #[test]
    fn the_length_bounds_every_range() {
        assert_eq!(answer("bytes=5-99", 10), single(5, 9));
        assert_eq!(answer("bytes=-99", 10), single(0, 9));
        assert_eq!(answer("bytes=9-", 10), single(9, 9));
        assert_eq!(answer("bytes=10-", 10), RangeAnswer::NotSatisfiable);
        assert_eq!(answer("bytes=10-20,30-", 10), RangeAnswer::NotSatisfiable);
        assert_eq!(answer("bytes=-0", 10), RangeAnswer::NotSatisfiable);
        assert_eq!(
            answer("bytes=10-20,3-4", 10),
            single(3, 4),
            "unsatisfiable ones are left out"
        );
    }

    #[test]
    fn an_empty_body_has_no_first_byte_but_a_whole() {
        assert_eq!(answer("bytes=0-", 0), RangeAnswer::NotSatisfiable);
        assert_eq!(answer("bytes=0-0", 0), RangeAnswer::NotSatisfiable);
        assert_eq!(answer("bytes=-5", 0), RangeAnswer::Whole);
        assert_eq!(answer("bytes=-0", 0), RangeAnswer::NotSatisfiable);
    }

    #[test]
    fn what_is_malformed_or_in_another_unit_is_ignored() {
        for text in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-3",
            "bytes=+1-2",
            "bytes=1-+2",
            "bytes=0x1-2",
            "bytes=1",
            "bytes=1-2-3",
            "bytes=1 -2",
            "bytes=0-1,x",
            "bytes=--1",
            "lines=1-2",
            "bytes 0-1",
            "bytes=١-٢",
        ] {
            assert_eq!(parse_range(text), None, "{text}");
            assert_eq!(answer(text, 100), RangeAnswer::Whole, "{text}");
        }
        assert_eq!(
            parse_range(" Bytes=1-2\t"),
            Some(vec![RangeSpec::FromTo(1, 2)]),
            "units have no case"
        );
        assert_eq!(
            parse_range("bytes=,1-2,, 3- ,"),
            Some(vec![RangeSpec::FromTo(1, 2), RangeSpec::From(3)])
        );
    }

    /// CVE-2017-7529: a suffix beyond the file made a negative start, and the answer held bytes before the body.
    #[test]
    fn hazard_w8_suffix_range_overflow() {
        for text in [
            "bytes=-9223372036854775608",
            "bytes=-18446744073709551615",
            "bytes=-18446744073709551616",
            "bytes=-999999999999999999999999999999",
            "bytes=-623,-9223372036854775608",
        ] {
            assert_eq!(answer(text, 623), single(0, 622), "{text}");
        }
        assert_eq!(
            answer("bytes=18446744073709551615-", u64::MAX),
            RangeAnswer::NotSatisfiable
        );
        assert_eq!(
            answer("bytes=99999999999999999999-", 10),
            RangeAnswer::NotSatisfiable
        );
        assert_eq!(
            answer("bytes=0-99999999999999999999", u64::MAX),
            single(0, u64::MAX - 1)
        );
        assert_eq!(
            ByteRange {
                start: 0,
                end: u64::MAX - 1
            }
            .len(),
            u64::MAX
        );
    }

    /// CVE-2011-3192: many overlapping ranges of one file.
    #[test]
    fn hazard_w8_overlapping_ranges_are_merged_and_their_number_is_bounded() {
        let overlapping = (0..1_300)
            .map(|i| format!("5-{}", i + 5))
            .collect::<Vec<_>>()
            .join(",");
        assert_eq!(
            answer(&format!("bytes=0-,{overlapping}"), 2_000),
            single(0, 1_999)
        );
        let apart = |count: u64| {
            (0..count)
                .map(|i| format!("{0}-{0}", i * 2))
                .collect::<Vec<_>>()
                .join(",")
        };
        let RangeAnswer::Multiple(parts) = answer(&format!("bytes={}", apart(256)), 1_000) else {
            panic!("not multiple")
        };
        assert_eq!(parts.len(), 256);
        assert_eq!(
            answer(&format!("bytes={}", apart(257)), 1_000),
            RangeAnswer::Whole
        );
    }

    #[test]
    fn parts_come_in_the_order_asked_for() {
        assert_eq!(
            answer("bytes=-1,0-0,5-6", 10),
            multiple(&[(9, 9), (0, 0), (5, 6)])
        );
        assert_eq!(
            answer("bytes=6-7,0-0,8-8,4-5", 10),
            multiple(&[(4, 8), (0, 0)])
        );
    }

    #[test]
    fn if_range_needs_a_strong_tag_or_the_very_date() {
        const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        let strong = Current {
            etag: Some("\"a\""),
            last_modified: Some(DATE),
            served_since: None,
        };
        let weak = Current {
            etag: Some("W/\"a\""),
            ..strong
        };
        let bare = Current {
            etag: None,
            last_modified: None,
            served_since: None,
        };
        let rows = [
            ("\"a\"", strong, true),
            ("\"b\"", strong, false),
            ("W/\"a\"", strong, false),
            ("W/\"a\"", weak, false),
            ("\"a\"", weak, false),
            (DATE, strong, true),
            ("Sun, 06 Nov 1994 08:49:38 GMT", strong, false),
            ("Sun, 06 Nov 1994 08:49:36 GMT", strong, false),
            ("nonsense", strong, false),
            (DATE, bare, false),
            ("\"a\"", bare, false),
        ];
        for (if_range, current, holds) in rows {
            let conditions = Conditions {
                range: Some("bytes=1-2"),
                if_range: Some(if_range),
                ..Conditions::default()
            };
            let expected = if holds {
                single(1, 2)
            } else {
                RangeAnswer::Whole
            };
            assert_eq!(
                evaluate_range(&conditions, &current, 10),
                expected,
                "{if_range} {current:?}"
            );
        }
        // An old If-Range hides even a range that could not be satisfied.
        let conditions = Conditions {
            range: Some("bytes=50-"),
            if_range: Some("\"b\""),
            ..Conditions::default()
        };
        assert_eq!(evaluate_range(&conditions, &strong, 10), RangeAnswer::Whole);
    }

    proptest! {
        /// Compared with a byte-by-byte model of what was asked for.
        #[test]
        fn the_parts_hold_exactly_the_bytes_asked_for(
            specs in proptest::collection::vec((0_u8..3, 0_u64..40, 0_u64..40), 1..12), length in 1_u64..32,
        ) {
            let mut wanted = vec![false; 64];
            let mut texts = Vec::new();
            for (kind, a, b) in specs {
                let (low, high) = (a.min(b), a.max(b));
                let (text, bytes) = match kind {
                    0 => (format!("{a}-"), a..length),
                    1 => (format!("{low}-{high}"), low..(high + 1).min(length)),
                    _ => (format!("-{a}"), length - a.min(length)..length),
                };
                texts.push(text);
                bytes.for_each(|byte| wanted[byte as usize] = true);
            }
            let parts = match answer(&format!("bytes={}", texts.join(",")), length) {
                RangeAnswer::Whole => return Err(TestCaseError::fail("well-formed, few parts")),
                RangeAnswer::NotSatisfiable => vec![],
                RangeAnswer::Single(part) => vec![part],
                RangeAnswer::Multiple(parts) => parts,
            };
            let mut given = vec![false; 64];
            for part in &parts {
                prop_assert!(part.end < length);
                for byte in part.start..=part.end {
                    prop_assert!(!std::mem::replace(&mut given[byte as usize], true), "sent twice");
                }
            }
            prop_assert_eq!(given, wanted);
            prop_assert!(parts.iter().map(ByteRange::len).sum::<u64>() <= length);
        }

        #[test]
        fn no_header_breaks_it(text in "(bytes=)?[0-9,\\- ]{0,60}", length: u64) {
            match answer(&text, length) {
                RangeAnswer::Single(part) => prop_assert!(part.start <= part.end && part.end < length),
                RangeAnswer::Multiple(parts) => prop_assert!((2..=256).contains(&parts.len())),
                RangeAnswer::Whole | RangeAnswer::NotSatisfiable => {}
            }
        }
    }
}
