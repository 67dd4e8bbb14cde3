//! The server over loopback, in front of a scripted pipeline.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod access;
mod artifacts;
mod bad_input;
mod budgets;
mod counted;
mod harness;
mod hot_set;
mod oci;
mod reasons;
mod rebinding;
mod request_bodies;
mod timeouts;
mod tls;
