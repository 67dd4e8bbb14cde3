//! Rows of uploaded files: decided inside the transaction, counted with them, and kept from the collector.
#![expect(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder_core::{ManualClock, RepositoryName, StoredHeaders, SystemClock, UnixMillis};
use larder_storage::{
    BlobInfo, BlobStore, FsBlobStore, LocalChange, LocalChild, LocalDecision, LocalFile,
    LocalOutcome, LocalState, LocalUsage, MemoryBlobStore, MetadataStore,
};
use support::place::{Place, on_both_engines};
use support::{read, repository};

fn file(blob: &BlobInfo) -> LocalFile {
    LocalFile {
        blob: blob.descriptor.clone(),
        headers: StoredHeaders {
            content_type: Some("text/plain".to_owned()),
            ..StoredHeaders::default()
        },
        uploaded_at: UnixMillis(1_000),
        written_at: UnixMillis(0),
    }
}

fn always(_: &LocalState) -> LocalDecision<()> {
    LocalDecision::Change
}

async fn put(
    meta: &MetadataStore,
    blobs: &dyn BlobStore,
    repo: &RepositoryName,
    path: &str,
    bytes: &[u8],
) {
    let blob = blobs.put_bytes(bytes).await.unwrap();
    let change = LocalChange::Put {
        file: &file(&blob),
        blob: &blob,
        clock: &SystemClock,
    };
    let outcome = meta.change_local_file(repo, path, change, always).await;
    assert!(
        matches!(outcome, Ok(LocalOutcome::Changed(_))),
        "{outcome:?}"
    );
}

async fn usage(meta: &MetadataStore, repo: &RepositoryName) -> LocalUsage {
    meta.local_state(repo, "none").await.unwrap().usage
}

async fn sums_follow_every_change(place: Place) {
    let (meta, blobs) = (place.open().await, MemoryBlobStore::new());
    let (a, b) = (repository("a"), repository("b"));
    let of = |files, bytes| LocalUsage { files, bytes };
    put(&meta, &blobs, &a, "x", b"12345").await;
    put(&meta, &blobs, &a, "y", b"12345").await;
    put(&meta, &blobs, &b, "x", b"1").await;
    assert_eq!(
        usage(&meta, &a).await,
        of(2, 10),
        "shared bytes count twice"
    );
    put(&meta, &blobs, &a, "x", b"123").await;
    assert_eq!(usage(&meta, &a).await, of(2, 8));
    let gone = meta
        .change_local_file(&a, "y", LocalChange::Delete, always)
        .await;
    assert!(matches!(gone, Ok(LocalOutcome::Changed(before)) if before.exists && before.size == 5));
    assert_eq!(usage(&meta, &a).await, of(1, 3));
    assert_eq!(usage(&meta, &b).await, of(1, 1));
    let sizes = meta.local_sizes().await.unwrap();
    let sizes: Vec<_> = sizes
        .iter()
        .map(|s| (&*s.repository, s.files, s.bytes))
        .collect();
    assert_eq!(sizes, [("a", 1, 3), ("b", 1, 1)]);
    // What is refused or kept changes nothing.
    let blob = blobs.put_bytes(b"other").await.unwrap();
    let change = LocalChange::Put {
        file: &file(&blob),
        blob: &blob,
        clock: &SystemClock,
    };
    let refused = meta
        .change_local_file(&a, "x", change, |state| {
            assert_eq!(state.file.as_ref().unwrap().blob.size, 3);
            LocalDecision::Refuse("no")
        })
        .await;
    assert!(matches!(refused, Ok(LocalOutcome::Refused("no"))));
    let kept = meta
        .change_local_file(&a, "x", change, |_| LocalDecision::<()>::Keep)
        .await;
    assert!(matches!(kept, Ok(LocalOutcome::Kept(_))));
    let held = meta.local_file(&a, "x").await.unwrap().unwrap();
    assert_eq!(read(&blobs, &held.blob).await, b"123");
    assert_eq!(held.headers.content_type.as_deref(), Some("text/plain"));
}

