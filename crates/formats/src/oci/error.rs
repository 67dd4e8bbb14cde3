//! Error bodies as container clients read them (distribution specification, "Error Codes").

use larder_core::{ErrorCode, Fault, FaultKind};

use crate::ErrorBody;

/// The words that a fault may carry itself, each with the specification's code.
const CODES: [(ErrorCode, &str); 13] = [
    (ErrorCode::BlobUnknown, "BLOB_UNKNOWN"),
    (ErrorCode::DigestInvalid, "DIGEST_INVALID"),
    (ErrorCode::DigestMismatch, "DIGEST_INVALID"),
    (ErrorCode::InvalidPath, "NAME_INVALID"),
    (ErrorCode::MalformedDocument, "MANIFEST_INVALID"),
    (ErrorCode::ManifestInvalid, "MANIFEST_INVALID"),
    (ErrorCode::ManifestUnknown, "MANIFEST_UNKNOWN"),
    (ErrorCode::NameInvalid, "NAME_INVALID"),
    (ErrorCode::NameUnknown, "NAME_UNKNOWN"),
    // Asking again does not help.
    (ErrorCode::Offline, "UNSUPPORTED"),
    (ErrorCode::UnknownRepository, "NAME_UNKNOWN"),
    (ErrorCode::UpstreamLogin, "UNAUTHORIZED"),
    (ErrorCode::UpstreamUnauthorized, "UNAUTHORIZED"),
];

/// `{"errors": [{"code", "message", "detail"}]}`; the detail names what larder's own errors name.
pub(super) fn body(fault: &Fault) -> ErrorBody {
    let body = serde_json::json!({"errors": [{
        "code": code(fault), "message": fault.message,
        "detail": {"code": fault.code, "repository": fault.repository, "rule": fault.rule},
    }]});
    ErrorBody {
        content_type: "application/json",
        body: body.to_string().into_bytes(),
    }
}

fn code(fault: &Fault) -> &'static str {
    // There is no code for what is held back: it is not there yet.
    let told = match fault.code {
        ErrorCode::Quarantined => fault.missing_code().unwrap_or(ErrorCode::ManifestUnknown),
        other => other,
    };
    let own = CODES.iter().find(|(word, _)| *word == told);
    own.map_or_else(|| by_kind(fault.kind), |(_, code)| code)
}

fn by_kind(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::Unauthorized | FaultKind::Upstream(401) => "UNAUTHORIZED",
        FaultKind::Forbidden | FaultKind::Upstream(403 | 451) => "DENIED",
        FaultKind::NotFound | FaultKind::Upstream(404 | 410) => "NAME_UNKNOWN",
        FaultKind::TooManyRequests | FaultKind::Upstream(429) => "TOOMANYREQUESTS",
        FaultKind::TooLarge => "SIZE_INVALID",
        // The specification has codes for what clients do wrong. These two are the reference implementation's for what servers fail at,
        // and clients ask again after them, as they do not after UNSUPPORTED.
        FaultKind::Unavailable | FaultKind::Upstream(503) => "UNAVAILABLE",
        FaultKind::BadGateway
        | FaultKind::GatewayTimeout
        | FaultKind::Internal
        | FaultKind::Upstream(500..=599) => "UNKNOWN",
        _ => "UNSUPPORTED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distribution specification, "Error Codes": a blob's is code-1, a manifest's code-7.
    #[test]
    fn what_is_held_back_has_the_code_of_what_is_not_there() {
        let held = Fault::new(FaultKind::NotFound, ErrorCode::Quarantined, "held");
        assert_eq!(code(&held), "MANIFEST_UNKNOWN");
        let manifest = held.clone().missing_as(ErrorCode::ManifestUnknown);
        assert_eq!(code(&manifest), "MANIFEST_UNKNOWN");
        assert_eq!(
            code(&held.missing_as(ErrorCode::BlobUnknown)),
            "BLOB_UNKNOWN"
        );
    }

    #[test]
    fn errors_have_the_specification_s_codes() {
        for (kind, word, expected) in [
            (
                FaultKind::Upstream(404),
                ErrorCode::ManifestUnknown,
                "MANIFEST_UNKNOWN",
            ),
            (
                FaultKind::Upstream(404),
                ErrorCode::BlobUnknown,
                "BLOB_UNKNOWN",
            ),
            (
                FaultKind::Upstream(429),
                ErrorCode::RateLimited,
                "TOOMANYREQUESTS",
            ),
            (
                FaultKind::Upstream(403),
                ErrorCode::UpstreamStatus,
                "DENIED",
            ),
            (FaultKind::Forbidden, ErrorCode::PatternDenied, "DENIED"),
            (
                FaultKind::NotFound,
                ErrorCode::UnknownRepository,
                "NAME_UNKNOWN",
            ),
            (
                FaultKind::BadRequest,
                ErrorCode::DigestInvalid,
                "DIGEST_INVALID",
            ),
            (
                FaultKind::BadRequest,
                ErrorCode::NameInvalid,
                "NAME_INVALID",
            ),
            (
                FaultKind::MethodNotAllowed,
                ErrorCode::ReadOnly,
                "UNSUPPORTED",
            ),
            (
                FaultKind::Unauthorized,
                ErrorCode::Unauthorized,
                "UNAUTHORIZED",
            ),
            (
                FaultKind::BadGateway,
                ErrorCode::DigestMismatch,
                "DIGEST_INVALID",
            ),
            (
                FaultKind::BadGateway,
                ErrorCode::MalformedDocument,
                "MANIFEST_INVALID",
            ),
            (
                FaultKind::BadRequest,
                ErrorCode::InvalidPath,
                "NAME_INVALID",
            ),
            (
                FaultKind::BadGateway,
                ErrorCode::UpstreamUnreachable,
                "UNKNOWN",
            ),
            (
                FaultKind::GatewayTimeout,
                ErrorCode::UpstreamTimeout,
                "UNKNOWN",
            ),
            (
                FaultKind::Upstream(500),
                ErrorCode::UpstreamStatus,
                "UNKNOWN",
            ),
            (
                FaultKind::Upstream(503),
                ErrorCode::UpstreamStatus,
                "UNAVAILABLE",
            ),
            (FaultKind::Unavailable, ErrorCode::Busy, "UNAVAILABLE"),
            (FaultKind::BadGateway, ErrorCode::Offline, "UNSUPPORTED"),
            (
                FaultKind::TooManyRequests,
                ErrorCode::TooManyAttempts,
                "TOOMANYREQUESTS",
            ),
            (
                FaultKind::NotImplemented,
                ErrorCode::NotImplemented,
                "UNSUPPORTED",
            ),
            (
                FaultKind::BadGateway,
                ErrorCode::UpstreamLogin,
                "UNAUTHORIZED",
            ),
        ] {
            let fault = Fault::new(kind, word, "what \"happened\"").by_rule("upstream");
            let body = body(&fault);
            assert_eq!(body.content_type, "application/json");
            let parsed: serde_json::Value = serde_json::from_slice(&body.body).unwrap();
            let error = &parsed["errors"][0];
            assert_eq!(
                (error["code"].as_str(), error["message"].as_str()),
                (Some(expected), Some("what \"happened\"")),
                "{word}"
            );
            assert_eq!(
                (
                    error["detail"]["code"].as_str(),
                    error["detail"]["rule"].as_str()
                ),
                (Some(word.as_str()), Some("upstream"))
            );
        }
    }
}
