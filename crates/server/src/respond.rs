//! From an answer and a request's headers to a response: conditions, ranges, HEAD, and the headers of contract, section 1. The same
//! code serves fresh answers and those of the hot set.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use http::header::{
    ACCEPT_RANGES, AGE, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE,
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, DATE, ETAG, HeaderName,
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED,
    LOCATION, RANGE, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use larder_core::{
    ByteRange, CacheStatus, Conditions, Current, Precondition, RangeAnswer, Source, UnixMillis,
    evaluate_conditions, evaluate_range, field_text, field_value,
};
use larder_engine::{Body, Representation};
use larder_sendfile::FileSender;

use crate::body::ResponseBody;
use crate::metrics::BytesSent;
use crate::multipart::Multipart;

const ARTIFACT_SOURCE: HeaderName = HeaderName::from_static("x-artifact-source");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// The part of an answer that does not change with time: it can be sent again and again.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) served_since: Option<UnixMillis>,
    /// Of the whole body.
    pub(crate) length: Option<u64>,
    pub(crate) way: Way,
}

/// What caches behind the upstream said of its answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Way {
    /// What they did.
    status: Option<String>,
    /// It had an age.
    is_aged: bool,
}

impl Way {
    /// What of it is told of an answer with this timing. The caches that a request came to, the one nearest to the client last (RFC 9211
    /// section 2): a hit came to none behind this one, and a copy that is served for want of an answer neither.
    fn of(&self, timing: Timing) -> Self {
        let own = timing.cache_status;
        let came_there = own.forward.is_some() && matches!(own.forward_status, Some(200 | 304));
        Self {
            status: if came_there {
                self.status.clone()
            } else {
                None
            },
            is_aged: self.is_aged,
        }
    }
}

/// The part that depends on when and how it is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// Since the upstream was last heard.
    pub(crate) age: Duration,
    /// Remaining life; `None` = unlimited.
    pub(crate) remaining: Option<Duration>,
    pub(crate) no_store: bool,
    pub(crate) cache_status: CacheStatus,
    pub(crate) source: Source,
}

/// What of the request decides how an answer is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a Method,
    pub(crate) headers: &'a HeaderMap,
    /// Of the connection, if it can send files.
    pub(crate) sender: Option<&'a FileSender>,
}

/// Why there is no response yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unmet {
    /// 412.
    Precondition,
    /// 416; the length of the body.
    Range(u64),
}

impl Prepared {
    /// Takes over what an answer says of itself. Values that cannot stand in a header are left out: they come from upstreams.
    pub(crate) fn new(status: StatusCode, from: Representation, location: Option<String>) -> Self {
        let mut headers = from.extra;
        let mut set = |name: HeaderName, value: Option<String>| {
            if let Some(value) = value {
                insert(&mut headers, name, value);
            }
        };
        set(CONTENT_TYPE, from.content_type);
        set(CONTENT_ENCODING, from.content_encoding);
        set(CONTENT_DISPOSITION, from.content_disposition);
        set(CONTENT_LANGUAGE, from.content_language);
        set(ETAG, from.etag);
        set(LAST_MODIFIED, from.last_modified);
        let vary: Vec<&str> = from
            .vary
            .iter()
            .copied()
            .filter_map(shown_in_vary)
            .collect();
        set(VARY, (!vary.is_empty()).then(|| vary.join(", ")));
        if let Some(location) = location {
            insert_location(&mut headers, &location);
        }
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
        Self {
            status,
            headers,
            served_since: from.served_since,
            length: from.length,
            way: Way {
                status: from.upstream_status,
                is_aged: from.is_aged,
            },
        }
    }

    /// The bytes of its fields.
    pub(crate) fn weight(&self) -> usize {
        self.headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len())
            .chain(self.way.status.as_ref().map(String::len))
            .sum()
    }

    /// Dates the answer: what `Age` counts from (RFC 9111 section 4.2.3).
    pub(crate) fn date(&mut self, contacted_at: UnixMillis) {
        insert(&mut self.headers, DATE, contacted_at.to_http_date());
    }

    /// Announces ranges; for bodies that have them.
    pub(crate) fn accept_ranges(&mut self) {
        self.headers
            .insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }

    /// What the request's conditions say of it, and which part of it is asked for, if it has parts and so many bytes.
    fn judge(&self, asked: Asked<'_>, ranged: Option<u64>) -> (Precondition, RangeAnswer) {
        let (etag, last_modified) = (
            self.headers.get(ETAG).map(field_text),
            self.headers.get(LAST_MODIFIED).map(field_text),
        );
        let current = Current {
            etag: etag.as_deref(),
            last_modified: last_modified.as_deref(),
            served_since: self.served_since,
        };
        let lines = ConditionLines::of(asked.headers);
        let conditions = lines.conditions();
        let range = ranged
            .filter(|_| asks_for_range(asked))
            .map(|length| evaluate_range(&conditions, &current, length));
        (
            evaluate_conditions(&conditions, &current),
            range.unwrap_or(RangeAnswer::Whole),
        )
    }
}

