//! Scrubs and the collector on demand, over both engines: what is damaged is found and nothing else, and one process works on it at a time.
#![expect(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use larder_core::{BlobDescriptor, SystemClock, UnixMillis};
use larder_storage::{
    BlobStore, DamagedBlob, Flaw, FsBlobStore, Heap, Mend, MetadataStore, Named, PathOf,
    StorageError, Writer,
};
use support::place::{Place, on_both_engines};
use support::{key, store};

/// As fast as may be.
const RATE: u64 = 1 << 40;

/// Forgets what can be had again, and remembers what it was told.
struct Dropping<'d> {
    meta: &'d MetadataStore,
    blobs: &'d Arc<dyn BlobStore>,
    looked_at: AtomicU64,
    told: Mutex<Vec<DamagedBlob>>,
}

impl<'d> Dropping<'d> {
    fn new(meta: &'d MetadataStore, blobs: &'d Arc<dyn BlobStore>) -> Self {
        Self {
            meta,
            blobs,
            looked_at: AtomicU64::new(0),
            told: Mutex::default(),
        }
    }
}

fn whole<'p>(path: &'p str, _: &str) -> &'p str {
    path
}

impl Mend for Dropping<'_> {
    fn path_of(&self) -> PathOf {
        whole
    }

    fn looked_at(&self, _: u64) {
        self.looked_at.fetch_add(1, Ordering::Relaxed);
    }

    fn mend<'a>(
        &'a self,
        damaged: &'a DamagedBlob,
    ) -> BoxFuture<'a, Result<Vec<Named>, StorageError>> {
        async move {
            self.told.lock().unwrap().push(damaged.clone());
            let writer = Writer::unique();
            self.meta
                .forget_damaged(writer, damaged, self.blobs, true)
                .await?;
            Ok(Named::all_of(damaged, self.path_of()))
        }
        .boxed()
    }
}

fn path_of(place: &Place, blob: &BlobDescriptor) -> std::path::PathBuf {
    let digits = blob.digest.to_hex();
    let folder = place.directory().join("blobs/sha256");
    folder.join(&digits[..2]).join(&digits[2..4]).join(&digits)
}

fn flip(place: &Place, blob: &BlobDescriptor) {
    let path = path_of(place, blob);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&path, bytes).unwrap();
}

async fn what_is_damaged_is_found_and_nothing_else(place: Place) {
    let meta = place.open().await;
    let blobs: Arc<dyn BlobStore> = Arc::new(FsBlobStore::open(place.directory()).unwrap());
    let mut stored = Vec::new();
    for number in 0..9_u8 {
        let bytes = vec![number; 3_000 + usize::from(number)];
        stored.push(store(&meta, &blobs, &key("files", &number.to_string()), &bytes).await);
    }
    flip(&place, &stored[1]);
    std::fs::remove_file(path_of(&place, &stored[4])).unwrap();
    std::fs::write(path_of(&place, &stored[7]), b"short").unwrap();
    assert!(meta.begin_scrub("1", RATE, UnixMillis(5)).await.unwrap());
    assert!(!meta.begin_scrub("2", RATE, UnixMillis(6)).await.unwrap());
    let mend = Dropping::new(&meta, &blobs);
    let ran = meta.run_scrub(&blobs, "me", &SystemClock, &mend).await;
    assert!(ran.unwrap());
    let scrub = meta.last_scrub().await.unwrap().unwrap();
    assert_eq!((&*scrub.state, scrub.damaged), ("done", 3));
    assert_eq!((scrub.blobs, scrub.total_blobs), (9, 9));
    assert_eq!(mend.looked_at.load(Ordering::Relaxed), 9);
    let found = meta.scrub_findings("1", 0, 100).await.unwrap();
    let mut found: Vec<(&str, &str)> = found
        .iter()
        .map(|found| (&*found.path, &*found.flaw))
        .collect();
    found.sort_unstable();
    let expected = [("1", "wrong"), ("4", "missing"), ("7", "wrong")];
    assert_eq!(found, expected);
    // Their records and files are gone, the others' are not.
    for (number, blob) in stored.iter().enumerate() {
        let is_damaged = [1, 4, 7].contains(&number);
        let record = meta.record(&key("files", &number.to_string())).await;
        assert_eq!(record.unwrap().is_none(), is_damaged, "{number}");
        assert_eq!(!path_of(&place, blob).exists(), is_damaged, "{number}");
    }
    // There is nothing more to do, and the next scrub finds nothing.
    let ran = meta.run_scrub(&blobs, "me", &SystemClock, &mend).await;
    assert!(!ran.unwrap());
    assert!(meta.begin_scrub("3", RATE, UnixMillis(7)).await.unwrap());
    let ran = meta.run_scrub(&blobs, "me", &SystemClock, &mend).await;
    assert!(ran.unwrap());
    let scrub = meta.last_scrub().await.unwrap().unwrap();
    assert_eq!((&*scrub.id, scrub.blobs, scrub.damaged), ("3", 6, 0));
    let old = meta.scrub_findings("1", 0, 100).await.unwrap();
    assert!(old.is_empty(), "an earlier scrub's findings are forgotten");
}

