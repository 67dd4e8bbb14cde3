//! A disk without room. Making one needs root; elsewhere the test says that it was left out.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use larder_testkit::{Origin, Payload, Resource};

use crate::evidence::Cell::{Cannot, Says};
use crate::evidence::{Row, ask};
use crate::support::packages::entry;
use crate::support::{PATIENCE, Setup, TestLarder, get};

/// A tmpfs of its own, unmounted on drop.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"])
            .arg(directory.path())
            .output();
        let output = mount.map_err(|error| format!("mount cannot be run: {error}"))?;
        if output.status.success() {
            Ok(Self(directory))
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: connections of the database may still be closing.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Takes up all space there is but `leave` bytes.
fn fill(path: &Path, leave: u64) {
    let mut file = File::create(path).expect("a file");
    while file.write_all(&vec![9; 1 << 16]).is_ok() {}
    let length = file.metadata().expect("its length").len();
    file.set_len(length.saturating_sub(leave))
        .expect("another length");
}

#[tokio::test]
async fn the_disk_is_full() {
    let row = Row {
        failure: "full disk",
        body: Cannot("the file is served all the same: it is only not kept"),
        reason: Cannot("the file is served all the same: it is only not kept"),
        log: Says(&["\"level\":\"WARN\"", "cannot be kept on disk"]),
        health: Says(&["disk: ", "\"keeping\":false", "\"free_bytes\":"]),
        metrics: Says(&[
            "larder_repository_fills_not_kept_total{",
            "repository=\"up\"",
            "} 1",
        ]),
    };
    let disk = match SmallDisk::mount() {
        Ok(disk) => disk,
        Err(why) => return eprintln!("SKIPPED: no tmpfs can be mounted here ({why}); needs root"),
    };
    let origin = Origin::start().await;
    origin.put(
        "/pkg/tool-1.0.zip",
        Resource::new(Payload::generated(300_000, 3)),
    );
    let data = disk.0.path().join("data");
    let config = format!("remotes:\n{}", entry("up", "generic", &origin, ""));
    // The row of a job is in the data directory only where the database is.
    let larder = Setup::new(&config)
        .embedded()
        .env("LARDER_DATA_DIR", &data.to_string_lossy())
        .start()
        .await;
    fill(&disk.0.path().join("filler"), 100_000);
    let wire = ask(&larder, "/api/v1/remote/up/pkg/tool-1.0.zip").await;
    assert_eq!(wire.status, 200, "{}", wire.reason);
    larder
        .until_metric("larder_repository_fills_not_kept_total", "up", 1.0)
        .await;
    // The verdict on the disk is at most five seconds old.
    let until = std::time::Instant::now() + PATIENCE;
    while !crate::support::get(&larder.url("/health"))
        .await
        .text()
        .contains("\"keeping\":false")
    {
        assert!(
            std::time::Instant::now() < until,
            "/health does not know that the disk is full"
        );
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    row.is_told(&larder, &wire).await;
    // A job is a row, and there is no room for it: no waiting makes any.
    fill(&disk.0.path().join("rest"), 0);
    let answer = crate::support::client::client()
        .post(larder.url("/api/v1/artifacts/up/cache"))
        .body("{\"paths\": [\"pkg/tool-1.0.zip\"]}")
        .send()
        .await
        .expect("an answer");
    let (status, told) = (answer.status(), answer.text().await.expect("a body"));
    assert!(
        status == 507 && told.contains("storage_full"),
        "{status}: {told}"
    );
}

/// As after `chown` or `chmod` of the data directory, or a disk that has been mounted read-only.
#[tokio::test]
async fn the_data_directory_cannot_be_written() {
    let row = Row {
        failure: "a data directory that cannot be written",
        body: Cannot("the file is served all the same: it is only not kept"),
        reason: Cannot("the file is served all the same: it is only not kept"),
        log: Says(&[
            "\"level\":\"WARN\"",
            "cannot be kept on disk",
            "cannot make a spool",
        ]),
        health: Says(&[
            "backends: ",
            "the last download was served but not kept: cannot make a spool",
        ]),
        metrics: Says(&[
            "larder_repository_fills_not_kept_total{",
            "repository=\"up\"",
            "} 1",
        ]),
    };
    let origin = Origin::start().await;
    for name in ["a", "b"] {
        origin.put(&format!("/{name}"), Resource::new("bytes"));
    }
    let larder = TestLarder::start(&format!(
        "remotes:\n{}",
        entry("up", "generic", &origin, "")
    ))
    .await;
    let (blobs, aside) = (larder.blob_dir(), larder.data_dir().join("aside"));
    std::fs::rename(&blobs, &aside).expect("another name");
    std::fs::write(&blobs, "").expect("a file in its place");
    let wire = ask(&larder, "/api/v1/remote/up/a").await;
    assert_eq!((wire.status, wire.body.as_str()), (200, "bytes"));
    larder
        .until_metric("larder_repository_fills_not_kept_total", "up", 1.0)
        .await;
    row.is_told(&larder, &wire).await;
    let keeping = async || get(&larder.url("health")).await.json()["disk"]["keeping"].as_bool();
    assert_eq!(keeping().await, Some(false));
    std::fs::remove_file(&blobs).expect("the file goes");
    std::fs::rename(&aside, &blobs).expect("back again");
    assert_eq!(ask(&larder, "/api/v1/remote/up/b").await.status, 200);
    let until = Instant::now() + PATIENCE;
    while keeping().await != Some(true) {
        assert!(
            Instant::now() < until,
            "{}",
            get(&larder.url("health")).await.text()
        );
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
