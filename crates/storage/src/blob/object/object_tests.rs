use futures_util::StreamExt as _;

use super::*;
use crate::blob::conformance;

fn store(objects: &Arc<MemoryObjects>) -> (tempfile::TempDir, ObjectBlobStore) {
    let directory = tempfile::tempdir().unwrap();
    let local = FsBlobStore::open(directory.path()).unwrap();
    let objects = Arc::clone(objects) as Arc<dyn ObjectStore>;
    (directory, ObjectBlobStore::new(objects, local))
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    let objects = Arc::new(MemoryObjects::with_delay(Duration::from_micros(300)));
    let (_directory, store) = store(&objects);
    conformance::suite(Arc::new(store)).await;
}

#[tokio::test]
async fn a_part_is_fetched_as_a_part() {
    let objects = Arc::new(MemoryObjects::default());
    let (_directory, store) = store(&objects);
    let bytes = content(3_000_000);
    let blob = store.put_bytes(&bytes).await.unwrap().descriptor;
    let part = store.open(&blob).await.unwrap().range(100_000, 100_010);
    assert_eq!(
        part.unwrap().read(10).await.unwrap(),
        bytes[100_000..100_010]
    );
    assert_eq!(objects.bytes_given(), 1 << 20, "the block that it is in");
    for (from, to) in [
        (0, 3_000_000),
        (1_048_575, 1_048_577),
        (2_097_152, 2_999_999),
    ] {
        let part = store.open(&blob).await.unwrap().range(from, to).unwrap();
        let read = part.read(to - from).await.unwrap();
        assert!(read == bytes[from as usize..to as usize], "{from} to {to}");
    }
}

/// Those that are due come in the order of their digests, a hundred thousand with four hundred of each first byte.
#[tokio::test(start_paused = true)]
async fn blobs_that_begin_alike_are_deleted_beside_each_other() {
    const DELAY: Duration = Duration::from_millis(10);
    const BLOBS: u32 = 128;
    let objects = Arc::new(MemoryObjects::with_delay(DELAY));
    let (_directory, store) = store(&objects);
    let digest = |number: u32| {
        let digits = larder_core::sha256(&number.to_le_bytes()).to_hex();
        let digits = format!("ab{}", &digits[2..]);
        Digest::from_hex(DigestAlgorithm::Sha256, &digits).unwrap()
    };
    let mut digests: Vec<Digest> = (0..BLOBS).map(digest).collect();
    digests.sort();
    let until = Instant::now() + Duration::from_mins(1);
    let began = tokio::time::Instant::now();
    let gone = store.delete_all(digests, until).await;
    let took = began.elapsed();
    assert!(
        gone.iter().all(|one| matches!(one, Some(Ok(false)))),
        "{gone:?}"
    );
    // Each takes two answers at least.
    let one_by_one = DELAY * 2 * BLOBS;
    assert!(took < one_by_one / 6, "{took:?} of {one_by_one:?}");
}

