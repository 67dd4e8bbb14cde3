//! The acceptance list of docs/reference/protocols/oci.md, as far as it is the pipeline's: tests carry the numbers of its lines.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test program: its helpers panic to report"
)]

mod blobs;
mod images;
mod lists;
mod odd;
mod stand_ins;
#[path = "../support/mod.rs"]
mod support;
mod tags;
mod wrong;

use larder_core::{Fault, FaultKind};
use support::Got;

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

/// A field that the format adds to an answer.
fn field(got: &Got, name: &str) -> Option<String> {
    got.answer
        .representation
        .extra
        .get(name)
        .map(|value| value.to_str().unwrap().to_owned())
}
