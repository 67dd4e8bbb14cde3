//! A process killed at any moment leaves nothing wrong behind (hazards L1, L2).
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_core::{Clock as _, SystemClock};
use larder_storage::{BlobStore, FsBlobStore, MetadataStore};

use support::{all, fast_directory, is_intact, key, put, random};

const KILLS: u32 = 30;
/// Where the child works; also what makes it the child.
const DIRECTORY: &str = "LARDER_TEST_CRASH_DIRECTORY";
/// Whether the child collects, too, what it has written.
const COLLECTS: &str = "LARDER_TEST_CRASH_COLLECTS";
/// How far ahead the child's collector thinks that it is: beyond every grace.
const AHEAD: Duration = Duration::from_hours(25);

#[tokio::test]
async fn hazard_l2_kill_at_any_moment_leaves_no_record_without_its_bytes() {
    let directory = fast_directory();
    let mut acknowledged: Vec<String> = Vec::new();
    for _ in 0..KILLS {
        acknowledged.extend(run_and_kill(directory.path(), false));
        let start = Instant::now();
        let meta = MetadataStore::open(&directory.path().join("larder.db"))
            .await
            .unwrap();
        let blobs = FsBlobStore::open(directory.path()).unwrap();
        let took = start.elapsed();
        assert!(
            took < Duration::from_secs(1),
            "a restart takes no second: {took:?}"
        );
        let records = all(&meta, "r").await;
        for (path, _, record) in &records {
            assert!(is_intact(&blobs, record.blob().unwrap()).await, "{path}");
        }
        for path in &acknowledged {
            assert!(
                records.iter().any(|(found, _, _)| found == path),
                "{path} was acknowledged"
            );
        }
        let leftovers = std::fs::read_dir(directory.path().join("blobs/spool"))
            .unwrap()
            .count();
        assert_eq!(leftovers, 0, "unfinished spools leave nothing");
        meta.close().await;
    }
    println!(
        "{} records acknowledged over {KILLS} kills, all whole",
        acknowledged.len()
    );
    assert!(
        acknowledged.len() > KILLS as usize,
        "the child was at work when it was killed"
    );
}

/// Killed between any two steps of the collector: no record is without its bytes, and what was begun is brought to its end.
#[tokio::test]
async fn hazard_l3_kill_during_collection_leaves_no_record_without_its_bytes() {
    let directory = fast_directory();
    let (mut acknowledged, mut left_behind) = (0, 0);
    for round in 0..KILLS {
        acknowledged += run_and_kill(directory.path(), true).len();
        let meta = MetadataStore::open(&directory.path().join("larder.db"))
            .await
            .unwrap();
        let blobs: Arc<dyn BlobStore> = Arc::new(FsBlobStore::open(directory.path()).unwrap());
        for (path, _, record) in &all(&meta, "r").await {
            assert!(is_intact(&*blobs, record.blob().unwrap()).await, "{path}");
        }
        let files = blobs.list(None, 10_000).await.unwrap().len() as u64;
        left_behind += u64::from(files > meta.counts().await.unwrap().blobs);
        if round % 5 == 4 {
            // Late enough to take over what the killed ones had condemned.
            let later = SystemClock.now().plus(AHEAD + Duration::from_hours(1));
            meta.collect(later, Duration::ZERO, &blobs).await.unwrap();
            let records = all(&meta, "r").await;
            for (path, _, record) in &records {
                assert!(is_intact(&*blobs, record.blob().unwrap()).await, "{path}");
            }
            let mut held: Vec<_> = records
                .iter()
                .map(|(_, _, record)| record.blob().unwrap().digest.clone())
                .collect();
            held.sort();
            held.dedup();
            let files = blobs.list(None, 10_000).await.unwrap();
            let files: Vec<_> = files.into_iter().map(|b| b.descriptor.digest).collect();
            assert_eq!(files, held, "nothing is left that nobody has");
        }
        meta.close().await;
    }
    println!("{acknowledged} acknowledged, files left behind after {left_behind} of {KILLS} kills");
    assert!(acknowledged > KILLS as usize && left_behind > 0);
}

/// Starts this test program again as a writer, kills it some time later, and gives the paths whose storing it had acknowledged.
fn run_and_kill(directory: &Path, collects: bool) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "child_that_writes_until_it_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(DIRECTORY, directory)
        .env(COLLECTS, if collects { "yes" } else { "no" })
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines
        .by_ref()
        .map(Result::unwrap)
        .any(|line| line.ends_with("ready"));
    assert!(ready, "the child ended before it began");
    std::thread::sleep(Duration::from_micros(random() % 100_000));
    child.kill().unwrap();
    child.wait().unwrap();
    // The last line may be cut off.
    lines
        .map_while(Result::ok)
        .filter_map(|line| Some(line.strip_prefix("stored ")?.strip_suffix(';')?.to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs only as the child of the test above"]
async fn child_that_writes_until_it_is_killed() {
    let directory = std::env::var_os(DIRECTORY).expect("started by its parent");
    let directory = Path::new(&directory);
    let meta = MetadataStore::open(&directory.join("larder.db"))
        .await
        .unwrap();
    let blobs: Arc<dyn BlobStore> = Arc::new(FsBlobStore::open(directory).unwrap());
    println!("ready");
    for writer in 0..3 {
        tokio::spawn(write_for_ever(writer, meta.clone(), Arc::clone(&blobs)));
    }
    if std::env::var_os(COLLECTS).is_some_and(|set| set == "yes") {
        loop {
            let now = SystemClock.now().plus(AHEAD);
            meta.collect(now, Duration::ZERO, &blobs).await.unwrap();
        }
    }
    std::future::pending::<()>().await;
}

async fn write_for_ever(writer: u32, meta: MetadataStore, blobs: Arc<dyn BlobStore>) {
    loop {
        let seed = random();
        let bytes: Vec<u8> = (0..seed % 200_000)
            .map(|n| (n.wrapping_mul(seed) >> 7) as u8)
            .collect();
        let info = blobs.put_bytes(&bytes).await.unwrap();
        let path = format!("{writer}/{}", seed % 50);
        meta.apply(vec![put(&key("r", &path), info)]).await.unwrap();
        let line = format!("stored {path};\n");
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    }
}
