//! Clients that close their sending half behind the request (`nc -N`): they are answered, and what they ask for is done.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use larder_testkit::{Origin, Resource};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::start;
use crate::support::client::raw_status;
use crate::support::packages::remote;
use crate::support::{PATIENCE, TestLarder, get};

/// Sends all that there is to say, and says so; gives what comes.
async fn ask(address: SocketAddr, request: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(request.as_bytes()).await?;
    socket.shutdown().await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_sends_no_more_is_answered() {
    let larder = start().await;
    let body = "x".repeat(3 << 20);
    let put = format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let chunked = "Transfer-Encoding: chunked\r\n\r\n5\r\nbytes\r\n0\r\n\r\n";
    let file = "/api/v1/remote/files/a";
    for (method, path, rest, status, length) in [
        ("PUT", file, &*put, 201, 1),
        // Out of the store, and twice out of the hot set.
        ("GET", file, "\r\n", 200, body.len()),
        ("GET", file, "\r\n", 200, body.len()),
        ("GET", file, "\r\n", 200, body.len()),
        ("HEAD", file, "\r\n", 200, 0),
        ("GET", "/api/v1/remote/files/", "\r\n", 200, 1),
        ("DELETE", file, "\r\n", 204, 0),
        ("GET", file, "\r\n", 404, 1),
        ("PUT", file, chunked, 201, 1),
        ("PUT", "/cache/flush", "\r\n", 200, 1),
        ("GET", "/health", "\r\n", 200, 1),
    ] {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{rest}");
        let answer = ask(larder.address(), &request).await.expect("an answer");
        assert_eq!(raw_status(&answer), status, "{method} {path}");
        let body = answer
            .split_once("\r\n\r\n")
            .map_or(0, |(_, body)| body.len());
        assert!(body >= length, "{method} {path}: {body} bytes");
    }
    assert_eq!(get(&larder.artifact("files", "a")).await.text(), "bytes");
    let cut = "PUT /api/v1/remote/files/cut HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nbytes";
    let _ = ask(larder.address(), cut).await;
    assert_eq!(get(&larder.artifact("files", "cut")).await.status, 404);
}

/// Whoever sends no more has given up, for all that larder can see, and is not waited for long.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_soon_there_is_waited_for_and_no_other() {
    let origin = Origin::start().await;
    for path in ["/soon", "/never"] {
        origin.put(path, Resource::new("bytes"));
        origin.hold(path);
    }
    let larder = TestLarder::start(&remote("generic", &origin, "")).await;
    let request = |path: &str| {
        format!("GET /api/v1/remote/generic{path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
    };
    let (soon, never) = (request("/soon"), request("/never"));
    let release = async {
        origin.wait_for("GET", "/soon", 1).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        origin.release("/soon");
    };
    let (answer, ()) = tokio::join!(ask(larder.address(), &soon), release);
    let answer = answer.expect("an answer");
    assert!(answer.ends_with("\r\n\r\nbytes"), "{answer}");
    let begun = Instant::now();
    let answer = ask(larder.address(), &never).await;
    assert!(answer.is_ok_and(|answer| answer.is_empty()));
    assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
    // The download is nobody's, and goes on.
    origin.release("/never");
    assert_eq!(
        get(&larder.artifact("generic", "never")).await.text(),
        "bytes"
    );
    assert_eq!(origin.count("GET", "/never"), 1);
}
