//! Two stores over one database, as two processes or replicas have them: what one commits, the other reads at once and can notice.
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use larder_core::{Content, UnixMillis};
use larder_storage::{BlobStore, Change, Durability, MemoryBlobStore, MetadataStore};

use support::{fast_directory, key, record, store};

async fn two() -> (tempfile::TempDir, MetadataStore, MetadataStore) {
    let directory = fast_directory();
    let path = directory.path().join("larder.db");
    let one = MetadataStore::open(&path).await.unwrap();
    let other = MetadataStore::open(&path).await.unwrap();
    (directory, one, other)
}

fn head_only(path: &str) -> Change {
    Change::PutRecord {
        key: key("r", path),
        record: record(Content::HeadOnly),
        blob: None,
    }
}

#[tokio::test]
async fn what_one_commits_deletes_or_replaces_the_other_reads_at_once() {
    let (_directory, one, other) = two().await;
    let blobs: Arc<dyn BlobStore> = Arc::new(MemoryBlobStore::new());
    for (writer, reader) in [(&one, &other), (&other, &one)] {
        let first = store(writer, &blobs, &key("r", "a"), b"first").await;
        let read = reader.record(&key("r", "a")).await.unwrap().unwrap();
        assert_eq!(read.blob(), Some(&first));
        let second = store(writer, &blobs, &key("r", "a"), b"second").await;
        let read = reader.record(&key("r", "a")).await.unwrap().unwrap();
        assert_eq!(read.blob(), Some(&second));
        let delete = Change::DeleteRecord { key: key("r", "a") };
        writer.apply(vec![delete]).await.unwrap();
        assert_eq!(reader.record(&key("r", "a")).await.unwrap(), None);
    }
}

#[tokio::test]
async fn the_marker_tells_the_commits_of_others_and_no_own_ones() {
    let (_directory, one, other) = two().await;
    let clone = one.clone();
    let before = one.change_marker().await.unwrap();
    for n in 0..20 {
        let durability = [Durability::Grouped, Durability::Durable][n % 2];
        let change = head_only(&n.to_string());
        clone.apply_with(vec![change], durability).await.unwrap();
    }
    one.record(&key("r", "1")).await.unwrap();
    other.record(&key("r", "1")).await.unwrap();
    assert_eq!(
        one.change_marker().await.unwrap(),
        before,
        "own commits, and what others only read"
    );

    let mut last = before;
    for n in 0..20 {
        let change = if n % 3 == 0 {
            Change::DeleteRecord {
                key: key("r", &n.to_string()),
            }
        } else {
            head_only("shared")
        };
        other.apply(vec![change]).await.unwrap();
        // In between the store writes itself, and thereby looks at the file.
        if n % 2 == 0 {
            one.apply(vec![head_only("mine")]).await.unwrap();
        }
        let now = one.change_marker().await.unwrap();
        assert_ne!(now, last, "commit {n} of the other store");
        assert_eq!(now, one.change_marker().await.unwrap(), "told once");
        last = now;
    }
}

#[tokio::test]
async fn the_marker_is_cheap() {
    let (_directory, one, other) = two().await;
    for n in 0..2_000 {
        other.apply(vec![head_only(&n.to_string())]).await.unwrap();
    }
    let start = Instant::now();
    for _ in 0..1_000 {
        one.change_marker().await.unwrap();
    }
    let each = start.elapsed() / 1_000;
    println!("a marker takes {each:?}");
    assert!(each < Duration::from_millis(5), "{each:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_write_at_the_same_time_and_nothing_is_lost() {
    let (_directory, one, other) = two().await;
    let polls = Arc::new(AtomicBool::new(true));
    let poller = tokio::spawn({
        let (one, polls) = (one.clone(), Arc::clone(&polls));
        async move {
            let mut seen = 0;
            let mut last = one.change_marker().await.unwrap();
            while polls.load(Ordering::SeqCst) {
                let now = one.change_marker().await.unwrap();
                seen += u32::from(now != last);
                last = now;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            seen
        }
    });
    let write = |store: MetadataStore, name: &'static str| async move {
        for n in 0..200 {
            store
                .apply(vec![head_only(&format!("{name}{n}"))])
                .await
                .unwrap();
        }
    };
    let writers = [
        tokio::spawn(write(one.clone(), "one")),
        tokio::spawn(write(other.clone(), "other")),
    ];
    for writer in writers {
        writer.await.unwrap();
    }
    polls.store(false, Ordering::SeqCst);
    assert!(poller.await.unwrap() > 0, "the poller has seen the other");
    for store in [&one, &other] {
        assert_eq!(store.counts().await.unwrap().records, 400);
        let any = store.record(&key("r", "other199")).await.unwrap().unwrap();
        assert_eq!(any.fresh_since, UnixMillis(3));
    }
}
