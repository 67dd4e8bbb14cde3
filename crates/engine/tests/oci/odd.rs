//! What registries answer that keep to the letter of nothing: statuses, links, lengths and digests as they are in the field. What is right
//! is what a client gets that asks such a registry itself, and what it does next.

use http::Method;
use larder_core::{Credentials, FaultKind, Secret, sha256};
use larder_testkit::{Behaviour, Origin, Payload, Resource};
use url::Url;

use crate::images::{Manifest, OCI_INDEX, OCI_MANIFEST, SCHEMA1, blob, image, put, tag};
use crate::support::{Bench, FORMATS, base64, publish, upstream};
use crate::{field, refusal};

const REPOSITORY: &str = "docker";
const TAG: &str = "app/manifests/1.0";
const AT: &str = "/v2/app/manifests/1.0";

/// oras, cosign and notation ask for the fallback tag after a 404 and after nothing else (distribution specification, "Unavailable
/// Referrers API").
#[tokio::test]
async fn a_referrers_api_that_is_not_there_is_a_404_in_whatever_words() {
    let bench = Bench::new().await;
    let subject = sha256(b"subject");
    let path = format!("app/referrers/{subject}");
    for status in [400, 404, 405, 406, 501] {
        bench.origin.clear_all();
        bench
            .origin
            .behave(&format!("/v2/{path}"), Behaviour::Status(status));
        for method in [Method::GET, Method::HEAD] {
            let refused = refusal(bench.ask(method.clone(), REPOSITORY, &path, &[]).await);
            assert_eq!(
                refused,
                (FaultKind::Upstream(404), "manifest_unknown"),
                "{method} {status}"
            );
            bench.forget(REPOSITORY).await;
        }
    }
    // Other refusals speak of something else, and the same words of other paths.
    for (path, status) in [
        (path.as_str(), 403),
        (&path, 500),
        ("app/manifests/1.0", 501),
        ("app/tags/list", 501),
    ] {
        bench.origin.clear_all();
        bench
            .origin
            .behave(&format!("/v2/{path}"), Behaviour::Status(status));
        assert_eq!(
            refusal(bench.get(REPOSITORY, path).await).0,
            FaultKind::Upstream(status),
            "{path} {status}"
        );
    }
}

