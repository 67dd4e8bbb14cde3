//! The one handler of artifacts: ask the pipeline, remember what may be remembered, respond.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_RANGE};
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use larder_core::{ErrorCode, Fault, FaultKind, Mount, Repository, RepositoryKind, UnixMillis};
use larder_engine::{Answer, ArtifactRequest, Body, HotTicket};

use crate::backend::Backend;
use crate::body::ResponseBody;
use crate::exchange::{Exchange, Handled};
use crate::file_body::read_small;
use crate::hot::{HotBody, HotVariant, MAX_IN_MEMORY};
use crate::metrics::{BytesSent, RepositoryRequests, RequestKind};
use crate::oci::API_VERSION;
use crate::problem::{self, Audience};
use crate::respond::{self, Asked, Prepared, Timing, Unmet, has_bytes};
use crate::selector::Selector;
use crate::warm::{PackedHead, WarmAnswer};
use crate::{request_body, unknown, upload};

/// Something in a repository, and in which shape its client reads errors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address<'a> {
    /// The repository's name.
    pub(crate) repository: &'a str,
    /// Raw path below the repository.
    pub(crate) path: &'a str,
    /// The prefix under which the client sees the repository, where it is not that of the API.
    pub(crate) mount: Option<&'a str>,
    pub(crate) audience: Audience<'a>,
}

/// What `/api/v1/remote` offers: `GET`, `HEAD`, and `POST` for what formats pass through.
pub(crate) async fn serve_artifact<B: Backend>(
    exchange: &Exchange<'_, B>,
    name: &str,
    path: &str,
    body: &mut Incoming,
) -> Handled {
    let repository = exchange.backend.repository(name);
    let address = Address {
        repository: name,
        path,
        mount: None,
        audience: Audience::Repository(repository.as_deref()),
    };
    if is_elsewhere(exchange, repository.as_deref()) {
        let fault = unknown::unknown(&**exchange.backend, name, false);
        return refused(exchange, fault, address, repository.clone());
    }
    match receive(exchange, address, body).await {
        Ok(body) => serve(exchange, address, body).await,
        Err(fault) => refused(exchange, fault, address, repository.clone()),
    }
}

/// Whether a repository is one that is served below `/api/v1/virtual` alone.
fn is_elsewhere<B: Backend>(exchange: &Exchange<'_, B>, repository: Option<&Repository>) -> bool {
    repository.is_some_and(|repository| {
        repository.kind() == RepositoryKind::Virtual
            && exchange
                .backend
                .not_built(repository.name.as_str())
                .is_none()
    })
}

/// The body of a request that may have one. Whether it may is asked first: nothing is read for what will be refused.
async fn receive<B: Backend>(
    exchange: &Exchange<'_, B>,
    address: Address<'_>,
    body: &mut Incoming,
) -> Result<Bytes, Fault> {
    if exchange.head.method != Method::POST {
        return Ok(Bytes::new());
    }
    let Some(most) = exchange
        .backend
        .body_limit(&request(exchange, address, Bytes::new()))?
    else {
        return Ok(Bytes::new());
    };
    let shared = &exchange.shared;
    let room = (&*shared.budgets, address.repository);
    request_body::collect(body, most, room, &shared.limits).await
}

pub(crate) fn refused<B: Backend>(
    exchange: &Exchange<'_, B>,
    fault: Fault,
    address: Address<'_>,
    repository: Option<Arc<Repository>>,
) -> Handled {
    let is_oci = matches!(address.audience, Audience::Oci);
    let fault = match &repository {
        None if fault.code == unknown::CODE => {
            unknown::unknown(&**exchange.backend, address.repository, is_oci)
        }
        Some(repository) if fault.repository.is_none() => fault.in_repository(&repository.name),
        _ => fault,
    };
    let response = match &repository {
        Some(owner) if !is_oci && fault.kind == FaultKind::MethodNotAllowed => {
            let allow = upload::methods_of(owner);
            problem::not_allowed(&**exchange.backend, &fault, address.audience, allow)
        }
        _ => problem::response(&**exchange.backend, &fault, address.audience),
    };
    Handled {
        response,
        kind: RequestKind::Refused,
        repository,
    }
}

/// Answers a read.
pub(crate) async fn serve<B: Backend>(
    exchange: &Exchange<'_, B>,
    address: Address<'_>,
    body: Bytes,
) -> Handled {
    let repository = exchange.backend.repository(address.repository);
    match read(exchange, address, body, repository.as_deref()).await {
        Ok((response, kind)) => Handled {
            response,
            kind,
            repository,
        },
        Err(fault) => refused(exchange, fault, address, repository),
    }
}

pub(crate) fn request<'e, B>(
    exchange: &'e Exchange<'_, B>,
    address: Address<'e>,
    body: Bytes,
) -> ArtifactRequest<'e> {
    let base = &exchange.client.base;
    let mount = match address.mount {
        Some(prefix) => Mount::at(base, prefix),
        None => Mount::api(base, RepositoryKind::Remote, address.repository),
    };
    exchange.request(address.repository, address.path, mount, body)
}

