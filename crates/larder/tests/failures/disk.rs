//! A disk without room. Making one needs root; elsewhere the test says that it was left out.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use larder_testkit::{Origin, Payload, Resource};

use crate::evidence::Cell::{Cannot, Says};
use crate::evidence::{Row, ask};
use crate::support::packages::entry;
use crate::support::{PATIENCE, Setup};

/// A tmpfs of its own, unmounted on drop.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"]).arg(directory.path()).output();
        let output = mount.map_err(|error| format!("mount cannot be run: {error}"))?;
        if output.status.success() { Ok(Self(directory)) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
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
    file.set_len(length.saturating_sub(leave)).expect("another length");
}

#[tokio::test]
async fn the_disk_is_full() {
    let row = Row {
        failure: "full disk",
        body: Cannot("the file is served all the same: it is only not kept"),
        reason: Cannot("the file is served all the same: it is only not kept"),
        log: Says(&["\"level\":\"WARN\"", "cannot be kept on disk"]),
        health: Says(&["disk: ", "\"keeping\":false", "\"free_bytes\":"]),
        metrics: Says(&["larder_repository_fills_not_kept_total{", "repository=\"up\"", "} 1"]),
    };
    let disk = match SmallDisk::mount() {
        Ok(disk) => disk,
        Err(why) => return eprintln!("SKIPPED: no tmpfs can be mounted here ({why}); needs root"),
    };
    let origin = Origin::start().await;
    origin.put("/pkg/tool-1.0.zip", Resource::new(Payload::generated(300_000, 3)));
    let data = disk.0.path().join("data");
    let config = format!("remotes:\n{}", entry("up", "generic", &origin, ""));
    let larder = Setup::new(&config).env("LARDER_DATA_DIR", &data.to_string_lossy()).start().await;
    fill(&disk.0.path().join("filler"), 100_000);
    let wire = ask(&larder, "/api/v1/remote/up/pkg/tool-1.0.zip").await;
    assert_eq!(wire.status, 200, "{}", wire.reason);
    larder.until_metric("larder_repository_fills_not_kept_total", "up", 1.0).await;
    // The verdict on the disk is at most five seconds old.
    let until = std::time::Instant::now() + PATIENCE;
    while !crate::support::get(&larder.url("/health")).await.text().contains("\"keeping\":false") {
        assert!(std::time::Instant::now() < until, "/health does not know that the disk is full");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    row.is_told(&larder, &wire).await;
}
