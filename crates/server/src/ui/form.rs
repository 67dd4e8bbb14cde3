//! What a form has sent.

use http::header::CONTENT_TYPE;
use hyper::body::Incoming;
use larder_core::{ErrorCode, Fault, FaultKind};

use super::visit::Visit;
use crate::backend::Backend;
use crate::request_body;

/// Longest body of a form, in bytes.
const MOST: u64 = 64 << 10;

/// The fields of a form.
#[derive(Debug)]
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads the body of this request.
    pub(crate) async fn read<B: Backend>(
        visit: &Visit<'_, B>,
        body: &mut Incoming,
    ) -> Result<Self, Fault> {
        let kind = visit.exchange.head.headers.get(CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            let message = "this address takes forms only (application/x-www-form-urlencoded)";
            return Err(bad(message));
        }
        let shared = visit.exchange.shared;
        let room = (&*shared.budgets, "");
        let body = request_body::collect(body, MOST, room, &shared.limits).await?;
        let fields = url::form_urlencoded::parse(&body).into_owned();
        Ok(Self(fields.collect()))
    }

    /// A field; empty if it was not sent.
    pub(crate) fn field(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }
}

fn bad(message: &str) -> Fault {
    Fault::new(FaultKind::BadRequest, ErrorCode::BadRequest, message)
}