async fn read<B: Backend>(
    exchange: &Exchange<'_, B>,
    address: Address<'_>,
    body: Bytes,
    repository: Option<&Repository>,
) -> Result<(Response<ResponseBody>, RequestKind), Fault> {
    let head = exchange.head;
    let again = exchange.shared.sightings.again(target_of(exchange));
    let mut answer = exchange
        .backend
        .read(request(exchange, address, body))
        .await?;
    if matches!(address.audience, Audience::Oci) {
        let (name, value) = API_VERSION;
        answer.representation.extra.insert(name, value);
    }
    let kind = RequestKind::of(&answer.cache_status);
    let loaded = match small_file(answer.body.get()) {
        Some((file, length)) => Some(load(&file, length).await?),
        None => None,
    };
    let asked = Asked {
        method: &head.method,
        headers: &head.headers,
        sender: exchange.connection.sender.as_ref(),
    };
    let requests = exchange.shared.metrics.repository(address.repository);
    let is_hot = is_hot(&answer, &head.method);
    let reading = answer.reading.take();
    let response = if is_hot && is_warm(&answer) && !(again && exchange.shared.hot.is_enabled()) {
        remember_head_and_respond(exchange, &requests, answer, loaded, asked)
    } else if is_hot && exchange.shared.hot.is_enabled() {
        remember_and_respond(exchange, requests, answer, loaded, asked)
    } else {
        let sent = requests.sent(answer.source);
        respond_once(answer, loaded, exchange.backend.now(), asked, sent).await?
    };
    if let (Some(reading), Ok(response)) = (&reading, &response)
        && has_bytes(&head.method, response.status())
    {
        reading.serve();
    }
    let response = response
        .unwrap_or_else(|unmet| unmet_response(exchange, unmet, address.audience, repository));
    Ok((response.map(|body| body.keep_reading(reading)), kind))
}

/// Short files are read once, here: the page cache answers without a detour.
fn small_file(body: &Body) -> Option<(Arc<File>, u64)> {
    match body {
        Body::File {
            file,
            length,
            offset: 0,
        } if *length <= MAX_IN_MEMORY => Some((Arc::clone(file), *length)),
        _ => None,
    }
}

async fn load(file: &Arc<File>, length: u64) -> Result<Bytes, Fault> {
    read_small(file, length)
        .await
        .map_err(|error| unreadable(&error))
}

fn unreadable(error: &io::Error) -> Fault {
    tracing::error!(%error, "a stored file cannot be read");
    Fault::new(
        FaultKind::Internal,
        ErrorCode::Storage,
        "a stored file cannot be read; the log says why",
    )
}

/// Whether parts of a body may be asked for; of one that is not sent, too.
fn has_parts(body: &Body) -> bool {
    matches!(body, Body::Empty) || body.is_seekable()
}

/// Takes what does not change out of an answer.
fn prepare(answer: &mut Answer) -> Prepared {
    let representation = std::mem::take(&mut answer.representation);
    let mut prepared = Prepared::new(answer.status, representation, answer.location.take());
    if answer.status == StatusCode::OK && has_parts(answer.body.get()) {
        prepared.accept_ranges();
    }
    // An answer of a local repository is of now, however long its file has been there.
    if !prepared.headers.contains_key(CACHE_CONTROL) {
        prepared.date(answer.freshness.contacted_at);
    }
    prepared
}

fn timing(answer: &Answer, now: UnixMillis) -> Timing {
    Timing {
        age: now.since(answer.freshness.contacted_at),
        remaining: answer.freshness.remaining,
        no_store: answer.freshness.no_store,
        cache_status: answer.cache_status,
        source: answer.source,
    }
}

async fn respond_once(
    mut answer: Answer,
    loaded: Option<Bytes>,
    now: UnixMillis,
    asked: Asked<'_>,
    sent: &BytesSent,
) -> Result<Result<Response<ResponseBody>, Unmet>, Fault> {
    let mut prepared = prepare(&mut answer);
    let timing = timing(&answer, now);
    let body = loaded.map_or_else(|| answer.body.into_inner(), Body::Memory);
    if let Body::Growing(growing) = &body
        && respond::asks_for_range(asked)
        && prepared.length.is_none()
    {
        // Which bytes are meant, and whether there are any, is known at the end only.
        prepared.length = Some(growing.wait_length().await?);
    }
    Ok(respond::respond(
        Cow::Owned(prepared),
        body,
        timing,
        asked,
        sent,
    ))
}

/// Whether an answer can go into the hot set: whole, in memory or in a file, with the pipeline's permission, and for anybody: the hot set
/// does not ask who asks.
fn is_hot(answer: &Answer, method: &Method) -> bool {
    let sized = match answer.body.get() {
        Body::Memory(bytes) => bytes.len() as u64 <= MAX_IN_MEMORY,
        Body::File { offset: 0, .. } => true,
        _ => false,
    };
    sized
        && answer.hot.as_ref().is_some_and(|ticket| ticket.for_anyone)
        && answer.status == StatusCode::OK
        && matches!(*method, Method::GET | Method::HEAD)
        && !answer.freshness.no_store
}

