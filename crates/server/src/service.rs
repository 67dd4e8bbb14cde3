//! The order in which a request meets the layers, on one page:
//!
//! 1. framing and addressing (`request_check.rs`): 4xx and the connection is closed;
//! 2. on loopback, whether a browser has been led here by a foreign name (`origin_guard.rs`): 421;
//! 3. the hot set (`hot.rs`): answered at once, counted, not logged unless asked for; not for requests of larder's own (`loops.rs`);
//! 4. request id, in-flight gauge, log span;
//! 5. the URL table (`routes.rs`);
//! 6. for what changes state, the guard (`origin_guard.rs`);
//! 7. the handler (`artifact.rs`, `admin.rs`);
//! 8. access log (`access_log.rs`), latency, `Connection: close` where the body has not been read.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, request};
use http_body::Body as _;
use hyper::body::Incoming;
use larder_core::{ErrorCode, Fault, FaultKind, Repository, RepositoryKind, RequestId, shown};

use crate::access_log::{self, BrokenOff, Line};
use crate::backend::Backend;
use crate::body::ResponseBody;
use crate::forwarded::{self, Client, Direct};
use crate::metrics::RequestKind;
use crate::origin_guard::{Attempt, is_browser, may_change_state, refuse_rebound};
use crate::problem::{self, Audience};
use crate::respond::Asked;
use crate::root_page::{self, is_root};
use crate::routes::{Endpoint, Found, find};
use crate::state::{Connection, Shared};
use crate::{admin, artifact, discovery, loops, oci, request_check};

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

/// One request on its way to a handler.
pub(crate) struct Exchange<'a, B> {
    pub(crate) backend: &'a Arc<B>,
    pub(crate) shared: &'a Shared,
    pub(crate) connection: &'a Connection,
    pub(crate) head: &'a request::Parts,
    /// The `Host` that was used.
    pub(crate) host: &'a str,
    pub(crate) client: &'a Client,
}

/// A response with what the log says of it.
pub(crate) struct Handled {
    pub(crate) response: Response<ResponseBody>,
    pub(crate) kind: RequestKind,
    /// The repository that was addressed, if there is one of that name.
    pub(crate) repository: Option<Arc<Repository>>,
}

impl Handled {
    pub(crate) fn other(response: Response<ResponseBody>) -> Self {
        Self {
            response,
            kind: RequestKind::Other,
            repository: None,
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
                    return Answering::Ready(Some(self.refuse(&request, &fault)));
                }
                if !self.shared.has_seen(request.headers())
                    && let Some(response) = self.hot_answer(&request, target, host)
                {
                    return Answering::Ready(Some(response));
                }
                host.to_owned()
            }
            Err(fault) => return Answering::Ready(Some(self.refuse(&request, &fault))),
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
        let found = self.shared.hot.get(target)?;
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
        let mut response = artifact::from_hot(variant, asked, now)?;
        confirm_keep_alive(headers, &mut response);
        variant.requests.count_hot(response.status());
        tracing::debug!(
            method = %request.method(), path = &*shown(request.uri().path()), status = response.status().as_u16(),
            peer = %self.connection.peer, "hot"
        );
        let running = (!response.body().is_end_stream() && variant.body.is_file())
            .then(|| self.connection.activity.begin());
        Some(match running {
            Some(running) => response.map(|body| body.keep_running(running)),
            None => response,
        })
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

