//! The pipeline over a real HTTP client and real storage: miss, hit, expiry, stale, negative, quarantine, claims, derivations.

mod support;

use std::time::Duration;

use http::Method;
use larder_core::*;
use larder_testkit::{Behaviour, Payload, Resource};
use support::Bench;

fn resource(body: &'static str) -> Resource {
    Resource::new(body)
        .etag("\"v1\"")
        .last_modified("Thu, 01 Jan 2026 00:00:00 GMT")
        .content_type("text/plain")
}

#[tokio::test]
async fn a_miss_is_fetched_once_and_then_served_from_the_cache() {
    let bench = Bench::new().await;
    bench.origin.put("/a/file.txt", resource("hello"));
    let first = bench.get("generic", "a/file.txt").await.unwrap();
    assert_eq!(
        (first.text().as_str(), first.answer.source),
        ("hello", Source::Remote)
    );
    bench.settled().await;
    let second = bench.get("generic", "a/file.txt").await.unwrap();
    assert_eq!(
        (second.text().as_str(), second.answer.source),
        ("hello", Source::Cache)
    );
    assert!(second.answer.hot);
    assert_eq!(second.answer.representation.etag.as_deref(), Some("\"v1\""));
    assert_eq!(bench.origin.count("GET", "/a/file.txt"), 1);
}

#[tokio::test]
async fn hazard_a1_many_cold_clients_cause_one_request_and_all_get_the_bytes() {
    let bench = Bench::new().await;
    let body: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    bench
        .origin
        .put("/big.bin", Resource::new(body.clone()).etag("\"b\""));
    bench.origin.behave(
        "/big.bin",
        Behaviour::Throttle {
            bytes_per_second: 10_000_000,
        },
    );
    let clients: Vec<_> = (0..64)
        .map(|_| {
            let engine = std::sync::Arc::clone(&bench.engine);
            tokio::spawn(async move {
                support::ask(&engine, Method::GET, "generic", "big.bin", &[]).await
            })
        })
        .collect();
    for client in clients {
        assert_eq!(client.await.unwrap().unwrap().bytes(), &body);
    }
    assert_eq!(bench.origin.count("GET", "/big.bin"), 1);
}

#[tokio::test]
async fn an_expired_mutable_copy_is_served_when_the_upstream_is_down_and_its_life_starts_anew() {
    let mut bench =
        Bench::with(|r| r.access.mutable = Some(vec![Pattern::compile("idx$").unwrap()])).await;
    bench.origin.put("/idx", resource("one"));
    bench.get("generic", "idx").await.unwrap();
    bench.settled().await;
    bench.origin.stop().await;
    bench.wait(3601);
    let stale = bench.get("generic", "idx").await.unwrap();
    assert_eq!(
        (stale.text().as_str(), stale.answer.source),
        ("one", Source::Cache)
    );
    bench.settled().await;
    let again = bench.get("generic", "idx").await.unwrap();
    assert!(
        again.answer.cache_status.contains("hit"),
        "{}",
        again.answer.cache_status
    );
}

#[tokio::test]
async fn a_user_defined_mutable_path_is_revalidated_by_head() {
    let bench = Bench::with(|r| {
        r.access.mutable = Some(vec![Pattern::compile("idx$").unwrap()]);
        r.cache.check_mutable_updates = true;
    })
    .await;
    bench.origin.put("/idx", resource("one"));
    bench.get("generic", "idx").await.unwrap();
    bench.settled().await;
    bench.wait(3601);
    let renewed = bench.get("generic", "idx").await.unwrap();
    assert_eq!(renewed.text(), "one");
    assert_eq!(
        (
            bench.origin.count("HEAD", "/idx"),
            bench.origin.count("GET", "/idx")
        ),
        (1, 1)
    );
    let head = bench
        .origin
        .requests()
        .into_iter()
        .find(|r| r.method == "HEAD")
        .unwrap();
    assert_eq!(head.header("if-none-match"), Some("\"v1\""));
    assert_eq!(
        head.header("if-modified-since"),
        Some("Thu, 01 Jan 2026 00:00:00 GMT")
    );
}

