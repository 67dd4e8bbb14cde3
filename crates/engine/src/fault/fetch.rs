//! What the upstream's answer, or its silence, means for whoever waits for a body, and the words for the user.

use std::time::Duration;

use http::StatusCode;
use larder_core::{
    ArtifactRecord, CacheStatus, ErrorCode, Fault, FaultKind, ForwardReason, Outcome, Recovery,
    UnixMillis,
};
use larder_upstream::{UpstreamError, UpstreamErrorKind, UpstreamResponse, retry_after};

use super::busy::busy;
use crate::target::{Target, remaining_seconds};

/// For clients of an upstream that refuses more requests for now and does not say for how long.
const UNTOLD_RETRY_AFTER: Duration = Duration::from_mins(1);

/// The word for an upstream that wants a login where the repository has none, and clients are better told of an absence.
const ABSENT_OR_PRIVATE: ErrorCode = ErrorCode::NameUnknown;
/// The code of a reason not to ask the upstream at all.
pub(crate) const NOT_ASKED: ErrorCode = ErrorCode::UpstreamBusy;

/// Why there is no body: the outcome for `settle`, and the words for the user.
#[derive(Debug, Clone)]
pub(crate) struct FetchError {
    pub(crate) outcome: Outcome,
    pub(crate) message: String,
    pub(crate) code: ErrorCode,
    /// The status that the upstream answered, if it answered.
    pub(crate) status: Option<u16>,
    /// Why the upstream cannot be reached, in a few words; may be empty.
    pub(crate) brief: &'static str,
}

impl FetchError {
    pub(crate) fn unusable(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Unusable,
            message: message.into(),
            code,
            status: None,
            brief: "",
        }
    }

    /// Whether it is the fault of the place that was asked, so that another may have the right body.
    pub(crate) fn is_of_the_mirror(&self) -> bool {
        let is_of_the_answer = matches!(
            self.code,
            ErrorCode::UpstreamSlow
                | ErrorCode::UpstreamBusy
                | ErrorCode::UpstreamStatus
                | ErrorCode::UpstreamUnauthorized
                | ErrorCode::UpstreamLogin
        );
        // `offline` is larder's own, and holds for every place.
        let is_recoverable = self.recovery() != Recovery::Final && self.code != ErrorCode::Offline;
        is_of_the_answer || is_recoverable
    }

    /// Whether it may be this place's way of saying 404 (a page in the place of a document), to a path that a client made up.
    pub(crate) fn may_be_an_absence(&self) -> bool {
        self.code == ErrorCode::MalformedDocument
    }

    /// What may be done by whoever waits for this on behalf of others. Here and nowhere else it is read from the code.
    pub(crate) fn recovery(&self) -> Recovery {
        match self.code {
            ErrorCode::DigestMismatch | ErrorCode::MalformedDocument | ErrorCode::UnaskedCoding => {
                Recovery::Elsewhere
            }
            ErrorCode::UpstreamProtocol | ErrorCode::UpstreamCut => Recovery::Retry,
            ErrorCode::UpstreamTimeout | ErrorCode::Offline => Recovery::Copy,
            ErrorCode::UpstreamUnreachable => Recovery::RetryOrCopy,
            _ => Recovery::Final,
        }
    }

    /// How a copy came to be served in place of the body: the upstream was asked in vain, or it had asked to be left alone.
    pub(crate) fn cache_status(
        &self,
        copy: &ArtifactRecord,
        wanted: &Target,
        now: UnixMillis,
    ) -> CacheStatus {
        let detail = Some("stale-error");
        if self.code == NOT_ASKED {
            let ttl = remaining_seconds(copy, wanted, now);
            return CacheStatus {
                hit: true,
                ttl,
                detail,
                ..CacheStatus::default()
            };
        }
        let forward_status = match self.outcome {
            Outcome::Missing(status)
            | Outcome::Denied(status)
            | Outcome::Refused { status, .. } => Some(status),
            _ => None,
        };
        CacheStatus {
            forward: Some(ForwardReason::Stale),
            forward_status,
            detail,
            ..CacheStatus::default()
        }
    }
}

