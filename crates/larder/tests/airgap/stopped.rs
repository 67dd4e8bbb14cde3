//! Archives made from a data directory that no larder runs on, and read into one; and what an import leaves that is killed at any moment.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use larder_core::{Digest, sha256};
use larder_testkit::{Origin, Payload, Resource};

use super::{Done, listed, put, text};
use crate::support::packages::entry;
use crate::support::{Setup, TestLarder, get};

/// A command in a data directory, with a configuration.
fn within(data: &Path, config: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command
        .args(arguments)
        .args(["--data-dir", text(data), "--config", text(config)])
        .env_clear()
        .stdin(Stdio::null());
    command
}

async fn run(data: &Path, config: &Path, arguments: &[&str]) -> Done {
    let mut command = within(data, config, arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    Done::of(&output.expect("a task").expect("the larder program"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_goes_from_one_data_directory_to_another() {
    let origin = Origin::start().await;
    origin.put("/one.bin", Resource::new(vec![1; 100_000]));
    let config = format!(
        "remotes:\n{}  own: {{ type: local }}\n",
        entry("a", "generic", &origin, "")
    );
    let mut source = Setup::new(&config).embedded().start().await;
    put(&source, "own", "two.bin", vec![2; 50_000]).await;
    assert_eq!(get(&source.artifact("a", "one.bin")).await.status, 200);
    assert!(source.terminate().success());
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("a.tar");
    let config = source.config_path();
    let made = ["export", text(&path), "--json"];
    let made = run(&source.data_dir(), &config, &made)
        .await
        .ended(0)
        .json();
    assert_eq!((&made["rows"], &made["blobs"]), (&2.into(), &2.into()));
    // Into a directory in which there has never been a larder.
    let data = home.path().join("new");
    run(&data, &config, &["import", text(&path)]).await.ended(0);
    origin.reset_log();
    for (place, bytes) in [
        ("a/one.bin", vec![1; 100_000]),
        ("own/two.bin", vec![2; 50_000]),
    ] {
        let got = home.path().join("got");
        run(&data, &config, &["get", place, "-o", text(&got)])
            .await
            .ended(0);
        assert!(std::fs::read(&got).expect("the file") == bytes, "{place}");
    }
    assert_eq!(origin.requests().len(), 0);
}

const FILES: u64 = 240;

/// Of all kinds of lengths, each with its own bytes.
fn body(n: u64) -> Vec<u8> {
    let length = 1_000 + (n * 7_919) % 300_000;
    Payload::generated(length, n).slice(0, length).to_vec()
}

/// What larder shows of a repository is whole, and right; gives how much it is.
async fn check(larder: &TestLarder, digests: &BTreeMap<String, Digest>) -> usize {
    let all = listed(larder).await;
    for (repository, path) in &all {
        let answer = get(&larder.artifact(repository, path)).await;
        assert_eq!((answer.status, answer.source()), (200, "cache"), "{path}");
        let name = format!("{repository}/{path}");
        assert!(
            sha256(&answer.body) == digests[&name],
            "{name}: other bytes"
        );
    }
    all.len()
}

/// An import in a data directory is the larder itself: what kills the one kills the other.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_killed_leaves_whole_files_and_is_completed() {
    let origin = Origin::start().await;
    let config = format!(
        "remotes:\n{}  own: {{ type: local }}\n",
        entry("a", "generic", &origin, "")
    );
    let mut source = Setup::new(&config).embedded().start().await;
    let mut digests = BTreeMap::new();
    for n in 0..FILES {
        let (path, bytes) = (format!("{n:03}.bin"), body(n));
        let repository = if n % 2 == 0 { "a" } else { "own" };
        digests.insert(format!("{repository}/{path}"), sha256(&bytes));
        if repository == "a" {
            origin.put(&format!("/{path}"), Resource::new(bytes));
            assert_eq!(get(&source.artifact("a", &path)).await.status, 200);
        } else {
            put(&source, "own", &path, bytes).await;
        }
    }
    assert!(source.terminate().success());
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("a.tar");
    let from = source.config_path();
    run(&source.data_dir(), &from, &["export", text(&path)])
        .await
        .ended(0);

    let begun = Instant::now();
    let whole = home.path().join("whole");
    run(&whole, &from, &["import", text(&path)]).await.ended(0);
    let lasts = begun.elapsed();
    let mut target = Setup::new(&config).embedded().start().await;
    assert!(target.terminate().success());
    let mut parts = Vec::new();
    // Moments of which the next is not like the last.
    for n in 1..=8_u32 {
        let moment = lasts * (n * 7 % 13) / 12;
        let mut child = within(
            &target.data_dir(),
            &target.config_path(),
            &["import", text(&path)],
        )
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the larder program");
        tokio::time::sleep(moment.max(Duration::from_millis(20))).await;
        child.kill().expect("SIGKILL");
        child.wait().expect("its end");
        target.restart().await;
        parts.push(check(&target, &digests).await);
        assert!(target.terminate().success());
        if parts.last() == Some(&digests.len()) && n >= 4 {
            // It was too quick: from the beginning.
            for name in ["larder.sqlite", "larder.sqlite-wal", "larder.sqlite-shm"] {
                let _ = std::fs::remove_file(target.data_dir().join(name));
            }
        }
    }
    eprintln!(
        "what was there after each kill: {parts:?} of {}",
        digests.len()
    );
    run(&target.data_dir(), &from, &["import", text(&path)])
        .await
        .ended(0);
    target.restart().await;
    assert_eq!(check(&target, &digests).await, digests.len());
}
