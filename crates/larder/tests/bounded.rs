//! Bounded disk, seen from outside: what is kept never takes more than it may, what is in use stays, and what goes gives its space back
//! (docs/adr/0094).
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

mod support;

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use larder_testkit::{Origin, Payload, Resource};
use support::{PATIENCE, TestLarder, get, send};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How much is fed to how small a cache.
#[derive(Debug, Clone, Copy)]
struct Scale {
    budget: u64,
    fed: u64,
    clients: usize,
    file: u64,
}

impl Scale {
    fn files(self) -> usize {
        (self.fed / self.file) as usize
    }

    /// Files that are a tenth of the budget together.
    fn hot(self) -> usize {
        (self.budget / 10 / self.file) as usize
    }
}

fn cold(number: usize) -> String {
    format!("cold/{number}.bin")
}

fn hot(number: usize) -> String {
    format!("hot/{number}.bin")
}

fn put(origin: &Origin, path: &str, length: u64, seed: u64) {
    let body = Payload::generated(length, seed);
    origin.put(
        &format!("/{path}"),
        Resource::new(body).content_type("application/octet-stream"),
    );
}

/// Bytes of the files below a folder, each once.
fn in_folder(folder: &Path, found: &mut HashMap<u64, u64>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => in_folder(&entry.path(), found),
            Ok(metadata) => drop(found.insert(metadata.ino(), metadata.len())),
            Err(_) => {}
        }
    }
}

/// Bytes of blobs on the disk: with a name, and with none but held open, as spools are and what was deleted while it is read. A look takes a
/// while on a busy machine: a named file counts if it is there before and after.
fn on_disk(larder: &TestLarder) -> u64 {
    let (mut before, mut after, mut unnamed) = (HashMap::new(), HashMap::new(), HashMap::new());
    in_folder(&larder.blob_dir(), &mut before);
    let open = format!("/proc/{}/fd", larder.pid());
    for entry in std::fs::read_dir(open).into_iter().flatten().flatten() {
        let is_ours = std::fs::read_link(entry.path())
            .is_ok_and(|target| target.starts_with(larder.data_dir().join("blobs")));
        if let (true, Ok(metadata)) = (is_ours, std::fs::metadata(entry.path()))
            && metadata.nlink() == 0
        {
            unnamed.insert(metadata.ino(), metadata.len());
        }
    }
    in_folder(&larder.blob_dir(), &mut after);
    unnamed.retain(|file, _| !before.contains_key(file));
    before.retain(|file, _| after.contains_key(file));
    before.values().sum::<u64>() + unnamed.values().sum::<u64>()
}

/// A counter or gauge without labels, or the first sample of one that has some.
async fn metric(larder: &TestLarder, name: &str) -> u64 {
    let page = get(&larder.url("metrics")).await.text();
    let line = page.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.unwrap_or_else(|| panic!("{name} is not on the page:\n{page}"))
}

async fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < limit, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn config(origin: &Origin, limits: &str, more: &str) -> String {
    format!(
        "{limits}remotes:\n  files: {{ base_url: '{}', immutable_patterns: ['.'] {more} }}\n  own: {{ type: local }}\n",
        origin.url("")
    )
}

/// A hit that is read as slowly as a client likes: the head and a little of the body now, the rest when it is asked for.
struct SlowReader {
    socket: TcpStream,
    read: Vec<u8>,
}

impl SlowReader {
    async fn begin(larder: &TestLarder, path: &str) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket
            .set_recv_buffer_size(16 << 10)
            .expect("a small buffer");
        let mut socket = socket
            .connect(larder.address())
            .await
            .expect("a connection");
        let request = format!(
            "GET /api/v1/remote/files/{path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            larder.address()
        );
        socket.write_all(request.as_bytes()).await.expect("sent");
        let mut read = vec![0; 4 << 10];
        let count = socket.read(&mut read).await.expect("a head");
        read.truncate(count);
        Self { socket, read }
    }

    /// The body.
    async fn finish(mut self) -> Vec<u8> {
        self.socket
            .read_to_end(&mut self.read)
            .await
            .expect("the rest");
        let head = self.read.windows(4).position(|four| four == b"\r\n\r\n");
        self.read.split_off(head.expect("a head") + 4)
    }
}

