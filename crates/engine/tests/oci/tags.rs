//! Manifests by tag and by digest: classes of `Accept`, heads, refreshing, an upstream that is busy or gone.

use std::time::Duration;

use http::Method;
use larder_core::{Clock, Credentials, FaultKind, Revalidate, Secret, Source};
use larder_testkit::{Behaviour, Resource};

use crate::images::{
    DOCKER_LIST, Manifest, OCI_INDEX, OCI_MANIFEST, SCHEMA1, SCHEMA2, image, index, put, tag,
};
use crate::support::{Bench, Got, upstream};
use crate::{field, refusal};

const TAG: &str = "app/manifests/1.0";
const AT: &str = "/v2/app/manifests/1.0";
const REPOSITORY: &str = "docker";

/// containerd sends one line that ends in `*/*`.
const CONTAINERD: &str = "application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, */*";

/// podman, skopeo and buildah send a line for each type.
const PODMAN: [(&str, &str); 5] = [
    ("accept", OCI_MANIFEST),
    ("accept", SCHEMA2),
    ("accept", SCHEMA1),
    ("accept", DOCKER_LIST),
    ("accept", OCI_INDEX),
];

const SHA512_OF_THE_SMALLEST: &str = "b793b9c3dd62d18ec0e6eb88d6e44f81d43bee73adf83478c88d181a83d24b10\
    47a58d6c43a785885293df7053801cecdba3305a16e57d12f368a8a4922d2f19";

fn gets(bench: &Bench) -> Vec<String> {
    let requests = bench
        .origin
        .requests()
        .into_iter()
        .filter(|request| request.method == "GET");
    requests.map(|request| request.target).collect()
}

#[tokio::test]
async fn oci_02_clients_of_every_kind_cost_one_get_for_each_digest() {
    let bench = Bench::new().await;
    let (amd64, arm64) = (image(OCI_MANIFEST, "amd64"), image(OCI_MANIFEST, "arm64"));
    let multi = index(OCI_INDEX, &[&amd64, &arm64]);
    tag(&bench.origin, TAG, &multi);
    let by_digest = [
        put(&bench.origin, "app", &multi),
        put(&bench.origin, "app", &amd64),
        put(&bench.origin, "app", &arm64),
    ];
    // containerd: the tag's head, then everything by digest.
    let head = bench
        .ask(Method::HEAD, REPOSITORY, TAG, &[("accept", CONTAINERD)])
        .await
        .unwrap();
    assert_eq!(field(&head, "docker-content-digest"), Some(multi.digest()));
    assert_eq!(
        head.answer.representation.length,
        Some(multi.body.len() as u64)
    );
    assert_eq!(
        head.answer.representation.content_type.as_deref(),
        Some(OCI_INDEX)
    );
    for path in &by_digest {
        bench
            .ask(Method::GET, REPOSITORY, path, &[("accept", CONTAINERD)])
            .await
            .unwrap();
        bench.settled().await;
    }
    // podman, then docker and crane: the tag, then what they need of it.
    for accept in [&PODMAN[..], &[("accept", CONTAINERD)], &[]] {
        let got = bench
            .ask(Method::GET, REPOSITORY, TAG, accept)
            .await
            .unwrap();
        assert_eq!(got.text(), multi.body);
        for path in &by_digest[1..] {
            bench
                .ask(Method::GET, REPOSITORY, path, accept)
                .await
                .unwrap();
        }
        bench.settled().await;
    }
    let mut asked = gets(&bench);
    asked.sort();
    let mut expected: Vec<String> = by_digest.iter().map(|path| format!("/v2/{path}")).collect();
    expected.sort();
    assert_eq!(asked, expected, "and the tag's own path was never fetched");
}

