//! The acceptance list for RPM repositories (the numbers in the names), and the hazards that it comes from. What takes real
//! clients stands in `tests/e2e/rpm.py`, what takes an HTTP server in `crates/larder/tests/http`.
// Proving that a task may move between threads goes down through the pipeline to the database's driver.
#![recursion_limit = "256"]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test program: its helpers panic to report"
)]

mod consistency;
mod files;
mod forget;
mod integrity;
mod mirrors;
mod repo;
#[path = "../support/mod.rs"]
mod support;

use larder_core::{Fault, FaultKind};
use support::{Bench, Got};

/// Beyond the default time-to-live of mutable files, in seconds.
const EXPIRED: u64 = 3_601;

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

/// The body of a file of the rpm repository, when all downloads have come to rest.
async fn body(bench: &Bench, path: &str) -> Vec<u8> {
    let got = bench
        .get("rpm", path)
        .await
        .unwrap_or_else(|fault| panic!("{path}: {} {}", fault.code.as_str(), fault.message));
    let bytes = got.bytes().to_vec();
    bench.settled().await;
    bytes
}
