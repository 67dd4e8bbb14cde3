//! Two stores over one database, as two processes or replicas have them: what one commits, the other reads at once, and hears of.
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

mod support;

use std::sync::Arc;

use larder_core::{Content, UnixMillis};
use larder_storage::{BlobStore, Change, MemoryBlobStore, MetadataStore};

use support::place::{Place, on_both_engines};
use support::{key, record, store};

fn head_only(path: &str) -> Change {
    Change::PutRecord {
        key: key("r", path),
        record: record(Content::HeadOnly),
        blob: None,
    }
}

async fn what_one_commits_deletes_or_replaces_the_other_reads_at_once(place: Place) {
    let (one, other) = (place.open().await, place.open().await);
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

async fn both_write_at_the_same_time_and_nothing_is_lost(place: Place) {
    let (one, other) = (place.open().await, place.open().await);
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
    for store in [&one, &other] {
        assert_eq!(store.counts().await.unwrap().records, 400);
        let any = store.record(&key("r", "other199")).await.unwrap().unwrap();
        assert_eq!(any.fresh_since, UnixMillis(3));
    }
}

on_both_engines!(
    what_one_commits_deletes_or_replaces_the_other_reads_at_once,
    both_write_at_the_same_time_and_nothing_is_lost,
);