/// As crane and podman ask: the digest is wanted before what the tag has brought can be read from the database.
#[tokio::test]
async fn oci_02_a_digest_that_is_asked_for_right_after_its_tag_costs_no_get() {
    for round in 0..10 {
        let bench = Bench::new().await;
        let manifest = image(OCI_MANIFEST, &round.to_string());
        tag(&bench.origin, TAG, &manifest);
        let by_digest = format!("app/manifests/{}", manifest.digest());
        for path in [TAG, &*by_digest, &*by_digest] {
            let got = bench.get(REPOSITORY, path).await.unwrap();
            assert_eq!(got.text(), manifest.body);
            let told = field(&got, "docker-content-digest");
            assert_eq!(told, Some(manifest.digest()));
        }
        assert_eq!(gets(&bench), [format!("/v2/{TAG}")], "round {round}");
        bench.settled().await;
        assert!(bench.get(REPOSITORY, &by_digest).await.unwrap().is_hit());
    }
}

#[tokio::test]
async fn oci_02_a_pull_of_a_new_tag_leaves_what_is_remembered_of_others_alone() {
    let bench = Bench::new().await;
    let (other, manifest) = (image(OCI_MANIFEST, "other"), image(OCI_MANIFEST, "one"));
    let other = put(&bench.origin, "app", &other);
    bench.get(REPOSITORY, &other).await.unwrap();
    bench.settled().await;
    let ticket = bench
        .client(REPOSITORY, &other)
        .answer()
        .await
        .unwrap()
        .hot
        .expect("it may be remembered");
    tag(&bench.origin, TAG, &manifest);
    bench.ask(Method::HEAD, REPOSITORY, TAG, &[]).await.unwrap();
    bench
        .get(REPOSITORY, &format!("app/manifests/{}", manifest.digest()))
        .await
        .unwrap();
    bench.settled().await;
    assert_eq!(
        bench.get(REPOSITORY, TAG).await.unwrap().text(),
        manifest.body
    );
    bench.settled().await;
    assert!(
        ticket.is_good(bench.engine.now()),
        "nothing that could be remembered was taken back"
    );
}

#[tokio::test]
async fn oci_02_a_tag_that_was_fetched_is_there_by_its_digest_too() {
    let bench = Bench::new().await;
    let manifest = image(SCHEMA2, "one");
    tag(&bench.origin, TAG, &manifest);
    assert_eq!(
        bench.get(REPOSITORY, TAG).await.unwrap().text(),
        manifest.body
    );
    bench.settled().await;
    let got = bench
        .get(REPOSITORY, &format!("app/manifests/{}", manifest.digest()))
        .await
        .unwrap();
    assert!(got.is_hit() && got.text() == manifest.body);
    assert_eq!(gets(&bench), [AT]);
}

#[tokio::test]
async fn oci_03_a_head_of_a_held_tag_says_what_get_says() {
    let bench = Bench::new().await;
    let manifest = image(OCI_MANIFEST, "one");
    tag(&bench.origin, TAG, &manifest);
    let got = bench.get(REPOSITORY, TAG).await.unwrap();
    bench.settled().await;
    let head = bench.ask(Method::HEAD, REPOSITORY, TAG, &[]).await.unwrap();
    for answer in [&got, &head] {
        assert_eq!(
            field(answer, "docker-content-digest"),
            Some(manifest.digest())
        );
        assert_eq!(
            answer.answer.representation.length,
            Some(manifest.body.len() as u64)
        );
        assert_eq!(
            answer.answer.representation.content_type.as_deref(),
            Some(OCI_MANIFEST)
        );
    }
    assert!(
        head.is_hit() && head.bytes().is_empty() && head.answer.hot,
        "{}",
        head.answer.cache_status
    );
    assert_eq!(bench.origin.requests().len(), 1);
}

