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
    pub served_since: Option<UnixMillis>,
}

/// Evaluates the conditional headers of a GET or HEAD in the order of RFC 9110 section 13.2.2.
///
/// `If-Modified-Since` departs from the RFC on purpose: a client's date between the upstream's `Last-Modified` and the moment
/// larder began to serve that body may belong to the body before it, so it is 304 only when it equals the date served or is
/// not before that moment (contract, section 1, "Headers").
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
    if client_has_it {
        Precondition::NotModified
    } else {
        Precondition::Proceed
    }
}

/// `If-Unmodified-Since`; dates that cannot be read or compared are ignored.
fn unmodified_since(date: &str, current: &Current<'_>) -> bool {
    let served = current.last_modified.and_then(UnixMillis::from_http_date);
    UnixMillis::from_http_date(date)
        .zip(served)
        .is_none_or(|(date, served)| served <= date)
}

fn not_modified_since(date: &str, current: &Current<'_>) -> bool {
    let Some(since) = UnixMillis::from_http_date(date) else {
        return false;
    };
    same_date(date, current.last_modified)
        || current.served_since.is_some_and(|began| since >= began)
}

/// Whether a list of entity tags, or `*`, names the current one. A field that is malformed names nothing, but for the one thing that
/// clients repeat as it came: the very tag that was served, well formed or not.
fn names_current(list: &str, etag: Option<&str>, same: fn(&str, &str) -> bool) -> bool {
    let whole = list.trim_matches(is_ows);
    if whole == "*" {
        return true;
    }
    let Some(etag) = etag else { return false };
    let names = |named: bool, tag: Option<&str>| Some(named | same(tag?, etag));
    same(whole, etag) || entity_tags(list).try_fold(false, names).unwrap_or(false)
}

/// How `If-Match` or `If-None-Match` of a request that writes is to be read: as `*` where that is among its members; `None`: it cannot be
/// read, and whoever sent it means a condition. A tag is in quotes here: nobody but larder has given it.
///
/// ```
/// use larder_core::condition_of_write;
///
/// assert_eq!(condition_of_write("*, *"), Some("*"));
/// assert_eq!(condition_of_write("\"a\", W/\"b\""), Some("\"a\", W/\"b\""));
/// assert_eq!(condition_of_write("\"a"), None);
/// ```
pub fn condition_of_write(list: &str) -> Option<&str> {
    if members(list).any(|(member, _)| member == "*") {
        return Some("*");
    }
    members(list)
        .all(|(member, is_tag)| is_tag && member.ends_with('"'))
        .then_some(list)
}

/// The elements of a list of entity tags; `None` for one that is malformed.
fn entity_tags(list: &str) -> impl Iterator<Item = Option<&str>> {
    members(list).map(|(member, is_tag)| is_tag.then_some(member))
}

/// The members of such a list, and whether each is a tag. A comma within quotes belongs to the tag; a tag without quotes, which some
/// servers send and clients repeat, ends at the next comma.
fn members(list: &str) -> impl Iterator<Item = (&str, bool)> {
    let mut rest = list;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return None;
        }
        let opening = if rest.starts_with("W/\"") {
            3
        } else {
            usize::from(rest.starts_with('"'))
        };
        let closing = if opening > 0 {
            rest[opening..].find('"').map(|at| opening + at + 1)
        } else {
            Some(0)
        };
        let end = closing
            .and_then(|closing| rest[closing..].find(',').map(|at| closing + at))
            .unwrap_or(rest.len());
        let (tag, tail) = rest.split_at(end);
        rest = tail;
        let tag = tag.trim_matches(is_ows);
        let well_formed = if opening > 0 {
            closing == Some(tag.len())
        } else {
            tag != "*" && !tag.contains('"')
        };
        Some((tag, well_formed))
    })
}

/// Whether a tag is a well formed strong validator (RFC 9110 section 8.8.3): only such a one says that two bodies are the same to the
/// byte.
pub fn is_strong_tag(tag: &str) -> bool {
    let opaque = tag
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    opaque.is_some_and(|opaque| !opaque.contains('"'))
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
    if current
        .etag
        .is_some_and(|etag| strong_match(validator, etag))
    {
        return true;
    }
    same_date(validator, current.last_modified)
}

/// Whether `date` is a date and the one of `last_modified`.
fn same_date(date: &str, last_modified: Option<&str>) -> bool {
    UnixMillis::from_http_date(date)
        .is_some_and(|date| Some(date) == last_modified.and_then(UnixMillis::from_http_date))
}

