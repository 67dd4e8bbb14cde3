//! A disk without room: 507, nothing lost, nothing left. Making one needs root; elsewhere the test says that it was left out.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{PATIENCE, Setup, get};
use crate::{CONFIG, delete, put};

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

#[tokio::test(flavor = "multi_thread")]
async fn hazard_r7_a_full_disk_takes_no_upload_and_loses_none() {
    let disk = match SmallDisk::mount() {
        Ok(disk) => disk,
        Err(why) => return eprintln!("SKIPPED: no tmpfs can be mounted here ({why}); needs root"),
    };
    let data = disk.0.path().join("data");
    let larder = Setup::new(CONFIG)
        .env("LARDER_DATA_DIR", &data.to_string_lossy())
        .start()
        .await;
    let at = |path: &str| larder.artifact("files", path);
    assert_eq!(put(&at("large"), vec![1; 20 << 20], &[]).await.status, 201);
    assert_eq!(put(&at("held"), vec![2; 100_000], &[]).await.status, 201);
    // Longer than what is left: refused by its length, and in the midst of the body where that is not told.
    let used = || {
        rustix::fs::statvfs(disk.0.path())
            .map(|stat| stat.f_blocks - stat.f_bfree)
            .expect("a measure")
    };
    let before = used();
    assert_eq!(
        put(&at("too-large"), vec![3; 50 << 20], &[]).await.status,
        507
    );
    let parts = (0..800).map(|_| Ok::<_, std::io::Error>(vec![3_u8; 1 << 16]));
    let stream = reqwest::Body::wrap_stream(futures_util::stream::iter(parts));
    let answer = put(&at("too-large"), stream, &[]).await;
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (507, Some("storage_full")),
        "{}",
        answer.text()
    );
    let until = Instant::now() + PATIENCE;
    while used() > before + 64 {
        assert!(
            Instant::now() < until,
            "a refused upload left something: {before} blocks, then {}",
            used()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Down to the last 100 kB, far below the reserve.
    fill(&disk.0.path().join("filler"), 100_000);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    for (path, body) in [("new", vec![4; 10]), ("held", vec![5; 10])] {
        let answer = put(&at(path), body, &[]).await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (507, Some("storage_full")),
            "{path}: {}",
            answer.text()
        );
    }
    assert_eq!(get(&at("new")).await.status, 404);
    assert!(get(&at("held")).await.body == vec![2; 100_000]);
    // A deletion works there and frees the bytes at once: soon there is room again.
    let full = used();
    assert_eq!(delete(&at("large")).await.status, 204);
    let until = Instant::now() + PATIENCE;
    while used() + (20 << 20) / 4096 > full + 256 {
        assert!(
            Instant::now() < until,
            "the bytes are still there: {full} blocks, then {}",
            used()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(put(&at("new"), vec![4; 10], &[]).await.status, 201);
    assert!(get(&at("held")).await.body == vec![2; 100_000]);
}
