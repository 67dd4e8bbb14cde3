//! What goes where the disk is bounded is what was used least recently, as clients see it: what they read, what their answers are made of
//! and what they wait for is in use (docs/adr/0094).
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

mod support;

use std::time::{Duration, Instant};

use larder_testkit::{Origin, Payload, Resource};
use support::{PATIENCE, TestLarder, get};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const MIB: u64 = 1 << 20;

fn put(origin: &Origin, path: &str, length: u64, seed: u64) {
    let body = Payload::generated(length, seed);
    let resource = Resource::new(body).content_type("application/octet-stream");
    origin.put(&format!("/{path}"), resource);
}

/// Fetches files that nobody has asked for before, one after the other; `between` is done after each.
async fn feed(
    larder: &TestLarder,
    origin: &Origin,
    (name, count, length): (&str, u64, u64),
    between: impl AsyncFn(),
) {
    for number in 0..count {
        let path = format!("cold/{name}{number}.bin");
        // Equal bytes would take no space.
        let seed = name.bytes().map(u64::from).sum::<u64>() * 1_000 + number;
        put(origin, &path, length, seed);
        let answer = get(&larder.artifact("files", &path)).await;
        assert_eq!(answer.status, 200, "{path}");
        between().await;
    }
}

/// Whether something at this path is held, by what larder lists.
async fn is_held(larder: &TestLarder, repository: &str, path: &str) -> bool {
    let listed = get(&larder.url(&format!("api/v1/artifacts/{repository}?limit=1000"))).await;
    assert_eq!(listed.status, 200, "{}", listed.text());
    let listed = listed.json();
    let artifacts = listed["artifacts"].as_array().expect("a list");
    artifacts.iter().any(|one| one["path"] == path)
}

async fn until_held(larder: &TestLarder, repository: &str, path: &str) {
    let since = Instant::now();
    while !is_held(larder, repository, path).await {
        assert!(since.elapsed() < PATIENCE, "{repository}/{path}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A merged index is made of its members' indexes. They are needed as soon as a member fails.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_virtual_repository_answers_from_is_in_use() {
    let origin = Origin::start().await;
    for name in ["one", "two"] {
        let index = format!(
            "apiVersion: v1\nentries:\n  {name}:\n  - name: {name}\n    version: 1.0.0\n    urls: [{name}-1.0.0.tgz]\n"
        );
        let resource = Resource::new(index).content_type("text/yaml");
        origin.put(&format!("/{name}/index.yaml"), resource);
    }
    let url = |path| origin.url(path);
    let config = format!(
        "limits: {{ disk: 2MiB }}\nremotes:\n  files: {{ base_url: '{}', immutable_patterns: ['.'] }}\n  one: {{ package: helm, base_url: '{}' }}\n  two: {{ package: helm, base_url: '{}' }}\n  all: {{ type: virtual, package: helm, members: [one, two] }}\n",
        url(""),
        url("/one"),
        url("/two")
    );
    let larder = TestLarder::start(&config).await;
    let merged = larder.url("api/v1/virtual/all/index.yaml");
    for _ in 0..3 {
        assert_eq!(get(&merged).await.status, 200);
    }
    for name in ["one", "two"] {
        until_held(&larder, name, "index.yaml").await;
    }
    let ask = async || {
        // A use is not told from one a moment before.
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(get(&merged).await.source(), "cache");
    };
    feed(&larder, &origin, ("", 60, MIB / 10), ask).await;
    assert!(
        !is_held(&larder, "files", "cold/0.bin").await,
        "room was made"
    );
    for name in ["one", "two"] {
        assert!(is_held(&larder, name, "index.yaml").await, "{name}");
    }
}

/// A download that takes an hour is used for an hour.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_been_read_until_now_is_not_what_was_used_least_recently() {
    const LONG: u64 = 16 * MIB;
    let origin = Origin::start().await;
    put(&origin, "long.bin", LONG, 1);
    let config = format!(
        "limits: {{ disk: 64MiB }}\nremotes:\n  files: {{ base_url: '{}', immutable_patterns: ['.'] }}\n",
        origin.url("")
    );
    let larder = TestLarder::start(&config).await;
    let url = larder.artifact("files", "long.bin");
    assert_eq!(get(&url).await.status, 200);
    until_held(&larder, "files", "long.bin").await;

    // The rest is more than all buffers on the way.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 << 10).expect("small");
    let socket = socket.connect(larder.address()).await;
    let mut slow = socket.expect("a connection");
    let request = format!(
        "GET /api/v1/remote/files/long.bin HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        larder.address()
    );
    slow.write_all(request.as_bytes()).await.expect("sent");
    let mut head = vec![0; 1_000];
    assert!(slow.read(&mut head).await.expect("a head") > 0);
    tokio::time::sleep(Duration::from_millis(300)).await;
    feed(&larder, &origin, ("a", 45, MIB), async || {}).await;
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).await.expect("the rest");
    assert!(rest.len() as u64 > LONG - 1_000, "{}", rest.len());

    // There is no room for these, and much was asked for before the last byte of the other was read.
    feed(&larder, &origin, ("b", 10, MIB), async || {}).await;
    assert!(
        !is_held(&larder, "files", "cold/a0.bin").await,
        "room was made"
    );
    assert_eq!(get(&url).await.source(), "cache");
}

/// Whoever waits for an upstream that fails in the end is given the copy, and so is the next one.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_waited_for_is_in_use() {
    let origin = Origin::start().await;
    let list = Resource::new(Payload::generated(MIB / 10, 1)).etag("\"one\"");
    origin.put("/list.txt", list);
    let config = format!(
        "limits: {{ disk: 1MiB }}\nremotes:\n  files: {{ base_url: '{}', immutable_patterns: ['cold'], mutable_patterns: ['list'], timeouts: {{ connect: 2, read: 4 }}, cache: {{ mutable_ttl: 1 }} }}\n",
        origin.url("")
    );
    let larder = TestLarder::start(&config).await;
    let url = larder.artifact("files", "list.txt");
    assert_eq!(get(&url).await.status, 200);
    until_held(&larder, "files", "list.txt").await;
    feed(&larder, &origin, ("a", 4, MIB / 10), async || {}).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;

    origin.hold("/list.txt");
    let waiting = tokio::spawn(async move { get(&url).await });
    let since = Instant::now();
    while origin.count("GET", "/list.txt") < 2 {
        assert!(since.elapsed() < PATIENCE, "the upstream is asked");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    feed(&larder, &origin, ("b", 25, MIB / 10), async || {}).await;
    assert!(
        !is_held(&larder, "files", "cold/b0.bin").await,
        "room was made"
    );
    let answer = waiting.await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(
        is_held(&larder, "files", "list.txt").await,
        "it is needed again"
    );
}
