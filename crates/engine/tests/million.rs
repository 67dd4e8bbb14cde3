//! Flushes of more than is deleted while the operator waits: who asks afterwards, and other engines over the same data.
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use larder_core::*;
use larder_engine::*;
use larder_storage::Change;
use larder_testkit::{Payload, Resource};
use support::{Bench, ask, publish};

/// What the feed may take.
const SOON: Duration = Duration::from_secs(1);
/// More than are deleted at once.
const MANY: u64 = 6_000;

fn key(repository: &str, path: &str) -> SourceKey {
    SourceKey {
        repository: RepositoryName::parse(repository).unwrap(),
        path: path.to_owned().into(),
        variant: "".into(),
    }
}

fn put(key: SourceKey) -> Change {
    let at = UnixMillis(1);
    Change::PutRecord {
        key,
        record: ArtifactRecord {
            content: Content::HeadOnly,
            headers: StoredHeaders::default(),
            source_url: "https://example.com/file".to_owned(),
            published_at: None,
            first_seen_at: at,
            contacted_at: at,
            fresh_since: at,
            served_since: at,
            verified: true,
        },
        blob: None,
    }
}

async fn fill(bench: &Bench) {
    let many = (0..MANY).map(|n| put(key("generic", &format!("many/{n:04}"))));
    bench.metadata.apply(many.collect()).await.unwrap();
}

async fn flush(bench: &Bench, pattern: Option<&str>) -> FlushReport {
    let request = FlushRequest {
        remote: Some("generic".to_owned()),
        pattern: pattern.map(str::to_owned),
        ..FlushRequest::default()
    };
    bench.engine.flush(request).await.unwrap()
}

async fn text(engine: &Arc<Engine>, path: &str) -> String {
    let got = ask(engine, Method::GET, "generic", path, &[]).await;
    got.unwrap().text()
}

/// From the moment of the answer nothing of before is served by the one, and a second later by the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_l4_a_flush_of_thousands_holds_on_every_engine() {
    for (own_store, pattern) in [
        (false, None),
        (true, None),
        (false, Some("many|kept")),
        (true, Some("many|kept")),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let bench = Bench::sharing(directory.path(), Limits::default(), own_store, |_| {}).await;
        let second = bench.second(own_store).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        fill(&bench).await;
        if own_store {
            // It hears of all that were written.
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        for path in ["kept", "left"] {
            bench.origin.put(&format!("/{path}"), Resource::new("one"));
            text(&bench.engine, path).await;
        }
        bench.settled().await;
        for path in ["kept", "left"] {
            assert_eq!(text(&second, path).await, "one");
            bench.origin.put(&format!("/{path}"), Resource::new("two"));
        }
        let asked = bench.origin.count("GET", "*");
        let files = flush(&bench, pattern).await.files;
        assert_eq!(files, MANY + if pattern.is_some() { 1 } else { 2 });
        let since = Instant::now();
        while text(&second, "kept").await != "two" {
            assert!(since.elapsed() < SOON, "{own_store} {pattern:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!("the other has heard {:?} later", since.elapsed());
        assert_eq!(text(&bench.engine, "kept").await, "two");
        let left = if pattern.is_some() { "one" } else { "two" };
        for engine in [&bench.engine, &second] {
            assert_eq!(text(engine, "left").await, left);
        }
        bench.settled().await;
        let again = flush(&bench, pattern).await.files;
        assert!(
            again <= 2,
            "{again}: those that are still to be deleted are counted no more"
        );
        assert!(bench.origin.count("GET", "*") > asked);
    }
}

/// A flush is not undone by the end of the process that was still deleting rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_l4_what_was_flushed_is_not_there_after_a_restart() {
    let mut bench = Bench::new().await;
    fill(&bench).await;
    bench.origin.put("/kept", Resource::new("one"));
    text(&bench.engine, "kept").await;
    bench.settled().await;
    flush(&bench, None).await;
    bench.restart().await;
    bench.origin.put("/kept", Resource::new("two"));
    assert_eq!(text(&bench.engine, "kept").await, "two");
    bench.settled().await;
    // The collector goes on with what is left.
    bench.engine.collect_garbage().await;
    assert_eq!(bench.metadata.counts().await.unwrap().records, 1);
    assert_eq!(text(&bench.engine, "kept").await, "two");
}

/// A file loses what vouches for it with the document that names it, and with no other.
#[tokio::test]
async fn a_flushed_document_is_missed_by_the_files_that_it_names() {
    for (pattern, dropped, is_verified) in [("^nothing", 0, true), ("^demo$", 1, false)] {
        let bench = Bench::new().await;
        let file = publish(
            &bench.origin,
            "npm",
            &Payload::generated(1_000, 1),
            "\"one\"",
        );
        bench.get("npm", "demo").await.unwrap();
        bench.get("npm", &file.path).await.unwrap();
        bench.settled().await;
        let other = key("npm", "other/-/other-1.0.0.tgz");
        bench
            .metadata
            .apply(vec![put(other.clone())])
            .await
            .unwrap();
        let request = FlushRequest {
            remote: Some("npm".to_owned()),
            pattern: Some(pattern.to_owned()),
            ..FlushRequest::default()
        };
        let report = bench.engine.flush(request).await.unwrap();
        assert_eq!((report.index, report.files), (dropped, 0));
        for (key, expected) in [(key("npm", &file.path), is_verified), (other, true)] {
            let record = bench.metadata.record(&key).await.unwrap().unwrap();
            assert_eq!(record.verified, expected, "{pattern} {key}");
        }
    }
}
