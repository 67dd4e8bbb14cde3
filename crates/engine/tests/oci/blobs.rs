//! Blobs: ranges, redirects to other hosts, cut links, and who may read what is stored once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use larder_core::{
    AllowPrivate, Credentials, ErrorCode, PackageType, PublicUrls, Repository, RepositoryName,
    Secret, sha256,
};
use larder_testkit::{Behaviour, Origin, Payload, Resource};

use crate::images::blob;
use crate::support::{Bench, days_ago, repository, upstream};
use crate::{field, refusal};

const REPOSITORY: &str = "docker";

/// A bench whose repository has credentials, and another host that blobs are redirected to.
async fn with_cdn() -> (Bench, Origin) {
    let cdn = Origin::start().await;
    let address = cdn.address();
    let bench = Bench::with(|repository| {
        let settings = upstream(repository);
        settings.credentials = Some(Credentials {
            username: "puller".into(),
            password: Secret::new("canary".into()),
        });
        settings.allow_private = vec![AllowPrivate::Socket(address)];
    })
    .await;
    (bench, cdn)
}

#[tokio::test]
async fn oci_07_credentials_stay_with_the_registry_when_it_redirects() {
    let (bench, cdn) = with_cdn().await;
    let body = Payload::generated(3 << 20, 1);
    let path = blob(&bench.origin, "app", &body);
    cdn.put(
        "/object",
        Resource::new(body.clone()).content_type("binary/octet-stream"),
    );
    let location = cdn.url("/object?X-Amz-Signature=abc");
    bench.origin.behave(
        &format!("/v2/{path}"),
        Behaviour::Redirect {
            status: 307,
            location,
        },
    );
    let got = bench.get(REPOSITORY, &path).await.unwrap();
    assert_eq!((got.answer.status, got.bytes().len()), (200, 3 << 20));
    assert_eq!(got.answer.location, None);
    assert_eq!(
        got.answer.representation.content_type.as_deref(),
        Some("application/octet-stream")
    );
    let asked = cdn.requests();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].header("authorization"), None);
    assert!(
        bench.origin.requests()[0].header("authorization").is_some(),
        "the registry itself is told who asks"
    );
}

#[tokio::test]
async fn oci_08_a_link_that_ends_midway_is_asked_for_anew_at_the_registry() {
    let (bench, cdn) = with_cdn().await;
    let body = Payload::generated(3 << 20, 2);
    let path = blob(&bench.origin, "app", &body);
    let at = format!("/v2/{path}");
    for link in ["/first", "/second"] {
        cdn.put(link, Resource::new(body.clone()));
    }
    let redirect = |link: &str| Behaviour::Redirect {
        status: 307,
        location: cdn.url(link),
    };
    bench.origin.behave_once(&at, redirect("/first"));
    cdn.behave_once("/first", Behaviour::Truncate { after: 1 << 20 });
    bench.origin.hold(&at);
    let getting = bench.get(REPOSITORY, &path);
    let switching = async {
        bench.origin.wait_for("GET", &at, 1).await;
        bench.origin.release(&at);
        cdn.wait_for("GET", "/first", 1).await;
        // The first link has expired; the registry gives another.
        cdn.behave("/first", Behaviour::Status(403));
        bench.origin.behave(&at, redirect("/second"));
    };
    let (got, ()) = tokio::join!(getting, switching);
    assert_eq!(
        sha256(got.unwrap().bytes()).to_string(),
        path.rsplit_once('/').unwrap().1
    );
    bench.settled().await;
    assert_eq!(bench.origin.count("GET", &at), 2);
    assert_eq!(
        (cdn.count("GET", "/first"), cdn.count("GET", "/second")),
        (1, 1)
    );
    assert!(bench.get(REPOSITORY, &path).await.unwrap().is_hit());
}

