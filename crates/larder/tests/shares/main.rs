//! What one upstream that is slow, silent or endless takes away from the others: with everything in use that it can get, a new file and a
//! new page of other repositories come within a second. Each with a bounded load, on the real program, measured from outside.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may fail loudly"
)]

mod bystander;
mod downloads;
mod heads;
mod many;
mod memory;
#[path = "../support/mod.rs"]
mod support;
mod together;
mod upstream;

use std::time::{Duration, Instant};

use support::TestLarder;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// What a new file and a new page of another repository may take. The unoptimised program gets more: it shares its machine.
const SOON: Duration = Duration::from_secs(if cfg!(debug_assertions) { 3 } else { 1 });

/// Sends a request and waits for nothing. The connection stays open for as long as what is given is kept.
async fn ask(larder: &TestLarder, method: &str, repository: &str, path: &str) -> TcpStream {
    let mut socket = TcpStream::connect(larder.address())
        .await
        .expect("a connection");
    let head =
        format!("{method} /api/v1/remote/{repository}/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    socket.write_all(head.as_bytes()).await.expect("a request");
    socket
}

/// Waits until this holds.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + support::PATIENCE;
    while !condition().await {
        assert!(Instant::now() < end, "it does not come to this: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