/// What clients compare dates with is in the order of what is written, whenever the bytes were uploaded and whatever a clock says.
async fn hazard_w9_what_replaces_a_file_is_later_than_it(place: Place) {
    let (meta, blobs, a) = (place.open().await, MemoryBlobStore::new(), repository("a"));
    for (clock, written) in [
        (10_500, 10_500),
        (10_500, 10_501),
        // Another replica's clock is a little behind.
        (10_300, 10_502),
        (12_000, 12_000),
        // A clock was set back: what is there may have been told with its second.
        (3_000, 13_000),
        (14_000, 14_000),
    ] {
        let blob = blobs
            .put_bytes(format!("{clock} {written}").as_bytes())
            .await;
        let blob = blob.unwrap();
        let change = LocalChange::Put {
            file: &file(&blob),
            blob: &blob,
            clock: &ManualClock::new(UnixMillis(clock)),
        };
        let outcome = meta.change_local_file(&a, "x", change, always).await;
        assert!(matches!(outcome, Ok(LocalOutcome::Changed(_))));
        let held = meta.local_file(&a, "x").await.unwrap().unwrap();
        assert_eq!(held.written_at, UnixMillis(written), "at {clock}");
        assert_eq!(held.uploaded_at, UnixMillis(1_000), "as an archive says");
    }
}