/// A registry that gives no strong tag, or each of whose servers gives another: its digest says whether the parts are of one blob.
#[tokio::test]
async fn a_cut_blob_goes_on_where_it_stopped() {
    let body = Payload::generated(3 << 20, 8);
    for tag in [None, Some("W/\"weak\"")] {
        let bench = Bench::new().await;
        let path = blob(&bench.origin, "app", &body);
        let at = format!("/v2/{path}");
        let resource = Resource::new(body.clone());
        bench.origin.put(
            &at,
            match tag {
                Some(tag) => resource.etag(tag),
                None => resource,
            },
        );
        let cut = Behaviour::Truncate { after: 800_000 };
        bench.origin.behave_times(&at, 3, cut);
        let got = bench.get(REPOSITORY, &path).await.unwrap();
        assert_eq!(got.bytes(), &body.slice(0, body.length()), "{tag:?}");
        let asked: Vec<_> = bench
            .origin
            .requests()
            .iter()
            .map(|request| {
                let field = |name| request.header(name).map(str::to_owned);
                (field("range"), field("if-range"))
            })
            .collect();
        let range = |from: u64| (Some(format!("bytes={from}-")), None::<String>);
        let expected = [
            (None, None),
            range(800_000),
            range(1_600_000),
            range(2_400_000),
        ];
        assert_eq!(asked, expected, "{tag:?}");
        bench.settled().await;
        assert!(bench.get(REPOSITORY, &path).await.unwrap().is_hit());
    }
}

#[tokio::test]
async fn a_cut_blob_goes_on_at_a_server_that_gives_it_another_tag() {
    let (body, other) = (
        Payload::generated(3 << 20, 9),
        Payload::generated(3 << 20, 10),
    );
    for is_other in [false, true] {
        let then = if is_other { &other } else { &body };
        let bench = Bench::new().await;
        let path = blob(&bench.origin, "app", &body);
        let at = format!("/v2/{path}");
        let tagged = |payload: &Payload, tag| Resource::new(payload.clone()).etag(tag);
        bench.origin.put(&at, tagged(&body, "\"one\""));
        bench.origin.hold_body(&at, 1 << 20);
        bench
            .origin
            .behave_once(&at, Behaviour::Truncate { after: 2 << 20 });
        let reader = tokio::spawn(bench.client(REPOSITORY, &path).run());
        bench.origin.wait_for("GET", &at, 1).await;
        bench.origin.put(&at, tagged(then, "\"two\""));
        bench.origin.release(&at);
        let got = reader.await.unwrap().unwrap();
        bench.settled().await;
        assert_eq!(bench.origin.count("GET", &at), 2);
        let record = bench.record(REPOSITORY, &path, "").await;
        if is_other {
            assert!(got.body.is_err(), "parts of two blobs are none");
            assert_eq!(record, None);
        } else {
            assert_eq!(got.bytes(), &body.slice(0, body.length()));
            let etag = record.and_then(|record| record.headers.etag);
            assert_eq!(etag, None, "of whose bytes would it be the tag?");
        }
    }
}

#[tokio::test]
async fn oci_19_ranges_of_a_hit_and_of_a_miss() {
    let bench = Bench::new().await;
    let body = Payload::generated(4 << 20, 3);
    let path = blob(&bench.origin, "app", &body);
    let range = |from: u64, to: u64| {
        bench
            .client(REPOSITORY, &path)
            .header("range", &format!("bytes={from}-{to}"))
            .run()
    };
    let (a, b, c, d) = tokio::join!(
        range(0, 999_999),
        range(1_000_000, 1_999_999),
        range(2_000_000, 2_999_999),
        range(3_000_000, 3_999_999)
    );
    for (part, from) in [(a, 0), (b, 1_000_000), (c, 2_000_000), (d, 3_000_000)] {
        let part = part.unwrap();
        assert_eq!(
            (part.answer.status, part.bytes()),
            (206, &body.slice(from, 1_000_000))
        );
    }
    bench.settled().await;
    assert_eq!(
        bench.origin.requests().len(),
        1,
        "four ranges, one download"
    );
    let hit = range(1000, 1999).await.unwrap();
    assert_eq!(
        (hit.answer.status, hit.bytes()),
        (206, &body.slice(1000, 1000))
    );
    assert!(hit.is_hit());
}

#[tokio::test]
async fn oci_19_sixty_four_cold_pulls_cost_one_get() {
    let bench = Bench::new().await;
    let body = Payload::generated(5 << 20, 4);
    let path = blob(&bench.origin, "app", &body);
    let at = format!("/v2/{path}");
    bench.origin.hold_body(&at, 2 << 20);
    let expected = body.slice(0, body.length());
    let pulls: Vec<_> = (0..64)
        .map(|_| tokio::spawn(bench.client(REPOSITORY, &path).expect(&expected).run()))
        .collect();
    bench.origin.wait_for("GET", &at, 1).await;
    bench.origin.release(&at);
    for pull in pulls {
        assert!(pull.await.unwrap().unwrap().body.is_ok());
    }
    assert_eq!(bench.origin.count("GET", &at), 1);
}

