//! What has gone wrong in systems like this one, class by class, and the rules (contract, section 3) that follow from it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test program: its helpers panic to report"
)]

mod ages;
mod answers;
mod dashes;
mod denied;
mod flush;
mod freshness;
mod head;
mod quarantine;
mod refusals;
mod requests;
mod spellings;
mod statuses;
#[path = "../support/mod.rs"]
mod support;
mod verification;
mod wrong_bytes;

use larder_core::{Fault, FaultKind};
use larder_engine::HotTicket;
use larder_testkit::{Payload, Resource};
use support::{Bench, Got, Published, eventually};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// A small text with validators.
fn text(body: &'static str) -> Resource {
    Resource::new(body)
        .etag(&format!("\"{body}\""))
        .last_modified("Thu, 01 Jan 2026 00:00:00 GMT")
        .content_type("text/plain")
}

/// The kind and code of a refusal.
#[track_caller]
fn refusal(result: Result<Got, Fault>) -> (FaultKind, &'static str) {
    match result {
        Err(fault) => (fault.kind, fault.code.as_str()),
        Ok(got) => panic!(
            "answered {} ({}) with {:?}",
            got.answer.status, got.answer.cache_status, got.body
        ),
    }
}

/// Nothing is remembered of a published file, and no blob of its size is stored.
async fn assert_nothing_kept(bench: &Bench, file: &Published, body: &Payload) {
    bench.settled().await;
    let record = bench.record(file.repository, &file.path, "").await;
    assert!(
        record.as_ref().is_none_or(|record| record.blob().is_none()),
        "{record:?}"
    );
    let sizes: Vec<u64> = bench
        .blobs
        .list(None, 1000)
        .await
        .unwrap()
        .into_iter()
        .map(|blob| blob.descriptor.size)
        .collect();
    assert!(!sizes.contains(&body.length()), "{sizes:?}");
}

/// What the server's hot set would hold of an answer, once it may.
async fn remembered(bench: &Bench, repository: &str, target: &str) -> HotTicket {
    let mut ticket = None;
    eventually("the answer may be remembered", async || {
        ticket = bench.client(repository, target).answer().await.unwrap().hot;
        ticket.is_some()
    })
    .await;
    ticket.unwrap()
}

/// The published file is served whole from what is held.
async fn assert_hit(bench: &Bench, file: &Published, body: &Payload) {
    bench.settled().await;
    let got = bench.get(file.repository, &file.path).await.unwrap();
    assert_eq!(got.bytes(), &body.slice(0, body.length()));
    assert!(
        got.is_hit(),
        "{}: {}",
        file.repository,
        got.answer.cache_status
    );
}