impl From<UpstreamError> for FetchError {
    fn from(error: UpstreamError) -> Self {
        let (outcome, code) = match error.kind {
            UpstreamErrorKind::Unreachable => {
                (Outcome::Unreachable, ErrorCode::UpstreamUnreachable)
            }
            UpstreamErrorKind::Offline => (Outcome::Unreachable, ErrorCode::Offline),
            UpstreamErrorKind::Busy => (Outcome::Unusable, ErrorCode::Busy),
            UpstreamErrorKind::TimedOut => (Outcome::TimedOut, ErrorCode::UpstreamTimeout),
            UpstreamErrorKind::RefusedRedirect => (Outcome::Unusable, ErrorCode::RedirectRefused),
            UpstreamErrorKind::RefusedAddress => (Outcome::Unusable, ErrorCode::AddressRefused),
            // The registry's answer was 401: a statement about rights, which an old copy covers up only where the operator lists it.
            UpstreamErrorKind::Unauthorized => (
                Outcome::Denied(StatusCode::UNAUTHORIZED.as_u16()),
                ErrorCode::UpstreamLogin,
            ),
            UpstreamErrorKind::Protocol => (Outcome::Unusable, ErrorCode::UpstreamProtocol),
            UpstreamErrorKind::Truncated => (Outcome::Unusable, ErrorCode::UpstreamCut),
        };
        Self {
            outcome,
            message: error.message,
            code,
            status: None,
            brief: error.brief,
        }
    }
}

/// Whether what was joined was just being given up, and says nothing of what was wanted: whoever joined it begins anew.
pub(crate) fn was_given_up(fault: &Fault) -> bool {
    fault.code == ErrorCode::Interrupted
}

/// Wherever a body may be, it was wrong.
pub(crate) fn nothing_left() -> FetchError {
    FetchError::unusable(ErrorCode::Internal, "a download failed without a reason")
}

/// What a status other than 200 and an expected 304 means.
pub(crate) fn status_outcome(
    wanted: &Target,
    response: &UpstreamResponse,
    now: UnixMillis,
) -> FetchError {
    let status = response.status.as_u16();
    let path = &wanted.spec.key_path;
    if status == 401
        && let Some(refusal) = wanted
            .format
            .refused_to_anybody(&wanted.entry.repository, path)
    {
        // To larder it is a 401 all the same: no absence that would be remembered, nor end the life of a copy.
        return FetchError {
            outcome: Outcome::Denied(status),
            message: refusal.message,
            code: ABSENT_OR_PRIVATE,
            status: Some(status),
            brief: "",
        };
    }
    let answered = status;
    let status = if wanted.facts.is_missing(status) {
        404
    } else {
        status
    };
    let retry_after = retry_after(&response.headers, now);
    let outcome = match status {
        404 | 410 => Outcome::Missing(status),
        401 | 403 | 407 | 451 => Outcome::Denied(status),
        400..=599 => Outcome::Refused {
            status,
            retry_after: retry_after.filter(|_| matches!(status, 408 | 425 | 429 | 500..)),
        },
        _ => Outcome::Unusable,
    };
    let hint = match status {
        401 => "; set username and password of the repository, or correct them",
        407 => "; the proxy on the way wants a login: write user and password into its URL (proxy)",
        300..=399 => "; it leads to no place that could be asked: correct base_url",
        200..=299 => ", which is no answer to what was asked; correct base_url",
        _ => "",
    };
    let message = format!(
        "the upstream of repository {} answered {status}{hint}",
        wanted.entry.repository.name
    );
    let code = if matches!(status, 401 | 407) {
        ErrorCode::UpstreamUnauthorized
    } else {
        ErrorCode::UpstreamStatus
    };
    FetchError {
        outcome,
        message,
        code,
        status: Some(answered),
        brief: "",
    }
}

