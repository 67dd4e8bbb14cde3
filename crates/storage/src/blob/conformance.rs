//! What every [`BlobStore`] must do, as a suite that panics at the first breach. For the tests of all implementations.
#![expect(clippy::expect_used, reason = "a test suite: it panics to report")]

use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_core::{BlobDescriptor, Digest, DigestAlgorithm, sha256};

use super::{BlobStore, SealedSpool};
use crate::body::Body;
use crate::error::StorageErrorKind;

/// Runs all checks against `store`, which must be empty, on a runtime of several threads.
pub async fn suite(store: Arc<dyn BlobStore>) {
    let shared = Arc::clone(&store);
    let store = &*store;
    round_trip(store).await;
    parts(store).await;
    empty_blob(store).await;
    missing_and_wrong_size(store).await;
    same_digest_twice(store).await;
    unpublished_is_unreachable(store).await;
    length_must_agree(store).await;
    batches_answer_item_by_item(store).await;
    concurrent_publishes_of_one_digest(&shared).await;
    pins_hold(store).await;
    deleted_blobs_stay_readable_where_open(store).await;
    deleted_together(store).await;
    listing(store).await;
}

fn descriptor(bytes: &[u8]) -> BlobDescriptor {
    BlobDescriptor {
        digest: sha256(bytes),
        size: bytes.len() as u64,
    }
}

fn sealed(store: &dyn BlobStore, bytes: &[u8]) -> SealedSpool {
    let mut spool = store.spool().expect("a spool");
    for chunk in bytes.chunks(1000) {
        spool.append(chunk).expect("append");
    }
    SealedSpool {
        spool,
        descriptor: descriptor(bytes),
    }
}

async fn content(body: &Body) -> Vec<u8> {
    let all = body.read(1 << 20).await.expect("the whole blob").to_vec();
    // On a thread that may wait, the same.
    let body = body.clone();
    let read = tokio::task::spawn_blocking(move || body.read_blocking(1 << 20));
    let blocking = read.await.expect("no panic").expect("the whole blob");
    assert!(all == blocking);
    all
}

async fn round_trip(store: &dyn BlobStore) {
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    let info = store
        .publish(vec![sealed(store, &bytes)])
        .await
        .remove(0)
        .expect("published");
    assert_eq!(info.descriptor, descriptor(&bytes));
    let open = store.open(&info.descriptor).await.expect("opened");
    assert_eq!(open.length(), Some(100_000));
    assert_eq!(content(&open).await, bytes);
}

async fn parts(store: &dyn BlobStore) {
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n % 241) as u8).collect();
    let info = store.put_bytes(&bytes).await.expect("published");
    let open = store.open(&info.descriptor).await.expect("opened");
    for (from, to) in [(0, 1), (99_999, 100_000), (30_000, 70_000), (5, 5)] {
        let part = open.range(from, to).expect("a part");
        assert_eq!(part.length(), Some(to - from));
        assert_eq!(content(&part).await, bytes[from as usize..to as usize]);
    }
    assert!(open.range(0, 100_001).is_none(), "more than there is");
    assert!(open.read(99_999).await.is_err(), "more than may be read");
}

async fn empty_blob(store: &dyn BlobStore) {
    let info = store.put_bytes(b"").await.expect("published");
    assert_eq!(
        store.open(&info.descriptor).await.expect("opened").length(),
        Some(0)
    );
}

async fn missing_and_wrong_size(store: &dyn BlobStore) {
    let absent = store
        .open(&descriptor(b"never stored"))
        .await
        .expect_err("nothing there");
    assert_eq!(absent.kind, StorageErrorKind::NotFound);
    let md5 = Digest::new(DigestAlgorithm::Md5, &[7; 16]).expect("sixteen bytes");
    let other = store
        .open(&BlobDescriptor {
            digest: md5,
            size: 1,
        })
        .await
        .expect_err("blobs have SHA-256 names");
    assert_eq!(other.kind, StorageErrorKind::NotFound);
    let mut wrong = store
        .put_bytes(b"right size")
        .await
        .expect("published")
        .descriptor;
    wrong.size += 1;
    assert_eq!(
        store.open(&wrong).await.expect_err("the size differs").kind,
        StorageErrorKind::Corrupt
    );
}

async fn same_digest_twice(store: &dyn BlobStore) {
    let first = store.put_bytes(b"twice").await.expect("first");
    let second = store.put_bytes(b"twice").await.expect("second");
    assert_eq!(first.descriptor, second.descriptor);
    assert_eq!(
        content(&store.open(&first.descriptor).await.expect("opened")).await,
        b"twice"
    );
}

async fn unpublished_is_unreachable(store: &dyn BlobStore) {
    let spooled = sealed(store, b"staged only");
    assert_eq!(
        store
            .open(&spooled.descriptor)
            .await
            .expect_err("not published")
            .kind,
        StorageErrorKind::NotFound
    );
    let reader = spooled.spool.reader();
    drop(spooled);
    let mut bytes = [0; 11];
    reader
        .read_exact_at(&mut bytes, 0)
        .expect("readers keep what was spooled");
    assert_eq!(&bytes, b"staged only");
    assert_eq!(
        store
            .open(&descriptor(b"staged only"))
            .await
            .expect_err("dropped")
            .kind,
        StorageErrorKind::NotFound
    );
}

