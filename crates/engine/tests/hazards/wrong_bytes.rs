//! Hazards W1 to W11: nothing wrong is ever kept or ends well.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use larder_core::{DigestAlgorithm, FaultKind, Hasher, sha256};
use larder_testkit::{Behaviour, Payload, Resource};

use crate::support::{Bench, FORMATS, npm_packument, publish, pypi_page, some_time};
use crate::{KIB, MIB, assert_hit, assert_nothing_kept, refusal, text};

const BAD_GATEWAY: FaultKind = FaultKind::BadGateway;

/// The upstream behaves so each time, and knows no ranges: where a digest is known, the rest of a body that was cut is asked for.
fn without_ranges(bench: &Bench, path: &str, behaviour: Behaviour) {
    bench.origin.behave(path, behaviour);
    bench.origin.behave(path, Behaviour::IgnoreRanges);
}

#[tokio::test]
async fn hazard_w1_a_short_body_is_an_error_and_nothing_is_published() {
    for format in FORMATS {
        let bench = Bench::new().await;
        let body = Payload::generated(100 * KIB, 1);
        let file = publish(&bench.origin, format, &body, "W/\"weak\"");
        for after in [0, 1, 50 * KIB, 100 * KIB - 1] {
            without_ranges(&bench, &file.at, Behaviour::Truncate { after });
            let refused = refusal(bench.get(format, &file.path).await);
            assert_eq!(
                refused,
                (BAD_GATEWAY, "upstream_cut"),
                "{format} after {after}"
            );
            bench.settled().await;
            bench.origin.clear(&file.at);
        }
        without_ranges(&bench, &file.at, Behaviour::LieAboutLength(10));
        assert_eq!(
            refusal(bench.get(format, &file.path).await).0,
            BAD_GATEWAY,
            "{format}"
        );
        assert_nothing_kept(&bench, &file, &body).await;
        bench.origin.clear(&file.at);
        assert_eq!(
            bench.get(format, &file.path).await.unwrap().bytes(),
            &body.slice(0, body.length())
        );
        assert_hit(&bench, &file, &body).await;
    }
}

#[tokio::test]
async fn hazard_w1_a_large_short_body_is_broken_off() {
    for format in FORMATS {
        let bench = Bench::new().await;
        let body = Payload::generated(3 * MIB, 1);
        let file = publish(&bench.origin, format, &body, "W/\"weak\"");
        without_ranges(&bench, &file.at, Behaviour::Truncate { after: 2 * MIB });
        let got = bench.get(format, &file.path).await.unwrap();
        assert!(
            got.body.is_err(),
            "{format}: a body that is cut must not end well"
        );
        assert_nothing_kept(&bench, &file, &body).await;
    }
}

/// A length that is too small hides the rest of the body; only a digest can tell.
#[tokio::test]
async fn hazard_w1_a_length_that_is_too_small_is_seen_by_its_digest() {
    for format in ["pypi", "npm", "helm"] {
        let bench = Bench::new().await;
        let body = Payload::generated(100 * KIB, 1);
        let file = publish(&bench.origin, format, &body, "\"strong\"");
        bench
            .origin
            .behave(&file.at, Behaviour::LieAboutLength(-10));
        assert_eq!(
            refusal(bench.get(format, &file.path).await),
            (BAD_GATEWAY, "digest_mismatch")
        );
        bench.origin.clear(&file.at);
        assert_eq!(
            bench.get(format, &file.path).await.unwrap().bytes(),
            &body.slice(0, body.length()),
            "the next is not mixed up"
        );
    }
}

