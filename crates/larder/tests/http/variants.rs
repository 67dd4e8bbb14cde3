//! Documents that larder rewrites: one representation for each form and coding, each with a strong tag of its own; files are never coded.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::time::{Duration, Instant};

use larder_testkit::{Behaviour, Origin, Resource};

use crate::support::packages::{File, SIMPLE_JSON, helm, npm, one_of_each, pypi_json};
use crate::support::{Answer, PATIENCE, TestLarder, get, send};

/// Takes a body's coding off.
fn plain(answer: &Answer) -> Vec<u8> {
    let mut out = Vec::new();
    match answer.header("content-encoding") {
        "" => out.clone_from(&answer.body),
        "gzip" => drop(
            flate2::read::MultiGzDecoder::new(&answer.body[..])
                .read_to_end(&mut out)
                .expect("gzip"),
        ),
        "zstd" => out = zstd::stream::decode_all(&answer.body[..]).expect("zstd"),
        other => panic!("{other}"),
    }
    out
}

async fn filled() -> (Origin, TestLarder, Vec<(&'static str, String)>) {
    let origin = Origin::start().await;
    let files: Vec<File> = (0..200)
        .map(|n| File::generated("pantry", &format!("{n}.0.0"), 50, n))
        .collect();
    let paths = vec![
        ("pypi", pypi_json(&origin, "pantry", &files).remove(0)),
        ("npm", npm(&origin, "pantry", &files).remove(0)),
        ("helm", helm(&origin, &files).remove(0)),
    ];
    let larder = TestLarder::start(&one_of_each(&origin, "")).await;
    (origin, larder, paths)
}

/// GET until the answer comes in this coding: coded forms are made behind the scenes, and identity is served meanwhile.
async fn coded(url: &str, accept: &str, coding: &str) -> Answer {
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = send(
            "GET",
            url,
            &[("Accept", accept), ("Accept-Encoding", coding)],
        )
        .await;
        assert_eq!(answer.status, 200, "{url}: {}", answer.text());
        if answer.header("content-encoding") == coding.trim_start_matches("identity") {
            return answer;
        }
        assert_eq!(
            answer.header("content-encoding"),
            "",
            "identity or what was asked for"
        );
        assert!(Instant::now() < until, "{url} never comes as {coding}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

const ABBREVIATED: &str = "application/vnd.npm.install-v1+json";
const DOCUMENTS: [(&str, &str, &str, &str); 5] = [
    ("pypi", "simple/pantry/", "text/html", "text/html"),
    ("pypi", "simple/pantry/", SIMPLE_JSON, SIMPLE_JSON),
    ("npm", "pantry", "application/json", "application/json"),
    // This upstream knows only the full form, and larder does not call it by another name.
    ("npm", "pantry", ABBREVIATED, "application/json"),
    ("helm", "index.yaml", "*/*", "application/yaml"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_form_and_coding_has_its_own_strong_tag() {
    let (origin, larder, _) = filled().await;
    let (mut tags, mut bytes_of) = (BTreeSet::new(), BTreeMap::new());
    for (repository, path, accept, content_type) in DOCUMENTS {
        let url = larder.artifact(repository, path);
        let identity = send("GET", &url, &[("Accept", accept)]).await;
        assert_eq!(
            (identity.status, identity.header("content-encoding")),
            (200, ""),
            "{repository} {accept}"
        );
        assert!(
            identity.header("content-type").starts_with(content_type),
            "{accept}: {}",
            identity.header("content-type")
        );
        for coding in ["identity", "gzip", "zstd"] {
            let case = format!("{repository} {accept} {coding}");
            for _ in 0..2 {
                let answer = coded(&url, accept, coding).await;
                assert!(plain(&answer) == identity.body, "{case}: another document");
                assert!(
                    coding == "identity" || answer.body.len() < identity.body.len() / 2,
                    "{case}: {} bytes",
                    answer.body.len()
                );
                let vary = answer.header("vary").to_lowercase();
                assert!(vary.contains("accept-encoding"), "{case}: {vary:?}");
                assert!(
                    repository == "helm" || vary.split(", ").any(|name| name == "accept"),
                    "{case}: {vary:?}"
                );
                let tag = answer.header("etag").to_owned();
                assert!(
                    tag.starts_with('"') && tag.ends_with('"') && tag.len() > 4,
                    "{case}: {tag}"
                );
                assert_ne!(
                    tag, "\"page-1\"",
                    "{case}: the upstream's tag belongs to the upstream's bytes"
                );
                // The tag renews exactly this representation.
                let same = [
                    ("Accept", accept),
                    ("Accept-Encoding", coding),
                    ("If-None-Match", &tag),
                ];
                assert_eq!(send("GET", &url, &same).await.status, 304, "{case}");
                let head = send(
                    "HEAD",
                    &url,
                    &[("Accept", accept), ("Accept-Encoding", coding)],
                )
                .await;
                assert_eq!(
                    (head.header("etag"), head.header("content-length")),
                    (&*tag, &*answer.body.len().to_string()),
                    "{case}"
                );
                let bytes = bytes_of
                    .entry((repository, tag.clone()))
                    .or_insert_with(|| answer.body.clone());
                assert!(
                    *bytes == answer.body,
                    "{case}: other bytes under the same tag"
                );
                tags.insert((repository, tag, accept, coding));
            }
        }
    }
    assert_eq!(
        tags.len(),
        DOCUMENTS.len() * 3,
        "one tag each, and always the same"
    );
    for path in ["/simple/pantry/", "/index.yaml"] {
        assert_eq!(
            origin.count("GET", path),
            1,
            "one download for all forms and codings"
        );
    }
    assert!(
        origin.count("GET", "/pantry") <= 2,
        "full and abbreviated at most"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn codings_are_chosen_as_the_client_weighs_them() {
    let (_origin, larder, _) = filled().await;
    let url = larder.artifact("pypi", "simple/pantry/");
    for coding in ["gzip", "zstd"] {
        coded(&url, "text/html", coding).await;
    }
    for (accepts, want) in [
        ("", &[""][..]),
        ("gzip", &["gzip"]),
        ("zstd", &["zstd"]),
        ("x-gzip", &["gzip", ""]),
        ("GZIP", &["gzip"]),
        ("br", &[""]),
        ("br, deflate", &[""]),
        ("gzip;q=0", &[""]),
        ("gzip;q=0, zstd;q=0", &[""]),
        ("gzip;q=0.5, zstd;q=0.1", &["gzip"]),
        ("gzip;q=0.1, zstd;q=0.5", &["zstd"]),
        ("zstd;q=0, *", &["gzip"]),
        ("*;q=0", &["", "gzip", "zstd"]),
        ("identity;q=1, gzip;q=0.5", &[""]),
        ("deflate, gzip;q=1.0, *;q=0.5", &["gzip"]),
        ("gzip, deflate, zstd", &["gzip", "zstd"]),
        ("gzip, deflate, br, zstd", &["gzip", "zstd"]),
        ("gzip;q=abc", &["", "gzip"]),
        (",,,", &[""]),
    ] {
        let answer = send("GET", &url, &[("Accept-Encoding", accepts)]).await;
        assert_eq!(answer.status, 200, "{accepts:?}");
        assert!(
            want.contains(&answer.header("content-encoding")),
            "{accepts:?}: {:?}",
            answer.header("content-encoding")
        );
        assert!(
            plain(&answer).starts_with(b"<!DOCTYPE html>"),
            "{accepts:?}"
        );
    }
    assert_eq!(
        get(&url).await.header("content-encoding"),
        "",
        "who says nothing gets it plain"
    );
}

/// Ranges count the bytes of the coded form.
#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_documents_are_ranges_of_their_representation() {
    let (_origin, larder, _) = filled().await;
    let url = larder.artifact("npm", "pantry");
    for coding in ["identity", "gzip", "zstd"] {
        coded(&url, "*/*", coding).await;
    }
    for coding in ["identity", "gzip", "zstd"] {
        let whole = coded(&url, "*/*", coding).await;
        let tag = whole.header("etag").to_owned();
        let part = send(
            "GET",
            &url,
            &[
                ("Accept-Encoding", coding),
                ("Range", "bytes=100-199"),
                ("If-Range", &tag),
            ],
        )
        .await;
        assert_eq!(part.status, 206, "{coding}");
        assert!(part.body == whole.body[100..200], "{coding}");
        assert_eq!(
            part.header("content-range"),
            format!("bytes 100-199/{}", whole.body.len()),
            "{coding}"
        );
        let other = if coding == "gzip" { "zstd" } else { "gzip" };
        let wrong = send(
            "GET",
            &url,
            &[
                ("Accept-Encoding", other),
                ("Range", "bytes=100-199"),
                ("If-Range", &tag),
            ],
        )
        .await;
        assert_eq!(wrong.status, 200, "{coding}: the tag of another coding");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_w7_files_are_never_coded_and_keep_the_coding_they_came_with() {
    let (origin, larder, files) = filled().await;
    origin.put(
        "/text.txt",
        Resource::new("text ".repeat(10_000)).content_type("text/plain"),
    );
    let mut targets = files;
    targets.push(("generic", "text.txt".to_owned()));
    for (repository, path) in &targets {
        for accepts in ["gzip", "zstd, gzip, deflate", "identity"] {
            let answer = send(
                "GET",
                &larder.artifact(repository, path),
                &[("Accept-Encoding", accepts)],
            )
            .await;
            assert_eq!(
                (
                    answer.status,
                    answer.header("content-encoding"),
                    answer.header("vary")
                ),
                (200, "", ""),
                "{path}"
            );
        }
    }
    // Servers that label what is compressed by nature: the bytes on the wire are the file (docs/reference/protocols/generic-http.md, line 16).
    let bytes = larder_testkit::Payload::generated(5_000, 9);
    origin.put(
        "/labelled.tar.gz",
        Resource::new(bytes.clone()).content_type("application/gzip"),
    );
    origin.behave(
        "/labelled.tar.gz",
        Behaviour::LabelEncoding("gzip".to_owned()),
    );
    let url = larder.artifact("generic", "labelled.tar.gz");
    for _ in 0..2 {
        let answer = send("GET", &url, &[("Accept-Encoding", "gzip")]).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(
            answer.body == bytes.slice(0, 5_000),
            "{} bytes",
            answer.body.len()
        );
        assert_eq!(answer.header("content-encoding"), "gzip", "as received");
    }
}

/// A short document's first answer is the form that every later one is, so that HEAD and GET agree.
#[tokio::test(flavor = "multi_thread")]
async fn short_documents_are_coded_from_the_first_answer_on() {
    let (_origin, larder, _) = filled().await;
    for (repository, path, accept, _) in DOCUMENTS {
        let url = larder.artifact(repository, path);
        for coding in ["gzip", "zstd"] {
            let headers = [("Accept", accept), ("Accept-Encoding", coding)];
            let first = send("GET", &url, &headers).await;
            assert_eq!(
                (first.status, first.header("content-encoding")),
                (200, coding),
                "{repository} {accept}"
            );
            for method in ["HEAD", "GET"] {
                let next = send(method, &url, &headers).await;
                for name in [
                    "content-encoding",
                    "content-length",
                    "etag",
                    "content-type",
                    "vary",
                ] {
                    assert_eq!(
                        next.header(name),
                        first.header(name),
                        "{method} {repository} {accept}: {name}"
                    );
                }
            }
        }
    }
}