/// Optional white space within a header (RFC 9110 section 5.6.3).
pub(crate) fn is_ows(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
    /// Half a second after `BEGAN_BEFORE`.
    const BEGAN: UnixMillis = UnixMillis(784_111_500_500);
    const BEGAN_BEFORE: &str = "Sun, 06 Nov 1994 08:45:00 GMT";
    const BEGAN_AFTER: &str = "Sun, 06 Nov 1994 08:45:01 GMT";

    fn with_tag(etag: &str) -> Current<'_> {
        Current {
            etag: Some(etag),
            last_modified: Some(DATE),
            served_since: None,
        }
    }

    #[test]
    fn if_none_match_compares_weakly() {
        use Precondition::{NotModified, Proceed};
        let rows = [
            ("\"a\"", "\"a\"", NotModified),
            ("W/\"a\"", "\"a\"", NotModified),
            ("\"a\"", "W/\"a\"", NotModified),
            ("W/\"a\"", "W/\"a\"", NotModified),
            ("\"b\"", "\"a\"", Proceed),
            ("\"x\", W/\"y\",\"a\"", "\"a\"", NotModified),
            ("\"x,\"a\"", "\"a\"", Proceed),
            ("\"x,a\",\"y\"", "\"x,a\"", NotModified),
            (",, \"a\"", "\"a\"", NotModified),
            ("*", "\"a\"", NotModified),
            ("\"*\"", "\"a\"", Proceed),
            ("", "\"a\"", Proceed),
            ("\"unclosed", "\"a\"", Proceed),
            ("abc, def", "def", NotModified),
            // What is malformed matches nothing (RFC 9110 section 13.1.2 wants `*` or a list of entity tags) …
            ("\"a\"x", "\"a\"", Proceed),
            ("\"a\" x", "\"a\"", Proceed),
            ("x\"a\"", "\"a\"", Proceed),
            ("\"a\"\"b\"", "\"a\"", Proceed),
            ("\"a\" \"b\"", "\"a\"", Proceed),
            ("\"b\"x, \"a\"", "\"a\"", Proceed),
            ("\"a\", \"b\"x", "\"a\"", Proceed),
            ("\"a\", \"b", "\"a\"", Proceed),
            ("*, \"a\"", "\"a\"", Proceed),
            ("**", "\"a\"", Proceed),
            ("w/\"a\"", "\"a\"", Proceed),
            ("W/ \"a\"", "\"a\"", Proceed),
            ("a", "\"a\"", Proceed),
            ("\"a\"", "a", Proceed),
            // … but the very tag that was served, as clients repeat it.
            ("\"a\"x", "\"a\"x", NotModified),
            ("\"unclosed", "\"unclosed", NotModified),
            ("w/\"a\"", "w/\"a\"", NotModified),
            ("a b, c", "a b, c", NotModified),
            ("W/a", "W/a", NotModified),
        ];
        for (asked, etag, expected) in rows {
            let conditions = Conditions {
                if_none_match: Some(asked),
                ..Conditions::default()
            };
            assert_eq!(
                evaluate_conditions(&conditions, &with_tag(etag)),
                expected,
                "{asked} against {etag}"
            );
        }
        let any = Conditions {
            if_none_match: Some("*"),
            ..Conditions::default()
        };
        assert_eq!(
            evaluate_conditions(&any, &Current::default()),
            NotModified,
            "a body exists, with or without a tag"
        );
    }

    #[test]
    fn what_a_write_cannot_read_is_no_condition_that_holds() {
        for list in ["*", " * ", "*,*", "*, \"x\"", "\"x\", *", ", *"] {
            assert_eq!(condition_of_write(list), Some("*"), "{list}");
        }
        for list in ["\"a\"", "\"a\", W/\"b\" ,", "\"a,*\"", "\"*\"", ""] {
            assert_eq!(condition_of_write(list), Some(list), "{list}");
        }
        for list in [
            "\"x",
            "x\"",
            "\"a\", \"x",
            "\"a\"x",
            "\"a\" *",
            "x",
            "**",
            "w/\"a\"",
            "\"a, *",
        ] {
            assert_eq!(condition_of_write(list), None, "{list}");
        }
    }

    #[test]
    fn if_match_compares_strongly() {
        use Precondition::{Failed, Proceed};
        let rows = [
            ("\"a\"", "\"a\"", Proceed),
            ("\"x\", \"a\"", "\"a\"", Proceed),
            ("*", "\"a\"", Proceed),
            ("W/\"a\"", "\"a\"", Failed),
            ("\"a\"", "W/\"a\"", Failed),
            ("W/\"a\"", "W/\"a\"", Failed),
            ("\"b\"", "\"a\"", Failed),
            ("\"a\"x", "\"a\"", Failed),
            ("\"a\", \"b\"x", "\"a\"", Failed),
            ("a", "a", Proceed),
        ];
        for (asked, etag, expected) in rows {
            let conditions = Conditions {
                if_match: Some(asked),
                ..Conditions::default()
            };
            assert_eq!(
                evaluate_conditions(&conditions, &with_tag(etag)),
                expected,
                "{asked} against {etag}"
            );
        }
    }

    #[test]
    fn if_unmodified_since_fails_only_on_a_later_body() {
        use Precondition::{Failed, Proceed};
        let current = with_tag("\"a\"");
        for (date, expected) in [
            (EARLIER, Failed),
            (DATE, Proceed),
            (LATER, Proceed),
            ("soon", Proceed),
        ] {
            let conditions = Conditions {
                if_unmodified_since: Some(date),
                ..Conditions::default()
            };
            assert_eq!(
                evaluate_conditions(&conditions, &current),
                expected,
                "{date}"
            );
            assert_eq!(
                evaluate_conditions(&conditions, &Current::default()),
                Proceed,
                "no date to compare with"
            );
        }
    }

    /// RFC 9110 section 13.2.2: which header is heard when several are sent.
    #[test]
    fn the_stronger_header_silences_the_weaker() {
        let current = with_tag("\"a\"");
        let none = Conditions::default();
        assert_eq!(evaluate_conditions(&none, &current), Precondition::Proceed);
        let changed_tag = Conditions {
            if_none_match: Some("\"b\""),
            if_modified_since: Some(DATE),
            ..none
        };
        assert_eq!(
            evaluate_conditions(&changed_tag, &current),
            Precondition::Proceed
        );
        let matching = Conditions {
            if_match: Some("\"a\""),
            if_unmodified_since: Some(EARLIER),
            ..none
        };
        assert_eq!(
            evaluate_conditions(&matching, &current),
            Precondition::Proceed
        );
        let failing = Conditions {
            if_match: Some("\"b\""),
            if_none_match: Some("\"a\""),
            ..none
        };
        assert_eq!(
            evaluate_conditions(&failing, &current),
            Precondition::Failed
        );
        let both_hold = Conditions {
            if_match: Some("\"a\""),
            if_none_match: Some("\"a\""),
            ..none
        };
        assert_eq!(
            evaluate_conditions(&both_hold, &current),
            Precondition::NotModified
        );
    }

    fn since(date: &str, current: &Current<'_>) -> Precondition {
        evaluate_conditions(
            &Conditions {
                if_modified_since: Some(date),
                ..Conditions::default()
            },
            current,
        )
    }

    /// apk sends the time of its own file. The upstream's date is older than the moment larder switched to that body, so a
    /// client's date in between may belong to the body before.
    #[test]
    fn if_modified_since_between_upstream_s_date_and_larder_s_switch_is_no_304() {
        let switched = Current {
            etag: None,
            last_modified: Some("Sun, 06 Nov 1994 08:00:00 GMT"),
            served_since: Some(BEGAN),
        };
        assert_eq!(
            since("Sun, 06 Nov 1994 08:00:00 GMT", &switched),
            Precondition::NotModified,
            "the date served"
        );
        assert_eq!(
            since("Sun, 06 Nov 1994 07:59:59 GMT", &switched),
            Precondition::Proceed
        );
        assert_eq!(
            since("Sun, 06 Nov 1994 08:20:00 GMT", &switched),
            Precondition::Proceed,
            "in between"
        );
        assert_eq!(
            since(BEGAN_BEFORE, &switched),
            Precondition::Proceed,
            "in the second of the switch, perhaps before it"
        );
        assert_eq!(since(BEGAN_AFTER, &switched), Precondition::NotModified);
        let whole_second = Current {
            served_since: UnixMillis::from_http_date(BEGAN_BEFORE),
            ..switched
        };
        assert_eq!(
            since(BEGAN_BEFORE, &whole_second),
            Precondition::NotModified,
            "not before that moment"
        );
    }

    #[test]
    fn if_modified_since_without_that_moment_wants_the_very_date() {
        let current = with_tag("\"a\"");
        assert_eq!(since(DATE, &current), Precondition::NotModified);
        assert_eq!(
            since("Sunday, 06-Nov-94 08:49:37 GMT", &current),
            Precondition::NotModified,
            "the obsolete forms too"
        );
        assert_eq!(
            since("Sun Nov  6 08:49:37 1994", &current),
            Precondition::NotModified
        );
        assert_eq!(since(LATER, &current), Precondition::Proceed);
        assert_eq!(since(EARLIER, &current), Precondition::Proceed);
        assert_eq!(
            since("yesterday", &current),
            Precondition::Proceed,
            "what is no date is ignored"
        );
        assert_eq!(since(DATE, &Current::default()), Precondition::Proceed);
    }
}
