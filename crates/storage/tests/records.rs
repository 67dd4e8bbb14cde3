//! Records, derivations and secrets: what is put in comes out, paths are data, and a damaged row harms nobody.
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use larder_core::{BlobDescriptor, Content, SourceKey, UnixMillis, sha256};
use larder_storage::{
    Age, BlobStore, Change, DerivedRecord, Expected, FsBlobStore, MemoryBlobStore, MemoryObjects,
    MetadataStore, ObjectBlobStore, StorageErrorKind, Writer, conformance,
};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

use support::place::{Place, on_both_engines};
use support::{all, key, put, record, repository, store};

fn blobs() -> Arc<dyn BlobStore> {
    Arc::new(MemoryBlobStore::new())
}

async fn raw(path: &std::path::Path) -> SqlitePool {
    SqlitePool::connect_with(SqliteConnectOptions::new().filename(path))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_stores_conform() {
    conformance::suite(Arc::new(MemoryBlobStore::new())).await;
    let directory = tempfile::tempdir().unwrap();
    let files = || FsBlobStore::open(directory.path()).unwrap();
    conformance::suite(Arc::new(files())).await;
    let objects = Arc::new(MemoryObjects::with_delay(Duration::from_micros(100)));
    conformance::suite(Arc::new(ObjectBlobStore::new(objects, files()))).await;
}

async fn what_is_put_comes_out_again_after_a_restart(place: Place) {
    let blobs = blobs();
    let mut variant = key("pypi", "simple/six/");
    variant.variant = "json".into();
    let negative = record(Content::Negative { status: 404 });
    {
        let meta = place.open().await;
        store(&meta, &blobs, &key("pypi", "simple/six/"), b"html").await;
        let put_negative = Change::PutRecord {
            key: variant.clone(),
            record: negative.clone(),
            blob: None,
        };
        meta.apply(vec![put_negative]).await.unwrap();
        meta.close().await;
        assert_eq!(
            meta.ping().await.unwrap_err().kind,
            StorageErrorKind::Unavailable
        );
    }
    let meta = place.open().await;
    meta.ping().await.unwrap();
    let html = meta
        .record(&key("pypi", "simple/six/"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(html.blob().unwrap().digest, sha256(b"html"));
    assert_eq!(meta.record(&variant).await.unwrap(), Some(negative));
    assert_eq!(meta.record(&key("pypi", "simple/six")).await.unwrap(), None);
    assert_eq!(
        meta.record(&key("other", "simple/six/")).await.unwrap(),
        None,
        "reading stays per repository"
    );
    let counts = meta.counts().await.unwrap();
    assert_eq!((counts.records, counts.blobs, counts.bytes), (2, 1, 4));
    meta.apply(vec![
        Change::DeleteRecord {
            key: variant.clone(),
        },
        Change::DeleteRecord {
            key: variant.clone(),
        },
    ])
    .await
    .unwrap();
    assert_eq!(meta.record(&variant).await.unwrap(), None);
}

#[tokio::test]
async fn only_the_owner_reads_the_database_file() {
    use std::os::unix::fs::MetadataExt as _;
    let directory = tempfile::tempdir().unwrap();
    let meta = MetadataStore::open(&directory.path().join("larder.db"))
        .await
        .unwrap();
    meta.secret_bytes("link", b"key").await.unwrap();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().mode() & 0o077,
            0,
            "{:?}",
            entry.file_name()
        );
    }
}

async fn hazard_s22_a_name_may_be_file_and_directory(place: Place) {
    let (meta, blobs) = (place.open().await, blobs());
    let names = [
        "a", "a/b", "a/b/c", "a/", "A", "../a", "a//b", "a b", "a%2Fb", "ä",
    ];
    for name in names {
        store(&meta, &blobs, &key("files", name), name.as_bytes()).await;
    }
    for name in names {
        let record = meta.record(&key("files", name)).await.unwrap().unwrap();
        assert_eq!(
            record.blob().unwrap().digest,
            sha256(name.as_bytes()),
            "{name:?}"
        );
    }
    assert_eq!(meta.counts().await.unwrap().records, names.len() as u64);
}

async fn hazard_s21_long_names_are_data(place: Place) {
    let meta = place.open().await;
    let blobs: Arc<dyn BlobStore> = Arc::new(FsBlobStore::open(place.directory()).unwrap());
    let one = "x".repeat(2048);
    let other = format!("{}y", "x".repeat(2047));
    let blob = store(&meta, &blobs, &key("files", &one), b"one").await;
    store(&meta, &blobs, &key("files", &other), b"other").await;
    let found = meta.record(&key("files", &one)).await.unwrap().unwrap();
    assert_eq!(found.blob(), Some(&blob));
    assert_eq!(support::read(&*blobs, &blob).await, b"one");
}

async fn pages_are_complete_and_in_byte_order(place: Place) {
    let (meta, blobs) = (place.open().await, blobs());
    let mut expected: Vec<(String, String)> = Vec::new();
    for n in 0..250 {
        for variant in ["", "json"] {
            // Not in order, and with bytes above ASCII.
            let mut key = key("r", &format!("{}/é{}", n * 7919 % 250, n % 3));
            key.variant = variant.into();
            let info = blobs.put_bytes(b"same").await.unwrap();
            meta.apply(vec![put(&key, info)]).await.unwrap();
            expected.push((key.path.to_string(), variant.to_owned()));
        }
    }
    store(&meta, &blobs, &key("r2", "0"), b"of another repository").await;
    expected.sort();
    let found: Vec<(String, String)> = all(&meta, "r")
        .await
        .into_iter()
        .map(|(path, variant, _)| (path, variant))
        .collect();
    assert_eq!(found, expected);
    assert!(
        meta.page(&repository("r"), None, 0)
            .await
            .unwrap()
            .is_empty()
    );
}

async fn a_damaged_record_counts_as_absent_and_hides_no_other(place: Place) {
    let (meta, blobs) = (place.open().await, blobs());
    for n in 0..30 {
        store(&meta, &blobs, &key("r", &format!("{n:02}")), b"x").await;
    }
    let damage = "UPDATE artifacts SET record = '{\"content\":' WHERE path < '20' OR path = '25'";
    assert_eq!(place.run(damage).await, 21);
    assert_eq!(meta.record(&key("r", "07")).await.unwrap(), None);
    let page = meta.page(&repository("r"), None, 7).await.unwrap();
    let paths: Vec<&str> = page.iter().map(|(path, _, _)| path.as_str()).collect();
    assert_eq!(
        paths,
        ["20", "21", "22", "23", "24", "26", "27"],
        "a page is full although twenty rows before it are damaged"
    );
    store(&meta, &blobs, &key("r", "07"), b"again").await;
    assert!(meta.record(&key("r", "07")).await.unwrap().is_some());
}

async fn changes_happen_together_or_not_at_all(place: Place) {
    let (meta, blobs) = (place.open().await, blobs());
    let deny = if place.is_postgres() {
        "ALTER TABLE artifacts ADD CHECK (path <> 'bad')"
    } else {
        "CREATE TRIGGER deny BEFORE INSERT ON artifacts WHEN NEW.path = 'bad' BEGIN SELECT RAISE(ABORT, 'no'); END"
    };
    place.run(deny).await;
    let good = put(&key("r", "good"), blobs.put_bytes(b"good").await.unwrap());
    let bad = put(&key("r", "bad"), blobs.put_bytes(b"bad").await.unwrap());
    meta.apply(vec![good.clone(), bad]).await.unwrap_err();
    assert_eq!(meta.record(&key("r", "good")).await.unwrap(), None);
    assert_eq!(meta.counts().await.unwrap().blobs, 0);
    meta.apply(vec![good]).await.unwrap();
    assert!(meta.record(&key("r", "good")).await.unwrap().is_some());
}

async fn derivations_are_kept_under_their_key(place: Place) {
    let (meta, blobs) = (place.open().await, blobs());
    let source = store(&meta, &blobs, &key("r", "index"), b"source").await;
    let info = blobs.put_bytes(b"derived").await.unwrap();
    let derived = DerivedRecord {
        blob: info.descriptor.clone(),
        content_type: "text/html".to_owned(),
        made_at: UnixMillis(1234),
    };
    let change = Change::PutDerivation {
        key: "ab".repeat(32),
        repository: repository("r"),
        sources: vec![source.digest.clone(), source.digest],
        derived: derived.clone(),
        blob: info,
    };
    meta.apply(vec![change.clone(), change]).await.unwrap();
    assert_eq!(
        meta.derivation(&"ab".repeat(32)).await.unwrap(),
        Some(derived)
    );
    assert_eq!(meta.derivation(&"cd".repeat(32)).await.unwrap(), None);
    meta.apply(vec![Change::DeleteDerivation {
        key: "ab".repeat(32),
    }])
    .await
    .unwrap();
    assert_eq!(meta.derivation(&"ab".repeat(32)).await.unwrap(), None);
}

async fn the_first_secret_wins(place: Place) {
    let (one, two) = (place.open().await, place.open().await);
    let (a, b) = tokio::join!(
        one.secret_bytes("link", &[0, 1, 255]),
        two.secret_bytes("link", &[7])
    );
    let chosen = a.unwrap();
    assert_eq!(chosen, b.unwrap());
    assert!(chosen == [0, 1, 255] || chosen == [7]);
    drop((one, two));
    let later = place.open().await;
    assert_eq!(later.secret_bytes("link", &[9]).await.unwrap(), chosen);
    assert_eq!(later.secret_bytes("other", &[9]).await.unwrap(), [9]);
}

#[tokio::test]
async fn a_newer_database_is_refused_with_advice() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("larder.db");
    MetadataStore::open(&path).await.unwrap().close().await;
    sqlx::query("INSERT INTO schema_version VALUES (99)")
        .execute(&raw(&path).await)
        .await
        .unwrap();
    let error = MetadataStore::open(&path).await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Unavailable);
    assert!(
        error.message.contains("version 99") && error.message.contains("newer larder"),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_no_database_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("larder.db");
    let text = "this is a text, and long enough to be read as a header of a database. ".repeat(20);
    std::fs::write(&path, &text).unwrap();
    let error = MetadataStore::open(&path).await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Corrupt, "{error:?}");
    assert!(
        !error.to_string().contains("larder.db"),
        "no path in what users see: {error}"
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn a_missing_directory_is_an_error_not_a_panic() {
    let error = MetadataStore::open(std::path::Path::new("/nonexistent/larder.db"))
        .await
        .unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::NotFound);
}