/// What the system says of such names, and would say again and again, ends no scrub.
async fn a_scrub_ends_whatever_stands_in_a_blob_s_place(place: Place) {
    let meta = place.open().await;
    let blobs: Arc<dyn BlobStore> = Arc::new(FsBlobStore::open(place.directory()).unwrap());
    let mut stored = Vec::new();
    for number in 0..6_u8 {
        stored.push(
            store(
                &meta,
                &blobs,
                &key("files", &number.to_string()),
                &[number; 3_000],
            )
            .await,
        );
    }
    let paths: Vec<_> = stored.iter().map(|blob| path_of(&place, blob)).collect();
    paths[..4]
        .iter()
        .for_each(|path| std::fs::remove_file(path).unwrap());
    std::os::unix::fs::symlink(&paths[0], &paths[0]).unwrap();
    std::fs::create_dir(&paths[1]).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&paths[2]).status();
    assert!(made.unwrap().success());
    let shard = paths[3].parent().unwrap();
    std::fs::remove_dir(shard).unwrap();
    std::fs::write(shard, b"x").unwrap();
    assert!(meta.begin_scrub("1", RATE, UnixMillis(5)).await.unwrap());
    let mend = Dropping::new(&meta, &blobs);
    let ran = meta.run_scrub(&blobs, "me", &SystemClock, &mend);
    let ran = tokio::time::timeout(Duration::from_secs(60), ran).await;
    assert!(ran.unwrap().unwrap());
    let scrub = meta.last_scrub().await.unwrap().unwrap();
    assert_eq!((&*scrub.state, scrub.blobs, scrub.damaged), ("done", 6, 4));
    let found = meta.scrub_findings("1", 0, 100).await.unwrap();
    let flaws: BTreeMap<&str, &str> = found
        .iter()
        .map(|found| (&*found.path, &*found.flaw))
        .collect();
    assert_eq!(
        (flaws["0"], flaws["1"], flaws["3"]),
        ("unreadable", "wrong", "missing")
    );
    assert_eq!(flaws["2"], "wrong", "a pipe");
    // What is published again stands where it should.
    for number in 0..6_u8 {
        let key = key("files", &number.to_string());
        let blob = store(&meta, &blobs, &key, &[number; 3_000]).await;
        assert!(support::is_intact(&*blobs, &blob).await, "{number}");
    }
}

/// Whoever publishes the right bytes while the wrong ones are there replaces them, although they have the right length.
async fn what_is_published_replaces_what_is_doubted(place: Place) {
    let meta = place.open().await;
    let blobs: Arc<dyn BlobStore> = Arc::new(FsBlobStore::open(place.directory()).unwrap());
    let good = vec![9; 5_000];
    let blob = store(&meta, &blobs, &key("files", "a"), &good).await;
    flip(&place, &blob);
    store(&meta, &blobs, &key("files", "b"), &good).await;
    let wrong = std::fs::read(path_of(&place, &blob)).unwrap();
    assert_ne!(wrong, good, "a file of the right length is left alone");
    blobs.doubt(&blob.digest);
    store(&meta, &blobs, &key("files", "b"), &good).await;
    let right = std::fs::read(path_of(&place, &blob)).unwrap();
    assert_eq!(right, good);
    assert!(
        support::is_intact(&*blobs, &blob).await,
        "an open file of before is not read"
    );
}

