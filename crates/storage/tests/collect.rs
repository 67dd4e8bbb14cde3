//! The collector: what nothing refers to goes after the grace, and nothing else ever does (hazard L3).
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use larder_core::{Clock as _, Digest, SystemClock, UnixMillis};
use larder_storage::{
    BlobStore, Change, CollectReport, DerivedRecord, FsBlobStore, MemoryBlobStore, MetadataStore,
};

use support::{is_intact, key, put, repository, store};

const GRACE: Duration = Duration::from_hours(24);
const HOUR: Duration = Duration::from_hours(1);

async fn fixture() -> (MetadataStore, Arc<dyn BlobStore>) {
    (
        MetadataStore::in_memory().await.unwrap(),
        Arc::new(MemoryBlobStore::new()),
    )
}

/// Far enough in the past that files written by the test are younger than any grace.
const START: UnixMillis = UnixMillis(1_000_000);

#[tokio::test]
async fn hazard_l3_a_blob_goes_only_after_its_grace() {
    let (meta, blobs) = fixture().await;
    let blob = store(&meta, &blobs, &key("r", "a"), b"12345").await;
    let kept = store(&meta, &blobs, &key("r", "b"), b"kept").await;
    meta.apply(vec![Change::DeleteRecord { key: key("r", "a") }])
        .await
        .unwrap();

    let first = meta.collect(START, GRACE, &blobs).await.unwrap();
    assert_eq!(
        first,
        CollectReport {
            blobs_dated: 1,
            ..CollectReport::default()
        }
    );
    let early = meta
        .collect(START.plus(23 * HOUR), GRACE, &blobs)
        .await
        .unwrap();
    assert_eq!(
        early,
        CollectReport::default(),
        "an hour too early, and the date is not moved"
    );
    assert!(is_intact(&*blobs, &blob));
    let due = meta
        .collect(START.plus(GRACE), GRACE, &blobs)
        .await
        .unwrap();
    assert_eq!(
        due,
        CollectReport {
            blobs_deleted: 1,
            bytes_freed: 5,
            ..CollectReport::default()
        }
    );
    assert!(blobs.open(&blob).is_err());
    assert!(is_intact(&*blobs, &kept));
    assert_eq!(meta.counts().await.unwrap().blobs, 1);
}

#[tokio::test]
async fn hazard_l3_a_reference_made_during_the_grace_saves_the_blob() {
    let (meta, blobs) = fixture().await;
    let blob = store(&meta, &blobs, &key("r", "a"), b"bytes").await;
    meta.apply(vec![Change::DeleteRecord { key: key("r", "a") }])
        .await
        .unwrap();
    meta.collect(START, GRACE, &blobs).await.unwrap();
    store(&meta, &blobs, &key("other", "x"), b"bytes").await;
    let report = meta
        .collect(START.plus(GRACE * 2), GRACE, &blobs)
        .await
        .unwrap();
    assert_eq!(report, CollectReport::default());
    assert!(is_intact(&*blobs, &blob));
}

#[tokio::test]
async fn hazard_l3_a_blob_shared_by_two_repositories_needs_both_to_let_go() {
    let (meta, blobs) = fixture().await;
    let blob = store(&meta, &blobs, &key("one", "a"), b"shared").await;
    store(&meta, &blobs, &key("two", "b"), b"shared").await;
    meta.apply(vec![Change::DeleteRecord {
        key: key("one", "a"),
    }])
    .await
    .unwrap();
    assert_eq!(
        meta.collect(START, Duration::ZERO, &blobs).await.unwrap(),
        CollectReport::default()
    );
    assert!(is_intact(&*blobs, &blob));
    meta.apply(vec![Change::DeleteRecord {
        key: key("two", "b"),
    }])
    .await
    .unwrap();
    assert_eq!(
        meta.collect(START, Duration::ZERO, &blobs)
            .await
            .unwrap()
            .blobs_deleted,
        1
    );
}

#[tokio::test]
async fn a_replaced_blob_is_unreferenced() {
    let (meta, blobs) = fixture().await;
    let old = store(&meta, &blobs, &key("r", "a"), b"old").await;
    let new = store(&meta, &blobs, &key("r", "a"), b"new").await;
    assert_eq!(
        meta.collect(START, Duration::ZERO, &blobs)
            .await
            .unwrap()
            .blobs_deleted,
        1
    );
    assert!(blobs.open(&old).is_err());
    assert!(is_intact(&*blobs, &new));
}

