//! What is checked of every request before anything else looks at it (hazards S11, S14): how it is framed and addressed. A
//! request that fails is answered with a 4xx, and its connection is closed.

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Request, Version};
use larder_core::{ErrorCode, Fault, FaultKind};

use crate::forwarded::is_host;
use crate::framing::FramingDefect;
use crate::hidden::LONGEST_BODY;

/// Longest request target, in bytes (contract, section 1).
const MAX_TARGET: usize = 8 << 10;

/// Checks a request, and gives its target and the host that the client used. `defect` is what the raw head showed.
pub(crate) fn check<B: http_body::Body>(
    request: &Request<B>,
    defect: Option<FramingDefect>,
) -> Result<(&str, &str), Fault> {
    let is_too_long = request.body().size_hint().lower() > LONGEST_BODY;
    if let Some(defect) = defect.or(is_too_long.then_some(FramingDefect::TooLong)) {
        return Err(defective(defect));
    }
    let http1 = request.version() < Version::HTTP_2;
    let target = check_target(request, http1)?;
    if http1 {
        check_framing(request.headers())?;
    }
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if reads && !request.body().is_end_stream() {
        return Err(bad_request("a GET or HEAD request must not have a body"));
    }
    Ok((target, check_host(request, http1)?))
}

fn check_target<B>(request: &Request<B>, http1: bool) -> Result<&str, Fault> {
    let uri = request.uri();
    if *request.method() == Method::CONNECT {
        return Err(bad_request("larder is no proxy: CONNECT is not offered"));
    }
    // In HTTP/2 scheme and authority are pseudo-headers and always there.
    if http1 && (uri.scheme().is_some() || uri.authority().is_some()) {
        return Err(bad_request(
            "the request target must be a path, not a whole URL",
        ));
    }
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    if target.len() > MAX_TARGET {
        return Err(Fault::new(
            FaultKind::UriTooLong,
            ErrorCode::UriTooLong,
            "the request target is longer than 8 KiB",
        ));
    }
    if !target.starts_with('/') || target.starts_with("//") {
        return Err(bad_request(
            "the request target must be a path that starts with one slash",
        ));
    }
    if target.bytes().any(|b| b.is_ascii_control() || b == b'\\') {
        return Err(bad_request(
            "the request target holds a backslash or a control character",
        ));
    }
    Ok(target)
}

fn check_framing(headers: &HeaderMap) -> Result<(), Fault> {
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(encoding) = encodings.next() else {
        return Ok(());
    };
    if encodings.next().is_some()
        || !encoding
            .as_bytes()
            .trim_ascii()
            .eq_ignore_ascii_case(b"chunked")
    {
        return Err(bad_request(
            "the only Transfer-Encoding that larder accepts is 'chunked'",
        ));
    }
    if headers.contains_key(CONTENT_LENGTH) {
        return Err(bad_request(FramingDefect::LengthAndEncoding.message()));
    }
    Ok(())
}

/// The host is part of links and of the protection against rebound names, so it must be one, and one only.
fn check_host<B>(request: &Request<B>, http1: bool) -> Result<&str, Fault> {
    let mut lines = request.headers().get_all(HOST).iter();
    let (line, second) = (lines.next(), lines.next());
    if second.is_some() {
        return Err(bad_request("the request has more than one Host"));
    }
    let line = line.map(|line| line.to_str().unwrap_or("?"));
    let host = match (line, request.uri().authority()) {
        (Some(line), Some(authority)) if !line.eq_ignore_ascii_case(authority.as_str()) => {
            return Err(bad_request("the request's Host is not its authority"));
        }
        (Some(line), _) => line,
        (None, Some(authority)) if !http1 => authority.as_str(),
        // HTTP/1.0 knows no Host; there are no links to build for such clients but to the loopback name.
        (None, _) if request.version() < Version::HTTP_11 => return Ok("localhost"),
        (None, _) => return Err(bad_request("the request has no Host")),
    };
    if is_host(host) {
        Ok(host)
    } else {
        Err(bad_request(
            "the request's Host is not a host name with an optional port",
        ))
    }
}

fn defective(defect: FramingDefect) -> Fault {
    match defect {
        FramingDefect::TooLong => Fault::new(
            FaultKind::TooLarge,
            ErrorCode::BodyTooLarge,
            defect.message(),
        ),
        _ => bad_request(defect.message()),
    }
}

fn bad_request(message: &'static str) -> Fault {
    Fault::new(FaultKind::BadRequest, ErrorCode::BadRequest, message)
}
