//! The database holds secrets: whatever mode its files were left in, nobody but their owner reads them once larder has started.
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use larder_storage::{MetadataStore, OnDamage};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn widen(path: &Path) {
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
}

#[tokio::test]
async fn a_database_that_others_can_read_is_tightened_at_start_with_its_logs_and_its_spare() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("larder.sqlite");
    // Not closed: the logs of a killed process are there at the next start.
    let killed = MetadataStore::open(&path).await.unwrap();
    killed.secret_bytes("link_key", &[7; 32]).await.unwrap();
    let files = [
        "larder.sqlite",
        "larder.sqlite-wal",
        "larder.sqlite-shm",
        "larder.spare",
    ]
    .map(|name| directory.path().join(name));
    // On a disk below its reserve no space is set aside.
    let files: Vec<_> = files.into_iter().filter(|path| path.exists()).collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in &files {
        widen(file);
    }

    let again = MetadataStore::open(&path).await.unwrap();
    for file in files.iter().filter(|path| path.exists()) {
        assert_eq!(mode(file), 0o600, "{file:?}");
    }
    again.close().await;
    killed.close().await;
}

#[tokio::test]
async fn a_damaged_database_that_is_put_aside_is_private_and_so_are_earlier_ones() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("larder.sqlite");
    fs::write(
        &path,
        b"this is no database, but it is long enough to be looked at as one",
    )
    .unwrap();
    widen(&path);
    let earlier = directory.path().join("larder.sqlite.damaged-1");
    fs::write(&earlier, b"an earlier one").unwrap();
    widen(&earlier);

    MetadataStore::open_with(&path, OnDamage::PutAside)
        .await
        .unwrap()
        .close()
        .await;
    let names = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let aside: Vec<_> = names
        .filter(|path| path.to_string_lossy().contains(".damaged-"))
        .collect();
    assert_eq!(aside.len(), 2, "{aside:?}");
    for file in aside {
        assert_eq!(mode(&file), 0o600, "{file:?}");
    }
    assert_eq!(mode(&path), 0o600);
}