/// The upstream's own status, passed on.
pub(crate) fn passed_on(wanted: &Target, status: u16, retry_after: Option<Duration>) -> Fault {
    let code = match status {
        404 | 410 => wanted.facts.missing_code,
        429 => ErrorCode::RateLimited,
        508 => ErrorCode::LoopDetected,
        _ => ErrorCode::UpstreamStatus,
    };
    let name = &wanted.entry.repository.name;
    let path = shown_path(&wanted.spec.key_path);
    // They were read as 404 where the answer came in (`mirrors.rs`).
    let also = wanted
        .entry
        .repository
        .cache
        .missing_status
        .iter()
        .map(u16::to_string)
        .collect::<Vec<_>>()
        .join(" or ");
    let message = match status {
        508 => format!(
            "repository {name} leads back to where the request came from: its upstream answered 508 (Loop Detected); correct its base_url, \
             or whatever redirects from there to here"
        ),
        404 if !also.is_empty() => {
            format!(
                "the upstream of repository {name} answered 404 for {path}, or {also}, which missing_status reads as that"
            )
        }
        _ => format!(
            "the upstream of repository {name} answered {status} for {path}{}",
            remedy_of(status)
        ),
    };
    let said = if status == 404 && !also.is_empty() {
        format!("404 or {also}")
    } else {
        status.to_string()
    };
    // Who is told to come back later must be told when.
    let retry_after = retry_after.or((status == 429).then_some(UNTOLD_RETRY_AFTER));
    Fault::new(FaultKind::Upstream(status), code, message)
        .in_repository(name)
        .by_rule("upstream")
        .upstream_said(said)
        .retry_after(retry_after)
}

/// A path as messages show it.
fn shown_path(path: &str) -> std::borrow::Cow<'_, str> {
    if path.is_empty() {
        "its root".into()
    } else {
        larder_core::shown(path)
    }
}

/// What to do about a status that is passed on.
fn remedy_of(status: u16) -> &'static str {
    match status {
        403 => {
            "; it may want a login (username, password), or say so of what is not there (missing_status)"
        }
        429 => "; it takes fewer requests for now: ask again later, or log in (username, password)",
        500..=599 => {
            "; that is the upstream's own trouble: ask again later (stale.on_status serves held copies meanwhile)"
        }
        _ => "",
    }
}

/// No usable answer, and no copy.
pub(crate) fn failed(wanted: &Target, timed_out: bool, no_body: &FetchError) -> Fault {
    if no_body.code == ErrorCode::Busy {
        return busy(&wanted.entry.repository.name, &no_body.message);
    }
    let kind = match no_body.code {
        ABSENT_OR_PRIVATE => FaultKind::NotFound,
        _ if timed_out => FaultKind::GatewayTimeout,
        _ => FaultKind::BadGateway,
    };
    let name = &wanted.entry.repository.name;
    let said = Said::of(wanted, no_body);
    let path = shown_path(&wanted.spec.key_path);
    let names_it = ["the upstream of repository", "the registry of repository"]
        .iter()
        .any(|who| no_body.message.starts_with(who));
    let what = match said.brief {
        _ if names_it => no_body.message.clone(),
        "" => format!("repository {name}: {}", no_body.message),
        brief => format!(
            "the upstream of repository {name} {brief}: {}",
            no_body.message
        ),
    };
    let message = format!("{what} (asked for {path}){}", said.remedy);
    let fault = Fault::new(kind, no_body.code, message)
        .in_repository(name)
        .by_rule(said.rule)
        .recoverable(no_body.recovery());
    let fault = match (said.brief, no_body.status) {
        ("", _) => fault,
        (brief, Some(401)) => fault.briefly(format!(
            "the upstream of repository {name} answered 401: it {brief}"
        )),
        (_, Some(407)) => fault.briefly(format!(
            "the upstream of repository {name} answered 407: the proxy on the way wants a login"
        )),
        (brief, Some(status)) if no_body.code == ErrorCode::UpstreamStatus => fault.briefly(
            format!("the upstream of repository {name} answered {status}: it {brief}"),
        ),
        (brief, _) if no_body.brief.is_empty() => {
            fault.briefly(format!("the upstream of repository {name} {brief}"))
        }
        (brief, _) => fault.briefly(format!(
            "the upstream of repository {name} {brief}: {}",
            no_body.brief
        )),
    };
    match no_body.status {
        Some(status) => fault.upstream_said(status.to_string()),
        None if !no_body.brief.is_empty() => fault.upstream_said(no_body.brief),
        None if said.upstream.is_empty() => fault,
        None => fault.upstream_said(said.upstream),
    }
}

