//! An archive that is not to the byte what was exported: it is refused, and nothing of it is there afterwards.

use std::path::{Path, PathBuf};

use larder_testkit::{Origin, Resource};

use super::{files_below, listed, put, run, text};
use crate::support::packages::entry;
use crate::support::{Setup, TestLarder, get};

/// The entries of a tar: name, where its head is, and how many bytes follow that.
fn entries(bytes: &[u8]) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while bytes[at] != 0 {
        let text = |from: usize, to: usize| {
            let text = String::from_utf8_lossy(&bytes[at + from..at + to]).into_owned();
            text.trim_matches(['\0', ' ']).to_owned()
        };
        let size = usize::from_str_radix(&text(124, 136), 8).expect("an octal number");
        found.push((text(0, 100), at, size));
        at += 512 + size.div_ceil(512) * 512;
    }
    found
}

async fn archive(path: &Path) -> (String, Vec<u8>) {
    let origin = Origin::start().await;
    origin.put("/one", Resource::new("one").etag("\"one\""));
    let keys = "allow_private: [127.0.0.0/8]";
    let config = format!(
        "remotes:\n{}  own: {{ type: local }}\n",
        entry("files", "generic", &origin, keys)
    );
    let source = TestLarder::start(&config).await;
    assert_eq!(get(&source.artifact("files", "one")).await.status, 200);
    put(&source, "own", "two", "two").await;
    put(&source, "own", "long", vec![7; 5_000]).await;
    source.until_idle().await;
    run(&source, &["export", text(path)]).await.ended(0);
    (config, std::fs::read(path).expect("the archive"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_anywhere_is_refused_and_nothing_comes_in() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("a.tar");
    let (config, bytes) = archive(&path).await;
    let found = entries(&bytes);
    let names: Vec<&str> = found.iter().map(|(name, ..)| &**name).collect();
    assert_eq!(
        (names[0], names.last().copied()),
        ("larder-export.json", Some("larder-end.json"))
    );
    assert!(
        names.iter().any(|name| name.starts_with("records/own/")),
        "{names:?}"
    );
    assert!(
        names.iter().any(|name| name.starts_with("blobs/sha256/")),
        "{names:?}"
    );
    let target = Setup::new(&config).start().await;
    let mut places = vec![bytes.len() - 1, bytes.len() - 1_024];
    for (_, at, size) in &found {
        // Name, size, time, and the first, a middle, and the last byte, and what fills the block.
        places.extend([
            *at,
            at + 130,
            at + 140,
            at + 512,
            at + 512 + size / 2,
            at + 511 + size,
        ]);
        if size % 512 > 0 {
            places.push(at + 512 + size);
        }
    }
    let flipped = home.path().join("flipped.tar");
    for place in places {
        for bit in [1, 0x20] {
            let mut other = bytes.clone();
            other[place] ^= bit;
            std::fs::write(&flipped, other).expect("written");
            let refused = run(&target, &["import", text(&flipped)]).await;
            assert_eq!(refused.code, Some(1), "{place}: {refused:?}");
            assert!(
                refused.err.contains("nothing was imported"),
                "{place}: {refused:?}"
            );
        }
    }
    for length in (0..bytes.len())
        .step_by(1_500)
        .chain([bytes.len() - 1, bytes.len() - 512])
    {
        std::fs::write(&flipped, &bytes[..length]).expect("written");
        run(&target, &["import", text(&flipped)]).await.ended(1);
    }
    std::fs::write(&flipped, [&bytes[..], b"x"].concat()).expect("written");
    run(&target, &["import", text(&flipped)]).await.ended(1);
    assert_eq!(listed(&target).await, []);
    assert_eq!(files_below(&target.blob_dir().join("sha256")), 0);
    // And as it was, it comes in.
    run(&target, &["import", text(&path)]).await.ended(0);
    assert_eq!(listed(&target).await.len(), 3);
}

/// The archive of somebody else is one, too: only its sum tells.
#[tokio::test(flavor = "multi_thread")]
async fn another_archive_is_told_by_its_sum() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("a.tar");
    let (config, _) = archive(&path).await;
    let target = TestLarder::start(&config).await;
    let other = "0".repeat(64);
    let refused = run(&target, &["import", text(&path), "--sha256", &other])
        .await
        .ended(1);
    assert!(refused.err.contains("another archive"), "{refused:?}");
    let checked = run(&target, &["import", text(&path), "--check"])
        .await
        .ended(0);
    assert!(checked.out.contains("verified"), "{checked:?}");
    assert_eq!(listed(&target).await, []);
}

/// Where a blob with so many bytes is.
fn blob_of(larder: &TestLarder, size: u64) -> Option<PathBuf> {
    let mut folders = vec![larder.blob_dir()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).expect("a directory");
        for path in entries.map(|entry| entry.expect("an entry").path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.metadata().expect("its length").len() == size {
                return Some(path);
            }
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_export_leaves_out_is_named() {
    let origin = Origin::start().await;
    for (path, size) in [("whole", 1_000), ("flipped", 2_000), ("gone", 3_000)] {
        origin.put(&format!("/{path}"), Resource::new(vec![b'x'; size]));
    }
    let config = entry("files", "generic", &origin, "allow_private: [127.0.0.0/8]");
    let setup = Setup::new(&format!("remotes:\n{config}"));
    let mut source = setup.embedded().start().await;
    for path in ["whole", "flipped", "gone"] {
        source.hit(&source.artifact("files", path)).await;
    }
    source.until_idle().await;
    source.kill9();
    let flipped = blob_of(&source, 2_000).expect("a blob");
    let gone = blob_of(&source, 3_000).expect("a blob");
    std::fs::remove_file(&flipped).expect("it goes");
    std::fs::write(&flipped, vec![b'y'; 2_000]).expect("another one");
    std::fs::remove_file(gone).expect("it goes");
    source.restart().await;
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("a.tar");
    let done = run(&source, &["export", text(&path), "--json"]).await;
    let done = done.ended(1);
    let told = done.json();
    let left = |path: &str, byte: u8, size: usize, why: &str| {
        let digest = larder_core::sha256(&vec![byte; size]).to_string();
        let line = format!("left out: files/{path}: {digest} is {why}");
        assert!(done.err.contains(&line), "{line}: {}", done.err);
        digest
    };
    let flipped = left("flipped", b'x', 2_000, "damaged");
    let gone = left("gone", b'x', 3_000, "gone");
    let named = |path: &str, digest: &str, why: &str| serde_json::json!({"repository": "files", "path": path, "digest": digest, "why": why});
    let expected = [
        named("flipped", &flipped, "damaged"),
        named("gone", &gone, "gone"),
    ];
    assert_eq!(told["left_out"], serde_json::json!(expected), "{told}");
    assert_eq!(
        (&told["left_out_blobs"], &told["damaged_blobs"]),
        (&2.into(), &1.into()),
        "{told}"
    );
}
