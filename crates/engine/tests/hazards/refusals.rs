//! 429 and 503 with `Retry-After` (RFC 9110 section 10.2.3): whoever is told to come back later does, and nobody else asks meanwhile.

use std::time::Duration;

use http::Method;
use larder_core::{FaultKind, Revalidate};
use larder_testkit::{Behaviour, Payload};

use crate::support::{Bench, FORMATS, publish};
use crate::text;

fn refuse(bench: &Bench, path: &str, status: u16, retry_after: &str) {
    bench.origin.behave(path, Behaviour::Status(status));
    bench.origin.behave(
        path,
        Behaviour::Header("Retry-After".to_owned(), retry_after.to_owned()),
    );
}

#[tokio::test]
async fn hazard_a9_a_refused_path_is_not_asked_for_before_its_time() {
    for format in FORMATS {
        for status in [429, 503] {
            let bench = Bench::new().await;
            let body = Payload::generated(3_000, 1);
            let file = publish(&bench.origin, format, &body, "\"f\"");
            refuse(&bench, &file.at, status, "20");
            for (later, left) in [(0, 20), (5, 15), (14, 1)] {
                bench.wait(later);
                for method in [Method::GET, Method::HEAD] {
                    let fault = bench
                        .ask(method, format, &file.path, &[])
                        .await
                        .unwrap_err();
                    bench.settled().await;
                    assert_eq!(fault.kind, FaultKind::Upstream(status), "{format}");
                    assert_eq!(
                        fault.retry_after,
                        Some(Duration::from_secs(left)),
                        "{format}"
                    );
                }
            }
            assert_eq!(bench.origin.count("*", &file.at), 1, "{format}: asked once");
            bench.origin.clear(&file.at);
            bench.wait(1);
            let (a, b, c) = tokio::join!(
                bench.get(format, &file.path),
                bench.get(format, &file.path),
                bench.get(format, &file.path)
            );
            for got in [a, b, c] {
                assert_eq!(got.unwrap().bytes(), &body.slice(0, 3_000));
            }
            assert_eq!(
                bench.origin.count("*", &file.at),
                2,
                "{format}: and once when the time is over"
            );
        }
    }
}

#[tokio::test]
async fn hazard_a9_documents_are_left_alone_as_files_are_and_a_date_is_a_time() {
    for format in FORMATS {
        let bench = Bench::new().await;
        let file = publish(&bench.origin, format, &Payload::generated(10, 1), "\"f\"");
        if !file.has_document() {
            continue;
        }
        // 30 s after the bench's clock.
        refuse(
            &bench,
            file.document_at,
            429,
            &crate::support::START
                .plus(Duration::from_secs(30))
                .to_http_date(),
        );
        for _ in 0..3 {
            let fault = bench.get(format, file.document).await.unwrap_err();
            assert_eq!(
                (fault.kind, fault.retry_after),
                (FaultKind::Upstream(429), Some(Duration::from_secs(30))),
                "{format}"
            );
            bench.settled().await;
        }
        assert_eq!(bench.origin.count("*", file.document_at), 1, "{format}");
    }
}

#[tokio::test]
async fn hazard_a9_no_longer_than_a_minute_and_a_flush_forgets_it() {
    let bench = Bench::new().await;
    bench.origin.put("/f", text("there"));
    refuse(&bench, "/f", 503, "3600");
    let ask = async |later: u64, asked: usize| {
        bench.wait(later);
        bench.get("generic", "f").await.unwrap_err();
        bench.settled().await;
        assert_eq!(bench.origin.count("*", "/f"), asked, "after {later} s more");
    };
    ask(0, 1).await;
    ask(59, 1).await;
    ask(1, 2).await;
    ask(1, 2).await;
    bench.flush().await;
    ask(0, 3).await;
}

#[tokio::test]
async fn hazard_a9_without_a_time_the_upstream_is_asked() {
    for retry_after in ["", "0", "soon", "Thu, 01 Jan 1970 00:00:00 GMT"] {
        let bench = Bench::new().await;
        refuse(&bench, "/f", 429, retry_after);
        for _ in 0..2 {
            bench.get("generic", "f").await.unwrap_err();
            bench.settled().await;
        }
        assert_eq!(bench.origin.count("*", "/f"), 2, "{retry_after:?}");
    }
}

/// The copy stays, and is the answer where the operator says so: nobody asks in either case.
#[tokio::test]
async fn hazard_a9_a_refused_path_is_not_asked_for_where_an_expired_copy_is_held() {
    for format in FORMATS {
        for revalidate in [None, Some(Revalidate::Head), Some(Revalidate::Get)] {
            for (status, is_listed) in [(429, false), (503, false), (429, true)] {
                let bench = Bench::with(|repository| {
                    repository.cache.immutable_ttl = Some(Duration::from_secs(10));
                    repository.cache.mutable_ttl = Duration::from_secs(10);
                    repository.cache.revalidate = revalidate;
                    repository
                        .cache
                        .stale_on_status
                        .extend(is_listed.then_some(status));
                })
                .await;
                refused_with_a_copy(&bench, format, (status, is_listed)).await;
            }
        }
    }
}

async fn refused_with_a_copy(bench: &Bench, format: &str, (status, is_listed): (u16, bool)) {
    let file = publish(&bench.origin, format, &Payload::generated(10, 1), "\"f\"");
    let (path, at) = if file.has_document() {
        (file.document, file.document_at)
    } else {
        (file.path.as_str(), file.at.as_str())
    };
    let held = bench.get(format, path).await.unwrap().bytes().to_vec();
    bench.settled().await;
    bench.wait(11);
    let before = bench.origin.count("*", at);
    refuse(bench, at, status, "20");
    for (later, left) in [(0, 20), (5, 15), (14, 1)] {
        bench.wait(later);
        let got = bench.get(format, path).await;
        if is_listed {
            assert_eq!(got.unwrap().bytes(), &held, "{format}");
        } else {
            let fault = got.unwrap_err();
            assert_eq!(
                (fault.kind, fault.retry_after),
                (FaultKind::Upstream(status), Some(Duration::from_secs(left))),
                "{format}"
            );
        }
        bench.settled().await;
        assert_eq!(
            bench.origin.count("*", at) - before,
            1,
            "{format} {status} {is_listed}: asked once"
        );
    }
    bench.origin.clear(at);
    bench.wait(1);
    assert_eq!(bench.get(format, path).await.unwrap().bytes(), &held);
    assert!(
        bench.origin.count("*", at) - before > 1,
        "{format}: and again when the time is over"
    );
    bench.settled().await;
}