    /// A request that fails the first checks: nothing else has looked at it, nothing else of this connection is read.
    fn refuse(&self, request: &Request<Incoming>, fault: &Fault) -> Response<ResponseBody> {
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
        if *request.method() == Method::HEAD {
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
        };
        let mut handled = named(id, dispatch(&exchange, &mut body)).await;
        self.log(&head, &client, id, &handled, started);
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
        if head.method == Method::HEAD {
            response = without_body(response);
        }
        let broken = || {
            (kind != RequestKind::Hit)
                .then(|| Box::new(self.broken_off(id, repository.as_deref(), &head, &client)))
        };
        response.map(|body| body.keep_running(running).named(id, broken))
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
async fn named<F: Future>(id: RequestId, future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut span = None;
    std::future::poll_fn(move |cx| {
        let polled = {
            let _entered = span.as_ref().map(tracing::Span::enter);
            id.while_current(|| future.as_mut().poll(cx))
        };
        if polled.is_pending() {
            // Of the highest level: warnings are to carry it whatever else is filtered out.
            span.get_or_insert_with(|| tracing::error_span!("request", id = %id));
        }
        polled
    })
    .await
}

async fn dispatch<B: Backend>(exchange: &Exchange<'_, B>, body: &mut Incoming) -> Handled {
    if exchange.shared.has_seen(&exchange.head.headers) {
        return loops::refuse(exchange);
    }
    let (endpoint, repository, rest) = match find(&exchange.head.method, exchange.head.uri.path()) {
        Found::Endpoint {
            endpoint,
            changes_state,
            repository,
            rest,
        } => {
            if changes_state && let Err(fault) = guard(exchange) {
                return refuse_change(exchange, fault, endpoint);
            }
            (endpoint, repository, rest)
        }
        Found::OtherMethods(allow) => {
            let message = format!(
                "{} is not offered here; these are: {allow}",
                shown(exchange.head.method.as_str())
            );
            let fault = Fault::new(
                FaultKind::MethodNotAllowed,
                ErrorCode::MethodNotAllowed,
                message,
            );
            let audience = audience_at(exchange.head.uri.path());
            let response = problem::not_allowed(&**exchange.backend, &fault, audience, &allow);
            return Handled::other(response);
        }
        Found::Nothing => return nothing(exchange),
    };
    match endpoint {
        Endpoint::Artifact if is_root(&exchange.head.method, rest) => {
            root(exchange, repository, rest, body).await
        }
        Endpoint::Artifact => artifact::serve_artifact(exchange, repository, rest, body).await,
        Endpoint::Upload if exchange.head.method == Method::DELETE => {
            discovery::forget(exchange, repository, rest).await
        }
        Endpoint::Upload => artifact::upload(exchange, repository),
        Endpoint::Virtual => {
            let page = if is_root(&exchange.head.method, rest) {
                root_page::of_virtual(exchange, repository)
            } else {
                None
            };
            match page {
                Some(page) => page,
                None => artifact::serve_virtual(exchange, repository, rest).await,
            }
        }
        Endpoint::Oci => oci::serve(exchange, rest).await,
        Endpoint::OciAlias => match oci::serve_alias(exchange, repository, rest).await {
            Some(handled) => handled,
            None => nothing(exchange),
        },
        Endpoint::Discovery => discovery::serve(exchange, repository).await,
        _ => admin::serve(exchange, endpoint).await,
    }
}

/// A repository's root: larder's page, or what a generic repository's upstream has there.
async fn root<B: Backend>(
    exchange: &Exchange<'_, B>,
    repository: &str,
    rest: &str,
    body: &mut Incoming,
) -> Handled {
    if let Some(page) =
        root_page::of(exchange, repository).or_else(|| root_page::with_slash(exchange, repository))
    {
        return page;
    }
    root_page::instead_of(
        exchange,
        artifact::serve_artifact(exchange, repository, rest, body).await,
    )
}

fn nothing<B: Backend>(exchange: &Exchange<'_, B>) -> Handled {
    let fault = Fault::new(
        FaultKind::NotFound,
        ErrorCode::NotFound,
        "there is nothing at this address; GET / lists the repositories",
    );
    Handled::other(fail(exchange, &fault, Endpoint::Root))
}

fn guard<B>(exchange: &Exchange<'_, B>) -> Result<(), Fault> {
    let attempt = Attempt {
        headers: &exchange.head.headers,
        scheme: exchange.connection.scheme,
        host: exchange.host,
        loopback_only: exchange.shared.loopback_only,
    };
    may_change_state(attempt, &exchange.shared.live.load())
}

/// A change that this client may not make. Who means to publish to a copy of an upstream is told that no token would help.
fn refuse_change<B: Backend>(
    exchange: &Exchange<'_, B>,
    mut fault: Fault,
    endpoint: Endpoint,
) -> Handled {
    let repository = loops::repository_of(exchange);
    if let Some(repository) = repository.as_deref() {
        let is_upload = exchange.head.method != Method::DELETE
            && matches!(
                endpoint,
                Endpoint::Upload | Endpoint::Oci | Endpoint::OciAlias
            );
        if is_upload && repository.kind() != RepositoryKind::Local {
            let kind = repository.kind().as_str();
            fault.message = format!(
                "{} is a {kind} repository and takes no uploads; {}",
                repository.name, fault.message
            );
        }
        fault = fault.in_repository(&repository.name);
    }
    Handled {
        response: fail(exchange, &fault, endpoint),
        kind: RequestKind::Refused,
        repository,
    }
}

fn fail<B: Backend>(
    exchange: &Exchange<'_, B>,
    fault: &Fault,
    endpoint: Endpoint,
) -> Response<ResponseBody> {
    let audience = if matches!(endpoint, Endpoint::Oci | Endpoint::OciAlias) {
        Audience::Oci
    } else {
        Audience::Repository(None)
    };
    problem::response(&**exchange.backend, fault, audience)
}

/// Who reads an error, as far as the path alone tells.
fn audience_at(path: &str) -> Audience<'static> {
    let mut segments = path.split('/').skip(1);
    let is_oci = segments.next() == Some("v2")
        || segments.next() == Some("v2") && !path.starts_with("/api/");
    if is_oci {
        Audience::Oci
    } else {
        Audience::Repository(None)
    }
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
