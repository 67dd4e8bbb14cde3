//! Contract, section 3: what waits for verification, what a changed or broken document does to the files it names, and what a lost blob does.

use std::time::Duration;

use bytes::Bytes;
use larder_core::FaultKind;
use larder_testkit::{Behaviour, Payload, Resource};

use crate::support::{Bench, eventually, helm_index, npm_packument, publish, pypi_page, some_time};
use crate::{KIB, MIB, assert_hit, refusal, remembered};

/// Long enough for anything that is not held back to arrive.
const A_WHILE: Duration = Duration::from_millis(400);

#[tokio::test]
async fn up_to_a_mebibyte_nothing_is_sent_before_it_is_verified() {
    for format in ["pypi", "npm", "helm"] {
        for size in [1, MIB] {
            let bench = Bench::new().await;
            let body = Payload::generated(size, 1);
            let file = publish(&bench.origin, format, &body, "\"strong\"");
            bench.origin.hold(file.document_at);
            let answer = tokio::spawn(bench.client(format, &file.path).run());
            bench.until_come(format, size).await;
            some_time(A_WHILE).await;
            assert!(
                !answer.is_finished(),
                "{format} {size}: all bytes are there and nobody has vouched for them"
            );
            bench.origin.release(file.document_at);
            assert_eq!(answer.await.unwrap().unwrap().bytes(), &body.slice(0, size));
        }
    }
}

#[tokio::test]
async fn above_a_mebibyte_the_last_64_kib_wait() {
    for format in ["pypi", "npm", "helm"] {
        let bench = Bench::new().await;
        let body = Payload::generated(MIB + 1, 1);
        let file = publish(&bench.origin, format, &body, "\"strong\"");
        bench.origin.hold(file.document_at);
        // Leaves as soon as it has everything that is given before verification.
        let early = bench
            .client(format, &file.path)
            .leave_after(MIB + 1 - 64 * KIB)
            .run();
        let early = tokio::time::timeout(Duration::from_secs(5), early)
            .await
            .expect("the rest waits, not this")
            .unwrap();
        assert_eq!(early.body.unwrap_err(), "left");
        let one_more = tokio::spawn(
            bench
                .client(format, &file.path)
                .leave_after(MIB + 2 - 64 * KIB)
                .run(),
        );
        bench.until_come(format, MIB + 1).await;
        some_time(A_WHILE).await;
        assert!(
            !one_more.is_finished(),
            "{format}: one byte too many was sent"
        );
        bench.origin.release(file.document_at);
        one_more.await.unwrap().unwrap();
        assert_hit(&bench, &file, &body).await;
    }
}

