//! What one stranger, or one damaged file, may cost all others.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use larder_testkit::{Behaviour, Origin, Payload, Resource};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::client::raw_status;
use crate::support::packages::{File, SIMPLE_JSON, entry, pypi_json, remote};
use crate::support::{Setup, TestLarder, get, send};

/// Sends a POST with a body of `length` bytes, all of it or until the answer cuts it short; gives the status and the head.
async fn post(address: SocketAddr, path: String, length: usize) -> (u16, String) {
    let socket = TcpStream::connect(address).await.expect("a connection");
    let (mut reading, mut writing) = socket.into_split();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    let sending = tokio::spawn(async move {
        let mut written = writing.write_all(head.as_bytes()).await;
        let piece = vec![b'x'; 1 << 16];
        for _ in 0..length >> 16 {
            if written.is_ok() {
                written = writing.write_all(&piece).await;
            }
        }
        // Kept open: whoever closes here would look as if it had left.
        (writing, written)
    });
    let mut answer = vec![0; 4_096];
    let read = tokio::time::timeout(Duration::from_secs(60), reading.read(&mut answer))
        .await
        .expect("an answer")
        .expect("readable");
    sending.abort();
    let text = String::from_utf8_lossy(&answer[..read]).into_owned();
    (raw_status(&text), text)
}

/// Sixty such clients at once.
async fn post_sixty(larder: &TestLarder, path: &str) -> Vec<(u16, String)> {
    let mut clients = JoinSet::new();
    for _ in 0..60 {
        clients.spawn(post(larder.address(), path.to_owned(), 9 << 20));
    }
    clients.join_all().await
}

/// The example that was seen: 565 MiB for 60 clients that post to nothing.
#[tokio::test(flavor = "multi_thread")]
async fn hazard_x3_sixty_clients_that_post_to_nothing_cost_next_to_nothing() {
    let origin = Origin::start().await;
    let larder = TestLarder::start(&remote("npm", &origin, "")).await;
    get(&larder.url("/live")).await;
    let before = larder.peak_memory();
    let path = "/api/v1/remote/absent/-/npm/v1/security/advisories/bulk";
    let answers = post_sixty(&larder, path).await;
    assert!(
        answers.iter().all(|(status, _)| *status == 404),
        "{answers:?}"
    );
    let grown = larder.peak_memory() - before;
    eprintln!("peak memory grew by {grown} MiB");
    assert!(grown < 40, "{grown} MiB");
    assert_eq!(origin.connections(), 0);
}

/// Bodies that are wanted have one bound for all: whoever finds no room in time is told when to come back.
#[tokio::test(flavor = "multi_thread")]
async fn hazard_r5_sixty_clients_with_large_questions_share_one_budget() {
    let origin = Origin::start().await;
    let bulk = "/-/npm/v1/security/advisories/bulk";
    origin.put(bulk, Resource::new("{}").content_type("application/json"));
    origin.behave(bulk, Behaviour::StallHead(Duration::from_mins(2)));
    let larder = TestLarder::start(&remote("npm", &origin, "timeouts: { read: 8 }")).await;
    get(&larder.url("/live")).await;
    let before = larder.peak_memory();
    let path = format!("/api/v1/remote/npm{bulk}");
    let answers = post_sixty(&larder, &path).await;
    let refused: Vec<_> = answers
        .iter()
        .filter(|(status, _)| *status == 503)
        .collect();
    assert!(
        refused.len() >= 60 - 2 * 7,
        "64 MiB have room for seven at a time: {}",
        refused.len()
    );
    assert!(
        refused
            .iter()
            .all(|(_, text)| text.to_ascii_lowercase().contains("\r\nretry-after: ")),
        "{refused:?}"
    );
    let grown = larder.peak_memory() - before;
    eprintln!("peak memory grew by {grown} MiB");
    // The budget, and what sockets and the client of the upstream have under way.
    assert!(grown < 64 + 64, "{grown} MiB");
    assert_eq!(get(&larder.url("/live")).await.status, 200);
}

const BROWSER: (&str, &str) = (
    "User-Agent",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/140.0.0.0",
);

/// DNS rebinding, as it is configured; package clients behind a proxy on the same machine need no setting.
#[tokio::test(flavor = "multi_thread")]
async fn hazard_a_web_page_reads_nothing_by_a_name_of_its_own() {
    let origin = Origin::start().await;
    origin.put("/a", Resource::new("a"));
    let keys = "hostnames: [npm.example.com]";
    let config = format!(
        "public_url: https://larder.example.com/cache\n{}",
        remote("generic", &origin, keys)
    );
    let larder = TestLarder::start(&config).await;
    larder.logged("hostnames").await;
    larder.hit(&larder.artifact("generic", "a")).await;
    for path in [
        "/",
        "/health",
        "/config",
        "/metrics",
        "/v2/",
        "/api/v1/remote/generic/a",
    ] {
        let answer = send(
            "GET",
            &larder.url(path),
            &[("Host", "evil.example:8000"), BROWSER],
        )
        .await;
        assert_eq!(answer.status, 421, "{path}");
        assert!(
            answer.text().contains("public_url"),
            "{path}: {}",
            answer.text()
        );
        for host in [
            "localhost",
            "larder.example.com",
            "npm.example.com",
            "127.0.0.1",
            "[::1]:1",
        ] {
            assert_eq!(
                send("GET", &larder.url(path), &[("Host", host), BROWSER])
                    .await
                    .status,
                200,
                "{path} of {host}"
            );
        }
        for client in [
            "pip/26.2 {\"python\":\"3.14\"}",
            "npm/12.0.0 node/v24.11.0 linux x64",
            "docker/28.5.1 go/go1.24.8",
        ] {
            let asked = send(
                "GET",
                &larder.url(path),
                &[("Host", "packages.corp.example"), ("User-Agent", client)],
            )
            .await;
            assert_eq!(asked.status, 200, "{path} of {client}");
        }
    }
}

