//! Readers that do not read.

use std::sync::Arc;
use std::time::Duration;

use larder_testkit::{Origin, Payload, Resource};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::secure::{Secure, one_byte_windows, send};
use crate::support::client::builder;
use crate::support::packages::entry;
use crate::{is_live, many_files};

const FILE: &str = "/api/v1/remote/files/big";

async fn serving_a_large_file(folder: &std::path::Path) -> (Origin, Secure) {
    many_files();
    let origin = Origin::start().await;
    origin.put("/big", Resource::new(Payload::generated(8 << 20, 3)));
    let config = format!("remotes:\n{}", entry("files", "generic", &origin, ""));
    let secure = Secure::start(&config, folder).await;
    let client = builder()
        .tls_danger_accept_invalid_certs(true)
        .build()
        .expect("a client");
    for _ in 0..2 {
        let answer = client.get(secure.larder.url(FILE)).send().await;
        let body = answer.expect("an answer").bytes().await.expect("a body");
        assert_eq!(body.len(), 8 << 20);
    }
    (origin, secure)
}

/// Opens `count` connections, some at a time, and writes `bytes` on each; they stay open as long as what comes back.
async fn open(
    secure: Secure,
    protocol: &[u8],
    count: usize,
    bytes: Vec<u8>,
) -> (Arc<Secure>, Vec<impl Sized>) {
    let (secure, bytes) = (Arc::new(secure), Arc::new(bytes));
    let connector = secure.connector(protocol);
    let (mut opening, mut opened) = (JoinSet::new(), Vec::new());
    for _ in 0..count {
        if opening.len() >= 32 {
            opened.extend(opening.join_next().await);
        }
        let (secure, connector, bytes) =
            (Arc::clone(&secure), connector.clone(), Arc::clone(&bytes));
        opening.spawn(async move {
            let mut stream = secure.connect(&connector).await;
            send(&mut stream, &bytes).await;
            stream
        });
    }
    while let Some(stream) = opening.join_next().await {
        opened.push(stream);
    }
    (secure, opened)
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_x3_fifteen_hundred_readers_over_tls_that_do_not_read() {
    let folder = tempfile::tempdir().expect("a directory");
    let (_origin, secure) = serving_a_large_file(folder.path()).await;
    let before = secure.larder.peak_memory();
    let request = format!("GET {FILE} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (secure, open) = open(secure, b"http/1.1", 1_500, request.into_bytes()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    is_live(&secure.larder).await;
    let grown = secure.larder.peak_memory() - before;
    eprintln!("{} readers: peak memory grew by {grown} MiB", open.len());
    assert!(grown < 384, "{grown} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_x3_fifteen_hundred_handshakes_that_never_end() {
    let folder = tempfile::tempdir().expect("a directory");
    let (_origin, secure) = serving_a_large_file(folder.path()).await;
    let before = secure.larder.peak_memory();
    let mut open = Vec::new();
    for _ in 0..1_500 {
        let mut socket = TcpStream::connect(secure.larder.address())
            .await
            .expect("connected");
        // A record of the handshake that says 16,000 bytes and brings some of them.
        socket
            .write_all(&[22, 3, 1, 0x3e, 0x80, 1, 0, 0x3e, 0x7c])
            .await
            .expect("sent");
        socket.write_all(&[0; 8_000]).await.expect("sent");
        open.push(socket);
    }
    is_live(&secure.larder).await;
    let grown = secure.larder.peak_memory() - before;
    eprintln!("{} handshakes: peak memory grew by {grown} MiB", open.len());
    assert!(grown < 128, "{grown} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_x3_five_thousand_streams_with_a_window_of_one_byte() {
    let folder = tempfile::tempdir().expect("a directory");
    let (_origin, secure) = serving_a_large_file(folder.path()).await;
    let before = secure.larder.peak_memory();
    let (secure, open) = open(secure, b"h2", 50, one_byte_windows(FILE, 100)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    is_live(&secure.larder).await;
    let grown = secure.larder.peak_memory() - before;
    eprintln!(
        "{} connections: peak memory grew by {grown} MiB",
        open.len()
    );
    assert!(grown < 256, "{grown} MiB");
}
