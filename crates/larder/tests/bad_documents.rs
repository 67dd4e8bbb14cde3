//! Bad documents from upstreams: the old copy if there is one, else a 502 that names the repository and what was wrong; bounded memory
//! whatever comes (hazards W11, R3, R5). What clients send stands in `bad_input.rs`.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

mod support;

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder_testkit::{Behaviour, Origin, Payload, Resource};
use support::packages::{File, SIMPLE_JSON, helm, npm, one_of_each, pypi_html, pypi_json};
use support::{Answer, TestLarder, get};

/// A repository, the request for its index, and where the upstream keeps it.
#[derive(Debug, Clone, Copy)]
struct Index {
    repository: &'static str,
    path: &'static str,
    upstream: &'static str,
}

const PYPI: Index = Index {
    repository: "pypi",
    path: "simple/pantry/",
    upstream: "/simple/pantry/",
};
const NPM: Index = Index {
    repository: "npm",
    path: "pantry",
    upstream: "/pantry",
};
const HELM: Index = Index {
    repository: "helm",
    path: "index.yaml",
    upstream: "/index.yaml",
};

/// Each index, in ways of being malformed: content type, body, and a word that the message must have.
fn malformed() -> Vec<(Index, &'static str, Vec<u8>, &'static str)> {
    let login: &[u8] =
        b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><form><input type=password name=p></form></body></html>";
    let cases: &[(Index, &'static str, &[u8], &'static str)] = &[
        (PYPI, SIMPLE_JSON, b"", "JSON"),
        (PYPI, SIMPLE_JSON, b"{\"meta\":{\"api-version\":\"1.0\"},\"name\":\"pantry\",\"files\":[{\"filename\"", "JSON"),
        (PYPI, SIMPLE_JSON, b"{\"meta\":{\"api-version\":\"1.0\"},\"name\":\"pantry\",\"files\":7}", "files"),
        (PYPI, SIMPLE_JSON, b"{\"meta\":{\"api-version\":\"1.0\"},\"name\":\"pantry\"}", "files"),
        (
            PYPI,
            SIMPLE_JSON,
            b"{\"meta\":{\"api-version\":\"1.0\"},\"name\":\"pantry\",\"files\":[{\"filename\":\"\xff\xfe\"}]}",
            "UTF-8",
        ),
        (PYPI, SIMPLE_JSON, b"[]", "JSON"),
        (PYPI, SIMPLE_JSON, b"not JSON at all", "JSON"),
        (
            PYPI,
            "application/octet-stream",
            b"{\"meta\":{\"api-version\":\"1.0\"},\"name\":\"pantry\",\"files\":[]}",
            "octet-stream",
        ),
        (PYPI, "text/html", login, "login"),
        (PYPI, "text/html", b"<html><body><h1>It works!</h1></body></html>", "HTML"),
        (NPM, "application/json", b"", "empty"),
        (NPM, "application/json", b"{\"name\":\"pantry\",\"versions\":{\"1.0.0\":{\"dist\":", "JSON"),
        (NPM, "application/json", b"[]", "object"),
        (NPM, "application/json", b"{\"name\":\"pantry\"}", "versions"),
        (NPM, "application/json", b"{\"name\":\"pantry\",\"versions\":[]}", "versions"),
        (NPM, "application/json", b"{\"name\":\"other\",\"versions\":{}}", "other"),
        (NPM, "application/json", b"{\"name\":\"pantry\",\"versions\":{\"\xff\":{}}}", "UTF-8"),
        (NPM, "text/html", login, "HTML"),
        (HELM, "text/yaml", b"", "mapping"),
        (HELM, "text/yaml", b"apiVersion: v1\nentries:\n  a:\n  - urls: [\n", "YAML"),
        (HELM, "text/yaml", b"entries: {}\n", "apiVersion"),
        (HELM, "text/yaml", b"apiVersion: v1\nentries: 7\n", "entries"),
        (HELM, "text/yaml", b"- a\n- b\n", "index.yaml"),
        (HELM, "text/yaml", b"apiVersion: v1\nentries: {}\nx: \xff\n", "UTF-8"),
        (HELM, "text/html", login, "HTML"),
    ];
    cases
        .iter()
        .map(|(index, content_type, body, word)| (*index, *content_type, body.to_vec(), *word))
        .collect()
}

