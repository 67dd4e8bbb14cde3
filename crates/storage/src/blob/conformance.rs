//! What every [`BlobStore`] must do, as a suite that panics at the first breach. For the tests of all implementations.
#![expect(clippy::expect_used, reason = "a test suite: it panics to report")]

use std::os::unix::fs::FileExt as _;

use larder_core::{BlobDescriptor, Digest, DigestAlgorithm, sha256};

use super::{BlobStore, OpenBlob, SealedSpool};
use crate::error::StorageErrorKind;

/// Runs all checks against `store`, which must be empty.
pub fn suite(store: &dyn BlobStore) {
    round_trip(store);
    empty_blob(store);
    missing_and_wrong_size(store);
    same_digest_twice(store);
    unpublished_is_unreachable(store);
    length_must_agree(store);
    batches_answer_item_by_item(store);
    concurrent_publishes_of_one_digest(store);
    pins_hold(store);
    deleted_blobs_stay_readable_where_open(store);
    listing(store);
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

fn content(open: &OpenBlob) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(open.length).expect("a small blob")];
    open.file
        .read_exact_at(&mut bytes, 0)
        .expect("the whole blob");
    bytes
}

fn round_trip(store: &dyn BlobStore) {
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    let info = store
        .publish(vec![sealed(store, &bytes)])
        .remove(0)
        .expect("published");
    assert_eq!(info.descriptor, descriptor(&bytes));
    let open = store.open(&info.descriptor).expect("opened");
    assert_eq!(open.length, 100_000);
    assert_eq!(content(&open), bytes);
}

fn empty_blob(store: &dyn BlobStore) {
    let info = store.put_bytes(b"").expect("published");
    assert_eq!(store.open(&info.descriptor).expect("opened").length, 0);
}

fn missing_and_wrong_size(store: &dyn BlobStore) {
    let absent = store
        .open(&descriptor(b"never stored"))
        .expect_err("nothing there");
    assert_eq!(absent.kind, StorageErrorKind::NotFound);
    let md5 = Digest::new(DigestAlgorithm::Md5, &[7; 16]).expect("sixteen bytes");
    let other = store
        .open(&BlobDescriptor {
            digest: md5,
            size: 1,
        })
        .expect_err("blobs have SHA-256 names");
    assert_eq!(other.kind, StorageErrorKind::NotFound);
    let mut wrong = store
        .put_bytes(b"right size")
        .expect("published")
        .descriptor;
    wrong.size += 1;
    assert_eq!(
        store.open(&wrong).expect_err("the size differs").kind,
        StorageErrorKind::Corrupt
    );
}

fn same_digest_twice(store: &dyn BlobStore) {
    let first = store.put_bytes(b"twice").expect("first");
    let second = store.put_bytes(b"twice").expect("second");
    assert_eq!(first.descriptor, second.descriptor);
    assert_eq!(
        content(&store.open(&first.descriptor).expect("opened")),
        b"twice"
    );
}

fn unpublished_is_unreachable(store: &dyn BlobStore) {
    let spooled = sealed(store, b"staged only");
    assert_eq!(
        store
            .open(&spooled.descriptor)
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
            .expect_err("dropped")
            .kind,
        StorageErrorKind::NotFound
    );
}

fn length_must_agree(store: &dyn BlobStore) {
    let mut short = sealed(store, b"short");
    short.descriptor = descriptor(b"shorter than promised");
    let promised = short.descriptor.clone();
    let error = store
        .publish(vec![short])
        .remove(0)
        .expect_err("five bytes are not twenty-one");
    assert_eq!(error.kind, StorageErrorKind::Corrupt);
    assert_eq!(
        store.open(&promised).expect_err("not published").kind,
        StorageErrorKind::NotFound
    );
}

fn batches_answer_item_by_item(store: &dyn BlobStore) {
    let mut bad = sealed(store, b"batch bad");
    bad.descriptor.size = 1;
    let batch = vec![
        sealed(store, b"batch one"),
        bad,
        sealed(store, b"batch one"),
        sealed(store, b"batch two"),
    ];
    let results = store.publish(batch);
    let good: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(good, [true, false, true, true]);
    assert_eq!(
        content(&store.open(&descriptor(b"batch one")).expect("opened")),
        b"batch one"
    );
    assert_eq!(
        content(&store.open(&descriptor(b"batch two")).expect("opened")),
        b"batch two"
    );
    assert!(store.publish(Vec::new()).is_empty());
}

fn concurrent_publishes_of_one_digest(store: &dyn BlobStore) {
    let bytes = vec![42; 50_000];
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let info = store
                            .publish(vec![sealed(store, &bytes)])
                            .remove(0)
                            .expect("published");
                        let open = store
                            .open(&info.descriptor)
                            .expect("there from the moment of publication");
                        assert_eq!(content(&open), bytes);
                        drop(info);
                        store
                            .delete(&sha256(&bytes))
                            .expect("deleted or held by another");
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("no thread failed");
        }
    });
}

fn pins_hold(store: &dyn BlobStore) {
    let info = store.put_bytes(b"pinned").expect("published");
    let digest = info.descriptor.digest.clone();
    let copy = info.clone();
    drop(info);
    assert!(
        !store.delete(&digest).expect("asked"),
        "a clone of its BlobInfo lives"
    );
    store.open(&copy.descriptor).expect("still there");
    drop(copy);
    assert!(store.delete(&digest).expect("asked"));
    assert!(!store.delete(&digest).expect("asked"), "gone already");
}

fn deleted_blobs_stay_readable_where_open(store: &dyn BlobStore) {
    let blob = store
        .put_bytes(b"open while deleted")
        .expect("published")
        .descriptor;
    let open = store.open(&blob).expect("opened");
    assert!(store.delete(&blob.digest).expect("deleted"));
    assert_eq!(content(&open), b"open while deleted");
    assert_eq!(
        store.open(&blob).expect_err("gone").kind,
        StorageErrorKind::NotFound
    );
}

fn listing(store: &dyn BlobStore) {
    for n in 0..20_u8 {
        store.put_bytes(&[n, n, n]).expect("published");
    }
    let all: Vec<_> = store.list(None, 10_000).expect("listed");
    assert!(all.is_sorted_by(|a, b| a.descriptor.digest < b.descriptor.digest));
    for n in 0..20_u8 {
        assert!(
            all.iter()
                .any(|blob| blob.descriptor == descriptor(&[n, n, n]))
        );
    }
    let (first, rest) = all.split_at(5);
    assert_eq!(store.list(None, 5).expect("listed"), first);
    assert_eq!(
        store
            .list(first.last().map(|blob| &blob.descriptor.digest), 10_000)
            .expect("listed"),
        rest
    );
}
