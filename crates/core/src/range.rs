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
    #[expect(clippy::len_without_is_empty, reason = "a range that holds no byte cannot be made")]
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
            Self::FromTo(start, end) => Some(ByteRange { start, end: end.min(last) }),
            Self::Suffix(0) => None,
            Self::Suffix(count) => Some(ByteRange { start: length.saturating_sub(count), end: last }),
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
    let elements = set.split(',').map(|element| element.trim_matches(is_ows)).filter(|element| !element.is_empty());
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

/// Evaluates `Range` and `If-Range` for a body of `length` bytes. Call it only when [`evaluate_conditions`](crate::evaluate_conditions) says
/// [`Proceed`](crate::Precondition::Proceed).
///
/// Overlapping and adjacent ranges are merged, so that the parts together are never longer than the body; more than 256 parts
/// after that give the whole body.
pub fn evaluate_range(conditions: &Conditions<'_>, current: &Current<'_>, length: u64) -> RangeAnswer {
    let Some(specs) = conditions.range.and_then(parse_range) else { return RangeAnswer::Whole };
    if conditions.if_range.is_some_and(|validator| !if_range_holds(validator, current)) {
        return RangeAnswer::Whole;
    }
    // A non-zero suffix is satisfiable even of an empty body (section 14.1.2), but `Content-Range` cannot express it.
    if length == 0 && specs.iter().any(|spec| matches!(spec, RangeSpec::Suffix(1..))) {
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