#[tokio::test]
async fn hazard_w2_a_chunked_body_without_its_last_chunk_is_cut() {
    for format in FORMATS {
        for (size, after) in [
            (100 * KIB, 0),
            (100 * KIB, 100 * KIB),
            (3 * MIB, 2 * MIB),
            (3 * MIB, 3 * MIB),
        ] {
            let bench = Bench::new().await;
            let body = Payload::generated(size, 1);
            let file = publish(&bench.origin, format, &body, "W/\"weak\"");
            without_ranges(&bench, &file.at, Behaviour::CutChunked { after });
            match bench.get(format, &file.path).await {
                Ok(got) => assert!(
                    size > MIB && got.body.is_err(),
                    "{format} {size} {after}: {got:?}"
                ),
                Err(fault) => assert_eq!(fault.kind, BAD_GATEWAY),
            }
            assert_nothing_kept(&bench, &file, &body).await;
            bench.origin.clear(&file.at);
            bench.origin.behave(&file.at, Behaviour::Chunked);
            assert_eq!(
                bench.get(format, &file.path).await.unwrap().bytes(),
                &body.slice(0, size)
            );
            assert_hit(&bench, &file, &body).await;
        }
    }
}

#[tokio::test]
async fn hazard_w2_a_body_whose_end_nothing_marks_is_kept_only_on_the_word_of_a_digest() {
    for format in FORMATS {
        let bench = Bench::new().await;
        let body = Payload::generated(10 * KIB, 1);
        let file = publish(&bench.origin, format, &body, "\"strong\"");
        bench.origin.behave(&file.at, Behaviour::UntilClose);
        assert_eq!(
            bench.get(format, &file.path).await.unwrap().bytes(),
            &body.slice(0, body.length())
        );
        if format == "generic" {
            assert_nothing_kept(&bench, &file, &body).await;
        } else {
            assert_hit(&bench, &file, &body).await;
        }
    }
}

/// What is not kept is not remembered either, here or at the client: the next request is the upstream's again.
#[tokio::test]
async fn hazard_w2_a_body_whose_end_nothing_marks_serves_one_answer() {
    for size in [10 * KIB, 3 * MIB] {
        let bench = Bench::new().await;
        let body = Payload::generated(size, 1);
        let file = publish(&bench.origin, "generic", &body, "\"strong\"");
        bench.origin.behave(&file.at, Behaviour::UntilClose);
        for round in 1..=3 {
            let client = bench.client("generic", &file.path);
            let answer = client.answer().await.unwrap();
            assert!(answer.hot.is_none(), "{size}");
            assert_eq!(answer.freshness.remaining, Some(Duration::ZERO), "{size}");
            assert!(
                !answer.cache_status.stored && answer.cache_status.detail == Some("not-kept"),
                "{size}"
            );
            drop(answer);
            assert_eq!(client.run().await.unwrap().bytes(), &body.slice(0, size));
            bench.settled().await;
            assert!(
                bench.origin.count("GET", &file.at) >= round,
                "{size}: asked again each time"
            );
        }
    }
}

#[tokio::test]
async fn hazard_w3_when_the_client_is_gone_a_broken_download_is_discarded_and_a_whole_one_kept() {
    for format in FORMATS {
        let bench = Bench::new().await;
        let body = Payload::generated(3 * MIB, 1);
        let file = publish(&bench.origin, format, &body, "W/\"weak\"");
        bench
            .origin
            .behave_once(&file.at, Behaviour::Truncate { after: 2 * MIB });
        // With a digest, a cut is repaired by reading the body again.
        let kept = format != "generic";
        let left = bench
            .client(format, &file.path)
            .leave_after(1000)
            .run()
            .await
            .unwrap();
        assert_eq!(left.body.unwrap_err(), "left");
        if kept {
            assert_hit(&bench, &file, &body).await;
        } else {
            assert_nothing_kept(&bench, &file, &body).await;
            bench
                .client(format, &file.path)
                .leave_after(1000)
                .run()
                .await
                .unwrap();
            assert_hit(&bench, &file, &body).await;
        }
    }
}