async fn length_must_agree(store: &dyn BlobStore) {
    let mut short = sealed(store, b"short");
    short.descriptor = descriptor(b"shorter than promised");
    let promised = short.descriptor.clone();
    let error = store
        .publish(vec![short])
        .await
        .remove(0)
        .expect_err("five bytes are not twenty-one");
    assert_eq!(error.kind, StorageErrorKind::Corrupt);
    assert_eq!(
        store.open(&promised).await.expect_err("not published").kind,
        StorageErrorKind::NotFound
    );
}

async fn batches_answer_item_by_item(store: &dyn BlobStore) {
    let mut bad = sealed(store, b"batch bad");
    bad.descriptor.size = 1;
    let batch = vec![
        sealed(store, b"batch one"),
        bad,
        sealed(store, b"batch one"),
        sealed(store, b"batch two"),
    ];
    let results = store.publish(batch).await;
    let good: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(good, [true, false, true, true]);
    assert_eq!(
        content(&store.open(&descriptor(b"batch one")).await.expect("opened")).await,
        b"batch one"
    );
    assert_eq!(
        content(&store.open(&descriptor(b"batch two")).await.expect("opened")).await,
        b"batch two"
    );
    assert!(store.publish(Vec::new()).await.is_empty());
}

async fn concurrent_publishes_of_one_digest(store: &Arc<dyn BlobStore>) {
    let tasks: Vec<_> = (0..8)
        .map(|_| tokio::spawn(publish_and_delete(Arc::clone(store), vec![42; 50_000])))
        .collect();
    for task in tasks {
        task.await.expect("no task failed");
    }
}

async fn publish_and_delete(store: Arc<dyn BlobStore>, bytes: Vec<u8>) {
    for _ in 0..20 {
        let batch = vec![sealed(&*store, &bytes)];
        let info = store.publish(batch).await.remove(0).expect("published");
        let open = store
            .open(&info.descriptor)
            .await
            .expect("there from the moment of publication");
        assert_eq!(content(&open).await, bytes);
        drop(info);
        store
            .delete(&sha256(&bytes))
            .await
            .expect("deleted or held by another");
    }
}

async fn pins_hold(store: &dyn BlobStore) {
    let info = store.put_bytes(b"pinned").await.expect("published");
    let digest = info.descriptor.digest.clone();
    let copy = info.clone();
    drop(info);
    assert!(
        !store.delete(&digest).await.expect("asked"),
        "a clone of its BlobInfo lives"
    );
    store.open(&copy.descriptor).await.expect("still there");
    drop(copy);
    assert!(store.delete(&digest).await.expect("asked"));
    assert!(!store.delete(&digest).await.expect("asked"), "gone already");
}

async fn deleted_together(store: &dyn BlobStore) {
    let held = store.put_bytes(b"together 0").await.expect("published");
    let mut digests = vec![held.descriptor.digest.clone()];
    for number in 1..40 {
        let bytes = format!("together {number}").into_bytes();
        let info = store.put_bytes(&bytes).await.expect("published");
        digests.push(info.descriptor.digest);
    }
    digests.push(sha256(b"never there"));
    let over = store.delete_all(digests.clone(), Instant::now()).await;
    assert!(over.iter().all(Option::is_none), "its time is over");
    let until = Instant::now() + Duration::from_secs(60);
    let deleted = store.delete_all(digests.clone(), until).await;
    let deleted: Vec<bool> = deleted
        .into_iter()
        .map(|one| one.expect("in time").expect("asked"))
        .collect();
    let expected: Vec<bool> = (0..41).map(|number| (1..40).contains(&number)).collect();
    assert_eq!(deleted, expected);
    store.open(&held.descriptor).await.expect("still there");
    drop(held);
    let last = store.delete_all(digests[..1].to_vec(), until).await;
    assert!(matches!(last[..], [Some(Ok(true))]));
    assert!(store.delete_all(Vec::new(), until).await.is_empty());
}

async fn deleted_blobs_stay_readable_where_open(store: &dyn BlobStore) {
    let blob = store
        .put_bytes(b"open while deleted")
        .await
        .expect("published")
        .descriptor;
    let open = store.open(&blob).await.expect("opened");
    assert!(store.delete(&blob.digest).await.expect("deleted"));
    match &open {
        // Of what is fetched while it is read nothing is left: that is an error, and never a shorter body.
        Body::Stream(_) => assert!(open.read(1 << 20).await.is_err()),
        _ => assert_eq!(content(&open).await, b"open while deleted"),
    }
    assert_eq!(
        store.open(&blob).await.expect_err("gone").kind,
        StorageErrorKind::NotFound
    );
}

async fn listing(store: &dyn BlobStore) {
    for n in 0..20_u8 {
        store.put_bytes(&[n, n, n]).await.expect("published");
    }
    let all: Vec<_> = store.list(None, 10_000).await.expect("listed");
    assert!(all.is_sorted_by(|a, b| a.descriptor.digest < b.descriptor.digest));
    for n in 0..20_u8 {
        assert!(
            all.iter()
                .any(|blob| blob.descriptor == descriptor(&[n, n, n]))
        );
    }
    let (first, rest) = all.split_at(5);
    assert_eq!(store.list(None, 5).await.expect("listed"), first);
    assert_eq!(
        store
            .list(first.last().map(|blob| &blob.descriptor.digest), 10_000)
            .await
            .expect("listed"),
        rest
    );
}
