//! Lists of tags and of referrers.

use larder_core::{FaultKind, sha256};
use larder_testkit::Resource;

use crate::images::{OCI_INDEX, OCI_MANIFEST, image, tag};
use crate::support::Bench;
use crate::{field, refusal};

const REPOSITORY: &str = "docker";

fn page(tags: &str) -> Resource {
    Resource::new(format!(r#"{{"name":"a/b","tags":[{tags}]}}"#)).content_type("application/json")
}

/// The tags of all pages from `first` on; `None`: a link leads past larder, or there is no end.
async fn walk(bench: &Bench, first: &str) -> Option<Vec<String>> {
    let (mut tags, mut path) = (Vec::new(), first.to_owned());
    for _ in 0..10 {
        let got = bench.get(REPOSITORY, &path).await.ok()?;
        bench.settled().await;
        let body: serde_json::Value = serde_json::from_slice(got.bytes()).ok()?;
        let listed = body["tags"].as_array()?.iter();
        tags.extend(listed.filter_map(|tag| tag.as_str().map(str::to_owned)));
        let Some(link) = field(&got, "link") else {
            return Some(tags);
        };
        let target = link.strip_prefix("</v2/docker/")?;
        target
            .strip_suffix(">; rel=\"next\"")?
            .clone_into(&mut path);
    }
    None
}

fn of(tags: &[&str]) -> Vec<String> {
    tags.iter().map(|tag| (*tag).to_owned()).collect()
}

#[tokio::test]
async fn oci_14_pages_of_tags_lead_through_larder() {
    let bench = Bench::new().await;
    bench.origin.put(
        "/v2/a/b/tags/list?n=2",
        page(r#""1","2""#).header("Link", r#"</v2/a/b/tags/list?last=2&n=2>; rel="next""#),
    );
    bench
        .origin
        .put("/v2/a/b/tags/list?last=2&n=2", page(r#""3""#));
    for _ in 0..2 {
        let tags = walk(&bench, "a/b/tags/list?n=2").await;
        assert_eq!(tags, Some(of(&["1", "2", "3"])));
    }
    assert_eq!(
        bench.origin.requests().len(),
        2,
        "each page is a copy of its own, its link with it"
    );
}

/// RFC 8288: a link is relative to its page. Registries behind proxies name other hosts, and a larder behind this one its own repository.
#[tokio::test]
async fn oci_14_every_tag_comes_once_however_a_registry_writes_its_links() {
    for target in [
        "?cursor=1",
        "list?cursor=1",
        "http://registry.internal/v2/a/b/tags/list?cursor=1",
        "/v2/far/a/b/tags/list?n=2&cursor=1&_page=c4n4ry",
    ] {
        let bench = Bench::new().await;
        let link = format!("<{target}>; rel=\"last next\"");
        bench.origin.put(
            "/v2/a/b/tags/list?n=2",
            page(r#""1","2""#).header("Link", &link),
        );
        let (_, query) = target.split_once('?').unwrap();
        bench
            .origin
            .put(&format!("/v2/a/b/tags/list?{query}"), page(r#""3""#));
        let tags = walk(&bench, "a/b/tags/list?n=2").await;
        assert_eq!(tags, Some(of(&["1", "2", "3"])), "{target}");
        assert_eq!(bench.origin.requests().len(), 2, "{target}");
    }
}

#[tokio::test]
async fn oci_14_a_list_that_leads_back_to_its_page_ends() {
    let bench = Bench::new().await;
    let link = "</v2/a/b/tags/list?n=2>; rel=\"next\"";
    for at in ["/v2/a/b/tags/list?n=2", "/v2/a/b/tags/list"] {
        bench
            .origin
            .put(at, page(r#""1","2""#).header("Link", link));
    }
    for path in ["a/b/tags/list?n=2", "a/b/tags/list"] {
        assert_eq!(walk(&bench, path).await, Some(of(&["1", "2"])), "{path}");
    }
    assert_eq!(bench.origin.requests().len(), 2);
}

#[tokio::test]
async fn oci_15_where_referrers_are_not_known_their_absence_is_passed_on() {
    let bench = Bench::new().await;
    let subject = sha256(b"subject");
    let referrers = format!("app/referrers/{subject}");
    assert_eq!(
        refusal(bench.get(REPOSITORY, &referrers).await),
        (FaultKind::Upstream(404), "manifest_unknown")
    );
    // Clients then ask for a tag made of the digest.
    let fallback = format!("app/manifests/sha256-{}", subject.to_hex());
    let manifest = image(OCI_MANIFEST, "signature");
    tag(&bench.origin, &fallback, &manifest);
    assert_eq!(
        bench.get(REPOSITORY, &fallback).await.unwrap().text(),
        manifest.body
    );
}

#[tokio::test]
async fn oci_15_where_they_are_known_the_filter_goes_there_and_back() {
    let bench = Bench::new().await;
    let path = format!("app/referrers/{}", sha256(b"subject"));
    let list = Resource::new(r#"{"schemaVersion":2,"manifests":[]}"#).content_type(OCI_INDEX);
    bench.origin.put(
        &format!("/v2/{path}?artifactType=x%2Fy"),
        list.header("OCI-Filters-Applied", "artifactType"),
    );
    for _ in 0..2 {
        let got = bench
            .get(REPOSITORY, &format!("{path}?artifactType=x%2Fy"))
            .await
            .unwrap();
        assert_eq!(
            field(&got, "oci-filters-applied").as_deref(),
            Some("artifactType")
        );
        bench.settled().await;
    }
    assert_eq!(bench.origin.requests().len(), 1);
}
