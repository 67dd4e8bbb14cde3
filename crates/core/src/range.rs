//! Ranges and conditional requests (RFC 9110 sections 13 and 14): pure evaluation, no body.
//!
//! Knows header texts and lengths. Knows nothing of how the body is stored or sent.

use crate::clock::UnixMillis;

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

/// The request's conditional headers, as texts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conditions<'a> {
    /// `If-None-Match` (several lines joined by a comma).
    pub if_none_match: Option<&'a str>,
    /// `If-Modified-Since`.
    pub if_modified_since: Option<&'a str>,
    /// `If-Match`.
    pub if_match: Option<&'a str>,
    /// `If-Unmodified-Since`.
    pub if_unmodified_since: Option<&'a str>,
    /// `If-Range`.
    pub if_range: Option<&'a str>,
    /// `Range`.
    pub range: Option<&'a str>,
}

/// Result of the conditional headers for GET and HEAD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// Go on.
    Proceed,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// What the conditions are compared with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Current<'a> {
    /// The body's entity tag as served, with quotes and `W/`.
    pub etag: Option<&'a str>,
    /// `Last-Modified` as served.
    pub last_modified: Option<&'a str>,
    /// When larder began to serve this body.
    pub began_at: Option<UnixMillis>,
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

fn is_ows(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

/// Evaluates `Range` and `If-Range` for a body of `length` bytes. Call it only when [`evaluate_conditions`] says
/// [`Proceed`](Precondition::Proceed).
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

/// `If-Range`: an entity tag by strong comparison, or exactly the date served (section 13.1.5).
fn if_range_holds(validator: &str, current: &Current<'_>) -> bool {
    let validator = validator.trim_matches(is_ows);
    if current.etag.is_some_and(|etag| strong_match(validator, etag)) {
        return true;
    }
    same_date(validator, current.last_modified)
}

/// Whether `date` is a date and the one of `last_modified`.
fn same_date(date: &str, last_modified: Option<&str>) -> bool {
    UnixMillis::from_http_date(date).is_some_and(|date| Some(date) == last_modified.and_then(UnixMillis::from_http_date))
}

/// Evaluates the conditional headers of a GET or HEAD in the order of RFC 9110 section 13.2.2.
///
/// `If-Modified-Since` departs from the RFC on purpose: a client's date between the upstream's `Last-Modified` and the moment
/// larder began to serve that body may belong to the body before it, so it is 304 only when it equals the date served or is
/// not before that moment (spec section 1 "Headers").
///
/// ```
/// use larder_core::{Conditions, Current, Precondition, evaluate_conditions};
///
/// let current = Current { etag: Some("\"v1\""), ..Current::default() };
/// let asked = Conditions { if_none_match: Some("\"v0\", W/\"v1\""), ..Conditions::default() };
/// assert_eq!(evaluate_conditions(&asked, &current), Precondition::NotModified);
/// ```
pub fn evaluate_conditions(conditions: &Conditions<'_>, current: &Current<'_>) -> Precondition {
    let may_go_on = match (conditions.if_match, conditions.if_unmodified_since) {
        (Some(tags), _) => names_current(tags, current.etag, strong_match),
        (None, Some(date)) => unmodified_since(date, current),
        (None, None) => true,
    };
    if !may_go_on {
        return Precondition::Failed;
    }
    let client_has_it = match (conditions.if_none_match, conditions.if_modified_since) {
        (Some(tags), _) => names_current(tags, current.etag, weak_match),
        (None, Some(date)) => not_modified_since(date, current),
        (None, None) => false,
    };
    if client_has_it { Precondition::NotModified } else { Precondition::Proceed }
}

/// `If-Unmodified-Since`; dates that cannot be read or compared are ignored.
fn unmodified_since(date: &str, current: &Current<'_>) -> bool {
    let served = current.last_modified.and_then(UnixMillis::from_http_date);
    UnixMillis::from_http_date(date).zip(served).is_none_or(|(date, served)| served <= date)
}

fn not_modified_since(date: &str, current: &Current<'_>) -> bool {
    let Some(since) = UnixMillis::from_http_date(date) else { return false };
    same_date(date, current.last_modified) || current.began_at.is_some_and(|began| since >= began)
}

/// Whether a list of entity tags, or `*`, names the current one.
fn names_current(list: &str, etag: Option<&str>, same: fn(&str, &str) -> bool) -> bool {
    list.trim_matches(is_ows) == "*" || etag.is_some_and(|etag| entity_tags(list).any(|tag| same(tag, etag)))
}

/// The elements of a list of entity tags. A comma within quotes belongs to the tag; a tag without quotes, which some servers
/// send and clients repeat, ends at the next comma.
fn entity_tags(list: &str) -> impl Iterator<Item = &str> {
    let mut rest = list;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return None;
        }
        let opening = if rest.starts_with("W/\"") { 3 } else { usize::from(rest.starts_with('"')) };
        let closing = if opening > 0 { rest[opening..].find('"').map(|at| opening + at + 1) } else { rest.find(',') };
        let (tag, tail) = rest.split_at(closing.unwrap_or(rest.len()));
        rest = tail;
        Some(tag.trim_matches(is_ows))
    })
}

/// Strong comparison (RFC 9110 section 8.8.3.2): equal, and neither is weak.
fn strong_match(a: &str, b: &str) -> bool {
    a == b && !a.starts_with("W/")
}

/// Weak comparison (RFC 9110 section 8.8.3.2): the opaque parts are equal.
pub(crate) fn weak_match(a: &str, b: &str) -> bool {
    a.strip_prefix("W/").unwrap_or(a) == b.strip_prefix("W/").unwrap_or(b)
}
