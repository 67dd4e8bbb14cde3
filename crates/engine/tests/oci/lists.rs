//! Lists of tags and of referrers.

use larder_core::{FaultKind, sha256};
use larder_testkit::Resource;

use crate::images::{OCI_INDEX, OCI_MANIFEST, image, tag};
use crate::support::Bench;
use crate::{field, refusal};

const REPOSITORY: &str = "docker";

#[tokio::test]
async fn oci_14_pages_of_tags_lead_through_larder() {
    let bench = Bench::new().await;
    let page = |tags: &str| {
        Resource::new(format!(r#"{{"name":"a/b","tags":[{tags}]}}"#))
            .content_type("application/json")
    };
    bench.origin.put(
        "/v2/a/b/tags/list?n=2",
        page(r#""1","2""#).header("Link", r#"</v2/a/b/tags/list?last=2&n=2>; rel="next""#),
    );
    bench
        .origin
        .put("/v2/a/b/tags/list?last=2&n=2", page(r#""3""#));
    for _ in 0..2 {
        let mut tags = Vec::new();
        let mut next = Some("a/b/tags/list?n=2".to_owned());
        while let Some(path) = next {
            let got = bench.get(REPOSITORY, &path).await.unwrap();
            let body: serde_json::Value = serde_json::from_slice(got.bytes()).unwrap();
            tags.extend(
                body["tags"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|tag| tag.as_str().unwrap().to_owned()),
            );
            next = field(&got, "link").map(|link| {
                let target = link
                    .strip_prefix("</v2/docker/")
                    .and_then(|link| link.strip_suffix(">; rel=\"next\""));
                target
                    .unwrap_or_else(|| panic!("{link} leads past larder"))
                    .to_owned()
            });
            bench.settled().await;
        }
        assert_eq!(tags, ["1", "2", "3"]);
    }
    assert_eq!(
        bench.origin.requests().len(),
        2,
        "each page is a copy of its own, its link with it"
    );
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
