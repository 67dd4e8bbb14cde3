//! Manifests of the first schema, signed: a JSON object with a member `signatures`, which each say how to make of it the payload that was
//! signed (the JSON signature format of libtrust). A digest of such a manifest is its payload's, for registries and for clients.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// What such manifests are sent as.
const MEDIA_TYPE: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

#[derive(Deserialize)]
struct Signed {
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    protected: String,
}

/// How the payload ends.
#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Format {
    /// So much of the body stands in the payload as it is.
    format_length: usize,
    /// This comes after it, in base64url.
    format_tail: String,
}

/// The payload of a signed manifest; `None` if it is none, or its signatures do not agree on it. (Whether they are right is for clients
/// to say.)
pub(super) fn payload(content_type: &str, body: &[u8]) -> Option<Vec<u8>> {
    let sent = content_type.split(';').next().unwrap_or_default().trim();
    if !sent.eq_ignore_ascii_case(MEDIA_TYPE) {
        return None;
    }
    let signed: Signed = serde_json::from_slice(body).ok()?;
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok();
    let mut formats = signed
        .signatures
        .iter()
        .map(|signature| serde_json::from_slice(&decode(&signature.protected)?).ok());
    let format: Format = formats.next()??;
    if !formats.all(|other| other.as_ref() == Some(&format)) {
        return None;
    }
    let mut payload = body.get(..format.format_length)?.to_vec();
    payload.extend(decode(&format.format_tail)?);
    Some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protected(length: usize, tail: &str) -> String {
        URL_SAFE_NO_PAD.encode(format!(
            r#"{{"formatLength":{length},"formatTail":"{tail}","time":"2016-01-01T00:00:00Z"}}"#
        ))
    }

    /// `Cn0` is "\n}" (RFC 4648), with which libtrust ends a payload whose signatures it has taken out.
    fn body(protected: &[String]) -> (String, String) {
        let start = "{\n   \"schemaVersion\": 1,\n   \"fsLayers\": []";
        let signatures: Vec<String> = protected
            .iter()
            .map(|text| format!("{{\"header\":{{\"alg\":\"ES256\"}},\"signature\":\"c2ln\",\"protected\":\"{text}\"}}"))
            .collect();
        (
            format!(
                "{start},\n   \"signatures\": [{}]\n}}",
                signatures.join(",")
            ),
            format!("{start}\n}}"),
        )
    }

    #[test]
    fn the_payload_is_what_was_there_before_the_signatures() {
        let length = body(&[]).1.len() - 2;
        for signatures in 1..=2 {
            let (signed, plain) = body(&vec![protected(length, "Cn0"); signatures]);
            assert_eq!(
                payload(MEDIA_TYPE, signed.as_bytes()).unwrap(),
                plain.as_bytes()
            );
            assert_eq!(
                payload(&format!("{MEDIA_TYPE}; charset=utf-8"), signed.as_bytes()).unwrap(),
                plain.as_bytes()
            );
            assert_eq!(
                payload(
                    "application/vnd.docker.distribution.manifest.v1+json",
                    signed.as_bytes()
                ),
                None
            );
        }
    }

    #[test]
    fn signatures_that_make_no_sense_make_no_payload() {
        for signatures in [
            vec![],
            vec![protected(7, "Cn0"), protected(8, "Cn0")],
            vec![protected(7, "Cn0"), protected(7, "fQ")],
            vec![protected(1 << 40, "Cn0")],
            vec![protected(7, "?")],
            vec!["e30".to_owned()],
            vec!["?".to_owned()],
        ] {
            assert_eq!(
                payload(MEDIA_TYPE, body(&signatures).0.as_bytes()),
                None,
                "{signatures:?}"
            );
        }
        assert_eq!(payload(MEDIA_TYPE, b"{}"), None);
    }
}
