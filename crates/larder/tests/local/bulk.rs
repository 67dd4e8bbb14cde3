//! Any size passes through: memory does not grow with it.

use std::time::{Duration, Instant};

use larder_core::sha256;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::start;
use crate::support::TestLarder;

const STEP: usize = 1 << 20;

/// Block `number` of the file.
fn block(number: u64) -> Vec<u8> {
    sha256(&number.to_le_bytes()).as_bytes().repeat(STEP / 32)
}

async fn up(larder: &TestLarder, blocks: u64) -> String {
    let mut socket = TcpStream::connect(larder.address())
        .await
        .expect("a connection");
    let head = format!(
        "PUT /api/v1/remote/files/big HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        blocks * STEP as u64
    );
    socket.write_all(head.as_bytes()).await.expect("sent");
    for number in 0..blocks {
        socket.write_all(&block(number)).await.expect("sent");
    }
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("an answer");
    answer
}

/// Reads it back and compares each byte; gives its length.
async fn down(larder: &TestLarder) -> u64 {
    let mut answer = crate::client()
        .get(larder.artifact("files", "big"))
        .timeout(Duration::from_secs(600))
        .send()
        .await
        .expect("an answer");
    let (mut length, mut present) = (0, block(0));
    while let Some(bytes) = answer.chunk().await.expect("bytes") {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let at = length % STEP;
            if at == 0 {
                present = block((length / STEP) as u64);
            }
            let (now, later) = rest.split_at(rest.len().min(STEP - at));
            assert!(
                now == &present[at..at + now.len()],
                "other bytes from {length} on"
            );
            length += now.len();
            rest = later;
        }
    }
    length as u64
}

async fn passes(blocks: u64, most: u64) {
    let larder = start().await;
    let before = larder.peak_memory();
    let begun = Instant::now();
    let answer = up(&larder, blocks).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let (uploaded, after_up) = (begun.elapsed(), larder.peak_memory());
    let begun = Instant::now();
    assert_eq!(down(&larder).await, blocks * STEP as u64);
    let peak = larder.peak_memory();
    eprintln!(
        "{blocks} MiB: up in {uploaded:?}, down in {:?}; memory {before} MiB, {after_up} after the upload, {peak} in the end",
        begun.elapsed()
    );
    assert!(peak - before <= most, "{before} to {peak} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_r5_a_large_file_passes_through() {
    passes(192, 64).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a GiB; part of make stress"]
async fn hazard_r5_a_gib_up_and_down_within_64_mib() {
    passes(1024, 64).await;
}
