//! A tag that one client has brought, asked for by another with other words, when the registry is gone. With the registry's own cache in
//! between (distribution as a mirror) the second client gets the manifest: its `Accept` takes it.

use std::time::Duration;

use http::Method;
use larder_core::{CachePolicy, Fault, FaultKind};
use larder_testkit::{Behaviour, Resource};

use crate::images::{Manifest, OCI_INDEX, OCI_MANIFEST, SCHEMA1, SCHEMA2, image, index, tag};
use crate::support::{Bench, Got, upstream};
use crate::{field, refusal};

const REPOSITORY: &str = "docker";
const TAG: &str = "app/manifests/1.0";
const AT: &str = "/v2/app/manifests/1.0";

/// ORAS and Helm.
const NARROW: &[(&str, &str)] = &[("accept", OCI_MANIFEST)];
/// skopeo, podman and buildah.
const WIDE: &[(&str, &str)] = &[
    ("accept", OCI_MANIFEST),
    ("accept", SCHEMA2),
    ("accept", SCHEMA1),
    (
        "accept",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    ),
    ("accept", OCI_INDEX),
];

async fn get(bench: &Bench, accept: &[(&str, &str)]) -> Result<Got, Fault> {
    bench.ask(Method::GET, REPOSITORY, TAG, accept).await
}

/// A bench whose registry is gone after one client has brought what `manifest` is.
async fn warmed(manifest: &Manifest, accept: &[(&str, &str)]) -> Bench {
    let mut bench = Bench::new().await;
    tag(&bench.origin, TAG, manifest);
    get(&bench, accept).await.unwrap();
    bench.settled().await;
    bench.origin.stop().await;
    bench
}

#[tokio::test]
async fn a_held_tag_serves_whoever_takes_what_it_is_when_the_registry_is_gone() {
    let manifest = image(OCI_MANIFEST, "one");
    for (first, second) in [
        (NARROW, WIDE),
        (WIDE, NARROW),
        (&[][..], NARROW),
        (NARROW, &[]),
    ] {
        // Fresh by its own words, and expired.
        for wait in [0, 7200] {
            let bench = warmed(&manifest, first).await;
            bench.wait(wait);
            for _ in 0..2 {
                let head = bench
                    .ask(Method::HEAD, REPOSITORY, TAG, second)
                    .await
                    .unwrap();
                let got = get(&bench, second).await.unwrap();
                assert_eq!(got.text(), manifest.body);
                for answer in [&head, &got] {
                    assert_eq!(
                        field(answer, "docker-content-digest"),
                        Some(manifest.digest())
                    );
                    assert_eq!(
                        answer.answer.representation.content_type.as_deref(),
                        Some(OCI_MANIFEST)
                    );
                    assert_eq!(
                        answer.answer.representation.length,
                        Some(manifest.body.len() as u64)
                    );
                    assert!(!answer.answer.hot, "it is for once");
                }
                bench.settled().await;
            }
        }
    }
}

#[tokio::test]
async fn a_held_tag_does_not_serve_whom_it_is_nothing_for() {
    let one = image(OCI_MANIFEST, "one");
    let bench = warmed(&index(OCI_INDEX, &[&one]), WIDE).await;
    assert_eq!(refusal(get(&bench, NARROW).await).0, FaultKind::BadGateway);
    // Another tag of the image is another thing.
    assert_eq!(
        refusal(
            bench
                .ask(Method::GET, REPOSITORY, "app/manifests/1", WIDE)
                .await
        )
        .0,
        FaultKind::BadGateway
    );
}

/// What another client's words have brought is not what a registry gives for these: it is asked as soon as it is back.
#[tokio::test]
async fn a_registry_that_is_there_is_asked_by_each_client_s_own_words() {
    let (one, multi) = (
        image(OCI_MANIFEST, "one"),
        index(OCI_INDEX, &[&image(OCI_MANIFEST, "one")]),
    );
    let mut bench = warmed(&one, NARROW).await;
    assert_eq!(get(&bench, WIDE).await.unwrap().text(), one.body);
    bench.settled().await;
    bench.origin.restart();
    bench.origin.put(AT, multi.resource());
    bench.wait(60);
    let got = get(&bench, WIDE).await.unwrap();
    assert_eq!(got.text(), multi.body);
    assert!(
        got.answer.cache_status.contains("fwd=uri-miss"),
        "{}",
        got.answer.cache_status
    );
    bench.settled().await;
    assert_eq!(
        get(&bench, NARROW).await.unwrap().text(),
        one.body,
        "whose copy is fresh"
    );
    // What the registry says stands: a 404, a 401 and a 500 are no failures of the network.
    for (status, kind) in [
        (404, FaultKind::Upstream(404)),
        (401, FaultKind::NotFound),
        (500, FaultKind::Upstream(500)),
    ] {
        bench.forget(REPOSITORY).await;
        bench.origin.put(AT, one.resource());
        get(&bench, NARROW).await.unwrap();
        bench.settled().await;
        bench.origin.behave_once(AT, Behaviour::Status(status));
        assert_eq!(refusal(get(&bench, WIDE).await).0, kind);
        bench.settled().await;
        assert_eq!(
            get(&bench, NARROW).await.unwrap().text(),
            one.body,
            "{status}"
        );
    }
}

