//! What must be so before a page is shown under a name, and before a form changes anything.

use http::header::ORIGIN;
use hyper::body::Incoming;
use larder_core::{ErrorCode, Fault, FaultKind};
use url::Url;

use super::form::Form;
use super::visit::Visit;
use crate::backend::Backend;
use crate::origin_guard::{refuse_rebound, same};

/// Where larder knows the names that it has, it shows no page under another: any site can make a name of its own lead here.
pub(crate) fn host<B: Backend>(visit: &Visit<'_, B>) -> Result<(), Fault> {
    if visit.live.public_urls.is_empty() {
        return Ok(());
    }
    let used = visit.exchange.client.base.split_once("://");
    let used = used.map_or("", |(_, host)| host);
    refuse_rebound(used, &visit.live).map_err(|fault| Fault {
        message: "larder shows no pages under this host name, which any web page could have made lead here: use the address of \
                  public_url (LARDER_PUBLIC_URL), or add this one to it"
            .to_owned(),
        ..fault
    })
}

/// The fields of a form that may change something: sent by a page of larder's own, from a session that is signed in, and with that
/// session's token.
pub(crate) async fn change<B: Backend>(
    visit: &Visit<'_, B>,
    body: &mut Incoming,
) -> Result<Form, Fault> {
    origin(visit)?;
    let Some(session) = &visit.session else {
        return Err(signed_out(visit));
    };
    let form = Form::read(visit, body).await?;
    if !same(form.field("csrf").as_bytes(), session.csrf.as_bytes()) {
        return Err(cross_site(
            "the form does not belong to this session: load the page again and send it once more",
        ));
    }
    Ok(form)
}

/// Why nobody who is not signed in may change anything, and what to do about it.
fn signed_out<B: Backend>(visit: &Visit<'_, B>) -> Fault {
    let message = if visit.live.admin_token.is_some() {
        "this changes something: sign in with the admin token first"
    } else {
        "this changes something, and there is no admin token to sign in with: set auth.admin_token (LARDER_ADMIN_TOKEN) to open it"
    };
    Fault::new(FaultKind::Unauthorized, ErrorCode::Unauthorized, message)
        .by_rule("auth.admin_token")
}

/// A browser says where a form comes from. One that does not is none, or so old that the form's token has to do.
pub(crate) fn origin<B: Backend>(visit: &Visit<'_, B>) -> Result<(), Fault> {
    let headers = &visit.exchange.head.headers;
    let is_own_site =
        |site: &http::HeaderValue| matches!(site.as_bytes(), b"same-origin" | b"none");
    let own = Url::parse(&visit.exchange.client.base).ok();
    let is_own = |origin: &http::HeaderValue| {
        let origin = origin.to_str().ok().and_then(|text| Url::parse(text).ok());
        let mut known = own.iter().chain(visit.live.public_urls.all());
        origin.is_some_and(|origin| known.any(|own| own.origin() == origin.origin()))
    };
    let sites = headers.get_all("sec-fetch-site");
    if sites.iter().all(is_own_site) && headers.get_all(ORIGIN).iter().all(is_own) {
        return Ok(());
    }
    Err(cross_site(
        "a page of another site sent this form, or larder is reached by an address that it does not know: set public_url \
         (LARDER_PUBLIC_URL) to the address in the browser",
    ))
}

fn cross_site(message: &str) -> Fault {
    Fault::new(FaultKind::Forbidden, ErrorCode::CrossSite, message)
        .by_rule("forms of the web interface")
}
