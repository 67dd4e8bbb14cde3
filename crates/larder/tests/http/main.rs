//! What the contract promises on the wire (contract, sections 1 and 6), asked of the real program over loopback.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod alpine;
mod artifacts;
mod conditions;
mod errors;
mod explain;
mod fields;
mod flush;
mod folders;
mod forget;
mod forms;
mod guard;
mod held;
mod images;
mod jobs;
mod logged;
mod loops;
mod metrics;
mod node;
mod offered;
mod ranges;
mod roots;
mod sentences;
mod slashes;
mod strangers;
mod tls;
mod upstreams;
mod variants;
