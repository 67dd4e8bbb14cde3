//! The header fields that container clients rely on: the digest of what they get, and where a list of tags goes on.

use http::header::{CONTENT_TYPE, LINK};
use http::{HeaderMap, HeaderName, HeaderValue};
use larder_core::{Digest, DigestAlgorithm, Repository, field_value};

use super::pages::{self, List, REFERRER_PARAMETERS, TAG_PARAMETERS};
use super::path::{Route, Target};
use crate::Held;

const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// Says by which parameters a list of referrers was filtered.
const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

/// Upstream fields that are kept with a list. (A digest is never echoed: it is computed.)
pub(super) const KEPT: &[&str] = &["link", "oci-filters-applied"];

/// The digest that the upstream states of a manifest; `None` if it states none that can be checked.
pub(super) fn stated_digest(headers: &HeaderMap) -> Option<Digest> {
    let digest: Digest = headers.get(DIGEST)?.to_str().ok()?.trim().parse().ok()?;
    matches!(
        digest.algorithm(),
        DigestAlgorithm::Sha256 | DigestAlgorithm::Sha512
    )
    .then_some(digest)
}

/// The fields of an answer.
pub(super) fn headers(repository: &Repository, held: &Held<'_>) -> HeaderMap {
    let facts = held.facts;
    if facts.digest.is_none() && !facts.has_name_by_digest {
        return Route::parse(held.path)
            .map(|route| of_list(repository, &route, held))
            .unwrap_or_default();
    }
    let mut headers = HeaderMap::new();
    // A layer, into which nobody looks.
    if facts.check_limit.is_none() {
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
    }
    // Of a tag's digests (sha256 is always computed) the one is told that the upstream has stated, and that the bytes were compared
    // with: by it a client that asked the registry itself would ask next.
    let told = held
        .digest
        .map(|computed| held.headers.digest.as_ref().unwrap_or(computed));
    let digest = facts.digest.as_ref().or(told).map(ToString::to_string);
    insert(&mut headers, DIGEST, digest.as_deref());
    headers
}

/// The fields of an answer with a list.
fn of_list(repository: &Repository, route: &Route<'_>, held: &Held<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let link = next_query(repository, route, held).and_then(|query| {
        let list = held.path.strip_prefix(route.name)?;
        let (repository, name) = (&repository.name, route.name);
        Some(format!(
            "</v2/{repository}/{name}{list}?{query}>; rel=\"next\""
        ))
    });
    insert(&mut headers, LINK, link.as_deref());
    if matches!(route.target, Target::Referrers(_)) {
        let filters = held.headers.further.get(FILTERS.as_str());
        insert(&mut headers, FILTERS, filters.map(String::as_str));
    }
    headers
}

/// The query that a list goes on with, below larder, wherever the upstream's own link leads.
fn next_query(repository: &Repository, route: &Route<'_>, held: &Held<'_>) -> Option<String> {
    let list = List {
        repository,
        key: held.key,
        path: held.path,
        known: if matches!(route.target, Target::Referrers(_)) {
            REFERRER_PARAMETERS
        } else {
            TAG_PARAMETERS
        },
    };
    list.next_page(held.headers.further.get(LINK.as_str())?, held.query)
}

/// The query of the next page of a list.
pub(super) fn next_page(repository: &Repository, held: &Held<'_>) -> Option<String> {
    let route = Route::parse(held.path).ok()?;
    (route.target == Target::Tags).then(|| next_query(repository, &route, held))?
}

/// Whether the upstream names a next page to which clients cannot be led.
pub(super) fn ends_early(repository: &Repository, held: &Held<'_>) -> bool {
    let link = held.headers.further.get(LINK.as_str());
    if !link.is_some_and(|link| pages::goes_on(link)) {
        return false;
    }
    Route::parse(held.path).is_ok_and(|route| {
        matches!(route.target, Target::Tags | Target::Referrers(_))
            && next_query(repository, &route, held).is_none()
    })
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: Option<&str>) {
    if let Some(value) = value.and_then(field_value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digests_that_can_be_checked_are_taken() {
        let stated = |text: &str| {
            let headers = HeaderMap::from_iter([(DIGEST, HeaderValue::from_str(text).unwrap())]);
            stated_digest(&headers)
        };
        assert!(stated(&format!("sha256:{}", "ab".repeat(32))).is_some());
        assert!(stated(&format!("sha512:{}", "ab".repeat(64))).is_some());
        for text in [
            "",
            "sha256:ab",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            "blake3:00",
        ] {
            assert_eq!(stated(text), None, "{text}");
        }
        assert_eq!(stated_digest(&HeaderMap::new()), None);
    }
}
