//! kill -9 under load (hazards L1, L2): whatever the moment, the next start is quick, and what is then served from the cache is what
//! the upstream sent. `LARDER_KILL_CYCLES` sets the number of cycles; `make stress` runs 200.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may fail loudly"
)]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use larder_core::sha256;
use larder_testkit::{Origin, Resource};
use support::client::{client, try_send};
use support::packages::{File, entry, npm, pypi_json};
use support::{Setup, TestLarder, get, send};

/// Spec: every restart answers within one second.
const RESTART: Duration = Duration::from_secs(1);
/// Clients at once.
const CLIENTS: u64 = 6;

#[expect(
    clippy::disallowed_methods,
    reason = "a setting of the test, not of the program"
)]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_l1_l2_kill_nine_under_load_serves_nothing_corrupt() {
    kill_cycles(setting("LARDER_KILL_CYCLES").unwrap_or(20)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; part of make stress"]
async fn hazard_l1_l2_two_hundred_kills() {
    kill_cycles(setting("LARDER_KILL_CYCLES").unwrap_or(200)).await;
}

/// A file of the upstream under the path by which larder has it.
#[derive(Debug, Clone)]
struct Expected {
    repository: &'static str,
    path: String,
    file: File,
}

/// Numbers that look random; the seed is printed, so that a run can be repeated as far as timing allows.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

/// What the cycles have seen.
#[derive(Debug, Default)]
struct Seen {
    hits: usize,
    lost: usize,
    orphans: usize,
    slowest: Duration,
}

async fn kill_cycles(cycles: u64) {
    let seed = setting("LARDER_KILL_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("{cycles} cycles, LARDER_KILL_SEED={seed}");
    let mut random = Random(seed);
    let mut origin = Origin::start().await;
    let keys = "immutable_patterns: ['^c[0-9]']\nmutable_patterns: ['^live$']\ncache: { mutable_ttl: 0 }\nnegative_ttl: 0";
    let config = ["generic", "pypi", "npm"].map(|package| {
        let keys = if package == "generic" {
            keys
        } else {
            "negative_ttl: 0"
        };
        entry(package, package, &origin, keys)
    });
    let mut larder = Setup::new(&format!("remotes:\n{}", config.concat()))
        .embedded()
        .start()
        .await;
    let clean = top_level(&larder.data_dir());
    let mut all: Vec<Expected> = Vec::new();
    let mut seen = Seen::default();
    for cycle in 0..cycles {
        let files = publish(&origin, cycle);
        let flushing = cycle % 5 == 4;
        load_and_kill(&mut larder, &files, &mut random, flushing).await;
        if cycle % 4 == 3 {
            // Killed again while it starts.
            larder.spawn();
            tokio::time::sleep(Duration::from_millis(random.below(40))).await;
            larder.kill9();
        }
        restart(&mut larder, &mut seen).await;
        no_leftovers(&larder, &clean, cycle);
        origin.stop().await;
        // Nothing can come from the upstream now: what is served is what was held.
        for expected in &files {
            check_held(&larder, expected, &mut seen).await;
        }
        check_live(&larder, cycle).await;
        // A process that does not remember that the upstream was gone; a kill without load is a kill too.
        origin.restart();
        larder.kill9();
        restart(&mut larder, &mut seen).await;
        all.extend(files);
        let sample = all[random.below(all.len() as u64) as usize].clone();
        check_whole(&larder, &sample).await;
    }
    eprintln!("{seen:?}");
    assert!(
        seen.hits > 0,
        "nothing was ever held: the kills came too early to test anything"
    );
    assert!(
        seen.lost > 0,
        "everything was always held: the kills came too late to test anything"
    );

    for expected in &all {
        check_whole(&larder, expected).await;
    }
    assert!(larder.terminate().success());
    larder.restart().await;
    origin.stop().await;
    for expected in &all {
        let answer = get(&larder.artifact(expected.repository, &expected.path)).await;
        assert_eq!(
            (answer.status, answer.source()),
            (200, "cache"),
            "{expected:?}: {}",
            answer.text()
        );
        assert!(
            answer.body == expected.file.bytes(),
            "{expected:?}: other bytes"
        );
    }
    assert!(larder.terminate().success());
    check_blobs(&larder.data_dir(), &all);
}

async fn restart(larder: &mut TestLarder, seen: &mut Seen) {
    let took = larder.restart().await;
    assert!(took < RESTART, "the first answer came after {took:?}");
    seen.slowest = seen.slowest.max(took);
}

/// New files at the upstream: without digests, and named by indexes with SHA-256 and SHA-512.
fn publish(origin: &Origin, cycle: u64) -> Vec<Expected> {
    let name = format!("c{cycle}");
    let file = |number: u64, length: u64| {
        File::generated(
            &name,
            &format!("{number}.0.0"),
            length,
            cycle * 100 + number + 1,
        )
    };
    let mut all = Vec::new();
    for (number, length) in [0, 1, 1_000, 4_096, 70_000, 200_000, 1_300_000]
        .into_iter()
        .enumerate()
    {
        let file = file(number as u64, length);
        let path = format!("{name}/{number}.bin");
        origin.put(&format!("/{path}"), Resource::new(file.body.clone()));
        all.push(Expected {
            repository: "generic",
            path,
            file,
        });
    }
    let wheels: Vec<File> = [2_000, 60_000, 300_000]
        .into_iter()
        .enumerate()
        .map(|(n, length)| file(10 + n as u64, length))
        .collect();
    let tarballs: Vec<File> = [2_000, 60_000, 1_100_000]
        .into_iter()
        .enumerate()
        .map(|(n, length)| file(20 + n as u64, length))
        .collect();
    for (repository, paths, files) in [
        ("pypi", pypi_json(origin, &name, &wheels), wheels),
        ("npm", npm(origin, &name, &tarballs), tarballs),
    ] {
        all.extend(paths.into_iter().zip(files).map(|(path, file)| Expected {
            repository,
            path,
            file,
        }));
    }
    let live = format!("version {cycle} {}", "x".repeat(5_000));
    origin.put("/live", Resource::new(live).etag(&format!("\"v{cycle}\"")));
    all
}

/// Clients ask for everything in any order, over and over, until the process is killed. What ends well must be right.
async fn load_and_kill(
    larder: &mut TestLarder,
    files: &[Expected],
    random: &mut Random,
    flushing: bool,
) {
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let indexes = [
        larder.artifact("pypi", &index("simple", files)),
        larder.artifact("npm", &index("", files)),
    ];
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let mut order: Vec<(String, Option<File>)> = files
            .iter()
            .map(|f| (larder.artifact(f.repository, &f.path), Some(f.file.clone())))
            .collect();
        order.extend(indexes.iter().map(|url| (url.clone(), None)));
        order.push((larder.artifact("generic", "live"), None));
        random.shuffle(&mut order);
        let flush = (flushing && number == 0).then(|| larder.url("/cache/flush"));
        let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
        clients.push(tokio::spawn(async move {
            let client = client();
            while !stop.load(Ordering::Relaxed) {
                for (url, file) in &order {
                    let Ok(answer) = try_send(&client, "GET", url, &[]).await else {
                        continue;
                    };
                    answered.fetch_add(1, Ordering::Relaxed);
                    assert_eq!(answer.status, 200, "{url}: {}", answer.text());
                    assert!(
                        file.as_ref().is_none_or(|file| answer.body == file.bytes()),
                        "{url}: other bytes"
                    );
                }
                if let Some(flush) = &flush {
                    // Killed in the middle of it, perhaps.
                    let _ = try_send(&client, "PUT", flush, &[]).await;
                }
            }
        }));
    }
    tokio::time::sleep(Duration::from_millis(random.below(250))).await;
    larder.kill9();
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("a client that saw something wrong");
    }
}

fn index(root: &str, files: &[Expected]) -> String {
    let name = files[0].path.split('/').next().unwrap_or_default();
    if root.is_empty() {
        name.to_owned()
    } else {
        format!("{root}/{name}/")
    }
}

/// With the upstream gone: right bytes out of the cache, or an honest 502.
async fn check_held(larder: &TestLarder, expected: &Expected, seen: &mut Seen) {
    let answer = get(&larder.artifact(expected.repository, &expected.path)).await;
    match answer.status {
        200 => {
            assert_eq!(answer.source(), "cache", "{expected:?}");
            assert!(
                answer.body == expected.file.bytes(),
                "{expected:?}: other bytes ({} of them)",
                answer.body.len()
            );
            seen.hits += 1;
        }
        502 => {
            seen.lost += 1;
            let hex = sha256(&expected.file.bytes()).to_hex();
            seen.orphans += usize::from(blob_path(&larder.data_dir(), &hex).exists());
        }
        other => panic!("{expected:?}: {other}: {}", answer.text()),
    }
}

/// A record is bytes and validators together: the tag that is served belongs to the version that is served.
async fn check_live(larder: &TestLarder, cycle: u64) {
    let answer = get(&larder.artifact("generic", "live")).await;
    if answer.status == 200 {
        let text = answer.text();
        let version: u64 = text
            .split(' ')
            .nth(1)
            .and_then(|n| n.parse().ok())
            .expect("a version");
        assert!(version <= cycle && text.len() > 5_000, "{text}");
        assert_eq!(
            answer.header("etag"),
            format!("\"v{version}\""),
            "{}",
            &text[..20]
        );
    } else {
        assert_eq!(answer.status, 502, "{}", answer.text());
    }
}

/// With the upstream there: always right.
async fn check_whole(larder: &TestLarder, expected: &Expected) {
    let answer = get(&larder.artifact(expected.repository, &expected.path)).await;
    assert_eq!(answer.status, 200, "{expected:?}: {}", answer.text());
    assert!(
        answer.body == expected.file.bytes(),
        "{expected:?}: other bytes"
    );
}

/// The names directly below the data directory, without the journals that SQLite keeps beside its file.
fn top_level(data: &Path) -> BTreeSet<String> {
    names(data)
        .into_iter()
        .filter(|name| !name.ends_with("-wal") && !name.ends_with("-shm"))
        .collect()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

/// Nothing of the killed process's unfinished work is left in the data directory.
fn no_leftovers(larder: &TestLarder, clean: &BTreeSet<String>, cycle: u64) {
    let data = larder.data_dir();
    assert_eq!(top_level(&data), *clean, "cycle {cycle}");
    assert_eq!(
        names(&data.join("blobs/spool")),
        Vec::<String>::new(),
        "cycle {cycle}: unfinished downloads"
    );
}

fn blob_path(data: &Path, hex: &str) -> PathBuf {
    data.join("blobs/sha256")
        .join(&hex[..2])
        .join(&hex[2..4])
        .join(hex)
}

/// Every blob is what its name says, and there are hardly more of them than the records need.
fn check_blobs(data: &Path, all: &[Expected]) {
    let files: BTreeSet<String> = all
        .iter()
        .map(|expected| sha256(&expected.file.bytes()).to_hex())
        .collect();
    let root = data.join("blobs/sha256");
    let (mut known, mut others) = (0, 0);
    for upper in names(&root) {
        for lower in names(&root.join(&upper)) {
            let directory = root.join(&upper).join(&lower);
            for name in names(&directory) {
                let bytes = std::fs::read(directory.join(&name)).expect("a blob");
                assert_eq!(sha256(&bytes).to_hex(), name, "a blob under another's name");
                *(if files.contains(&name) {
                    &mut known
                } else {
                    &mut others
                }) += 1;
            }
        }
    }
    assert_eq!(known, files.len(), "every file is held once");
    // Per cycle: two indexes, `live`, and what was derived from the indexes (link and coding forms).
    let cycles = all.len() / 13;
    eprintln!("{known} blobs of files, {others} of documents and derivations in {cycles} cycles");
    assert!(
        others <= cycles * 12,
        "{others} further blobs after {cycles} cycles"
    );
}

/// What larder counts as kept is held: its bytes and its record were written before it was counted.
#[tokio::test(flavor = "multi_thread")]
async fn hazard_l2_what_was_kept_is_held_after_a_kill() {
    let mut origin = Origin::start().await;
    let mut larder = TestLarder::start(&format!(
        "remotes:\n{}",
        entry("generic", "generic", &origin, "negative_ttl: 0")
    ))
    .await;
    for cycle in 0..5 {
        let files: Vec<Expected> = publish(&origin, cycle)
            .into_iter()
            .filter(|file| file.repository == "generic")
            .collect();
        for expected in &files {
            assert_eq!(
                get(&larder.artifact("generic", &expected.path))
                    .await
                    .status,
                200
            );
        }
        larder
            .until_metric(
                "larder_repository_fills_committed_total",
                "generic",
                files.len() as f64,
            )
            .await;
        larder.kill9();
        larder.restart().await;
        origin.stop().await;
        for expected in &files {
            let answer = get(&larder.artifact("generic", &expected.path)).await;
            assert_eq!(
                (answer.status, answer.source()),
                (200, "cache"),
                "{}: {}",
                expected.path,
                answer.text()
            );
            assert!(
                answer.body == expected.file.bytes(),
                "{}: other bytes",
                expected.path
            );
        }
        origin.restart();
    }
}

/// A flush that was answered holds, too.
#[tokio::test(flavor = "multi_thread")]
async fn hazard_l2_what_was_flushed_does_not_come_back_after_a_kill() {
    let origin = Origin::start().await;
    origin.put("/a", Resource::new("old"));
    let mut larder = TestLarder::start(&format!(
        "remotes:\n{}",
        entry("generic", "generic", &origin, "negative_ttl: 0")
    ))
    .await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        assert_eq!(get(&larder.artifact("generic", "a")).await.status, 200);
        larder
            .until_metric("larder_repository_fills_committed_total", "generic", 1.0)
            .await;
        assert_eq!(
            send("PUT", &larder.url("/cache/flush"), &[]).await.json()["flushed"]["files"],
            1
        );
        larder.kill9();
        larder.restart().await;
        origin.reset_log();
        assert_eq!(
            get(&larder.artifact("generic", "a")).await.source(),
            "remote"
        );
        assert_eq!(
            origin.count("GET", "/a"),
            1,
            "the flushed copy must not be served"
        );
        assert_eq!(
            send("PUT", &larder.url("/cache/flush"), &[]).await.status,
            200
        );
    }
}
