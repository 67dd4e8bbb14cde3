//! Container images below `/v2/`, over HTTP: what clients read in heads, in errors, and in `/metrics`.

use larder_core::sha256;
use larder_testkit::{Behaviour, Origin, Payload, Resource};

use crate::support::{TestLarder, get, send};

const MANIFEST: &str = r#"{ "schemaVersion":2, "mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[] }"#;
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const VERSION: &str = "docker-distribution-api-version";

/// A registry with one image and a larder that has it as its default.
async fn images(keys: &str) -> (Origin, TestLarder) {
    let origin = Origin::start().await;
    let manifest = Resource::new(MANIFEST)
        .content_type(MANIFEST_TYPE)
        .header("Docker-Content-Digest", &digest());
    origin.put(
        "/v2/team/app/manifests/1.0",
        manifest.header("RateLimit-Remaining", "76;w=21600"),
    );
    let config = format!(
        "docker_default_remote: images\nremotes:\n  images: {{ package: docker, base_url: '{}', {keys} }}\n",
        origin.url("/")
    );
    let larder = TestLarder::start(&config).await;
    (origin, larder)
}

fn digest() -> String {
    sha256(MANIFEST.as_bytes()).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn oci_03_head_and_get_of_a_tag_agree_in_every_spelling_of_its_address() {
    let (origin, larder) = images("").await;
    for path in [
        "v2/images/team/app/manifests/1.0",
        "images/v2/team/app/manifests/1.0",
        "v2/team/app/manifests/1.0",
    ] {
        let url = larder.url(path);
        // From the upstream, from the record, out of the hot set.
        for round in 0..3 {
            let (got, head) = (get(&url).await, send("HEAD", &url, &[]).await);
            assert_eq!((got.status, got.text().as_str()), (200, MANIFEST), "{path}");
            assert_eq!(head.body, b"");
            for name in [
                "content-type",
                "content-length",
                "docker-content-digest",
                VERSION,
                "etag",
                "vary",
            ] {
                assert_eq!(
                    head.header(name),
                    got.header(name),
                    "{name} of {path} in round {round}"
                );
            }
            assert_eq!(got.header("content-type"), MANIFEST_TYPE);
            assert_eq!(got.header("content-length"), MANIFEST.len().to_string());
            assert_eq!(got.header("docker-content-digest"), digest());
            assert_eq!(got.header(VERSION), "registry/2.0");
            assert_eq!(got.header("vary"), "Accept");
        }
        assert!(
            get(&url).await.cache_status().starts_with("larder; hit"),
            "{path}"
        );
    }
    assert_eq!(origin.requests().len(), 1);
    let metrics = get(&larder.url("metrics")).await.text();
    let line = "larder_repository_upstream_quota_remaining{repository=\"images\"} 76";
    assert!(metrics.lines().any(|found| found == line), "{metrics}");
    assert!(metrics.contains("kind=\"hot\",status=\"2xx\""), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn oci_19_blobs_have_ranges_and_never_a_coding() {
    let (origin, larder) = images("").await;
    let body = Payload::generated(200_000, 1);
    let digest = sha256(&body.slice(0, 200_000));
    origin.put(
        &format!("/v2/team/app/blobs/{digest}"),
        Resource::new(body.clone()),
    );
    let url = larder.url(&format!("v2/images/team/app/blobs/{digest}"));
    for _ in 0..3 {
        let part = send(
            "GET",
            &url,
            &[
                ("Range", "bytes=1000-1999"),
                ("Accept-Encoding", "zstd, gzip"),
            ],
        )
        .await;
        assert_eq!(
            (part.status, part.header("content-range")),
            (206, "bytes 1000-1999/200000")
        );
        assert_eq!(part.body, body.slice(1000, 1000));
        assert_eq!(
            (
                part.header("content-encoding"),
                part.header("accept-ranges")
            ),
            ("", "bytes")
        );
        assert_eq!(part.header("docker-content-digest"), digest.to_string());
        assert_eq!(part.header("content-type"), "application/octet-stream");
    }
    assert_eq!(origin.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn oci_12_ns_chooses_a_configured_registry_and_never_another() {
    let (one, two) = (Origin::start().await, Origin::start().await);
    for (origin, body) in [(&one, "1"), (&two, "2")] {
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{}},"layers":[],"annotations":{{"from":"{body}"}}}}"#
        );
        origin.put(
            "/v2/team/app/manifests/1.0",
            Resource::new(manifest).content_type(MANIFEST_TYPE),
        );
    }
    let remote =
        |origin: &Origin| format!("{{ package: docker, base_url: '{}' }}", origin.url("/"));
    let remotes = format!(
        "remotes:\n  one: {}\n  two: {}\n",
        remote(&one),
        remote(&two)
    );
    let larder = TestLarder::start(&remotes).await;
    let url = |ns: &str| larder.url(&format!("v2/team/app/manifests/1.0?ns={ns}"));
    // From the upstream, and out of the hot set.
    for _ in 0..3 {
        for (origin, body) in [(&one, "\"1\""), (&two, "\"2\"")] {
            let answer = get(&url(&origin.address().to_string().replace(':', "%3A"))).await;
            assert!(
                answer.status == 200 && answer.text().contains(body),
                "{}",
                answer.text()
            );
        }
    }
    for stranger in ["registry.example.com", "127.0.0.1", "one", ""] {
        let answer = get(&url(stranger)).await;
        assert_eq!(
            (answer.status, answer.json()["errors"][0]["code"].as_str()),
            (404, Some("NAME_UNKNOWN")),
            "{stranger}"
        );
    }
    // It is for names without a repository only, and goes nowhere.
    let prefixed = get(&larder.url(&format!(
        "v2/one/team/app/manifests/1.0?ns={}",
        two.address()
    )))
    .await;
    assert!(prefixed.text().contains("\"1\""), "{}", prefixed.text());
    for origin in [&one, &two] {
        let asked: Vec<_> = origin
            .requests()
            .into_iter()
            .map(|request| request.target)
            .collect();
        assert_eq!(asked, ["/v2/team/app/manifests/1.0"]);
    }
}

/// Contract, section 1 makes an upstream's 401 a 502, and decides over the list, which has 401 or 404 there.
#[tokio::test(flavor = "multi_thread")]
async fn oci_20_an_upstream_s_challenge_is_not_passed_on() {
    let (origin, larder) = images("").await;
    origin.behave("*", Behaviour::Status(401));
    origin.behave(
        "*",
        Behaviour::Header(
            "WWW-Authenticate".to_owned(),
            "Basic realm=\"registry\"".to_owned(),
        ),
    );
    let answer = get(&larder.url("v2/images/private/app/manifests/1.0")).await;
    // Clients of a mirror act on a 404; the message says which setting logs in.
    assert_eq!(
        (answer.status, answer.header("www-authenticate")),
        (404, "")
    );
    let error = &answer.json()["errors"][0];
    assert_eq!(error["code"], "NAME_UNKNOWN");
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|message| message.contains("username and password")),
        "{error}"
    );
}

