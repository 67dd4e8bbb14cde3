//! `PUT /cache/flush` [base]: what it drops, what it leaves, what it counts.

use larder_testkit::{Origin, Payload, Resource};

use crate::support::client::client;
use crate::support::packages::{INDEXES, entry, one_of_each, put_indexes, remote};
use crate::support::{TestLarder, get, send};

const LISTED: &str = "mutable_patterns: ['^list']";

async fn flush(larder: &TestLarder, query: &str) -> (u64, u64, bool) {
    let answer = send("PUT", &larder.url(&format!("/cache/flush{query}")), &[]).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/json"),
        "{query}: {}",
        answer.text()
    );
    let counts = &answer.json()["flushed"];
    let number = |name: &str| {
        counts[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name}: {}", answer.text()))
    };
    (
        number("index"),
        number("files"),
        counts["metrics"].as_bool().expect("a truth value"),
    )
}

/// Two repositories, each with two lists and three files held.
async fn filled() -> (Origin, TestLarder) {
    let origin = Origin::start().await;
    let config = [
        entry("a", "generic", &origin, LISTED),
        entry("b", "generic", &origin, LISTED),
    ];
    let larder = TestLarder::start(&format!("remotes:\n{}", config.concat())).await;
    for path in ["list-1", "list-2", "x.tgz", "y.tgz", "z.zip"] {
        origin.put(&format!("/{path}"), Resource::new(path));
        for repository in ["a", "b"] {
            let url = larder.artifact(repository, path);
            get(&url).await;
            larder.hit(&url).await;
        }
    }
    for repository in ["a", "b"] {
        larder
            .until_metric("larder_repository_fills_committed_total", repository, 5.0)
            .await;
    }
    origin.reset_log();
    (origin, larder)
}

