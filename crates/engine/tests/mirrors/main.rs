//! `base_url` as a list: one of two mirrors is dead, slow, wrong, or dies in mid-body, and the client does not notice (ADR 0027).
//!
//! The first mirror of each bench is `bench.origin`; the second is given beside it.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test program"
)]

#[path = "../faults/chance.rs"]
mod chance;
mod failover;
mod faults;
mod health;
mod mid_body;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use larder_core::sha256;
use larder_engine::Limits;
use larder_testkit::{Origin, Payload};
use url::Url;

use support::{Bench, Got, Published, publish, upstream};

const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;

/// A bench whose repositories have `second` as their second mirror.
async fn two(second: &Origin) -> Bench {
    two_held_back(second, Limits::default().held_back).await
}

/// As [`two`], where the first byte of a large body waits so long for its digest.
async fn two_held_back(second: &Origin, held_back: Duration) -> Bench {
    let url = Url::parse(&second.url("/")).unwrap();
    Bench::limited(
        Limits {
            held_back,
            ..Limits::default()
        },
        |repository| {
            upstream(repository).base_urls.push(url.clone());
            repository.cache.mutable_ttl = Duration::from_secs(600);
        },
    )
    .await
}

/// The same file at both mirrors; what is said of it is the first's.
fn publish_both(
    bench: &Bench,
    second: &Origin,
    format: &str,
    body: &Payload,
    tags: [&str; 2],
) -> Published {
    publish(second, format, body, tags[1]);
    publish(&bench.origin, format, body, tags[0])
}

async fn get(bench: &Bench, file: &Published) -> Got {
    let got = bench.get(file.repository, &file.path).await.unwrap();
    bench.settled().await;
    got
}

fn asked(origin: &Origin, path: &str) -> usize {
    origin.count("GET", path)
}

/// What is kept of the file is `body`.
async fn assert_kept(bench: &Bench, file: &Published, body: &Payload) {
    bench.settled().await;
    let record = bench
        .record(file.repository, &file.path, "")
        .await
        .expect("kept");
    assert_eq!(
        record.blob().unwrap().digest,
        sha256(&body.slice(0, body.length())),
        "{}",
        file.repository
    );
}

fn mirror(bench: &Bench, repository: &str, origin: &Origin) -> larder_engine::MirrorReport {
    let url = origin.url("/");
    let all = bench.engine.mirror_reports();
    all.into_iter()
        .find(|report| report.repository == repository && report.mirror == url)
        .unwrap()
}

fn counter(report: &larder_engine::MirrorReport, name: &str) -> u64 {
    report
        .counters
        .iter()
        .find(|(known, _)| *known == name)
        .unwrap()
        .1
}
