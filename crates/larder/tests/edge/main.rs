//! What clients may hold of the program: connections, memory behind readers that do not read, open files. Each with a bounded load.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

#[path = "../support/mod.rs"]
mod support;

mod descriptors;
mod places;
mod readers;
mod secure;
mod uploads;

use std::time::{Duration, Instant};

use support::TestLarder;
use support::client::get_timeout;

/// `/live` answers within a second.
async fn is_live(larder: &TestLarder) {
    let started = Instant::now();
    let answer = get_timeout(&larder.url("/live")).await;
    assert_eq!(
        answer.map(|answer| answer.status),
        Some(200),
        "/live after {:?}",
        started.elapsed()
    );
    assert!(started.elapsed() < Duration::from_secs(1));
}

/// This process opens as many files as it may: it is all the clients.
fn many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limits = getrlimit(Resource::Nofile);
    limits.current = limits.maximum;
    setrlimit(Resource::Nofile, limits).expect("more open files");
}
