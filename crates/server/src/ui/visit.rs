//! One visit of a page: who it is, whether pages are wanted or JSON, and how a page becomes a response.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, ORIGIN, RETRY_AFTER, VARY, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use larder_core::{ErrorCode, Fault, FaultKind, Principal, Repository};
use larder_ui::pages::Message;
use larder_ui::{Frame, HEADERS, Page, Sign};

use super::session::{self, Session};
use super::sign_in::safe;
use crate::accept::quality;
use crate::attempts::try_bearer;
use crate::backend::Backend;
use crate::body::ResponseBody;
use crate::exchange::Exchange;
use crate::origin_guard::may_see_configuration;
use crate::problem::{self, Audience, Said, status_of, whole_seconds};
use crate::respond::insert_location;
use crate::settings::LiveSettings;
use crate::unknown;

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
/// How one may sign in without a form.
pub(crate) const BEARER: &str = "Bearer realm=\"larder\"";

/// What comes of a visit.
pub(crate) type Outcome = Result<Response<ResponseBody>, Fault>;

/// One visit.
pub(crate) struct Visit<'a, B> {
    pub(crate) exchange: &'a Exchange<'a, B>,
    pub(crate) live: Arc<LiveSettings>,
    pub(crate) session: Option<Session>,
    wants_json: bool,
    /// Where signing in leads to; the form itself stands for what it was asked for.
    here: String,
    /// From the page to the place of `/ui`: `..`, `../..`. It is right behind any path that a proxy puts in front.
    root: String,
}

impl<'a, B: Backend> Visit<'a, B> {
    /// `rest`: the raw path behind `/ui/`.
    pub(crate) fn new(exchange: &'a Exchange<'a, B>, rest: &str) -> Self {
        let live = exchange.shared.live.load_full();
        let headers = &exchange.head.headers;
        let session = live
            .admin_token
            .as_ref()
            .and_then(|token| session::of(headers, token, exchange.backend.now()));
        // `/ui` is no folder yet: what is relative to it is relative to the root.
        let depth = if exchange.head.uri.path() == "/ui" {
            0
        } else {
            rest.matches('/').count() + 1
        };
        let here = match exchange.head.uri.path_and_query() {
            // Nobody comes back to where a form was sent, but to the page that it is on.
            _ if exchange.head.method == Method::POST => page_of_form(rest),
            Some(_) if rest == "login" => safe(&parameter(exchange, "to")).to_owned(),
            Some(own) => own.to_string(),
            None => "/ui/".to_owned(),
        };
        Self {
            exchange,
            live,
            session,
            here,
            wants_json: wants_json(exchange),
            root: match depth {
                0 => ".".to_owned(),
                depth => vec![".."; depth].join("/"),
            },
        }
    }

    /// Whether JSON is asked for.
    pub(crate) fn wants_json(&self) -> bool {
        self.wants_json
    }

    pub(crate) fn method(&self) -> &Method {
        &self.exchange.head.method
    }

    pub(crate) fn backend(&self) -> &B {
        self.exchange.backend
    }

    /// Whether the visitor came by HTTPS, as far as a proxy in front tells; of a form the browser does, too.
    pub(crate) fn is_https(&self) -> bool {
        let origin = self.exchange.head.headers.get(ORIGIN);
        let origin = origin.map_or(&b""[..], HeaderValue::as_bytes);
        self.exchange.client.base.starts_with("https://") || origin.starts_with(b"https://")
    }

    /// Signed in, or with the token itself.
    pub(crate) fn principal(&self) -> Principal {
        if self.session.is_some() {
            Principal::Admin
        } else {
            self.exchange.principal
        }
    }

    /// Lets those pass who may see the rules of the configuration.
    pub(crate) fn may_see_configuration(&self) -> Result<(), Fault> {
        if self.session.is_none() {
            let headers = &self.exchange.head.headers;
            try_bearer(headers, self.exchange.client.address, self.exchange.shared)?;
        }
        may_see_configuration(self.principal(), &self.live).map_err(|fault| Fault {
            message:
                "this shows the rules of the configuration: sign in with the admin token first"
                    .to_owned(),
            ..fault
        })
    }

    /// The address of larder that this visitor's clients use; no slash at its end.
    pub(crate) fn base(&self) -> String {
        let used = &self.exchange.client.base;
        let base = self.live.public_urls.of_client(used);
        let base = base.map_or(used.as_str(), |url| url.as_str());
        base.trim_end_matches('/').to_owned()
    }

    /// The parameter of the query, decoded; empty if it is not there.
    pub(crate) fn parameter(&self, name: &str) -> String {
        parameter(self.exchange, name)
    }

    /// The repository of that name.
    pub(crate) fn repository(&self, name: &str) -> Result<Arc<Repository>, Fault> {
        let found = self.backend().repository(name);
        found.ok_or_else(|| unknown::unknown(self.backend(), name, false))
    }

    pub(crate) fn frame(&self) -> Frame {
        let sign = match (&self.session, &self.live.admin_token) {
            (Some(_), _) => Sign::In,
            (None, Some(_)) => Sign::Out,
            (None, None) => Sign::Closed,
        };
        Frame {
            root: self.root.clone(),
            version: self.exchange.shared.version,
            sign,
            csrf: self
                .session
                .as_ref()
                .map_or_else(String::new, |session| session.csrf.clone()),
            now: self.backend().now(),
            here: self.here.clone(),
        }
    }

