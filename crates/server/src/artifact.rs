//! The one handler of artifacts: ask the pipeline, remember what may be remembered, respond.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_RANGE;
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use larder_core::{ErrorCode, Fault, FaultKind, Repository, RepositoryKind, Source, UnixMillis};

use crate::backend::{ArtifactRequest, Backend, Content, Reply};
use crate::body::ResponseBody;
use crate::file_body::read_small;
use crate::hot::{HotBody, HotVariant, MAX_IN_MEMORY, Selector};
use crate::metrics::{BytesSent, RepositoryRequests, RequestKind};
use crate::oci::API_VERSION;
use crate::problem::{self, Audience};
use crate::respond::{self, Asked, Payload, Prepared, Timing, Unmet};
use crate::service::{Exchange, Handled};
use crate::{request_body, unknown};

/// Something in a repository, and in which shape its client reads errors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address<'a> {
    /// The repository's name.
    pub(crate) repository: &'a str,
    /// Raw path below the repository.
    pub(crate) path: &'a str,
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
    request_body::collect(body, most, &exchange.shared.bodies, &exchange.shared.limits).await
}

fn refused<B: Backend>(
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
    let response = problem::response(&**exchange.backend, &fault, address.audience);
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

fn request<'e, B>(
    exchange: &'e Exchange<'_, B>,
    address: Address<'e>,
    body: Bytes,
) -> ArtifactRequest<'e> {
    ArtifactRequest {
        repository: address.repository,
        raw_path: address.path,
        query: exchange.head.uri.query(),
        method: &exchange.head.method,
        headers: &exchange.head.headers,
        client_base: &exchange.client.base,
        body,
    }
}

async fn read<B: Backend>(
    exchange: &Exchange<'_, B>,
    address: Address<'_>,
    body: Bytes,
    repository: Option<&Repository>,
) -> Result<(Response<ResponseBody>, RequestKind), Fault> {
    let head = exchange.head;
    let mut reply = exchange
        .backend
        .read(request(exchange, address, body))
        .await?;
    if matches!(address.audience, Audience::Oci) {
        let (name, value) = API_VERSION;
        reply.representation.extra.insert(name, value);
    }
    let kind = RequestKind::of(&reply.cache_status);
    load_small(&mut reply).await?;
    let asked = Asked {
        method: &head.method,
        headers: &head.headers,
        sender: exchange.connection.sender.as_ref(),
    };
    let requests = exchange.shared.metrics.repository(address.repository);
    let response = if exchange.shared.hot.is_enabled() && is_hot(&reply, &head.method) {
        remember_and_respond(exchange, requests, reply, asked)
    } else {
        let sent = requests.sent(reply.source);
        respond_once(reply, exchange.backend.now(), asked, sent).await?
    };
    Ok((
        response
            .unwrap_or_else(|unmet| unmet_response(exchange, unmet, address.audience, repository)),
        kind,
    ))
}

/// Short files are read once, here: the page cache answers without a detour.
async fn load_small(reply: &mut Reply) -> Result<(), Fault> {
    if let Content::File { file, length } = &reply.content
        && *length <= MAX_IN_MEMORY
    {
        let bytes = read_small(file, *length)
            .await
            .map_err(|error| unreadable(&error))?;
        reply.content = Content::Bytes(bytes);
    }
    Ok(())
}

fn unreadable(error: &io::Error) -> Fault {
    tracing::error!(%error, "a stored file cannot be read");
    Fault::new(
        FaultKind::Internal,
        ErrorCode::Storage,
        "a stored file cannot be read; the log says why",
    )
}

/// Takes what does not change out of a reply.
fn prepare(reply: &mut Reply) -> Prepared {
    let representation = std::mem::take(&mut reply.representation);
    let mut prepared = Prepared::new(reply.status, representation, reply.location.take());
    if reply.status == StatusCode::OK && !matches!(reply.content, Content::Stream(_)) {
        prepared.accept_ranges();
    }
    prepared.date(reply.freshness.contacted_at);
    prepared
}

fn timing(reply: &Reply, now: UnixMillis) -> Timing {
    Timing {
        age: now.since(reply.freshness.contacted_at),
        remaining: reply.freshness.remaining,
        no_store: reply.freshness.no_store,
        cache_status: reply.cache_status,
        source: reply.source,
    }
}

async fn respond_once(
    mut reply: Reply,
    now: UnixMillis,
    asked: Asked<'_>,
    sent: &BytesSent,
) -> Result<Result<Response<ResponseBody>, Unmet>, Fault> {
    let mut prepared = prepare(&mut reply);
    let timing = timing(&reply, now);
    let payload = Payload::from(reply.content);
    if let Payload::InFlight(flight) = &payload
        && respond::asks_for_range(asked)
        && prepared.length.or(flight.length()).is_none()
    {
        // Which bytes are meant, and whether there are any, is known at the end only.
        prepared.length = Some(flight.wait_length().await?);
    }
    Ok(respond::respond(
        Cow::Owned(prepared),
        payload,
        timing,
        asked,
        sent,
    ))
}