/// A list in three pages, of which the registry alone understands the links. Each page is a copy of its own.
#[tokio::test]
async fn pages_lead_on_by_whatever_the_registry_s_links_hold() {
    let referrers = format!("a/b/referrers/{}", sha256(b"subject"));
    for (path, first, second, third) in [
        (
            "a/b/tags/list",
            "?n=2",
            "?n=2&cursor=x%2Fy%3D",
            "?after=c4n4ry&n=2&flag",
        ),
        (
            referrers.as_str(),
            "?artifactType=x%2Fy",
            "?artifactType=x%2Fy&nextToken=c3%3D",
            "?last=sha256:00&n=1",
        ),
    ] {
        let mut bench = Bench::new().await;
        let link = |query: &str| {
            format!(
                "<{}{query}>; rel=\"next\"",
                bench.origin.url(&format!("/v2/{path}"))
            )
        };
        let page = |number: u32| {
            let body =
                format!(r#"{{"schemaVersion":2,"name":"a/b","tags":["{number}"],"manifests":[]}}"#);
            Resource::new(body).content_type(if path == referrers {
                OCI_INDEX
            } else {
                "application/json"
            })
        };
        bench.origin.put(
            &format!("/v2/{path}{first}"),
            page(1)
                .header("Link", "</x>; rel=\"self\"")
                .header("Link", &link(second)),
        );
        bench.origin.put(
            &format!("/v2/{path}{second}"),
            page(2).header("Link", &link(third)),
        );
        bench.origin.put(&format!("/v2/{path}{third}"), page(3));
        for restart in [false, true] {
            let mut next = Some(format!("{path}{first}"));
            let mut numbers = Vec::new();
            while let Some(target) = next {
                let got = bench.client(REPOSITORY, &target).run().await.unwrap();
                let body: serde_json::Value = serde_json::from_slice(got.bytes()).unwrap();
                numbers.push(body["tags"][0].as_str().unwrap().to_owned());
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
            assert_eq!(numbers, ["1", "2", "3"], "{path}");
            assert_eq!(
                bench.origin.requests().len(),
                3,
                "{path}: each page is a copy of its own"
            );
            if !restart {
                bench.restart().await;
            }
        }
        // What no link has named reaches neither the registry nor the keys.
        for made_up in ["cursor=1", "cursor=2&_page=AAAAAAAAAAAAAAAAAAAAAA"] {
            bench
                .client(REPOSITORY, &format!("{path}{first}&{made_up}"))
                .run()
                .await
                .unwrap();
        }
        assert_eq!(bench.origin.requests().len(), 3);
    }
}

/// Section 1 of the contract: no login, and the registry tells nobody. (What is private and what is mistyped look the same.)
#[tokio::test]
async fn an_image_that_nobody_gets_without_a_login_is_absent_or_private() {
    let bench = Bench::new().await;
    let digest = sha256(b"x");
    for path in [
        TAG.to_owned(),
        format!("app/manifests/{digest}"),
        format!("app/blobs/{digest}"),
        "app/tags/list".to_owned(),
    ] {
        bench
            .origin
            .behave(&format!("/v2/{path}"), Behaviour::Status(401));
        for method in [Method::GET, Method::HEAD] {
            let fault = bench
                .ask(method, REPOSITORY, &path, &[])
                .await
                .expect_err("it is refused");
            assert_eq!(
                (fault.kind, fault.code.as_str()),
                (FaultKind::NotFound, "name_unknown"),
                "{path}"
            );
            let says = |words: &str| fault.message.contains(words);
            assert!(
                says("absent or private")
                    && says("username and password")
                    && says("repository docker"),
                "{}",
                fault.message
            );
        }
    }
    // With a login it is the operator's mistake.
    let login = Credentials {
        username: "u".to_owned(),
        password: Secret::new("p".to_owned()),
    };
    let bench =
        Bench::with(|repository| upstream(repository).credentials = Some(login.clone())).await;
    bench.origin.behave(AT, Behaviour::Status(401));
    assert_eq!(
        refusal(bench.get(REPOSITORY, TAG).await),
        (FaultKind::BadGateway, "upstream_unauthorized")
    );
}

/// Section 3 of the contract, "Stale": after a 401 that was passed on, the copy stays for a later network failure.
#[tokio::test]
async fn a_copy_of_an_image_that_became_private_serves_when_the_registry_is_gone() {
    let mut bench = Bench::new().await;
    let manifest = image(OCI_MANIFEST, "one");
    tag(&bench.origin, TAG, &manifest);
    bench.get(REPOSITORY, TAG).await.unwrap();
    bench.settled().await;
    bench.wait(3601);
    bench.origin.behave(AT, Behaviour::Status(401));
    assert_eq!(
        refusal(bench.get(REPOSITORY, TAG).await),
        (FaultKind::NotFound, "name_unknown")
    );
    bench.settled().await;
    bench.origin.stop().await;
    assert_eq!(
        bench.get(REPOSITORY, TAG).await.unwrap().text(),
        manifest.body
    );
}

/// HEAD states what GET has, or nothing: larder decodes what was not asked for coded, so that GET is longer than the upstream's HEAD says.
#[tokio::test]
async fn a_head_of_a_coded_answer_states_no_length_that_get_will_not_have() {
    let bench = Bench::new().await;
    let manifest = image(OCI_MANIFEST, "one");
    tag(&bench.origin, TAG, &manifest);
    let body = Payload::from(r#"{"config":"a JSON blob"}"#);
    let config = blob(&bench.origin, "app", &body);
    for path in [
        TAG.to_owned(),
        format!("app/manifests/{}", manifest.digest()),
        config,
    ] {
        bench.origin.behave(&format!("/v2/{path}"), Behaviour::Gzip);
        let head = bench
            .ask(Method::HEAD, REPOSITORY, &path, &[])
            .await
            .unwrap()
            .answer
            .representation;
        let got = bench.get(REPOSITORY, &path).await.unwrap();
        assert!(
            head.length
                .is_none_or(|length| length == got.bytes().len() as u64),
            "{path}: {:?}",
            head.length
        );
        assert_eq!(
            (
                head.content_encoding,
                got.answer.representation.content_encoding
            ),
            (None, None),
            "{path}"
        );
        bench.settled().await;
    }
    // Files of every other type.
    for format in FORMATS {
        let published = publish(
            &bench.origin,
            format,
            &"some text, some text, some text".into(),
            "\"one\"",
        );
        bench.origin.behave(&published.at, Behaviour::Gzip);
        let head = bench
            .ask(Method::HEAD, format, &published.path, &[])
            .await
            .unwrap()
            .answer
            .representation;
        let got = bench.get(format, &published.path).await.unwrap();
        assert!(
            head.length
                .is_none_or(|length| length == got.bytes().len() as u64),
            "{format:?}: {:?}",
            head.length
        );
        assert_eq!(
            head.content_encoding, got.answer.representation.content_encoding,
            "{format:?}"
        );
    }
}

/// RFC 9110 section 8.6: a HEAD's `Content-Length` is that of GET. 0 is what servers say that count what they send.
#[tokio::test]
async fn a_head_that_says_0_says_nothing_of_the_length() {
    let zero = || Behaviour::Header("Content-Length".to_owned(), "0".to_owned());
    let bench = Bench::new().await;
    let manifest = image(OCI_MANIFEST, "one");
    tag(&bench.origin, TAG, &manifest);
    let by_digest = put(&bench.origin, "app", &manifest);
    for (path, length) in [
        (by_digest.as_str(), None),
        (TAG, Some(manifest.body.len() as u64)),
    ] {
        bench.origin.behave_once(&format!("/v2/{path}"), zero());
        let head = bench
            .ask(Method::HEAD, REPOSITORY, path, &[])
            .await
            .unwrap();
        assert_eq!(head.answer.representation.length, length, "{path}");
        assert_eq!(
            field(&head, "docker-content-digest"),
            Some(manifest.digest())
        );
    }
    bench.origin.put("/file.bin", Resource::new("not empty"));
    bench.origin.behave_once("/file.bin", zero());
    assert_eq!(
        bench
            .ask(Method::HEAD, "generic", "file.bin", &[])
            .await
            .unwrap()
            .answer
            .representation
            .length,
        None
    );
}

/// A manifest of the first schema as registries sign it; its digest is the payload's (containers/image `manifest.Digest`).
fn signed(note: &str) -> (Manifest, String) {
    let start =
        format!("{{\n   \"schemaVersion\": 1,\n   \"name\": \"{note}\",\n   \"fsLayers\": []");
    // "Cn0" is "\n}" in base64url.
    let protected =
        base64(format!(r#"{{"formatLength":{},"formatTail":"Cn0"}}"#, start.len()).as_bytes());
    let protected = protected
        .trim_end_matches('=')
        .replace('+', "-")
        .replace('/', "_");
    let signatures = format!(r#"[{{"header":{{}},"signature":"c2ln","protected":"{protected}"}}]"#);
    let body = format!("{start},\n   \"signatures\": {signatures}\n}}");
    (
        Manifest {
            body,
            media_type: SCHEMA1,
        },
        sha256(format!("{start}\n}}").as_bytes()).to_string(),
    )
}

#[tokio::test]
async fn hazard_w6_a_signed_manifest_has_the_digest_of_what_was_signed() {
    let bench = Bench::new().await;
    let ((manifest, digest), (other, _)) = (signed("one"), signed("two"));
    let path = format!("app/manifests/{digest}");
    for at in [AT.to_owned(), format!("/v2/{path}")] {
        let resource = Resource::new(manifest.body.clone()).content_type(SCHEMA1);
        bench
            .origin
            .put(&at, resource.header("Docker-Content-Digest", &digest));
    }
    for path in [TAG, &path] {
        for _ in 0..2 {
            let got = bench
                .ask(Method::GET, REPOSITORY, path, &[("accept", SCHEMA1)])
                .await
                .unwrap();
            assert_eq!(
                (got.text(), field(&got, "docker-content-digest")),
                (manifest.body.clone(), Some(digest.clone())),
                "{path}"
            );
            bench.settled().await;
        }
    }
    assert_eq!(
        bench.origin.requests().len(),
        1,
        "the tag's manifest is there by its digest"
    );
    // Another payload under that digest is refused as ever.
    bench.forget(REPOSITORY).await;
    bench
        .origin
        .behave(&format!("/v2/{path}"), Behaviour::Body(other.body.into()));
    assert_eq!(
        refusal(bench.get(REPOSITORY, &path).await).1,
        "digest_mismatch"
    );
}

/// Whether an address holds the API's root is said of each of several, and not of the first for all.
#[tokio::test]
async fn each_mirror_is_asked_below_its_own_root() {
    let manifest = image(OCI_MANIFEST, "app");
    for (roots, at) in [
        (["v2/proj/", ""], "/v2/app/manifests/1.0"),
        (["v2/", ""], "/v2/app/manifests/1.0"),
        (["", "v2/proj/"], "/v2/proj/app/manifests/1.0"),
        (["", "hub/v2/"], "/hub/v2/app/manifests/1.0"),
    ] {
        let second = Origin::start().await;
        let root: Url = second.url(roots[1]).parse().unwrap();
        let bench = Bench::with(|repository| {
            let bases = &mut upstream(repository).base_urls;
            bases[0] = bases[0].join(roots[0]).unwrap();
            bases.push(root.clone());
        })
        .await;
        bench.origin.behave("*", Behaviour::ResetHead);
        second.put(at, manifest.resource());
        for path in [
            "app/manifests/1.0".to_owned(),
            format!("app/manifests/{}", manifest.digest()),
        ] {
            second.put(&at.replace("app/manifests/1.0", &path), manifest.resource());
            let got = bench.get(REPOSITORY, &path).await.unwrap();
            assert_eq!(got.text(), manifest.body, "{roots:?}");
            bench.settled().await;
        }
    }
}