/// The part of a body that is asked for, if it has one.
fn part(body: &Body, range: ByteRange) -> Option<Body> {
    body.range(range.start, range.end.checked_add(1)?)
}

/// Whether the request's answer depends on the length of the body, because it asks for a part of it.
pub(crate) fn asks_for_range(asked: Asked<'_>) -> bool {
    asked.method == Method::GET && asked.headers.contains_key(RANGE)
}

/// Whether an answer has the bytes, or a part of them, or tells where they are: such are counted.
pub(crate) fn has_bytes(method: &Method, status: StatusCode) -> bool {
    method == Method::GET
        && matches!(
            status,
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::TEMPORARY_REDIRECT
        )
}

/// Makes the response. A 412 or 416 needs an error body, which the caller makes. Headers that are owned are not copied.
pub(crate) fn respond(
    prepared: Cow<'_, Prepared>,
    body: Body,
    timing: Timing,
    asked: Asked<'_>,
    sent: &BytesSent,
) -> Result<Response<ResponseBody>, Unmet> {
    let length = prepared.length.or(body.length());
    let mut answer = RangeAnswer::Whole;
    if prepared.status == StatusCode::OK && is_conditional(asked.headers) {
        match prepared.judge(asked, length.filter(|_| body.is_seekable())) {
            (Precondition::Proceed, part) => answer = part,
            (Precondition::NotModified, _) => {
                return Ok(not_modified(prepared.into_owned(), timing));
            }
            (Precondition::Failed, _) => return Err(Unmet::Precondition),
        }
    }
    let mut status = prepared.status;
    let way = prepared.way.of(timing);
    let mut headers = match prepared {
        Cow::Owned(prepared) => prepared.headers,
        Cow::Borrowed(prepared) => prepared.headers.clone(),
    };
    add_timing(&mut headers, timing, &way);
    let single = match &answer {
        RangeAnswer::Single(range) => part(&body, *range),
        _ => None,
    };
    let body = match (answer, length, single) {
        (RangeAnswer::NotSatisfiable, length, _) => return Err(Unmet::Range(length.unwrap_or(0))),
        (RangeAnswer::Single(range), Some(length), Some(part)) => {
            status = StatusCode::PARTIAL_CONTENT;
            insert(
                &mut headers,
                CONTENT_RANGE,
                format!("bytes {}-{}/{length}", range.start, range.end),
            );
            one_piece(part, Some(range.len()), asked, sent)
        }
        (RangeAnswer::Multiple(ranges), Some(length), _) => {
            status = StatusCode::PARTIAL_CONTENT;
            let multipart = Multipart::new(&ranges, headers.get(CONTENT_TYPE), length);
            insert(&mut headers, CONTENT_TYPE, multipart.content_type());
            let total = multipart.length();
            let pieces = multipart.pieces(|range| part(&body, range));
            ResponseBody::pieces(pieces, Some(total), asked.sender.cloned(), sent.clone())
        }
        _ => whole(body, length, &mut headers, asked, sent),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

fn whole(
    body: Body,
    length: Option<u64>,
    headers: &mut HeaderMap,
    asked: Asked<'_>,
    sent: &BytesSent,
) -> ResponseBody {
    if asked.method == Method::HEAD {
        if let Some(length) = length {
            headers.insert(CONTENT_LENGTH, length.into());
        }
        return ResponseBody::empty();
    }
    // The source knows better than who described it.
    let length = body.length().or(length);
    one_piece(body, length, asked, sent)
}

fn one_piece(body: Body, length: Option<u64>, asked: Asked<'_>, sent: &BytesSent) -> ResponseBody {
    match body {
        Body::Empty => ResponseBody::empty(),
        Body::Memory(bytes) => {
            sent.add(bytes.len() as u64);
            ResponseBody::bytes(bytes)
        }
        body => ResponseBody::pieces(
            VecDeque::from([body]),
            length,
            asked.sender.cloned(),
            sent.clone(),
        ),
    }
}

/// 304 repeats what a cache may need to update its copy, and describes no body (RFC 9110 section 15.4.5).
fn not_modified(prepared: Prepared, timing: Timing) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    let headers = response.headers_mut();
    *headers = prepared.headers;
    for name in [
        CONTENT_TYPE,
        CONTENT_ENCODING,
        CONTENT_LANGUAGE,
        CONTENT_DISPOSITION,
        ACCEPT_RANGES,
    ] {
        headers.remove(name);
    }
    add_timing(headers, timing, &prepared.way.of(timing));
    response
}

fn add_timing(headers: &mut HeaderMap, timing: Timing, way: &Way) {
    headers.insert(
        ARTIFACT_SOURCE,
        HeaderValue::from_static(timing.source.as_str()),
    );
    // Not where the bytes have come straight from the upstream, unless a cache gave them there (RFC 9111 section 5.1).
    // Nor where larder itself is the origin: what is no cached answer has no age.
    let is_origin = headers.contains_key(CACHE_CONTROL);
    let is_of_a_cache = timing.source == Source::Cache || way.is_aged;
    if is_of_a_cache && !timing.no_store && !is_origin {
        headers.insert(AGE, timing.age.as_secs().into());
    }
    match timing.remaining {
        _ if timing.no_store => {
            drop(headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store")));
        }
        // The origin has said itself what caches may do.
        _ if is_origin => {}
        None => drop(headers.insert(CACHE_CONTROL, IMMUTABLE)),
        // Counted from the contact with the upstream (RFC 9111 section 4.2.1), as is the age that clients take off again. What must not
        // be used again has no life in any reading.
        Some(remaining) => {
            let life = if remaining.is_zero() {
                0
            } else {
                timing.age.as_secs() + remaining.as_secs()
            };
            insert(headers, CACHE_CONTROL, format!("max-age={life}"));
        }
    }
    let own = timing.cache_status;
    if let Some(status) = &way.status {
        insert(headers, CACHE_STATUS, format!("{status}, {own}"));
        return;
    }
    match own {
        HIT => drop(headers.insert(CACHE_STATUS, HeaderValue::from_static("larder; hit"))),
        other => insert(headers, CACHE_STATUS, other.to_string()),
    }
}

/// A hit of unlimited life: by far the most frequent status, so its text is ready.
const HIT: CacheStatus = CacheStatus {
    hit: true,
    forward: None,
    forward_status: None,
    ttl: None,
    stored: false,
    collapsed: false,
    detail: None,
};

/// A field's name as `Vary` shows it. That links depend on `Host` is between the pipeline and the hot set; every cache keys on it anyway.
fn shown_in_vary(name: &str) -> Option<&str> {
    match name {
        "accept" => Some("Accept"),
        "accept-encoding" => Some("Accept-Encoding"),
        "host" => None,
        other => Some(other),
    }
}

/// Sets `Location`. Clients may send in a target what no URI has (RFC 3986 section 2), octets above 127 first of all: it is
/// percent-encoded where their target is told again.
pub(crate) fn insert_location(headers: &mut HeaderMap, location: &str) {
    let mut encoded = String::with_capacity(location.len());
    for byte in location.bytes() {
        if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    insert(headers, LOCATION, encoded);
}

pub(crate) fn insert(headers: &mut HeaderMap, name: HeaderName, value: String) {
    let value = if value.is_ascii() {
        HeaderValue::try_from(value).ok()
    } else {
        field_value(&value)
    };
    if let Some(value) = value {
        headers.insert(name, value);
    }
}

fn is_conditional(headers: &HeaderMap) -> bool {
    [
        &RANGE,
        &IF_NONE_MATCH,
        &IF_MODIFIED_SINCE,
        &IF_MATCH,
        &IF_UNMODIFIED_SINCE,
    ]
    .into_iter()
    .any(|name| headers.contains_key(name))
}

/// The conditional headers, repeated lines joined.
struct ConditionLines<'h> {
    if_none_match: Option<Cow<'h, str>>,
    if_modified_since: Option<Cow<'h, str>>,
    if_match: Option<Cow<'h, str>>,
    if_unmodified_since: Option<Cow<'h, str>>,
    if_range: Option<Cow<'h, str>>,
    range: Option<Cow<'h, str>>,
}

impl<'h> ConditionLines<'h> {
    fn of(headers: &'h HeaderMap) -> Self {
        Self {
            if_none_match: joined(headers, &IF_NONE_MATCH),
            if_modified_since: joined(headers, &IF_MODIFIED_SINCE),
            if_match: joined(headers, &IF_MATCH),
            if_unmodified_since: joined(headers, &IF_UNMODIFIED_SINCE),
            if_range: joined(headers, &IF_RANGE),
            range: joined(headers, &RANGE),
        }
    }

    fn conditions(&self) -> Conditions<'_> {
        Conditions {
            if_none_match: self.if_none_match.as_deref(),
            if_modified_since: self.if_modified_since.as_deref(),
            if_match: self.if_match.as_deref(),
            if_unmodified_since: self.if_unmodified_since.as_deref(),
            if_range: self.if_range.as_deref(),
            range: self.range.as_deref(),
        }
    }
}

fn joined<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<Cow<'h, str>> {
    let mut lines = headers.get_all(name).iter().map(field_text);
    let first = lines.next()?;
    Some(lines.fold(first, |all, line| Cow::Owned(format!("{all}, {line}"))))
}