#[tokio::test]
async fn hazard_w4_readers_reach_only_what_is_verified_and_published() {
    let bench = Bench::new().await;
    let body = Payload::generated(3 * MIB, 1);
    let file = publish(&bench.origin, "npm", &body, "\"strong\"");
    bench.origin.put(
        &file.at,
        Resource::new(Payload::generated(3 * MIB, 2)).etag("\"strong\""),
    );
    bench.origin.hold_body(&file.at, 2 * MIB);
    let reader = tokio::spawn(bench.client("npm", &file.path).run());
    bench.origin.wait_for("GET", &file.at, 1).await;
    bench.until_come("npm", 2 * MIB).await;
    some_time(std::time::Duration::from_millis(200)).await;
    assert_eq!(bench.record("npm", &file.path, "").await, None);
    assert!(
        bench
            .blobs
            .list(None, 10)
            .await
            .unwrap()
            .iter()
            .all(|blob| blob.descriptor.size < MIB),
        "nothing unfinished has a name"
    );
    bench.origin.release(&file.at);
    assert!(
        reader.await.unwrap().unwrap().body.is_err(),
        "wrong bytes never end well"
    );
    assert_nothing_kept(&bench, &file, &body).await;
}

#[tokio::test]
async fn hazard_w5_every_stated_digest_is_enforced_whatever_was_asked_first() {
    for format in ["pypi", "npm", "helm"] {
        for size in [1000, 2 * MIB] {
            for document_first in [false, true] {
                let bench = Bench::new().await;
                let body = Payload::generated(size, 1);
                let file = publish(&bench.origin, format, &body, "\"strong\"");
                bench.origin.behave(
                    &file.at,
                    Behaviour::Body(Payload::generated(size, 2).slice(0, size)),
                );
                if document_first {
                    bench.get(format, file.document).await.unwrap();
                }
                match bench.get(format, &file.path).await {
                    Ok(got) => assert!(size > MIB && got.body.is_err(), "{format} {size}"),
                    Err(fault) => {
                        assert_eq!(
                            (fault.kind, fault.code.as_str()),
                            (BAD_GATEWAY, "digest_mismatch")
                        );
                    }
                }
                assert_nothing_kept(&bench, &file, &body).await;
                bench.origin.clear(&file.at);
                assert_eq!(
                    bench.get(format, &file.path).await.unwrap().bytes(),
                    &body.slice(0, size)
                );
                assert_hit(&bench, &file, &body).await;
                assert!(bench.record(format, &file.path, "").await.unwrap().verified);
            }
        }
    }
}

#[tokio::test]
async fn hazard_w5_a_metadata_file_has_a_digest_of_its_own() {
    let bench = Bench::new().await;
    let url = bench.origin.url("packages/demo-1.0-py3-none-any.whl");
    let page = format!(
        r#"{{"meta":{{"api-version":"1.1"}},"name":"demo","versions":["1.0"],"files":[{{"filename":"demo-1.0-py3-none-any.whl","url":"{url}","hashes":{{}},"core-metadata":{{"sha256":"{}"}}}}]}}"#,
        sha256(b"Metadata-Version: 2.1\n").to_hex()
    );
    bench.origin.put(
        "/simple/demo/",
        Resource::new(page).content_type("application/vnd.pypi.simple.v1+json"),
    );
    let path = "packages/demo-1.0-py3-none-any.whl.metadata";
    bench.origin.put(
        &format!("/{path}"),
        Resource::new("Metadata-Version: 6.6\n"),
    );
    assert_eq!(
        refusal(bench.get("pypi", path).await),
        (BAD_GATEWAY, "digest_mismatch")
    );
    bench.origin.put(
        &format!("/{path}"),
        Resource::new("Metadata-Version: 2.1\n"),
    );
    assert_eq!(
        bench.get("pypi", path).await.unwrap().text(),
        "Metadata-Version: 2.1\n"
    );
}

