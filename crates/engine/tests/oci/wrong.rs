//! What is not what it says: nothing of it is kept (hazards W5 and W6).

use larder_core::{DigestAlgorithm, FaultKind, Hasher, Verify};
use larder_testkit::{Behaviour, Payload, Resource};

use crate::images::{Manifest, OCI_INDEX, OCI_MANIFEST, blob, image, put, tag};
use crate::refusal;
use crate::support::Bench;

const REPOSITORY: &str = "docker";
const TAG: &str = "app/manifests/1.0";
const AT: &str = "/v2/app/manifests/1.0";

/// No bytes at all are stored.
async fn assert_empty(bench: &Bench) {
    bench.settled().await;
    assert!(bench.blobs.list(None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn oci_06_a_blob_that_is_not_its_digest_is_not_kept_and_is_asked_for_again() {
    for length in [5_000, 3 << 20] {
        let bench = Bench::new().await;
        let body = Payload::generated(length, 1);
        let path = blob(&bench.origin, "app", &body);
        let at = format!("/v2/{path}");
        bench.origin.behave_once(
            &at,
            Behaviour::Body(Payload::generated(length, 2).slice(0, length)),
        );
        match bench.get(REPOSITORY, &path).await {
            Err(fault) => assert_eq!(
                (fault.kind, fault.code.as_str()),
                (FaultKind::BadGateway, "digest_mismatch")
            ),
            Ok(got) => assert!(
                length > 1 << 20 && got.body.is_err(),
                "a long transfer is aborted, never ended well"
            ),
        }
        assert_empty(&bench).await;
        assert_eq!(
            bench.get(REPOSITORY, &path).await.unwrap().bytes(),
            &body.slice(0, length)
        );
        assert_eq!(bench.origin.count("GET", &at), 2);
    }
}

/// A manifest that names one layer, and says that it has so many bytes.
fn naming(layer: &str, size: u64) -> Manifest {
    let digest = layer.rsplit_once('/').unwrap().1;
    let layer = format!(
        r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{digest}","size":{size}}}"#
    );
    Manifest {
        body: format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{{}},"layers":[{layer}]}}"#
        ),
        media_type: OCI_MANIFEST,
    }
}

/// More and fewer bytes than the manifest says: they have another digest, too.
#[tokio::test]
async fn oci_06_a_layer_of_another_length_than_its_manifest_states_is_refused() {
    for (length, sent) in [
        (5_000, 4_999),
        (5_000, 5_001),
        (5_000, 0),
        (3 << 20, (3 << 20) + 1),
        (3 << 20, 2 << 20),
    ] {
        let bench = Bench::new().await;
        let body = Payload::generated(length, 1);
        let path = blob(&bench.origin, "app", &body);
        tag(&bench.origin, TAG, &naming(&path, length));
        bench.get(REPOSITORY, TAG).await.unwrap();
        // It begins as it should.
        bench.origin.behave(
            &format!("/v2/{path}"),
            Behaviour::Body(Payload::generated(length + 1, 1).slice(0, sent)),
        );
        match bench.get(REPOSITORY, &path).await {
            Err(fault) => {
                assert_eq!(
                    (fault.kind, fault.code.as_str()),
                    (FaultKind::BadGateway, "digest_mismatch")
                );
                assert!(
                    fault
                        .message
                        .contains(&format!("sent {sent} bytes whose sha256")),
                    "{}",
                    fault.message
                );
            }
            Ok(got) => assert!(
                length > 1 << 20 && got.body.is_err(),
                "a long transfer is aborted, never ended well"
            ),
        }
        bench.settled().await;
        assert_eq!(bench.record(REPOSITORY, &path, "").await, None);
        let stored = bench.blobs.list(None, 10).await.unwrap();
        assert_eq!(stored.len(), 1, "the manifest alone: {stored:?}");
    }
}

/// The digest proves the bytes, whatever a manifest says of their number: other manifests, and clients that do not count, have them.
#[tokio::test]
async fn oci_06_a_manifest_that_states_a_wrong_size_withholds_its_layers_from_nobody() {
    for length in [5_000, 3 << 20] {
        let bench = Bench::new().await;
        let body = Payload::generated(length, 1);
        let path = blob(&bench.origin, "app", &body);
        for size in [length - 1, length + 1] {
            let lying = naming(&path, size);
            tag(&bench.origin, TAG, &lying);
            assert_eq!(
                bench
                    .get(REPOSITORY, &put(&bench.origin, "app", &lying))
                    .await
                    .unwrap()
                    .text(),
                lying.body
            );
        }
        assert_eq!(
            bench.get(REPOSITORY, &path).await.unwrap().bytes(),
            &body.slice(0, length)
        );
        bench.settled().await;
        assert!(bench.get(REPOSITORY, &path).await.unwrap().is_hit());
    }
}

