//! The lines that the log has of requests: one for each that was no plain hit, and one more where a body breaks off after its head.
//! Queries may hold secrets and are not logged; what clients choose is cut.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::USER_AGENT;
use http::{HeaderMap, Method, Response, StatusCode};
use larder_core::{
    Clock as _, ErrorCode, Fault, FaultKind, RequestId, SystemClock, UnixMillis, shown,
};

use crate::body::ResponseBody;
use crate::metrics::{Metrics, RequestKind};
use crate::problem::Said;

/// What monitoring asks every few seconds.
const PROBES: [&str; 4] = ["/live", "/ready", "/health", "/metrics"];

/// One request, for its line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line<'a> {
    pub(crate) id: RequestId,
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) kind: RequestKind,
    /// Milliseconds to the head of the answer.
    pub(crate) ms: u64,
    pub(crate) client: IpAddr,
    pub(crate) peer: SocketAddr,
    /// The configured repository that was addressed; empty if there is none of that name.
    pub(crate) repository: &'a str,
}

impl Line<'_> {
    /// Everything but hits and answers to probes at info. A refusal says why, and is counted.
    pub(crate) fn log(
        &self,
        response: &Response<ResponseBody>,
        metrics: &Metrics,
        now: impl FnOnce() -> UnixMillis,
    ) {
        let status = response.status();
        let bytes = if *self.method == Method::HEAD {
            Some(0)
        } else {
            response.body().length()
        };
        if let Some(Said(fault)) = response.extensions().get::<Said>() {
            self.warn(fault, metrics, now());
            self.log_refusal(fault, status, bytes);
            return;
        }
        let Self {
            id,
            client,
            ms,
            repository,
            ..
        } = *self;
        let (method, path, kind) = (
            &*shown(self.method.as_str()),
            &*shown(self.path),
            self.kind.as_str(),
        );
        let status = status.as_u16();
        if self.kind == RequestKind::Hit
            || response.status().is_success() && PROBES.contains(&self.path)
        {
            tracing::debug!(%id, method, path, status, kind, ms, %client, repository, bytes, "request");
        } else {
            tracing::info!(%id, method, path, status, kind, ms, %client, repository, bytes, "request");
        }
    }

    fn log_refusal(&self, fault: &Fault, status: StatusCode, bytes: Option<u64>) {
        let Self {
            id,
            client,
            peer,
            ms,
            ..
        } = *self;
        let (method, path) = (&*shown(self.method.as_str()), &*shown(self.path));
        let agent = agent_of(self.headers);
        let repository = fault
            .repository
            .as_deref()
            .map_or_else(|| self.repository.into(), shown);
        tracing::info!(
            %id, method, path, status = status.as_u16(), kind = self.kind.as_str(), ms, %client, %peer, agent = agent.as_deref(),
            repository = &*repository, key = fault.key(), code = fault.code.as_str(), rule = fault.rule.as_deref(), reason = fault.message,
            upstream = fault.upstream(), bytes, "request"
        );
    }

    fn warn(&self, fault: &Fault, metrics: &Metrics, now: UnixMillis) {
        let request = (self.repository, self.path, self.id);
        metrics.note_error(fault, false, request, now);
        if let Some(requests) = metrics.refused().note(self.repository, fault, false, now) {
            warn(self.id, self.repository, fault, requests);
        }
    }
}

/// The client's `User-Agent`, as the log shows it.
pub(crate) fn agent_of(headers: &HeaderMap) -> Option<String> {
    let agent = headers.get(USER_AGENT)?;
    Some(shown(&String::from_utf8_lossy(agent.as_bytes())).into_owned())
}

/// Once for each repository and code, then at most once an hour.
fn warn(id: RequestId, repository: &str, fault: &Fault, requests: u64) {
    tracing::warn!(
        %id, repository, key = fault.key(), code = fault.code.as_str(), rule = fault.rule.as_deref(), reason = fault.message,
        upstream = fault.upstream(), requests, "requests are refused; more of the same are counted, and said again in an hour"
    );
}

/// What is no request of HTTP/1.1: hyper has answered 400 or 431 and closed the connection. Nothing of it is shown.
pub(crate) fn unreadable(
    error: &hyper::Error,
    peer: SocketAddr,
    is_plain: bool,
    metrics: &Metrics,
) {
    let status = if error.is_parse_too_large() { 431 } else { 400 };
    let hint = if is_plain && status == 400 {
        "; does the client say https:// where this is http://?"
    } else {
        ""
    };
    let reason = format!("what the client sent is no request that can be read: {error}{hint}");
    let fault = Fault::new(FaultKind::BadRequest, ErrorCode::BadRequest, reason);
    metrics.refused().note("", &fault, false, SystemClock.now());
    tracing::info!(
        client = %peer.ip(), %peer, status, repository = "", code = fault.code.as_str(), reason = fault.message,
        "unreadable request: the connection is closed"
    );
}

/// Who only looks whether the port is open is no news.
pub(crate) fn no_handshake(error: &io::Error, peer: SocketAddr) {
    if matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    ) {
        tracing::debug!(%error, %peer, "TLS handshake failed");
    } else {
        tracing::info!(client = %peer.ip(), %peer, %error, "TLS handshake failed: the connection is closed");
    }
}

/// What is said if the body of an answer breaks off.
pub(crate) struct BrokenOff {
    pub(crate) id: RequestId,
    /// The configured repository; empty if there is none.
    pub(crate) repository: String,
    pub(crate) path: String,
    pub(crate) client: IpAddr,
    pub(crate) agent: Option<String>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) now: Box<dyn Fn() -> UnixMillis + Send>,
}

impl BrokenOff {
    /// The line, with what the pipeline knows of the cause.
    pub(crate) fn log(&self, error: &io::Error, sent: u64) {
        let Self {
            id,
            repository,
            client,
            ..
        } = self;
        let known = error
            .get_ref()
            .and_then(|cause| cause.downcast_ref::<Fault>());
        let unknown = || {
            Fault::new(
                FaultKind::BadGateway,
                ErrorCode::BrokenOff,
                error.to_string(),
            )
        };
        let fault = known.cloned().unwrap_or_else(unknown);
        let (request, now) = ((&**repository, &*self.path, *id), (self.now)());
        self.metrics.note_error(&fault, true, request, now);
        if let Some(requests) = self.metrics.refused().note(repository, &fault, true, now) {
            warn(*id, repository, &fault, requests);
        }
        tracing::info!(
            %id, %client, agent = self.agent.as_deref(), repository, path = &*shown(&self.path), key = fault.key(), code = fault.code.as_str(),
            rule = fault.rule.as_deref(), reason = fault.message, upstream = fault.upstream(), bytes = sent,
            "answer broken off: the connection is closed"
        );
    }
}