/// Feeds a part of the files with all clients at once.
async fn feed(larder: &TestLarder, scale: Scale, part: std::ops::Range<usize>) {
    let next = Arc::new(AtomicUsize::new(part.start));
    let clients = (0..scale.clients).map(|_| {
        let (next, base) = (Arc::clone(&next), larder.artifact("files", ""));
        let (end, length) = (part.end, scale.file);
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= end {
                    return;
                }
                let answer = get(&format!("{base}{}", cold(number))).await;
                assert_eq!(answer.status, 200, "{number}");
                let wanted = Payload::generated(length, number as u64).slice(0, length);
                assert!(answer.body == wanted, "{number}: a read was broken");
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("a client");
    }
}

/// As many read hot files at once: all of them have been read again before as much else has come as is kept, whatever the machine does for
/// those who feed it.
const HOT_READERS: usize = 16;

/// What is read all the time, from the cache each time, until `stop`; gives how often.
fn read_hot(
    larder: &TestLarder,
    scale: Scale,
    stop: &Arc<AtomicBool>,
) -> tokio::task::JoinHandle<usize> {
    let base = larder.artifact("files", "");
    let readers = (0..HOT_READERS).map(|reader| {
        let (base, stop) = (base.clone(), Arc::clone(stop));
        tokio::spawn(async move {
            let mut reads = 0;
            while !stop.load(Ordering::Relaxed) {
                for number in (reader..scale.hot()).step_by(HOT_READERS) {
                    let answer = get(&format!("{base}{}", hot(number))).await;
                    assert_eq!(answer.status, 200);
                    assert_eq!(answer.source(), "cache", "{number} after {reads} reads");
                    reads += 1;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            reads
        })
    });
    let readers: Vec<_> = readers.collect();
    tokio::spawn(async move {
        let mut reads = 0;
        for reader in readers {
            reads += reader.await.expect("hot files stay hits");
        }
        reads
    })
}

/// Waits until a file is served from the cache: an answer comes before its file is committed.
async fn is_kept(larder: &TestLarder, path: &str) {
    let since = Instant::now();
    while get(&larder.artifact("files", path)).await.source() != "cache" {
        assert!(since.elapsed() < PATIENCE, "{path} is not kept");
    }
}

/// Runs `work` and gives the most that was on the disk meanwhile.
async fn most_on_disk(larder: &TestLarder, work: impl Future<Output = ()>) -> u64 {
    tokio::pin!(work);
    let mut most = 0;
    loop {
        most = most.max(on_disk(larder));
        if tokio::time::timeout(Duration::from_millis(10), &mut work)
            .await
            .is_ok()
        {
            return most.max(on_disk(larder));
        }
    }
}

async fn keeps_within_its_budget(scale: Scale) {
    let origin = Origin::start().await;
    for number in 0..scale.files() {
        put(&origin, &cold(number), scale.file, number as u64);
    }
    for number in 0..scale.hot() {
        put(&origin, &hot(number), scale.file, 1_000_000 + number as u64);
    }
    let slow_length = scale.budget / 8;
    put(&origin, "slow.bin", slow_length, 2_000_000);
    let limits = format!("limits: {{ disk: {} }}\n", scale.budget);
    let mut larder = TestLarder::start(&config(&origin, &limits, "")).await;
    let own: Vec<u8> = Payload::generated(8 << 20, 3_000_000)
        .slice(0, 8 << 20)
        .to_vec();
    let uploaded = support::client::client()
        .put(larder.artifact("own", "file.bin"))
        .body(own.clone())
        .send()
        .await
        .expect("an answer");
    assert_eq!(uploaded.status().as_u16(), 201);
    for number in 0..scale.hot() {
        assert_eq!(
            get(&larder.artifact("files", &hot(number))).await.status,
            200
        );
    }
    assert_eq!(get(&larder.artifact("files", "slow.bin")).await.status, 200);
    for path in (0..scale.hot()).map(hot).chain(["slow.bin".to_owned()]) {
        is_kept(&larder, &path).await;
    }
    let slow = SlowReader::begin(&larder, "slow.bin").await;

    let bound = scale.budget + own.len() as u64 + scale.clients as u64 * scale.file;
    let half = scale.files() / 2;
    let stop = Arc::new(AtomicBool::new(false));
    let reader = read_hot(&larder, scale, &stop);
    let most = most_on_disk(&larder, feed(&larder, scale, 0..half)).await;
    stop.store(true, Ordering::Relaxed);
    let reads = reader.await.expect("hot files stay hits");
    println!("at most {most} of {bound} bytes; {reads} hot reads");
    assert!(most <= bound, "{most} bytes on the disk, more than {bound}");
    assert!(most > scale.budget / 2, "{most}: the budget is used");
    assert_eq!(origin.count("GET", "/slow.bin"), 1);
    let body = slow.finish().await;
    let wanted = Payload::generated(slow_length, 2_000_000).slice(0, slow_length);
    assert!(body == wanted, "who reads slowly gets all bytes");

    assert!(larder.terminate().success());
    larder.restart().await;
    let reader = read_hot(&larder, scale, &{
        stop.store(false, Ordering::Relaxed);
        Arc::clone(&stop)
    });
    let most = most_on_disk(&larder, feed(&larder, scale, half..scale.files())).await;
    stop.store(true, Ordering::Relaxed);
    reader.await.expect("hot files stay hits after a restart");
    assert!(
        most <= bound,
        "{most} bytes on the disk after a restart, more than {bound}"
    );
    for number in 0..scale.hot() {
        assert_eq!(
            origin.count("GET", &format!("/{}", hot(number))),
            1,
            "{number} was fetched once"
        );
    }
    assert!(metric(&larder, "larder_evicted_bytes_total").await > 0);
    assert!(metric(&larder, "larder_repository_evicted_files_total").await > 0);
    assert!(metric(&larder, "larder_kept_bytes").await <= scale.budget);
    assert_eq!(
        metric(&larder, "larder_kept_limit_bytes").await,
        scale.budget
    );

    let flushed = send("PUT", &larder.url("cache/flush?remote=files"), &[]).await;
    assert_eq!(flushed.status, 200, "{}", flushed.text());
    until("the space of a flush", Duration::from_secs(10), || {
        on_disk(&larder) == own.len() as u64
    })
    .await;
    let file = get(&larder.artifact("own", "file.bin")).await;
    assert!(
        file.status == 200 && file.body == own,
        "local files are untouched"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_small_budget_is_kept_while_five_times_as_much_comes() {
    keeps_within_its_budget(Scale {
        budget: 64 << 20,
        fed: 320 << 20,
        clients: 8,
        file: 512 << 10,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "ten gibibytes"]
async fn a_budget_is_kept_while_five_times_as_much_comes() {
    keeps_within_its_budget(Scale {
        budget: 2 << 30,
        fed: 10 << 30,
        clients: 32,
        file: 4 << 20,
    })
    .await;
}

/// `max_disk` bounds one repository, and the others keep what they have.
#[tokio::test(flavor = "multi_thread")]
async fn the_bound_of_one_repository_leaves_others_alone() {
    const FILE: u64 = 256 << 10;
    let origin = Origin::start().await;
    for number in 0..64 {
        put(&origin, &cold(number), FILE, number as u64);
        put(&origin, &hot(number), FILE, 1_000 + number as u64);
    }
    let text = config(&origin, "", ", max_disk: 4MiB");
    let text = text.replace(
        "  own:",
        &format!(
            "  other: {{ base_url: '{}', immutable_patterns: ['.'] }}\n  own:",
            origin.url("")
        ),
    );
    let larder = TestLarder::start(&text).await;
    for number in 0..16 {
        let answer = get(&larder.artifact("other", &hot(number))).await;
        assert_eq!(answer.status, 200);
    }
    until("those of another repository", PATIENCE, || {
        on_disk(&larder) == 16 * FILE
    })
    .await;
    for number in 0..64 {
        assert_eq!(
            get(&larder.artifact("files", &cold(number))).await.status,
            200
        );
    }
    let bound = (4 << 20) + 16 * FILE;
    until("the bound", PATIENCE, || on_disk(&larder) <= bound).await;
    for number in 0..16 {
        let answer = get(&larder.artifact("other", &hot(number))).await;
        assert_eq!(answer.source(), "cache", "{number} of another repository");
    }
    is_kept(&larder, &cold(63)).await;
    assert_eq!(
        get(&larder.artifact("files", &cold(0))).await.source(),
        "remote",
        "the oldest has gone"
    );
    assert_eq!(
        metric(&larder, "larder_repository_limit_bytes").await,
        4 << 20
    );
    // One that is larger than the bound is given, and takes nothing's place.
    put(&origin, "large.bin", 5 << 20, 7);
    for _ in 0..2 {
        let large = get(&larder.artifact("files", "large.bin")).await;
        assert_eq!((large.status, large.source()), (200, "remote"));
        assert_eq!(
            large.cache_status(),
            "larder; fwd=uri-miss; fwd-status=200; detail=not-kept",
            "that is known from its length"
        );
        // Until it has been left out another request would join it.
        larder.until_idle().await;
    }
    assert_eq!(
        get(&larder.artifact("files", &cold(63))).await.source(),
        "cache"
    );
}

/// What is larger than its bound is said to be not kept, however it is bounded and whether or not it is sent while it comes.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_room_is_made_for_is_not_said_to_be_stored() {
    let origin = Origin::start().await;
    put(&origin, "long.bin", 2_000_000, 1);
    put(&origin, "short.bin", 200_000, 2);
    put(&origin, "fits.bin", 1_000, 3);
    for (top, own, paths) in [
        ("", ", max_size: 100000", &["long.bin", "short.bin"][..]),
        ("", ", max_disk: 1MiB", &["long.bin"]),
        ("limits: { disk: 1MiB }\n", "", &["long.bin"]),
    ] {
        let larder = TestLarder::start(&config(&origin, top, own)).await;
        for path in paths {
            let answer = get(&larder.artifact("files", path)).await;
            assert_eq!(
                (answer.status, answer.cache_status()),
                (200, "larder; fwd=uri-miss; fwd-status=200; detail=not-kept"),
                "{top}{own} {path}"
            );
        }
        let fits = get(&larder.artifact("files", "fits.bin")).await;
        assert!(fits.cache_status().ends_with("; stored"), "{top}{own}");
    }
}

/// A flush of one path, and of all: the space is back within ten seconds, though the hot set had the file open.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_flushed_gives_its_space_back_at_once() {
    let origin = Origin::start().await;
    put(&origin, "a.bin", 3 << 20, 1);
    put(&origin, "b.bin", 1 << 20, 2);
    let larder = TestLarder::start(&config(&origin, "", "")).await;
    for _ in 0..3 {
        for name in ["a.bin", "b.bin"] {
            assert_eq!(get(&larder.artifact("files", name)).await.status, 200);
        }
    }
    until("both are kept", PATIENCE, || on_disk(&larder) == 4 << 20).await;
    let gone = send("DELETE", &larder.artifact("files", "a.bin"), &[]).await;
    assert_eq!(gone.status, 204, "{}", gone.text());
    until("the space of one", Duration::from_secs(10), || {
        on_disk(&larder) == 1 << 20
    })
    .await;
    assert_eq!(
        get(&larder.artifact("files", "b.bin")).await.source(),
        "cache"
    );
    let flushed = send("PUT", &larder.url("cache/flush?pattern=b"), &[]).await;
    assert_eq!(flushed.status, 200);
    until("the space of all", Duration::from_secs(10), || {
        on_disk(&larder) == 0
    })
    .await;
}