/// Whoever decides sees what is there when it is written, and not what was there when the body began.
async fn hazard_l5_of_many_who_want_to_be_first_one_is(place: Place) {
    let meta = place.open().await;
    let blobs: Arc<dyn BlobStore> = Arc::new(FsBlobStore::open(place.directory()).unwrap());
    let won = Arc::new(AtomicUsize::new(0));
    let tasks = (0..32_u8).map(|number| {
        let (meta, blobs, won) = (meta.clone(), Arc::clone(&blobs), Arc::clone(&won));
        tokio::spawn(async move {
            let blob = blobs.put_bytes(&[number; 64]).await.unwrap();
            let change = LocalChange::Put {
                file: &file(&blob),
                blob: &blob,
                clock: &SystemClock,
            };
            let if_absent = |state: &LocalState| {
                if state.exists {
                    LocalDecision::Refuse(())
                } else {
                    LocalDecision::Change
                }
            };
            let outcome = meta
                .change_local_file(&repository("a"), "x", change, if_absent)
                .await;
            let descriptor = blob.descriptor.clone();
            drop(blob);
            if matches!(outcome.unwrap(), LocalOutcome::Changed(_)) {
                won.fetch_add(1, Ordering::SeqCst);
            } else {
                assert!(meta.collect_blob(&descriptor, &blobs).await.unwrap());
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(won.load(Ordering::SeqCst), 1);
    assert_eq!(
        usage(&meta, &repository("a")).await,
        LocalUsage {
            files: 1,
            bytes: 64
        }
    );
    assert_eq!(
        blobs.list(None, 100).await.unwrap().len(),
        1,
        "the others left no file"
    );
    let held = meta
        .local_file(&repository("a"), "x")
        .await
        .unwrap()
        .unwrap();
    let bytes = read(&*blobs, &held.blob).await;
    assert!(bytes.iter().all(|byte| *byte == bytes[0]));
}

async fn hazard_l3_the_collector_leaves_uploads_alone_and_takes_what_they_leave(place: Place) {
    let meta = place.open().await;
    let blobs: Arc<dyn BlobStore> = Arc::new(MemoryBlobStore::new());
    let a = repository("a");
    put(&meta, &*blobs, &a, "x", b"first").await;
    put(&meta, &*blobs, &a, "y", b"first").await;
    let first = meta.local_file(&a, "x").await.unwrap().unwrap().blob;
    let collect = async |at| {
        meta.collect(UnixMillis(at), Duration::ZERO, &blobs)
            .await
            .unwrap()
    };
    for at in 1..4 {
        assert_eq!(collect(at).await.blobs_deleted, 0);
    }
    assert!(
        !meta.collect_blob(&first, &blobs).await.unwrap(),
        "it is referred to"
    );
    put(&meta, &*blobs, &a, "x", b"second").await;
    collect(10).await;
    assert_eq!(read(&*blobs, &first).await, b"first", "y still has it");
    assert!(matches!(
        meta.change_local_file(&a, "y", LocalChange::Delete, always)
            .await,
        Ok(LocalOutcome::Changed(_))
    ));
    collect(20).await;
    collect(21).await;
    assert!(
        blobs.open(&first).await.is_err(),
        "nothing refers to it any more"
    );
    let second = meta.local_file(&a, "x").await.unwrap().unwrap().blob;
    assert_eq!(read(&*blobs, &second).await, b"second");
}

async fn folders_are_listed_without_walking_through_those_below(place: Place) {
    let (meta, blobs) = (place.open().await, MemoryBlobStore::new());
    let a = repository("a");
    // A folder and a file of one name, and names around the slash in the order of bytes.
    let mut paths = vec!["b", "b-", "b/1", "b/c/2", "b0", "b0/x", "z", "ü/ä", "b.txt"];
    let many: Vec<String> = (0..300).map(|n| format!("deep/{n:03}/{n}")).collect();
    paths.extend(many.iter().map(String::as_str));
    for path in &paths {
        put(&meta, &blobs, &a, path, b"x").await;
    }
    put(&meta, &blobs, &repository("b"), "other", b"x").await;
    let shown = |children: Vec<LocalChild>| -> Vec<String> {
        children
            .into_iter()
            .map(|child| match child {
                LocalChild::Folder(name) => format!("{name}/"),
                LocalChild::File(name, _) => name,
            })
            .collect()
    };
    let list = async |folder: &str, after: &str, limit| {
        shown(meta.local_children(&a, folder, after, limit).await.unwrap())
    };
    let root = ["b", "b-", "b.txt", "b/", "b0", "b0/", "deep/", "z", "ü/"];
    assert_eq!(list("", "", 1_000).await, root);
    assert_eq!(list("b/", "", 10).await, ["1", "c/"]);
    assert_eq!(list("deep/", "", 1_000).await.len(), 300);
    assert_eq!(list("none/", "", 10).await, Vec::<String>::new());
    // One after the other, however small the pages: nothing twice, nothing left out.
    for limit in [1, 2, 4] {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let page = list("", &after, limit).await;
            let Some(last) = page.last().cloned() else {
                break;
            };
            after = last;
            all.extend(page);
        }
        assert_eq!(all, root, "limit {limit}");
    }
    let page = meta.local_page(&a, "deep/298/298", 3).await.unwrap();
    let page: Vec<&str> = page.iter().map(|(path, _)| &**path).collect();
    assert_eq!(page, ["deep/299/299", "z", "ü/ä"]);
}

/// What nobody else has is never taken for absent.
async fn hazard_w12_a_damaged_row_is_an_error_and_can_be_deleted(place: Place) {
    let meta = place.open().await;
    let blobs = MemoryBlobStore::new();
    let a = repository("a");
    put(&meta, &blobs, &a, "x", b"12345").await;
    meta.close().await;
    assert_eq!(place.run("UPDATE local_files SET size = 4").await, 1);
    let meta = place.open().await;
    assert!(meta.local_file(&a, "x").await.is_err());
    assert!(meta.damage().rows > 0);
    let state = meta.local_state(&a, "x").await.unwrap();
    assert!(state.exists && state.file.is_none());
    assert!(matches!(
        meta.change_local_file(&a, "x", LocalChange::Delete, always)
            .await,
        Ok(LocalOutcome::Changed(_))
    ));
    assert_eq!(meta.local_file(&a, "x").await.unwrap(), None);
}

/// Prints what one acknowledged change costs on this disk.
#[tokio::test]
#[ignore = "a measurement"]
async fn what_a_durable_change_costs() {
    let directory = tempfile::tempdir().unwrap();
    let meta = MetadataStore::open(&directory.path().join("db"))
        .await
        .unwrap();
    let blobs = FsBlobStore::open(directory.path()).unwrap();
    let blob = blobs.put_bytes(b"x").await.unwrap();
    let change = LocalChange::Put {
        file: &file(&blob),
        blob: &blob,
        clock: &SystemClock,
    };
    let begun = std::time::Instant::now();
    for number in 0..500 {
        let path = format!("dir/{number}");
        let outcome = meta
            .change_local_file(&repository("a"), &path, change, always)
            .await;
        assert!(matches!(outcome, Ok(LocalOutcome::Changed(_))));
    }
    eprintln!("{:?} for each of 500", begun.elapsed() / 500);
}

on_both_engines!(
    sums_follow_every_change,
    hazard_w9_what_replaces_a_file_is_later_than_it,
    hazard_l5_of_many_who_want_to_be_first_one_is,
    hazard_l3_the_collector_leaves_uploads_alone_and_takes_what_they_leave,
    folders_are_listed_without_walking_through_those_below,
    hazard_w12_a_damaged_row_is_an_error_and_can_be_deleted,
);
