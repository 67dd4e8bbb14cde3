//! What ends in the middle is gone on with: the export, the import, and the larder that takes it.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use larder_core::sha256;
use larder_testkit::Payload;

use super::{command, files_below, listed, put, run, text};
use crate::support::{TestLarder, get};

const CONFIG: &str = "remotes:\n  own: { type: local }\n";
const FILES: u64 = 24;
const LENGTH: u64 = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

fn body(n: u64) -> Vec<u8> {
    Payload::generated(LENGTH, n).slice(0, LENGTH).to_vec()
}

async fn filled() -> TestLarder {
    let source = TestLarder::start(CONFIG).await;
    for n in 0..FILES {
        put(&source, "own", &format!("{n}.bin"), body(n)).await;
    }
    source
}

fn begin(larder: &TestLarder, arguments: &[&str]) -> Child {
    let mut command = command(larder, arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the larder program")
}

/// Kills it once this is so, or lets it come to its end if that is first.
async fn kill_when(mut child: Child, is_so: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() && child.try_wait().expect("its state").is_none() {
        assert!(Instant::now() < until, "it does not get on");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    child.kill().expect("SIGKILL");
    child.wait().expect("its end");
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

async fn check(larder: &TestLarder) {
    assert_eq!(listed(larder).await.len() as u64, FILES);
    for n in 0..FILES {
        let answer = get(&larder.artifact("own", &format!("{n}.bin"))).await;
        assert_eq!(answer.status, 200, "{n}");
        assert!(sha256(&answer.body) == sha256(&body(n)), "{n}: other bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_was_killed_is_gone_on_with() {
    let source = filled().await;
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("a.tar");
    let partial = PathBuf::from(format!("{}.partial", path.display()));
    for part in [1, 3, 6] {
        let child = begin(&source, &["export", text(&path)]);
        // A little more than so many files.
        kill_when(child, || length(&partial) > part * LENGTH + 100_000).await;
        if path.exists() {
            break;
        }
    }
    if !path.exists() {
        // Another selection is not taken for this one.
        let other =
            TestLarder::start("remotes:\n  own: { type: local }\n  more: { type: local }\n").await;
        let refused = run(&other, &["export", text(&path)]).await.ended(1);
        assert!(refused.err.contains("other repositories"), "{refused:?}");
        let done = run(&source, &["export", text(&path), "--json"])
            .await
            .ended(0)
            .json();
        assert!(done["resumed_blobs"].as_u64() >= Some(1), "{done}");
    }
    assert!(!partial.exists());
    let target = TestLarder::start(CONFIG).await;
    run(&target, &["import", text(&path)]).await.ended(0);
    check(&target).await;
    let again = run(&source, &["export", text(&path)]).await.ended(1);
    assert!(again.err.contains("there already"), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_was_killed_is_gone_on_with() {
    let source = filled().await;
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("a.tar");
    run(&source, &["export", text(&path)]).await.ended(0);
    drop(source);
    let mut target = TestLarder::start(CONFIG).await;
    let blobs = target.blob_dir();
    let child = begin(&target, &["import", text(&path)]);
    kill_when(child, || files_below(&blobs.join("sha256")) >= 3).await;
    // And the larder that takes it.
    let mut child = begin(&target, &["import", text(&path)]);
    let until = Instant::now() + PATIENCE;
    while files_below(&blobs.join("sha256")) < 8 && child.try_wait().expect("its state").is_none() {
        assert!(Instant::now() < until, "it does not get on");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    target.kill9();
    child.wait().expect("its end");
    target.restart().await;
    let done = run(&target, &["import", text(&path), "--json"])
        .await
        .ended(0)
        .json();
    assert!(done["blobs_there"].as_u64() >= Some(3), "{done}");
    check(&target).await;
}