/// The paths of a repository that are still served from the cache.
async fn held(larder: &TestLarder, repository: &str) -> Vec<&'static str> {
    let mut held = Vec::new();
    for path in ["list-1", "list-2", "x.tgz", "y.tgz", "z.zip"] {
        if get(&larder.artifact(repository, path)).await.source() == "cache" {
            held.push(path);
        }
    }
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_of_every_repository_without_parameters() {
    let (origin, larder) = filled().await;
    assert_eq!(flush(&larder, "").await, (4, 6, false));
    assert_eq!(held(&larder, "a").await, [""; 0]);
    assert_eq!(held(&larder, "b").await, [""; 0]);
    assert_eq!(origin.requests().len(), 10, "each was fetched anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_repository_one_kind_or_what_a_pattern_names() {
    let all = ["list-1", "list-2", "x.tgz", "y.tgz", "z.zip"];
    for (query, counts, left) in [
        ("?remote=a", (2, 3), &[][..]),
        ("?remote=a&cache_type=all", (2, 3), &[]),
        (
            "?remote=a&cache_type=index",
            (2, 0),
            &["x.tgz", "y.tgz", "z.zip"],
        ),
        ("?remote=a&cache_type=files", (0, 3), &["list-1", "list-2"]),
        ("?remote=a&cache_type=metrics", (0, 0), &all),
        (
            "?remote=a&pattern=%5C.tgz%24",
            (0, 2),
            &["list-1", "list-2", "z.zip"],
        ),
        (
            "?remote=a&pattern=1%7Cx&cache_type=index",
            (1, 0),
            &["list-2", "x.tgz", "y.tgz", "z.zip"],
        ),
        (
            "?remote=a&pattern=%5E(%3F!list).*%24",
            (0, 3),
            &["list-1", "list-2"],
        ),
        ("?remote=a&pattern=nothing", (0, 0), &all),
    ] {
        let (_origin, larder) = filled().await;
        let (index, files, metrics) = flush(&larder, query).await;
        assert_eq!((index, files), counts, "{query}");
        assert_eq!(
            metrics,
            query.contains("cache_type=metrics"),
            "copies are flushed, counters count on: {query}"
        );
        assert_eq!(held(&larder, "a").await, left, "{query}");
        assert_eq!(
            held(&larder, "b").await,
            all,
            "{query}: another repository's copies"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_start_anew() {
    let (_origin, larder) = filled().await;
    assert!(
        larder
            .metric("larder_repository_misses_total", "\"a\"")
            .await
            >= 5.0
    );
    assert!(
        !flush(&larder, "?remote=b").await.2 && !flush(&larder, "?remote=b&cache_type=all").await.2
    );
    assert!(
        larder
            .metric("larder_repository_misses_total", "\"b\"")
            .await
            >= 5.0,
        "copies are flushed, counters count on"
    );
    assert!(larder.metric("larder_sent_bytes_total", "\"b\"").await >= 5.0);
    assert!(flush(&larder, "?cache_type=metrics").await.2);
    assert!(
        larder
            .metric("larder_repository_misses_total", "\"a\"")
            .await
            < 1.0
    );
    assert_eq!(held(&larder, "a").await.len(), 5);
}

/// All that is labelled with it, and nothing of others.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_of_one_repository_start_anew() {
    let (_origin, larder) = filled().await;
    for repository in ["a", "b"] {
        let nothing = larder.artifact(repository, "..%2fx");
        assert_eq!(get(&nothing).await.status, 400);
    }
    let families = [
        "larder_repository_misses_total",
        "larder_requests_total",
        "larder_sent_bytes_total",
        "larder_refusals_total",
    ];
    let counted = async |repository: &str| {
        let label = format!("repository=\"{repository}\"");
        let mut counted = Vec::new();
        for family in families {
            counted.push(larder.metric(family, &label).await);
        }
        counted
    };
    let others = counted("b").await;
    assert!(others.iter().all(|count| *count >= 1.0), "{others:?}");
    assert!(flush(&larder, "?remote=a&cache_type=metrics").await.2);
    assert_eq!(counted("a").await, [0.0; 4]);
    assert_eq!(counted("b").await, others);
    let health = get(&larder.url("health")).await.json();
    let refused = health["refusals"].as_array().expect("a list");
    assert!(
        refused.len() == 1 && refused[0]["repository"] == "b",
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_that_could_be_a_misspelt_restriction_are_refused() {
    let (origin, larder) = filled().await;
    for (query, want) in [
        ("?remote=nobody", 404),
        ("?remote=", 404),
        ("?remote=a&remote=b", 400),
        ("?repo=a", 400),
        ("?cache_type=indexes", 400),
        ("?cache_type=", 400),
        ("?pattern=(", 400),
        ("?pattern=", 400),
        ("?remote=a&pattern=&cache_type=files", 400),
        ("?pattern=%00", 400),
        ("?remote=a&x", 400),
    ] {
        let answer = send("PUT", &larder.url(&format!("/cache/flush{query}")), &[]).await;
        assert_eq!(answer.status, want, "{query}: {}", answer.text());
        assert!(answer.json()["error"].is_string(), "{query}");
    }
    for method in ["GET", "POST", "DELETE"] {
        let answer = send(method, &larder.url("/cache/flush"), &[]).await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, "PUT"),
            "{method}"
        );
    }
    assert_eq!(held(&larder, "a").await.len(), 5, "nothing was dropped");
    assert_eq!(origin.requests(), []);
}

/// `curl -X PUT -d remote=a` without `-G` sends the restriction as a body.
#[tokio::test(flavor = "multi_thread")]
async fn a_restriction_in_the_body_flushes_nothing() {
    let (_origin, larder) = filled().await;
    for (kind, body) in [
        ("application/x-www-form-urlencoded", "remote=a"),
        ("application/json", "{\"remote\":\"a\"}"),
    ] {
        let request = client()
            .put(larder.url("/cache/flush"))
            .header("content-type", kind)
            .body(body);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 400, "{body}");
        let told: serde_json::Value =
            serde_json::from_str(&answer.text().await.expect("a body")).expect("JSON");
        assert!(
            told["error"]
                .as_str()
                .is_some_and(|told| told.contains("query")),
            "{told}"
        );
    }
    assert_eq!(held(&larder, "a").await.len(), 5, "nothing was dropped");
    assert_eq!(held(&larder, "b").await.len(), 5, "nothing was dropped");
    // An empty one restricts nothing.
    let empty = client().put(larder.url("/cache/flush?remote=a")).body("");
    assert_eq!(empty.send().await.expect("an answer").status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_of_every_format_are_dropped_with_what_was_derived_from_them() {
    let origin = Origin::start().await;
    put_indexes(&origin, &origin.url("/pantry-1.0.tar.gz"));
    let larder = TestLarder::start(&one_of_each(&origin, "")).await;
    for (repository, path) in INDEXES {
        let url = larder.artifact(repository, path);
        get(&url).await;
        larder.hit(&url).await;
    }
    for (repository, least) in [("pypi", 2.0), ("npm", 1.0), ("helm", 1.0)] {
        larder
            .until_metric("larder_repository_fills_committed_total", repository, least)
            .await;
    }
    put_indexes(&origin, &origin.url("/elsewhere/pantry-1.0.tar.gz"));
    let (index, files, _) = flush(&larder, "?cache_type=index").await;
    assert_eq!((index, files), (4, 0));
    for (repository, path) in INDEXES
        .into_iter()
        .filter(|(repository, _)| *repository != "npm")
    {
        let answer = get(&larder.artifact(repository, path)).await;
        assert!(
            answer.text().contains("elsewhere/pantry-1.0.tar.gz"),
            "{repository}: {}",
            answer.text()
        );
    }
}

/// Contract, section 3: a download begun before a flush of its path serves its readers and commits nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_download_begun_before_the_flush_serves_its_readers_and_is_not_kept() {
    let origin = Origin::start().await;
    let old = Payload::generated(4 << 20, 1);
    origin.put("/f", Resource::new(old.clone()));
    origin.hold_body("/f", 2 << 20);
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    let url = larder.artifact("generic", "f");
    let running = client().get(&url).send().await.expect("a head");
    origin.put("/f", Resource::new("new"));
    flush(&larder, "").await;
    origin.release("/f");
    assert!(
        running.bytes().await.expect("the rest") == old.slice(0, 4 << 20),
        "its reader gets what it began with"
    );
    assert_eq!(get(&url).await.text(), "new");
    assert_eq!(larder.hit(&url).await.text(), "new");
    assert_eq!(origin.count("GET", "/f"), 2);
}
