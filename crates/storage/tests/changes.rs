//! Changes that say what they replace, and what other users of the database hear of.
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

mod support;

use std::sync::Arc;

use larder_core::{ArtifactRecord, Digest, SourceKey, UnixMillis, sha256};
use larder_storage::{
    BlobStore, Change, Expected, Heard, MemoryBlobStore, MetadataStore, Notice, Writer,
};

use support::place::{Place, on_both_engines};
use support::{key, put, store};

fn blobs() -> Arc<dyn BlobStore> {
    Arc::new(MemoryBlobStore::new())
}

fn only_if(expected: Expected, change: Change) -> Vec<Change> {
    vec![Change::If {
        expected,
        change: Box::new(change),
    }]
}

async fn digest(meta: &MetadataStore, key: &SourceKey) -> Option<Digest> {
    let record = meta.record(key).await.unwrap()?;
    record.blob().map(|blob| blob.digest.clone())
}

/// A renewal made from one body, of a record that has another one by now.
async fn news_of_old_bytes_is_left_out_and_named(place: Place) {
    let (meta, blobs) = (place.open().await, blobs());
    let key = key("generic", "file");
    store(&meta, &blobs, &key, b"old").await;
    let old = meta.record(&key).await.unwrap().unwrap();
    store(&meta, &blobs, &key, b"new").await;
    let renewal = |record: &ArtifactRecord| Change::PutRecord {
        key: key.clone(),
        record: record.clone(),
        blob: None,
    };
    let of_old = Expected::Bytes(vec![sha256(b"old")]);
    let receipt = meta
        .apply_by(
            Writer::unique(),
            only_if(of_old.clone(), renewal(&old)),
            Vec::new(),
        )
        .await
        .unwrap();
    assert_eq!(receipt.left, std::slice::from_ref(&key));
    assert_eq!(digest(&meta, &key).await, Some(sha256(b"new")));
    let new = meta.record(&key).await.unwrap().unwrap();
    let of_new = Expected::Bytes(vec![sha256(b"new")]);
    let receipt = meta
        .apply_by(Writer::unique(), only_if(of_new, renewal(&new)), Vec::new())
        .await
        .unwrap();
    assert_eq!(receipt.left, []);
    // What was flushed does not come back either.
    let delete = Change::DeleteRecord { key: key.clone() };
    meta.apply(vec![delete]).await.unwrap();
    let receipt = meta
        .apply_by(Writer::unique(), only_if(of_old, renewal(&old)), Vec::new())
        .await
        .unwrap();
    assert_eq!(receipt.left, std::slice::from_ref(&key));
    assert_eq!(meta.record(&key).await.unwrap(), None);
}

/// New bytes replace those that they were fetched to replace, and older ones; not those that were heard of later.
async fn new_bytes_give_way_to_later_ones(place: Place) {
    let (meta, blobs) = (place.open().await, blobs());
    let key = key("generic", "file");
    store(&meta, &blobs, &key, b"present").await;
    let present = meta.record(&key).await.unwrap().unwrap();
    let fill = async |body: &[u8]| put(&key, blobs.put_bytes(body).await.unwrap());
    let heard_of = |millis: i64, but: Vec<Digest>| Expected::NotLater {
        heard_of: UnixMillis(present.contacted_at.0 + millis),
        but,
    };
    let table = [
        (-1, Vec::new(), false),
        (-1, vec![sha256(b"present")], true),
        (0, Vec::new(), true),
    ];
    for (millis, but, is_put) in table {
        store(&meta, &blobs, &key, b"present").await;
        let changes = only_if(heard_of(millis, but), fill(b"other").await);
        let receipt = meta
            .apply_by(Writer::unique(), changes, Vec::new())
            .await
            .unwrap();
        assert_eq!(receipt.left.is_empty(), is_put, "{millis}");
        let expected: &[u8] = if is_put { b"other" } else { b"present" };
        assert_eq!(digest(&meta, &key).await, Some(sha256(expected)));
    }
}

async fn users_of_one_store_hear_of_each_other_and_not_of_themselves(place: Place) {
    let (meta, blobs) = (place.open().await, blobs());
    let key = key("generic", "file");
    let (one, other) = (Writer::unique(), Writer::unique());
    let (mut hears_one, mut hears_other) = (meta.listen(other), meta.listen(one));
    let change = put(&key, blobs.put_bytes(b"body").await.unwrap());
    let superseded = Notice::Superseded(key.repository.clone());
    meta.apply_by(one, vec![change], vec![superseded.clone()])
        .await
        .unwrap();
    let record = Notice::Record {
        key: key.clone(),
        blob: Some(sha256(b"body")),
    };
    assert_eq!(
        hears_one.next().await,
        Heard::Notices(vec![record, superseded])
    );
    let flushed = vec![Notice::Flushed(key.repository.clone())];
    meta.announce(other, flushed.clone()).await.unwrap();
    // Its own change comes first in the channel, and is passed over.
    assert_eq!(hears_other.next().await, Heard::Notices(flushed));
}

async fn programs_that_share_a_file_read_what_the_others_wrote(place: Place) {
    let (one, other) = (place.open().await, place.open().await);
    one.share();
    other.share();
    let (writer, listener) = (Writer::unique(), other.listen(Writer::unique()));
    let own = one.listen(writer);
    let nothing = Heard::Notices(Vec::new());
    assert_eq!(listener.poll().await.unwrap(), nothing);
    assert_eq!(own.poll().await.unwrap(), nothing);
    let key = key("generic", "file");
    let change = put(&key, blobs().put_bytes(b"body").await.unwrap());
    one.apply_by(writer, vec![change], Vec::new())
        .await
        .unwrap();
    let delete = Change::DeleteRecord { key: key.clone() };
    one.apply_by(writer, vec![delete], Vec::new())
        .await
        .unwrap();
    let told = |blob| Notice::Record {
        key: key.clone(),
        blob,
    };
    let both = vec![told(Some(sha256(b"body"))), told(None)];
    assert_eq!(listener.poll().await.unwrap(), Heard::Notices(both));
    assert_eq!(listener.poll().await.unwrap(), nothing);
    assert_eq!(own.poll().await.unwrap(), nothing, "nobody hears of itself");
}

on_both_engines!(
    news_of_old_bytes_is_left_out_and_named,
    new_bytes_give_way_to_later_ones,
    users_of_one_store_hear_of_each_other_and_not_of_themselves,
    programs_that_share_a_file_read_what_the_others_wrote,
);
