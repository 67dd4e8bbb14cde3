//! The header fields that container clients rely on: the digest of what they get, and where a list of tags goes on.

use http::header::{CONTENT_TYPE, LINK};
use http::{HeaderMap, HeaderName, HeaderValue};
use larder_core::{Digest, DigestAlgorithm, Repository, field_value};

use super::path::{Route, Target};
use super::request::{TAG_PARAMETERS, only};
use crate::Held;

const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// Says by which parameters a list of referrers was filtered.
const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

/// Upstream fields that are kept with a list. (A digest is never echoed: it is computed.)
pub(super) const KEPT: &[&str] = &["link", "oci-filters-applied"];

/// The digest that the upstream states of a manifest; `None` if it states none that can be checked.
pub(super) fn stated_digest(headers: &HeaderMap) -> Option<Digest> {
    let digest: Digest = headers.get(DIGEST)?.to_str().ok()?.trim().parse().ok()?;
    matches!(digest.algorithm(), DigestAlgorithm::Sha256 | DigestAlgorithm::Sha512).then_some(digest)
}

/// The fields of an answer.
pub(super) fn headers(repository: &Repository, route: &Route<'_>, held: &Held<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let kept = |name: &HeaderName| held.headers.further.get(name.as_str()).map(String::as_str);
    match &route.target {
        Target::Tag(_) | Target::Manifest(_) => {}
        Target::Blob(_) => drop(headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))),
        Target::Tags => {
            let next = kept(&LINK).and_then(next_page);
            let link = next.map(|query| format!("</v2/{}/{}/tags/list?{query}>; rel=\"next\"", repository.name, route.name));
            insert(&mut headers, LINK, link.as_deref());
            return headers;
        }
        Target::Referrers(subject) => {
            let next = kept(&LINK).and_then(next_page);
            let link =
                next.map(|query| format!("</v2/{}/{}/referrers/{subject}?{query}>; rel=\"next\"", repository.name, route.name));
            insert(&mut headers, LINK, link.as_deref());
            insert(&mut headers, FILTERS, kept(&FILTERS));
            return headers;
        }
    }
    // Of a tag's digests (sha256 is always computed) the one is told that the upstream has stated, and that the bytes were compared
    // with: by it a client that asked the registry itself would ask next.
    let told = held.digest.map(|computed| held.headers.digest.as_ref().unwrap_or(computed));
    let digest = route.digest().or(told).map(ToString::to_string);
    insert(&mut headers, DIGEST, digest.as_deref());
    headers
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: Option<&str>) {
    if let Some(value) = value.and_then(field_value) {
        headers.insert(name, value);
    }
}

/// The query of the next page, out of a `Link` field (RFC 8288). Wherever the link leads, only its parameters are taken: larder
/// asks the configured registry for them.
fn next_page(link: &str) -> Option<String> {
    let mut rest = link;
    loop {
        let (_, after) = rest.split_once('<')?;
        let (target, parameters) = after.split_once('>')?;
        let own = parameters.split('<').next().unwrap_or_default();
        if is_next(own) {
            let query = target.split_once('?')?.1.split('#').next().unwrap_or_default();
            let clean = query.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\'));
            return only(query, TAG_PARAMETERS).filter(|_| clean);
        }
        rest = parameters;
    }
}

fn is_next(parameters: &str) -> bool {
    let compact: String = parameters.chars().filter(|c| !c.is_whitespace() && *c != '"').collect();
    compact.split([';', ',']).any(|parameter| parameter.eq_ignore_ascii_case("rel=next"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oci_14_the_next_page_is_taken_from_any_link_and_never_its_host() {
        for (link, query) in [
            (r#"</v2/library/nginx/tags/list?last=1.9&n=100>; rel="next""#, Some("last=1.9&n=100")),
            (r"<https://other.example/v2/a/tags/list?n=2&last=a%2Fb%3D>;rel=next", Some("n=2&last=a%2Fb%3D")),
            (r#"</first?n=1>; rel="prev", </v2/a/tags/list?next_page=xyz>; rel="next""#, Some("next_page=xyz")),
            (r#"</v2/a/tags/list?last=x&evil=1#frag>; rel="next""#, Some("last=x")),
            (r#"</v2/a/tags/list?n=2>; rel="prev""#, None),
            (r#"</v2/a/tags/list>; rel="next""#, None),
            ("nonsense", None),
        ] {
            assert_eq!(next_page(link).as_deref(), query, "{link}");
        }
    }

    #[test]
    fn only_digests_that_can_be_checked_are_taken() {
        let stated = |text: &str| {
            let headers = HeaderMap::from_iter([(DIGEST, HeaderValue::from_str(text).unwrap())]);
            stated_digest(&headers)
        };
        assert!(stated(&format!("sha256:{}", "ab".repeat(32))).is_some());
        assert!(stated(&format!("sha512:{}", "ab".repeat(64))).is_some());
        for text in ["", "sha256:ab", "md5:d41d8cd98f00b204e9800998ecf8427e", "blake3:00"] {
            assert_eq!(stated(text), None, "{text}");
        }
        assert_eq!(stated_digest(&HeaderMap::new()), None);
    }
}
