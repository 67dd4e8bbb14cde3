//! From a request, a resource and the behaviours in force to what goes over the wire. No I/O.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::behaviour::Behaviour;
use crate::request::RecordedRequest;
use crate::resource::{Payload, Resource};
use crate::wire::gzip_stored;

/// How the end of a body is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// What happens when this many bytes of the body are out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Pause(Duration),
    Close,
    Reset,
    Gate,
}

/// Everything that goes out for one request.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) stall: Option<Duration>,
    pub(crate) reset: bool,
    pub(crate) garbage: Option<Bytes>,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) framing: Framing,
    /// The part of `payload` that is sent; `None` = no body (HEAD, 304).
    pub(crate) body: Option<(Payload, u64, u64)>,
    pub(crate) throttle: Option<u64>,
    pub(crate) events: Vec<(u64, Event)>,
    pub(crate) surplus: Option<Bytes>,
    pub(crate) close: bool,
}

/// Makes the plan.
pub(crate) fn plan(
    request: &RecordedRequest,
    resource: Option<&Resource>,
    behaviours: &[Behaviour],
) -> Plan {
    let missing = Resource::new("no such resource\n")
        .status(404)
        .content_type("text/plain");
    let mut resource = resource.cloned().unwrap_or(missing);
    let has = |wanted: &Behaviour| behaviours.contains(wanted);
    replace_resource(&mut resource, request, behaviours);
    let conditions = resource.status == 200 && !has(&Behaviour::IgnoreConditions);
    let ranges = resource.status == 200 && !has(&Behaviour::IgnoreRanges);
    let total = resource.body.length();
    let (mut status, mut part, mut content_range) = (resource.status, (0, total), None);
    if has(&Behaviour::NotModified) || (conditions && not_modified(request, &resource)) {
        status = 304;
    } else if let Some(range) = request
        .header("range")
        .filter(|_| ranges && request.method == "GET")
    {
        match byte_range(range, total).filter(|_| range_holds(request, &resource)) {
            Some(Ok((start, end))) => {
                status = 206;
                part = (start, end);
                content_range = Some(format!("bytes {start}-{}/{total}", end - 1));
            }
            Some(Err(())) => {
                status = 416;
                part = (0, 0);
                content_range = Some(format!("bytes */{total}"));
            }
            None => {}
        }
    }
    let headers = headers_of(&resource, content_range, ranges);
    let mut plan = Plan {
        stall: None,
        reset: false,
        garbage: None,
        status,
        headers,
        framing: Framing::Length(part.1 - part.0),
        body: (status != 304).then_some((resource.body, part.0, part.1)),
        throttle: None,
        events: Vec::new(),
        surplus: None,
        close: request
            .header("connection")
            .is_some_and(|v| v.eq_ignore_ascii_case("close")),
    };
    for behaviour in behaviours {
        apply(&mut plan, behaviour, total);
    }
    plan.events.sort_by_key(|(at, _)| *at);
    if request.method == "HEAD" {
        plan.body = None;
    }
    plan
}

/// The headers of an answer, beside those of its framing.
fn headers_of(
    resource: &Resource,
    content_range: Option<String>,
    ranges: bool,
) -> Vec<(String, String)> {
    let mut headers = resource.headers.clone();
    headers.extend(content_range.map(|v| ("Content-Range".to_owned(), v)));
    headers.extend(resource.etag.clone().map(|v| ("ETag".to_owned(), v)));
    headers.extend(
        resource
            .last_modified
            .clone()
            .map(|v| ("Last-Modified".to_owned(), v)),
    );
    if ranges {
        headers.push(("Accept-Ranges".to_owned(), "bytes".to_owned()));
    }
    headers
}

/// Behaviours that put another resource in the place of the true one.
fn replace_resource(resource: &mut Resource, request: &RecordedRequest, behaviours: &[Behaviour]) {
    for behaviour in behaviours {
        match behaviour {
            Behaviour::Challenge { challenge, unless }
                if request.header("authorization") != Some(unless) =>
            {
                *resource = Resource::new("{}")
                    .status(401)
                    .header("WWW-Authenticate", challenge);
            }
            Behaviour::RefuseType { mentions, status }
                if request
                    .header("accept")
                    .is_some_and(|accept| accept.contains(mentions)) =>
            {
                *resource = Resource::new("no such type\n")
                    .status(*status)
                    .content_type("text/plain");
            }
            Behaviour::Status(status) => {
                *resource = Resource::new(format!("status {status}\n"))
                    .status(*status)
                    .content_type("text/plain");
            }
            Behaviour::Redirect { status, location } => {
                *resource = Resource::new("")
                    .status(*status)
                    .header("Location", location);
            }
            Behaviour::LoginPage => {
                let page = "<!DOCTYPE html><html><head><title>Sign in</title></head><body><form>password</form></body></html>\n";
                *resource = Resource::new(page).content_type("text/html; charset=utf-8");
            }
            Behaviour::JsonNesting { depth } => {
                let body = Payload::Repeat {
                    byte: b'[',
                    length: *depth,
                };
                *resource = Resource::new(body).content_type("application/json");
            }
            Behaviour::Body(body) => resource.body = Payload::Bytes(body.clone()),
            Behaviour::Gzip => {
                resource.body = Payload::Bytes(gzip_stored(&resource.body.slice(0, u64::MAX)));
                resource
                    .headers
                    .push(("Content-Encoding".to_owned(), "gzip".to_owned()));
            }
            _ => {}
        }
    }
}

