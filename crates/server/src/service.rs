//! The order in which a request meets the layers, on one page:
//!
//! 1. framing and addressing (`request_check.rs`): 4xx and the connection is closed;
//! 2. on loopback, whether a browser has been led here by a foreign name (`origin_guard.rs`): 421;
//! 3. the hot set (`hot.rs`), then the warm set (`warm.rs`): answered at once, counted, not logged unless asked for; not for requests of
//!    larder's own (`loops.rs`);
//! 4. request id, in-flight gauge, log span;
//! 5. the URL table (`dispatch.rs`, `routes.rs`);
//! 6. for what changes state, the guard (`origin_guard.rs`);
//! 7. the handler (`artifact.rs`, `admin.rs`);
//! 8. access log (`access_log.rs`), latency, `Connection: close` where the body has not been read.

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, request};
use http_body::Body as _;
use hyper::body::Incoming;
use larder_core::{
    ErrorCode, Fault, FaultKind, Principal, Repository, RequestId, SpanContext, shown,
};

use crate::access_log::{self, BrokenOff, Line};
use crate::backend::Backend;
use crate::body::ResponseBody;
use crate::dispatch::{audience_at, dispatch, fail_at};
use crate::exchange::{Exchange, Handled};
use crate::forwarded::{self, Client, Direct};
use crate::lingering::leave_unread;
use crate::metrics::RequestKind;
use crate::origin_guard::{is_browser, principal_of, refuse_rebound};
use crate::problem;
use crate::respond::{Asked, has_bytes};
use crate::routes::is_probe;
use crate::state::{Connection, Shared};
use crate::{remembered, request_check, spans};

/// When a client that found no place should ask again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Answers the requests of one connection.
pub(crate) struct Service<B> {
    pub(crate) backend: Arc<B>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) connection: Arc<Connection>,
}

impl<B> Clone for Service<B> {
    fn clone(&self) -> Self {
        Self {
            backend: Arc::clone(&self.backend),
            shared: Arc::clone(&self.shared),
            connection: Arc::clone(&self.connection),
        }
    }
}

impl<B: Backend> hyper::service::Service<Request<Incoming>> for Service<B> {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        let defect = self.connection.activity.head_complete();
        let host = match request_check::check(&request, defect) {
            Ok((target, host)) => {
                if self.connection.on_loopback
                    && is_browser(request.headers())
                    && let Err(fault) = refuse_rebound(host, &self.shared.live.load())
                {
                    return Answering::Ready(Some(self.refuse(request, &fault)));
                }
                if self.connection.seat.is_ordinary()
                    && !self.shared.has_seen(request.headers())
                    && let Some(response) = self.hot_answer(&request, target, host)
                {
                    return Answering::Ready(Some(response));
                }
                host.to_owned()
            }
            Err(fault) => return Answering::Ready(Some(self.refuse(request, &fault))),
        };
        let service = self.clone();
        Answering::Waiting(Box::pin(async move { service.answer(request, host).await }))
    }
}

/// The future of an answer: hits need none.
pub(crate) enum Answering {
    Ready(Option<Response<ResponseBody>>),
    Waiting(Pin<Box<dyn Future<Output = Response<ResponseBody>> + Send>>),
}

impl Future for Answering {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Ready(response) => response
                .take()
                .map_or(Poll::Pending, |response| Poll::Ready(Ok(response))),
            Self::Waiting(future) => future.as_mut().poll(cx).map(Ok),
        }
    }
}

