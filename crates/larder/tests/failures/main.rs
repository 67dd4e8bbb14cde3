//! Every failure that an operator meets, and where its cause can be read: in the body and the reason phrase that the client is given,
//! in the log, in `/health` and in `/metrics`. Each cell is what the real program says after the failure has been brought about.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

#[path = "../support/mod.rs"]
mod support;

mod disk;
mod evidence;
mod expired;
mod of_larder;
mod of_rules;
mod of_upstreams;
