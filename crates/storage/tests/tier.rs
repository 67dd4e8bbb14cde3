//! The local tier in front of a real store.
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

#[path = "support/s3.rs"]
mod settings;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::Either;
use larder_core::BlobDescriptor;
use larder_storage::{BlobStore, Body, S3Objects, StorageErrorKind, TieredBlobStore, conformance};
use larder_testkit::servers::{Gate, S3Server};
use settings::settings;

struct Scene {
    server: S3Server,
    gate: Gate,
    folder: tempfile::TempDir,
}

impl Scene {
    async fn set() -> Self {
        let server = S3Server::start().await;
        let gate = Gate::to(&server.endpoint()).await;
        Self {
            server,
            gate,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A store over a folder of its own.
    fn store(&self, folder: &Path, budget: Option<u64>) -> TieredBlobStore {
        let objects = S3Objects::new(settings(self.gate.endpoint(), "tier/"), Arc::default());
        TieredBlobStore::open(Arc::new(objects.unwrap()), folder, budget, 64).unwrap()
    }

    /// One over an empty folder, as another replica has it.
    fn elsewhere(&self, budget: Option<u64>) -> (tempfile::TempDir, Arc<TieredBlobStore>) {
        let folder = tempfile::tempdir().unwrap();
        let store = self.store(folder.path(), budget);
        (folder, Arc::new(store))
    }
}

fn content(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|n| ((n + seed) * 31 % 251) as u8).collect()
}

async fn all(body: Body) -> Vec<u8> {
    let mut all = Vec::new();
    let mut chunks = body.chunks();
    while let Some(chunk) = chunks.next().await {
        all.extend_from_slice(&chunk.unwrap());
    }
    all
}

async fn put(store: &dyn BlobStore, bytes: &[u8]) -> BlobDescriptor {
    store.put_bytes(bytes).await.unwrap().descriptor
}

/// Whether the blob is a file that is there without a wait.
fn is_at_hand(store: &dyn BlobStore, blob: &BlobDescriptor) -> bool {
    match store.open(blob) {
        Either::Left(body) => matches!(body.into_inner(), Ok(Body::File { .. })),
        Either::Right(_) => false,
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < Duration::from_secs(10), "not so: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    let scene = Scene::set().await;
    let store = scene.store(scene.folder.path(), None);
    conformance::suite(Arc::new(store)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_at_hand_and_what_is_cold_is_fetched_once() {
    let scene = Scene::set().await;
    let store = scene.store(scene.folder.path(), None);
    let bytes = content(12 << 20, 0);
    let blob = put(&store, &bytes).await;
    assert!(is_at_hand(&store, &blob), "it stays in the tier");

    let (_folder, cold) = scene.elsewhere(None);
    assert!(!is_at_hand(&*cold, &blob));
    let before = scene.gate.answered();
    let readers: Vec<_> = (0..16)
        .map(|_| {
            let (cold, blob) = (Arc::clone(&cold), blob.clone());
            tokio::spawn(async move { all(cold.open(&blob).await.unwrap()).await })
        })
        .collect();
    for reader in readers {
        assert!(reader.await.unwrap() == bytes);
    }
    let fetched = scene.gate.answered() - before;
    assert!(fetched < (13 << 20), "{fetched} bytes for sixteen readers");
    until("it is at hand", || is_at_hand(&*cold, &blob)).await;
    assert_eq!(cold.report().tier.unwrap().fills, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_far_ahead_is_not_waited_for_and_a_large_blob_passes_by() {
    let scene = Scene::set().await;
    let store = scene.store(scene.folder.path(), None);
    let bytes = content(64 << 20, 3);
    let blob = put(&store, &bytes).await;

    let (_folder, small) = scene.elsewhere(Some(16 << 20));
    let before = scene.gate.answered();
    let body = small.open(&blob).await.unwrap();
    let part = body.range(60_000_000, 60_000_500).unwrap();
    assert!(all(part).await == bytes[60_000_000..60_000_500]);
    let fetched = scene.gate.answered() - before;
    assert!(fetched < (3 << 20), "{fetched} bytes for a part");
    assert!(all(body).await == bytes, "past the tier");
    assert_eq!(small.report().tier.unwrap().bytes, 0);

    let (_folder, cold) = scene.elsewhere(None);
    let body = cold.open(&blob).await.unwrap();
    let part = body.range(66_000_000, 66_000_500).unwrap();
    assert!(all(part).await == bytes[66_000_000..66_000_500]);
    let is_whole = cold.report().tier.unwrap().bytes > 0;
    assert!(!is_whole, "the part was there before the whole");
    assert!(all(body).await == bytes);
    until("it is at hand", || is_at_hand(&*cold, &blob)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_go_that_were_read_longest_ago_and_no_read_is_broken() {
    let scene = Scene::set().await;
    let store = scene.store(scene.folder.path(), Some(10 << 20));
    let mut blobs = Vec::new();
    for number in 0..9 {
        blobs.push(put(&store, &content(1 << 20, number)).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(is_at_hand(&store, &blobs[0]), "within the budget");
    let Body::File { file, .. } = store.open(&blobs[1]).await.unwrap() else {
        panic!("no file");
    };
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(is_at_hand(&store, &blobs[0]));
    for number in 9..12 {
        blobs.push(put(&store, &content(1 << 20, number)).await);
    }
    let held = || store.report().tier.unwrap().bytes;
    until("it is within its budget", || held() <= 10 << 20).await;
    assert!(store.report().tier.unwrap().evicted >= 2);
    assert!(is_at_hand(&store, &blobs[0]), "read of late");
    assert!(!is_at_hand(&store, &blobs[2]), "not read for longest");
    // A file that is open stays readable, whatever becomes of its name.
    let open = Body::file(file, 1 << 20);
    assert!(all(open).await == content(1 << 20, 1));
    // What went is in the store.
    let back = store.open(&blobs[2]).await.unwrap();
    assert!(all(back).await == content(1 << 20, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_a3_without_the_store_the_tier_serves_and_nothing_new_is_kept() {
    let mut scene = Scene::set().await;
    let folder = scene.folder.path().to_owned();
    let store = scene.store(&folder, None);
    let here = put(&store, &content(3 << 20, 0)).await;
    let (_elsewhere, other) = scene.elsewhere(None);
    let only_there = put(&*other, b"only in the store").await;

    scene.gate.close();
    assert!(all(store.open(&here).await.unwrap()).await == content(3 << 20, 0));
    let asked = Instant::now();
    let error = store.open(&only_there).await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Unavailable, "{error}");
    let error = store.put_bytes(b"new").await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Unavailable, "{error}");
    assert!(asked.elapsed() < Duration::from_secs(20), "two requests");
    let error = store.delete(&here.digest).await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Unavailable, "{error}");
    assert!(is_at_hand(&store, &here), "nothing was deleted");

    // A new process finds what the old one had, with the store away.
    drop(store);
    let store = scene.store(&folder, None);
    assert!(all(store.open(&here).await.unwrap()).await == content(3 << 20, 0));
    until("the folder is looked through", || {
        store.report().tier.unwrap().bytes == 3 << 20
    })
    .await;

    // Gone and back, with another folder.
    scene.server.kill();
    scene.gate.open();
    scene.server.restart().await;
    let (_third, store) = scene.elsewhere(None);
    for (blob, bytes) in [
        (&here, content(3 << 20, 0)),
        (&only_there, b"only in the store".to_vec()),
    ] {
        let since = Instant::now();
        let body = loop {
            match store.open(blob).await {
                Ok(body) => break body,
                Err(error) => assert!(since.elapsed() < Duration::from_secs(5), "{error}"),
            }
        };
        assert!(all(body).await == bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_that_breaks_off_goes_on_and_one_that_fails_leaves_nothing() {
    let scene = Scene::set().await;
    let store = scene.store(scene.folder.path(), None);
    let bytes = content(12 << 20, 1);
    let blob = put(&store, &bytes).await;

    let (_folder, cold) = scene.elsewhere(None);
    scene.gate.cut_after(3_000_000);
    assert!(
        all(cold.open(&blob).await.unwrap()).await == bytes,
        "resumed"
    );
    assert!(scene.gate.resets() > 0);
    scene.gate.open();
    until("it is at hand", || is_at_hand(&*cold, &blob)).await;

    let (folder, cold) = scene.elsewhere(None);
    let mut chunks = cold.open(&blob).await.unwrap().chunks();
    let first = chunks.next().await.unwrap().unwrap();
    scene.gate.close();
    let mut given = first.to_vec();
    let failed = loop {
        match chunks.next().await {
            Some(Ok(chunk)) => given.extend_from_slice(&chunk),
            Some(Err(_)) => break true,
            None => break false,
        }
    };
    assert!(bytes.starts_with(&given));
    assert!(
        failed || given.len() == bytes.len(),
        "no short body ends well"
    );
    if failed {
        assert!(!is_at_hand(&*cold, &blob), "half a file has no name");
        let names = std::fs::read_dir(folder.path().join("blobs/sha256")).unwrap();
        assert_eq!(names.count(), 0);
    }
}