#[tokio::test]
async fn oci_03_a_head_that_lacks_a_part_is_completed_with_get() {
    for missing in ["Docker-Content-Digest", "Content-Type"] {
        let bench = Bench::new().await;
        let manifest = image(OCI_MANIFEST, "one");
        tag(&bench.origin, TAG, &manifest);
        bench
            .origin
            .behave_once(AT, Behaviour::WithoutHeader(missing.to_owned()));
        let head = bench.ask(Method::HEAD, REPOSITORY, TAG, &[]).await.unwrap();
        assert_eq!(
            field(&head, "docker-content-digest"),
            Some(manifest.digest()),
            "without {missing}"
        );
        assert_eq!(
            head.answer.representation.length,
            Some(manifest.body.len() as u64)
        );
        assert_eq!(
            (
                bench.origin.count("HEAD", AT),
                bench.origin.count("GET", AT)
            ),
            (1, 1)
        );
    }
}

#[tokio::test]
async fn oci_03_sixty_four_cold_heads_cost_one_and_a_fresh_one_none() {
    let mut bench = Bench::new().await;
    let manifest = image(OCI_MANIFEST, "one");
    tag(&bench.origin, TAG, &manifest);
    bench.origin.hold(AT);
    let head = || {
        bench
            .client(REPOSITORY, TAG)
            .method(Method::HEAD)
            .header("accept", CONTAINERD)
            .run()
    };
    let heads: Vec<_> = (0..64).map(|_| tokio::spawn(head())).collect();
    bench.origin.wait_for("HEAD", AT, 1).await;
    // Those who have not come to wait by now find what is remembered.
    bench.let_others_go().await;
    bench.origin.release(AT);
    for head in heads {
        says_what_the_manifest_is(&head.await.unwrap().unwrap(), &manifest);
    }
    assert_eq!(
        (
            bench.origin.count("HEAD", AT),
            bench.origin.count("GET", AT)
        ),
        (1, 0)
    );
    bench.wait(3599);
    bench.restart().await;
    let fresh = bench.ask(Method::HEAD, REPOSITORY, TAG, &[]).await.unwrap();
    says_what_the_manifest_is(&fresh, &manifest);
    assert!(
        fresh.is_hit() && fresh.answer.source == Source::Cache,
        "{}",
        fresh.answer.cache_status
    );
    assert_eq!(
        (
            Clock::now(&*bench.clock).since(fresh.answer.freshness.contacted_at),
            fresh.answer.freshness.remaining
        ),
        (Duration::from_secs(3599), Some(Duration::from_secs(1)))
    );
    assert_eq!(bench.origin.requests().len(), 1, "also after a restart");
    bench.wait(1);
    let expired = bench.ask(Method::HEAD, REPOSITORY, TAG, &[]).await.unwrap();
    says_what_the_manifest_is(&expired, &manifest);
    assert!(!expired.is_hit());
    assert_eq!(
        bench.origin.count("HEAD", AT),
        2,
        "what has expired is asked for again"
    );
}

#[track_caller]
fn says_what_the_manifest_is(head: &Got, manifest: &Manifest) {
    assert_eq!(
        field(head, "docker-content-digest"),
        Some(manifest.digest())
    );
    assert_eq!(
        head.answer.representation.length,
        Some(manifest.body.len() as u64)
    );
    assert_eq!(
        head.answer.representation.content_type.as_deref(),
        Some(manifest.media_type)
    );
    assert!(head.bytes().is_empty() || head.text() == manifest.body);
}