#[tokio::test]
async fn an_old_copy_stands_in_no_longer_than_its_owner_allows() {
    let manifest = image(OCI_MANIFEST, "one");
    let mut bench = Bench::with(|repository| {
        repository.cache = CachePolicy {
            stale_max_age: Some(Duration::from_secs(60)),
            ..CachePolicy::default()
        }
    })
    .await;
    tag(&bench.origin, TAG, &manifest);
    get(&bench, NARROW).await.unwrap();
    bench.settled().await;
    bench.origin.stop().await;
    bench.wait(7200);
    assert_eq!(refusal(get(&bench, WIDE).await).0, FaultKind::BadGateway);
}

async fn missing(bench: &Bench, repository: &str) -> Vec<String> {
    let name = [repository.to_owned()];
    let outage = bench.engine.ledger().outage(repository, &name, None, 10);
    let missing = outage.await.unwrap().missing.into_iter();
    missing.map(|path| path.path).collect()
}

/// A copy that is too old to be served is in nobody's way: what another client, or a job, has brought since then is served.
#[tokio::test]
async fn a_younger_copy_stands_in_for_one_that_is_too_old() {
    let mut bench = Bench::with(|repository| {
        repository.cache.mutable_ttl = Duration::from_secs(60);
        repository.cache.stale_max_age = Some(Duration::from_hours(1));
    })
    .await;
    let manifest = image(OCI_MANIFEST, "one");
    tag(&bench.origin, TAG, &manifest);
    let packument = Resource::new(r#"{"name":"demo","versions":{}}"#);
    let packument = packument.content_type("application/json");
    bench.origin.put("/demo", packument);
    let short: &[_] = &[("accept", "application/vnd.npm.install-v1+json")];
    get(&bench, NARROW).await.unwrap();
    bench.ask(Method::GET, "npm", "demo", short).await.unwrap();
    bench.settled().await;
    bench.wait(7200);
    for (repository, path) in [(REPOSITORY, TAG), ("npm", "demo")] {
        assert_eq!(missing(&bench, repository).await, [path]);
    }
    // The forms that jobs ask for.
    get(&bench, &[]).await.unwrap();
    bench.ask(Method::GET, "npm", "demo", &[]).await.unwrap();
    bench.settled().await;
    for repository in [REPOSITORY, "npm"] {
        assert_eq!(missing(&bench, repository).await, [""; 0]);
    }
    bench.origin.stop().await;
    for _ in 0..2 {
        let got = get(&bench, NARROW).await.unwrap();
        assert_eq!(got.text(), manifest.body);
        assert!(!got.answer.hot, "it is for once");
        bench.ask(Method::GET, "npm", "demo", short).await.unwrap();
        bench.settled().await;
    }
    bench.wait(7200);
    assert_eq!(refusal(get(&bench, NARROW).await).0, FaultKind::BadGateway);
}

/// With a stand-in behind it, what the registry has anew takes the place of the copy that was too old.
#[tokio::test]
async fn what_is_new_replaces_the_copy_that_was_too_old() {
    let bench = Bench::with(|repository| {
        repository.cache.mutable_ttl = Duration::from_secs(60);
        repository.cache.stale_max_age = Some(Duration::from_hours(1));
    })
    .await;
    let (one, two) = (image(OCI_MANIFEST, "one"), image(OCI_MANIFEST, "two"));
    tag(&bench.origin, TAG, &one);
    get(&bench, NARROW).await.unwrap();
    bench.settled().await;
    bench.wait(7200);
    get(&bench, WIDE).await.unwrap();
    bench.settled().await;
    tag(&bench.origin, TAG, &two);
    for _ in 0..2 {
        assert_eq!(get(&bench, NARROW).await.unwrap().text(), two.body);
        bench.settled().await;
    }
}

#[tokio::test]
async fn a_repository_that_is_offline_serves_what_it_holds_in_any_words() {
    let manifest = image(OCI_MANIFEST, "one");
    let mut bench = Bench::new().await;
    tag(&bench.origin, TAG, &manifest);
    get(&bench, NARROW).await.unwrap();
    bench.settled().await;
    bench.reload(|repository| upstream(repository).offline = true);
    for method in [Method::GET, Method::HEAD] {
        let got = bench.ask(method, REPOSITORY, TAG, WIDE).await.unwrap();
        assert_eq!(
            field(&got, "docker-content-digest"),
            Some(manifest.digest())
        );
    }
}

/// The registry of npm gives the long form to whoever asks for it, and clients that prefer the short one take both
/// (`Accept: application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*`).
#[tokio::test]
async fn a_held_packument_serves_whoever_prefers_the_short_form() {
    const SHORT: &[(&str, &str)] = &[(
        "accept",
        "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*",
    )];
    const LONG: &[(&str, &str)] = &[("accept", "application/json")];
    let mut bench = Bench::new().await;
    let body = r#"{"name":"demo","dist-tags":{"latest":"1.0.0"},"versions":{"1.0.0":{"name":"demo","version":"1.0.0","dist":{"tarball":"https://registry.example/demo/-/demo-1.0.0.tgz"}}}}"#;
    bench.origin.put(
        "/demo",
        Resource::new(body).content_type("application/json"),
    );
    bench.ask(Method::GET, "npm", "demo", LONG).await.unwrap();
    bench.settled().await;
    bench.origin.stop().await;
    for method in [Method::GET, Method::HEAD] {
        let got = bench.ask(method, "npm", "demo", SHORT).await.unwrap();
        assert_eq!(
            got.answer.representation.content_type.as_deref(),
            Some("application/json")
        );
    }
}
