//! From a request that is well formed to its handler: the URL table, and the guard of what changes state.

use http::{Method, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use larder_core::{ErrorCode, Fault, FaultKind, shown};

use crate::attempts::try_bearer;
use crate::backend::Backend;
use crate::body::ResponseBody;
use crate::exchange::{Exchange, Handled};
use crate::metrics::RequestKind;
use crate::origin_guard::{Attempt, may_change_state};
use crate::problem::{self, Audience};
use crate::root_page::{self, is_root};
use crate::routes::{Endpoint, Found, find};
use crate::{
    admin, archive, artifact, discovery, explain, jobs, loops, oci, peers, ui, upkeep, upload,
};

/// Steps 5 to 7: which handler a request goes to, and whether it may.
pub(crate) async fn dispatch<B: Backend>(
    exchange: &Exchange<'_, B>,
    body: &mut Incoming,
) -> Handled {
    if exchange.shared.has_seen(&exchange.head.headers) {
        return loops::refuse(exchange);
    }
    match route(exchange) {
        Ok((endpoint, _, _)) if takes_only_a_query(exchange, endpoint) && !body.is_end_stream() => {
            refuse_body(exchange)
        }
        Ok((endpoint, repository, rest)) => {
            handle(exchange, endpoint, repository, rest, body).await
        }
        Err(refused) => refused,
    }
}

/// Whether a request changes something that its query alone restricts.
fn takes_only_a_query<B>(exchange: &Exchange<'_, B>, endpoint: Endpoint) -> bool {
    !exchange.head.method.is_safe()
        && matches!(endpoint, Endpoint::Flush | Endpoint::Gc | Endpoint::Scrub)
}

/// `curl -X PUT -d remote=pypi` without `-G` sends the restriction as a body: read by nobody, it would flush every repository.
fn refuse_body<B: Backend>(exchange: &Exchange<'_, B>) -> Handled {
    let path = exchange.head.uri.path();
    let message = format!(
        "{path} takes parameters in the query only, and this request has a body, which could hold a restriction: nothing was done; \
         put parameters behind a question mark (curl: -G)"
    );
    let fault = Fault::new(FaultKind::BadRequest, ErrorCode::BadRequest, message)
        .by_rule(format!("{} {path}", exchange.head.method))
        .briefly(format!("{path} takes parameters in the query only"));
    Handled::other(fail(exchange, &fault, Endpoint::Root))
}

/// The line of the table that a request goes by, with the repository and the raw path below it; or the answer of one that goes nowhere.
fn route<'e, B: Backend>(
    exchange: &Exchange<'e, B>,
) -> Result<(Endpoint, &'e str, &'e str), Handled> {
    let head = exchange.head;
    match find(&head.method, head.uri.path()) {
        Found::Endpoint {
            endpoint,
            changes_state,
            repository,
            rest,
        } => {
            if changes_state && let Err(fault) = guard(exchange) {
                return Err(refuse_change(exchange, fault, endpoint));
            }
            Ok((endpoint, repository, rest))
        }
        Found::OtherMethods(allow) => {
            if let Some(refused) = upload::refuse_method(exchange) {
                return Err(refused);
            }
            let message = format!(
                "{} is not offered here; these are: {allow}",
                shown(head.method.as_str())
            );
            let fault = Fault::new(
                FaultKind::MethodNotAllowed,
                ErrorCode::MethodNotAllowed,
                message,
            );
            let audience = audience_at(head.uri.path());
            let response = problem::not_allowed(&**exchange.backend, &fault, audience, &allow);
            Err(Handled::other(response))
        }
        Found::Nothing => Err(nothing(exchange)),
    }
}

async fn handle<B: Backend>(
    exchange: &Exchange<'_, B>,
    endpoint: Endpoint,
    repository: &str,
    rest: &str,
    body: &mut Incoming,
) -> Handled {
    match endpoint {
        Endpoint::Artifact if is_root(&exchange.head.method, rest) => {
            root(exchange, repository, rest, body).await
        }
        Endpoint::Artifact => artifact::serve_artifact(exchange, repository, rest, body).await,
        Endpoint::Upload if upload::is_local(exchange, repository) => {
            upload::serve(exchange, repository, rest, body).await
        }
        Endpoint::Upload if exchange.head.method == Method::DELETE => {
            discovery::forget(exchange, repository, rest).await
        }
        Endpoint::Upload => upload::refuse_upload(exchange, repository),
        Endpoint::VirtualUpload => match upload::default_local(exchange, repository) {
            Some(local) => upload::serve(exchange, local.as_str(), rest, body).await,
            None => upload::refuse_virtual_upload(exchange, repository),
        },
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
        Endpoint::Jobs => jobs::serve(exchange, repository, body).await,
        Endpoint::Archive => archive::serve_rows(exchange, repository, body).await,
        Endpoint::Blob => archive::serve_blob(exchange, repository, body).await,
        Endpoint::Explain => explain::serve(exchange, repository, rest).await,
        Endpoint::Gc | Endpoint::Scrub => upkeep::serve(exchange, endpoint).await,
        Endpoint::Peer => peers::serve(exchange),
        Endpoint::Ui => ui::serve(exchange, rest, body).await,
        Endpoint::Root if ui::is_for_browsers(exchange) => ui::from_root(exchange),
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
    let page = root_page::of(exchange, repository)
        .or_else(|| root_page::with_slash(exchange, repository, rest));
    if let Some(page) = page {
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

/// Lets a request pass that may change state.
pub(crate) fn guard<B>(exchange: &Exchange<'_, B>) -> Result<(), Fault> {
    let attempt = Attempt {
        headers: &exchange.head.headers,
        scheme: exchange.connection.scheme,
        host: exchange.host,
        loopback_only: exchange.shared.loopback_only,
    };
    try_bearer(attempt.headers, exchange.client.address, exchange.shared)?;
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
                Endpoint::Upload | Endpoint::VirtualUpload | Endpoint::Oci | Endpoint::OciAlias
            );
        if is_upload && !upload::takes_uploads(repository) {
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

/// A fault that has nothing to do with what is asked for.
pub(crate) fn fail_at<B: Backend>(
    exchange: &Exchange<'_, B>,
    fault: &Fault,
) -> Response<ResponseBody> {
    let audience = audience_at(exchange.head.uri.path());
    problem::response(&**exchange.backend, fault, audience)
}

/// Who reads an error, as far as the path alone tells.
pub(crate) fn audience_at(path: &str) -> Audience<'static> {
    let mut segments = path.split('/').skip(1);
    let is_oci = segments.next() == Some("v2")
        || segments.next() == Some("v2") && !path.starts_with("/api/");
    if is_oci {
        Audience::Oci
    } else {
        Audience::Repository(None)
    }
}
