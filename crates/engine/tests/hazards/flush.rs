//! `PUT /cache/flush` against downloads under way, and what is not kept because of its size.

use larder_engine::{CacheType, FlushRequest};
use larder_testkit::{Behaviour, Payload};

use crate::support::{Bench, FORMATS, publish, upstream};
use crate::{KIB, MIB, assert_hit, assert_nothing_kept};

#[tokio::test]
async fn a_download_begun_before_a_flush_serves_its_readers_and_commits_nothing() {
    for format in FORMATS {
        for size in [10 * KIB, 3 * MIB] {
            let bench = Bench::new().await;
            let body = Payload::generated(size, 1);
            let file = publish(&bench.origin, format, &body, "\"one\"");
            bench.origin.hold_body(&file.at, size / 2);
            let reader = tokio::spawn(bench.client(format, &file.path).run());
            bench.origin.wait_for("GET", &file.at, 1).await;
            bench.flush().await;
            let newer = Payload::generated(size, 2);
            publish(&bench.origin, format, &newer, "\"two\"");
            let late = tokio::spawn(bench.client(format, &file.path).run());
            bench.origin.wait_for("GET", &file.at, 2).await;
            bench.origin.release(&file.at);
            let late = late.await.unwrap().unwrap();
            assert_eq!(
                late.bytes(),
                &newer.slice(0, size),
                "{format}: who comes after a flush gets what is there then"
            );
            match reader.await.unwrap() {
                // Without a digest the old bytes are what the upstream said; with one they may fail the newer index.
                Ok(got) => assert!(
                    got.body.is_err() || got.bytes() == &body.slice(0, size),
                    "{format}"
                ),
                Err(fault) => assert_ne!(format, "generic", "{fault:?}"),
            }
            bench.settled().await;
            let hit = bench.get(format, &file.path).await.unwrap();
            assert_eq!(
                (hit.bytes(), hit.is_hit()),
                (&newer.slice(0, size), true),
                "{format}: the newer one is kept"
            );
        }
    }
}

#[tokio::test]
async fn a_flushed_download_that_nobody_repeats_is_not_kept() {
    for format in FORMATS {
        let bench = Bench::new().await;
        let body = Payload::generated(10 * KIB, 1);
        let file = publish(&bench.origin, format, &body, "\"one\"");
        bench.origin.hold_body(&file.at, 100);
        let reader = tokio::spawn(bench.client(format, &file.path).run());
        bench.origin.wait_for("GET", &file.at, 1).await;
        bench.flush().await;
        bench.origin.release(&file.at);
        assert_eq!(
            reader.await.unwrap().unwrap().bytes(),
            &body.slice(0, body.length())
        );
        assert_nothing_kept(&bench, &file, &body).await;
    }
}

#[tokio::test]
async fn each_kind_of_flush_takes_what_it_names() {
    for (cache_type, index_left, file_left) in [
        (CacheType::All, false, false),
        (CacheType::Index, false, true),
        (CacheType::Files, true, false),
        (CacheType::Metrics, true, true),
    ] {
        let bench = Bench::new().await;
        let body = Payload::generated(1000, 1);
        let file = publish(&bench.origin, "helm", &body, "\"one\"");
        bench.get("helm", &file.path).await.unwrap();
        bench.get("helm", file.document).await.unwrap();
        bench.settled().await;
        let report = bench
            .engine
            .flush(FlushRequest {
                cache_type,
                ..FlushRequest::default()
            })
            .await
            .unwrap();
        assert_eq!(
            (report.index, report.files),
            (u64::from(!index_left), u64::from(!file_left)),
            "{cache_type:?}"
        );
        bench.origin.reset_log();
        bench.get("helm", file.document).await.unwrap();
        bench.get("helm", &file.path).await.unwrap();
        bench.settled().await;
        let asked = (
            bench.origin.count("*", file.document_at),
            bench.origin.count("*", &file.at),
        );
        assert_eq!(
            asked,
            (usize::from(!index_left), usize::from(!file_left)),
            "{cache_type:?}"
        );
    }
}