impl<B: Backend> Service<B> {
    /// The answer out of the hot set, if it has one. No lock is held, nobody is asked, next to nothing is allocated.
    fn hot_answer(
        &self,
        request: &Request<Incoming>,
        target: &str,
        host: &str,
    ) -> Option<Response<ResponseBody>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return None;
        }
        let Some(found) = self.shared.hot.get(target) else {
            return self.warm_answer(request, target);
        };
        let now = self.backend.now();
        let headers = request.headers();
        let variant = found.find(headers, |base| self.uses_base(request, host, base), now)?;
        if !variant.body.is_intact() {
            tracing::warn!(
                path = &*shown(request.uri().path()),
                "a file of the hot set has been shortened; it is looked up again"
            );
            self.shared.hot.remove(target);
            return None;
        }
        let asked = Asked {
            method: request.method(),
            headers,
            sender: self.connection.sender.as_ref(),
        };
        variant.ticket.touch(now);
        let mut response = remembered::from_hot(variant, asked, now)?;
        confirm_keep_alive(headers, &mut response);
        variant.requests.count_hot(response.status());
        if has_bytes(request.method(), response.status()) {
            variant.ticket.serve();
        }
        tracing::debug!(
            method = %request.method(), path = &*shown(request.uri().path()), status = response.status().as_u16(),
            peer = %self.connection.peer, "hot"
        );
        let running = (!response.body().is_end_stream() && variant.body.is_file())
            .then(|| self.connection.activity.begin());
        if !self.connection.activity.is_http1() {
            response = response.map(ResponseBody::in_frames);
        }
        Some(match running {
            Some(running) => {
                let reading = variant.ticket.reading();
                response.map(|body| body.keep_running(running).keep_reading(reading))
            }
            None => response,
        })
    }

    /// The answer out of the warm set, if it has one whose body is at hand.
    fn warm_answer(
        &self,
        request: &Request<Incoming>,
        target: &str,
    ) -> Option<Response<ResponseBody>> {
        // Whoever reads in the log what is decided of requests is to find it of each.
        if tracing::enabled!(target: "larder_engine::decided", tracing::Level::DEBUG) {
            return None;
        }
        let warm = self.shared.warm.get(target)?;
        let (started, now) = (Instant::now(), self.backend.now());
        if !warm.ticket.is_good(now) {
            return None;
        }
        let asked = Asked {
            method: request.method(),
            headers: request.headers(),
            sender: self.connection.sender.as_ref(),
        };
        let warmed = (target, &*warm);
        let Some(mut response) =
            remembered::from_warm(&*self.backend, &self.shared, warmed, asked, now)
        else {
            self.shared.warm.remove(target);
            return None;
        };
        confirm_keep_alive(request.headers(), &mut response);
        warm.ticket.count_hit();
        if has_bytes(request.method(), response.status()) {
            warm.ticket.serve();
        }
        warm.ticket.touch(now);
        warm.requests.count(RequestKind::Hit, response.status());
        self.shared
            .metrics
            .observe(RequestKind::Hit, started.elapsed());
        tracing::debug!(
            method = %request.method(), path = &*shown(request.uri().path()), status = response.status().as_u16(),
            peer = %self.connection.peer, "warm"
        );
        if !self.connection.activity.is_http1() {
            response = response.map(ResponseBody::in_frames);
        }
        if response.body().is_at_hand() {
            return Some(response);
        }
        let (running, reading) = (self.connection.activity.begin(), warm.ticket.reading());
        Some(response.map(|body| body.keep_running(running).keep_reading(reading)))
    }

    fn uses_base(&self, request: &Request<Incoming>, host: &str, base: &str) -> bool {
        if forwarded::is_forwarded(request.headers()) {
            return self.client(request.headers(), host).base == base;
        }
        let after_scheme = base
            .strip_prefix(self.connection.scheme)
            .and_then(|rest| rest.strip_prefix("://"));
        after_scheme == Some(host)
    }

    fn client(&self, headers: &http::HeaderMap, host: &str) -> Client {
        let direct = Direct {
            peer: self.connection.peer.ip(),
            scheme: self.connection.scheme,
            host,
        };
        forwarded::client(direct, headers, &self.shared.live.load().trusted_proxies)
    }

    fn principal(&self, headers: &http::HeaderMap) -> Principal {
        principal_of(headers, &self.shared.live.load())
    }

    /// A request that fails the first checks: nothing else has looked at it, nothing else of this connection is read.
    fn refuse(&self, request: Request<Incoming>, fault: &Fault) -> Response<ResponseBody> {
        let id = RequestId::next();
        let mut response =
            problem::response(&*self.backend, fault, audience_at(request.uri().path()));
        let kind = RequestKind::Refused;
        self.shared
            .metrics
            .repository("")
            .count(kind, response.status());
        let line = Line {
            id,
            method: request.method(),
            path: request.uri().path(),
            headers: request.headers(),
            kind,
            ms: 0,
            client: self.connection.peer.ip(),
            peer: self.connection.peer,
            repository: "",
        };
        line.log(&response, &self.shared.metrics, || self.backend.now());
        self.close(&mut response, request.version());
        name(&mut response, id);
        let (head, body) = request.into_parts();
        leave_unread(head.version, body);
        if head.method == Method::HEAD {
            without_body(response)
        } else {
            response
        }
    }

    async fn answer(self, request: Request<Incoming>, host: String) -> Response<ResponseBody> {
        let started = Instant::now();
        let running = self.connection.activity.begin();
        let _present = self.shared.metrics.request();
        let id = RequestId::next();
        let client = self.client(request.headers(), &host);
        let (head, mut body) = request.into_parts();
        let exchange = Exchange {
            backend: &self.backend,
            shared: &self.shared,
            connection: &self.connection,
            head: &head,
            host: &host,
            client: &client,
            principal: self.principal(&head.headers),
        };
        // Behind a pointer: usually there is none.
        let span = spans::begin(&head).map(Box::new);
        let context = span.as_ref().map(|span| span.context());
        let mut handled = named(id, context, self.handle(&exchange, &mut body)).await;
        self.log(&head, &client, id, &handled, started);
        if let Some(span) = span {
            spans::end(*span, &head, &handled);
        }
        name(&mut handled.response, id);
        let Handled {
            mut response,
            kind,
            repository,
        } = handled;
        // After a chunked body the raw heads can no longer be told apart; what nobody has read must not be taken for a head.
        if head.headers.contains_key(TRANSFER_ENCODING) || !body.is_end_stream() {
            self.close(&mut response, head.version);
        } else {
            confirm_keep_alive(&head.headers, &mut response);
        }
        leave_unread(head.version, body);
        if head.method == Method::HEAD {
            response = without_body(response);
        }
        if !self.connection.seat.is_ordinary() && head.version < Version::HTTP_2 {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        if !self.connection.activity.is_http1() {
            response = response.map(ResponseBody::in_frames);
        }
        let broken = || {
            (kind != RequestKind::Hit)
                .then(|| Box::new(self.broken_off(id, repository.as_deref(), &head, &client)))
        };
        response.map(|body| body.keep_running(running).named(id, broken))
    }

    /// Hands a request on that has a place. Where larder itself is at fault and panics, this request is lost, and others of its connection
    /// are not.
    async fn handle(&self, exchange: &Exchange<'_, B>, body: &mut Incoming) -> Handled {
        let handled = async {
            match self.take_place(exchange.head).await {
                Ok(()) => dispatch(exchange, body).await,
                Err(fault) => Handled::other(fail_at(exchange, &fault)),
            }
        };
        let handled = AssertUnwindSafe(handled).catch_unwind().await;
        handled.unwrap_or_else(|panic| {
            let path = exchange.head.uri.path();
            tracing::error!(
                path = &*shown(path),
                panic = words_of(&*panic),
                "a request ended in a panic"
            );
            let message = "a fault of larder's own; its log says more";
            let fault = Fault::new(FaultKind::Internal, ErrorCode::Internal, message);
            Handled::other(fail_at(exchange, &fault))
        })
    }

    /// A connection in the reserve answers probes; for anything else it needs a place among the others.
    async fn take_place(&self, head: &request::Parts) -> Result<(), Fault> {
        let seat = &self.connection.seat;
        if seat.is_ordinary() || is_probe(head.uri.path()) || seat.take_place().await {
            return Ok(());
        }
        let message = "all connections that larder may have are busy; ask again in a moment";
        let fault = Fault::new(FaultKind::Unavailable, ErrorCode::Busy, message)
            .by_rule("limits.connections");
        Err(fault.retry_after(Some(ASK_AGAIN)))
    }

    /// What is to be said if the body does not come to its end.
    fn broken_off(
        &self,
        id: RequestId,
        repository: Option<&Repository>,
        head: &request::Parts,
        client: &Client,
    ) -> BrokenOff {
        let backend = Arc::clone(&self.backend);
        BrokenOff {
            id,
            repository: repository
                .map_or_else(String::new, |repository| repository.name.to_string()),
            path: head.uri.path().to_owned(),
            client: client.address,
            agent: access_log::agent_of(&head.headers),
            metrics: Arc::clone(&self.shared.metrics),
            now: Box::new(move || backend.now()),
        }
    }

    /// Ends the connection with this answer. HTTP/2 ends the stream instead: there, requests cannot be mistaken for one another.
    fn close(&self, response: &mut Response<ResponseBody>, version: Version) {
        if version < Version::HTTP_2 {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
            self.connection.activity.ask_to_linger();
        }
    }

    /// Counts the answer and writes its line.
    fn log(
        &self,
        head: &request::Parts,
        client: &Client,
        id: RequestId,
        handled: &Handled,
        started: Instant,
    ) {
        let (status, elapsed) = (handled.response.status(), started.elapsed());
        let repository = handled
            .repository
            .as_ref()
            .map_or("", |repository| repository.name.as_str());
        self.shared
            .metrics
            .repository(repository)
            .count(handled.kind, status);
        self.shared.metrics.observe(handled.kind, elapsed);
        let line = Line {
            id,
            method: &head.method,
            path: head.uri.path(),
            headers: &head.headers,
            kind: handled.kind,
            ms: elapsed.as_millis() as u64,
            client: client.address,
            peer: self.connection.peer,
            repository,
        };
        line.log(&handled.response, &self.shared.metrics, || {
            self.backend.now()
        });
    }
}