async fn hazard_l2_a_renewal_cannot_bring_back_a_row_without_a_blob(place: Place) {
    let (meta, blobs) = (place.open().await, blobs());
    let flushed = key("r", "flushed");
    store(&meta, &blobs, &flushed, b"bytes").await;
    let held = meta.record(&flushed).await.unwrap().unwrap();
    meta.apply(vec![Change::DeleteRecord {
        key: flushed.clone(),
    }])
    .await
    .unwrap();
    let renew = Change::PutRecord {
        key: flushed.clone(),
        record: held.clone(),
        blob: None,
    };
    // While the blob is still there, renewing saves it from the collector …
    meta.collect(UnixMillis(0), Duration::from_secs(1), &blobs)
        .await
        .unwrap();
    meta.apply(vec![renew.clone()]).await.unwrap();
    assert_eq!(
        meta.collect(UnixMillis(5000), Duration::from_secs(1), &blobs)
            .await
            .unwrap()
            .blobs_deleted,
        0
    );
    // … and afterwards there is nothing to renew, while the other changes of the batch go through.
    meta.apply(vec![Change::DeleteRecord {
        key: flushed.clone(),
    }])
    .await
    .unwrap();
    assert_eq!(
        meta.collect(UnixMillis(9000), Duration::ZERO, &blobs)
            .await
            .unwrap()
            .blobs_deleted,
        1
    );
    let other = put(&key("r", "other"), blobs.put_bytes(b"other").await.unwrap());
    meta.apply(vec![renew, other]).await.unwrap();
    assert_eq!(meta.record(&flushed).await.unwrap(), None);
    assert!(meta.record(&key("r", "other")).await.unwrap().is_some());
}

