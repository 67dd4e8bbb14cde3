//! The web interface below `/ui/`: which page an address is, who may see it, and where its data comes from. What pages look like is
//! larder-ui's business.
//!
//! | file | knows |
//! |---|---|
//! | `mod.rs` | which address is which page |
//! | `visit.rs` | one visit: who it is, HTML or JSON, and how a page becomes a response |
//! | `session.rs` | the cookie of who has signed in |
//! | `guard.rs`, `form.rs` | what a form must bring before it changes anything |
//! | `events.rs` | the stream that keeps an open page up to date |
//! | `numbers.rs` | what several pages show |
//! | `views.rs`, `shown.rs` | the pages of what is held: folders, searches, single paths, packages and images |
//! | the rest | one page each, or a few that belong together |

mod configuration;
mod events;
mod explain;
mod flush;
mod form;
mod guard;
mod health;
mod jobs;
mod numbers;
mod outage;
mod overview;
mod repositories;
mod repository;
mod session;
mod shown;
mod sign_in;
mod trends;
mod views;
mod visit;

use std::time::Instant;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use hyper::body::Incoming;
use larder_core::{ErrorCode, Fault, FaultKind, Mount};
use larder_ui::{StaticFile, static_file};

use self::visit::{Outcome, Visit};
use crate::accept::quality;
use crate::backend::Backend;
use crate::body::ResponseBody;
use crate::exchange::{Exchange, Handled};
use crate::respond::{insert, insert_location};

/// How long larder took for the page, for the browser's own tools.
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Answers a request below `/ui/`; `rest` is the raw path behind that.
pub(crate) async fn serve<B: Backend>(
    exchange: &Exchange<'_, B>,
    rest: &str,
    body: &mut Incoming,
) -> Handled {
    let started = Instant::now();
    let is_file = rest.strip_prefix("static/").and_then(static_file);
    if let Some(file) = is_file.filter(|_| exchange.head.method.is_safe()) {
        return Handled::other(file_response(file));
    }
    let visit = Visit::new(exchange, rest);
    let outcome = match guard::host(&visit) {
        Ok(()) => route(&visit, rest, body).await,
        Err(fault) => Err(fault),
    };
    let mut response = outcome.unwrap_or_else(|fault| visit.refuse(&fault));
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        // RFC 9110 section 15.5.6: what takes no form is read.
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    let took = started.elapsed().as_secs_f64() * 1000.0;
    insert(
        response.headers_mut(),
        SERVER_TIMING,
        format!("page;dur={took:.1}"),
    );
    Handled::other(response)
}

/// The page that an address is. A page below another is looked up by its module.
async fn route<B: Backend>(visit: &Visit<'_, B>, rest: &str, body: &mut Incoming) -> Outcome {
    let (first, below) = rest
        .split_once('/')
        .map_or((rest, None), |(first, below)| (first, Some(below)));
    let is_post = visit.method() == Method::POST;
    match (first, below) {
        ("", None) if !visit.exchange.head.uri.path().ends_with('/') => Ok(visit.redirect("/ui/")),
        ("", None) if !is_post => overview::show(visit).await,
        ("repositories", None | Some("")) if !is_post => repositories::show(visit).await,
        ("repositories", Some(below)) => repository::route(visit, below, body).await,
        ("jobs", None | Some("")) if !is_post => jobs::list(visit).await,
        ("jobs", Some(below)) => jobs::route(visit, below, body).await,
        ("health", None) if !is_post => health::show(visit).await,
        ("configuration", None) if !is_post => configuration::show(visit),
        ("explain", None) if !is_post => explain::show(visit).await,
        ("search", None) if !is_post => views::search(visit).await,
        ("login", None) if is_post => sign_in::sign_in(visit, body).await,
        ("login", None) => sign_in::show(visit, None),
        ("logout", None) if is_post => sign_in::sign_out(visit, body).await,
        ("logout", None) => Ok(visit.redirect("/ui/")),
        ("events", None) if !is_post => events::serve(visit).await,
        ("health" | "configuration" | "explain" | "search" | "login", Some("")) if !is_post => {
            Ok(without_slash(visit, first))
        }
        _ => Err(nothing(visit)),
    }
}

/// The page's own address, for who has written a slash behind it.
fn without_slash<B: Backend>(visit: &Visit<'_, B>, page: &str) -> Response<ResponseBody> {
    let query = visit.exchange.head.uri.query();
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    visit.redirect(&format!("/ui/{page}{query}"))
}

/// There is no such page, or nothing to be sent to it.
fn nothing<B: Backend>(visit: &Visit<'_, B>) -> Fault {
    if visit.method() == Method::POST {
        let message = "this page takes no form";
        return Fault::new(
            FaultKind::MethodNotAllowed,
            ErrorCode::MethodNotAllowed,
            message,
        );
    }
    let message = "there is no page at this address";
    Fault::new(FaultKind::NotFound, ErrorCode::NotFound, message)
}

/// Whether a request for `/` comes from somebody who would rather see pages than JSON.
pub(crate) fn is_for_browsers<B>(exchange: &Exchange<'_, B>) -> bool {
    let headers = &exchange.head.headers;
    quality(headers, "text", "html") > quality(headers, "application", "json")
}

/// Sends such a one to the pages.
pub(crate) fn from_root<B: Backend>(exchange: &Exchange<'_, B>) -> Handled {
    let live = exchange.shared.live.load();
    let own = url::Url::parse(&exchange.client.base).ok();
    // Behind a path of the public URL only for who has come by it.
    let is_public = own.is_some_and(|own| live.public_urls.names_place_of(&own));
    let place = if is_public {
        Mount::at(&exchange.client.base, "/ui").path(&live.public_urls)
    } else {
        "/ui".to_owned()
    };
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    insert_location(headers, &format!("{place}/"));
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Handled::other(response)
}

/// A file that the pages need. Its name changes with its content, so nobody need ask for it twice.
fn file_response(file: &StaticFile) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::bytes(file.bytes.into()));
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, file.content_type),
        (CACHE_CONTROL, "public, max-age=31536000, immutable"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        (
            http::header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; sandbox",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