#[tokio::test]
async fn hazard_a6_an_upstream_404_is_remembered_for_its_negative_ttl_only() {
    let bench = Bench::new().await;
    let missing = bench.get("generic", "no").await.unwrap_err();
    assert_eq!(missing.kind, FaultKind::Upstream(404));
    bench.settled().await;
    bench.get("generic", "no").await.unwrap_err();
    assert_eq!(bench.origin.count("GET", "/no"), 1);
    bench.origin.put("/no", resource("now it is"));
    bench.wait(11);
    assert_eq!(
        bench.get("generic", "no").await.unwrap().text(),
        "now it is"
    );
}

#[tokio::test]
async fn hazard_w1_a_short_body_is_a_clean_failure_and_nothing_is_kept() {
    let bench = Bench::new().await;
    bench.origin.put("/f", Resource::new(vec![7_u8; 100_000]));
    bench
        .origin
        .behave_times("/f", 4, Behaviour::Truncate { after: 5000 });
    let fault = bench.get("generic", "f").await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::BadGateway);
    bench.settled().await;
    bench.origin.clear("/f");
    assert_eq!(
        bench.get("generic", "f").await.unwrap().bytes().len(),
        100_000
    );
}

#[tokio::test]
async fn a_cut_is_repaired_by_a_range_request() {
    let bench = Bench::new().await;
    let body: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 241) as u8).collect();
    bench
        .origin
        .put("/f", Resource::new(body.clone()).etag("\"strong\""));
    bench
        .origin
        .behave_once("/f", Behaviour::Truncate { after: 2_000_000 });
    let got = bench.get("generic", "f").await.unwrap();
    assert_eq!(got.bytes(), &body);
    let requests = bench.origin.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests[1].header("range").unwrap().starts_with("bytes="));
    assert_eq!(requests[1].header("if-range"), Some("\"strong\""));
}

/// What a document states of a file tells at the end whether the parts belong together.
#[tokio::test]
async fn a_cut_is_repaired_without_a_strong_tag_where_a_digest_is_known() {
    for format in ["pypi", "npm", "helm"] {
        let bench = Bench::new().await;
        let body = Payload::generated(3 << 20, 1);
        let file = support::publish(&bench.origin, format, &body, "W/\"weak\"");
        bench.get(format, file.document).await.unwrap();
        let cut = Behaviour::Truncate { after: 1 << 20 };
        bench.origin.behave_times(&file.at, 2, cut);
        let got = bench.get(format, &file.path).await.unwrap();
        assert_eq!(got.bytes(), &body.slice(0, body.length()), "{format}");
        let requests = bench.origin.requests();
        let asked = requests.iter().filter(|one| one.path() == file.at);
        let ranges: Vec<_> = asked.map(|one| one.header("range")).collect();
        let expected = [None, Some("bytes=1048576-"), Some("bytes=2097152-")];
        assert_eq!(ranges, expected, "{format}");
    }
}

#[tokio::test]
async fn quarantine_holds_a_young_artifact_on_every_request_without_asking_again() {
    let bench = Bench::with(|r| r.quarantine.hold = Some(Duration::from_secs(3 * 86_400))).await;
    let yesterday = UnixMillis(support::START.0 - 86_400_000).to_http_date();
    bench
        .origin
        .put("/new.tgz", Resource::new("young").last_modified(&yesterday));
    for _ in 0..2 {
        let held = bench.get("generic", "new.tgz").await.unwrap_err();
        assert_eq!(
            (held.kind, held.code.as_str()),
            (FaultKind::NotFound, "quarantined")
        );
        assert!(held.held_until.is_some());
        bench.settled().await;
    }
    assert_eq!(bench.origin.count("GET", "/new.tgz"), 1);
    bench.wait(2 * 86_400 + 1);
    assert_eq!(
        bench.get("generic", "new.tgz").await.unwrap().text(),
        "young"
    );
}