#[tokio::test]
async fn a_pattern_takes_what_it_matches_in_the_repository_that_is_named() {
    let bench = Bench::new().await;
    for path in ["a.tgz", "b.tgz"] {
        bench.origin.put(&format!("/{path}"), crate::text("body"));
        for repository in ["generic", "helm"] {
            bench.get(repository, path).await.unwrap();
        }
    }
    bench.settled().await;
    let request = FlushRequest {
        remote: Some("generic".to_owned()),
        pattern: Some("^a".to_owned()),
        ..FlushRequest::default()
    };
    assert_eq!(bench.engine.flush(request).await.unwrap().files, 1);
    for (repository, path, held) in [
        ("generic", "a.tgz", false),
        ("generic", "b.tgz", true),
        ("helm", "a.tgz", true),
        ("helm", "b.tgz", true),
    ] {
        assert_eq!(
            bench.get(repository, path).await.unwrap().is_hit(),
            held,
            "{repository} {path}"
        );
    }
}

#[tokio::test]
async fn files_above_max_size_are_streamed_and_not_kept() {
    for format in FORMATS {
        for (size, behaviour) in [
            (6 * MIB, None),
            (6 * MIB, Some(Behaviour::Chunked)),
            (200 * KIB, None),
            (100 * KIB, None),
        ] {
            let bench = Bench::with(|r| upstream(r).max_size = Some(100 * KIB)).await;
            let body = Payload::generated(size, 1);
            let file = publish(&bench.origin, format, &body, "\"one\"");
            if let Some(behaviour) = behaviour.clone() {
                bench.origin.behave(&file.at, behaviour);
            }
            let got = bench.get(format, &file.path).await.unwrap();
            assert_eq!(
                got.bytes(),
                &body.slice(0, size),
                "{format} {size} {behaviour:?}"
            );
            if size > 100 * KIB {
                if behaviour.is_none() {
                    let status = &got.answer.cache_status;
                    assert!(
                        status.ends_with("; detail=not-kept") && !status.contains("stored"),
                        "{format} {size}: {status}"
                    );
                }
                assert_nothing_kept(&bench, &file, &body).await;
                let again = bench.get(format, &file.path).await.unwrap();
                assert_eq!(
                    (again.bytes(), again.is_hit()),
                    (&body.slice(0, size), false)
                );
            } else {
                assert_hit(&bench, &file, &body).await;
            }
        }
    }
}

/// Wrong bytes do not end well only because they are not kept.
#[tokio::test]
async fn files_above_max_size_are_verified_all_the_same() {
    for format in ["pypi", "npm", "helm"] {
        for size in [200 * KIB, 6 * MIB] {
            let bench = Bench::with(|r| upstream(r).max_size = Some(100 * KIB)).await;
            let file = publish(
                &bench.origin,
                format,
                &Payload::generated(size, 1),
                "\"one\"",
            );
            bench.origin.behave(
                &file.at,
                Behaviour::Body(Payload::generated(size, 2).slice(0, size)),
            );
            match bench.get(format, &file.path).await {
                Ok(got) => assert!(size > MIB && got.body.is_err(), "{format} {size}"),
                Err(fault) => assert_eq!(fault.code.as_str(), "digest_mismatch"),
            }
        }
    }
}

/// Many readers of what is not kept share one download while they can, and each gets every byte.
#[tokio::test]
async fn hazard_a1_readers_of_what_is_not_kept_share_a_download() {
    let bench = Bench::with(|r| upstream(r).max_size = Some(100 * KIB)).await;
    let body = Payload::generated(12 * MIB, 1);
    let file = publish(&bench.origin, "generic", &body, "\"one\"");
    let whole = body.slice(0, body.length());
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        readers.spawn(bench.client("generic", &file.path).expect(&whole).run());
    }
    while let Some(got) = readers.join_next().await {
        got.unwrap().unwrap().body.unwrap();
    }
    assert!(bench.origin.count("GET", &file.at) < 16);
}