#[tokio::test]
async fn hazard_w5_an_old_sha1_is_enforced_where_nothing_better_is_stated() {
    let bench = Bench::new().await;
    let mut hasher = Hasher::new(&[DigestAlgorithm::Sha1]);
    hasher.update(b"abc");
    let sha1 = hasher.finish().pop().unwrap().to_hex();
    // FIPS 180-2, appendix A.1.
    assert_eq!(sha1, "a9993e364706816aba3e25717850c26c9cd0d89d");
    let url = bench.origin.url("/demo/-/demo-1.0.0.tgz");
    let packument = format!(
        r#"{{"name":"demo","dist-tags":{{"latest":"1.0.0"}},"versions":{{"1.0.0":{{"name":"demo","version":"1.0.0","dist":{{"tarball":"{url}","shasum":"{sha1}"}}}}}}}}"#
    );
    bench.origin.put(
        "/demo",
        Resource::new(packument).content_type("application/json"),
    );
    bench
        .origin
        .put("/demo/-/demo-1.0.0.tgz", Resource::new("abd"));
    assert_eq!(
        refusal(bench.get("npm", "demo/-/demo-1.0.0.tgz").await).1,
        "digest_mismatch"
    );
    bench
        .origin
        .put("/demo/-/demo-1.0.0.tgz", Resource::new("abc"));
    assert_eq!(
        bench
            .get("npm", "demo/-/demo-1.0.0.tgz")
            .await
            .unwrap()
            .text(),
        "abc"
    );
}

#[tokio::test]
async fn hazard_w7_generic_files_keep_their_bytes_and_their_label() {
    let bench = Bench::new().await;
    let body = Payload::generated(10 * KIB, 1);
    let file = publish(&bench.origin, "generic", &body, "\"strong\"");
    bench
        .origin
        .behave(&file.at, Behaviour::LabelEncoding("gzip".to_owned()));
    for _ in 0..2 {
        let got = bench.get("generic", &file.path).await.unwrap();
        assert_eq!(got.bytes(), &body.slice(0, body.length()));
        assert_eq!(
            got.answer.representation.content_encoding.as_deref(),
            Some("gzip")
        );
        bench.settled().await;
    }
    assert!(
        bench
            .origin
            .requests()
            .iter()
            .all(|request| request.header("accept-encoding") == Some("identity"))
    );
}

#[tokio::test]
async fn hazard_w7_packages_are_what_their_names_say_whatever_the_label() {
    for format in ["pypi", "npm", "helm"] {
        for size in [10 * KIB, 2 * MIB] {
            let body = Payload::generated(size, 1);
            // A label on bytes that are right as they are; compressed once more on the way; labelled and wrong.
            for (behaviour, right) in [
                (Behaviour::LabelEncoding("gzip".to_owned()), true),
                (Behaviour::Gzip, true),
                (Behaviour::LabelEncoding("br".to_owned()), true),
                (
                    Behaviour::Body(Payload::generated(size, 2).slice(0, size)),
                    false,
                ),
            ] {
                let bench = Bench::new().await;
                let file = publish(&bench.origin, format, &body, "\"strong\"");
                if !right {
                    bench
                        .origin
                        .behave(&file.at, Behaviour::LabelEncoding("gzip".to_owned()));
                }
                bench.origin.behave(&file.at, behaviour.clone());
                let got = bench.get(format, &file.path).await;
                if !right {
                    assert_eq!(
                        refusal(got),
                        (BAD_GATEWAY, "digest_mismatch"),
                        "{format} {size}"
                    );
                    assert_nothing_kept(&bench, &file, &body).await;
                    continue;
                }
                let got = got.unwrap();
                assert_eq!(
                    got.bytes(),
                    &body.slice(0, size),
                    "{format} {size} {behaviour:?}"
                );
                assert_eq!(got.answer.representation.content_encoding, None);
                assert_hit(&bench, &file, &body).await;
            }
        }
    }
}

