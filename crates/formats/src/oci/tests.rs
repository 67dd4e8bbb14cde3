//! What requests ask for, what is said of their answers.

use http::Method;
use larder_core::{ArtifactPath, ErrorCode, PackageType, PathRules, StoredHeaders, sha256};

use super::*;
use crate::testing::remote;
use crate::{Read, Refusal};

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn key() -> crate::LinkKey {
    crate::LinkKey::from_bytes([7; 32])
}

fn registry() -> Repository {
    remote("images", PackageType::Docker, "https://registry.example/")
}

fn hub() -> Repository {
    let mut repository = remote("dockerhub", PackageType::Docker, "https://hub.example/");
    repository.upstream_mut().unwrap().default_namespace = Some("library".to_owned());
    repository
}

fn operation(
    repository: &Repository,
    method: &Method,
    path: &str,
    query: Option<&str>,
    accept: &[&str],
) -> Operation {
    let path = ArtifactPath::parse(path, PathRules::default()).unwrap();
    let mut headers = HeaderMap::new();
    for line in accept {
        headers.append("accept", line.parse().unwrap());
    }
    Oci.operation(&RequestParts {
        repository,
        method,
        path: &path,
        query,
        headers: &headers,
        key: &key(),
    })
}

fn read(repository: &Repository, path: &str, query: Option<&str>) -> Read {
    match operation(repository, &Method::GET, path, query, &[]) {
        Operation::Read(read) => {
            assert_eq!(
                read.facts,
                Oci.facts(repository, &read.source.key_path),
                "{path}"
            );
            read
        }
        other => panic!("not a read: {other:?}"),
    }
}

/// The path at which a registry at `base` is asked for a source.
fn asked_at(base: &str, source: &SourceSpec) -> String {
    let base = base.parse().unwrap();
    let url = source.base.below(&base).join(&source.path).unwrap();
    url.path().to_owned()
}