fn blobs(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    entries
        .flat_map(|entry| {
            if entry.path().is_dir() {
                blobs(&entry.path())
            } else {
                vec![entry.path()]
            }
        })
        .collect()
}

fn shorten(blob: &Path) {
    std::fs::OpenOptions::new()
        .write(true)
        .open(blob)
        .expect("a blob")
        .set_len(1_000)
        .expect("shorter");
}

/// A damaged disk, a hasty administrator: every stored file loses its end, while it is held open and hot. The next client gets all
/// bytes, by every way to them: a file and a page that larder has rewritten, whole and in part.
#[tokio::test(flavor = "multi_thread")]
async fn hazard_files_that_are_shortened_are_fetched_and_made_again() {
    let origin = Origin::start().await;
    let file = Payload::generated(400_000, 7);
    origin.put("/big.bin", Resource::new(file.clone()).etag("\"v1\""));
    let files: Vec<_> = (0..900)
        .map(|n| File::generated("demo", &format!("1.{n}"), 10, n))
        .collect();
    pypi_json(&origin, "demo", &files);
    let config = format!(
        "{}{}",
        remote("generic", &origin, ""),
        entry("pypi", "pypi", &origin, "")
    );
    // Behind a store of objects nothing is lost with its files.
    let larder = Setup::new(&config).embedded().start().await;
    let (big, page) = (
        larder.artifact("generic", "big.bin"),
        larder.artifact("pypi", "simple/demo/"),
    );
    let json = [("Accept", SIMPLE_JSON), ("Accept-Encoding", "identity")];
    let mut expected_page = Vec::new();
    for _ in 0..2 {
        larder.hit(&big).await;
        expected_page = send("GET", &page, &json).await.body;
    }
    assert!(
        expected_page.len() > 100_000,
        "long enough to be a file of the hot set: {}",
        expected_page.len()
    );
    let whole = file.slice(0, 400_000).to_vec();
    for ways in [&[("Range", "bytes=100000-399999")][..], &[]] {
        // Files and derivations are in their place a moment after they were first served, and so is what was fetched or made again.
        let until = std::time::Instant::now() + crate::support::PATIENCE;
        let are_whole = || {
            let blobs = blobs(&larder.blob_dir());
            let is_whole =
                |blob: &std::path::PathBuf| std::fs::metadata(blob).unwrap().len() > 1_000;
            blobs.len() >= 3 && blobs.iter().all(is_whole)
        };
        while !are_whole() {
            assert!(std::time::Instant::now() < until, "kept again");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for _ in 0..2 {
            get(&big).await;
            send("GET", &page, &json).await;
        }
        for blob in blobs(&larder.blob_dir()) {
            shorten(&blob);
        }
        let start = if ways.is_empty() { 0 } else { 100_000 };
        for _ in 0..2 {
            let answer = send("GET", &big, ways).await;
            assert!(
                answer.body == whole[start..],
                "{} of {} bytes",
                answer.body.len(),
                whole.len() - start
            );
        }
        for _ in 0..2 {
            let answer = send("GET", &page, &json).await;
            assert!(
                answer.body == expected_page,
                "{} of {} bytes",
                answer.body.len(),
                expected_page.len()
            );
        }
    }
    assert!(
        origin
            .requests()
            .iter()
            .filter(|request| request.target == "/big.bin")
            .count()
            >= 3,
        "fetched again each time"
    );
}

/// A target may have 8 KiB, and whatever is in it stands on one line of the log, cut, without its query.
#[tokio::test(flavor = "multi_thread")]
async fn hazard_log_lines_cut_what_strangers_choose_and_show_no_query() {
    for format in ["json", "text"] {
        let origin = Origin::start().await;
        let long = format!("{}%22%20level=%22{}", "y".repeat(1_000), "y".repeat(900));
        let target = format!("/{long}?token=s3cret-of-a-signature");
        origin.put(&target, Resource::new(Payload::generated(100_000, 3)));
        let config = remote("generic", &origin, "");
        let setup = Setup::new(&config)
            .embedded()
            .env(
                "LARDER_LOG",
                "info,larder_server=debug,larder_engine=debug,larder_upstream=debug",
            )
            .env("LARDER_LOG_FORMAT", format);
        let larder = setup.start().await;
        let kept = larder.artifact("generic", &target[1..]);
        larder.hit(&kept).await;
        // A download that has ended is joined until it is durable: what it reads from would be shortened as well.
        larder.until_idle().await;
        for blob in blobs(&larder.blob_dir()) {
            shorten(&blob);
        }
        // The record is there, its bytes are not: that is logged with its key.
        get(&kept).await;
        for (method, path) in [
            ("GET", format!("absent/{}", "z".repeat(8_000))),
            ("PUT", format!("generic/{}", "z".repeat(2_000))),
        ] {
            send(
                method,
                &larder.url(&format!("/api/v1/remote/{path}?password=s3cret")),
                &[],
            )
            .await;
        }
        send(&"M".repeat(3_000), &larder.url("/live"), &[]).await;
        larder.logged("zzz").await;
        larder.logged("MMM").await;
        larder.logged("fetched again").await;
        let log = larder.log();
        for line in log.lines().filter(|line| !line.contains("configuration")) {
            assert!(!line.contains("s3cret"), "{format}: {line}");
            for letter in ["y", "z", "M"] {
                assert!(!line.contains(&letter.repeat(201)), "{format}: {line}");
            }
            assert!(line.len() < 1_000, "{format}: {line}");
        }
        assert!(log.contains("bytes)"), "what is cut is marked");
    }
}