#[tokio::test]
async fn hazard_w7_files_without_a_digest_are_unpacked_unless_their_name_says_compressed() {
    let bench = Bench::new().await;
    bench.origin.put(
        "/charts/demo-1.0.0.tgz.prov",
        Resource::new("-----BEGIN PGP SIGNED MESSAGE-----"),
    );
    bench.origin.behave("*", Behaviour::Gzip);
    let got = bench
        .get("helm", "charts/demo-1.0.0.tgz.prov")
        .await
        .unwrap();
    assert_eq!(got.text(), "-----BEGIN PGP SIGNED MESSAGE-----");
    assert_eq!(got.answer.representation.content_encoding, None);
    bench
        .origin
        .put("/charts/other-1.0.0.tgz", Resource::new("a chart"));
    let got = bench.get("helm", "charts/other-1.0.0.tgz").await.unwrap();
    assert_eq!(
        &got.bytes()[..2],
        [0x1f, 0x8b],
        "the label is dropped and the bytes stay"
    );
    assert_eq!(got.answer.representation.content_encoding, None);
}

#[tokio::test]
async fn hazard_w7_documents_are_unpacked_before_they_are_read() {
    for format in ["pypi", "npm", "helm"] {
        let bench = Bench::new().await;
        let file = publish(
            &bench.origin,
            format,
            &Payload::generated(100, 1),
            "\"strong\"",
        );
        let plain = bench.get(format, file.document).await.unwrap().text();
        bench.flush().await;
        bench.origin.behave(file.document_at, Behaviour::Gzip);
        assert_eq!(
            bench.get(format, file.document).await.unwrap().text(),
            plain,
            "{format}"
        );
        bench.flush().await;
        bench.origin.clear(file.document_at);
        bench
            .origin
            .behave(file.document_at, Behaviour::LabelEncoding("br".to_owned()));
        assert_eq!(
            refusal(bench.get(format, file.document).await),
            (BAD_GATEWAY, "malformed_document"),
            "{format}"
        );
    }
}

#[tokio::test]
async fn hazard_w8_suffix_range_overflow() {
    let bench = Bench::new().await;
    let body = Payload::generated(3 * MIB, 1);
    let file = publish(&bench.origin, "generic", &body, "\"strong\"");
    bench.origin.hold_body(&file.at, MIB);
    let ask = |range: &str| {
        tokio::spawn(
            bench
                .client("generic", &file.path)
                .header("range", range)
                .run(),
        )
    };
    // CVE-2017-7529 in flight: a suffix longer than the body is the body, a start beyond it is nothing.
    let all = ask("bytes=-18446744073709551615");
    let beyond = ask("bytes=18446744073709551615-");
    bench.origin.wait_for("GET", &file.at, 1).await;
    bench.origin.release(&file.at);
    let all = all.await.unwrap().unwrap();
    assert_eq!(
        (all.answer.status, all.bytes()),
        (206, &body.slice(0, body.length()))
    );
    assert_eq!(beyond.await.unwrap().unwrap().answer.status, 416);
    assert_hit(&bench, &file, &body).await;
    assert!(
        bench
            .origin
            .requests()
            .iter()
            .all(|request| request.header("range").is_none()),
        "no range goes upstream"
    );
}

#[tokio::test]
async fn hazard_w8_an_unasked_206_is_never_stored() {
    for format in FORMATS {
        let bench = Bench::new().await;
        let body = Payload::generated(10 * KIB, 1);
        let file = publish(&bench.origin, format, &body, "\"strong\"");
        for length in [100, 10 * KIB] {
            bench
                .origin
                .behave(&file.at, Behaviour::UnaskedPartial { length });
            assert_eq!(
                refusal(bench.get(format, &file.path).await).0,
                BAD_GATEWAY,
                "{format} {length}"
            );
            bench.origin.clear(&file.at);
        }
        assert_nothing_kept(&bench, &file, &body).await;
    }
}