/// What a panic says.
fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("it says nothing")
}

/// Puts the request's name into the answer.
fn name(response: &mut Response<ResponseBody>, id: RequestId) {
    if let Ok(id) = HeaderValue::try_from(id.to_string()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
}

/// Connections of HTTP/1.1 stay open unsaid, but apk and others that use libfetch open a new one for each file unless they are told.
fn confirm_keep_alive(asked: &http::HeaderMap, response: &mut Response<ResponseBody>) {
    let wanted = asked
        .get(CONNECTION)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"keep-alive"));
    if wanted && !response.headers().contains_key(CONNECTION) {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("keep-alive"));
    }
}

/// Gives what the pipeline logs the request's name. What is at hand is answered at the first poll and logs next to nothing: a span
/// would cost more than the answer, and whoever has something to say then finds the name in [`RequestId::current`].
async fn named<F: Future>(id: RequestId, context: Option<SpanContext>, future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut span = None;
    std::future::poll_fn(move |cx| {
        let polled = {
            let _entered = span.as_ref().map(tracing::Span::enter);
            id.while_current(|| match context {
                None => future.as_mut().poll(cx),
                context => SpanContext::while_current(context, || future.as_mut().poll(cx)),
            })
        };
        if polled.is_pending() {
            // Of the highest level: warnings are to carry it whatever else is filtered out.
            span.get_or_insert_with(|| tracing::error_span!("request", id = %id));
        }
        polled
    })
    .await
}

/// The answer to HEAD: the length of GET's body, and no body.
fn without_body(response: Response<ResponseBody>) -> Response<ResponseBody> {
    let (mut head, body) = response.into_parts();
    let bodiless =
        head.status == StatusCode::NOT_MODIFIED || head.headers.contains_key(CONTENT_LENGTH);
    if let (Some(length), false) = (body.length(), bodiless)
        && length > 0
    {
        head.headers.insert(CONTENT_LENGTH, length.into());
    }
    Response::from_parts(head, ResponseBody::empty())
}