#[tokio::test]
async fn oci_03_a_head_and_then_a_get_cost_one_get_whichever_way_the_client_asks() {
    for by_digest in [true, false] {
        for ttl in [Duration::from_hours(1), Duration::ZERO] {
            let bench = Bench::with(|repository| {
                repository.cache.mutable_ttl = ttl;
                repository.cache.revalidate = Some(Revalidate::Head);
            })
            .await;
            let manifest = image(OCI_MANIFEST, "one");
            tag(&bench.origin, TAG, &manifest);
            let then = if by_digest {
                format!("app/manifests/{}", manifest.digest())
            } else {
                TAG.to_owned()
            };
            for _ in 0..3 {
                says_what_the_manifest_is(
                    &bench.ask(Method::HEAD, REPOSITORY, TAG, &[]).await.unwrap(),
                    &manifest,
                );
                says_what_the_manifest_is(&bench.get(REPOSITORY, &then).await.unwrap(), &manifest);
                bench.settled().await;
            }
            assert_eq!(gets(&bench), [format!("/v2/{then}")]);
            let heads = bench.origin.count("HEAD", AT);
            // With `mutable_ttl: 0` every request for the tag asks; a first GET has asked already.
            let every = if by_digest { 3 } else { 5 };
            assert_eq!(
                heads,
                if ttl.is_zero() { every } else { 1 },
                "by digest: {by_digest}, {ttl:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_head_that_a_flush_has_overtaken_is_joined_by_nobody_and_not_remembered() {
    let bench = Bench::new().await;
    let (one, two) = (image(OCI_MANIFEST, "one"), image(OCI_MANIFEST, "two"));
    tag(&bench.origin, TAG, &one);
    bench.origin.hold(AT);
    let before = tokio::spawn(bench.client(REPOSITORY, TAG).method(Method::HEAD).run());
    bench.origin.wait_for("HEAD", AT, 1).await;
    bench.flush().await;
    let after = tokio::spawn(bench.client(REPOSITORY, TAG).method(Method::HEAD).run());
    bench.origin.wait_for("HEAD", AT, 2).await;
    bench.origin.release(AT);
    says_what_the_manifest_is(&before.await.unwrap().unwrap(), &one);
    says_what_the_manifest_is(&after.await.unwrap().unwrap(), &one);
    tag(&bench.origin, TAG, &two);
    bench.flush().await;
    says_what_the_manifest_is(
        &bench.ask(Method::HEAD, REPOSITORY, TAG, &[]).await.unwrap(),
        &two,
    );
}

#[tokio::test]
async fn a_head_that_fails_fails_for_those_who_waited_and_is_asked_for_again() {
    let bench = Bench::new().await;
    let manifest = image(OCI_MANIFEST, "one");
    tag(&bench.origin, TAG, &manifest);
    bench.origin.hold(AT);
    bench.origin.behave_once(AT, Behaviour::Status(503));
    let head = || tokio::spawn(bench.client(REPOSITORY, TAG).method(Method::HEAD).run());
    let first = head();
    bench.origin.wait_for("HEAD", AT, 1).await;
    let second = head();
    bench.let_others_go().await;
    bench.origin.release(AT);
    for head in [first, second] {
        assert_eq!(
            refusal(head.await.unwrap()),
            (FaultKind::Upstream(503), "upstream_status")
        );
    }
    assert_eq!(bench.origin.count("HEAD", AT), 1);
    says_what_the_manifest_is(
        &bench.ask(Method::HEAD, REPOSITORY, TAG, &[]).await.unwrap(),
        &manifest,
    );
}

/// A registry that names its manifests by SHA-512 is asked for by that; the digests are computed here apart from larder's own.
#[tokio::test]
async fn oci_03_a_tag_has_the_digest_that_its_registry_states_on_head_and_get() {
    // `printf '{"schemaVersion":2,"config":{},"layers":[]}' | sha512sum`
    let (body, sha512) = (
        r#"{"schemaVersion":2,"config":{},"layers":[]}"#,
        SHA512_OF_THE_SMALLEST,
    );
    let digest = format!("sha512:{sha512}");
    let at_digest = format!("app/manifests/{digest}");
    for heads in [true, false] {
        let bench = Bench::new().await;
        let resource = || {
            Resource::new(body)
                .content_type(OCI_MANIFEST)
                .header("Docker-Content-Digest", &digest)
        };
        bench.origin.put(AT, resource());
        bench.origin.put(&format!("/v2/{at_digest}"), resource());
        if heads {
            let head = bench.ask(Method::HEAD, REPOSITORY, TAG, &[]).await.unwrap();
            assert_eq!(
                field(&head, "docker-content-digest").as_ref(),
                Some(&digest),
                "a forwarded head"
            );
        }
        for path in [TAG, &at_digest, TAG] {
            for method in [Method::GET, Method::HEAD] {
                let got = bench
                    .ask(method.clone(), REPOSITORY, path, &[])
                    .await
                    .unwrap();
                assert_eq!(
                    field(&got, "docker-content-digest").as_ref(),
                    Some(&digest),
                    "{method} {path}"
                );
                assert!(method == Method::HEAD || got.text() == body);
                bench.settled().await;
            }
        }
        assert_eq!(
            gets(&bench),
            [AT],
            "what the tag gave is there by the name that clients were told"
        );
    }
    // Who states it of other bytes is found out.
    let bench = Bench::new().await;
    bench.origin.put(
        AT,
        Resource::new(format!("{body} "))
            .content_type(OCI_MANIFEST)
            .header("Docker-Content-Digest", &digest),
    );
    assert_eq!(
        refusal(bench.get(REPOSITORY, TAG).await).1,
        "digest_mismatch"
    );
}

#[tokio::test]
async fn oci_04_clients_of_indexes_and_of_single_manifests_get_their_own_kind() {
    let single = image(SCHEMA2, "amd64");
    let list = index(DOCKER_LIST, &[&single]);
    let kinds = [(SCHEMA2, &single), (DOCKER_LIST, &list)];
    for order in [[0, 1], [1, 0]] {
        let bench = Bench::new().await;
        for at in order {
            let (accept, manifest) = kinds[at];
            // What the registry would choose for such a client.
            bench.origin.put(AT, manifest.resource());
            let got = bench
                .ask(Method::GET, REPOSITORY, TAG, &[("accept", accept)])
                .await
                .unwrap();
            assert_eq!(got.text(), manifest.body);
            assert_eq!(got.answer.representation.vary, ["accept"]);
            bench.settled().await;
        }
        for (accept, manifest) in kinds {
            let got = bench
                .ask(Method::GET, REPOSITORY, TAG, &[("accept", accept)])
                .await
                .unwrap();
            assert!(got.is_hit() && got.text() == manifest.body, "{accept}");
        }
    }
}

#[tokio::test]
async fn oci_04_an_absence_is_remembered_for_its_class_only() {
    let bench = Bench::new().await;
    let manifest = image(OCI_MANIFEST, "one");
    tag(&bench.origin, TAG, &manifest);
    bench.origin.behave_once(AT, Behaviour::Status(404));
    let schema2 = [("accept", SCHEMA2)];
    let fault = refusal(bench.ask(Method::GET, REPOSITORY, TAG, &schema2).await);
    assert_eq!(fault, (FaultKind::Upstream(404), "manifest_unknown"));
    bench.settled().await;
    assert_eq!(
        bench.get(REPOSITORY, TAG).await.unwrap().text(),
        manifest.body
    );
    bench.wait(11);
    assert!(
        bench
            .ask(Method::GET, REPOSITORY, TAG, &schema2)
            .await
            .is_ok(),
        "after negative_ttl it is asked for again"
    );
}

#[tokio::test]
async fn oci_05_all_lines_of_accept_reach_the_upstream() {
    let bench = Bench::new().await;
    tag(&bench.origin, TAG, &image(OCI_MANIFEST, "one"));
    bench
        .ask(Method::GET, REPOSITORY, TAG, &PODMAN)
        .await
        .unwrap();
    let sent = bench.origin.requests()[0]
        .header("accept")
        .unwrap()
        .to_owned();
    for (_, media_type) in PODMAN {
        assert!(
            sent.split(", ").any(|sent| sent == media_type),
            "{media_type} is not in {sent}"
        );
    }
    assert!(!sent.contains('*'), "{sent}");
}

#[tokio::test]
async fn oci_12_ns_does_not_reach_the_upstream_nor_split_the_cache() {
    let bench = Bench::new().await;
    tag(&bench.origin, TAG, &image(OCI_MANIFEST, "one"));
    bench
        .get(REPOSITORY, &format!("{TAG}?ns=registry.example"))
        .await
        .unwrap();
    bench.settled().await;
    assert!(bench.get(REPOSITORY, TAG).await.unwrap().is_hit());
    assert_eq!(gets(&bench), [AT]);
}

#[tokio::test]
async fn oci_16_a_busy_upstream_is_bridged_where_the_operator_says_so() {
    for listed in [true, false] {
        let bench = Bench::with(|repository| {
            repository.cache.stale_on_status = if listed { vec![429] } else { Vec::new() };
        })
        .await;
        let manifest = image(OCI_MANIFEST, "one");
        tag(&bench.origin, TAG, &manifest);
        bench.get(REPOSITORY, TAG).await.unwrap();
        bench.settled().await;
        bench.wait(3601);
        bench.origin.behave("*", Behaviour::Status(429));
        let refreshed = bench.get(REPOSITORY, TAG).await;
        if listed {
            assert_eq!(refreshed.unwrap().text(), manifest.body);
        } else {
            assert_eq!(
                refusal(refreshed),
                (FaultKind::Upstream(429), "rate_limited")
            );
        }
        // Without a copy: the status, and when to come back, whether the upstream says so or not.
        let fault = bench
            .get(REPOSITORY, "other/manifests/1")
            .await
            .unwrap_err();
        assert_eq!(
            (fault.kind, fault.retry_after),
            (FaultKind::Upstream(429), Some(Duration::from_mins(1)))
        );
        bench.origin.behave(
            "*",
            Behaviour::Header("Retry-After".to_owned(), "17".to_owned()),
        );
        let fault = bench
            .get(REPOSITORY, "another/manifests/1")
            .await
            .unwrap_err();
        assert_eq!(fault.retry_after, Some(Duration::from_secs(17)));
    }
}

#[tokio::test]
async fn oci_16_a_busy_upstream_is_left_alone_as_long_as_it_asks() {
    let bench = Bench::with(|repository| repository.cache.stale_on_status = vec![429]).await;
    let paths = [TAG, "app/manifests/2.0"];
    for path in paths {
        tag(&bench.origin, path, &image(OCI_MANIFEST, path));
        bench.get(REPOSITORY, path).await.unwrap();
    }
    bench.settled().await;
    bench.wait(3601);
    bench.origin.behave("*", Behaviour::Status(429));
    bench.origin.behave(
        "*",
        Behaviour::Header("Retry-After".to_owned(), "100".to_owned()),
    );
    bench.origin.reset_log();
    for (wait, asked) in [(0, 1), (0, 1), (99, 1), (1, 2)] {
        bench.wait(wait);
        for path in paths {
            assert!(
                bench
                    .get(REPOSITORY, path)
                    .await
                    .unwrap()
                    .text()
                    .contains(path)
            );
        }
        assert_eq!(bench.origin.requests().len(), asked, "after {wait} s more");
    }
}

#[tokio::test]
async fn oci_16_what_the_upstream_still_allows_is_remembered() {
    let bench = Bench::new().await;
    let manifest = image(OCI_MANIFEST, "one");
    let limited = manifest
        .resource()
        .header("RateLimit-Limit", "100;w=21600")
        .header("RateLimit-Remaining", "76;w=21600");
    bench.origin.put(AT, limited);
    let quota = |bench: &Bench| {
        let quotas = bench.engine.upstream_quotas();
        quotas
            .into_iter()
            .find(|(name, _)| name.as_str() == REPOSITORY)
            .unwrap()
            .1
            .snapshot()
    };
    assert_eq!(quota(&bench), []);
    bench.get(REPOSITORY, TAG).await.unwrap();
    assert_eq!(
        quota(&bench),
        [
            ("upstream_quota_limit", 100),
            ("upstream_quota_remaining", 76)
        ]
    );
}

#[tokio::test]
async fn oci_17_an_unchanged_tag_costs_a_head_and_no_get() {
    // With and without an entity tag: the digest alone tells.
    for etag in [None, Some("\"a\"")] {
        let bench =
            Bench::with(|repository| repository.cache.revalidate = Some(Revalidate::Head)).await;
        let (one, two) = (image(OCI_MANIFEST, "one"), image(OCI_MANIFEST, "two"));
        tag(&bench.origin, TAG, &one);
        let served = |manifest: &crate::images::Manifest| {
            let resource = manifest.resource();
            if let Some(etag) = etag {
                resource.etag(etag)
            } else {
                resource
            }
        };
        bench.origin.put(AT, served(&one));
        bench.get(REPOSITORY, TAG).await.unwrap();
        bench.settled().await;
        bench.wait(3601);
        bench.origin.reset_log();
        let renewed = bench.get(REPOSITORY, TAG).await.unwrap();
        assert_eq!(
            (renewed.text(), renewed.answer.source),
            (one.body.clone(), Source::Cache)
        );
        bench.settled().await;
        assert_eq!(
            (
                bench.origin.count("HEAD", AT),
                bench.origin.count("GET", AT)
            ),
            (1, 0),
            "{etag:?}"
        );
        assert!(bench.get(REPOSITORY, TAG).await.unwrap().is_hit());
        // It moves, and moves back: bytes that are held are not fetched again.
        bench.origin.put(AT, two.resource());
        bench.wait(3601);
        assert_eq!(bench.get(REPOSITORY, TAG).await.unwrap().text(), two.body);
        bench.settled().await;
        bench.origin.put(AT, one.resource());
        bench.wait(3601);
        bench.origin.reset_log();
        assert_eq!(bench.get(REPOSITORY, TAG).await.unwrap().text(), one.body);
        bench.settled().await;
        assert_eq!(
            (
                bench.origin.count("HEAD", AT),
                bench.origin.count("GET", AT)
            ),
            (1, 0),
            "{etag:?}"
        );
        assert!(bench.get(REPOSITORY, TAG).await.unwrap().is_hit());
    }
}

#[tokio::test]
async fn oci_18_without_the_upstream_everything_held_still_pulls() {
    let mut bench =
        Bench::with(|repository| repository.cache.revalidate = Some(Revalidate::Head)).await;
    let manifest = image(OCI_MANIFEST, "one");
    tag(&bench.origin, TAG, &manifest);
    // As containerd pulls: only the head of the tag was ever asked for.
    bench.ask(Method::HEAD, REPOSITORY, TAG, &[]).await.unwrap();
    let by_digest = format!("app/manifests/{}", manifest.digest());
    bench.get(REPOSITORY, &by_digest).await.unwrap();
    bench.settled().await;
    bench.origin.stop().await;
    for wait in [0, 3601, 3601] {
        bench.wait(wait);
        let head = bench.ask(Method::HEAD, REPOSITORY, TAG, &[]).await.unwrap();
        assert_eq!(
            field(&head, "docker-content-digest"),
            Some(manifest.digest()),
            "after {wait} s"
        );
        assert_eq!(
            bench.get(REPOSITORY, TAG).await.unwrap().text(),
            manifest.body
        );
        assert!(bench.get(REPOSITORY, &by_digest).await.unwrap().is_hit());
        bench.settled().await;
    }
    bench.restart().await;
    assert_eq!(
        bench.get(REPOSITORY, TAG).await.unwrap().text(),
        manifest.body
    );
}

#[tokio::test]
async fn oci_20_an_upstream_that_wants_credentials_is_not_passed_on() {
    // With a login, an upstream's 401 speaks to larder, so it is a 502 that says so.
    let login = Credentials {
        username: "u".to_owned(),
        password: Secret::new("p".to_owned()),
    };
    let bench =
        Bench::with(|repository| upstream(repository).credentials = Some(login.clone())).await;
    bench.origin.behave("*", Behaviour::Status(401));
    let fault = bench.get(REPOSITORY, TAG).await.unwrap_err();
    assert_eq!(
        (fault.kind, fault.code.as_str()),
        (FaultKind::BadGateway, "upstream_unauthorized")
    );
    assert!(
        fault.message.contains("username and password"),
        "{}",
        fault.message
    );
}