#[tokio::test]
async fn hazard_w9_two_versions_are_never_glued_together() {
    let old = Payload::generated(3 * MIB, 1);
    for etag in [Some("\"two\""), Some("W/\"one\""), None] {
        let bench = Bench::new().await;
        let file = publish(&bench.origin, "generic", &old, "\"one\"");
        bench.origin.hold_body(&file.at, 2 * MIB);
        bench
            .origin
            .behave_once(&file.at, Behaviour::Truncate { after: 2 * MIB });
        let reader = tokio::spawn(bench.client("generic", &file.path).run());
        bench.origin.wait_for("GET", &file.at, 1).await;
        let new = Resource::new(Payload::generated(3 * MIB, 2));
        bench.origin.put(
            &file.at,
            if let Some(etag) = etag {
                new.etag(etag)
            } else {
                new
            },
        );
        bench.origin.release(&file.at);
        assert!(reader.await.unwrap().unwrap().body.is_err(), "{etag:?}");
        assert_nothing_kept(&bench, &file, &old).await;
    }
}

/// The document that might have vouched for the joined parts turns out to know nothing of the file.
#[tokio::test]
async fn hazard_w9_without_tag_and_digest_no_body_is_taken_up_again() {
    let bench = Bench::new().await;
    let body = Payload::generated(3 * MIB, 1);
    let file = publish(&bench.origin, "npm", &body, "W/\"weak\"");
    bench.origin.put(
        file.document_at,
        npm_packument("http://127.0.0.1:9/elsewhere-2.0.0.tgz", b""),
    );
    bench.origin.hold(file.document_at);
    bench
        .origin
        .behave_once(&file.at, Behaviour::Truncate { after: 2 * MIB });
    let reader = tokio::spawn(bench.client("npm", &file.path).run());
    bench.origin.wait_for("GET", &file.at, 2).await;
    bench
        .origin
        .put(file.document_at, Resource::new("gone").status(404));
    bench.origin.release(file.document_at);
    assert!(reader.await.unwrap().unwrap().body.is_err());
    assert_nothing_kept(&bench, &file, &body).await;
}

#[tokio::test]
async fn hazard_w9_a_revalidation_renews_and_never_rewrites_validators() {
    for method in ["HEAD", "GET"] {
        let bench = Bench::with(|r| {
            r.access.mutable = Some(vec![larder_core::Pattern::compile("idx$").unwrap()]);
            r.cache.revalidate = Some(if method == "HEAD" {
                larder_core::Revalidate::Head
            } else {
                larder_core::Revalidate::Get
            });
        })
        .await;
        bench.origin.put("/idx", text("one"));
        bench.get("generic", "idx").await.unwrap();
        bench.settled().await;
        bench.wait(3601);
        // An upstream that says "unchanged" and sends another tag with it.
        bench.origin.put("/idx", text("two"));
        bench.origin.behave("/idx", Behaviour::NotModified);
        let got = bench.get("generic", "idx").await.unwrap();
        assert_eq!(
            (
                got.text().as_str(),
                got.answer.representation.etag.as_deref()
            ),
            ("one", Some("\"one\"")),
            "{method}"
        );
        bench.settled().await;
        assert_eq!(
            bench
                .record("generic", "idx", "")
                .await
                .unwrap()
                .headers
                .etag
                .as_deref(),
            Some("\"one\"")
        );
        bench.wait(3601);
        bench.origin.clear("/idx");
        let got = bench.get("generic", "idx").await.unwrap();
        assert_eq!(
            (
                got.text().as_str(),
                got.answer.representation.etag.as_deref()
            ),
            ("two", Some("\"two\"")),
            "{method}"
        );
    }
}

