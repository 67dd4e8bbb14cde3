//! The address itself: conditions, codings, ranges, methods, pages, and the members' files below it.

use larder_testkit::Origin;

use crate::support::packages::entry;
use crate::support::{TestLarder, client, get, raw, send};
use crate::{all, archive, index, of, put_charts, two, urls};

/// The status of a request target that is sent as it stands.
async fn raw_get(larder: &TestLarder, target: &str) -> u16 {
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    client::raw_status(&raw(larder.address(), request.as_bytes()).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_merged_index_is_an_artifact_like_any_other() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    let many: Vec<(String, String)> = (0..60)
        .map(|n| (format!("chart-{n}"), format!("1.{n}.0")))
        .collect();
    let many: Vec<(&str, &str)> = many
        .iter()
        .map(|(name, version)| (&**name, &**version))
        .collect();
    put_charts(&one, "/", "one", &many);
    put_charts(&other, "/", "two", &[("redis", "20.1.0")]);
    let larder = TestLarder::start(&two(&one, &other, "", "")).await;
    let url = of(&larder, "all", "index.yaml");
    let whole = index(&larder).await;
    larder.hit(&url).await;
    let tag = whole.header("etag").to_owned();
    for _ in 0..2 {
        let head = send("HEAD", &url, &[]).await;
        assert_eq!(
            (head.status, head.header("etag"), head.body.len()),
            (200, &*tag, 0)
        );
        assert_eq!(head.header("content-length"), whole.body.len().to_string());
        let known = send("GET", &url, &[("If-None-Match", &tag)]).await;
        assert_eq!(known.status, 304);
        let since = send(
            "GET",
            &url,
            &[("If-Modified-Since", whole.header("last-modified"))],
        )
        .await;
        assert_eq!(since.status, 304, "{:?}", since.headers);
        let part = send("GET", &url, &[("Range", "bytes=10-19")]).await;
        assert_eq!((part.status, &part.body[..]), (206, &whole.body[10..20]));
        for coding in ["gzip", "zstd"] {
            let coded = send("GET", &url, &[("Accept-Encoding", coding)]).await;
            assert_eq!(coded.header("content-encoding"), coding);
            assert_ne!(coded.header("etag"), tag);
            assert!(coded.body.len() < whole.body.len());
        }
    }
    let hot = || larder.metric("larder_requests_total", "repository=\"all\",kind=\"hot\"");
    let before = hot().await;
    let hit = index(&larder).await;
    assert_eq!(hit.source(), "cache");
    assert!(hot().await > before, "out of the hot set");
    assert!(hit.cache_status().contains("hit"), "{}", hit.cache_status());
    assert!(
        hit.header("vary")
            .to_ascii_lowercase()
            .contains("accept-encoding")
    );
    assert_eq!(hit.header("x-content-type-options"), "nosniff");
    assert_eq!(one.count("GET", "/index.yaml"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_read_and_nothing_else_and_stands_at_one_address() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    put_charts(&one, "/", "one", &[("vault", "0.27.0")]);
    let larder = TestLarder::start(&two(&one, &other, "", "")).await;
    for method in ["PUT", "POST", "DELETE", "PATCH"] {
        let answer = send(method, &of(&larder, "all", "x.tgz"), &[]).await;
        assert_eq!(answer.status, 405, "{method}: {}", answer.text());
        assert_eq!(answer.header("allow"), "GET, HEAD", "{method}");
        assert_eq!(answer.json()["code"], "read_only", "{method}");
    }
    let elsewhere = get(&larder.artifact("all", "index.yaml")).await;
    assert_eq!(elsewhere.status, 404);
    assert!(
        elsewhere.text().contains("/api/v1/virtual/all"),
        "{}",
        elsewhere.text()
    );
    assert_eq!(
        send("PUT", &larder.artifact("all", "x.tgz"), &[])
            .await
            .status,
        405
    );
    assert_eq!(
        get(&of(&larder, "one", "index.yaml")).await.status,
        404,
        "a remote is no virtual repository"
    );
    // What it shows is its members'.
    let held = get(&larder.url("api/v1/artifacts/all")).await;
    assert_eq!(held.status, 400, "{}", held.text());
    assert!(held.text().contains("(one, two)"), "{}", held.text());
    for bad in ["../x", "a%2fb", "%00"] {
        assert_eq!(
            raw_get(&larder, &format!("/api/v1/virtual/all/{bad}")).await,
            400,
            "{bad}"
        );
    }
    assert_eq!(one.connections() + other.connections(), 0);
    let page = get(&of(&larder, "all", "")).await;
    assert_eq!(page.status, 200);
    let text = page.text();
    for word in [
        "virtual",
        "one, two",
        "serving",
        &of(&larder, "all", "")[..],
    ] {
        assert!(text.contains(word.trim_end_matches('/')), "{word}: {text}");
    }
    let root = get(&larder.url("/")).await.json();
    assert_eq!(root["remotes"]["all"]["type"], "virtual");
    let config = get(&larder.url("config")).await.json();
    assert_eq!(
        config["remotes"]["all"]["members"],
        serde_json::json!(["one", "two"])
    );
    assert_eq!(config["remotes"]["all"]["member_urls"], "member");
    assert_eq!(config["remotes"]["all"]["fail_closed"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_served_from_the_first_member_that_names_it() {
    let (mut one, other) = (Origin::start().await, Origin::start().await);
    put_charts(&one, "/", "one", &[("redis", "20.1.0")]);
    put_charts(
        &other,
        "/",
        "two",
        &[("redis", "20.1.0"), ("vault", "0.27.0")],
    );
    let larder = TestLarder::start(&two(&one, &other, "", "")).await;
    for (file, body) in [
        ("redis-20.1.0.tgz", archive("redis", "20.1.0", "one")),
        ("vault-0.27.0.tgz", archive("vault", "0.27.0", "two")),
    ] {
        let url = of(&larder, "all", file);
        let head = send("HEAD", &url, &[]).await;
        assert_eq!(head.status, 200, "{file}");
        let answer = get(&url).await;
        assert_eq!((answer.status, answer.text()), (200, body), "{file}");
        assert_eq!(larder.hit(&url).await.text(), answer.text());
    }
    let absent = get(&of(&larder, "all", "nothing-1.0.0.tgz")).await;
    assert_eq!(absent.status, 404, "{}", absent.text());
    assert_eq!(absent.json()["repository"], "all");
    // Whose it is stays so while its member is down: nobody else's bytes take its place.
    assert_eq!(
        send(
            "PUT",
            &larder.url("cache/flush?remote=one&cache_type=files"),
            &[]
        )
        .await
        .status,
        200
    );
    one.stop().await;
    let down = get(&of(&larder, "all", "redis-20.1.0.tgz")).await;
    assert_eq!(down.status, 502, "{}", down.text());
}

/// Every spelling of a path is that path: it is folded and decoded once, and then looked at.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_a_member_is_one_in_every_spelling() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    put_charts(&one, "/", "one", &[("redis", "20.1.0")]);
    put_charts(&other, "/", "two", &[("redis", "20.1.0")]);
    let keys = "member_urls: virtual\ndeny_patterns: ['secret']";
    let larder = TestLarder::start(&two(&one, &other, "", keys)).await;
    for prefix in [
        "_m/two",
        "/_m/two",
        "./_m/two",
        "_m//two",
        "_m/./two",
        "%5fm/two",
        "_m/%74wo",
        "%5Fm/./tw%6f/",
    ] {
        let at = |file: &str| format!("/api/v1/virtual/all/{prefix}/{file}");
        assert_eq!(
            raw_get(&larder, &at("redis-20.1.0.tgz")).await,
            200,
            "{prefix}"
        );
        assert_eq!(
            raw_get(&larder, &at("redis-20%2E1.0.tgz")).await,
            200,
            "{prefix}"
        );
        assert_eq!(raw_get(&larder, &at("secret.tgz")).await, 403, "{prefix}");
        assert_eq!(raw_get(&larder, &at("nothing.tgz")).await, 404, "{prefix}");
        let explained = at("redis-20.1.0.tgz").replace("virtual", "explain");
        assert_eq!(raw_get(&larder, &explained).await, 200, "{prefix}");
    }
    assert_eq!(one.count("GET", "/redis-20.1.0.tgz"), 0);
    assert_eq!(other.count("GET", "/redis-20.1.0.tgz"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_below_the_virtual_repository_lead_to_the_member_s_file() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    put_charts(&one, "/", "one", &[("redis", "20.1.0")]);
    put_charts(
        &other,
        "/",
        "two",
        &[("redis", "20.1.0"), ("vault", "0.27.0")],
    );
    let config = format!(
        "remotes:\n{}{}{}",
        entry("one", "helm", &one, ""),
        entry("two", "helm", &other, ""),
        all(
            "all",
            &["one", "two"],
            "member_urls: virtual\ndeny_patterns: ['secret']"
        )
    );
    let larder = TestLarder::start(&config).await;
    let links = urls(&index(&larder).await);
    assert_eq!(
        links,
        [
            of(&larder, "all", "_m/one/redis-20.1.0.tgz"),
            of(&larder, "all", "_m/two/vault-0.27.0.tgz")
        ]
    );
    assert_eq!(
        get(&links[0]).await.text(),
        archive("redis", "20.1.0", "one")
    );
    assert_eq!(
        get(&links[1]).await.text(),
        archive("vault", "0.27.0", "two")
    );
    assert_eq!(
        get(&of(&larder, "all", "_m/two/redis-20.1.0.tgz"))
            .await
            .text(),
        archive("redis", "20.1.0", "two")
    );
    assert_eq!(
        get(&of(&larder, "all", "_m/nobody/redis-20.1.0.tgz"))
            .await
            .status,
        404
    );
    assert_eq!(
        get(&of(&larder, "all", "_m/one/secret.tgz")).await.status,
        403
    );
    assert_eq!(get(&of(&larder, "all", "secret.tgz")).await.status, 403);
}
