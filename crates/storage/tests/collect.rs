//! The collector: what nothing refers to goes after the grace, and nothing else ever does (hazard L3).
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use larder_core::{BlobDescriptor, Clock as _, Content, Digest, SystemClock, UnixMillis};
use larder_storage::{
    BlobStore, Change, CollectReport, DerivedRecord, FsBlobStore, MemoryBlobStore, MetadataStore,
    StorageErrorKind,
};

use support::place::{Place, on_both_engines};
use support::{is_intact, key, put, record, repository, store};

const GRACE: Duration = Duration::from_hours(24);
const HOUR: Duration = Duration::from_hours(1);

async fn fixture(place: &Place) -> (MetadataStore, Arc<dyn BlobStore>) {
    (place.open().await, Arc::new(MemoryBlobStore::new()))
}

/// Far enough in the past that files written by the test are younger than any grace.
const START: UnixMillis = UnixMillis(1_000_000);

async fn hazard_l3_a_blob_goes_only_after_its_grace(place: Place) {
    let (meta, blobs) = fixture(&place).await;
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
    assert!(is_intact(&*blobs, &blob).await);
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
    assert!(blobs.open(&blob).await.is_err());
    assert!(is_intact(&*blobs, &kept).await);
    assert_eq!(meta.counts().await.unwrap().blobs, 1);
}

async fn hazard_l3_a_reference_made_during_the_grace_saves_the_blob(place: Place) {
    let (meta, blobs) = fixture(&place).await;
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
    assert!(is_intact(&*blobs, &blob).await);
}

