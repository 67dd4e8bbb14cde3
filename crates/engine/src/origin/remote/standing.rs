//! What an answer, its absence, or a body says of the place that was asked (docs/adr/0051).

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use http::header::LAST_MODIFIED;
use larder_core::{ErrorCode, SafeUrl, UnixMillis, shown};
use larder_upstream::{Cause, UpstreamError, UpstreamResponse};
use url::Url;

use crate::fault::FetchError;
use crate::repositories::mirror::Mirror;
use crate::repositories::told::Blow;
use crate::repositories::upstreams::{Scope, scope};
use crate::target::Target;

/// What a mirror's failed body says of it; `None` if nothing.
fn cause_of_body(why: &FetchError) -> Option<Cause> {
    match why.code {
        ErrorCode::DigestMismatch => Some(Cause::WrongBytes),
        ErrorCode::MalformedDocument => Some(Cause::Malformed),
        ErrorCode::UpstreamCut => Some(Cause::Cut),
        ErrorCode::UpstreamTimeout | ErrorCode::UpstreamSlow => Some(Cause::Timeout),
        ErrorCode::UpstreamProtocol | ErrorCode::UnaskedCoding => Some(Cause::Protocol),
        _ => None,
    }
}

fn of_status(status: u16, url: &Url) -> String {
    let advice = match status {
        401 => "; check the repository's username and password",
        407 => "; the proxy on the way wants a login: check the user and password of its URL",
        403 => {
            "; the account may not read this, or it is a store that says 403 for what it has not got (missing_status: [403] then)"
        }
        429 => "; it wants fewer requests for a while, and often allows more to who logs in",
        508 => "; base_url leads back to where the request came from",
        500.. => "; the trouble is there",
        _ => "",
    };
    format!(
        "{}: answered {status}{advice}",
        shown(&SafeUrl(url.clone()).to_string())
    )
}

/// Notes how long a place took to answer, and how old the document is that it has.
pub(super) fn note_arrival(
    wanted: &Target,
    mirror: Option<&Arc<Mirror>>,
    answer: Option<&UpstreamResponse>,
    (asked, now): (Instant, UnixMillis),
) {
    let (Some(mirror), Some(response)) = (mirror, answer) else {
        return;
    };
    mirror.latency().note(asked.elapsed(), now);
    let has_document = matches!(response.status, StatusCode::OK | StatusCode::NOT_MODIFIED);
    let is_compared = wanted.spec.is_document && wanted.entry.mirrors.len() > 1;
    if !is_compared || !has_document {
        return;
    }
    let date = response.headers.get(LAST_MODIFIED);
    let date = date.and_then(|date| UnixMillis::from_http_date(date.to_str().ok()?));
    // An answer that only says that nothing has changed may leave the date out, and says nothing of it then.
    if date.is_some() || response.status == StatusCode::OK {
        mirror.indexes().note(&wanted.spec.key_path, date, now);
    }
}

/// Notes what an answer, or its absence, says of the place that was asked.
pub(super) fn note_answer(
    wanted: &Target,
    mirror: Option<&Arc<Mirror>>,
    url: &Url,
    answer: Result<&UpstreamResponse, &UpstreamError>,
    now: UnixMillis,
) {
    let key = &wanted.spec.key_path;
    let blow = match answer {
        // Larder itself did not ask.
        Err(UpstreamError { cause: None, .. }) => return,
        Err(UpstreamError {
            cause: Some(cause),
            message,
            ..
        }) => Blow {
            scope: scope(*cause),
            cause: *cause,
            reason: message.clone(),
            url: Some(url),
        },
        Ok(response) => {
            let status = response.status.as_u16();
            let says_absent = wanted.facts.is_missing(status)
                || (status == 401
                    && wanted
                        .format
                        .refused_to_anybody(&wanted.entry.repository, key)
                        .is_some());
            let Some(cause) = Cause::of_status(status).filter(|_| !says_absent) else {
                return wanted.entry.answered(mirror, now);
            };
            Blow {
                scope: scope(cause),
                cause,
                reason: of_status(status, url),
                url: Some(url),
            }
        }
    };
    wanted.entry.fell(mirror, key, blow, now);
}

/// Notes a body that was wrong or broke off.
pub(super) fn note_body(
    wanted: &Target,
    mirror: Option<&Arc<Mirror>>,
    place: Option<&Url>,
    why: &FetchError,
    now: UnixMillis,
) {
    if let Some(cause) = cause_of_body(why) {
        let blow = Blow {
            scope: Scope::File,
            cause,
            reason: why.message.clone(),
            url: place,
        };
        wanted.entry.fell(mirror, &wanted.spec.key_path, blow, now);
    }
}