#[tokio::test]
async fn a_shorter_grace_brings_the_date_forward() {
    let (meta, blobs) = fixture().await;
    for n in 0..500_u32 {
        store(&meta, &blobs, &key("r", "a"), &n.to_le_bytes()).await;
    }
    assert_eq!(
        meta.collect(START, GRACE, &blobs)
            .await
            .unwrap()
            .blobs_dated,
        499
    );
    assert_eq!(
        meta.collect(START, GRACE, &blobs).await.unwrap(),
        CollectReport::default()
    );
    let urgent = meta
        .collect(START.plus(HOUR), Duration::ZERO, &blobs)
        .await
        .unwrap();
    assert_eq!((urgent.blobs_deleted, urgent.bytes_freed), (499, 499 * 4));
}

#[tokio::test]
async fn hazard_l3_a_blob_published_but_not_yet_recorded_stays() {
    let (meta, blobs) = fixture().await;
    let old = store(&meta, &blobs, &key("r", "a"), b"bytes").await;
    meta.apply(vec![Change::DeleteRecord { key: key("r", "a") }])
        .await
        .unwrap();
    let info = blobs.put_bytes(b"bytes").unwrap();
    meta.collect(START, Duration::ZERO, &blobs).await.unwrap();
    assert_eq!(
        meta.counts().await.unwrap().blobs,
        0,
        "the row went, for nothing refers to it yet"
    );
    assert!(is_intact(&*blobs, &old), "the file did not");
    meta.apply(vec![put(&key("r", "again"), info)])
        .await
        .unwrap();
    meta.collect(START, Duration::ZERO, &blobs).await.unwrap();
    assert!(is_intact(&*blobs, &old));
    assert_eq!(meta.counts().await.unwrap().blobs, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hazard_l3_publish_during_collect() {
    let directory = support::fast_directory();
    let meta = MetadataStore::open(&directory.path().join("larder.db"))
        .await
        .unwrap();
    let blobs: Arc<dyn BlobStore> = Arc::new(FsBlobStore::open(directory.path()).unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let deleted = Arc::new(AtomicU64::new(0));
    // Far in the future, so that the sweep of orphans takes part too, without any grace.
    let future = SystemClock.now().plus(GRACE);
    let collector = tokio::spawn({
        let (meta, blobs, stop, deleted) = (
            meta.clone(),
            Arc::clone(&blobs),
            Arc::clone(&stop),
            Arc::clone(&deleted),
        );
        async move {
            while !stop.load(Ordering::SeqCst) {
                let report = meta.collect(future, Duration::ZERO, &blobs).await.unwrap();
                deleted.fetch_add(
                    report.blobs_deleted + report.orphans_deleted,
                    Ordering::SeqCst,
                );
            }
        }
    });
    let writers: Vec<_> = (0..4_u64)
        .map(|writer| {
            let (meta, blobs, deleted) = (meta.clone(), Arc::clone(&blobs), Arc::clone(&deleted));
            tokio::spawn(async move {
                // On a busy machine the collector's turn may come late.
                for round in 0..5_000_u64 {
                    if round >= 150 && deleted.load(Ordering::SeqCst) > 20 {
                        break;
                    }
                    // Few contents, shared by all writers: the same digest comes and goes all the time.
                    let bytes = [(support::random() % 6) as u8; 100];
                    let mine = key("r", &format!("{writer}"));
                    let published = {
                        let blobs = Arc::clone(&blobs);
                        tokio::task::spawn_blocking(move || blobs.put_bytes(&bytes))
                    };
                    let info = published.await.unwrap().unwrap();
                    let blob = info.descriptor.clone();
                    meta.apply(vec![put(&mine, info)]).await.unwrap();
                    for _ in 0..3 {
                        assert!(
                            is_intact(&*blobs, &blob),
                            "a recorded blob is there (writer {writer}, round {round})"
                        );
                        tokio::task::yield_now().await;
                    }
                    meta.apply(vec![Change::DeleteRecord { key: mine }])
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    collector.await.unwrap();
    assert!(
        deleted.load(Ordering::SeqCst) > 20,
        "the collector was at work meanwhile: {deleted:?}"
    );
    meta.collect(future, Duration::ZERO, &blobs).await.unwrap();
    assert_eq!(blobs.list(None, 10).unwrap(), []);
    assert_eq!(meta.counts().await.unwrap().blobs, 0);
}

async fn derive(
    meta: &MetadataStore,
    blobs: &Arc<dyn BlobStore>,
    name: &str,
    sources: Vec<Digest>,
) {
    let info = blobs
        .put_bytes(format!("derived {name}").as_bytes())
        .unwrap();
    let derived = DerivedRecord {
        blob: info.descriptor.clone(),
        content_type: "text/html".to_owned(),
        made_at: START,
    };
    let change = Change::PutDerivation {
        key: name.to_owned(),
        repository: repository("r"),
        sources,
        derived,
        blob: info,
    };
    meta.apply(vec![change]).await.unwrap();
}

#[tokio::test]
async fn a_derivation_goes_when_one_of_its_sources_has_been_replaced() {
    let (meta, blobs) = fixture().await;
    let one = store(&meta, &blobs, &key("r", "one"), b"one").await;
    let two = store(&meta, &blobs, &key("r", "two"), b"two").await;
    derive(&meta, &blobs, "only-one", vec![one.digest.clone()]).await;
    derive(
        &meta,
        &blobs,
        "merged",
        vec![one.digest.clone(), two.digest.clone()],
    )
    .await;
    assert_eq!(
        meta.collect(START, Duration::ZERO, &blobs).await.unwrap(),
        CollectReport::default()
    );

    store(&meta, &blobs, &key("r", "two"), b"two, newer").await;
    assert_eq!(
        meta.collect(START, GRACE, &blobs)
            .await
            .unwrap()
            .derivations_dropped,
        0
    );
    assert!(
        meta.derivation("merged").await.unwrap().is_some(),
        "within the grace"
    );
    let due = meta
        .collect(START.plus(GRACE), GRACE, &blobs)
        .await
        .unwrap();
    assert_eq!(due.derivations_dropped, 1);
    assert!(meta.derivation("merged").await.unwrap().is_none());
    let derived = meta.derivation("only-one").await.unwrap().unwrap();
    assert!(is_intact(&*blobs, &derived.blob));
}

#[tokio::test]
async fn a_source_that_comes_back_saves_its_derivation() {
    let (meta, blobs) = fixture().await;
    let first = store(&meta, &blobs, &key("r", "doc"), b"first").await;
    derive(&meta, &blobs, "d", vec![first.digest]).await;
    store(&meta, &blobs, &key("r", "doc"), b"second").await;
    meta.collect(START, GRACE, &blobs).await.unwrap();
    store(&meta, &blobs, &key("r", "doc"), b"first").await;
    assert_eq!(
        meta.collect(START.plus(GRACE), GRACE, &blobs)
            .await
            .unwrap()
            .derivations_dropped,
        0
    );
    store(&meta, &blobs, &key("r", "doc"), b"third").await;
    let again = meta
        .collect(START.plus(GRACE), GRACE, &blobs)
        .await
        .unwrap();
    assert_eq!(
        again.derivations_dropped, 0,
        "the old date no longer counts"
    );
}

#[tokio::test]
async fn hazard_l2_orphan_files_go_after_the_grace() {
    let directory = support::fast_directory();
    let meta = MetadataStore::open(&directory.path().join("larder.db"))
        .await
        .unwrap();
    let blobs: Arc<dyn BlobStore> = Arc::new(FsBlobStore::open(directory.path()).unwrap());
    // Published by a process that was killed before it could write the row.
    for n in 0..1500_u32 {
        blobs.put_bytes(&n.to_le_bytes()).unwrap();
    }
    let kept = store(&meta, &blobs, &key("r", "kept"), b"kept").await;
    let now = SystemClock.now();
    assert_eq!(
        meta.collect(now.plus(23 * HOUR), GRACE, &blobs)
            .await
            .unwrap(),
        CollectReport::default()
    );
    let report = meta
        .collect(now.plus(GRACE + HOUR), GRACE, &blobs)
        .await
        .unwrap();
    assert_eq!((report.orphans_deleted, report.bytes_freed), (1500, 6000));
    assert!(is_intact(&*blobs, &kept));
    assert_eq!(blobs.list(None, 10).unwrap().len(), 1);
}