/// Whether an answer can go into the warm set: a stored file that every request gets alike.
fn is_warm(answer: &Answer) -> bool {
    let is_held = |ticket: &HotTicket| ticket.held_length().is_some();
    answer.representation.vary.is_empty() && answer.hot.as_ref().is_some_and(is_held)
}

fn target_of<'e, B>(exchange: &'e Exchange<'_, B>) -> &'e str {
    let target = exchange.head.uri.path_and_query();
    target.map_or("", |target| target.as_str())
}

/// Keeps the head of an answer that nobody has asked for lately, and not its body.
fn remember_head_and_respond<B: Backend>(
    exchange: &Exchange<'_, B>,
    requests: &Arc<RepositoryRequests>,
    mut answer: Answer,
    loaded: Option<Bytes>,
    asked: Asked<'_>,
) -> Result<Response<ResponseBody>, Unmet> {
    let timing = timing(&answer, exchange.backend.now());
    let prepared = prepare(&mut answer);
    let source = answer.source;
    if let (Some(head), Some(ticket)) = (PackedHead::of(&prepared), answer.hot) {
        let warm = WarmAnswer {
            head,
            ticket,
            requests: Arc::clone(requests),
        };
        exchange.shared.warm.insert(target_of(exchange), warm);
    }
    let body = loaded.map_or_else(|| answer.body.into_inner(), Body::Memory);
    let sent = requests.sent(source);
    respond::respond(Cow::Owned(prepared), body, timing, asked, sent)
}

fn remember_and_respond<B: Backend>(
    exchange: &Exchange<'_, B>,
    requests: Arc<RepositoryRequests>,
    mut answer: Answer,
    loaded: Option<Bytes>,
    asked: Asked<'_>,
) -> Result<Response<ResponseBody>, Unmet> {
    let now = exchange.backend.now();
    let timing = timing(&answer, now);
    let selector = Selector::new(
        answer.representation.vary,
        asked.headers,
        &exchange.client.base,
    );
    let prepared = prepare(&mut answer);
    let (source, ticket) = (answer.source, answer.hot);
    let body = HotBody::new(answer.body, loaded);
    let response = respond::respond(
        Cow::Borrowed(&prepared),
        body.body(),
        timing,
        asked,
        requests.sent(source),
    );
    let target = target_of(exchange);
    if let (Some(selector), Some(ticket)) = (selector, ticket) {
        exchange.shared.hot.insert(
            target,
            HotVariant {
                selector,
                prepared,
                body,
                ticket,
                requests,
            },
            now,
        );
    }
    response
}

fn unmet_response<B: Backend>(
    exchange: &Exchange<'_, B>,
    unmet: Unmet,
    audience: Audience<'_>,
    repository: Option<&Repository>,
) -> Response<ResponseBody> {
    let named = |fault: Fault| match repository {
        Some(repository) => fault.in_repository(&repository.name),
        None => fault,
    };
    match unmet {
        Unmet::Precondition => {
            let message = "a condition of the request does not hold for the present body";
            let fault = named(Fault::new(
                FaultKind::PreconditionFailed,
                ErrorCode::PreconditionFailed,
                message,
            ));
            problem::response(&**exchange.backend, &fault, audience)
        }
        Unmet::Range(length) => {
            let message =
                format!("no byte of the ranges asked for exists: the body has {length} bytes");
            let fault = named(Fault::new(
                FaultKind::BadRequest,
                ErrorCode::RangeNotSatisfiable,
                message,
            ));
            let status = StatusCode::RANGE_NOT_SATISFIABLE;
            let mut response = problem::with_status(status, &**exchange.backend, &fault, audience);
            respond::insert(
                response.headers_mut(),
                CONTENT_RANGE,
                format!("bytes */{length}"),
            );
            response
        }
    }
}

/// `GET /api/v1/virtual/…`.
pub(crate) async fn serve_virtual<B: Backend>(
    exchange: &Exchange<'_, B>,
    name: &str,
    path: &str,
) -> Handled {
    let repository = exchange
        .backend
        .repository(name)
        .filter(|repository| repository.kind() == RepositoryKind::Virtual);
    let mount = format!("/api/v1/virtual/{name}");
    let address = Address {
        repository: name,
        path,
        mount: Some(&mount),
        audience: Audience::Repository(repository.as_deref()),
    };
    let fault = match &repository {
        None => unknown::unknown(&**exchange.backend, name, false),
        Some(repository) => match exchange.backend.not_built(name) {
            Some(reason) => Fault::unbuilt(&repository.name, &reason),
            None => return serve(exchange, address, Bytes::new()).await,
        },
    };
    refused(exchange, fault, address, repository.clone())
}
