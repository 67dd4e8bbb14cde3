//! `PUT` and `DELETE` on a path of a local repository. The guard has been asked before; what may be written is the pipeline's to say,
//! and it says all it can before a byte of the body is read: only then does a client that waits for `100 Continue` get it. Also what
//! those are told who would change something where nothing can be published.

use std::sync::Arc;
use std::time::Duration;

use http::header::ETAG;
use http::{HeaderName, Method, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use larder_budget::{BudgetKind, Refused};
use larder_core::{
    ErrorCode, Fault, FaultKind, Mount, PackageType, Repository, RepositoryKind, RepositoryName,
    shown,
};
use larder_engine::Written;
use serde_json::json;

use crate::admin::{json_response, text};
use crate::artifact::{self, Address};
use crate::backend::Backend;
use crate::body::ResponseBody;
use crate::exchange::{Exchange, Handled};
use crate::metrics::RequestKind;
use crate::problem::{self, Audience};
use crate::respond::{insert, insert_location};
use crate::routes::{Endpoint, Found, find};
use crate::{request_body, unknown};

/// When a client that found no place should ask again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// Whether there is a local repository of that name.
pub(crate) fn is_local<B: Backend>(exchange: &Exchange<'_, B>, name: &str) -> bool {
    let repository = exchange.backend.repository(name);
    repository.is_some_and(|repository| repository.kind() == RepositoryKind::Local)
}

/// Where a `PUT` or `DELETE` below a virtual repository of that name goes, if it goes anywhere.
pub(crate) fn default_local<B: Backend>(
    exchange: &Exchange<'_, B>,
    name: &str,
) -> Option<RepositoryName> {
    let method = &exchange.head.method;
    if method != Method::PUT && method != Method::DELETE {
        return None;
    }
    let repository = exchange.backend.repository(name)?;
    repository.virtual_settings()?.default_local.clone()
}

/// Answers `PUT` and `DELETE`.
pub(crate) async fn serve<B: Backend>(
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
    let answered = if exchange.head.method == Method::DELETE {
        delete(exchange, address).await
    } else {
        put(exchange, address, body).await
    };
    // Whatever became of it: an open file that nobody is given any more would keep its bytes on the disk.
    let target = exchange.head.uri.path_and_query();
    exchange
        .shared
        .hot
        .remove(target.map_or("", |target| target.as_str()));
    match answered {
        Ok(response) => Handled {
            response,
            kind: RequestKind::Other,
            repository: repository.clone(),
        },
        Err(fault) => artifact::refused(exchange, fault, address, repository.clone()),
    }
}

async fn put<B: Backend>(
    exchange: &Exchange<'_, B>,
    address: Address<'_>,
    body: &mut Incoming,
) -> Result<Response<ResponseBody>, Fault> {
    let length = body.size_hint().exact();
    let limits = &exchange.shared.limits;
    let (budgets, patience) = (&exchange.shared.budgets, limits.upload_patience);
    // Until the upload is durable: what is received counts as long as its file is open.
    let place = budgets.lease_within(BudgetKind::Uploads, address.repository, 1, patience);
    let place = place.await.map_err(busy)?;
    let stream = request_body::stream(body, limits, &place);
    let request = artifact::request(exchange, address, bytes::Bytes::new());
    let written = exchange.backend.write(request, length, stream).await?;
    Ok(acknowledged(exchange, address.repository, &written))
}

/// No place in time. Whoever sends slowly has one for a long time.
fn busy(_: Refused) -> Fault {
    let message =
        "as many uploads as larder takes at once are being received; send it again in a moment";
    Fault::new(FaultKind::Unavailable, ErrorCode::Busy, message).retry_after(Some(ASK_AGAIN))
}

fn acknowledged<B>(
    exchange: &Exchange<'_, B>,
    repository: &str,
    written: &Written,
) -> Response<ResponseBody> {
    let status = if written.is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let told = json!({
        "repository": repository, "path": written.path,
        "size": written.blob.size, "sha256": written.blob.digest.to_hex(),
    });
    let mut response = json_response(status, &told);
    let headers = response.headers_mut();
    insert(headers, ETAG, written.etag.clone());
    if let Some(digest) = written.repr_digest.clone() {
        headers.insert(REPR_DIGEST, digest);
    }
    if written.is_new {
        // With the path of the public address, if the client came by it.
        let place = Mount::at(&exchange.client.base, exchange.head.uri.path());
        let live = exchange.shared.live.load();
        insert_location(headers, &place.path(&live.public_urls));
    }
    response
}

async fn delete<B: Backend>(
    exchange: &Exchange<'_, B>,
    address: Address<'_>,
) -> Result<Response<ResponseBody>, Fault> {
    let request = artifact::request(exchange, address, bytes::Bytes::new());
    exchange.backend.delete_file(request).await?;
    Ok(text(StatusCode::NO_CONTENT, "text/plain", ""))
}

/// The methods that a repository's paths below `/api/v1` have, for `Allow`: the same ones whichever other is refused.
pub(crate) fn methods_of(repository: &Repository) -> &'static str {
    match repository.kind() {
        _ if takes_uploads(repository) => "GET, HEAD, PUT, DELETE",
        // DELETE flushes the path; npm's clients ask some of their questions with POST.
        RepositoryKind::Remote if repository.package == PackageType::Npm => {
            "GET, HEAD, POST, DELETE"
        }
        RepositoryKind::Remote => "GET, HEAD, DELETE",
        RepositoryKind::Local | RepositoryKind::Virtual => "GET, HEAD",
    }
}

