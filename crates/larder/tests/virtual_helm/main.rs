//! Virtual helm repositories, asked of the real program over loopback. Names carry the numbers of the acceptance list.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

#[path = "../support/mod.rs"]
mod support;

mod checklist;
mod files;
mod members;
mod nested;
mod owners;
mod writes;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use larder_core::sha256;
use larder_testkit::{Origin, Resource};
use support::packages::entry;
use support::{Answer, PATIENCE, TestLarder, get};

/// What a chart's archive holds in these tests.
fn archive(name: &str, version: &str, of: &str) -> String {
    format!("{name} {version} of {of}")
}

/// A Helm repository with these charts below a folder (`/` for none), whose archives name `of`, and their digests right.
fn put_charts(origin: &Origin, folder: &str, of: &str, charts: &[(&str, &str)]) {
    put_charts_with(origin, folder, of, charts, "");
}

/// The same with further fields in each entry.
fn put_charts_with(origin: &Origin, folder: &str, of: &str, charts: &[(&str, &str)], more: &str) {
    let mut index = "apiVersion: v1\nentries:\n".to_owned();
    for (name, version) in charts {
        let body = archive(name, version, of);
        let digest = sha256(body.as_bytes()).to_hex();
        let _ = write!(
            index,
            "  {name}:\n  - apiVersion: v2\n{more}    digest: {digest}\n    name: {name}\n    urls:\n    - {name}-{version}.tgz\n    \
             version: {version}\n"
        );
        origin.put(
            &format!("{folder}{name}-{version}.tgz"),
            Resource::new(body).content_type("application/gzip"),
        );
    }
    // Two versions of one chart are one list.
    origin.put(
        &format!("{folder}index.yaml"),
        Resource::new(joined(&index)).content_type("text/yaml"),
    );
}

/// Charts that stand next to each other under one name are put under one key.
fn joined(index: &str) -> String {
    let mut last = String::new();
    let mut text = String::new();
    for line in index.lines() {
        let is_chart = line.starts_with("  ")
            && !line.starts_with("   ")
            && line.ends_with(':')
            && !line.starts_with("  -");
        if is_chart && line == last {
            continue;
        }
        if is_chart {
            line.clone_into(&mut last);
        }
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// A configuration with two remotes `one` and `two`, and `all` of them; `keys` are further lines of `all`.
fn two(one: &Origin, two: &Origin, member_keys: &str, keys: &str) -> String {
    format!(
        "remotes:\n{}{}{}",
        entry("one", "helm", one, member_keys),
        entry("two", "helm", two, member_keys),
        all("all", &["one", "two"], keys)
    )
}

/// An entry of a virtual repository.
fn all(name: &str, members: &[&str], keys: &str) -> String {
    let keys = keys
        .lines()
        .map(|line| format!("    {line}\n"))
        .collect::<Vec<_>>()
        .concat();
    format!(
        "  {name}:\n    type: virtual\n    package: helm\n    members: [{}]\n{keys}",
        members.join(", ")
    )
}

/// The address of something in a virtual repository.
fn of(larder: &TestLarder, name: &str, path: &str) -> String {
    larder.url(&format!("api/v1/virtual/{name}/{path}"))
}

async fn index(larder: &TestLarder) -> Answer {
    get(&of(larder, "all", "index.yaml")).await
}

/// The chart URLs of an index, in order.
fn urls(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    let urls = text.lines().filter_map(|line| {
        let item = line.trim().strip_prefix("- ")?;
        item.contains(".tgz")
            .then(|| item.trim_matches('"').to_owned())
    });
    urls.collect()
}

/// The names of the archives that an index leads to, in order.
fn archives(answer: &Answer) -> Vec<String> {
    let file = |url: String| {
        url.rsplit('/')
            .next()
            .expect("a file")
            .trim_end_matches(".tgz")
            .to_owned()
    };
    urls(answer).into_iter().map(file).collect()
}

/// Waits until the merged index has this chart; gives how long it took.
async fn until_there(larder: &TestLarder, chart: &str) -> Duration {
    let start = Instant::now();
    loop {
        let answer = index(larder).await;
        if answer.status == 200 && archives(&answer).iter().any(|name| name == chart) {
            return start.elapsed();
        }
        assert!(
            start.elapsed() < PATIENCE + Duration::from_secs(10),
            "{chart} does not appear: {}",
            answer.text()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