/// A store that gives the length of a blob late and then nothing has one time for both: whoever waits is told before ten seconds are over.
/// One that gives little at a time goes on.
#[tokio::test(start_paused = true)]
async fn first_bytes_have_one_time_with_all_that_must_be_asked_before() {
    for (length, delay, is_in_time) in [
        (10_000, 5_000, false),
        (3_000_000, 3_000, false),
        (10_000, 2_500, true),
        (3_000_000, 200, true),
    ] {
        let objects = Arc::new(MemoryObjects::with_delay(Duration::from_millis(delay)));
        let bytes = content(length);
        let blob = {
            let (_directory, store) = store(&objects);
            store.put_bytes(&bytes).await.unwrap().descriptor
        };
        let (_directory, store) = store(&objects);
        let began = tokio::time::Instant::now();
        let open = store.open(&blob).await;
        let first = match open {
            Ok(body) => body.chunks().next().await.unwrap().map_err(|_| ()),
            Err(_) => Err(()),
        };
        let took = began.elapsed();
        assert_eq!(first.is_ok(), is_in_time, "{length} {delay} {took:?}");
        assert!(is_in_time || took < Duration::from_secs(10), "{took:?}");
        if let Ok(first) = first {
            assert_eq!(first[..], bytes[..first.len()]);
        }
    }
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

/// The same object with one other byte, as a disk may bring it about.
async fn spoil(objects: &MemoryObjects, blob: &BlobDescriptor, bytes: &[u8], at: usize) {
    let mut spoilt = bytes.to_vec();
    spoilt[at] ^= 1;
    let key = key_of(&blob.digest).unwrap();
    objects
        .put(&key, Body::Memory(spoilt.into()))
        .await
        .unwrap();
}

#[tokio::test]
async fn bytes_that_are_not_those_that_were_stored_are_not_given() {
    for length in [100_000, 3_000_000] {
        let objects = Arc::new(MemoryObjects::default());
        let (_directory, store) = store(&objects);
        let bytes = content(length);
        let blob = store.put_bytes(&bytes).await.unwrap().descriptor;
        spoil(&objects, &blob, &bytes, length - 10).await;
        let open = store.open(&blob).await.unwrap();
        let mut given = Vec::new();
        let mut chunks = open.chunks();
        let error = loop {
            match chunks.next().await.unwrap() {
                Ok(chunk) => given.extend_from_slice(&chunk),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
        let last = (length - 1) >> 20 << 20;
        assert!(
            given == bytes[..last],
            "all blocks before, and nothing of it"
        );
        assert!(store.report().mismatches > 0);
        // It is as good as gone, and comes back with its bytes.
        let error = store.open(&blob).await.unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Corrupt);
        store.put_bytes(&bytes).await.unwrap();
        let open = store.open(&blob).await.unwrap();
        assert!(open.read(length as u64).await.unwrap() == bytes);
    }
}

#[tokio::test]
async fn sums_that_are_lost_are_made_anew_and_not_of_wrong_bytes() {
    let objects = Arc::new(MemoryObjects::default());
    let (_first, store_of_another) = store(&objects);
    let bytes = content(2_500_000);
    let blob = store_of_another.put_bytes(&bytes).await.unwrap().descriptor;
    let sums = key_of_sums(&blob.digest);
    let lose: [Option<Body>; 2] = [None, Some(Body::Memory("no sums".into()))];
    for lost in lose {
        match lost {
            None => {
                assert!(objects.head(&sums).await.unwrap().is_some());
                objects.delete(&sums).await.unwrap();
            }
            Some(body) => drop(objects.put(&sums, body).await.unwrap()),
        }
        let (_second, store) = store(&objects);
        let part = store.open(&blob).await.unwrap().range(2_400_000, 2_400_100);
        let read = part.unwrap().read(100).await.unwrap();
        assert!(read == bytes[2_400_000..2_400_100]);
        let length = Sums::encoded_length(blob.size);
        assert_eq!(objects.head(&sums).await.unwrap().unwrap().length, length);
    }
    assert!(objects.head(&sums).await.unwrap().is_some());
    objects.delete(&sums).await.unwrap();
    spoil(&objects, &blob, &bytes, 5).await;
    let (_third, store) = store(&objects);
    assert!(
        store
            .open(&blob)
            .await
            .unwrap()
            .read(3_000_000)
            .await
            .is_err()
    );
    assert_eq!(objects.head(&sums).await.unwrap(), None);
}

/// Two replicas: one has condemned a blob and deletes its object after the other has found it there, and before that one's row.
#[tokio::test]
async fn hazard_l3_an_object_that_another_replica_deletes_is_put_again() {
    for length in [5_000, 2_500_000] {
        let objects = Arc::new(MemoryObjects::default());
        let (_first, here) = store(&objects);
        let (_second, elsewhere) = store(&objects);
        let bytes = content(length);
        let fresh = here.put_bytes(&bytes).await.unwrap();
        drop(fresh);
        let found = here.put_bytes(&bytes).await.unwrap();
        let pin = found.pin.clone().unwrap();
        assert!(pin.is_in_place().await);
        assert!(elsewhere.delete(&found.descriptor.digest).await.unwrap());
        assert!(!pin.is_in_place().await);
        pin.put_back().await.unwrap();
        assert!(pin.is_in_place().await);
        let open = elsewhere.open(&found.descriptor).await.unwrap();
        assert!(open.read(length as u64).await.unwrap() == bytes);
    }
}

#[tokio::test]
async fn the_sums_go_with_their_blob() {
    let objects = Arc::new(MemoryObjects::default());
    let (_directory, store) = store(&objects);
    let blob = store
        .put_bytes(&content(2_000_000))
        .await
        .unwrap()
        .descriptor;
    assert_eq!(objects.count(), 2);
    assert!(store.delete(&blob.digest).await.unwrap());
    assert_eq!(objects.count(), 0);
}

#[tokio::test]
async fn keys_of_others_are_passed_over() {
    let objects = Arc::new(MemoryObjects::default());
    let (_directory, store) = store(&objects);
    let blob = store.put_bytes(b"ours").await.unwrap().descriptor;
    for key in ["sha256/0000", "sha256/zz", "other/x"] {
        objects
            .put(key, Body::Memory("theirs".into()))
            .await
            .unwrap();
    }
    for limit in [1, 2, 10] {
        let found = store.list(None, limit).await.unwrap();
        assert_eq!(found.len(), 1, "limit {limit}");
        assert_eq!(found[0].descriptor, blob);
    }
}

#[tokio::test]
async fn a_service_that_breaks_off_gives_no_body() {
    let objects = Arc::new(MemoryObjects::default());
    let (_directory, store) = store(&objects);
    let bytes = vec![7; 100_000];
    let blob = store.put_bytes(&bytes).await.unwrap().descriptor;
    let body = store.open(&blob).await.unwrap();
    objects.break_off(true);
    assert!(body.read(100_000).await.is_err());
    let error = store.open(&blob).await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Unavailable);
    objects.break_off(false);
    assert_eq!(body.read(100_000).await.unwrap(), bytes);
}