async fn hazard_l3_a_blob_shared_by_two_repositories_needs_both_to_let_go(place: Place) {
    let (meta, blobs) = fixture(&place).await;
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
    assert!(is_intact(&*blobs, &blob).await);
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

async fn a_replaced_blob_is_unreferenced(place: Place) {
    let (meta, blobs) = fixture(&place).await;
    let old = store(&meta, &blobs, &key("r", "a"), b"old").await;
    let new = store(&meta, &blobs, &key("r", "a"), b"new").await;
    assert_eq!(
        meta.collect(START, Duration::ZERO, &blobs)
            .await
            .unwrap()
            .blobs_deleted,
        1
    );
    assert!(blobs.open(&old).await.is_err());
    assert!(is_intact(&*blobs, &new).await);
}

async fn a_shorter_grace_brings_the_date_forward(place: Place) {
    let (meta, blobs) = fixture(&place).await;
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

async fn hazard_l3_a_blob_published_but_not_yet_recorded_stays(place: Place) {
    let (meta, blobs) = fixture(&place).await;
    let old = store(&meta, &blobs, &key("r", "a"), b"bytes").await;
    meta.apply(vec![Change::DeleteRecord { key: key("r", "a") }])
        .await
        .unwrap();
    let info = blobs.put_bytes(b"bytes").await.unwrap();
    meta.collect(START, Duration::ZERO, &blobs).await.unwrap();
    assert_eq!(
        meta.counts().await.unwrap().blobs,
        0,
        "the row went, for nothing refers to it yet"
    );
    assert!(is_intact(&*blobs, &old).await, "the file did not");
    meta.apply(vec![put(&key("r", "again"), info)])
        .await
        .unwrap();
    meta.collect(START, Duration::ZERO, &blobs).await.unwrap();
    assert!(is_intact(&*blobs, &old).await);
    assert_eq!(meta.counts().await.unwrap().blobs, 1);
}

async fn hazard_l3_publish_during_collect(place: Place) {
    let (meta, blobs) = process(&place).await;
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
                    let info = blobs.put_bytes(&bytes).await.unwrap();
                    let blob = info.descriptor.clone();
                    meta.apply(vec![put(&mine, info)]).await.unwrap();
                    for _ in 0..3 {
                        assert!(
                            is_intact(&*blobs, &blob).await,
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
    assert_eq!(blobs.list(None, 10).await.unwrap(), []);
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
        .await
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

async fn a_derivation_goes_when_one_of_its_sources_has_been_replaced(place: Place) {
    let (meta, blobs) = fixture(&place).await;
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
    assert!(is_intact(&*blobs, &derived.blob).await);
}

async fn a_source_that_comes_back_saves_its_derivation(place: Place) {
    let (meta, blobs) = fixture(&place).await;
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

async fn hazard_l2_orphan_files_go_after_the_grace(place: Place) {
    let (meta, blobs) = process(&place).await;
    // Published by a process that was killed before it could write the row.
    for n in 0..1500_u32 {
        blobs.put_bytes(&n.to_le_bytes()).await.unwrap();
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
    assert!(is_intact(&*blobs, &kept).await);
    assert_eq!(blobs.list(None, 10).await.unwrap().len(), 1);
}

/// A store of a process of its own: its pins are unknown to others.
async fn process(place: &Place) -> (MetadataStore, Arc<dyn BlobStore>) {
    let blobs = FsBlobStore::open(place.directory()).unwrap();
    (place.open().await, Arc::new(blobs))
}

/// Publishes bytes, and has another process's collector delete them before their row is written.
async fn deleted_before_its_row(
    place: &Place,
) -> (
    (MetadataStore, Arc<dyn BlobStore>),
    larder_storage::BlobInfo,
) {
    let (collector, its_blobs) = process(place).await;
    let (writer, blobs) = process(place).await;
    store(&writer, &blobs, &key("r", "a"), b"bytes").await;
    let delete = Change::DeleteRecord { key: key("r", "a") };
    writer.apply(vec![delete]).await.unwrap();
    // Found present, so that nothing is written.
    let info = blobs.put_bytes(b"bytes").await.unwrap();
    let report = collector.collect(START, Duration::ZERO, &its_blobs).await;
    assert_eq!(report.unwrap().blobs_deleted, 1);
    assert!(blobs.list(None, 10).await.unwrap().is_empty());
    ((writer, blobs), info)
}

async fn hazard_l3_what_another_process_has_deleted_is_published_again(place: Place) {
    let ((writer, blobs), info) = deleted_before_its_row(&place).await;
    let blob = info.descriptor.clone();
    let other = blobs.put_bytes(b"other").await.unwrap();
    let changes = vec![put(&key("r", "other"), other), put(&key("r", "a"), info)];
    writer.apply(changes).await.unwrap();
    assert!(is_intact(&*blobs, &blob).await);
    assert_eq!(writer.counts().await.unwrap().blobs, 2);
    assert_eq!(writer.counts().await.unwrap().records, 2);
}

async fn hazard_l2_what_cannot_be_published_again_gets_no_row(place: Place) {
    let ((writer, blobs), info) = deleted_before_its_row(&place).await;
    std::fs::remove_dir_all(place.directory().join("blobs")).unwrap();
    let other = put(&key("r", "head"), info.clone());
    let changes = vec![
        Change::PutRecord {
            key: key("r", "first"),
            record: record(Content::HeadOnly),
            blob: None,
        },
        other,
    ];
    writer.apply(changes).await.unwrap_err();
    let counts = writer.counts().await.unwrap();
    assert_eq!((counts.records, counts.blobs), (0, 0));
    assert!(blobs.open(&info.descriptor).await.is_err());
}

/// What is left by a store that was killed after it had condemned a blob: before its file went, or after.
async fn hazard_l3_a_condemned_blob_is_out_of_reach_until_it_is_taken_over(first: Place) {
    let second = if first.is_postgres() {
        Place::postgres()
    } else {
        Place::sqlite()
    };
    for (place, file_is_there) in [(first, true), (second, false)] {
        let (meta, blobs) = process(&place).await;
        let blob = store(&meta, &blobs, &key("r", "a"), b"bytes").await;
        let delete = Change::DeleteRecord { key: key("r", "a") };
        meta.apply(vec![delete]).await.unwrap();
        let condemn = format!(
            "UPDATE blobs SET delete_after = {0}, condemned_at = {0}, condemned_by = 'a store that has died'",
            START.0
        );
        assert_eq!(place.run(&condemn).await, 1);
        if !file_is_there {
            assert!(blobs.delete(&blob.digest).await.unwrap());
        }
        assert_eq!(meta.counts().await.unwrap().blobs, 0, "it counts no more");

        // A copy that is only renewed is lost; one that is fetched anew is not kept for now.
        let renewal = Change::PutRecord {
            key: key("r", "renewed"),
            record: record(Content::Blob(blob.clone())),
            blob: None,
        };
        meta.apply(vec![renewal]).await.unwrap();
        assert_eq!(meta.record(&key("r", "renewed")).await.unwrap(), None);
        let info = blobs.put_bytes(b"bytes").await.unwrap();
        let refused = meta.apply(vec![put(&key("r", "b"), info)]).await;
        assert_eq!(refused.unwrap_err().kind, StorageErrorKind::Unavailable);
        assert_eq!(meta.record(&key("r", "b")).await.unwrap(), None);

        let early = START.plus(Duration::from_mins(29));
        let report = meta.collect(early, GRACE, &blobs).await.unwrap();
        assert_eq!(report, CollectReport::default(), "it may yet be at work");
        let late = START.plus(Duration::from_mins(30));
        let report = meta.collect(late, GRACE, &blobs).await.unwrap();
        // The refused one has put the file where it was missing.
        assert_eq!((report.blobs_deleted, report.bytes_freed), (1, 5));
        assert!(blobs.list(None, 10).await.unwrap().is_empty());
        store(&meta, &blobs, &key("r", "c"), b"bytes").await;
        assert!(is_intact(&*blobs, &blob).await);
    }
}

async fn hazard_l3_while_a_blob_is_deleted_who_publishes_it_waits(place: Place) {
    let (meta, blobs) = process(&place).await;
    store(&meta, &blobs, &key("r", "a"), b"bytes").await;
    let delete = Change::DeleteRecord { key: key("r", "a") };
    meta.apply(vec![delete]).await.unwrap();
    let condemn = "UPDATE blobs SET condemned_at = 0, condemned_by = 'another store'";
    assert_eq!(place.run(condemn).await, 1);
    let info = blobs.put_bytes(b"bytes").await.unwrap();
    let blob: BlobDescriptor = info.descriptor.clone();
    let writing = tokio::spawn({
        let meta = meta.clone();
        async move { meta.apply(vec![put(&key("r", "b"), info)]).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!writing.is_finished());
    // The other one knows nothing of the pin: it deletes the file, and forgets the row.
    let hex = blob.digest.to_hex();
    let file = place.directory().join("blobs/sha256");
    let file = file.join(&hex[..2]).join(&hex[2..4]).join(&hex);
    std::fs::remove_file(file).unwrap();
    let forget = "DELETE FROM blobs WHERE condemned_by = 'another store'";
    assert_eq!(place.run(forget).await, 1);
    writing.await.unwrap().unwrap();
    assert!(is_intact(&*blobs, &blob).await);
    assert_eq!(meta.counts().await.unwrap().blobs, 1);
}

async fn hazard_l3_publish_while_another_process_collects(place: Place) {
    let (collector, its_blobs) = process(&place).await;
    let (meta, blobs) = process(&place).await;
    let future = SystemClock.now().plus(GRACE);
    let stop = Arc::new(AtomicBool::new(false));
    let deleted = Arc::new(AtomicU64::new(0));
    let collecting = tokio::spawn({
        let stop = Arc::clone(&stop);
        let deleted = Arc::clone(&deleted);
        async move {
            while !stop.load(Ordering::SeqCst) {
                let report = collector.collect(future, Duration::ZERO, &its_blobs).await;
                let report = report.unwrap();
                let more = report.blobs_deleted + report.orphans_deleted;
                deleted.fetch_add(more, Ordering::SeqCst);
            }
        }
    });
    let writers: Vec<_> = (0..3_u64)
        .map(|writer| {
            let (meta, blobs) = (meta.clone(), Arc::clone(&blobs));
            let deleted = Arc::clone(&deleted);
            tokio::spawn(async move {
                // On a busy machine the collector gets its turn late.
                let is_enough = |round| round >= 120 && deleted.load(Ordering::SeqCst) > 5;
                for round in (0..10_000_u64).take_while(|round| !is_enough(*round)) {
                    let bytes = [(support::random() % 4) as u8; 100];
                    let mine = key("r", &format!("{writer}"));
                    let info = blobs.put_bytes(&bytes).await.unwrap();
                    let blob = info.descriptor.clone();
                    meta.apply(vec![put(&mine, info)]).await.unwrap();
                    for _ in 0..3 {
                        assert!(
                            is_intact(&*blobs, &blob).await,
                            "a recorded blob is there (writer {writer}, round {round})"
                        );
                        tokio::task::yield_now().await;
                    }
                    let delete = Change::DeleteRecord { key: mine };
                    meta.apply(vec![delete]).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    collecting.await.unwrap();
    let deleted = deleted.load(Ordering::SeqCst);
    println!("{deleted} blobs deleted meanwhile");
    assert!(
        deleted > 5,
        "the collector was at work meanwhile: {deleted}"
    );
}

on_both_engines!(
    hazard_l3_a_blob_goes_only_after_its_grace,
    hazard_l3_a_reference_made_during_the_grace_saves_the_blob,
    hazard_l3_a_blob_shared_by_two_repositories_needs_both_to_let_go,
    a_replaced_blob_is_unreferenced,
    a_shorter_grace_brings_the_date_forward,
    hazard_l3_a_blob_published_but_not_yet_recorded_stays,
    hazard_l3_publish_during_collect,
    a_derivation_goes_when_one_of_its_sources_has_been_replaced,
    a_source_that_comes_back_saves_its_derivation,
    hazard_l2_orphan_files_go_after_the_grace,
    hazard_l3_what_another_process_has_deleted_is_published_again,
    hazard_l2_what_cannot_be_published_again_gets_no_row,
    hazard_l3_a_condemned_blob_is_out_of_reach_until_it_is_taken_over,
    hazard_l3_while_a_blob_is_deleted_who_publishes_it_waits,
    hazard_l3_publish_while_another_process_collects,
);
