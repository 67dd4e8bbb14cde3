//! The span of a request: begun with it, told with the head of its answer.

use http::header::HeaderName;
use http::{Method, request};
use larder_core::{Span, shown};

use crate::exchange::Handled;
use crate::metrics::RequestKind;

/// W3C Trace Context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The span of a request; `None` while nobody records spans.
pub(crate) fn begin(head: &request::Parts) -> Option<Span> {
    Span::of_request(|| head.headers.get(TRACEPARENT)?.to_str().ok())
}

/// Tells of a request. Of hits nothing is told, nor of what asks how larder does.
pub(crate) fn end(mut span: Span, head: &request::Parts, handled: &Handled) {
    let is_look = matches!(head.method, Method::GET | Method::HEAD);
    let is_told = match handled.kind {
        RequestKind::Hit => false,
        RequestKind::Other => !is_look,
        _ => true,
    };
    if !is_told {
        return;
    }
    let repository = handled.repository.as_deref();
    let repository = repository.map_or("", |repository| repository.name.as_str());
    let name = format!("{} {repository}", head.method);
    span.rename(name.trim_end().to_owned());
    span.say("http.request.method", head.method.as_str());
    span.say("url.path", shown(head.uri.path()));
    span.say("larder.repository", repository);
    let status = handled.response.status();
    span.count("http.response.status_code", status.as_u16().into());
    let said = handled.response.headers().get(CACHE_STATUS);
    if let Some(said) = said.and_then(|said| said.to_str().ok()) {
        span.say("larder.cache_status", said);
    }
    if status.is_server_error() {
        span.fail(status.to_string());
    }
    span.end();
}