#[tokio::test]
async fn oci_27_a_layer_is_stored_once_and_read_only_where_it_is_owned() {
    let bench = Bench::new().await;
    let body = Payload::generated(2 << 20, 5);
    let path = blob(&bench.origin, "app", &body);
    let base = bench.origin.url("/");
    let named = |name: &str| {
        let repository = repository(PackageType::Docker, &base);
        Arc::new(Repository {
            name: RepositoryName::parse(name).unwrap(),
            ..repository
        })
    };
    bench.engine.replace_repositories(
        vec![named("private"), named("public")],
        &BTreeMap::default(),
        PublicUrls::default(),
    );
    bench.get("private", &path).await.unwrap();
    bench.settled().await;
    // The other remote's upstream does not have it: what the store holds is no matter.
    bench
        .origin
        .behave_once(&format!("/v2/{path}"), Behaviour::Status(404));
    assert_eq!(refusal(bench.get("public", &path).await).1, "blob_unknown");
    let other_name = path.replace("app/", "other/");
    assert_eq!(
        refusal(bench.get("private", &other_name).await).1,
        "blob_unknown"
    );
    bench.settled().await;
    bench.wait(11);
    let got = bench.get("public", &path).await.unwrap();
    assert!(!got.is_hit() && got.bytes().len() == 2 << 20);
    bench.settled().await;
    let stored = bench.blobs.list(None, 1000).await.unwrap();
    assert_eq!(
        stored
            .iter()
            .filter(|blob| blob.descriptor.size == 2 << 20)
            .count(),
        1
    );
}

#[tokio::test]
async fn oci_28_layers_are_never_coded_on_the_way() {
    let bench = Bench::new().await;
    let body = Payload::Repeat {
        byte: b'a',
        length: 100_000,
    };
    let path = blob(&bench.origin, "app", &body);
    for _ in 0..2 {
        let got = bench
            .client(REPOSITORY, &path)
            .header("accept-encoding", "zstd, gzip, deflate")
            .run()
            .await
            .unwrap();
        assert_eq!(
            (
                got.answer.representation.content_encoding.as_deref(),
                got.bytes().len()
            ),
            (None, 100_000)
        );
        bench.settled().await;
    }
    assert_eq!(
        bench.origin.requests()[0].header("accept-encoding"),
        Some("identity")
    );
}

#[tokio::test]
async fn heads_of_blobs_state_digest_and_length() {
    let bench = Bench::new().await;
    let path = blob(&bench.origin, "app", &Payload::generated(5000, 6));
    let digest = path.rsplit_once('/').unwrap().1;
    for _ in 0..2 {
        let head = bench
            .ask(Method::HEAD, REPOSITORY, &path, &[])
            .await
            .unwrap();
        assert_eq!(
            field(&head, "docker-content-digest").as_deref(),
            Some(digest)
        );
        assert_eq!(head.answer.representation.length, Some(5000));
        bench.get(REPOSITORY, &path).await.unwrap();
        bench.settled().await;
    }
    assert_eq!(bench.origin.requests().len(), 2);
}

/// Distribution specification, "Error Codes": what is not there is told apart, and what is held back is not there yet.
#[tokio::test]
async fn a_blob_that_is_held_back_is_a_blob_that_is_not_there() {
    let bench = Bench::with(|r| r.quarantine.hold = Some(Duration::from_hours(72))).await;
    let body = Payload::generated(1_000, 1);
    let path = blob(&bench.origin, "app", &body);
    let young = Resource::new(body).last_modified(&days_ago(1));
    bench.origin.put(&format!("/v2/{path}"), young);
    for method in [Method::GET, Method::HEAD, Method::GET] {
        let asked = bench.client(REPOSITORY, &path).method(method).run().await;
        let fault = asked.unwrap_err();
        assert_eq!(
            (fault.code, fault.missing_code()),
            (ErrorCode::Quarantined, Some(ErrorCode::BlobUnknown))
        );
    }
}
