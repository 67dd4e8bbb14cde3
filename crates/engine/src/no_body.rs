//! Why there is no body: what the upstream's answer, or its silence, means, and the words for the user.

use std::time::Duration;

use http::StatusCode;
use larder_core::{ArtifactRecord, CacheStatus, Fault, FaultKind, ForwardReason, Outcome, UnixMillis};
use larder_upstream::{UpstreamError, UpstreamErrorKind, UpstreamResponse, retry_after};

use crate::admission::Wanted;
use crate::mirrors::Arrival;
use crate::obtain::remaining_seconds;

/// For clients of an upstream that refuses more requests for now and does not say for how long.
const UNTOLD_RETRY_AFTER: Duration = Duration::from_mins(1);

/// The word for an upstream that wants a login where the repository has none, and clients are better told of an absence.
const ABSENT_OR_PRIVATE: &str = "name_unknown";
/// The code of a reason not to ask the upstream at all.
pub(crate) const NOT_ASKED: &str = "upstream_busy";

/// Why there is no body: the outcome for `settle`, and the words for the user.
#[derive(Debug, Clone)]
pub(crate) struct NoBody {
    pub(crate) outcome: Outcome,
    pub(crate) message: String,
    pub(crate) code: &'static str,
}

impl NoBody {
    pub(crate) fn unusable(code: &'static str, message: impl Into<String>) -> Self {
        Self { outcome: Outcome::Unusable, message: message.into(), code }
    }

    /// Whether it is the fault of the place that was asked, so that another may have the right body.
    pub(crate) fn is_of_the_mirror(&self) -> bool {
        let of_the_body = ["digest_mismatch", "malformed_document", "unasked_coding"];
        self.code.starts_with("upstream_") || of_the_body.contains(&self.code)
    }

    /// How a copy came to be served in place of the body: the upstream was asked in vain, or it had asked to be left alone.
    pub(crate) fn cache_status(&self, copy: &ArtifactRecord, wanted: &Wanted, now: UnixMillis) -> CacheStatus {
        let detail = Some("stale-error");
        if self.code == NOT_ASKED {
            let ttl = remaining_seconds(copy, wanted, now);
            return CacheStatus { hit: true, ttl, detail, ..CacheStatus::default() };
        }
        let forward_status = match self.outcome {
            Outcome::Missing(status) | Outcome::Denied(status) | Outcome::Refused { status, .. } => Some(status),
            _ => None,
        };
        CacheStatus { forward: Some(ForwardReason::Stale), forward_status, detail, ..CacheStatus::default() }
    }
}

impl From<UpstreamError> for NoBody {
    fn from(error: UpstreamError) -> Self {
        let (outcome, code) = match error.kind {
            UpstreamErrorKind::Unreachable => (Outcome::Unreachable, "upstream_unreachable"),
            UpstreamErrorKind::Offline => (Outcome::Unreachable, "offline"),
            UpstreamErrorKind::TimedOut => (Outcome::TimedOut, "upstream_timeout"),
            UpstreamErrorKind::RefusedRedirect => (Outcome::Unusable, "redirect_refused"),
            UpstreamErrorKind::RefusedAddress => (Outcome::Unusable, "address_refused"),
            // The registry's answer was 401: a statement about rights, which an old copy covers up only where the operator lists it.
            UpstreamErrorKind::Unauthorized => (Outcome::Denied(StatusCode::UNAUTHORIZED.as_u16()), "upstream_login"),
            UpstreamErrorKind::Protocol => (Outcome::Unusable, "upstream_protocol"),
            UpstreamErrorKind::Truncated => (Outcome::Unusable, "upstream_cut"),
        };
        Self { outcome, message: error.message, code }
    }
}

/// Wherever a body may be, it was wrong.
pub(crate) fn nothing_left() -> NoBody {
    NoBody::unusable("internal", "a download failed without a reason")
}

/// Why an answer other than 200 and an expected 304 has no body. Where another mirror could not be asked, one that has not got the
/// file does not end the life of a copy.
pub(crate) fn no_body_of(wanted: &Wanted, arrival: &Arrival, has_copy: bool, now: UnixMillis) -> NoBody {
    if arrival.response.status == StatusCode::NOT_MODIFIED {
        return NoBody::unusable("upstream_protocol", "the upstream answered 304 to a request without conditions");
    }
    match &arrival.failed {
        Some(failed) if has_copy => failed.clone(),
        _ => status_outcome(wanted, &arrival.response, now),
    }
}

/// What a status other than 200 and an expected 304 means.
pub(crate) fn status_outcome(wanted: &Wanted, response: &UpstreamResponse, now: UnixMillis) -> NoBody {
    let status = response.status.as_u16();
    let path = &wanted.spec.key_path;
    if status == 401
        && let Some(refusal) = wanted.format.refused_to_anybody(&wanted.entry.repository, path)
    {
        // To larder it is a 401 all the same: no absence that would be remembered, nor end the life of a copy.
        return NoBody { outcome: Outcome::Denied(status), message: refusal.message, code: ABSENT_OR_PRIVATE };
    }
    let status = if wanted.format.is_missing(path, status) { 404 } else { status };
    let retry_after = retry_after(&response.headers, now);
    let outcome = match status {
        404 | 410 => Outcome::Missing(status),
        401 | 403 | 407 | 451 => Outcome::Denied(status),
        400..=599 => Outcome::Refused { status, retry_after: retry_after.filter(|_| matches!(status, 408 | 425 | 429 | 500..)) },
        _ => Outcome::Unusable,
    };
    let hint = match status {
        401 | 407 => "; check the repository's username and password",
        _ => "",
    };
    let message = format!("the upstream of repository {} answered {status}{hint}", wanted.entry.repository.name);
    let code = if matches!(status, 401 | 407) { "upstream_unauthorized" } else { "upstream_status" };
    NoBody { outcome, message, code }
}

/// The upstream's own status, passed on.
pub(crate) fn passed_on(wanted: &Wanted, status: u16, retry_after: Option<Duration>) -> Fault {
    let code = match status {
        404 | 410 => wanted.format.missing_code(&wanted.spec.key_path),
        429 => "rate_limited",
        508 => "loop_detected",
        _ => "upstream_status",
    };
    let path = larder_core::shown(&wanted.spec.key_path);
    let message = match status {
        508 => format!(
            "repository {} leads back to where the request came from: its upstream answered 508 (Loop Detected); correct its base_url, \
             or whatever redirects from there to here",
            wanted.entry.repository.name
        ),
        _ => format!("the upstream of repository {} answered {status} for {path}", wanted.entry.repository.name),
    };
    // Who is told to come back later must be told when.
    let retry_after = retry_after.or((status == 429).then_some(UNTOLD_RETRY_AFTER));
    Fault::new(FaultKind::Upstream(status), code, message)
        .in_repository(&wanted.entry.repository.name)
        .by_rule("upstream")
        .retry_after(retry_after)
}

pub(crate) fn failed(wanted: &Wanted, timed_out: bool, no_body: &NoBody) -> Fault {
    let kind = match no_body.code {
        ABSENT_OR_PRIVATE => FaultKind::NotFound,
        _ if timed_out => FaultKind::GatewayTimeout,
        _ => FaultKind::BadGateway,
    };
    let message = format!("{} (asked for {})", no_body.message, wanted.spec.key_path);
    Fault::new(kind, no_body.code, message).in_repository(&wanted.entry.repository.name).by_rule("upstream")
}
