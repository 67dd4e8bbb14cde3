//! A disk that fills up: a clear error, nothing damaged, and back to work when there is space again (contract, section 3, hazard R7).
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

mod support;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use larder_core::UnixMillis;
use larder_storage::{BlobStore, Change, FsBlobStore, MetadataStore, StorageErrorKind};

use support::{all, is_intact, key, put, store};

/// A small file system of its own, unmounted on drop.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    const SIZE: u64 = 64 << 20;

    /// Why it cannot be had, if so.
    fn mount() -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
        let size = format!("size={}", Self::SIZE);
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(directory.path())
            .output();
        let output = mount.map_err(|e| format!("mount cannot be run: {e}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        Ok(Self(directory))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: connections of the database may still be closing.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn small_disk() -> Option<SmallDisk> {
    SmallDisk::mount()
        .inspect_err(|why| eprintln!("SKIPPED: no tmpfs can be mounted here ({why}); needs root"))
        .ok()
}

#[tokio::test]
async fn hazard_r7_the_reserve_stays_free_and_the_database_goes_on() {
    let Some(disk) = small_disk() else { return };
    let meta = MetadataStore::open(&disk.path().join("larder.db"))
        .await
        .unwrap();
    let blobs: Arc<dyn BlobStore> = Arc::new(FsBlobStore::open(disk.path()).unwrap());
    let kept = store(&meta, &blobs, &key("r", "kept"), &vec![1; 2 << 20]).await;
    let dropped = store(&meta, &blobs, &key("r", "dropped"), &vec![2; 2 << 20]).await;

    // What the database has written meanwhile is seen by the next measurement.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let mut spool = blobs.spool().unwrap();
    let chunk: Vec<u8> = (0..65_536_u32).map(|n| n as u8).collect();
    let error = loop {
        if let Err(error) = spool.append(&chunk) {
            break error;
        }
    };
    assert_eq!(error.kind, StorageErrorKind::Full);
    assert!(
        spool.len() > 50 << 20,
        "what there is was used: {}",
        spool.len()
    );
    let mut prefix = vec![0; chunk.len()];
    spool
        .reader()
        .read_exact_at(&mut prefix, spool.len() - chunk.len() as u64)
        .unwrap();
    assert_eq!(prefix, chunk, "the prefix stays readable");
    let free = rustix::fs::statvfs(disk.path()).unwrap();
    assert!(
        free.f_bavail * free.f_frsize >= SmallDisk::SIZE / 20,
        "5 % are left for the database"
    );
    for n in 0..2000 {
        let record = support::record(larder_core::Content::Negative { status: 404 });
        meta.apply(vec![Change::PutRecord {
            key: key("r", &format!("{n}")),
            record,
            blob: None,
        }])
        .await
        .unwrap();
    }

    // Space comes back with the spool and with what the collector takes away.
    drop(spool);
    meta.apply(vec![Change::DeleteRecord {
        key: key("r", "dropped"),
    }])
    .await
    .unwrap();
    assert_eq!(
        meta.collect(UnixMillis(0), Duration::ZERO, &blobs)
            .await
            .unwrap()
            .bytes_freed,
        2 << 20
    );
    assert!(blobs.open(&dropped).await.is_err());
    tokio::time::sleep(Duration::from_millis(1100)).await;
    store(&meta, &blobs, &key("r", "later"), &vec![3; 1 << 20]).await;
    assert!(is_intact(&*blobs, &kept).await);
}

#[tokio::test]
async fn hazard_l1_no_space_at_all_damages_nothing() {
    let Some(disk) = small_disk() else { return };
    let meta = MetadataStore::open(&disk.path().join("larder.db"))
        .await
        .unwrap();
    let blobs: Arc<dyn BlobStore> = Arc::new(FsBlobStore::open(disk.path()).unwrap());
    for n in 0..20_u8 {
        store(&meta, &blobs, &key("r", &format!("{n}")), &[n; 10_000]).await;
    }
    // Opened while there was space, as a download under way would be.
    let mut spool = blobs.spool().unwrap();
    spool.append(b"first ").unwrap();
    let filler = disk.path().join("filler");
    fill(&filler);

    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(blobs.spool().unwrap_err().kind, StorageErrorKind::Full);
    assert_eq!(
        spool.append(&vec![0; 100_000]).unwrap_err().kind,
        StorageErrorKind::Full
    );
    assert_eq!(spool.len(), 6);
    let mut failures = 0;
    for n in 0..20_000 {
        let record = support::record(larder_core::Content::Negative { status: 404 });
        let change = Change::PutRecord {
            key: key("many", &format!("{n}")),
            record,
            blob: None,
        };
        if let Err(error) = meta.apply(vec![change]).await {
            assert_eq!(error.kind, StorageErrorKind::Full, "{error:?}");
            failures += 1;
            break;
        }
    }
    assert_eq!(failures, 1, "the database had to notice at last");
    assert!(
        meta.record(&key("r", "7")).await.unwrap().is_some(),
        "reading goes on"
    );

    fs::remove_file(filler).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    spool.append(b"second").unwrap();
    let descriptor = larder_core::BlobDescriptor {
        digest: larder_core::sha256(b"first second"),
        size: 12,
    };
    let info = blobs
        .publish(vec![larder_storage::SealedSpool { spool, descriptor }])
        .await
        .remove(0)
        .unwrap();
    meta.apply(vec![put(&key("r", "late"), info)])
        .await
        .unwrap();
    let records = all(&meta, "r").await;
    assert_eq!(records.len(), 21);
    for (path, _, record) in &records {
        assert!(is_intact(&*blobs, record.blob().unwrap()).await, "{path}");
    }
}

/// What frees space is written although there is none: neither the database nor its log has a block to itself.
#[tokio::test]
async fn hazard_x6_rows_are_deleted_on_a_disk_without_a_free_block() {
    let Some(disk) = small_disk() else { return };
    let path = disk.path().join("larder.db");
    let meta = MetadataStore::open(&path).await.unwrap();
    let mut large = support::record(larder_core::Content::Negative { status: 404 });
    large.source_url = "x".repeat(10_000);
    let keys: Vec<_> = (0..1000).map(|n| key("r", &n.to_string())).collect();
    let puts = keys.iter().map(|key| Change::PutRecord {
        key: key.clone(),
        record: large.clone(),
        blob: None,
    });
    meta.apply(puts.collect()).await.unwrap();
    meta.close().await;
    let meta = MetadataStore::open(&path).await.unwrap();
    fill(&disk.path().join("filler"));
    let put = Change::PutRecord {
        key: key("r", "more"),
        record: large,
        blob: None,
    };
    assert_eq!(
        meta.apply(vec![put]).await.unwrap_err().kind,
        StorageErrorKind::Full
    );
    meta.apply(
        keys.into_iter()
            .map(|key| Change::DeleteRecord { key })
            .collect(),
    )
    .await
    .unwrap();
    assert_eq!(meta.counts().await.unwrap().records, 0);
    meta.shrink(0).await.unwrap();
    let free = rustix::fs::statvfs(disk.path()).unwrap();
    assert!(
        free.f_bavail * free.f_frsize > 9 << 20,
        "the space is back: {}",
        free.f_bavail * free.f_frsize
    );
}

/// Takes up all space there is.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for size in [1 << 20, 4096, 1] {
        while file.write_all(&vec![9; size]).is_ok() {}
    }
}
