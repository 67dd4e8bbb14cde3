//! The address itself: conditions, codings, ranges, methods, pages, and the members' files below it.

use std::time::{Duration, Instant};

use larder_testkit::{Behaviour, Origin, Resource};
use rustix::process::Signal;

use crate::support::packages::entry;
use crate::support::{Answer, PATIENCE, TestLarder, client, get, raw, send};
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
    let whole = dated_index(&larder).await;
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

/// The merged index with its date, which is told when it can be no other's.
async fn dated_index(larder: &TestLarder) -> Answer {
    for _ in 0..100 {
        let answer = index(larder).await;
        if !answer.header("last-modified").is_empty() {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no date is told");
}

/// RFC 9110 section 8.8.2.2: a date is no validator of two bodies.
#[tokio::test(flavor = "multi_thread")]
async fn two_merged_indexes_of_one_second_have_no_date_in_common() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    let versions = ["1.0.0", "2.0.0", "3.0.0", "4.0.0"];
    put_charts(&one, "/", "one", &[("vault", versions[0])]);
    put_charts(&other, "/", "two", &[("redis", "20.1.0")]);
    let config = |keys: &str| two(&one, &other, "cache: { mutable_ttl: 0 }", keys);
    let mut larder = TestLarder::start(&config("")).await;
    let url = of(&larder, "all", "index.yaml");
    let mut told = Vec::new();
    for version in versions {
        put_charts(&one, "/", "one", &[("vault", version)]);
        let answer = index(&larder).await;
        assert!(answer.text().contains(version), "{version}");
        told.push(["date", "last-modified"].map(|name| answer.header(name).to_owned()));
    }
    told.pop();
    let last = dated_index(&larder).await;
    let date = last.header("last-modified").to_owned();
    for earlier in told.iter().flatten().filter(|told| !told.is_empty()) {
        let range = [("Range", "bytes=0-9"), ("If-Range", earlier)];
        assert_eq!(send("GET", &url, &range).await.status, 200, "{earlier}");
        let since = [("If-Modified-Since", &**earlier)];
        assert_eq!(send("GET", &url, &since).await.status, 200, "{earlier}");
    }
    let range = [("Range", "bytes=0-9"), ("If-Range", &*date)];
    assert_eq!(send("GET", &url, &range).await.status, 206);
    let since = [("If-Modified-Since", &*date)];
    assert_eq!(send("GET", &url, &since).await.status, 304);
    // Its links are other bytes, too.
    larder.write_config(&config("member_urls: virtual"));
    larder.signal(Signal::HUP);
    let start = Instant::now();
    while !index(&larder).await.text().contains("/_m/") {
        assert!(start.elapsed() < PATIENCE, "not reloaded");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(send("GET", &url, &range).await.status, 200);
    assert_eq!(send("GET", &url, &since).await.status, 200);
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

/// A link may have a query of its own, which is part of the file's name.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_a_query_is_that_of_the_member_whose_index_names_it_so() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    let own = Origin::start().await;
    put_charts(&one, "/", "one", &[("redis", "20.1.0")]);
    put_charts(&own, "/", "own", &[("acme", "1.0.0")]);
    let links =
        ["vault-0.27.0.tgz", "download.tgz"].map(|file| other.url(&format!("/{file}?key=1")));
    let index = format!(
        "apiVersion: v1\nentries:\n  vault:\n  - name: vault\n    urls:\n    - {}\n    version: 0.27.0\n  \
         acme:\n  - name: acme\n    urls:\n    - {}\n    version: 9.9.9\n",
        links[0], links[1]
    );
    other.put("/index.yaml", Resource::new(index));
    for (origin, body) in [(&one, "one's"), (&other, "two's")] {
        for file in ["vault-0.27.0.tgz", "download.tgz"] {
            origin.put(&format!("/{file}"), Resource::new(body));
        }
    }
    let config = format!(
        "remotes:\n{}{}{}{}",
        entry("one", "helm", &one, ""),
        entry("two", "helm", &other, ""),
        entry("own", "helm", &own, "authoritative: true"),
        all("all", &["one", "two", "own"], "member_urls: virtual")
    );
    let larder = TestLarder::start(&config).await;
    for path in ["vault-0.27.0.tgz?key=1", "_m/two/vault-0.27.0.tgz?key=1"] {
        let answer = get(&of(&larder, "all", path)).await;
        assert_eq!(
            (answer.status, answer.text()),
            (200, "two's".to_owned()),
            "{path}"
        );
    }
    // What its index calls by the name of a chart of another's is nothing that it gives.
    let anothers = get(&of(&larder, "all", "_m/two/download.tgz?key=1")).await;
    assert_eq!(anothers.status, 404, "{}", anothers.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_do_not_answer_hold_a_file_up_as_long_as_one_does() {
    let silent = [
        Origin::start().await,
        Origin::start().await,
        Origin::start().await,
    ];
    let last = Origin::start().await;
    put_charts(&last, "/", "last", &[("vault", "0.27.0")]);
    let mut config = "remotes:\n".to_owned();
    for (number, origin) in silent.iter().enumerate() {
        origin.behave("/index.yaml", Behaviour::StallHead(Duration::from_secs(60)));
        config += &entry(
            &format!("m{number}"),
            "helm",
            origin,
            "timeouts: { read: 3 }",
        );
    }
    config += &entry("last", "helm", &last, "");
    config += &all("all", &["m0", "m1", "m2", "last"], "");
    let larder = TestLarder::start(&config).await;
    let start = Instant::now();
    let answer = get(&of(&larder, "all", "vault-0.27.0.tgz")).await;
    assert_eq!(answer.text(), archive("vault", "0.27.0", "last"));
    assert!(
        start.elapsed() < Duration::from_secs(6),
        "{:?}",
        start.elapsed()
    );
}

/// The root of a member is larder's own page (contract, section 3), and no file of the upstream's.
#[tokio::test(flavor = "multi_thread")]
async fn the_root_of_a_member_is_no_file() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    put_charts(&one, "/", "one", &[("redis", "20.1.0")]);
    one.put("/", Resource::new("<html>the upstream's own page</html>"));
    let larder = TestLarder::start(&two(&one, &other, "", "member_urls: virtual")).await;
    for path in ["_m/one/", "_m/one//", "_m/one/./"] {
        let answer = get(&of(&larder, "all", path)).await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
    }
    assert_eq!(one.count("GET", "/"), 0);
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
