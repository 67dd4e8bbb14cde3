//! What the API says, word for word, beside what it said when it was last looked at: a change that nobody meant shows here.
//!
//! What is right is asserted elsewhere; a snapshot is what a reviewer reads. `INSTA_UPDATE=always cargo test --workspace
//! --test snapshots` writes them anew.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

#[path = "support/mod.rs"]
mod support;

use std::time::Duration;

use larder_testkit::{Origin, Resource};
use serde_json::Value;
use support::packages::entry;
use support::{Answer, TestLarder, get, send};

/// Package types, and for each a path below its repository that no upstream of these tests has.
const ABSENT: [(&str, &str); 7] = [
    ("generic", "folder/absent.bin"),
    ("alpine", "v3.23/main/x86_64/absent-1.0-r0.apk"),
    ("rpm", "Packages/absent-1.0-1.x86_64.rpm"),
    ("docker", "absent/manifests/latest"),
    ("pypi", "simple/absent/"),
    ("npm", "absent"),
    ("helm", "absent-1.0.0.tgz"),
];

/// One remote of each type, one that admits nothing but `.txt` files, and one file that is held.
async fn one_of_each() -> (Origin, TestLarder) {
    let origin = Origin::start().await;
    origin.put(
        "/held.txt",
        Resource::new("held\n").content_type("text/plain"),
    );
    let entries: String = ABSENT
        .map(|(package, _)| entry(package, package, &origin, "description: what it is for"))
        .concat();
    let strict = entry(
        "strict",
        "generic",
        &origin,
        "immutable_patterns: ['\\.txt$']\nusername: someone\npassword: 'correct horse battery staple'",
    );
    let larder = TestLarder::start(&format!("remotes:\n{entries}{strict}")).await;
    let held = get(&larder.artifact("strict", "held.txt")).await;
    assert_eq!(held.status, 200, "{}", held.text());
    larder.until_idle().await;
    (origin, larder)
}

/// JSON with whatever differs from run to run taken out: addresses, folders, times, sizes of the machine.
fn settled(answer: &Answer, origin: &Origin, larder: &TestLarder) -> String {
    let mut value = answer.json();
    redact(&mut value, "");
    let text = serde_json::to_string_pretty(&value).expect("JSON");
    let own = larder.address().to_string();
    let upstream = origin.url("/").trim_end_matches('/').to_owned();
    text.replace(&upstream, "{upstream}")
        .replace(&own, "{larder}")
        .replace(&*larder.data_dir().to_string_lossy(), "{data}")
        .replace(&*larder.home().to_string_lossy(), "{home}")
        .replace(env!("CARGO_PKG_VERSION"), "{version}")
}

/// Puts the kind of value in the place of values that no two runs share. What is there, and of which kind, stays seen.
fn redact(value: &mut Value, key: &str) {
    const VARIES: &[&str] = &[
        "cached_at",
        "fresh_until",
        "started",
        "since",
        "free_bytes",
        "total_bytes",
        "reserve_bytes",
        "first_byte_ms",
        "last_answer",
    ];
    match value {
        Value::Object(members) => members
            .iter_mut()
            .for_each(|(key, value)| redact(value, key)),
        Value::Array(items) => items.iter_mut().for_each(|value| redact(value, key)),
        Value::Number(_) if VARIES.contains(&key) => *value = "{number}".into(),
        Value::String(_) if VARIES.contains(&key) => *value = "{text}".into(),
        Value::String(text) if key == "because" => {
            if let Some((before, _)) = text.split_once(" at 20") {
                *value = format!("{before} at {{time}}").into();
            }
        }
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_the_api() {
    let (origin, larder) = one_of_each().await;
    for (name, path) in [
        ("root", ""),
        ("config", "config"),
        ("health", "health"),
        ("artifacts", "api/v1/artifacts"),
        ("artifacts_of_one", "api/v1/artifacts/strict"),
        ("explain_held", "api/v1/explain/strict/held.txt"),
        ("explain_denied", "api/v1/explain/strict/not/admitted.bin"),
    ] {
        let answer = get(&larder.url(path)).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        insta::assert_snapshot!(name, settled(&answer, &origin, &larder));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openapi() {
    let (origin, larder) = one_of_each().await;
    let answer = get(&larder.url("api/openapi.json")).await;
    insta::assert_snapshot!("openapi", settled(&answer, &origin, &larder));
}

/// What each type's clients get for what is absent, with status and the headers that say something.
#[tokio::test(flavor = "multi_thread")]
async fn errors_of_each_type() {
    let (origin, larder) = one_of_each().await;
    let url = |package: &str, path: &str| match package {
        "docker" => larder.url(&format!("v2/docker/{path}")),
        _ => larder.artifact(package, path),
    };
    let mut said = String::new();
    let mut tell = |asked: &str, answer: &Answer| {
        use std::fmt::Write as _;
        let body = settled(answer, &origin, &larder);
        let (status, kind) = (answer.status, answer.header("content-type"));
        writeln!(said, "{asked}\n{status} {kind}\n{body}\n").expect("a string takes all");
    };
    for (package, path) in ABSENT {
        tell(
            &format!("GET {package} {path}"),
            &get(&url(package, path)).await,
        );
    }
    for (method, repository, path) in [
        ("GET", "strict", "not/admitted.bin"),
        ("GET", "nobody", "file.bin"),
        ("GET", "generic", "a%5Cb"),
        ("PUT", "generic", "file.bin"),
        ("GET", "docker", "UPPER/manifests/latest"),
    ] {
        let answer = send(method, &url(repository, path), &[]).await;
        tell(&format!("{method} {repository} {path}"), &answer);
    }
    insta::assert_snapshot!("errors", said);
}

/// Every family with its type and help, and the labels of its samples; no value.
#[tokio::test(flavor = "multi_thread")]
async fn families_of_metrics() {
    let (_origin, larder) = one_of_each().await;
    let page = counted(&larder).await;
    let mut lines: Vec<String> = Vec::new();
    for line in page.lines() {
        let line = if line.starts_with('#') {
            line.to_owned()
        } else {
            let series = line.rsplit_once(' ').map_or(line, |(series, _)| series);
            names_of_labels(series)
        };
        if lines.last() != Some(&line) && !lines.contains(&line) {
            lines.push(line);
        }
    }
    insta::assert_snapshot!("metrics", lines.join("\n"));
}

/// The page once what is held has been counted: a scrape starts that count, but no scrape waits for it.
async fn counted(larder: &TestLarder) -> String {
    for _ in 0..1_000 {
        let page = get(&larder.url("metrics")).await.text();
        if page.contains("larder_repository_held_files{") {
            return page;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("what is held was not counted within ten seconds");
}

/// `name{label="value",…}` as `name{label,…}`.
fn names_of_labels(series: &str) -> String {
    let label = regex::Regex::new("=\"(?:[^\"\\\\]|\\\\.)*\"").expect("a pattern");
    label.replace_all(series, "").into_owned()
}
