//! From a [`Fault`] to a response: the only place that chooses an HTTP status. The body's shape is asked from the format.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, RETRY_AFTER,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Response, StatusCode};
use hyper::ext::ReasonPhrase;
use larder_core::{Fault, FaultKind, PackageType, Repository, keeps_status, reason_phrase};

use crate::backend::Backend;
use crate::body::ResponseBody;
use crate::respond::insert;

const QUARANTINE: HeaderName = HeaderName::from_static("x-larder-quarantine");

/// Who will read the error.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Audience<'a> {
    /// Whoever asks below `/api/v1`, or for what belongs to no repository.
    Repository(Option<&'a Repository>),
    /// OCI clients.
    Oci,
}

/// The fault that a response tells of, for the log: an extension of the response.
#[derive(Debug, Clone)]
pub(crate) struct Said(pub(crate) Arc<Fault>);

/// The response to a fault.
pub(crate) fn response<B: Backend>(
    backend: &B,
    fault: &Fault,
    audience: Audience<'_>,
) -> Response<ResponseBody> {
    with_status(status_of(fault.kind), backend, fault, audience)
}

/// The same with a status that no kind of fault has (416).
pub(crate) fn with_status<B: Backend>(
    status: StatusCode,
    backend: &B,
    fault: &Fault,
    audience: Audience<'_>,
) -> Response<ResponseBody> {
    let mut fault = fault.clone();
    if let (None, Audience::Repository(Some(repository))) = (&fault.repository, audience) {
        fault = fault.in_repository(&repository.name);
    }
    let shape = match audience {
        // Below `/api/v1` the answer is larder's own, whatever the repository holds: its readers print `error`.
        Audience::Repository(_) => backend.error_body(&fault, None),
        Audience::Oci => backend.error_body(&fault, Some(PackageType::Docker)),
    };
    let mut response = Response::new(ResponseBody::bytes(Bytes::from(shape.body)));
    *response.status_mut() = status;
    // HTTP/2 has no reason phrases, and hyper leaves it out there.
    if let Ok(reason) = ReasonPhrase::try_from(reason_phrase(&fault).into_bytes()) {
        response.extensions_mut().insert(reason);
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(shape.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    if matches!(audience, Audience::Oci) {
        let (name, value) = crate::oci::API_VERSION;
        headers.insert(name, value);
    }
    if let Some(after) = fault.retry_after {
        headers.insert(RETRY_AFTER, whole_seconds(after).into());
    }
    if let Some(until) = fault.held_until
        && let Ok(until) = jiff::Timestamp::from_millisecond(until.0)
    {
        insert(headers, QUARANTINE, format!("until={until:.0}"));
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        // What every artifact offers; a route that offers more says so itself. An upstream that refuses a read offers nothing here
        // (RFC 9110 section 10.2.1: an empty value).
        let upstream = matches!(fault.kind, FaultKind::Upstream(_));
        headers.insert(
            ALLOW,
            HeaderValue::from_static(if upstream { "" } else { "GET, HEAD" }),
        );
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"larder\""),
        );
    }
    response.extensions_mut().insert(Said(Arc::new(fault)));
    response
}

/// 405 with the methods that are allowed.
pub(crate) fn not_allowed<B: Backend>(
    backend: &B,
    fault: &Fault,
    audience: Audience<'_>,
    allow: &str,
) -> Response<ResponseBody> {
    let mut response = response(backend, fault, audience);
    insert(response.headers_mut(), ALLOW, allow.to_owned());
    response
}

/// Rounded up: a client that comes back must not come too early.
pub(crate) fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

pub(crate) fn status_of(kind: FaultKind) -> StatusCode {
    match kind {
        FaultKind::BadRequest => StatusCode::BAD_REQUEST,
        FaultKind::Unauthorized => StatusCode::UNAUTHORIZED,
        FaultKind::Forbidden => StatusCode::FORBIDDEN,
        FaultKind::NotFound => StatusCode::NOT_FOUND,
        FaultKind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        FaultKind::Conflict => StatusCode::CONFLICT,
        FaultKind::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        FaultKind::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        FaultKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        FaultKind::UriTooLong => StatusCode::URI_TOO_LONG,
        FaultKind::Misdirected => StatusCode::MISDIRECTED_REQUEST,
        FaultKind::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
        FaultKind::Upstream(status) => upstream_status(status),
        FaultKind::BadGateway => StatusCode::BAD_GATEWAY,
        FaultKind::GatewayTimeout => StatusCode::GATEWAY_TIMEOUT,
        FaultKind::InsufficientStorage => StatusCode::INSUFFICIENT_STORAGE,
        FaultKind::LoopDetected => StatusCode::LOOP_DETECTED,
        FaultKind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        FaultKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        FaultKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// What no client can act on is the upstream's fault.
fn upstream_status(status: u16) -> StatusCode {
    keeps_status(status)
        .then(|| StatusCode::from_u16(status).ok())
        .flatten()
        .unwrap_or(StatusCode::BAD_GATEWAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_statuses_that_are_kept_and_those_that_are_not() {
        for kept in [
            400, 403, 404, 405, 408, 409, 410, 414, 416, 421, 425, 426, 428, 429, 431, 451, 500,
            502, 503, 504, 599,
        ] {
            assert_eq!(status_of(FaultKind::Upstream(kept)).as_u16(), kept);
        }
        for other in [
            100, 201, 204, 206, 301, 304, 401, 402, 406, 407, 411, 412, 413, 418, 0, 1000,
        ] {
            assert_eq!(
                status_of(FaultKind::Upstream(other)),
                StatusCode::BAD_GATEWAY,
                "{other}"
            );
        }
    }

    #[test]
    fn clients_are_never_asked_back_too_early() {
        assert_eq!(whole_seconds(Duration::from_millis(1_001)), 2);
        assert_eq!(whole_seconds(Duration::from_secs(7)), 7);
    }
}
