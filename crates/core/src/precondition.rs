//! Conditional requests (RFC 9110 section 13): may the client keep what it has, or must the request fail.
//!
//! Knows header texts. Knows nothing of bodies; ranges are in `range.rs`.

use crate::clock::UnixMillis;

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

/// `If-Range`: an entity tag by strong comparison, or exactly the date served (section 13.1.5).
pub(crate) fn if_range_holds(validator: &str, current: &Current<'_>) -> bool {
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

/// Optional white space within a header (RFC 9110 section 5.6.3).
pub(crate) fn is_ows(c: char) -> bool {
    matches!(c, ' ' | '\t')
}