fn age(blob: Option<&BlobDescriptor>, [published, first, contact]: [i64; 3]) -> Age {
    Age {
        blob: blob.cloned(),
        published_at: Some(UnixMillis(published)),
        first_seen_at: UnixMillis(first),
        contacted_at: UnixMillis(contact),
    }
}

fn note(key: &SourceKey, age: Age) -> Change {
    let key = key.clone();
    Change::NoteAge { key, age }
}

/// Neither a flush nor a restart changes how old a file is (docs/adr/0110).
async fn hazard_s20_ages_stay_when_records_go(place: Place) {
    let (meta, blobs) = (place.open().await, blobs());
    let file = key("r", "file");
    let info = blobs.put_bytes(b"one").await.unwrap();
    let one = info.descriptor.clone();
    let noted = age(Some(&one), [-10, 20, 30]);
    let changes = vec![put(&file, info), note(&file, noted.clone())];
    meta.apply(changes).await.unwrap();
    let repository = repository("r");
    meta.apply(vec![Change::InvalidateRepository { repository }])
        .await
        .unwrap();
    let mut sweep = meta.sweep_invalid(&blobs);
    while sweep.next().await.unwrap().is_some() {}
    assert_eq!(meta.record(&file).await.unwrap(), None);
    meta.close().await;
    let meta = place.open().await;
    assert_eq!(meta.age(&file).await.unwrap(), Some(noted.clone()));
    assert_eq!(meta.age(&key("other", "file")).await.unwrap(), None);
    let two = store(&meta, &blobs, &file, b"two").await;
    for (news, expected) in [
        // Nothing is known of its bytes.
        (age(None, [1, 2, 3]), noted.clone()),
        (age(Some(&one), [1, 2, 40]), age(Some(&one), [-10, 20, 40])),
        (age(Some(&two), [1, 2, 50]), age(Some(&two), [1, 2, 50])),
    ] {
        meta.apply(vec![note(&file, news)]).await.unwrap();
        assert_eq!(meta.age(&file).await.unwrap(), Some(expected));
    }
    // What is left out takes its age along.
    let late = Change::If {
        expected: Expected::Bytes(vec![sha256(b"three")]),
        change: Box::new(Change::DeleteRecord { key: file.clone() }),
    };
    let stale = note(&file, noted.clone());
    let left = meta.apply_by(Writer::unique(), vec![late, stale], Vec::new());
    assert_eq!(left.await.unwrap().left.len(), 1);
    let known = age(Some(&two), [1, 2, 50]);
    assert_eq!(meta.age(&file).await.unwrap(), Some(known));
}