/// Whether an answer can go into the hot set: whole, in memory or in a file, and with the pipeline's permission.
fn is_hot(reply: &Reply, method: &Method) -> bool {
    let sized = match &reply.content {
        Content::Bytes(bytes) => bytes.len() as u64 <= MAX_IN_MEMORY,
        Content::File { .. } => true,
        _ => false,
    };
    sized
        && reply.ticket.is_some()
        && reply.status == StatusCode::OK
        && matches!(*method, Method::GET | Method::HEAD)
        && !reply.freshness.no_store
}

fn remember_and_respond<B: Backend>(
    exchange: &Exchange<'_, B>,
    requests: Arc<RepositoryRequests>,
    mut reply: Reply,
    asked: Asked<'_>,
) -> Result<Response<ResponseBody>, Unmet> {
    let now = exchange.backend.now();
    let timing = timing(&reply, now);
    let body = match &reply.content {
        Content::File { file, length } => HotBody::File {
            file: Arc::clone(file),
            length: *length,
        },
        Content::Bytes(bytes) => HotBody::Bytes(bytes.clone()),
        _ => HotBody::Bytes(Bytes::new()),
    };
    let selector = Selector::new(
        reply.representation.vary,
        asked.headers,
        &exchange.client.base,
    );
    let prepared = prepare(&mut reply);
    let response = respond::respond(
        Cow::Borrowed(&prepared),
        body.payload(),
        timing,
        asked,
        requests.sent(reply.source),
    );
    let target = exchange
        .head
        .uri
        .path_and_query()
        .map_or("", |target| target.as_str());
    if let (Some(selector), Some(ticket)) = (selector, reply.ticket.take()) {
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

/// The answer out of the hot set; `None` if it needs an error body, which the long way makes.
pub(crate) fn from_hot(
    variant: &HotVariant,
    asked: Asked<'_>,
    now: UnixMillis,
) -> Option<Response<ResponseBody>> {
    let sent = variant.requests.sent(Source::Cache);
    respond::respond(
        Cow::Borrowed(&variant.prepared),
        variant.body.payload(),
        variant.timing(now),
        asked,
        sent,
    )
    .ok()
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

/// `PUT` and `DELETE`: uploads go to local repositories.
pub(crate) fn upload<B: Backend>(exchange: &Exchange<'_, B>, name: &str) -> Handled {
    let repository = exchange.backend.repository(name);
    let audience = Audience::Repository(repository.as_deref());
    let response = match repository.as_deref() {
        None => problem::response(
            &**exchange.backend,
            &unknown::unknown(&**exchange.backend, name, false),
            audience,
        ),
        Some(local) if local.kind() == RepositoryKind::Local => {
            problem::response(&**exchange.backend, &not_built(local), audience)
        }
        Some(other) => {
            let message = format!(
                "{name} is a {} repository: only local repositories take uploads",
                other.kind().as_str()
            );
            let fault = Fault::new(FaultKind::MethodNotAllowed, ErrorCode::ReadOnly, message)
                .in_repository(&other.name);
            // Of a remote's path, DELETE is the flush.
            let allow = if other.kind() == RepositoryKind::Remote {
                "GET, HEAD, POST, DELETE"
            } else {
                "GET, HEAD, POST"
            };
            problem::not_allowed(&**exchange.backend, &fault, audience, allow)
        }
    };
    Handled {
        response,
        kind: RequestKind::Refused,
        repository,
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
    let address = Address {
        repository: name,
        path,
        audience: Audience::Repository(repository.as_deref()),
    };
    let fault = match &repository {
        None => unknown::unknown(&**exchange.backend, name, false),
        Some(repository) => match exchange.backend.not_built(name) {
            Some(reason) => unbuilt(repository, &reason),
            None => return serve(exchange, address, Bytes::new()).await,
        },
    };
    refused(exchange, fault, address, repository.clone())
}

fn unbuilt(repository: &Repository, reason: &str) -> Fault {
    let name = &repository.name;
    let message = format!("{reason}; {name} can be taken out of the configuration");
    Fault::new(
        FaultKind::NotImplemented,
        ErrorCode::NotImplemented,
        message,
    )
    .in_repository(name)
}

pub(crate) fn not_built(repository: &Repository) -> Fault {
    let message = format!(
        "{} repositories are not built in this version of larder; {} can be taken out of the configuration",
        repository.kind().as_str(),
        repository.name
    );
    Fault::new(
        FaultKind::NotImplemented,
        ErrorCode::NotImplemented,
        message,
    )
    .in_repository(&repository.name)
}
