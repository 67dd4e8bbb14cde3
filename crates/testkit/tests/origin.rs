//! The origin itself: what it puts on the wire, seen by a raw client.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot reach its own origin has failed"
)]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder_testkit::{Behaviour, Origin, Payload, Resource};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const DAY_BEFORE: &str = "Sat, 05 Nov 1994 08:49:37 GMT";

/// Sends one request with `Connection: close` and gives everything that came back, and how it ended.
async fn ask(
    origin: &Origin,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
) -> (String, Vec<u8>, Option<std::io::ErrorKind>) {
    let mut socket = TcpStream::connect(origin.address()).await.unwrap();
    let mut request = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    for (name, value) in headers {
        let _ = write!(request, "{name}: {value}\r\n");
    }
    socket
        .write_all(format!("{request}\r\n").as_bytes())
        .await
        .unwrap();
    read_all(socket).await
}

async fn read_all(mut socket: TcpStream) -> (String, Vec<u8>, Option<std::io::ErrorKind>) {
    let mut all = Vec::new();
    let end = socket.read_to_end(&mut all).await.err().map(|e| e.kind());
    let split = all
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .map_or(all.len(), |at| at + 4);
    let body = all.split_off(split);
    (String::from_utf8_lossy(&all).into_owned(), body, end)
}

async fn get(origin: &Origin, target: &str) -> (String, Vec<u8>, Option<std::io::ErrorKind>) {
    ask(origin, "GET", target, &[]).await
}

async fn with_file() -> Origin {
    let origin = Origin::start().await;
    origin.put(
        "/f",
        Resource::new("0123456789")
            .etag("\"v1\"")
            .last_modified(DATE)
            .content_type("text/x"),
    );
    origin
}

#[tokio::test]
async fn serves_and_records() {
    let origin = with_file().await;
    let (head, body, end) = get(&origin, "/f?q=1").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    for field in [
        "Content-Length: 10",
        "ETag: \"v1\"",
        "Content-Type: text/x",
        "Accept-Ranges: bytes",
    ] {
        assert!(head.contains(field), "{field} in {head}");
    }
    assert_eq!((&body[..], end), (&b"0123456789"[..], None));
    assert!(get(&origin, "/none").await.0.starts_with("HTTP/1.1 404"));
    let seen = origin.requests();
    assert_eq!(
        (seen[0].target.as_str(), seen[0].header("HOST")),
        ("/f?q=1", Some("x"))
    );
    assert_eq!(
        (
            origin.count("GET", "/f"),
            origin.count("HEAD", "/f"),
            origin.count("*", "*")
        ),
        (1, 0, 2)
    );
    origin.reset_log();
    assert_eq!(origin.count("*", "*"), 0);
}

#[tokio::test]
async fn finds_percent_encoded_paths_and_queries() {
    let origin = Origin::start().await;
    origin.put("/@scope/name", Resource::new("scoped"));
    origin.put("/p?x=1", Resource::new("one"));
    origin.put("/p", Resource::new("any"));
    assert_eq!(get(&origin, "/@scope%2fname").await.1, b"scoped");
    assert_eq!(get(&origin, "/p?x=1").await.1, b"one");
    assert_eq!(get(&origin, "/p?x=2").await.1, b"any");
}

