//! How old a file is does not depend on what is held of it: neither a flush, nor eviction, nor a restart makes it older or younger
//! (contract hazard S20, docs/adr/0110).

use bytes::Bytes;
use http::{HeaderMap, Method};
use larder_core::{Fault, MissingDate, Mount, Principal, Repository, RepositoryKind, UnixMillis};
use larder_engine::{ArtifactRequest, PointValue, Queries};
use larder_testkit::{Payload, Resource};

use crate::quarantine::{assert_held, dated_page, stated, three_days};
use crate::support::{Bench, FORMATS, Got, START, days_ago, eventually, publish, upstream};

const DAY: u64 = 86_400;

fn request<'a>(method: &'a Method, headers: &'a HeaderMap, path: &'a str) -> ArtifactRequest<'a> {
    ArtifactRequest {
        repository: "generic",
        raw_path: path,
        query: None,
        method,
        headers,
        principal: Principal::Anonymous,
        mount: Mount::api("http://127.0.0.1:8000", RepositoryKind::Remote, "generic"),
        body: Bytes::new(),
    }
}

/// `DELETE` of one path of the generic repository.
async fn delete(bench: &Bench, path: &str) {
    let headers = HeaderMap::new();
    let request = request(&Method::DELETE, &headers, path);
    assert!(
        bench
            .engine
            .forget(&request, Queries::AsAsked)
            .await
            .unwrap()
    );
}

fn dated(body: &Payload, days: i64) -> Resource {
    Resource::new(body.clone()).last_modified(&days_ago(days))
}

fn held_until(result: Result<Got, Fault>) -> Option<UnixMillis> {
    let Err(fault) = result else {
        panic!("it is held");
    };
    assert_eq!(fault.code.as_str(), "quarantined", "{fault:?}");
    fault.held_until
}

fn by_first_contact(repository: &mut Repository) {
    three_days(repository);
    repository.quarantine.missing_date = MissingDate::FirstSeen;
}

#[tokio::test]
async fn hazard_s20_a_flush_makes_no_file_older() {
    for format in FORMATS {
        let mut bench = Bench::with(three_days).await;
        let body = Payload::generated(100, 1);
        let file = publish(&bench.origin, format, &body, "\"tag\"");
        bench.origin.put(&file.at, dated(&body, 1));
        assert_held(bench.get(format, &file.path).await);
        bench.settled().await;
        bench.origin.put(&file.at, dated(&body, 20));
        bench.flush().await;
        bench.restart().await;
        for method in [Method::HEAD, Method::GET, Method::GET] {
            assert_held(bench.ask(method, format, &file.path, &[]).await);
            bench.settled().await;
        }
        bench.wait(2 * DAY);
        let got = bench.get(format, &file.path).await.unwrap();
        assert_eq!(got.bytes(), &body.slice(0, 100), "{format}");
    }
}

#[tokio::test]
async fn hazard_s20_nor_does_the_deletion_of_one_path() {
    let bench = Bench::with(three_days).await;
    let body = Payload::generated(100, 1);
    bench.origin.put("/f.tgz", dated(&body, 1));
    bench.origin.put("/f.tgz.asc", Resource::new("signature"));
    assert_held(bench.get("generic", "f.tgz").await);
    bench.settled().await;
    bench.origin.put("/f.tgz", dated(&body, 20));
    delete(&bench, "f.tgz").await;
    let headers = HeaderMap::new();
    let asked = request(&Method::GET, &headers, "f.tgz");
    let explained = bench.engine.explain(&asked);
    let quarantine = explained.await.unwrap().quarantine;
    assert_eq!(quarantine.value, PointValue::Text("held".to_owned()));
    assert_held(bench.get("generic", "f.tgz.asc").await);
    bench.settled().await;
    delete(&bench, "f.tgz").await;
    assert_held(bench.get("generic", "f.tgz").await);
}

#[tokio::test]
async fn the_first_contact_stays_and_what_was_served_stays_served() {
    let bench = Bench::with(by_first_contact).await;
    bench.origin.put("/f.tgz", Resource::new("undated"));
    let until = Some(UnixMillis(START.0 + 3 * 86_400_000));
    for _ in 0..2 {
        assert_eq!(held_until(bench.get("generic", "f.tgz").await), until);
        bench.settled().await;
        bench.wait(DAY);
        bench.flush().await;
        assert_eq!(held_until(bench.get("generic", "f.tgz").await), until);
        bench.settled().await;
        delete(&bench, "f.tgz").await;
    }
    bench.wait(DAY);
    for _ in 0..2 {
        bench.get("generic", "f.tgz").await.unwrap();
        bench.settled().await;
        bench.flush().await;
    }
}

#[tokio::test]
async fn eviction_makes_no_file_younger_and_other_bytes_are_new() {
    let bench = Bench::with(|repository| {
        by_first_contact(repository);
        upstream(repository).max_disk = Some(150_000);
    })
    .await;
    let body = |seed| Payload::generated(100_000, seed);
    bench.origin.put("/undated", Resource::new(body(1)));
    bench.origin.put("/old", dated(&body(2), 10));
    held_until(bench.get("generic", "undated").await);
    bench.settled().await;
    bench.wait(3 * DAY);
    let evicted = async |path: &str| {
        bench.settled().await;
        eventually("there is room for the other one only", async || {
            bench.record("generic", path, "").await.is_none()
        })
        .await;
    };
    for _ in 0..2 {
        bench.get("generic", "undated").await.unwrap();
        evicted("old").await;
        bench.get("generic", "old").await.unwrap();
        evicted("undated").await;
        // A mirror that stamps its files anew.
        bench.origin.put("/old", dated(&body(2), -2));
    }
    bench.get("generic", "undated").await.unwrap();
    evicted("old").await;
    bench.origin.put("/old", dated(&body(3), -2));
    held_until(bench.get("generic", "old").await);
    bench.settled().await;
    bench.flush().await;
    held_until(bench.get("generic", "old").await);
}

#[tokio::test]
async fn what_was_held_before_quarantine_was_on_has_an_age_too() {
    let mut bench = Bench::new().await;
    let body = Payload::generated(100, 1);
    for (path, days) in [("/old", 10), ("/young", 1)] {
        bench.origin.put(path, dated(&body, days));
        bench.get("generic", &path[1..]).await.unwrap();
    }
    bench.settled().await;
    bench.reload(three_days);
    bench.origin.put("/old", dated(&body, 0));
    bench.origin.put("/young", dated(&body, 20));
    bench.flush().await;
    bench.get("generic", "old").await.unwrap();
    assert_held(bench.get("generic", "young").await);
}

/// A file that is published anew has the age that the registry states of the new one.
#[tokio::test]
async fn other_bytes_after_a_flush_are_as_old_as_the_registry_states() {
    let wheel = "packages/demo-1.0-py3-none-any.whl";
    let at = format!("/{wheel}");
    let bench = Bench::with(three_days).await;
    for (seed, days) in [(1, 1000), (2, 1)] {
        let body = Payload::generated(100, seed);
        dated_page(&bench, &body, &stated(days));
        bench.origin.put(&at, dated(&body, 1000));
        bench.flush().await;
        let got = bench.get("pypi", wheel).await;
        if days == 1 {
            assert_held(got);
        } else {
            got.expect("published long ago");
        }
        bench.settled().await;
    }
}