/// Behaviours that change how the answer is sent.
fn apply(plan: &mut Plan, behaviour: &Behaviour, total: u64) {
    match behaviour {
        Behaviour::StallHead(pause) => plan.stall = Some(*pause),
        Behaviour::StallBody { after, pause } => plan.events.push((*after, Event::Pause(*pause))),
        Behaviour::Throttle { bytes_per_second } => {
            plan.throttle = Some((*bytes_per_second).max(1));
        }
        Behaviour::Truncate { after } => plan.events.push((*after, Event::Close)),
        Behaviour::Chunked => plan.framing = Framing::Chunked,
        Behaviour::CutChunked { after } => {
            plan.framing = Framing::Chunked;
            plan.events.push((*after, Event::Close));
        }
        Behaviour::UntilClose => plan.framing = Framing::UntilClose,
        Behaviour::LieAboutLength(by) => {
            if let Framing::Length(length) = plan.framing {
                plan.framing = Framing::Length(length.saturating_add_signed(*by));
            }
            plan.close = true;
        }
        Behaviour::ResetHead => plan.reset = true,
        Behaviour::ResetBody { after } => plan.events.push((*after, Event::Reset)),
        Behaviour::LabelEncoding(coding) => plan
            .headers
            .push(("Content-Encoding".to_owned(), coding.clone())),
        Behaviour::UnaskedPartial { length } => {
            let end = (*length).min(total);
            plan.status = 206;
            plan.headers
                .retain(|(n, _)| !n.eq_ignore_ascii_case("content-range"));
            plan.headers.push((
                "Content-Range".to_owned(),
                format!("bytes 0-{}/{total}", end.saturating_sub(1)),
            ));
            plan.framing = Framing::Length(end);
            plan.body = plan.body.take().map(|(payload, _, _)| (payload, 0, end));
        }
        Behaviour::Garbage(bytes) => plan.garbage = Some(bytes.clone()),
        Behaviour::Surplus(bytes) => plan.surplus = Some(bytes.clone()),
        Behaviour::Header(name, value) => {
            plan.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
            plan.headers.push((name.clone(), value.clone()));
        }
        Behaviour::WithoutHeader(name) => {
            plan.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        }
        Behaviour::Close => plan.close = true,
        _ => {}
    }
}

/// RFC 9110 section 13.2.2: `If-Modified-Since` counts only without `If-None-Match`.
fn not_modified(request: &RecordedRequest, resource: &Resource) -> bool {
    if let Some(tags) = request.header("if-none-match") {
        let strip = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        let own = resource.etag.as_deref().map(strip);
        return tags.trim() == "*"
            || own.is_some_and(|own| tags.split(',').any(|tag| strip(tag) == own));
    }
    let date = |text: &str| httpdate::parse_http_date(text).unwrap_or(SystemTime::UNIX_EPOCH);
    match (request.header("if-modified-since"), &resource.last_modified) {
        (Some(since), Some(modified)) => date(modified) <= date(since),
        _ => false,
    }
}

/// RFC 9110 section 13.1.5: strong comparison, or the exact date.
fn range_holds(request: &RecordedRequest, resource: &Resource) -> bool {
    request.header("if-range").is_none_or(|validator| {
        let strong = resource
            .etag
            .as_deref()
            .filter(|tag| !tag.starts_with("W/"));
        strong == Some(validator) || resource.last_modified.as_deref() == Some(validator)
    })
}

/// One byte range as `start..end`; `None` = not understood (several ranges too), `Err` = not satisfiable.
fn byte_range(text: &str, total: u64) -> Option<Result<(u64, u64), ()>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let range = if first.is_empty() {
        (total.saturating_sub(last.parse().ok()?), total)
    } else {
        let end = if last.is_empty() {
            total
        } else {
            last.parse::<u64>().ok()?.saturating_add(1)
        };
        (first.parse().ok()?, end.min(total))
    };
    Some(if range.0 < range.1 {
        Ok(range)
    } else {
        Err(())
    })
}