#[tokio::test]
async fn oci_06_sha512_digests_are_enforced_like_any_other() {
    let bench = Bench::new().await;
    let body = Payload::generated(3 << 20, 1);
    let mut hasher = Hasher::new(&[DigestAlgorithm::Sha512]);
    hasher.update(&body.slice(0, body.length()));
    let digest = hasher.finish().pop().unwrap();
    let path = format!("app/blobs/{digest}");
    let wrong = format!("app/blobs/sha512:{}", "0".repeat(128));
    for path in [&path, &wrong] {
        bench
            .origin
            .put(&format!("/v2/{path}"), Resource::new(body.clone()));
    }
    assert!(bench.get(REPOSITORY, &wrong).await.unwrap().body.is_err());
    assert_empty(&bench).await;
    assert_eq!(
        bench.get(REPOSITORY, &path).await.unwrap().bytes().len(),
        3 << 20
    );
}

#[tokio::test]
async fn hazard_w6_a_lying_digest_field_is_found_out() {
    let bench = Bench::new().await;
    let (one, two) = (image(OCI_MANIFEST, "one"), image(OCI_MANIFEST, "two"));
    bench.origin.put(
        AT,
        Resource::new(one.body.clone())
            .content_type(OCI_MANIFEST)
            .header("Docker-Content-Digest", &two.digest()),
    );
    let fault = bench.get(REPOSITORY, TAG).await.unwrap_err();
    assert_eq!(
        (fault.kind, fault.code.as_str()),
        (FaultKind::BadGateway, "digest_mismatch")
    );
    assert_empty(&bench).await;
    // By digest it is the path that counts, not the field.
    let path = put(&bench.origin, "app", &one);
    bench.origin.behave(
        &format!("/v2/{path}"),
        Behaviour::Header("Docker-Content-Digest".to_owned(), two.digest()),
    );
    let got = bench.get(REPOSITORY, &path).await.unwrap();
    assert_eq!(
        crate::field(&got, "docker-content-digest"),
        Some(one.digest())
    );
    let path = format!("app/manifests/{}", two.digest());
    bench.origin.put(&format!("/v2/{path}"), one.resource());
    assert_eq!(
        refusal(bench.get(REPOSITORY, &path).await).1,
        "digest_mismatch"
    );
}

#[tokio::test]
async fn hazard_w6_manifests_that_could_be_two_things_are_refused() {
    let both = r#"{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}"#.to_owned();
    let other_type = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[]}}"#);
    for (body, reason) in [
        (both, "both `layers` and `manifests`"),
        (other_type, "says that it is"),
        ("<html>".to_owned(), "is not one"),
    ] {
        let bench = Bench::new().await;
        let manifest = Manifest {
            body,
            media_type: OCI_MANIFEST,
        };
        tag(&bench.origin, TAG, &manifest);
        for path in [
            TAG.to_owned(),
            format!("app/manifests/{}", manifest.digest()),
        ] {
            let fault = bench.get(REPOSITORY, &path).await.unwrap_err();
            assert_eq!(
                (fault.kind, fault.code.as_str()),
                (FaultKind::BadGateway, "malformed_document"),
                "{path}"
            );
            assert!(fault.message.contains(reason), "{}", fault.message);
        }
        assert_empty(&bench).await;
    }
}

#[tokio::test]
async fn hazard_w6_a_good_manifest_outlives_a_bad_one_in_its_place() {
    let bench = Bench::new().await;
    let good = image(OCI_MANIFEST, "good");
    tag(&bench.origin, TAG, &good);
    bench.get(REPOSITORY, TAG).await.unwrap();
    bench.settled().await;
    bench.wait(3601);
    bench.origin.behave(
        AT,
        Behaviour::Body("{\"layers\":[],\"manifests\":[]}".into()),
    );
    bench.origin.behave(
        AT,
        Behaviour::WithoutHeader("Docker-Content-Digest".to_owned()),
    );
    assert_eq!(bench.get(REPOSITORY, TAG).await.unwrap().text(), good.body);
}

#[tokio::test]
async fn manifests_have_a_largest_size() {
    for declared in [true, false] {
        let bench = Bench::new().await;
        let huge = Payload::Repeat {
            byte: b' ',
            length: (8 << 20) + 1,
        };
        bench
            .origin
            .put(AT, Resource::new(huge).content_type(OCI_MANIFEST));
        if !declared {
            bench.origin.behave(AT, Behaviour::Chunked);
        }
        let fault = bench.get(REPOSITORY, TAG).await.map(drop).unwrap_err();
        assert_eq!(fault.code.as_str(), "document_too_large");
        assert!(
            !fault.message.contains("limits.document_size"),
            "no setting helps: {}",
            fault.message
        );
        assert_empty(&bench).await;
    }
}

/// `verify: warn` keeps nothing that its own name contradicts, so nobody is told that it would.
#[tokio::test]
async fn a_wrong_digest_comes_without_advice_that_cannot_help() {
    for verify in [Verify::Enforce, Verify::Warn] {
        let bench = Bench::with(|repository| repository.cache.verify = verify).await;
        let path = blob(&bench.origin, "app", &Payload::generated(5_000, 1));
        let wrong = Payload::generated(5_000, 2).slice(0, 5_000);
        bench
            .origin
            .behave(&format!("/v2/{path}"), Behaviour::Body(wrong));
        let fault = bench.get(REPOSITORY, &path).await.map(drop).unwrap_err();
        assert_eq!(fault.code.as_str(), "digest_mismatch");
        assert!(!fault.message.contains("verify"), "{}", fault.message);
    }
}
