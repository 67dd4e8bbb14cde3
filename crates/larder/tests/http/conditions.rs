//! `If-None-Match`, `If-Modified-Since`, `If-Match` (RFC 9110 section 13, contract, section 1).

use std::time::{Duration, SystemTime};

use larder_testkit::{Origin, Resource};

use crate::artifacts::{httpdate, now_seconds};
use crate::support::packages::remote;
use crate::support::{TestLarder, get, send};

const MODIFIED: &str = "Wed, 01 Jan 2020 00:00:00 GMT";

fn in_seconds(offset: i64) -> String {
    httpdate(
        SystemTime::UNIX_EPOCH + Duration::from_secs(now_seconds().saturating_add_signed(offset)),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn if_none_match_gives_304_for_any_tag_that_matches_weakly() {
    let origin = Origin::start().await;
    origin.put(
        "/strong",
        Resource::new("s").etag("\"s-1\"").last_modified(MODIFIED),
    );
    origin.put("/weak", Resource::new("w").etag("W/\"w-1\""));
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    for (path, tags, want) in [
        ("strong", "\"s-1\"", 304),
        ("strong", "W/\"s-1\"", 304),
        ("strong", "\"a\", \"s-1\" , \"b\"", 304),
        ("strong", "*", 304),
        ("strong", "\"s-2\"", 200),
        ("strong", "s-1", 200),
        ("strong", "\"S-1\"", 200),
        ("weak", "\"w-1\"", 304),
        ("weak", "W/\"w-1\"", 304),
        ("weak", "W/\"w-2\"", 200),
    ] {
        let url = larder.artifact("generic", path);
        let etag = get(&url).await.header("etag").to_owned();
        larder.hit(&url).await;
        for method in ["GET", "HEAD"] {
            let answer = send(method, &url, &[("If-None-Match", tags)]).await;
            assert_eq!(answer.status, want, "{method} {path} {tags}");
            assert_eq!(answer.header("etag"), etag, "{method} {path} {tags}");
            if want == 304 {
                assert_eq!(answer.body, b"");
                // RFC 9110 section 15.4.5: what 200 would have said of caching.
                assert_eq!(
                    answer.header("cache-control"),
                    "public, max-age=31536000, immutable"
                );
                assert_eq!(answer.header("content-type"), "");
                assert_eq!(answer.source(), "cache");
            }
        }
    }
    // With If-None-Match, If-Modified-Since counts for nothing.
    let url = larder.artifact("generic", "strong");
    let both = send(
        "GET",
        &url,
        &[
            ("If-None-Match", "\"other\""),
            ("If-Modified-Since", MODIFIED),
        ],
    )
    .await;
    assert_eq!(both.status, 200);
    // Conditions of the client are larder's business: none of them went upstream.
    assert!(
        origin
            .requests()
            .iter()
            .all(|request| request.header("if-none-match").is_none())
    );
}

/// Contract, section 1: 304 if the date equals the served `Last-Modified`, or is not before the moment larder began to serve that body.
#[tokio::test(flavor = "multi_thread")]
async fn if_modified_since_means_the_body_that_larder_served_then() {
    let origin = Origin::start().await;
    origin.put("/dated", Resource::new("1").last_modified(MODIFIED));
    origin.put("/undated", Resource::new("1"));
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    for (path, since, want) in [
        ("dated", MODIFIED.to_owned(), 304),
        ("dated", "Tue, 31 Dec 2019 23:59:59 GMT".to_owned(), 200),
        // Later than the upstream's date, but the client may have had another body then.
        ("dated", "Thu, 02 Jan 2020 00:00:00 GMT".to_owned(), 200),
        ("dated", in_seconds(-600), 200),
        ("dated", in_seconds(5), 304),
        ("dated", "yesterday".to_owned(), 200),
        ("dated", String::new(), 200),
        ("undated", in_seconds(-600), 200),
        ("undated", in_seconds(5), 304),
    ] {
        let url = larder.artifact("generic", path);
        get(&url).await;
        larder.hit(&url).await;
        let answer = send("GET", &url, &[("If-Modified-Since", &since)]).await;
        assert_eq!(answer.status, want, "{path} since {since:?}");
    }
}

/// docs/reference/protocols/generic-http.md, line 23: apk sends the time of its last fetch.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_replaced_another_is_not_304_for_the_time_of_the_other() {
    let origin = Origin::start().await;
    origin.put(
        "/index",
        Resource::new("old").last_modified("Wed, 01 Jan 2020 00:00:00 GMT"),
    );
    let larder = TestLarder::start(&remote(
        "generic",
        &origin,
        "mutable_patterns: [index]\ncache: { mutable_ttl: 0 }",
    ))
    .await;
    let url = larder.artifact("generic", "index");
    assert_eq!(get(&url).await.text(), "old");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let fetched = in_seconds(0);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    // Published before the client's fetch, seen by larder after it.
    origin.put(
        "/index",
        Resource::new("new").last_modified("Thu, 02 Jan 2020 00:00:00 GMT"),
    );
    let answer = send("GET", &url, &[("If-Modified-Since", &fetched)]).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "new"));
}

#[tokio::test(flavor = "multi_thread")]
async fn if_match_and_if_unmodified_since_fail_with_412() {
    let origin = Origin::start().await;
    origin.put(
        "/a",
        Resource::new("a").etag("\"a-1\"").last_modified(MODIFIED),
    );
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    let url = larder.artifact("generic", "a");
    get(&url).await;
    larder.hit(&url).await;
    for (name, value, want) in [
        ("If-Match", "\"a-1\"", 200),
        ("If-Match", "*", 200),
        ("If-Match", "\"a-2\"", 412),
        ("If-Match", "W/\"a-1\"", 412),
        ("If-Unmodified-Since", MODIFIED, 200),
        ("If-Unmodified-Since", "Tue, 31 Dec 2019 00:00:00 GMT", 412),
    ] {
        let answer = send("GET", &url, &[(name, value)]).await;
        assert_eq!(answer.status, want, "{name}: {value}");
        if want == 412 {
            assert_eq!(answer.json()["repository"], "generic", "{}", answer.text());
        }
    }
}
