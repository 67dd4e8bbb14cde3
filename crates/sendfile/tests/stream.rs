//! Mapped and plain slices through a real socket: order, partial writes, slow readers, aborted transfers.

use std::fs::File;
use std::io::{IoSlice, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use larder_sendfile::SendfileStream;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn pair() -> (SendfileStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let stream = accepted.unwrap().0;
    stream.set_nodelay(true).unwrap();
    (SendfileStream::new(stream), client.unwrap())
}

/// Bytes in which every position can be told from its neighbours.
fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

fn file_of(bytes: &[u8]) -> Arc<File> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Arc::new(file)
}

/// What hyper does: one vectored write after another, until all buffers are consumed.
async fn write_all_vectored(
    stream: &mut SendfileStream,
    mut buffers: Vec<Bytes>,
) -> std::io::Result<()> {
    while buffers.iter().any(Buf::has_remaining) {
        let mut written = std::future::poll_fn(|cx| {
            let slices: Vec<IoSlice<'_>> =
                buffers.iter().map(|bytes| IoSlice::new(bytes)).collect();
            Pin::new(&mut *stream).poll_write_vectored(cx, &slices)
        })
        .await?;
        for buffer in &mut buffers {
            let step = written.min(buffer.len());
            buffer.advance(step);
            written -= step;
        }
    }
    Ok(())
}

#[tokio::test]
async fn head_body_and_tail_arrive_in_order() {
    let content = pattern(3_000_000);
    let file = file_of(&content);
    let (mut server, mut client) = pair().await;
    let body = server.sender().map(&file, 0, content.len() as u64).unwrap();
    let reader = tokio::spawn(async move {
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        received
    });
    let buffers = vec![
        Bytes::from_static(b"head:"),
        Bytes::new(),
        body,
        Bytes::from_static(b":tail"),
    ];
    write_all_vectored(&mut server, buffers).await.unwrap();
    server.shutdown().await.unwrap();
    let received = reader.await.unwrap();
    let expected = [b"head:".as_slice(), &content, b":tail"].concat();
    assert!(
        received == expected,
        "{} bytes received, {} expected",
        received.len(),
        expected.len()
    );
}

#[tokio::test]
async fn a_range_that_starts_within_a_page_is_exact() {
    let content = pattern(500_000);
    let file = file_of(&content);
    let (mut server, mut client) = pair().await;
    let body = server.sender().map(&file, 4_097, 400_001).unwrap();
    let reader = tokio::spawn(async move {
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        received
    });
    write_all_vectored(&mut server, vec![body]).await.unwrap();
    server.shutdown().await.unwrap();
    assert!(reader.await.unwrap() == content[4_097..404_098]);
}

#[tokio::test]
async fn a_slow_reader_gets_every_byte_through_partial_writes() {
    let content = pattern(8_000_000);
    let file = file_of(&content);
    let (mut server, mut client) = pair().await;
    let body = server.sender().map(&file, 0, content.len() as u64).unwrap();
    let reader = tokio::spawn(async move {
        let mut received = Vec::new();
        let mut chunk = vec![0; 100_000];
        loop {
            match client.read(&mut chunk).await.unwrap() {
                0 => return received,
                count => received.extend_from_slice(&chunk[..count]),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    write_all_vectored(&mut server, vec![Bytes::from_static(b"x"), body])
        .await
        .unwrap();
    server.shutdown().await.unwrap();
    let received = reader.await.unwrap();
    assert!(received[1..] == content);
}

#[tokio::test]
async fn a_client_that_leaves_midway_is_an_error_and_frees_the_mapping() {
    let content = pattern(30_000_000);
    let file = file_of(&content);
    let (mut server, mut client) = pair().await;
    let body = server.sender().map(&file, 0, content.len() as u64).unwrap();
    let leave = tokio::spawn(async move {
        let mut some = vec![0; 10_000];
        client.read_exact(&mut some).await.unwrap();
        drop(client);
    });
    let result = write_all_vectored(&mut server, vec![body]).await;
    leave.await.unwrap();
    assert!(result.is_err());
    assert_eq!(
        Arc::strong_count(&file),
        1,
        "the mapping still holds the file"
    );
}

#[tokio::test]
async fn a_file_truncated_after_mapping_is_an_error_not_a_signal() {
    let file = file_of(&pattern(1_000_000));
    let (mut server, mut client) = pair().await;
    let body = server.sender().map(&file, 0, 1_000_000).unwrap();
    file.set_len(500_000).unwrap();
    let reader = tokio::spawn(async move {
        let mut received = Vec::new();
        let _ = client.read_to_end(&mut received).await;
        received.len()
    });
    let error = write_all_vectored(&mut server, vec![body])
        .await
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    drop(server);
    assert_eq!(reader.await.unwrap(), 500_000);
}

#[tokio::test]
async fn plain_bytes_do_not_wait_for_the_cork_timer_while_a_mapping_is_alive() {
    let file = file_of(&pattern(200_000));
    let (mut server, mut client) = pair().await;
    let body = server.sender().map(&file, 0, 200_000).unwrap();
    // The kernel holds corked bytes back for 200 ms. One quick passage of twenty shows that these are not: other processes on the
    // machine may delay any of them.
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let started = Instant::now();
        write_all_vectored(&mut server, vec![Bytes::from_static(b"alone")])
            .await
            .unwrap();
        let mut received = [0; 5];
        client.read_exact(&mut received).await.unwrap();
        best = best.min(started.elapsed());
    }
    assert!(best < Duration::from_millis(150), "held back for {best:?}");
    drop(body);
}
