//! Error bodies as container clients read them (distribution specification, "Error Codes").

use larder_core::{Fault, FaultKind};

use crate::ErrorBody;

/// The words that a fault may carry itself, each with the specification's code.
const CODES: [(&str, &str); 13] = [
    ("blob_unknown", "BLOB_UNKNOWN"),
    ("digest_invalid", "DIGEST_INVALID"),
    ("digest_mismatch", "DIGEST_INVALID"),
    ("invalid_path", "NAME_INVALID"),
    ("malformed_document", "MANIFEST_INVALID"),
    ("manifest_invalid", "MANIFEST_INVALID"),
    ("manifest_unknown", "MANIFEST_UNKNOWN"),
    ("name_invalid", "NAME_INVALID"),
    ("name_unknown", "NAME_UNKNOWN"),
    ("unknown_repository", "NAME_UNKNOWN"),
    ("quarantined", "MANIFEST_UNKNOWN"),
    ("upstream_login", "UNAUTHORIZED"),
    ("upstream_unauthorized", "UNAUTHORIZED"),
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
    let own = CODES.iter().find(|(word, _)| *word == fault.code);
    own.map_or_else(|| by_kind(fault.kind), |(_, code)| code)
}

fn by_kind(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::Unauthorized | FaultKind::Upstream(401) => "UNAUTHORIZED",
        FaultKind::Forbidden | FaultKind::Upstream(403 | 451) => "DENIED",
        FaultKind::NotFound | FaultKind::Upstream(404 | 410) => "NAME_UNKNOWN",
        FaultKind::Upstream(429) => "TOOMANYREQUESTS",
        FaultKind::TooLarge => "SIZE_INVALID",
        _ => "UNSUPPORTED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_specification_s_codes() {
        for (kind, word, expected) in [
            (
                FaultKind::Upstream(404),
                "manifest_unknown",
                "MANIFEST_UNKNOWN",
            ),
            (FaultKind::Upstream(404), "blob_unknown", "BLOB_UNKNOWN"),
            (FaultKind::Upstream(429), "rate_limited", "TOOMANYREQUESTS"),
            (FaultKind::Upstream(403), "upstream_status", "DENIED"),
            (FaultKind::Forbidden, "pattern_denied", "DENIED"),
            (FaultKind::NotFound, "unknown_repository", "NAME_UNKNOWN"),
            (FaultKind::BadRequest, "digest_invalid", "DIGEST_INVALID"),
            (FaultKind::BadRequest, "name_invalid", "NAME_INVALID"),
            (FaultKind::MethodNotAllowed, "read_only", "UNSUPPORTED"),
            (FaultKind::Unauthorized, "token_needed", "UNAUTHORIZED"),
            (FaultKind::BadGateway, "digest_mismatch", "DIGEST_INVALID"),
            (
                FaultKind::BadGateway,
                "malformed_document",
                "MANIFEST_INVALID",
            ),
            (FaultKind::BadRequest, "invalid_path", "NAME_INVALID"),
            (FaultKind::BadGateway, "upstream_unreachable", "UNSUPPORTED"),
            (FaultKind::BadGateway, "upstream_login", "UNAUTHORIZED"),
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
                (Some(word), Some("upstream"))
            );
        }
    }
}
