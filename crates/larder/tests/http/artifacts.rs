//! The headers of artifacts, HEAD, queries (contract, section 1).

use std::time::Duration;

use larder_core::sha256;
use larder_testkit::{Behaviour, Origin, Payload, Resource};

use crate::support::client::client;
use crate::support::packages::{File, INDEXES, entry, one_of_each, put_indexes, pypi_json, remote};
use crate::support::{Answer, TestLarder, get, send};

/// `max-age` of `Cache-Control`.
fn max_age(answer: &Answer) -> u64 {
    let value = answer.header("cache-control");
    let seconds = value
        .split([',', ' '])
        .find_map(|part| part.strip_prefix("max-age="));
    seconds
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or_else(|| panic!("no max-age: {value}"))
}

fn age(answer: &Answer) -> u64 {
    answer
        .header("age")
        .parse()
        .unwrap_or_else(|_| panic!("no Age: {:?}", answer.headers))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miss_and_a_hit_say_where_they_come_from() {
    let origin = Origin::start().await;
    origin.put(
        "/a.bin",
        Resource::new("content")
            .content_type("application/x-thing")
            .etag("W/\"weak-1\"")
            .last_modified("Wed, 01 Jan 2020 00:00:00 GMT"),
    );
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    let url = larder.artifact("generic", "a.bin");
    let miss = get(&url).await;
    assert_eq!(
        (miss.status, miss.text().as_str(), miss.source()),
        (200, "content", "remote")
    );
    assert!(
        miss.cache_status().starts_with("larder; fwd=uri-miss"),
        "{}",
        miss.cache_status()
    );
    assert!(
        miss.cache_status().contains("; stored"),
        "{}",
        miss.cache_status()
    );
    let hit = larder.hit(&url).await;
    assert!(
        hit.cache_status().starts_with("larder; hit"),
        "{}",
        hit.cache_status()
    );
    assert!(age(&hit) < 60);
    for answer in [&miss, &hit] {
        for (name, want) in [
            ("content-type", "application/x-thing"),
            ("content-length", "7"),
            ("etag", "W/\"weak-1\""),
            ("last-modified", "Wed, 01 Jan 2020 00:00:00 GMT"),
            ("accept-ranges", "bytes"),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "sandbox"),
            ("cache-control", "public, max-age=31536000, immutable"),
            ("vary", ""),
        ] {
            assert_eq!(answer.header(name), want, "{name} of {}", answer.source());
        }
    }
    assert_eq!(origin.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_control_never_promises_more_than_the_rest_of_the_ttl() {
    let origin = Origin::start().await;
    origin.put("/a.tgz", Resource::new("a"));
    origin.put("/list", Resource::new("list"));
    let patterns = "mutable_patterns: ['^list$']";
    let config = [
        entry(
            "forever",
            "generic",
            &origin,
            &format!("{patterns}\ncache: {{ immutable_ttl: 0, mutable_ttl: 100 }}"),
        ),
        entry(
            "bounded",
            "generic",
            &origin,
            &format!("{patterns}\ncache: {{ immutable_ttl: 200, mutable_ttl: 0 }}"),
        ),
    ];
    let larder = TestLarder::start(&format!("remotes:\n{}", config.concat())).await;
    for (repository, path, ttl) in [
        ("forever", "list", Some(100)),
        ("bounded", "a.tgz", Some(200)),
        ("bounded", "list", Some(0)),
        ("forever", "a.tgz", None),
    ] {
        let url = larder.artifact(repository, path);
        let first = get(&url).await;
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        for answer in [first, get(&url).await] {
            let control = answer.header("cache-control");
            match ttl {
                None => assert_eq!(control, "public, max-age=31536000, immutable"),
                Some(ttl) => {
                    assert!(
                        !control.contains("immutable"),
                        "{repository}/{path}: {control}"
                    );
                    let spent = if answer.source() == "cache" {
                        age(&answer)
                    } else {
                        0
                    };
                    assert!(
                        max_age(&answer) + spent <= ttl,
                        "{repository}/{path}: {control}, age {spent}"
                    );
                    assert!(
                        ttl == 0 || max_age(&answer) + 5 > ttl,
                        "{repository}/{path}: {control}"
                    );
                }
            }
        }
    }
    let url = larder.artifact("forever", "list");
    let hit = larder.hit(&url).await;
    assert!(age(&hit) >= 1 && max_age(&hit) <= 99, "{:?}", hit.headers);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_upstream_tag_the_digest_is_the_tag_once_it_is_known() {
    let origin = Origin::start().await;
    let body = Payload::generated(4 << 20, 3);
    origin.put("/big", Resource::new(body.clone()));
    origin.hold_body("/big", 2 << 20);
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    let url = larder.artifact("generic", "big");
    let running = client().get(&url).send().await.expect("a head");
    assert_eq!(
        running.headers().get("etag"),
        None,
        "nobody knows the digest yet"
    );
    origin.release("/big");
    let got = running.bytes().await.expect("the rest");
    assert!(got == body.slice(0, 4 << 20), "other bytes");
    let hit = larder.hit(&url).await;
    assert_eq!(
        hit.header("etag"),
        format!("\"sha256-{}\"", sha256(&got).to_hex())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn head_of_what_is_held_is_get_without_a_body() {
    let origin = Origin::start().await;
    let files = [File::generated("pantry", "1.0", 5_000, 1)];
    let wheel = pypi_json(&origin, "pantry", &files).remove(0);
    origin.put(
        "/a.bin",
        Resource::new("content")
            .etag("\"t\"")
            .content_type("text/x"),
    );
    let larder = TestLarder::start(&one_of_each(&origin, "")).await;
    for (repository, path) in [
        ("generic", "a.bin"),
        ("pypi", "simple/pantry/"),
        ("pypi", &wheel),
    ] {
        let url = larder.artifact(repository, path);
        get(&url).await;
        let hit = larder.hit(&url).await;
        origin.reset_log();
        let head = send("HEAD", &url, &[]).await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        for (name, value) in &hit.headers {
            if !matches!(
                name.as_str(),
                "date" | "age" | "x-request-id" | "cache-status" | "cache-control"
            ) {
                assert_eq!(head.headers.get(name), Some(value), "{path}: {name}");
            }
        }
        assert_eq!(
            head.header("content-length"),
            hit.body.len().to_string(),
            "{path}"
        );
        assert_eq!(origin.requests(), [], "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn head_of_what_is_not_held_is_forwarded_and_keeps_nothing() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&one_of_each(&origin, "negative_ttl: 0")).await;
    origin.put(
        "/a.bin",
        Resource::new("content")
            .etag("\"t\"")
            .content_type("text/x"),
    );
    let url = larder.artifact("generic", "a.bin");
    for _ in 0..2 {
        let head = send("HEAD", &url, &[("Range", "bytes=1-2")]).await;
        assert_eq!(
            (
                head.status,
                head.header("content-length"),
                head.header("etag")
            ),
            (200, "7", "\"t\"")
        );
        assert_eq!(
            (head.source(), head.header("content-type")),
            ("remote", "text/x")
        );
    }
    assert_eq!(
        (
            origin.count("HEAD", "/a.bin"),
            origin.count("GET", "/a.bin")
        ),
        (2, 0)
    );
    assert_eq!(get(&url).await.source(), "remote", "nothing was kept");
    // Servers that know no HEAD are asked with a GET that is closed after its head.
    for status in [400, 403, 405, 501] {
        let path = format!("/only-get-{status}");
        origin.put(
            &path,
            Resource::new(Payload::generated(50_000_000, 1)).etag("\"g\""),
        );
        origin.behave_once(&path, Behaviour::Status(status));
        let head = send("HEAD", &larder.artifact("generic", &path[1..]), &[]).await;
        assert_eq!(
            (
                head.status,
                head.header("content-length"),
                head.header("etag")
            ),
            (200, "50000000", "\"g\""),
            "{status}"
        );
        assert_eq!(
            (origin.count("HEAD", &path), origin.count("GET", &path)),
            (1, 1),
            "{status}"
        );
    }
    assert_eq!(
        send("HEAD", &larder.artifact("generic", "none"), &[])
            .await
            .status,
        404
    );
    // Documents are derived: their length is only known then, and is GET's.
    pypi_json(
        &origin,
        "pantry",
        &[File::generated("pantry", "1.0", 10, 1)],
    );
    let page = larder.artifact("pypi", "simple/pantry/");
    let head = send("HEAD", &page, &[]).await;
    let body = get(&page).await.body;
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, &*body.len().to_string())
    );
    assert_eq!(
        (
            origin.count("HEAD", "/simple/pantry/"),
            origin.count("GET", "/simple/pantry/")
        ),
        (0, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_are_part_of_generic_and_helm_keys_and_dropped_elsewhere() {
    let origin = Origin::start().await;
    for query in ["", "?v=1", "?v=2", "?v=%31", "?countme=1"] {
        origin.put(
            &format!("/a{query}"),
            Resource::new(format!("with {query}")),
        );
    }
    pypi_json(
        &origin,
        "pantry",
        &[File::generated("pantry", "1.0", 10, 1)],
    );
    let larder = TestLarder::start(&one_of_each(&origin, "")).await;
    for repository in ["generic", "helm"] {
        for query in ["", "?v=1", "?v=2", "?v=%31"] {
            let answer = get(&larder.artifact(repository, &format!("a{query}"))).await;
            assert_eq!(answer.text(), format!("with {query}"), "{repository}");
        }
    }
    for query in ["", "?countme=1", "?ns=x", "?v=1"] {
        assert_eq!(
            get(&larder.artifact("pypi", &format!("simple/pantry/{query}")))
                .await
                .status,
            200,
            "{query}"
        );
    }
    assert_eq!(
        origin.count("GET", "/simple/pantry/"),
        1,
        "{:?}",
        origin.requests()
    );
    assert!(origin.requests().iter().all(|request| !request.target.starts_with("/simple/") || !request.target.contains('?')));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_ask_for_no_cache_get_the_copy_all_the_same() {
    let origin = Origin::start().await;
    origin.put("/a.bin", Resource::new("content"));
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    let url = larder.artifact("generic", "a.bin");
    get(&url).await;
    larder.hit(&url).await;
    for header in [
        ("Cache-Control", "no-cache"),
        ("Pragma", "no-cache"),
        ("Cache-Control", "max-age=0"),
    ] {
        assert_eq!(
            send("GET", &url, &[header]).await.source(),
            "cache",
            "{header:?}"
        );
    }
    assert_eq!(origin.requests().len(), 1);
}

/// Contract, section 5 [base]: the answer names the rule and carries the date; no way in evades it.
#[tokio::test(flavor = "multi_thread")]
async fn a_quarantined_file_is_404_on_every_way_in() {
    let origin = Origin::start().await;
    let an_hour_ago =
        httpdate(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(now_seconds() - 3_600));
    origin.put(
        "/new.tgz",
        Resource::new("fresh")
            .last_modified(&an_hour_ago)
            .etag("\"n\""),
    );
    origin.put(
        "/old.tgz",
        Resource::new("mature").last_modified("Wed, 01 Jan 2020 00:00:00 GMT"),
    );
    origin.put("/undated.tgz", Resource::new("undated"));
    let larder = TestLarder::start(&remote(
        "generic",
        &origin,
        "quarantine_new: true\nquarantine_days: 2",
    ))
    .await;
    for round in 0..2 {
        for (method, path, headers) in [
            ("GET", "new.tgz", &[][..]),
            ("HEAD", "new.tgz", &[]),
            ("GET", "new.tgz", &[("Range", "bytes=0-1")]),
            ("GET", "new.tgz", &[("If-None-Match", "\"n\"")]),
            ("GET", "%6eew.tgz", &[]),
            ("GET", "/new.tgz", &[]),
        ] {
            let answer = send(method, &larder.artifact("generic", path), headers).await;
            assert_eq!(
                answer.status,
                404,
                "{round} {method} {path} {headers:?}: {}",
                answer.text()
            );
            assert!(
                answer.header("x-larder-quarantine").starts_with("until=2"),
                "{method} {path}: {:?}",
                answer.headers
            );
            if method == "GET" {
                let rule = answer.json()["rule"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                assert!(rule.contains("quarantine"), "{}", answer.text());
            }
        }
    }
    assert_eq!(
        get(&larder.artifact("generic", "old.tgz")).await.text(),
        "mature"
    );
    assert_eq!(
        get(&larder.artifact("generic", "undated.tgz")).await.text(),
        "undated",
        "[base]: no date, no quarantine"
    );
}

#[expect(
    clippy::disallowed_methods,
    reason = "the time by which the program itself judges"
)]
pub(crate) fn now_seconds() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs()
}

/// IMF-fixdate (RFC 9110 section 5.6.7).
pub(crate) fn httpdate(time: std::time::SystemTime) -> String {
    httpdate::fmt_http_date(time)
}

/// Hazard W2: a body without a length and without a last chunk may have been cut, so each request asks the upstream again.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_whose_end_nothing_marks_is_never_a_hit() {
    let origin = Origin::start().await;
    origin.put("/f", Resource::new("whole or not"));
    origin.behave("/f", Behaviour::UntilClose);
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    let url = larder.artifact("generic", "f");
    for round in 1..=4 {
        let answer = get(&url).await;
        assert_eq!(
            (answer.status, answer.text().as_str(), answer.source()),
            (200, "whole or not", "remote")
        );
        assert!(
            answer.cache_status().ends_with("detail=not-kept"),
            "{}",
            answer.cache_status()
        );
        assert_eq!(max_age(&answer), 0);
        assert_eq!(origin.count("GET", "/f"), round);
    }
}

/// libfetch (apk, pkg) keeps a connection only if the answer says so, in the very words of HTTP/1.0.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_keep_alive_is_told_so() {
    let origin = Origin::start().await;
    origin.put("/f", Resource::new("content"));
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    let ask = |connection: &str| {
        format!("GET /api/v1/remote/generic/f HTTP/1.1\r\nHost: localhost\r\n{connection}\r\n")
    };
    let keep = ask("Connection: keep-alive\r\n");
    // A miss, then hits out of the hot set, then one that does not ask, then the end.
    let requests = [
        keep.as_str(),
        &keep,
        &keep,
        &ask(""),
        &ask("Connection: close\r\n"),
    ]
    .concat();
    let answers = crate::support::raw(larder.address(), requests.as_bytes())
        .await
        .to_lowercase();
    assert_eq!(answers.matches("http/1.1 200 ok").count(), 5, "{answers}");
    assert_eq!(
        answers.matches("connection: keep-alive\r\n").count(),
        3,
        "{answers}"
    );
    assert_eq!(
        answers.matches("connection: close\r\n").count(),
        1,
        "{answers}"
    );
}

/// Documentation trees have such a folder. Where no document links to other hosts, the name means nothing to larder.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_named_like_signed_links_is_a_folder_where_there_are_none() {
    let origin = Origin::start().await;
    origin.put("/_ext/conf.py", Resource::new("extensions = []"));
    let larder = TestLarder::start(&one_of_each(&origin, "")).await;
    assert_eq!(
        get(&larder.artifact("generic", "_ext/conf.py"))
            .await
            .text(),
        "extensions = []"
    );
    for repository in ["pypi", "npm", "helm"] {
        assert_eq!(
            get(&larder.artifact(repository, "_ext/conf.py"))
                .await
                .status,
            403,
            "{repository}"
        );
    }
}

/// The second request may come before the first one's record is visible: to its client it is a hit all the same.
#[tokio::test(flavor = "multi_thread")]
async fn the_request_after_a_download_is_a_hit_at_once() {
    let origin = Origin::start().await;
    origin.put("/large", Resource::new(Payload::generated(3 << 20, 1)));
    origin.put("/small", Resource::new("small"));
    put_indexes(&origin, &origin.url("/pantry-1.0.tar.gz"));
    let larder = TestLarder::start(&one_of_each(&origin, "")).await;
    let files = [("generic", "small"), ("generic", "large")];
    for (repository, path) in files.into_iter().chain(INDEXES) {
        for round in 0..20 {
            let answer = send(
                "PUT",
                &larder.url(&format!("cache/flush?remote={repository}")),
                &[],
            )
            .await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let url = larder.artifact(repository, path);
            let first = get(&url).await;
            assert_eq!(
                (first.status, first.source()),
                (200, "remote"),
                "{repository} {path}"
            );
            let second = get(&url).await;
            assert_eq!(
                (second.status, second.source()),
                (200, "cache"),
                "{repository} {path} in round {round}"
            );
            assert!(
                second.cache_status().starts_with("larder; hit"),
                "{repository} {path}: {}",
                second.cache_status()
            );
        }
    }
}