#[tokio::test]
async fn hazard_w9_all_forms_of_a_page_come_from_one_generation() {
    let bench = Bench::new().await;
    let html = |bench: &Bench| {
        bench
            .client("pypi", "simple/demo/")
            .header("accept", "text/html")
            .run()
    };
    let json = |bench: &Bench| {
        bench
            .client("pypi", "simple/demo/")
            .header("accept", "application/vnd.pypi.simple.v1+json")
            .run()
    };
    let (one, two) = (sha256(b"one"), sha256(b"two"));
    let url = bench.origin.url("packages/demo-1.0-py3-none-any.whl");
    bench.origin.put("/simple/demo/", pypi_page(&url, &one));
    assert!(html(&bench).await.unwrap().text().contains(&one.to_hex()));
    bench.settled().await;
    bench.origin.put("/simple/demo/", pypi_page(&url, &two));
    assert!(
        json(&bench).await.unwrap().text().contains(&one.to_hex()),
        "the other form is not newer"
    );
    bench.wait(3601);
    assert!(json(&bench).await.unwrap().text().contains(&two.to_hex()));
    bench.settled().await;
    assert!(
        html(&bench).await.unwrap().text().contains(&two.to_hex()),
        "the other form is not older"
    );
    assert_eq!(bench.origin.count("*", "/simple/demo/"), 2);
}

#[tokio::test]
async fn hazard_w11_only_a_200_is_stored() {
    for format in FORMATS {
        for behaviour in [
            Behaviour::NotModified,
            Behaviour::Status(201),
            Behaviour::Status(203),
            Behaviour::Status(204),
            Behaviour::Status(226),
            Behaviour::Status(500),
            Behaviour::Status(503),
            Behaviour::Status(300),
        ] {
            let bench = Bench::new().await;
            let body = Payload::generated(1000, 1);
            let file = publish(&bench.origin, format, &body, "\"strong\"");
            bench.origin.behave(&file.at, behaviour.clone());
            refusal(bench.get(format, &file.path).await);
            bench.settled().await;
            assert_eq!(
                bench.record(format, &file.path, "").await,
                None,
                "{format} {behaviour:?}"
            );
            bench.origin.clear(&file.at);
            assert_eq!(
                bench.get(format, &file.path).await.unwrap().bytes().len(),
                1000
            );
        }
    }
}

#[tokio::test]
async fn hazard_w11_a_page_for_people_is_no_index() {
    for format in ["pypi", "npm", "helm"] {
        let bench = Bench::new().await;
        let file = publish(
            &bench.origin,
            format,
            &Payload::generated(100, 1),
            "\"strong\"",
        );
        for nonsense in [
            Behaviour::LoginPage,
            Behaviour::JsonNesting { depth: 1_000_000 },
            Behaviour::Body(Bytes::new()),
            Behaviour::Body(Bytes::from_static(b"\xff\xfe\x00")),
        ] {
            bench.origin.behave(file.document_at, nonsense.clone());
            let refused = refusal(bench.get(format, file.document).await);
            assert_eq!(
                refused,
                (BAD_GATEWAY, "malformed_document"),
                "{format} {nonsense:?}"
            );
            bench.settled().await;
            assert_eq!(
                bench
                    .record(format, file.document, file.document_variant)
                    .await,
                None
            );
            bench.origin.clear(file.document_at);
        }
        let whole = bench.get(format, file.document).await.unwrap();
        bench.settled().await;
        // A copy that was good goes on being served, marked stale.
        bench.wait(3601);
        bench.origin.behave(file.document_at, Behaviour::LoginPage);
        let stale = bench.get(format, file.document).await.unwrap();
        assert_eq!(stale.bytes(), whole.bytes());
        assert!(
            stale.answer.cache_status.contains("detail=stale-error"),
            "{}",
            stale.answer.cache_status
        );
        assert!(
            !stale.answer.hot
                && stale.answer.freshness.remaining == Some(std::time::Duration::ZERO)
        );
    }
}

#[tokio::test]
async fn hazard_w11_a_head_stores_nothing() {
    let bench = Bench::new().await;
    bench.origin.put(
        "/folder",
        Resource::new("<html>a listing</html>").content_type("text/html"),
    );
    bench
        .ask(Method::HEAD, "generic", "folder", &[])
        .await
        .unwrap();
    bench.settled().await;
    assert_eq!(bench.record("generic", "folder", "").await, None);
}
