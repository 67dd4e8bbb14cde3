//! Clients that call larder by many names, and many large documents at once.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_testkit::{Origin, Resource};
use serde_json::Value;
use tokio::sync::Barrier;

use super::support::client::builder;
use super::support::packages::entry;
use super::support::{TestLarder, get, send};
use super::{Bystander, Memory, SLOWER, try_send};

/// A packument of about this length, with the tarballs at `root`.
fn packument(name: &str, root: &str, length: usize) -> String {
    let mut text = format!("{{\"name\":\"{name}\",\"versions\":{{");
    let filler = "f".repeat(1500);
    let mut n = 0;
    while text.len() < length {
        let comma = if n == 0 { "" } else { "," };
        let _ = write!(
            text,
            "{comma}\"{n}.0.0\":{{\"description\":\"{filler}\",\"dist\":{{\"tarball\":\"{root}{name}/-/{name}-{n}.0.0.tgz\"}}}}"
        );
        n += 1;
    }
    text + "}}"
}

/// A sample of `/metrics`.
async fn metric(larder: &TestLarder, name: &str) -> f64 {
    let page = get(&larder.url("metrics")).await.text();
    let line = page
        .lines()
        .find(|line| line.starts_with(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("{name} in {page}"))
        .rsplit(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_x3_another_name_with_each_request_is_no_new_derivation() {
    let (origin, good) = (Origin::start().await, Origin::start().await);
    Bystander::prepare(&good);
    let body = packument("large", &origin.url("/"), 8 << 20);
    origin.put(
        "/large",
        Resource::new(body).content_type("application/json"),
    );
    let config = format!(
        "remotes:\n{}{}",
        entry("npm", "npm", &origin, ""),
        entry("bystander", "pypi", &good, "")
    );
    let larder = TestLarder::start(&config).await;
    let url = larder.artifact("npm", "large");
    assert_eq!(get(&url).await.status, 200);
    let (memory, bystander, began) = (
        Memory::of(&larder),
        Bystander::start(&larder),
        Instant::now(),
    );
    let derived = metric(&larder, "larder_derivations_total").await;
    // All of them are under way at once, and none reads on until all have begun: that is when most is held.
    let all_begun = Arc::new(Barrier::new(200));
    let mut running = tokio::task::JoinSet::new();
    for n in 0..200 {
        let (url, all_begun) = (url.clone(), Arc::clone(&all_begun));
        running.spawn(async move {
            let host = format!("h{n}.example.com");
            let client = builder().timeout(Duration::from_secs(300)).build().unwrap();
            let asked = client.get(&url).header("host", &host);
            let answer = asked
                .header("accept-encoding", "gzip")
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status(), 200, "{host}");
            let text = |name: &str| {
                let value = answer.headers().get(name);
                value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
            };
            let (tag, coding, length) = (
                text("etag"),
                text("content-encoding"),
                text("content-length"),
            );
            all_begun.wait().await;
            // The whole of a few is enough to read.
            if n % 20 == 0 && coding.is_empty() {
                let body = answer.bytes().await.unwrap();
                assert_eq!(length, body.len().to_string());
                let document: Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(
                    document["versions"]["7.0.0"]["dist"]["tarball"],
                    format!("http://{host}/api/v1/remote/npm/large/-/large-7.0.0.tgz")
                );
                assert!(!String::from_utf8_lossy(&body).contains(".invalid"));
            }
            tag
        });
    }
    let mut tags = std::collections::BTreeSet::new();
    while let Some(tag) = running.join_next().await {
        tags.insert(tag.unwrap());
    }
    let (took, rise) = (began.elapsed(), memory.rise());
    let (slowest, pages) = bystander.end().await;
    // Each page of the other repository is one, too.
    let more = metric(&larder, "larder_derivations_total").await - derived - f64::from(pages);
    println!(
        "200 Hosts, a packument of 8 MiB: {took:?}, memory +{rise} MiB, {more} derivations more, {} tags, others {slowest:?}",
        tags.len()
    );
    assert!(rise <= 128, "{rise} MiB");
    assert!(more < 1.0, "{more} derivations");
    assert_eq!(
        tags.len(),
        200,
        "each name has its own document, and so its own tag"
    );
    assert!(slowest < Duration::from_secs(1) * SLOWER, "{slowest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_conditions_and_heads_of_a_document_for_a_stranger() {
    let origin = Origin::start().await;
    let body = packument("foo", &origin.url("/"), 300_000);
    origin.put("/foo", Resource::new(body).content_type("application/json"));
    let larder =
        TestLarder::start(&format!("remotes:\n{}", entry("npm", "npm", &origin, ""))).await;
    let url = larder.artifact("npm", "foo");
    // Those who are familiar get what is kept for them; what strangers get must be the same but for the name.
    for n in 0..4 {
        assert_eq!(
            send("GET", &url, &[("host", &format!("known{n}.example"))])
                .await
                .status,
            200
        );
    }
    let known = send("GET", &url, &[("host", "known1.example")]).await;
    for host in [
        "a-stranger-with-a-long-name.example:8080",
        "s.example",
        "[2001:db8::1]:8000",
    ] {
        let asked = [("host", host)];
        let whole = send("GET", &url, &asked).await;
        let expected = known.text().replace("known1.example", host);
        assert!(whole.text() == expected, "{host}");
        assert_eq!(whole.header("content-length"), expected.len().to_string());
        let head = send("HEAD", &url, &asked).await;
        assert_eq!(
            (
                head.status,
                head.header("content-length"),
                head.header("etag")
            ),
            (200, whole.header("content-length"), whole.header("etag"))
        );
        let part = send(
            "GET",
            &url,
            &[("host", host), ("range", "bytes=1500-70000")],
        )
        .await;
        assert_eq!(part.status, 206);
        assert!(part.body == expected.as_bytes()[1500..=70_000], "{host}");
        let last = send("GET", &url, &[("host", host), ("range", "bytes=-100")]).await;
        assert!(
            last.body == expected.as_bytes()[expected.len() - 100..],
            "{host}"
        );
        let tag = whole.header("etag").to_owned();
        let same = send("GET", &url, &[("host", host), ("if-none-match", &tag)]).await;
        assert_eq!(same.status, 304);
        let other = send(
            "GET",
            &url,
            &[("host", "known1.example"), ("if-none-match", &tag)],
        )
        .await;
        assert_eq!(other.status, 200, "another name, another document");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_x3_large_documents_wait_for_a_parser_without_their_bytes() {
    let (origin, good) = (Origin::start().await, Origin::start().await);
    Bystander::prepare(&good);
    for n in 0..80 {
        let name = format!("p{n}");
        let body = packument(&name, &origin.url("/"), 9 << 20);
        origin.put(
            &format!("/{name}"),
            Resource::new(body).content_type("application/json"),
        );
    }
    let config = format!(
        "public_url: http://larder.example/\nremotes:\n{}{}",
        entry("npm", "npm", &origin, ""),
        entry("bystander", "pypi", &good, "")
    );
    let larder = TestLarder::start(&config).await;
    let (memory, began) = (Memory::of(&larder), Instant::now());
    let mut running = tokio::task::JoinSet::new();
    for n in 0..80 {
        let url = larder.artifact("npm", &format!("p{n}"));
        running.spawn(async move {
            let client = builder().timeout(Duration::from_secs(300)).build().unwrap();
            let answer = try_send(&client, "GET", &url, &[]).await.unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    let rise = memory.rise();
    println!(
        "80 packuments of 9 MiB at once: {:?}, memory +{rise} MiB",
        began.elapsed()
    );
    // What is on its way to an S3 store is in memory, too, within a bound of its own.
    let parts = if larder.has_objects() {
        let label = "kind=\"store_parts\"";
        larder.metric("larder_budget_limit", label).await as u64 >> 20
    } else {
        0
    };
    assert!(rise <= 128 + parts, "{rise} MiB");
}