/// Contract, section 3: a 401 is no network failure. Whoever withdraws an account means it, wherever that is said.
#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_account_is_not_covered_up_by_an_old_copy() {
    let (origin, larder) =
        images("username: ci, password: secret, cache: { mutable_ttl: 0 }").await;
    let url = larder.url("v2/images/team/app/manifests/1.0");
    assert_eq!(get(&url).await.status, 200);
    let realm = format!(
        "Bearer realm=\"{}\",service=\"registry\"",
        origin.url("/token")
    );
    origin.behave(
        "/v2/team/app/manifests/1.0",
        Behaviour::Challenge {
            challenge: realm,
            unless: "nothing".to_owned(),
        },
    );
    for refusal in [401, 403] {
        origin.behave("/token", Behaviour::Status(refusal));
        let answer = get(&url).await;
        assert_eq!(
            (answer.status, answer.json()["errors"][0]["code"].as_str()),
            (502, Some("UNAUTHORIZED")),
            "{refusal}"
        );
        origin.clear("/token");
    }
    // A token server that cannot be reached is a network failure, and the copy is still there for it.
    origin.behave("/token", Behaviour::ResetHead);
    let answer = get(&url).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, MANIFEST));
}

/// A rotated password stops no build where the operator lists 401: whether the registry or its token server refuses it.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_is_bridged_where_the_operator_says_so() {
    let keys = "username: ci, password: secret, cache: { mutable_ttl: 0 }, stale: { on_status: [401, 403] }";
    let (origin, larder) = images(keys).await;
    let url = larder.url("v2/images/team/app/manifests/1.0");
    assert_eq!(get(&url).await.status, 200);
    let realm = format!(
        "Bearer realm=\"{}\",service=\"registry\"",
        origin.url("/token")
    );
    origin.behave(
        "*",
        Behaviour::Challenge {
            challenge: realm,
            unless: "nothing".to_owned(),
        },
    );
    for refusal in [401, 403] {
        origin.behave("/token", Behaviour::Status(refusal));
        let answer = get(&url).await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, MANIFEST),
            "{refusal}"
        );
        assert_eq!(answer.source(), "cache");
        origin.clear("/token");
    }
    origin.behave("/token", Behaviour::Status(401));
    // Where nothing is held there is nothing to serve.
    assert_eq!(
        get(&larder.url("v2/images/team/app/manifests/2.0"))
            .await
            .status,
        502
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn oci_16_a_busy_upstream_without_a_copy_is_429_with_retry_after() {
    let (origin, larder) = images("stale: { on_status: [429] }").await;
    origin.behave("*", Behaviour::Status(429));
    let answer = get(&larder.url("v2/images/team/app/manifests/1.0")).await;
    assert_eq!(
        (answer.status, answer.json()["errors"][0]["code"].as_str()),
        (429, Some("TOOMANYREQUESTS"))
    );
    assert_eq!(
        (answer.header("retry-after"), answer.header(VERSION)),
        ("60", "registry/2.0")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_the_specification_s_codes() {
    let (_origin, larder) = images("immutable_patterns: ['^team/']").await;
    let zeros = "0".repeat(64);
    for (path, status, code) in [
        (
            "v2/images/team/app/manifests/none".to_owned(),
            404,
            "MANIFEST_UNKNOWN",
        ),
        (
            format!("v2/images/team/app/blobs/sha256:{zeros}"),
            404,
            "BLOB_UNKNOWN",
        ),
        (
            format!("v2/images/other/app/blobs/sha256:{zeros}"),
            403,
            "DENIED",
        ),
        (
            "v2/images/team/app/tags/list".to_owned(),
            404,
            "NAME_UNKNOWN",
        ),
        (
            "v2/images/team/app/blobs/sha256:00".to_owned(),
            400,
            "DIGEST_INVALID",
        ),
        (
            "v2/images/Team/app/manifests/1.0".to_owned(),
            400,
            "NAME_INVALID",
        ),
        (
            "v2/images/team%2fapp/manifests/1.0".to_owned(),
            400,
            "NAME_INVALID",
        ),
        (
            "v2/images/team/../app/manifests/1.0".to_owned(),
            400,
            "NAME_INVALID",
        ),
    ] {
        let answer = raw_get(&larder, &path).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{path}: {answer}"
        );
        assert!(
            answer.contains(&format!("\"code\":\"{code}\"")),
            "{path}: {answer}"
        );
    }
}

/// Without a client that would repair the path.
async fn raw_get(larder: &TestLarder, path: &str) -> String {
    let request = format!("GET /{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    crate::support::raw(larder.address(), request.as_bytes()).await
}

/// Another registry's image of the same name is another image.
#[tokio::test(flavor = "multi_thread")]
async fn oci_12_the_default_remote_stands_for_no_registry_but_its_own() {
    let (origin, larder) = images("").await;
    let of = |registry: &str| larder.url(&format!("v2/team/app/manifests/1.0?ns={registry}"));
    let other = get(&of("registry.example.com")).await;
    assert_eq!(other.status, 404);
    assert_eq!(other.json()["errors"][0]["code"], "NAME_UNKNOWN");
    assert!(other.text().contains("registry.example.com"), "{other:?}");
    assert!(origin.requests().is_empty());
    let own = get(&of(&origin.address().to_string())).await;
    assert_eq!((own.status, own.text().as_str()), (200, MANIFEST));
}

#[tokio::test(flavor = "multi_thread")]
async fn oci_14_a_list_that_cannot_be_walked_to_its_end_is_told_of() {
    let (origin, larder) = images("").await;
    origin.put(
        "/v2/team/app/tags/list",
        Resource::new(r#"{"name":"team/app","tags":["1.0"]}"#)
            .content_type("application/json")
            .header("Link", "</v2/team/app/tags/list?n=1>; rel=\"next\""),
    );
    let got = get(&larder.url("v2/images/team/app/tags/list")).await;
    assert_eq!((got.status, got.header("link")), (200, ""));
    larder.logged("the next page of a list").await;
}
