//! Uploads that drip.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::TestLarder;
use crate::support::client::client;
use crate::{is_live, many_files};

const CONFIG: &str = "remotes:
  one: { type: local }
  other: { type: local }
";

/// An upload that says a megabyte and brings ten bytes.
async fn dripping(larder: &TestLarder, number: usize) -> TcpStream {
    let mut socket = TcpStream::connect(larder.address())
        .await
        .expect("connected");
    let head = format!(
        "PUT /api/v1/remote/one/{number} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n0123456789"
    );
    socket.write_all(head.as_bytes()).await.expect("sent");
    socket
}

async fn uploaded_within(larder: &TestLarder, path: &str, limit: Duration) {
    let started = Instant::now();
    let url = larder.url(&format!("/api/v1/remote/{path}"));
    let sent = client().put(url).body(vec![7; 100_000]).send().await;
    let status = sent.expect("an answer").status().as_u16();
    let took = started.elapsed();
    eprintln!("{path}: {status} after {took:?}");
    assert_eq!(status, 201, "{path}");
    assert!(took < limit, "{path}: {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_r1_five_hundred_dripping_uploads_stop_nobody_elses() {
    many_files();
    let larder = TestLarder::start(CONFIG).await;
    let mut open = Vec::new();
    for number in 0..500 {
        open.push(dripping(&larder, number).await);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    uploaded_within(&larder, "other/a", Duration::from_secs(1)).await;
    is_live(&larder).await;
    // Those that found no place are told so, and when to ask again.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let (mut refused, mut given_up) = (0, 0);
    for socket in &mut open {
        let mut answer = vec![0; 2_048];
        let read = tokio::time::timeout(Duration::from_millis(5), socket.read(&mut answer)).await;
        let Ok(Ok(length)) = read else { continue };
        let answer = String::from_utf8_lossy(&answer[..length]).to_lowercase();
        if answer.starts_with("http/1.1 503 ") {
            assert!(answer.contains("retry-after: 5"), "{answer}");
            refused += 1;
        } else {
            assert!(answer.starts_with("http/1.1 408 "), "{answer}");
            given_up += 1;
        }
    }
    eprintln!("{refused} refused, {given_up} given up");
    assert!(refused > 0 && given_up > 0);
    // The same repository: who drips gives way to who waits.
    uploaded_within(&larder, "one/a", Duration::from_secs(5)).await;
    uploaded_within(&larder, "other/b", Duration::from_secs(1)).await;
    is_live(&larder).await;
}