async fn ages_are_added_once_and_forgotten_when_nobody_asks(place: Place) {
    let (meta, blobs) = (place.open().await, blobs());
    let held = store(&meta, &blobs, &key("r", "held"), b"held").await;
    let row = |path: &str, age: Age| (path.to_owned(), String::new(), age);
    let first = age(Some(&held), [10, 20, 30]);
    let undated = Age {
        published_at: None,
        ..age(None, [0, 1, 5_000])
    };
    for rows in [
        vec![row("held", first.clone()), row("gone", first.clone())],
        vec![
            row("held", age(None, [1, 1, 1])),
            row("undated", undated.clone()),
        ],
    ] {
        meta.add_ages(&repository("r"), &rows).await.unwrap();
    }
    let many: Vec<_> = (0..500)
        .map(|n| row(&format!("gone/{n}"), first.clone()))
        .collect();
    meta.add_ages(&repository("r"), &many).await.unwrap();
    let known = async |path: &str| meta.age(&key("r", path)).await.unwrap();
    assert_eq!(known("held").await, Some(first.clone()));
    assert_eq!(known("gone").await, Some(first.clone()));
    let (before, now) = (UnixMillis(1_000), UnixMillis(9_000));
    meta.forget_ages(before, now).await.unwrap();
    assert_eq!(known("gone").await, None);
    assert_eq!(known("gone/499").await, None);
    assert_eq!(known("undated").await, Some(undated));
    let looked_at = Age {
        contacted_at: now,
        ..first
    };
    assert_eq!(known("held").await, Some(looked_at), "it is there");
}

on_both_engines!(
    hazard_s20_ages_stay_when_records_go,
    ages_are_added_once_and_forgotten_when_nobody_asks,
    what_is_put_comes_out_again_after_a_restart,
    hazard_s22_a_name_may_be_file_and_directory,
    hazard_s21_long_names_are_data,
    pages_are_complete_and_in_byte_order,
    a_damaged_record_counts_as_absent_and_hides_no_other,
    derivations_are_kept_under_their_key,
    the_first_secret_wins,
    hazard_l2_a_renewal_cannot_bring_back_a_row_without_a_blob,
    changes_happen_together_or_not_at_all,
);