#[tokio::test]
async fn the_last_bytes_of_a_body_without_a_digest_wait_for_its_length() {
    let bench = Bench::new().await;
    let body = Payload::generated(2 * MIB, 1);
    let file = publish(&bench.origin, "generic", &body, "\"strong\"");
    bench.origin.hold_body(&file.at, 2 * MIB - 1);
    let early = bench
        .client("generic", &file.path)
        .leave_after(2 * MIB - 64 * KIB)
        .run();
    tokio::time::timeout(Duration::from_secs(5), early)
        .await
        .expect("the rest waits, not this")
        .unwrap();
    let one_more = tokio::spawn(
        bench
            .client("generic", &file.path)
            .leave_after(2 * MIB - 64 * KIB + 1)
            .run(),
    );
    bench.until_come("generic", 2 * MIB - 1).await;
    some_time(A_WHILE).await;
    assert!(!one_more.is_finished());
    bench.origin.release(&file.at);
    one_more.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_range_in_flight_waits_for_a_digest_where_one_is_expected_only() {
    let middle = "bytes=1048576-1049575";
    for format in ["generic", "pypi", "npm", "helm"] {
        let bench = Bench::new().await;
        let body = Payload::generated(3 * MIB, 1);
        let file = publish(&bench.origin, format, &body, "\"strong\"");
        bench.origin.hold_body(&file.at, 2 * MIB);
        let range = tokio::spawn(
            bench
                .client(format, &file.path)
                .header("range", middle)
                .run(),
        );
        bench.until_come(format, 2 * MIB).await;
        if format == "generic" {
            eventually("the range is there", async || range.is_finished()).await;
        } else {
            some_time(A_WHILE).await;
            assert!(!range.is_finished(), "{format}");
        }
        bench.origin.release(&file.at);
        let got = range.await.unwrap().unwrap();
        assert_eq!(
            (got.answer.status, got.bytes()),
            (206, &body.slice(MIB, 1000))
        );
    }
    // And a range of wrong bytes does not end well.
    for format in ["pypi", "npm", "helm"] {
        let bench = Bench::new().await;
        let file = publish(
            &bench.origin,
            format,
            &Payload::generated(3 * MIB, 1),
            "\"strong\"",
        );
        bench.origin.behave(
            &file.at,
            Behaviour::Body(Payload::generated(3 * MIB, 2).slice(0, 3 * MIB)),
        );
        let got = bench
            .client(format, &file.path)
            .header("range", middle)
            .run()
            .await
            .unwrap();
        assert!(got.body.is_err(), "{format}");
    }
}

#[tokio::test]
async fn a_mismatch_reads_the_document_once_more_and_then_fails() {
    for format in ["pypi", "npm", "helm"] {
        let bench = Bench::new().await;
        let file = publish(
            &bench.origin,
            format,
            &Payload::generated(1000, 1),
            "\"strong\"",
        );
        bench.get(format, file.document).await.unwrap();
        bench.settled().await;
        bench
            .origin
            .put(&file.at, Resource::new(Payload::generated(1000, 2)));
        assert_eq!(
            refusal(bench.get(format, &file.path).await),
            (FaultKind::BadGateway, "digest_mismatch")
        );
        bench.settled().await;
        assert_eq!(
            bench.origin.count("*", file.document_at),
            2,
            "{format}: once more, and not again"
        );
        assert_eq!(bench.origin.count("*", &file.at), 1);
    }
}

#[tokio::test]
async fn a_file_newer_than_its_document_is_right_by_the_newer_document() {
    for format in ["pypi", "npm", "helm"] {
        let bench = Bench::new().await;
        let (old, new) = (Payload::generated(1000, 1), Payload::generated(1000, 2));
        let file = publish(&bench.origin, format, &old, "\"one\"");
        let before = bench.get(format, file.document).await.unwrap();
        bench.settled().await;
        publish(&bench.origin, format, &new, "\"two\"");
        assert_eq!(
            bench.get(format, &file.path).await.unwrap().bytes(),
            &new.slice(0, 1000),
            "{format}"
        );
        assert_hit(&bench, &file, &new).await;
        assert_ne!(
            bench.get(format, file.document).await.unwrap().bytes(),
            before.bytes(),
            "the newer document is kept"
        );
    }
}

/// A fresh copy that a mismatch replaced is taken back from wherever it was remembered.
#[tokio::test]
async fn what_was_remembered_of_a_document_ends_when_it_is_replaced_before_its_time() {
    let bench = Bench::new().await;
    let file = publish(
        &bench.origin,
        "npm",
        &Payload::generated(1000, 1),
        "\"one\"",
    );
    bench.get("npm", file.document).await.unwrap();
    bench.settled().await;
    let remembered = remembered(&bench, "npm", file.document).await;
    assert!(remembered.is_good(bench.engine.now()));
    publish(
        &bench.origin,
        "npm",
        &Payload::generated(1000, 2),
        "\"two\"",
    );
    bench.get("npm", &file.path).await.unwrap();
    bench.settled().await;
    assert!(!remembered.is_good(bench.engine.now()));
}

#[tokio::test]
async fn a_file_whose_stated_digest_changed_is_dropped() {
    for format in ["pypi", "npm", "helm"] {
        let bench = Bench::new().await;
        let (old, new) = (Payload::generated(1000, 1), Payload::generated(1000, 2));
        let file = publish(&bench.origin, format, &old, "\"one\"");
        bench.get(format, &file.path).await.unwrap();
        assert_hit(&bench, &file, &old).await;
        let remembered = remembered(&bench, format, &file.path).await;
        publish(&bench.origin, format, &new, "\"two\"");
        assert_hit(&bench, &file, &old).await;
        bench.wait(3601);
        bench.get(format, file.document).await.unwrap();
        eventually("the old record is dropped", async || {
            bench.record(format, &file.path, "").await.is_none()
        })
        .await;
        eventually("nothing is answered by its ticket", async || {
            !remembered.is_good(bench.engine.now())
        })
        .await;
        assert_eq!(
            bench.get(format, &file.path).await.unwrap().bytes(),
            &new.slice(0, 1000)
        );
    }
}

/// Of a long document nothing but what its format found out stays in memory once it has been checked: it counts as new all the same.
#[tokio::test]
async fn a_file_whose_stated_digest_changed_is_dropped_by_a_long_document_too() {
    let bench = Bench::new().await;
    let (old, new) = (Payload::generated(1000, 1), Payload::generated(1000, 2));
    let page_of = |body: &Payload, tag: &str| {
        let digest = larder_core::sha256(&body.slice(0, 1000));
        let url = bench.origin.url("packages/demo-1.0-py3-none-any.whl");
        let page = format!(
            r#"{{"meta":{{"api-version":"1.1"}},"name":"demo","files":[{{"filename":"demo-1.0-py3-none-any.whl","url":"{url}","hashes":{{"sha256":"{}"}}}}]{}}}"#,
            digest.to_hex(),
            " ".repeat(1 << 20)
        );
        Resource::new(page)
            .content_type("application/vnd.pypi.simple.v1+json")
            .etag(tag)
    };
    let file = publish(&bench.origin, "pypi", &old, "\"one\"");
    bench
        .origin
        .put(file.document_at, page_of(&old, "\"first\""));
    bench.get("pypi", &file.path).await.unwrap();
    assert_hit(&bench, &file, &old).await;
    publish(&bench.origin, "pypi", &new, "\"two\"");
    bench
        .origin
        .put(file.document_at, page_of(&new, "\"second\""));
    bench.wait(3601);
    bench.get("pypi", file.document).await.unwrap();
    eventually("the old record is dropped", async || {
        bench.record("pypi", &file.path, "").await.is_none()
    })
    .await;
    assert_eq!(
        bench.get("pypi", &file.path).await.unwrap().bytes(),
        &new.slice(0, 1000)
    );
}

#[tokio::test]
async fn a_file_is_kept_unverified_while_its_document_is_down_and_checked_when_that_is_next_read() {
    for format in ["pypi", "npm", "helm"] {
        for right in [true, false] {
            let bench = Bench::new().await;
            let (body, other) = (Payload::generated(1000, 1), Payload::generated(1000, 2));
            let file = publish(&bench.origin, format, &body, "\"one\"");
            bench
                .origin
                .behave(file.document_at, Behaviour::Status(503));
            if !right {
                bench.origin.put(&file.at, Resource::new(other.clone()));
            }
            bench.get(format, &file.path).await.unwrap();
            bench.settled().await;
            assert!(!bench.record(format, &file.path, "").await.unwrap().verified);
            let hit = bench.get(format, &file.path).await.unwrap();
            assert!(
                hit.is_hit() && !hit.answer.hot,
                "served, but never past the pipeline"
            );
            bench.origin.clear(file.document_at);
            bench.get(format, file.document).await.unwrap();
            bench.settled().await;
            if right {
                assert_hit(&bench, &file, &body).await;
                assert!(bench.record(format, &file.path, "").await.unwrap().verified);
            } else {
                assert_eq!(
                    refusal(bench.get(format, &file.path).await).1,
                    "digest_mismatch",
                    "{format}"
                );
            }
        }
    }
}

/// A flush forgets the document that vouched for a file; the next one may say something else.
#[tokio::test]
async fn files_are_checked_anew_when_their_index_was_flushed() {
    for format in ["pypi", "npm", "helm"] {
        let bench = Bench::new().await;
        let (old, new) = (Payload::generated(1000, 1), Payload::generated(1000, 2));
        let file = publish(&bench.origin, format, &old, "\"one\"");
        bench.get(format, &file.path).await.unwrap();
        assert_hit(&bench, &file, &old).await;
        let index = larder_engine::FlushRequest {
            cache_type: larder_engine::CacheType::Index,
            ..Default::default()
        };
        bench.engine.flush(index).await.unwrap();
        publish(&bench.origin, format, &new, "\"two\"");
        bench.get(format, file.document).await.unwrap();
        bench.settled().await;
        assert_eq!(
            bench.get(format, &file.path).await.unwrap().bytes(),
            &new.slice(0, 1000),
            "{format}"
        );
    }
}

#[tokio::test]
async fn a_malformed_document_leaves_the_old_copy_or_is_a_502_that_says_what_was_wrong() {
    let page = |url: &str| pypi_page(url, &larder_core::sha256(b""));
    for (format, path, good, bad) in [
        (
            "pypi",
            "simple/demo/",
            page("https://files.example.com/demo-1.0.tar.gz"),
            r#"{"meta":{"api-version":"1.0"},"files":[{]}"#,
        ),
        (
            "npm",
            "demo",
            npm_packument("https://registry.example.com/demo/-/demo-1.0.0.tgz", b""),
            r#"{"name":"demo","versions":"#,
        ),
        (
            "helm",
            "index.yaml",
            helm_index(
                "https://charts.example.com/demo-1.0.0.tgz",
                &larder_core::sha256(b""),
            ),
            "entries: [",
        ),
    ] {
        let bench = Bench::new().await;
        let at = format!("/{path}");
        bench.origin.put(&at, good.clone());
        bench
            .origin
            .behave(&at, Behaviour::Body(Bytes::from_static(bad.as_bytes())));
        let fault = bench.get(format, path).await.unwrap_err();
        assert_eq!(
            (fault.kind, fault.code.as_str(), fault.repository.as_deref()),
            (FaultKind::BadGateway, "malformed_document", Some(format))
        );
        bench.settled().await;
        bench.origin.clear(&at);
        let whole = bench.get(format, path).await.unwrap();
        bench.settled().await;
        bench.wait(3601);
        bench
            .origin
            .behave(&at, Behaviour::Body(Bytes::from_static(bad.as_bytes())));
        for _ in 0..2 {
            let stale = bench.get(format, path).await.unwrap();
            assert_eq!(stale.bytes(), whole.bytes(), "{format}");
            assert!(
                stale.answer.cache_status.contains("detail=stale-error"),
                "{}",
                stale.answer.cache_status
            );
            bench.settled().await;
        }
        bench.origin.clear(&at);
        let good = bench.get(format, path).await.unwrap();
        assert!(
            !good.answer.cache_status.contains("detail"),
            "{}",
            good.answer.cache_status
        );
    }
}

#[tokio::test]
async fn hazard_l2_a_record_without_its_blob_is_fetched_again() {
    for format in crate::support::FORMATS {
        let mut bench = Bench::new().await;
        let body = Payload::generated(10_000, 1);
        let file = publish(&bench.origin, format, &body, "\"one\"");
        bench.get(format, &file.path).await.unwrap();
        if file.has_document() {
            bench.get(format, file.document).await.unwrap();
        }
        bench.restart().await;
        for blob in bench.blobs.list(None, 100).await.unwrap() {
            assert!(
                bench.blobs.delete(&blob.descriptor.digest).await.unwrap(),
                "{format}: nothing in use"
            );
        }
        let again = bench.get(format, &file.path).await.unwrap();
        assert_eq!(again.bytes(), &body.slice(0, body.length()));
        assert!(!again.is_hit());
        assert_hit(&bench, &file, &body).await;
        if file.has_document() {
            bench.get(format, file.document).await.unwrap();
        }
        assert_eq!(bench.origin.count("*", &file.at), 2);
    }
}

#[tokio::test]
async fn hazard_l2_a_blob_of_another_size_is_never_served() {
    let mut bench = Bench::new().await;
    let body = Payload::generated(10_000, 1);
    let file = publish(&bench.origin, "generic", &body, "\"one\"");
    bench.get("generic", &file.path).await.unwrap();
    bench.restart().await;
    let found = bench.files_of_size(10_000);
    assert_eq!(found.len(), 1);
    std::fs::OpenOptions::new()
        .write(true)
        .open(&found[0])
        .unwrap()
        .set_len(5000)
        .unwrap();
    assert_eq!(
        bench.get("generic", &file.path).await.unwrap().bytes(),
        &body.slice(0, 10_000)
    );
    assert_hit(&bench, &file, &body).await;
}