/// A scrub at a rate that would take a day.
async fn a_scrub_is_one_process_s_until_it_is_cancelled(place: Place) {
    let (mine, others) = (place.open().await, place.open().await);
    let blobs: Arc<dyn BlobStore> = Arc::new(FsBlobStore::open(place.directory()).unwrap());
    for number in 0..3_u8 {
        store(
            &mine,
            &blobs,
            &key("files", &number.to_string()),
            &[number; 4_000],
        )
        .await;
    }
    assert!(mine.begin_scrub("1", 1, UnixMillis(5)).await.unwrap());
    let mend = Dropping::new(&mine, &blobs);
    let work = mine.run_scrub(&blobs, "me", &SystemClock, &mend);
    tokio::pin!(work);
    let begun = tokio::time::timeout(Duration::from_secs(1), &mut work).await;
    assert!(begun.is_err(), "it takes its time");
    if place.is_postgres() {
        let mend = Dropping::new(&others, &blobs);
        let ran = others.run_scrub(&blobs, "you", &SystemClock, &mend).await;
        assert!(!ran.unwrap(), "another process leaves it alone");
    }
    assert!(others.cancel_scrub(UnixMillis(9)).await.unwrap());
    let ended = tokio::time::timeout(Duration::from_secs(30), work).await;
    assert!(ended.unwrap().unwrap());
    let scrub = mine.last_scrub().await.unwrap().unwrap();
    assert_eq!(
        (&*scrub.state, scrub.ended_at),
        ("cancelled", Some(UnixMillis(9)))
    );
    assert!(!others.cancel_scrub(UnixMillis(10)).await.unwrap());
}

/// One that cannot go on ends where it is, and not one that has come further meanwhile.
async fn a_scrub_can_be_given_up(place: Place) {
    let meta = place.open().await;
    assert!(meta.begin_scrub("1", 1, UnixMillis(5)).await.unwrap());
    let mut scrub = meta.last_scrub().await.unwrap().unwrap();
    scrub.blobs += 1;
    assert!(!meta.give_scrub_up(&scrub, UnixMillis(6)).await.unwrap());
    scrub.blobs -= 1;
    assert!(meta.give_scrub_up(&scrub, UnixMillis(7)).await.unwrap());
    assert!(!meta.give_scrub_up(&scrub, UnixMillis(8)).await.unwrap());
    let ended = meta.last_scrub().await.unwrap().unwrap();
    assert_eq!(
        (&*ended.state, ended.ended_at),
        ("failed", Some(UnixMillis(7)))
    );
    assert!(meta.begin_scrub("2", 1, UnixMillis(9)).await.unwrap());
}

async fn garbage_is_told_by_reason_and_goes(place: Place) {
    let meta = place.open().await;
    let blobs: Arc<dyn BlobStore> = Arc::new(FsBlobStore::open(place.directory()).unwrap());
    let kept = store(&meta, &blobs, &key("files", "kept"), &[1; 100]).await;
    let replaced = store(&meta, &blobs, &key("files", "a"), &[2; 200]).await;
    store(&meta, &blobs, &key("files", "a"), &[3; 300]).await;
    let orphan = blobs.put_bytes(&[4; 400]).await.unwrap().descriptor;
    let (now, day) = (
        larder_core::Clock::now(&SystemClock),
        Duration::from_hours(24),
    );
    let heap = |blobs, bytes| Heap { blobs, bytes };
    let garbage = meta.look_for_garbage(now, day, &blobs).await.unwrap();
    assert_eq!(
        (garbage.unreferenced, garbage.orphans),
        (heap(0, 0), heap(0, 0))
    );
    assert_eq!(garbage.waiting, heap(1, 200));
    // A first run dates it, a day later it is due.
    let garbage = meta.collect_garbage(now, day, &blobs).await.unwrap();
    assert_eq!(garbage.waiting, heap(1, 200));
    let later = now.plus(day + Duration::from_mins(1));
    let expected = (heap(1, 200), heap(1, 400), heap(0, 0));
    for _ in 0..2 {
        let garbage = meta.look_for_garbage(later, day, &blobs).await.unwrap();
        let found = (garbage.unreferenced, garbage.orphans, garbage.waiting);
        assert_eq!(found, expected, "a look changes nothing");
        assert!(path_of(&place, &replaced).exists() && path_of(&place, &orphan).exists());
    }
    let garbage = meta.collect_garbage(later, day, &blobs).await.unwrap();
    let found = (garbage.unreferenced, garbage.orphans, garbage.waiting);
    assert_eq!(found, expected);
    assert!(!path_of(&place, &replaced).exists() && !path_of(&place, &orphan).exists());
    assert!(path_of(&place, &kept).exists());
    let none = meta.collect_garbage(later, day, &blobs).await.unwrap();
    assert_eq!(none, larder_storage::Garbage::default());
}

on_both_engines!(
    what_is_damaged_is_found_and_nothing_else,
    a_scrub_ends_whatever_stands_in_a_blob_s_place,
    what_is_published_replaces_what_is_doubted,
    a_scrub_is_one_process_s_until_it_is_cancelled,
    a_scrub_can_be_given_up,
    garbage_is_told_by_reason_and_goes,
);

#[test]
fn flaws_have_words() {
    let words = [Flaw::Missing, Flaw::Wrong, Flaw::Unreadable].map(Flaw::as_str);
    assert_eq!(words, ["missing", "wrong", "unreadable"]);
}