#[tokio::test]
async fn keeps_connections_alive_and_answers_head_without_body() {
    let origin = with_file().await;
    let mut socket = TcpStream::connect(origin.address()).await.unwrap();
    socket
        .write_all(b"HEAD /f HTTP/1.1\r\nHost: x\r\n\r\nGET /f HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let (head, rest, _) = read_all(socket).await;
    assert!(head.contains("Content-Length: 10"), "{head}");
    assert!(rest.starts_with(b"HTTP/1.1 200"), "HEAD has no body");
    assert!(rest.ends_with(b"\r\n\r\n0123456789"));
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn conditional_requests() {
    let origin = with_file().await;
    let status = async |headers: &[(&str, &str)]| {
        ask(&origin, "GET", "/f", headers).await.0[9..12].to_owned()
    };
    assert_eq!(status(&[("If-None-Match", "\"v1\"")]).await, "304");
    assert_eq!(
        status(&[("If-None-Match", "\"v0\", W/\"v1\"")]).await,
        "304",
        "weak comparison, a list"
    );
    assert_eq!(
        status(&[("If-None-Match", "\"v0\""), ("If-Modified-Since", DATE)]).await,
        "200",
        "tag has precedence"
    );
    assert_eq!(status(&[("If-Modified-Since", DATE)]).await, "304");
    assert_eq!(status(&[("If-Modified-Since", DAY_BEFORE)]).await, "200");
    origin.behave("/f", Behaviour::IgnoreConditions);
    assert_eq!(status(&[("If-None-Match", "\"v1\"")]).await, "200");
}

#[tokio::test]
async fn ranges() {
    let origin = with_file().await;
    let ask = async |range: &str, condition: &str| {
        let (head, body, _) = ask(
            &origin,
            "GET",
            "/f",
            &[("Range", range), ("If-Range", condition)],
        )
        .await;
        (
            head[9..12].to_owned(),
            String::from_utf8(body).unwrap(),
            head,
        )
    };
    for (range, want, content_range) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
    ] {
        let (status, body, head) = ask(range, "\"v1\"").await;
        assert_eq!((status.as_str(), body.as_str()), ("206", want), "{range}");
        assert!(
            head.contains(&format!("Content-Range: {content_range}")),
            "{head}"
        );
    }
    assert_eq!(
        ask("bytes=2-4", "\"v0\"").await.0,
        "200",
        "another tag: whole body"
    );
    assert_eq!(ask("bytes=2-4", DATE).await.0, "206");
    assert_eq!(ask("bytes=10-", "\"v1\"").await.0, "416");
    origin.behave("/f", Behaviour::IgnoreRanges);
    assert_eq!(ask("bytes=2-4", "\"v1\"").await.1, "0123456789");
}

#[tokio::test]
async fn broken_bodies_end_as_told() {
    let origin = with_file().await;
    let expect = async |behaviour: Behaviour, field: &str, want: &[u8], reset: bool| {
        origin.behave_once("/f", behaviour.clone());
        let (head, body, end) = get(&origin, "/f").await;
        assert!(head.contains(field), "{behaviour:?}: {head}");
        assert_eq!(&body[..], want, "{behaviour:?}");
        assert_eq!(
            end == Some(std::io::ErrorKind::ConnectionReset),
            reset,
            "{behaviour:?}: {end:?}"
        );
    };
    expect(
        Behaviour::Truncate { after: 4 },
        "Content-Length: 10",
        b"0123",
        false,
    )
    .await;
    expect(
        Behaviour::Chunked,
        "Transfer-Encoding: chunked",
        b"a\r\n0123456789\r\n0\r\n\r\n",
        false,
    )
    .await;
    expect(
        Behaviour::CutChunked { after: 4 },
        "Transfer-Encoding: chunked",
        b"4\r\n0123\r\n",
        false,
    )
    .await;
    expect(
        Behaviour::LieAboutLength(5),
        "Content-Length: 15",
        b"0123456789",
        false,
    )
    .await;
    expect(
        Behaviour::LieAboutLength(-5),
        "Content-Length: 5",
        b"0123456789",
        false,
    )
    .await;
    expect(
        Behaviour::ResetBody { after: 4 },
        "Content-Length: 10",
        b"0123",
        true,
    )
    .await;
    expect(
        Behaviour::Surplus(Bytes::from_static(b"HTTP/1.1 200 OK\r\n\r\n")),
        "Length: 10",
        b"0123456789HTTP/1.1 200 OK\r\n\r\n",
        false,
    )
    .await;
    expect(
        Behaviour::UnaskedPartial { length: 3 },
        "Content-Range: bytes 0-2/10",
        b"012",
        false,
    )
    .await;
    expect(
        Behaviour::LabelEncoding("gzip".into()),
        "Content-Encoding: gzip",
        b"0123456789",
        false,
    )
    .await;
    expect(
        Behaviour::Body(Bytes::from_static(b"other")),
        "ETag: \"v1\"",
        b"other",
        false,
    )
    .await;
    expect(Behaviour::NotModified, "HTTP/1.1 304", b"", false).await;
    expect(
        Behaviour::Status(503),
        "HTTP/1.1 503",
        b"status 503\n",
        false,
    )
    .await;
    expect(
        Behaviour::UntilClose,
        "Connection: close",
        b"0123456789",
        false,
    )
    .await;
    assert!(
        !get(&origin, "/f").await.0.contains("Content-Encoding"),
        "one-shot behaviours are used up"
    );
    origin.behave_once("/f", Behaviour::ResetHead);
    let (head, _, end) = get(&origin, "/f").await;
    assert_eq!(
        (head.as_str(), end),
        ("", Some(std::io::ErrorKind::ConnectionReset))
    );
    origin.behave_once(
        "/f",
        Behaviour::Garbage(Bytes::from_static(b"\x16\x03\x01 not http")),
    );
    assert_eq!(get(&origin, "/f").await.0, "\u{16}\u{3}\u{1} not http");
}

#[tokio::test]
async fn gzip_that_any_gunzip_reads() {
    let origin = Origin::start().await;
    let data = Payload::generated(200_000, 3);
    origin.put("/f", Resource::new(data.clone()));
    origin.behave("/f", Behaviour::Gzip);
    let (head, body, _) = get(&origin, "/f").await;
    assert!(head.contains("Content-Encoding: gzip"), "{head}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.gz");
    std::fs::write(&file, body).unwrap();
    let out = std::process::Command::new("gzip")
        .arg("-dc")
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(Bytes::from(out.stdout), data.slice(0, u64::MAX));
}

#[tokio::test]
async fn time_passes_as_told() {
    let origin = with_file().await;
    let pause = Duration::from_millis(150);
    let least = async |behaviour: Behaviour| {
        origin.behave_once("/f", behaviour.clone());
        let began = Instant::now();
        assert_eq!(get(&origin, "/f").await.1, b"0123456789");
        assert!(
            began.elapsed() >= Duration::from_millis(145),
            "{behaviour:?}: {:?}",
            began.elapsed()
        );
    };
    least(Behaviour::StallHead(pause)).await;
    least(Behaviour::StallBody { after: 5, pause }).await;
    least(Behaviour::Throttle {
        bytes_per_second: 60,
    })
    .await;
}

#[tokio::test]
async fn gates_hold_heads_and_bodies() {
    let origin = with_file().await;
    origin.hold("/f");
    let mut answer = Box::pin(get(&origin, "/f"));
    tokio::time::timeout(Duration::from_millis(100), &mut answer)
        .await
        .expect_err("held");
    tokio::time::timeout(Duration::from_secs(5), origin.wait_for("GET", "/f", 1))
        .await
        .expect("recorded while held");
    origin.release("/f");
    assert_eq!(answer.await.1, b"0123456789");

    origin.hold_body("/f", 4);
    let mut socket = TcpStream::connect(origin.address()).await.unwrap();
    socket
        .write_all(b"GET /f HTTP/1.1\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut seen = Vec::new();
    let _ = tokio::time::timeout(Duration::from_millis(150), socket.read_to_end(&mut seen))
        .await
        .expect_err("held");
    assert!(
        seen.ends_with(b"\r\n\r\n0123"),
        "{}",
        String::from_utf8_lossy(&seen)
    );
    origin.release("/f");
    socket.read_to_end(&mut seen).await.unwrap();
    assert!(seen.ends_with(b"0123456789"));
}

#[tokio::test]
async fn stops_and_comes_back_on_the_same_port() {
    let mut origin = with_file().await;
    let address = origin.address();
    let mut open = TcpStream::connect(address).await.unwrap();
    open.write_all(b"GET /f HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(open.read(&mut [0; 1024]).await.unwrap() > 0);
    origin.stop().await;
    assert_eq!(
        TcpStream::connect(address).await.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused
    );
    let end = tokio::time::timeout(Duration::from_secs(5), open.read_to_end(&mut Vec::new())).await;
    end.expect("open connections end").ok();
    origin.restart();
    assert_eq!(
        (origin.address(), get(&origin, "/f").await.1),
        (address, b"0123456789".to_vec())
    );
}

#[tokio::test]
async fn redirects_logins_and_nesting() {
    let origin = with_file().await;
    origin.behave_once(
        "*",
        Behaviour::Redirect {
            status: 307,
            location: "http://169.254.169.254/".into(),
        },
    );
    let (head, _, _) = get(&origin, "/anything").await;
    assert!(
        head.starts_with("HTTP/1.1 307") && head.contains("Location: http://169.254.169.254/\r\n"),
        "{head}"
    );
    origin.behave_once("*", Behaviour::LoginPage);
    assert!(
        get(&origin, "/f")
            .await
            .0
            .contains("Content-Type: text/html")
    );
    origin.behave_once("*", Behaviour::JsonNesting { depth: 3_000_000 });
    let (_, body, _) = get(&origin, "/f").await;
    assert!(body.len() == 3_000_000 && body.iter().all(|b| *b == b'['));
}

#[test]
fn generated_payloads_do_not_depend_on_how_they_are_cut() {
    let payload = Payload::generated(1000, 1);
    let whole = payload.slice(0, u64::MAX);
    assert_eq!(whole.len(), 1000);
    for (from, length) in [(0, 1), (3, 20), (8, 8), (995, 100), (1000, 5)] {
        let end = (from + length).min(1000) as usize;
        assert_eq!(
            payload.slice(from, length),
            whole.slice((from as usize).min(end)..end),
            "{from}+{length}"
        );
    }
    assert_ne!(whole, Payload::generated(1000, 2).slice(0, 1000));
}