    /// A page, as HTML or as JSON.
    pub(crate) fn page(&self, page: &impl Page) -> Outcome {
        self.page_with(StatusCode::OK, page)
    }

    /// The same with another status.
    pub(crate) fn page_with(&self, status: StatusCode, page: &impl Page) -> Outcome {
        let (kind, body) = if self.wants_json {
            (JSON, serde_json::to_string(page).map_err(|_| unwritten())?)
        } else {
            (HTML, page.html(&self.frame()).map_err(|_| unwritten())?)
        };
        let mut response = Response::new(ResponseBody::bytes(body.into()));
        *response.status_mut() = status;
        Ok(dressed(response, kind))
    }

    /// Goes on to another page; `to` is an address below the root, with its slash.
    pub(crate) fn redirect(&self, to: &str) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = StatusCode::SEE_OTHER;
        insert_location(response.headers_mut(), &format!("{}{to}", self.root));
        dressed(response, HTML)
    }

    /// What is shown instead of a page.
    pub(crate) fn refuse(&self, fault: &Fault) -> Response<ResponseBody> {
        let plain = || {
            let mut response = problem::response(self.backend(), fault, Audience::Repository(None));
            let vary = HeaderValue::from_static("Accept");
            response.headers_mut().insert(VARY, vary);
            response
        };
        if self.wants_json {
            return plain();
        }
        let message = Message {
            title: title(fault.kind).to_owned(),
            error: fault.message.clone(),
            code: fault.code.to_string(),
            repository: fault.repository.clone(),
            rule: fault.rule.clone(),
            sign_in: fault.kind == FaultKind::Unauthorized,
        };
        match self.page_with(status_of(fault.kind), &message) {
            Ok(mut response) => {
                if fault.kind == FaultKind::Unauthorized {
                    let scheme = HeaderValue::from_static(BEARER);
                    response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
                }
                if let Some(after) = fault.retry_after {
                    let headers = response.headers_mut();
                    headers.insert(RETRY_AFTER, whole_seconds(after).into());
                }
                let said = Said(Arc::new(fault.clone()));
                response.extensions_mut().insert(said);
                response
            }
            Err(_) => plain(),
        }
    }
}

/// The page that the form is on which is sent to this raw path behind `/ui/`.
fn page_of_form(rest: &str) -> String {
    let mut parts = rest.splitn(4, '/');
    let page = match [(); 4].map(|()| parts.next()) {
        [Some("repositories"), Some(name), Some("warm"), None] => {
            format!("repositories/{name}/outage")
        }
        [Some("repositories"), Some(name), Some("mirrors"), None] => format!("repositories/{name}"),
        [Some("jobs"), Some(id), Some("cancel"), None] => format!("jobs/{id}"),
        [Some("repositories"), Some(_), Some("flush"), None]
        | [Some("repositories"), Some(_), Some("artifact"), Some(_)] => rest.to_owned(),
        _ => String::new(),
    };
    format!("/ui/{page}")
}

/// The parameter of the query, decoded; empty if it is not there.
fn parameter<B>(exchange: &Exchange<'_, B>, name: &str) -> String {
    let query = exchange.head.uri.query().unwrap_or_default();
    let mut parameters = url::form_urlencoded::parse(query.as_bytes());
    let found = parameters.find(|(known, _)| known == name);
    found.map_or_else(String::new, |(_, value)| value.into_owned())
}

/// Whether JSON is asked for: by name. Who takes anything gets a page.
fn wants_json<B>(exchange: &Exchange<'_, B>) -> bool {
    let headers = &exchange.head.headers;
    quality(headers, "application", "json") > quality(headers, "text", "html")
}

/// With the headers of a page.
fn dressed(mut response: Response<ResponseBody>, kind: &'static str) -> Response<ResponseBody> {
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    for (name, value) in HEADERS {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    response
}

fn title(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::NotFound => "Not found",
        FaultKind::Unauthorized => "Sign in first",
        FaultKind::Forbidden | FaultKind::Misdirected => "Not allowed",
        FaultKind::NotImplemented => "Not built yet",
        FaultKind::Unavailable | FaultKind::TooManyRequests => "Not now",
        FaultKind::BadRequest | FaultKind::MethodNotAllowed | FaultKind::TooLarge => {
            "Not like this"
        }
        _ => "That did not work",
    }
}

fn unwritten() -> Fault {
    let message = "the page cannot be written";
    Fault::new(FaultKind::Internal, ErrorCode::Internal, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_to_sign_in_for_a_form_comes_back_to_its_page() {
        for (form, page) in [
            ("login", "/ui/"),
            ("logout", "/ui/"),
            ("repositories/a/flush", "/ui/repositories/a/flush"),
            ("repositories/a/warm", "/ui/repositories/a/outage"),
            ("repositories/a/mirrors", "/ui/repositories/a"),
            ("jobs/7/cancel", "/ui/jobs/7"),
            (
                "repositories/a/artifact/b/c/warm",
                "/ui/repositories/a/artifact/b/c/warm",
            ),
            (
                "repositories/a/artifact/cancel",
                "/ui/repositories/a/artifact/cancel",
            ),
            ("repositories/a/warm/b", "/ui/"),
            ("", "/ui/"),
        ] {
            assert_eq!(page_of_form(form), page, "{form}");
        }
    }
}