/// The error of an answer that a malformed document must bring: 502, JSON, the repository, a message with `word`, and nothing of the upstream's HTML.
fn assert_clear(answer: &Answer, repository: &str, word: &str, case: &str) {
    assert_eq!(
        answer.status,
        502,
        "{case}: {}",
        answer.text().chars().take(400).collect::<String>()
    );
    assert_eq!(answer.header("content-type"), "application/json", "{case}");
    let body = answer.json();
    let message = body["error"].as_str().unwrap_or_default();
    assert_eq!(body["repository"], repository, "{case}: {body}");
    assert!(
        message.to_lowercase().contains(&word.to_lowercase()),
        "{case}: {word:?} in {message}"
    );
    assert!(
        !message.contains("<form") && !message.contains("<h1>") && message.len() < 500,
        "{case}: {message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_w11_without_a_copy_a_malformed_index_is_a_502_that_says_what_was_wrong() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&one_of_each(&origin, "negative_ttl: 0")).await;
    for (index, content_type, body, word) in malformed() {
        let case = format!(
            "{} {content_type} {}",
            index.repository,
            String::from_utf8_lossy(&body)
        );
        origin.put(
            index.upstream,
            Resource::new(body).content_type(content_type),
        );
        assert_clear(
            &get(&larder.artifact(index.repository, index.path)).await,
            index.repository,
            word,
            &case,
        );
    }
    // Nothing of all that was kept: the good index comes through at once.
    put_good(&origin, 1);
    for index in [PYPI, NPM, HELM] {
        let answer = get(&larder.artifact(index.repository, index.path)).await;
        assert_eq!(answer.status, 200, "{index:?}: {}", answer.text());
    }
}

fn put_good(origin: &Origin, seed: u64) {
    let files = [File::generated("pantry", &format!("{seed}.0.0"), 100, seed)];
    pypi_json(origin, "pantry", &files);
    npm(origin, "pantry", &files);
    helm(origin, &files);
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_w11_a_malformed_index_leaves_the_old_copy_in_service_marked_stale() {
    let origin = Origin::start().await;
    put_good(&origin, 1);
    let larder = TestLarder::start(&one_of_each(&origin, "cache: { mutable_ttl: 0 }")).await;
    let mut good = Vec::new();
    for index in [PYPI, NPM, HELM] {
        good.push(get(&larder.artifact(index.repository, index.path)).await);
        larder
            .until_metric(
                "larder_repository_fills_committed_total",
                index.repository,
                1.0,
            )
            .await;
    }
    for (index, content_type, body, _) in malformed() {
        let case = format!(
            "{} {content_type} {}",
            index.repository,
            String::from_utf8_lossy(&body)
        );
        origin.put(
            index.upstream,
            Resource::new(body).content_type(content_type),
        );
        let before = origin.requests().len();
        let answer = get(&larder.artifact(index.repository, index.path)).await;
        let old = &good[[PYPI, NPM, HELM]
            .iter()
            .position(|other| other.path == index.path)
            .expect("one of the three")];
        assert_eq!(answer.status, 200, "{case}: {}", answer.text());
        assert_eq!(answer.text(), old.text(), "{case}");
        assert_eq!(answer.source(), "cache", "{case}");
        assert!(
            answer.cache_status().contains("stale"),
            "{case}: {}",
            answer.cache_status()
        );
        assert_eq!(
            answer.header("cache-control"),
            "max-age=0",
            "{case}: nobody downstream may reuse it"
        );
        assert!(
            origin.requests().len() > before,
            "{case}: the upstream is asked again every time"
        );
    }
    for index in [PYPI, NPM, HELM] {
        let counted = larder
            .metric(
                "larder_repository_malformed_documents_total",
                &format!("\"{}\"", index.repository),
            )
            .await;
        assert!(counted >= 7.0, "{index:?}: {counted}");
    }
    put_good(&origin, 2);
    for index in [PYPI, NPM, HELM] {
        let answer = get(&larder.artifact(index.repository, index.path)).await;
        assert!(
            answer.status == 200 && answer.text().contains("2.0.0"),
            "{index:?}: {}",
            answer.text()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_just_served_is_there_for_the_next_request() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&one_of_each(&origin, "cache: { mutable_ttl: 0 }")).await;
    for round in 0..20 {
        let project = format!("pantry-{round}");
        pypi_json(
            &origin,
            &project,
            &[File::generated(&project, "1.0.0", 100, round)],
        );
        let url = larder.artifact("pypi", &format!("simple/{project}/"));
        let good = get(&url).await;
        origin.put(
            &format!("/simple/{project}/"),
            Resource::new("{").content_type(SIMPLE_JSON),
        );
        let next = get(&url).await;
        assert_eq!(
            (next.status, next.text()),
            (200, good.text()),
            "round {round}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_w1_a_cut_index_is_never_served_nor_kept() {
    let origin = Origin::start().await;
    let files: Vec<File> = (0..50)
        .map(|n| File::generated("pantry", &format!("{n}.0.0"), 10, n))
        .collect();
    pypi_html(&origin, "pantry", &files);
    npm(&origin, "pantry", &files);
    helm(&origin, &files);
    let larder = TestLarder::start(&one_of_each(&origin, "")).await;
    for index in [PYPI, NPM, HELM] {
        for behaviour in [
            Behaviour::Truncate { after: 900 },
            Behaviour::CutChunked { after: 900 },
            Behaviour::ResetBody { after: 900 },
            Behaviour::LieAboutLength(10),
        ] {
            origin.behave(index.upstream, behaviour.clone());
            origin.behave(index.upstream, Behaviour::IgnoreRanges);
            let answer = get(&larder.artifact(index.repository, index.path)).await;
            assert_eq!(
                answer.status,
                502,
                "{index:?} {behaviour:?}: {}",
                answer.text()
            );
            origin.clear(index.upstream);
        }
        let answer = get(&larder.artifact(index.repository, index.path)).await;
        assert!(
            answer.status == 200 && answer.text().contains("49.0.0"),
            "{index:?}: {}",
            answer.text()
        );
    }
}

/// 100 MB of this, and what it is called.
const HUGE: u64 = 100_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn hazard_r5_documents_beyond_the_limit_are_refused_in_little_memory() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&format!(
        "limits: {{ document_size: 8MiB }}\n{}",
        one_of_each(&origin, "")
    ))
    .await;
    get(&larder.url("/live")).await;
    let before = larder.peak_memory();
    for index in [PYPI, NPM, HELM] {
        for chunked in [false, true] {
            let content_type = if index.repository == "pypi" {
                SIMPLE_JSON
            } else {
                "application/json"
            };
            origin.put(
                index.upstream,
                Resource::new(Payload::Repeat {
                    byte: b'[',
                    length: HUGE,
                })
                .content_type(content_type),
            );
            if chunked {
                origin.behave(index.upstream, Behaviour::Chunked);
            }
            let began = Instant::now();
            let answer = get(&larder.artifact(index.repository, index.path)).await;
            assert_clear(
                &answer,
                index.repository,
                "8388608",
                &format!("{index:?}, chunked: {chunked}"),
            );
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{:?}",
                began.elapsed()
            );
        }
    }
    let grown = larder.peak_memory() - before;
    eprintln!("peak memory grew by {grown} MiB");
    assert!(
        grown < 48,
        "{grown} MiB for documents of which 8 MiB are read"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_r3_hundred_megabytes_of_nonsense_cost_bounded_memory_and_time() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&one_of_each(&origin, "")).await;
    get(&larder.url("/live")).await;
    let before = larder.peak_memory();
    let cases: [(Index, &str, &[u8]); 4] = [
        (PYPI, SIMPLE_JSON, b"["),
        (PYPI, "text/html", b"<"),
        (NPM, "application/json", b"{ \""),
        (HELM, "text/yaml", b"[-a\n"),
    ];
    for (index, content_type, bytes) in cases {
        for byte in bytes {
            origin.put(
                index.upstream,
                Resource::new(Payload::Repeat {
                    byte: *byte,
                    length: HUGE,
                })
                .content_type(content_type),
            );
            let began = Instant::now();
            let answer = get(&larder.artifact(index.repository, index.path)).await;
            let case = format!("{index:?} of {:?}", char::from(*byte));
            assert_clear(&answer, index.repository, "", &case);
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{case}: {:?}",
                began.elapsed()
            );
        }
    }
    assert_eq!(get(&larder.url("/live")).await.status, 200);
    let grown = larder.peak_memory() - before;
    eprintln!("peak memory grew by {grown} MiB");
    // The document itself, and as much again for a parser.
    assert!(grown < 2 * 100 + 32, "{grown} MiB for documents of 100 MB");
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_r5_a_good_document_of_100_mb_is_served_whole_in_bounded_memory() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&one_of_each(&origin, "")).await;
    get(&larder.url("/live")).await;
    let before = larder.peak_memory();
    let readme = "lorem ipsum ".repeat(80_000);
    let versions: Vec<String> = (0..104)
        .map(|n| {
            let tarball = origin.url(&format!("pantry/-/pantry-{n}.0.0.tgz"));
            format!("\"{n}.0.0\":{{\"name\":\"pantry\",\"version\":\"{n}.0.0\",\"readme\":\"{readme}\",\"dist\":{{\"tarball\":\"{tarball}\"}}}}")
        })
        .collect();
    let packument = format!(
        "{{\"name\":\"pantry\",\"dist-tags\":{{}},\"versions\":{{{}}}}}",
        versions.join(",")
    );
    let length = packument.len();
    assert!(length > 99_000_000);
    origin.put(
        NPM.upstream,
        Resource::new(packument).content_type("application/json"),
    );
    let answer = get(&larder.artifact("npm", NPM.path)).await;
    assert_eq!(
        answer.status,
        200,
        "{}",
        answer.text().chars().take(300).collect::<String>()
    );
    assert!(
        answer.body.len() > length && answer.body.ends_with(b"}}"),
        "{} of {length} bytes",
        answer.body.len()
    );
    assert_eq!(
        answer
            .text()
            .matches(&larder.artifact("npm", "pantry/-/pantry-"))
            .count(),
        104,
        "every link leads back"
    );
    let grown = larder.peak_memory() - before;
    eprintln!("peak memory grew by {grown} MiB");
    assert!(
        grown < 3 * 100,
        "{grown} MiB: the document and what is made of it are two"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_r3_a_million_levels_are_a_clear_error_in_bounded_memory() {
    const LEVELS: usize = 1_000_000;
    let origin = Origin::start().await;
    let larder = TestLarder::start(&one_of_each(&origin, "")).await;
    get(&larder.url("/live")).await;
    let before = larder.peak_memory();
    let arrays = "[".repeat(LEVELS);
    let closed = format!("{arrays}{}", "]".repeat(LEVELS));
    let objects = format!("{}1{}", "{\"a\":".repeat(LEVELS), "}".repeat(LEVELS));
    let flow = format!("{}1{}", "{a: ".repeat(LEVELS), "}".repeat(LEVELS));
    let mut blocks = String::from("apiVersion: v1\nentries:\n  a:\n");
    for level in 0..3_000 {
        writeln!(blocks, "{}- ", " ".repeat(level + 2)).expect("a string grows");
    }
    let compact = format!("apiVersion: v1\nentries:\n  a: {}1\n", "- ".repeat(LEVELS));
    let inside = |before: &str, after: &str| format!("{before}{closed}{after}");
    let cases: Vec<(Index, &str, String)> = vec![
        (PYPI, SIMPLE_JSON, arrays.clone()),
        (PYPI, SIMPLE_JSON, closed.clone()),
        (PYPI, SIMPLE_JSON, objects.clone()),
        (
            PYPI,
            SIMPLE_JSON,
            inside(
                "{\"meta\":{\"api-version\":\"1.0\"},\"name\":\"pantry\",\"files\":[],\"_x\":",
                "}",
            ),
        ),
        (
            PYPI,
            SIMPLE_JSON,
            inside(
                "{\"meta\":{\"api-version\":\"1.0\"},\"name\":\"pantry\",\"files\":[{\"filename\":\"p\",\"url\":\"p\",\"hashes\":{},\"x\":",
                "}]}",
            ),
        ),
        (NPM, "application/json", arrays.clone()),
        (NPM, "application/json", objects.clone()),
        (
            NPM,
            "application/json",
            inside("{\"name\":\"pantry\",\"versions\":{},\"x\":", "}"),
        ),
        (
            NPM,
            "application/json",
            inside(
                "{\"name\":\"pantry\",\"versions\":{\"1.0.0\":{\"dist\":{},\"x\":",
                "}}}",
            ),
        ),
        (HELM, "application/json", arrays),
        (HELM, "text/yaml", closed.clone()),
        (HELM, "text/yaml", flow),
        (HELM, "text/yaml", objects),
        (
            HELM,
            "text/yaml",
            inside("apiVersion: v1\nentries: {}\nx: ", "\n"),
        ),
        (HELM, "text/yaml", blocks),
        (HELM, "text/yaml", compact),
    ];
    for (number, (index, content_type, body)) in cases.into_iter().enumerate() {
        origin.put(
            index.upstream,
            Resource::new(body).content_type(content_type),
        );
        let began = Instant::now();
        let answer = get(&larder.artifact(index.repository, index.path)).await;
        assert_clear(
            &answer,
            index.repository,
            "",
            &format!("case {number}, {}", index.repository),
        );
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "case {number}: {:?}",
            began.elapsed()
        );
    }
    // HTML has no levels that a reader must remember: elements may be nested at will, and the links in them count.
    let deep = format!(
        "<html><body>{}<a href=\"../../pool/pantry-1.0.tar.gz\">pantry-1.0.tar.gz</a></body></html>",
        "<div>".repeat(LEVELS)
    );
    origin.put(PYPI.upstream, Resource::new(deep).content_type("text/html"));
    let began = Instant::now();
    let answer = get(&larder.artifact("pypi", PYPI.path)).await;
    assert!(matches!(answer.status, 200 | 502), "{}", answer.status);
    assert!(
        answer.status == 502 || answer.text().contains("pantry-1.0.tar.gz"),
        "{}",
        answer.text()
    );
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    let grown = larder.peak_memory() - before;
    eprintln!("peak memory grew by {grown} MiB");
    assert!(grown < 96, "{grown} MiB for documents of at most 12 MB");
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_r3_alias_and_compression_bombs_are_refused_in_bounded_memory() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&format!(
        "limits: {{ document_size: 32MiB }}\n{}",
        one_of_each(&origin, "")
    ))
    .await;
    get(&larder.url("/live")).await;
    let before = larder.peak_memory();
    let mut laughs = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for level in 1..20 {
        let below = vec![format!("*a{}", level - 1); 10].join(",");
        writeln!(laughs, "a{level}: &a{level} [{below}]").expect("a string grows");
    }
    laughs.push_str("apiVersion: v1\nentries: {}\nx: *a19\n");
    origin.put(
        HELM.upstream,
        Resource::new(laughs).content_type("text/yaml"),
    );
    assert_clear(
        &get(&larder.artifact("helm", HELM.path)).await,
        "helm",
        "alias",
        "billion laughs",
    );
    origin.put(
        HELM.upstream,
        Resource::new("apiVersion: v1\nentries: &e\n  a: *e\n").content_type("text/yaml"),
    );
    assert_clear(
        &get(&larder.artifact("helm", HELM.path)).await,
        "helm",
        "alias",
        "an alias of itself",
    );

    let bomb = Bytes::from(gzip_of_zeros(1 << 30));
    assert!(bomb.len() < 2 << 20, "{} bytes", bomb.len());
    for index in [PYPI, NPM, HELM] {
        let content_type = if index.repository == "pypi" {
            SIMPLE_JSON
        } else {
            "application/json"
        };
        origin.put(
            index.upstream,
            Resource::new(bomb.clone())
                .content_type(content_type)
                .header("Content-Encoding", "gzip"),
        );
        let began = Instant::now();
        assert_clear(
            &get(&larder.artifact(index.repository, index.path)).await,
            index.repository,
            "",
            &format!("gzip bomb, {index:?}"),
        );
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{:?}",
            began.elapsed()
        );
    }
    let grown = larder.peak_memory() - before;
    eprintln!("peak memory grew by {grown} MiB");
    assert!(grown < 128, "{grown} MiB, where documents may have 32");
}

