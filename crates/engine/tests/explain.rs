//! Explanations: what they say, that they are what a GET comes to, and that they ask nobody and change nothing.
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

mod support;

use std::time::Duration;

use http::{HeaderMap, Method};
use larder_core::{
    ErrorCode, Fault, FaultKind, Mount, Pattern, Principal, Repository, RepositoryKind, UnixMillis,
};
use larder_engine::{ArtifactRequest, Explanation, Point, PointValue};
use larder_testkit::{Payload, Resource};
use support::{Bench, FORMATS, START, days_ago, publish, upstream};

const DAY: u64 = 86_400;

async fn explain(bench: &Bench, repository: &str, raw_path: &str) -> Result<Explanation, Fault> {
    let base = "http://larder.example.com";
    bench
        .engine
        .explain(&ArtifactRequest {
            repository,
            raw_path,
            query: None,
            method: &Method::GET,
            headers: &HeaderMap::new(),
            principal: Principal::Anonymous,
            mount: Mount::api(base, RepositoryKind::Remote, repository),
            body: bytes::Bytes::new(),
        })
        .await
}

fn text(point: &Point) -> &str {
    match &point.value {
        PointValue::Text(text) => text,
        PointValue::None => "",
        PointValue::Seconds(_) => "a number",
    }
}

fn by(point: &Point) -> &str {
    point.decided_by.as_deref().unwrap_or_default()
}

/// A point's value and the line that decided.
fn said(point: &Point) -> (&str, &str) {
    (text(point), by(point))
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    let compile = |text: &&str| Pattern::compile(text).unwrap();
    texts.iter().map(compile).collect()
}

fn rules(repository: &mut Repository) {
    let access = &mut repository.access;
    access.deny = patterns(&["never", "secret"]);
    access.allow = patterns(&["^x", "^(team|shared|packages|simple)/"]);
    access.mutable = Some(patterns(&["nothing", "\\.idx$"]));
    access.immutable = Some(patterns(&["\\.tgz$", "\\.whl$", "\\.bin$"]));
    repository.cache.immutable_ttl = Some(Duration::from_secs(50));
}

#[tokio::test]
async fn patterns_are_named_with_their_place_and_the_class_that_they_give() {
    let bench = Bench::with(rules).await;
    for (path, pattern, key, class, allowed) in [
        (
            "team/a.tgz",
            "\\.tgz$",
            "immutable_patterns[0]",
            "immutable",
            1,
        ),
        (
            "x/a.bin",
            "\\.bin$",
            "immutable_patterns[2]",
            "immutable",
            0,
        ),
        (
            "shared/a.idx",
            "\\.idx$",
            "mutable_patterns[1]",
            "mutable",
            1,
        ),
    ] {
        let made = explain(&bench, "generic", path).await.unwrap();
        let key = format!("remotes.generic.{key}");
        assert_eq!(said(&made.pattern), (pattern, &*key), "{path}");
        assert_eq!(said(&made.class), (class, &*key), "{path}");
        let allow = format!("remotes.generic.allow_patterns[{allowed}]");
        assert!(
            made.pattern.because.contains(&allow),
            "{}",
            made.pattern.because
        );
        assert_eq!(said(&made.verdict), ("fetch", ""), "{path}");
        assert_eq!(said(&made.freshness), ("not held", ""), "{path}");
        assert_eq!(
            said(&made.quarantine),
            ("off", "remotes.generic.quarantine_new")
        );
    }
    for (path, pattern, key) in [
        ("team/secret/a.tgz", "secret", "deny_patterns[1]"),
        ("other/a.tgz", "", "allow_patterns"),
        ("team/a.txt", "", "immutable_patterns"),
    ] {
        let made = explain(&bench, "generic", path).await.unwrap();
        let key = format!("remotes.generic.{key}");
        assert_eq!(said(&made.verdict), ("deny", &*key), "{path}");
        assert_eq!(said(&made.pattern), (pattern, &*key), "{path}");
        // The rule is the one that a GET names.
        let fault = bench.get("generic", path).await.unwrap_err();
        let rule = fault.rule.unwrap();
        assert!(key.contains(&rule), "{key} {rule}");
    }
    // A format's own patterns.
    let made = explain(&bench, "pypi", "simple/demo/").await.unwrap();
    assert_eq!(said(&made.class), ("mutable", ""));
    assert!(
        made.class.because.contains("built in"),
        "{}",
        made.class.because
    );
}

