//! Two engines over one data directory: what one commits, flushes or deletes the other sees within a second (docs/adr/0058). Each case
//! is run with a second engine on the same store, and with one that has a database connection of its own over the same file.
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method};
use larder_core::*;
use larder_engine::*;
use larder_testkit::{Payload, Resource};
use support::{Bench, ask, publish};

// Two engines hear of each other by way of a database, which each reads at its own pace on threads of its own: all time here is real.

/// What the feed may take.
const SOON: Duration = Duration::from_secs(1);

/// Waits until something is so; says how long that took.
async fn soon<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < SOON, "{what}: not within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{what}: after {:?}", began.elapsed());
}

/// A bench whose mutable files are those that end in `idx`, and the second engine.
async fn two(own_store: bool) -> (tempfile::TempDir, Bench, Arc<Engine>) {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::sharing(directory.path(), Limits::default(), own_store, |r| {
        r.access.mutable = Some(vec![Pattern::compile("idx$").unwrap()]);
        r.cache.revalidate = Some(Revalidate::Get);
    })
    .await;
    let second = bench.second(own_store).await;
    // Its listener marks its place with its first look.
    tokio::time::sleep(Duration::from_millis(300)).await;
    (directory, bench, second)
}

async fn text(engine: &Arc<Engine>, path: &str) -> Option<String> {
    let got = ask(engine, Method::GET, "generic", path, &[]).await.ok()?;
    Some(got.text())
}

/// The ticket by which a hit is served again without the pipeline.
async fn ticket(engine: &Arc<Engine>, path: &str) -> Option<HotTicket> {
    let headers = HeaderMap::new();
    let request = ArtifactRequest {
        repository: "generic",
        raw_path: path,
        query: None,
        method: &Method::GET,
        headers: &headers,
        principal: Principal::Anonymous,
        mount: Mount::api("http://127.0.0.1", RepositoryKind::Remote, "generic"),
        body: bytes::Bytes::new(),
    };
    engine.read(request).await.ok()?.hot
}

fn word(how: bool) -> &'static str {
    if how {
        "another connection"
    } else {
        "the same store"
    }
}

#[tokio::test]
async fn what_one_commits_ends_the_other_s_absence_and_is_served_by_it() {
    for own_store in [false, true] {
        let (_directory, bench, second) = two(own_store).await;
        assert_eq!(text(&second, "late.bin").await, None);
        bench.origin.put("/late.bin", Resource::new("late"));
        // The first engine knows of no absence, and fetches it.
        assert_eq!(text(&bench.engine, "late.bin").await.unwrap(), "late");
        bench.settled().await;
        let asked = bench.origin.count("GET", "/late.bin");
        soon(&format!("{}: a commit", word(own_store)), || async {
            text(&second, "late.bin").await.as_deref() == Some("late")
        })
        .await;
        assert_eq!(bench.origin.count("GET", "/late.bin"), asked);
    }
}

#[tokio::test]
async fn what_one_replaces_the_other_serves_anew_also_from_its_hot_set() {
    for own_store in [false, true] {
        let (_directory, bench, second) = two(own_store).await;
        bench.origin.put("/idx", Resource::new("one").etag("\"1\""));
        text(&bench.engine, "idx").await.unwrap();
        bench.settled().await;
        soon("the second holds it", || async {
            ticket(&second, "idx").await.is_some()
        })
        .await;
        let hot = ticket(&second, "idx").await.unwrap();
        assert!(hot.is_good(second.now()));
        // The clock of the first engine moves on, and with it that of the second: the copy has expired for both.
        bench.origin.put("/idx", Resource::new("two").etag("\"2\""));
        let flushed = FlushRequest {
            remote: Some("generic".to_owned()),
            ..FlushRequest::default()
        };
        bench.engine.flush(flushed).await.unwrap();
        assert_eq!(text(&bench.engine, "idx").await.unwrap(), "two");
        bench.settled().await;
        soon(
            &format!("{}: a hot answer is void", word(own_store)),
            || async { !hot.is_good(second.now()) },
        )
        .await;
        let asked = bench.origin.count("GET", "/idx");
        soon(&format!("{}: the new bytes", word(own_store)), || async {
            text(&second, "idx").await.as_deref() == Some("two")
        })
        .await;
        assert_eq!(bench.origin.count("GET", "/idx"), asked);
    }
}