fn refusal(path: &str) -> Refusal {
    match operation(&registry(), &Method::GET, path, None, &[]) {
        Operation::Refuse(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn oci_11_short_names_are_in_the_library_on_the_hub_only() {
    for (repository, path, upstream) in [
        (
            hub(),
            "nginx/manifests/1.27",
            "library/nginx/manifests/1.27",
        ),
        (
            hub(),
            "library/nginx/manifests/1.27",
            "library/nginx/manifests/1.27",
        ),
        (hub(), "team/app/manifests/1", "team/app/manifests/1"),
        (hub(), "nginx/tags/list", "library/nginx/tags/list"),
        (registry(), "nginx/manifests/1.27", "nginx/manifests/1.27"),
    ] {
        let source = read(&repository, path, None).source;
        assert_eq!(source.path, upstream, "{path}");
        assert_eq!(
            format!("{}", source.key_path),
            upstream,
            "one key for both spellings of {path}"
        );
    }
}

#[test]
fn oci_12_ns_reaches_neither_the_upstream_nor_the_key() {
    for path in [
        "a/manifests/1".to_owned(),
        format!("a/blobs/{DIGEST}"),
        "a/tags/list".to_owned(),
    ] {
        assert_eq!(
            read(&registry(), &path, Some("ns=docker.example")).source,
            read(&registry(), &path, None).source,
            "{path}"
        );
    }
    let paged = read(
        &registry(),
        "a/tags/list",
        Some("ns=x&n=5&other=1&last=b%2Fc"),
    )
    .source;
    assert_eq!(paged.query.as_deref(), Some("n=5&last=b%2Fc"));
    let filtered = read(
        &registry(),
        &format!("a/referrers/{DIGEST}"),
        Some("artifactType=x%2Fy&n=1"),
    )
    .source;
    assert_eq!(filtered.query.as_deref(), Some("artifactType=x%2Fy"));
}

#[test]
fn a_base_url_may_hold_the_api_s_root() {
    let source = read(&registry(), "a/manifests/1", None).source;
    for (base, at) in [
        ("https://r.example/", "/v2/a/manifests/1"),
        (
            "https://r.example/artifactory/docker/",
            "/artifactory/docker/v2/a/manifests/1",
        ),
        ("https://r.example/v2/", "/v2/a/manifests/1"),
        ("https://r.example/v2/mirror/", "/v2/mirror/a/manifests/1"),
        ("https://r.example/hub/v2/", "/hub/v2/a/manifests/1"),
    ] {
        assert_eq!(asked_at(base, &source), at, "{base}");
    }
}

#[test]
fn tags_change_and_digests_do_not() {
    let repository = registry();
    for path in [
        "a/manifests/latest",
        "a/tags/list",
        &format!("a/referrers/{DIGEST}"),
    ] {
        assert_eq!(
            Oci.facts(&repository, path).built_in,
            BuiltIn::Mutable,
            "{path}"
        );
        assert_eq!(Oci.facts(&repository, path).digest, None, "{path}");
    }
    for path in [format!("a/manifests/{DIGEST}"), format!("a/blobs/{DIGEST}")] {
        let facts = Oci.facts(&repository, &path);
        assert_eq!(facts.built_in, BuiltIn::None, "{path}");
        assert_eq!(facts.digest.unwrap().to_string(), DIGEST);
        assert!(facts.vary.is_empty() && !facts.has_name_by_digest);
    }
    let tag = Oci.facts(&repository, "a/manifests/latest");
    assert!(tag.vary == ["accept"] && tag.has_name_by_digest);
}

#[test]
fn a_tag_is_kept_under_its_digest_too() {
    let repository = hub();
    let tag = read(&repository, "nginx/manifests/1.27", None).source;
    let named = Oci.by_digest(&tag, &sha256(b"")).unwrap();
    assert_eq!(
        named,
        read(&repository, &format!("nginx/manifests/{DIGEST}"), None).source
    );
    assert_eq!(Oci.by_digest(&named, &sha256(b"")), None);
}

#[test]
fn refusals_say_what_is_wrong() {
    for (path, status, code) in [
        ("a/blobs/sha256:short", 400, ErrorCode::DigestInvalid),
        ("UPPER/manifests/1", 400, ErrorCode::NameInvalid),
        ("a/manifests/a+b", 400, ErrorCode::ManifestInvalid),
        ("a/blobs/uploads/", 404, ErrorCode::NameUnknown),
        ("a", 404, ErrorCode::NameUnknown),
    ] {
        let refusal = refusal(path);
        assert_eq!((refusal.status, refusal.code), (status, code), "{path}");
    }
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        let Operation::Refuse(refusal) =
            operation(&registry(), &method, "a/blobs/uploads/", None, &[])
        else {
            panic!("{method} is not refused")
        };
        assert_eq!((refusal.status, refusal.code), (405, ErrorCode::ReadOnly));
    }
}

#[test]
fn a_tag_s_digest_is_the_one_that_its_registry_stated() {
    let stated: Digest = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
    let told = |path: &str, stated: Option<&Digest>, digest: Option<&Digest>| {
        let stored = StoredHeaders {
            digest: stated.cloned(),
            ..StoredHeaders::default()
        };
        let headers = Oci.answer_headers(
            &registry(),
            &Held {
                path,
                query: None,
                facts: &Oci.facts(&registry(), path),
                digest,
                headers: &stored,
                key: &key(),
            },
        );
        headers
            .get("docker-content-digest")
            .map(|value| value.to_str().unwrap().to_owned())
    };
    let computed = sha256(b"");
    assert_eq!(
        told("a/manifests/latest", Some(&stated), Some(&computed)),
        Some(stated.to_string())
    );
    assert_eq!(
        told("a/manifests/latest", None, Some(&computed)).as_deref(),
        Some(DIGEST)
    );
    assert_eq!(
        told("a/manifests/latest", Some(&stated), None),
        None,
        "not before the bytes were compared with it"
    );
    assert_eq!(
        told(
            &format!("a/manifests/{DIGEST}"),
            Some(&stated),
            Some(&computed)
        )
        .as_deref(),
        Some(DIGEST),
        "the path decides"
    );
}

fn headers(path: &str, digest: Option<&Digest>, further: &[(&str, &str)]) -> HeaderMap {
    let further = further
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let stored = StoredHeaders {
        further,
        ..StoredHeaders::default()
    };
    Oci.answer_headers(
        &registry(),
        &Held {
            path,
            query: None,
            facts: &Oci.facts(&registry(), path),
            digest,
            headers: &stored,
            key: &key(),
        },
    )
}

#[test]
fn every_manifest_and_blob_states_its_digest() {
    let text = |headers: &HeaderMap, name: &str| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    let of_tag = headers("a/manifests/latest", Some(&sha256(b"")), &[]);
    assert_eq!(
        text(&of_tag, "docker-content-digest").as_deref(),
        Some(DIGEST)
    );
    let blob = headers(&format!("a/blobs/{DIGEST}"), None, &[]);
    assert_eq!(
        text(&blob, "docker-content-digest").as_deref(),
        Some(DIGEST)
    );
    assert_eq!(
        text(&blob, "content-type").as_deref(),
        Some("application/octet-stream")
    );
    let sha512 = format!("sha512:{}", "0".repeat(128));
    let by_sha512 = headers(&format!("a/manifests/{sha512}"), Some(&sha256(b"")), &[]);
    assert_eq!(text(&by_sha512, "docker-content-digest"), Some(sha512));
    let tags = headers(
        "a/b/tags/list",
        Some(&sha256(b"")),
        &[("link", "</v2/a/b/tags/list?n=2&last=x>; rel=\"next\"")],
    );
    assert_eq!(
        text(&tags, "link").as_deref(),
        Some("</v2/images/a/b/tags/list?n=2&last=x>; rel=\"next\"")
    );
    assert_eq!(text(&tags, "docker-content-digest"), None);
    let referrers = headers(
        &format!("a/referrers/{DIGEST}"),
        None,
        &[("oci-filters-applied", "artifactType")],
    );
    assert_eq!(
        text(&referrers, "oci-filters-applied").as_deref(),
        Some("artifactType")
    );
}