/// Whether something can be published to a repository, be it by way of another.
pub(crate) fn takes_uploads(repository: &Repository) -> bool {
    let virtual_settings = repository.virtual_settings();
    repository.local().is_some() || virtual_settings.is_some_and(|own| own.default_local.is_some())
}

/// A method that no path of any repository has; `None` if the path is none of a repository.
pub(crate) fn refuse_method<B: Backend>(exchange: &Exchange<'_, B>) -> Option<Handled> {
    let head = exchange.head;
    let (name, repository) = match find(&Method::GET, head.uri.path()) {
        Found::Endpoint {
            endpoint: Endpoint::Artifact,
            repository: name,
            ..
        } => (name, exchange.backend.repository(name)),
        Found::Endpoint {
            endpoint: Endpoint::Virtual,
            repository: name,
            ..
        } => (name, virtual_of(exchange, name)),
        _ => return None,
    };
    Some(refuse(exchange, name, repository, |owner| {
        let message = format!(
            "{} is not offered here; these are: {}",
            shown(head.method.as_str()),
            methods_of(owner)
        );
        (ErrorCode::MethodNotAllowed, message)
    }))
}

/// `PUT` and `DELETE` where they change nothing: only local repositories take uploads.
pub(crate) fn refuse_upload<B: Backend>(exchange: &Exchange<'_, B>, name: &str) -> Handled {
    let repository = exchange.backend.repository(name);
    refuse(exchange, name, repository, |other| {
        let message = format!(
            "{name} is a {} repository: only local repositories take uploads",
            other.kind().as_str()
        );
        (ErrorCode::ReadOnly, message)
    })
}

/// What would change something below a virtual repository, and is handed on to nobody.
pub(crate) fn refuse_virtual_upload<B: Backend>(exchange: &Exchange<'_, B>, name: &str) -> Handled {
    refuse(exchange, name, virtual_of(exchange, name), |owner| {
        if takes_uploads(owner) {
            let message = "files are published here with PUT, and deleted with DELETE";
            return (ErrorCode::MethodNotAllowed, message.to_owned());
        }
        let message = format!(
            "{name} is a virtual repository: publish to one of its members, or name the local one that takes what is published here \
             with `default_local`"
        );
        (ErrorCode::ReadOnly, message)
    })
}

fn virtual_of<B: Backend>(exchange: &Exchange<'_, B>, name: &str) -> Option<Arc<Repository>> {
    let repository = exchange.backend.repository(name);
    repository.filter(|repository| repository.kind() == RepositoryKind::Virtual)
}

/// 405 with what is offered instead, or 404 if there is no such repository.
fn refuse<B: Backend>(
    exchange: &Exchange<'_, B>,
    name: &str,
    repository: Option<Arc<Repository>>,
    why: impl FnOnce(&Repository) -> (ErrorCode, String),
) -> Handled {
    let backend = &**exchange.backend;
    let audience = Audience::Repository(repository.as_deref());
    let response = match repository.as_deref() {
        None => problem::response(backend, &unknown::unknown(backend, name, false), audience),
        Some(owner) => {
            let (code, message) = why(owner);
            let fault = Fault::new(FaultKind::MethodNotAllowed, code, message);
            let fault = fault.in_repository(&owner.name);
            problem::not_allowed(backend, &fault, audience, methods_of(owner))
        }
    };
    Handled {
        response,
        kind: RequestKind::Refused,
        repository,
    }
}