#[tokio::test]
async fn what_one_flushes_or_deletes_the_other_no_longer_holds() {
    for own_store in [false, true] {
        let (_directory, bench, second) = two(own_store).await;
        for (path, delete) in [("flushed.bin", false), ("deleted.bin", true)] {
            bench.origin.put(&format!("/{path}"), Resource::new("old"));
            text(&bench.engine, path).await.unwrap();
            bench.settled().await;
            soon("the second holds it", || async {
                ticket(&second, path).await.is_some()
            })
            .await;
            let hot = ticket(&second, path).await.unwrap();
            bench.origin.put(&format!("/{path}"), Resource::new("new"));
            if delete {
                let headers = HeaderMap::new();
                let request = ArtifactRequest {
                    repository: "generic",
                    raw_path: path,
                    query: None,
                    method: &Method::DELETE,
                    headers: &headers,
                    principal: Principal::Anonymous,
                    mount: Mount::api("http://127.0.0.1", RepositoryKind::Remote, "generic"),
                    body: bytes::Bytes::new(),
                };
                let forgotten = bench.engine.forget(&request, Queries::AsAsked).await;
                assert!(forgotten.unwrap());
            } else {
                bench.flush().await;
            }
            let what = format!("{}: {path}", word(own_store));
            soon(&format!("{what} hot"), || async {
                !hot.is_good(second.now())
            })
            .await;
            soon(&what, || async {
                text(&second, path).await.as_deref() == Some("new")
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_download_that_another_engine_s_flush_overtakes_commits_nothing() {
    for own_store in [false, true] {
        let (_directory, bench, second) = two(own_store).await;
        bench
            .origin
            .put("/slow.bin", Resource::new(vec![b'x'; 200_000]));
        bench.origin.hold_body("/slow.bin", 1_000);
        let reader = Arc::clone(&second);
        let reading = tokio::spawn(async move { text(&reader, "slow.bin").await });
        bench.origin.wait_for("GET", "/slow.bin", 1).await;
        bench.flush().await;
        tokio::time::sleep(Duration::from_millis(600)).await;
        bench.origin.release("/slow.bin");
        assert_eq!(reading.await.unwrap().unwrap().len(), 200_000);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(bench.record("generic", "slow.bin", "").await, None);
    }
}

/// What was read before another engine replaced it is not written back (F1).
#[tokio::test]
async fn news_of_old_bytes_brings_them_not_back() {
    for own_store in [false, true] {
        let (_directory, bench, second) = two(own_store).await;
        bench.origin.put("/idx", Resource::new("one").etag("\"1\""));
        text(&bench.engine, "idx").await.unwrap();
        bench.settled().await;
        soon("the second holds it", || async {
            ticket(&second, "idx").await.is_some()
        })
        .await;
        bench.wait(3601);
        // The second asks whether its copy is still good, and is told so; before it hears that, the first one is given other bytes.
        bench.origin.hold("/idx");
        let asking = Arc::clone(&second);
        let asked = tokio::spawn(async move { text(&asking, "idx").await });
        let before = bench.origin.requests().len();
        soon("the second asks", || async {
            bench.origin.requests().len() >= before.max(2)
        })
        .await;
        let old = bench.record("generic", "idx", "").await.unwrap();
        let key = SourceKey {
            repository: RepositoryName::parse("generic").unwrap(),
            path: "idx".into(),
            variant: "".into(),
        };
        let newer = bench.blobs.put_bytes(b"two").await.unwrap();
        let change = larder_storage::Change::PutRecord {
            key,
            record: ArtifactRecord {
                content: Content::Blob(newer.descriptor.clone()),
                contacted_at: bench.clock.now(),
                fresh_since: bench.clock.now(),
                ..old
            },
            blob: Some(newer.clone()),
        };
        bench.metadata.apply(vec![change]).await.unwrap();
        bench.origin.release("/idx");
        asked.await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = bench.record("generic", "idx", "").await.unwrap();
        assert_eq!(now.blob(), Some(&newer.descriptor), "{}", word(own_store));
    }
}

/// A document that one engine has read anew tells the other, too, what a file is to be.
#[tokio::test]
async fn a_new_document_s_claims_are_seen_by_both() {
    for own_store in [false, true] {
        let (_directory, bench, second) = two(own_store).await;
        let old = publish(&bench.origin, "helm", &Payload::from("old"), "\"1\"");
        for engine in [&bench.engine, &second] {
            let got = ask(engine, Method::GET, "helm", &old.path, &[]).await;
            assert_eq!(got.unwrap().text(), "old");
            bench.settled().await;
        }
        publish(&bench.origin, "helm", &Payload::from("newer"), "\"2\"");
        bench.forget("helm").await;
        bench.get("helm", old.document).await.unwrap();
        bench.settled().await;
        soon(&format!("{}: the new claim", word(own_store)), || async {
            let got = ask(&second, Method::GET, "helm", &old.path, &[]).await;
            got.is_ok_and(|got| got.text() == "newer")
        })
        .await;
        assert_eq!(bench.origin.count("GET", old.document_at), 1);
    }
}
