//! Slow and silent clients (hazards R1, R5), and the graceful stop.

use std::time::{Duration, Instant};

use crate::harness::{Script, Server, Spec, file_of, pattern, settings};
use tokio::io::AsyncReadExt;

async fn impatient() -> Server {
    let mut settings = settings();
    settings.limits.header_timeout = Duration::from_millis(400);
    settings.limits.idle_timeout = Duration::from_millis(1_200);
    Server::with(settings).await
}

async fn closes_within(client: &mut crate::harness::Client, from: u64, to: u64) {
    let started = Instant::now();
    client.expect_close().await;
    let elapsed = started.elapsed();
    assert!(
        elapsed >= Duration::from_millis(from) && elapsed <= Duration::from_millis(to),
        "closed after {elapsed:?}"
    );
}

#[tokio::test]
async fn hazard_r1_a_connection_that_says_nothing_is_closed() {
    let server = impatient().await;
    let mut client = server.connect().await;
    closes_within(&mut client, 300, 1_000).await;
}

#[tokio::test]
async fn hazard_r1_a_head_that_drips_is_closed_however_often_it_drips() {
    let server = impatient().await;
    let mut client = server.connect().await;
    let started = Instant::now();
    for byte in
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    {
        if tokio::io::AsyncWriteExt::write_all(&mut client.0, &[*byte])
            .await
            .is_err()
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut end = [0];
        if let Ok(Ok(0) | Err(_)) =
            tokio::time::timeout(Duration::from_millis(1), client.0.read(&mut end)).await
        {
            break;
        }
    }
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "still open after {:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn hazard_r1_a_second_head_has_the_short_time_out_and_silence_the_long_one() {
    let server = impatient().await;
    let mut client = server.connect().await;
    assert_eq!(client.ask("GET", "/live", &[]).await.status, 200);
    // Longer than a head may take: silence between requests is something else.
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(client.ask("GET", "/live", &[]).await.status, 200);
    closes_within(&mut client, 900, 2_000).await;
    let mut client = server.connect().await;
    assert_eq!(client.ask("GET", "/live", &[]).await.status, 200);
    client.send(b"GET /live HT").await;
    closes_within(&mut client, 300, 900).await;
}

#[tokio::test]
async fn an_answer_may_take_longer_than_all_of_them() {
    let server = impatient().await;
    let frames = (0..800).map(|_| Some("x".repeat(100).into())).collect();
    server.script("slow", Script::Frames(frames, None));
    let started = Instant::now();
    let answer = server.ask("GET", "/api/v1/remote/files/slow", &[]).await;
    assert!(
        started.elapsed() > Duration::from_millis(1_200),
        "too fast to show anything: {:?}",
        started.elapsed()
    );
    assert!(answer.complete);
    assert_eq!(answer.body.len(), 80_000);
}

#[tokio::test]
async fn hazard_r5_a_slow_reader_of_a_large_file_is_served_whole() {
    let server = impatient().await;
    let content = pattern(20_000_000);
    server.script(
        "big",
        Script::File(file_of(&content), content.len() as u64, Spec::default()),
    );
    let mut client = server.connect().await;
    client.send(b"GET /api/v1/remote/files/big HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    // Longer than every time-out, while the server cannot write.
    tokio::time::sleep(Duration::from_millis(1_800)).await;
    let answer = client.answer(false).await;
    assert!(answer.complete);
    assert!(answer.body == content);
}

#[tokio::test]
async fn a_request_body_that_stops_is_given_up() {
    let mut settings = settings();
    settings.limits.body_timeout = Duration::from_millis(300);
    let server = Server::with(settings).await;
    let head = "POST /api/v1/remote/npm/-/audit HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc";
    let answer = server.raw(head.as_bytes()).await;
    // RFC 9110 section 15.5.9.
    assert_eq!(answer.status, 408);
    assert_eq!(server.questions(), 0);
}

/// Bytes keep coming, so that it is never silent, but it would take for ever.
#[tokio::test]
async fn hazard_r1_a_request_body_that_drips_is_given_up() {
    let mut settings = settings();
    settings.limits.body_timeout = Duration::from_millis(400);
    settings.limits.body_total = Duration::from_millis(800);
    let server = Server::with(settings).await;
    for framing in [
        "Content-Length: 100000\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n186a0\r\n",
    ] {
        let client = server.connect().await;
        let (mut reading, mut writing) = client.0.into_split();
        let head =
            format!("POST /api/v1/remote/npm/-/audit HTTP/1.1\r\nHost: localhost\r\n{framing}");
        let dripping = tokio::spawn(async move {
            let mut next = head.into_bytes();
            while tokio::io::AsyncWriteExt::write_all(&mut writing, &next)
                .await
                .is_ok()
            {
                next = b"x".to_vec();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let mut status = [0; 12];
        tokio::time::timeout(Duration::from_secs(20), reading.read_exact(&mut status))
            .await
            .expect("no answer")
            .unwrap();
        assert_eq!(&status, b"HTTP/1.1 408", "{framing:?}");
        dripping.abort();
    }
    assert_eq!(server.questions(), 0);
}

#[tokio::test]
async fn a_stopping_server_finishes_answers_and_closes_what_is_idle() {
    let mut server = Server::start().await;
    server.script(
        "slow",
        Script::Frames((0..200).map(|_| Some("x".into())).collect(), Some(200)),
    );
    let mut idle = server.connect().await;
    assert_eq!(idle.ask("GET", "/live", &[]).await.status, 200);
    let mut silent = server.connect().await;
    let mut busy = server.connect().await;
    busy.send(b"GET /api/v1/remote/files/slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    while server.questions() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let address = server.address;
    server.begin_stop();
    idle.expect_close().await;
    silent.expect_close().await;
    let answer = busy.answer(false).await;
    assert!(
        answer.complete,
        "cut off at {} of 200 bytes",
        answer.body.len()
    );
    busy.expect_close().await;
    server.stopped().await;
    assert!(
        tokio::net::TcpStream::connect(address).await.is_err(),
        "still listening"
    );
}

#[tokio::test]
async fn a_stopping_server_does_not_wait_for_ever() {
    let mut settings = settings();
    settings.limits.drain_timeout = Duration::from_millis(300);
    let mut server = Server::with(settings).await;
    server.script("never", Script::Hang);
    let mut client = server.connect().await;
    client
        .send(b"GET /api/v1/remote/files/never HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    while server.questions() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let started = Instant::now();
    server.begin_stop();
    client.expect_close().await;
    server.stopped().await;
    assert!(started.elapsed() < Duration::from_secs(3));
}