/// What is said of a failure beside what happened, in words of larder's own.
struct Said {
    rule: &'static str,
    /// After "the upstream of repository …"; empty where the message itself is short.
    brief: &'static str,
    upstream: &'static str,
    remedy: &'static str,
}

impl Said {
    fn of(wanted: &Target, no_body: &FetchError) -> Self {
        match no_body.code {
            ErrorCode::DigestMismatch
            | ErrorCode::MalformedDocument
            | ErrorCode::UnaskedCoding
            | ErrorCode::DocumentTooLarge => Self::of_body(wanted, no_body.code),
            code => Self::of_answer(code),
        }
    }

    const fn upstream(brief: &'static str, upstream: &'static str, remedy: &'static str) -> Self {
        Self {
            rule: "upstream",
            brief,
            upstream,
            remedy,
        }
    }

    /// No answer, or none that could be used.
    fn of_answer(code: ErrorCode) -> Self {
        match code {
            ErrorCode::UpstreamUnreachable => Self::upstream(
                "cannot be reached",
                "unreachable",
                "; see that this host reaches it (base_url, proxy, ca_file), and ask again",
            ),
            ErrorCode::UpstreamTimeout => Self::upstream(
                "did not answer in time",
                "timed out",
                "; ask again, or let it have more time (timeouts.connect, timeouts.read)",
            ),
            ErrorCode::UpstreamUnauthorized => {
                Self::upstream("wants a login; set username and password", "", "")
            }
            ErrorCode::UpstreamLogin => Self::upstream(
                "gave no token",
                "no token",
                "; set username and password of the repository, or correct them",
            ),
            ErrorCode::UpstreamProtocol => Self::upstream(
                "did not answer in valid HTTP",
                "no valid HTTP",
                "; correct base_url, or ask again later",
            ),
            ErrorCode::UpstreamCut => {
                Self::upstream("broke off the transfer", "broken off", "; ask again")
            }
            ErrorCode::UpstreamStatus => Self::upstream("gave no usable answer", "", ""),
            ErrorCode::RedirectRefused => Self::upstream(
                "redirects to where larder does not follow",
                "redirect refused",
                "; correct base_url",
            ),
            ErrorCode::AddressRefused => Self {
                rule: "allow_private",
                ..Self::upstream("leads to a private address", "address refused", "")
            },
            ErrorCode::Offline => Self {
                rule: "offline",
                ..Self::upstream(
                    "is not asked (offline)",
                    "",
                    "; set offline: false to let larder ask",
                )
            },
            _ => Self::upstream("", "", ""),
        }
    }

    /// A body that cannot be used.
    fn of_body(wanted: &Target, code: ErrorCode) -> Self {
        match code {
            ErrorCode::DigestMismatch => Self {
                rule: "verify",
                ..Self::upstream(
                    "sent other bytes than are stated",
                    "wrong digest",
                    if wanted.facts.is_digest_binding() {
                        "; ask again when it has been corrected there"
                    } else {
                        "; ask again when it has been corrected there (verify: warn would keep it)"
                    },
                )
            },
            ErrorCode::DocumentTooLarge if !wanted.spec.is_document => Self::upstream(
                "sent more than is looked into",
                "too large",
                "; that bound is fixed, no setting raises it",
            ),
            ErrorCode::DocumentTooLarge => Self {
                rule: "limits.document_size",
                ..Self::upstream(
                    "sent a document that is too large",
                    "too large",
                    "; raise limits.document_size if it should be so large",
                )
            },
            _ => Self::upstream(
                "sent something that cannot be used",
                "malformed",
                "; look at what it sends there",
            ),
        }
    }
}
