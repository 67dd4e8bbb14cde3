//! `larder migrate` with a real PostgreSQL and a real store that speaks S3: what was served before is served after, there and back, whatever
//! happens in between.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

#[path = "../support/mod.rs"]
mod support;

mod damaged;
mod installation;
mod killed;
mod parts;
mod refused;
mod whole;