#[tokio::test]
async fn nobody_is_asked_nothing_is_counted_and_nothing_is_kept() {
    let bench = Bench::with(rules).await;
    bench.origin.put("/team/a.tgz", Resource::new("a"));
    for _ in 0..3 {
        for path in ["team/a.tgz", "team/secret", "_ext/x/y/z"] {
            explain(&bench, "generic", path).await.unwrap();
        }
    }
    bench.settled().await;
    assert!(bench.origin.requests().is_empty());
    assert_eq!(bench.metadata.counts().await.unwrap().records, 0);
    let counters = bench.engine.repository_counters();
    let (_, generic) = counters
        .iter()
        .find(|(name, _)| name.as_str() == "generic")
        .unwrap();
    for (counter, value) in generic.snapshot() {
        assert_eq!(value, 0, "{counter}");
    }
}

/// From nothing held to an expired copy and a remembered absence: each time what a GET then does.
#[tokio::test]
async fn freshness_says_what_a_get_would_come_to() {
    let bench = Bench::with(|r| {
        rules(r);
        r.cache.negative_ttl = Duration::from_secs(10);
    })
    .await;
    bench
        .origin
        .put("/team/a.tgz", Resource::new("abc").etag("\"1\""));
    bench.get("generic", "team/a.tgz").await.unwrap();
    bench.settled().await;
    let made = explain(&bench, "generic", "team/a.tgz").await.unwrap();
    let ttl = "remotes.generic.cache.immutable_ttl";
    assert_eq!(
        (&made.ttl.value, by(&made.ttl)),
        (&PointValue::Seconds(50), ttl)
    );
    assert_eq!(said(&made.freshness), ("fresh", ttl));
    assert_eq!(made.freshness.until, Some(UnixMillis(START.0 + 50_000)));
    assert_eq!(said(&made.verdict), ("serve", ttl));
    // The digest of `abc` (FIPS 180-2, appendix B.1).
    assert_eq!(
        text(&made.digest),
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    assert!(bench.get("generic", "team/a.tgz").await.unwrap().is_hit());
    bench.wait(50);
    let made = explain(&bench, "generic", "team/a.tgz").await.unwrap();
    assert_eq!(text(&made.freshness), "expired");
    assert_eq!(text(&made.verdict), "fetch");
    assert!(!bench.get("generic", "team/a.tgz").await.unwrap().is_hit());

    let absent = bench.get("generic", "team/b.tgz").await.unwrap_err();
    assert_eq!(absent.kind, FaultKind::Upstream(404));
    bench.settled().await;
    let made = explain(&bench, "generic", "team/b.tgz").await.unwrap();
    let negative = "remotes.generic.negative_ttl";
    assert_eq!(said(&made.freshness), ("absent", negative));
    assert_eq!(said(&made.verdict), ("refuse", negative));
    bench.wait(10);
    let made = explain(&bench, "generic", "team/b.tgz").await.unwrap();
    assert_eq!(text(&made.verdict), "fetch");
}

#[tokio::test]
async fn offline_is_said() {
    let bench = Bench::with(|r| upstream(r).offline = true).await;
    let made = explain(&bench, "generic", "a.tgz").await.unwrap();
    assert_eq!(said(&made.verdict), ("refuse", "remotes.generic.offline"));
}

/// The verdict and its end are those that a GET is given, in every format; and a sidecar has its subject's.
#[tokio::test]
async fn quarantine_says_what_a_get_is_told() {
    for format in FORMATS {
        let bench = Bench::with(|r| r.quarantine.hold = Some(Duration::from_secs(3 * DAY))).await;
        let body = Payload::generated(100, 1);
        let file = publish(&bench.origin, format, &body, "\"1\"");
        let young = Resource::new(body).last_modified(&days_ago(1));
        bench.origin.put(&file.at, young);
        let made = explain(&bench, format, &file.path).await.unwrap();
        assert_eq!(made.quarantine.value, PointValue::None, "not known yet");
        let fault = bench.get(format, &file.path).await.unwrap_err();
        assert_eq!(fault.code, ErrorCode::Quarantined);
        bench.settled().await;
        let made = explain(&bench, format, &file.path).await.unwrap();
        let key = format!("remotes.{format}.quarantine_days");
        assert_eq!(said(&made.quarantine), ("held", &*key), "{format}");
        assert_eq!(said(&made.verdict), ("hold back", &*key), "{format}");
        assert_eq!(made.verdict.until, fault.held_until, "{format}");
        assert!(
            made.quarantine.because.contains("Last-Modified"),
            "{format}"
        );
        let sidecar = explain(&bench, format, &format!("{}.asc", file.path)).await;
        let sidecar = sidecar.unwrap();
        // npm has no sidecars.
        if format != "npm" {
            assert_eq!(text(&sidecar.verdict), "hold back", "{format}");
            assert!(sidecar.quarantine.because.starts_with("as its subject"));
        }
        bench.wait(2 * DAY);
        let made = explain(&bench, format, &file.path).await.unwrap();
        assert_eq!(text(&made.quarantine), "clear", "{format}");
        assert_eq!(text(&made.verdict), "fetch", "{format}");
        bench.get(format, &file.path).await.unwrap();
    }
}

/// What documents that are held state is told before the file is.
#[tokio::test]
async fn a_digest_that_an_index_states_is_told() {
    for format in ["pypi", "npm", "helm"] {
        let bench = Bench::new().await;
        let body = Payload::generated(100, 1);
        let file = publish(&bench.origin, format, &body, "\"1\"");
        let made = explain(&bench, format, &file.path).await.unwrap();
        assert_eq!(made.digest.value, PointValue::None, "{format}");
        bench.get(format, file.document).await.unwrap();
        bench.settled().await;
        let made = explain(&bench, format, &file.path).await.unwrap();
        assert!(made.digest.because.contains("an index"), "{format}");
        let stated = text(&made.digest).to_owned();
        bench.get(format, &file.path).await.unwrap();
        bench.settled().await;
        let held = explain(&bench, format, &file.path).await.unwrap();
        let sha256 = larder_core::sha256(&body.slice(0, 100)).to_string();
        assert_eq!(text(&held.digest), sha256, "{format}");
        assert!(
            stated == sha256 || stated.starts_with("sha512:"),
            "{stated}"
        );
        assert!(held.digest.because.contains("what is stated"), "{format}");
    }
}

#[tokio::test]
async fn what_cannot_be_is_an_error_as_elsewhere() {
    let bench = Bench::new().await;
    for (repository, path, kind, code) in [
        (
            "nobody",
            "a",
            FaultKind::NotFound,
            ErrorCode::UnknownRepository,
        ),
        (
            "generic",
            "a/../b",
            FaultKind::BadRequest,
            ErrorCode::InvalidPath,
        ),
        (
            "nobody",
            "a%00",
            FaultKind::BadRequest,
            ErrorCode::InvalidPath,
        ),
        (
            "helm",
            "_ext/forged/h.example.com/x.tgz",
            FaultKind::Forbidden,
            ErrorCode::LinkForged,
        ),
    ] {
        let fault = explain(&bench, repository, path).await.unwrap_err();
        assert_eq!(
            (fault.kind, fault.code),
            (kind, code),
            "{repository}/{path}"
        );
        let asked = bench.get(repository, path).await.unwrap_err();
        assert_eq!(
            (asked.kind, asked.code),
            (kind, code),
            "{repository}/{path}"
        );
    }
    let made = explain(&bench, "npm", "-/ping").await.unwrap();
    assert_eq!(text(&made.verdict), "answer");
}