fn gzip_of_zeros(length: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(9));
    let zeros = vec![0; 1 << 20];
    for _ in 0..length >> 20 {
        encoder.write_all(&zeros).expect("memory takes all");
    }
    encoder.finish().expect("memory takes all")
}

/// Servers put words into `Content-Encoding` that name no coding; npm, pip and curl take such a body as it is.
#[tokio::test(flavor = "multi_thread")]
async fn words_that_name_no_coding_change_nothing_of_a_document() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&one_of_each(&origin, "cache: { mutable_ttl: 0 }")).await;
    let packument = "{\"name\":\"pantry\",\"versions\":{}}";
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(packument.as_bytes()).expect("to pack");
    let packed = packer.finish().expect("to pack");
    for (label, body) in [
        ("aws-chunked", packument.as_bytes()),
        ("utf-8", packument.as_bytes()),
        ("none, identity", packument.as_bytes()),
        ("gzip, identity", &packed),
        ("aws-chunked, gzip", &packed),
    ] {
        let document = Resource::new(body.to_vec()).content_type("application/json");
        origin.put(NPM.upstream, document.header("content-encoding", label));
        let answer = get(&larder.artifact(NPM.repository, NPM.path)).await;
        assert_eq!(answer.status, 200, "{label}: {}", answer.text());
        assert_eq!(answer.text(), packument, "{label}");
        assert_eq!(answer.header("content-encoding"), "", "{label}");
    }
}
