//! `/ui/login` and `/ui/logout`.

use http::header::{RETRY_AFTER, SET_COOKIE, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use hyper::body::Incoming;
use larder_core::{ErrorCode, Fault, FaultKind};
use larder_ui::pages::Login;

use super::form::Form;
use super::visit::{BEARER, Outcome, Visit};
use super::{guard, session};
use crate::attempts::try_token;
use crate::backend::Backend;
use crate::problem::{status_of, whole_seconds};

/// The form. `refused`: what was wrong with the last attempt.
pub(crate) fn show<B: Backend>(visit: &Visit<'_, B>, refused: Option<(String, &str)>) -> Outcome {
    let (refused, to) = match refused {
        Some((refused, to)) => (Some(refused), to.to_owned()),
        None => (None, visit.parameter("to")),
    };
    let status = match refused {
        Some(_) => StatusCode::UNAUTHORIZED,
        None => StatusCode::OK,
    };
    visit.page_with(
        status,
        &Login {
            to: safe(&to).to_owned(),
            refused,
            is_open: visit.live.admin_token.is_some(),
            signed_in: visit.session.is_some(),
        },
    )
}

pub(crate) async fn sign_in<B: Backend>(visit: &Visit<'_, B>, body: &mut Incoming) -> Outcome {
    guard::origin(visit)?;
    let form = Form::read(visit, body).await?;
    let Some(token) = &visit.live.admin_token else {
        let message =
            "there is no admin token to sign in with: set auth.admin_token (LARDER_ADMIN_TOKEN)";
        let fault = Fault::new(FaultKind::Unauthorized, ErrorCode::Unauthorized, message);
        return Err(fault.by_rule("auth.admin_token"));
    };
    let client = visit.exchange.client.address;
    let is_right = match try_token(form.field("token"), client, visit.exchange.shared) {
        Ok(is_right) => is_right,
        Err(fault) => return later(visit, fault, form.field("to")),
    };
    if !is_right {
        tracing::warn!(%client, "somebody tried to sign in to the web interface with a wrong token");
        return wrong(visit, form.field("to"));
    }
    tracing::info!(%client, "signed in to the web interface");
    let cookie = session::begin(token, visit.backend().now(), visit.is_https());
    with_cookie(visit, safe(form.field("to")), cookie)
}

/// The form again, with what is wrong; scripts get the fault.
fn wrong<B: Backend>(visit: &Visit<'_, B>, to: &str) -> Outcome {
    let message = "this is not the admin token of the configuration";
    let fault = Fault::new(FaultKind::Unauthorized, ErrorCode::Unauthorized, message)
        .by_rule("auth.admin_token");
    if visit.wants_json() {
        return Err(fault);
    }
    let mut response = show(visit, Some((capitalized(&fault.message), to)))?;
    // RFC 9110 section 15.5.2: a 401 says how one may sign in.
    let scheme = HeaderValue::from_static(BEARER);
    response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
    Ok(response)
}

/// The form again, for who has to wait before it is looked at; scripts get the fault.
fn later<B: Backend>(visit: &Visit<'_, B>, fault: Fault, to: &str) -> Outcome {
    if visit.wants_json() {
        return Err(fault);
    }
    let mut response = show(visit, Some((capitalized(&fault.message), to)))?;
    *response.status_mut() = status_of(fault.kind);
    let wait = fault.retry_after.unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, whole_seconds(wait).into());
    Ok(response)
}

/// As a sentence.
fn capitalized(message: &str) -> String {
    let mut letters = message.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).chain(['.']).collect()
}

pub(crate) async fn sign_out<B: Backend>(visit: &Visit<'_, B>, body: &mut Incoming) -> Outcome {
    guard::change(visit, body).await?;
    with_cookie(visit, "/ui/", Some(session::end(visit.is_https())))
}

fn with_cookie<B: Backend>(visit: &Visit<'_, B>, to: &str, cookie: Option<String>) -> Outcome {
    let mut response = visit.redirect(to);
    let cookie = cookie.and_then(|cookie| HeaderValue::try_from(cookie).ok());
    let cookie = cookie.ok_or_else(|| {
        let message = "the session cannot be made";
        Fault::new(FaultKind::Internal, ErrorCode::Internal, message)
    })?;
    response.headers_mut().insert(SET_COOKIE, cookie);
    Ok(response)
}

/// Only to a page of larder's: anything else is the overview.
pub(super) fn safe(to: &str) -> &str {
    let path = to.split(['?', '#']).next().unwrap_or_default();
    // Browsers read an encoded dot as a dot, and some servers an encoded slash as a slash; addresses of pages have neither.
    let path = path.to_ascii_lowercase();
    let is_page = to.starts_with("/ui/")
        && to
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\')
        && !["//", "%2f", "%5c"].iter().any(|part| path.contains(part))
        && !path.split('/').any(is_dots);
    if is_page { to } else { "/ui/" }
}

/// Whether a segment leads elsewhere than to what it names. Some servers take what is behind a semicolon for a parameter of it.
fn is_dots(segment: &str) -> bool {
    let name = segment.split(';').next().unwrap_or_default();
    matches!(&*name.replace("%2e", "."), "." | "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hazard_nobody_is_sent_elsewhere_by_signing_in() {
        for page in [
            "/ui/",
            "/ui/jobs/7?cursor=a..b",
            "/ui/repositories/npm",
            "/ui/explain?url=npm%2Fa%2E%2e",
            "/ui/repositories/npm/artifact/a%20b%25",
            "/ui/repositories/npm/artifact/v1..v2/..a/b...tgz",
            "/ui/explain?url=https://example.com/a",
        ] {
            assert_eq!(safe(page), page);
        }
        for other in [
            "",
            "/",
            "//evil.example/ui/",
            "https://evil.example/ui/",
            "/ui/..//evil.example",
            "/ui/../api",
            "/ui/%2e%2e/api",
            "/ui/.%2E/api",
            "/ui/%2E./api?x",
            "/ui/..%2fapi",
            "/ui/..;/api",
            "/ui/.%2e;a=b/api",
            "/ui/jobs/..",
            "/ui/jobs/.",
            "/ui/a%2F%2Fb",
            "/ui/%5cevil.example",
            "/ui/%5C",
            "/ui/\\evil.example",
            "/ui/a\r\nb",
            "/uix",
        ] {
            assert_eq!(safe(other), "/ui/", "{other}");
        }
    }
}
