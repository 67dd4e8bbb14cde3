//! Paths with `.` and empty segments (RFC 3986 section 5.2.4): one file, one key, one policy, and the upstream sees the plain spelling.

use http::Method;
use larder_core::{FaultKind, Pattern};
use larder_engine::FlushRequest;
use larder_testkit::Payload;

use crate::refusal;
use crate::support::{Bench, publish};

/// Other spellings of a path.
fn spellings(path: &str) -> Vec<String> {
    let doubled = path.replace('/', "//");
    let dotted = path.replace('/', "/./");
    vec![
        format!("./{path}"),
        format!("/{path}"),
        format!("//.//{path}"),
        doubled,
        dotted,
    ]
}

#[tokio::test]
async fn every_spelling_is_one_file_in_every_format() {
    for format in ["generic", "pypi", "npm", "helm", "alpine", "rpm"] {
        let bench = Bench::new().await;
        let (path, at) = match format {
            "alpine" => (
                "v3/main/x86_64/a-1-r0.apk".to_owned(),
                "/v3/main/x86_64/a-1-r0.apk".to_owned(),
            ),
            "rpm" => (
                "el9/Packages/a-1.rpm".to_owned(),
                "/el9/Packages/a-1.rpm".to_owned(),
            ),
            format => {
                let file = publish(&bench.origin, format, &Payload::generated(10, 1), "\"f\"");
                (file.path.clone(), file.at)
            }
        };
        bench.origin.put(
            &at,
            larder_testkit::Resource::new(Payload::generated(10, 1)).etag("\"f\""),
        );
        for spelling in [vec![path.clone()], spellings(&path)].concat() {
            for method in [Method::GET, Method::HEAD] {
                let got = bench.ask(method, format, &spelling, &[]).await;
                assert_eq!(
                    got.map(|got| got.answer.status),
                    Ok(200),
                    "{format} {spelling}"
                );
            }
            bench.settled().await;
        }
        assert_eq!(
            bench.origin.count("*", &at),
            1,
            "{format}: {:?}",
            bench.origin.requests()
        );
        let strange: Vec<_> = bench
            .origin
            .requests()
            .into_iter()
            .filter(|r| r.path().contains("//") || r.path().contains("/."))
            .collect();
        assert!(strange.is_empty(), "{strange:?}");
        for refused in [
            format!("x/../{path}"),
            format!("%2e/{path}"),
            format!("./%2e%2e/{path}"),
            format!("a%2f/{path}"),
        ] {
            assert_eq!(
                refusal(bench.get(format, &refused).await),
                (FaultKind::BadRequest, "invalid_path"),
                "{format} {refused}"
            );
        }
    }
}

#[tokio::test]
async fn every_spelling_is_one_document() {
    for (format, path, spelling) in [
        ("pypi", "simple/demo/", "simple/demo/."),
        ("pypi", "simple/demo/", "simple//demo/.//"),
        ("npm", "demo", "./demo"),
        ("helm", "index.yaml", ".//index.yaml"),
    ] {
        let bench = Bench::new().await;
        let file = publish(&bench.origin, format, &Payload::generated(10, 1), "\"f\"");
        assert_eq!(file.document, path, "the fixture's document");
        let plain = bench.get(format, path).await.unwrap();
        bench.settled().await;
        let asked = bench.origin.requests().len();
        let folded = bench.get(format, spelling).await.unwrap();
        assert_eq!(
            (folded.bytes(), folded.is_hit()),
            (plain.bytes(), true),
            "{format} {spelling}"
        );
        assert_eq!(bench.origin.requests().len(), asked);
    }
}

/// Patterns, quarantine and the flush see the plain spelling: none of them can be passed by writing it otherwise.
#[tokio::test]
async fn no_rule_is_passed_by_another_spelling() {
    let bench = Bench::with(|repository| {
        repository.access.immutable = Some(vec![Pattern::compile("^pool/").unwrap()]);
        repository.access.deny = vec![Pattern::compile("^pool/secret").unwrap()];
        repository.quarantine.hold = Some(std::time::Duration::from_hours(72));
    })
    .await;
    for (at, days) in [
        ("/pool/old", 10),
        ("/pool/new", 1),
        ("/pool/secret", 10),
        ("/other", 10),
    ] {
        bench.origin.put(
            at,
            larder_testkit::Resource::new("x").last_modified(&crate::support::days_ago(days)),
        );
    }
    for (path, code) in [
        ("pool/new", "quarantined"),
        ("pool/secret", "pattern_denied"),
        ("other", "pattern_denied"),
    ] {
        for spelling in [vec![path.to_owned()], spellings(path)].concat() {
            assert_eq!(
                refusal(bench.get("generic", &spelling).await).1,
                code,
                "{spelling}"
            );
        }
    }
    for spelling in spellings("pool/old") {
        bench.get("generic", &spelling).await.unwrap();
        bench.settled().await;
    }
    let request = FlushRequest {
        pattern: Some("^pool/old$".to_owned()),
        ..FlushRequest::default()
    };
    assert_eq!(
        bench.engine.flush(request).await.unwrap().files,
        1,
        "one key"
    );
}

/// A query is no part of the path: the dot before it is folded, what stands in it is not.
#[tokio::test]
async fn a_dot_before_a_query_is_folded_and_the_query_is_left_alone() {
    let bench = Bench::new().await;
    bench
        .origin
        .put("/a/", larder_testkit::Resource::new("folder"));
    bench.get("generic", "a/.?x=./y//z").await.unwrap();
    assert_eq!(bench.origin.requests()[0].target, "/a/?x=./y//z");
}