#[tokio::test]
async fn npm_tarballs_are_checked_against_the_packument() {
    let bench = Bench::new().await;
    let url = bench.origin.url("/demo/-/demo-1.0.0.tgz");
    let integrity = "sha512-m3HSJL1i83hdltRq0+o9czGb+8KJDKra4t/3JRlnPKcjI8PZm6XBHXx6zG4UuMXaDEZjR1wuXDre9G9zvN7AQw==";
    let packument = format!(
        r#"{{"name":"demo","dist-tags":{{"latest":"1.0.0"}},"versions":{{"1.0.0":{{"name":"demo","version":"1.0.0","dist":{{"tarball":"{url}","integrity":"{integrity}"}}}}}}}}"#
    );
    bench.origin.put(
        "/demo",
        Resource::new(packument).content_type("application/json"),
    );
    bench
        .origin
        .put("/demo/-/demo-1.0.0.tgz", Resource::new("hello"));
    assert_eq!(
        bench
            .get("npm", "demo/-/demo-1.0.0.tgz")
            .await
            .unwrap()
            .text(),
        "hello"
    );
    let document = bench.get("npm", "demo").await.unwrap();
    assert!(
        document
            .text()
            .contains("http://larder.test/api/v1/remote/npm/demo/-/demo-1.0.0.tgz"),
        "{}",
        document.text()
    );
    bench
        .origin
        .put("/demo/-/demo-1.0.0.tgz", Resource::new("tampered"));
    bench
        .engine
        .flush(larder_engine::FlushRequest::default())
        .await
        .unwrap();
    let fault = bench.get("npm", "demo/-/demo-1.0.0.tgz").await.unwrap_err();
    assert_eq!(
        (fault.kind, fault.code.as_str()),
        (FaultKind::BadGateway, "digest_mismatch")
    );
}

/// pip compares hashes, and no sizes.
#[tokio::test]
async fn a_size_that_alone_differs_from_the_page_s_refuses_no_file() {
    let bench = Bench::new().await;
    let url = bench.origin.url("/packages/demo-1.0.tar.gz");
    let page = format!(
        r#"{{"meta":{{"api-version":"1.1"}},"name":"demo","versions":["1.0"],"files":[{{"filename":"demo-1.0.tar.gz","url":"{url}","size":7,"hashes":{{"sha256":"{}"}}}}]}}"#,
        sha256(b"hello").to_hex()
    );
    bench.origin.put(
        "/simple/demo/",
        Resource::new(page).content_type("application/vnd.pypi.simple.v1+json"),
    );
    bench
        .origin
        .put("/packages/demo-1.0.tar.gz", Resource::new("hello"));
    bench.get("pypi", "simple/demo/").await.unwrap();
    assert_eq!(
        bench
            .get("pypi", "packages/demo-1.0.tar.gz")
            .await
            .unwrap()
            .text(),
        "hello"
    );
    bench.settled().await;
    assert!(
        bench
            .record("pypi", "packages/demo-1.0.tar.gz", "")
            .await
            .unwrap()
            .verified
    );
}

#[tokio::test]
async fn hazard_w5_a_cold_file_is_checked_although_its_index_arrives_with_it() {
    let bench = Bench::new().await;
    let page = "<!DOCTYPE html><html><head><title>Links for demo</title></head><body>\
        <a href=\"/files/demo-1.0-py3-none-any.whl#sha256=2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824\">demo-1.0-py3-none-any.whl</a>\
        </body></html>";
    bench.origin.put(
        "/simple/demo/",
        Resource::new(page).content_type("text/html"),
    );
    bench.origin.put(
        "/files/demo-1.0-py3-none-any.whl",
        Resource::new("tampered"),
    );
    for _ in 0..3 {
        let fault = bench
            .get("pypi", "files/demo-1.0-py3-none-any.whl")
            .await
            .unwrap_err();
        assert_eq!(
            (fault.kind, fault.code.as_str()),
            (FaultKind::BadGateway, "digest_mismatch")
        );
    }
    bench
        .origin
        .put("/files/demo-1.0-py3-none-any.whl", Resource::new("hello"));
    assert_eq!(
        bench
            .get("pypi", "files/demo-1.0-py3-none-any.whl")
            .await
            .unwrap()
            .text(),
        "hello"
    );
}
