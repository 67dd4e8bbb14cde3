//! Copies from one database into another: between SQLite's file and PostgreSQL, begun again after the source has changed, and of rows that
//! are not what they were.
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use larder_core::{
    BlobDescriptor, Content, Digest, SourceKey, StoredHeaders, SystemClock, UnixMillis, sha256,
};
use larder_storage::{
    Age, BlobStore, Change, LocalChange, LocalDecision, LocalFile, LocalOutcome, LocalUsage,
    MemoryBlobStore, MetadataStore, NamedBlobs, RowTally, RowsCopied, StorageErrorKind,
};
use larder_testkit::servers::postgres::Postgres;
use sqlx::AssertSqlSafe;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

use support::place::options;
use support::{key, put, record, repository, store};

/// More than are read at once.
const RECORDS: u32 = 1_300;

fn bytes(number: u32) -> Vec<u8> {
    format!("the bytes of file {number}").into_bytes()
}

fn path(number: u32) -> String {
    format!("it's \\ file ü {number}")
}

async fn upload(meta: &MetadataStore, blobs: &Arc<dyn BlobStore>, path: &str, bytes: &[u8]) {
    let blob = blobs.put_bytes(bytes).await.unwrap();
    let file = LocalFile {
        blob: blob.descriptor.clone(),
        headers: StoredHeaders::default(),
        uploaded_at: UnixMillis(1_000),
        written_at: UnixMillis(1_000),
    };
    let change = LocalChange::Put {
        file: &file,
        blob: &blob,
        clock: &SystemClock,
    };
    let outcome = meta
        .change_local_file(&repository("own"), path, change, |_| {
            LocalDecision::<()>::Change
        })
        .await;
    assert!(matches!(outcome, Ok(LocalOutcome::Changed(_))));
}

/// A file that went, and how old it is.
fn aged() -> (SourceKey, Age) {
    let age = Age {
        blob: Some(BlobDescriptor {
            digest: sha256(b"gone"),
            size: 4,
        }),
        published_at: Some(UnixMillis(-10)),
        first_seen_at: UnixMillis(20),
        contacted_at: UnixMillis(30),
    };
    (key("r", "gone"), age)
}

async fn filled(meta: &MetadataStore, blobs: &Arc<dyn BlobStore>) {
    let mut changes = Vec::new();
    for number in 0..RECORDS {
        let info = blobs.put_bytes(&bytes(number)).await.unwrap();
        changes.push(put(&key("r", &path(number)), info));
    }
    changes.push(Change::PutRecord {
        key: key("r", "without bytes"),
        record: record(Content::HeadOnly),
        blob: None,
    });
    let (key, age) = aged();
    changes.push(Change::NoteAge { key, age });
    meta.apply(changes).await.unwrap();
    upload(meta, blobs, "a", b"uploaded").await;
    upload(meta, blobs, "b", b"also uploaded").await;
    meta.secret_bytes("link_key", &[7; 32]).await.unwrap();
    meta.origin(&repository("r"), &["files https://example.com/".to_owned()]);
    meta.keep_origins(&[]).await.unwrap();
}

async fn raw(path: &Path, statement: &str) {
    let options = SqliteConnectOptions::new().filename(path);
    let pool = SqlitePool::connect_with(options).await.unwrap();
    let statement = AssertSqlSafe(statement.to_owned());
    sqlx::query(statement).execute(&pool).await.unwrap();
    pool.close().await;
}

async fn copied(
    from: &MetadataStore,
    to: &MetadataStore,
    without: &BTreeSet<Digest>,
) -> RowsCopied {
    let heard = AtomicU64::new(0);
    let progress = |rows| {
        heard.fetch_add(rows, Ordering::Relaxed);
    };
    let copied = from.copy_rows(to, without, &progress).await.unwrap();
    let rows: u64 = copied.tables.iter().map(|table| table.rows).sum();
    assert_eq!(heard.into_inner(), rows, "progress hears of each row once");
    let compared = from.compare_rows(to, without, &|_| {}).await.unwrap();
    assert!(compared.is_same(), "{compared:?}");
    copied
}

fn tally(copied: &RowsCopied, table: &str) -> RowTally {
    let mut tables = copied.tables.iter();
    *tables.find(|tally| tally.table == table).unwrap()
}

fn written(copied: &RowsCopied) -> u64 {
    copied
        .tables
        .iter()
        .map(|table| table.written + table.deleted)
        .sum()
}

async fn holds_all(meta: &MetadataStore, but: &[u32]) {
    for number in 0..RECORDS {
        let found = meta.record(&key("r", &path(number))).await.unwrap();
        let digest = found.and_then(|record| record.blob().map(|blob| blob.digest.clone()));
        let expected = (!but.contains(&number)).then(|| sha256(&bytes(number)));
        assert_eq!(digest, expected, "{number}");
    }
    let usage = meta
        .local_state(&repository("own"), "a")
        .await
        .unwrap()
        .usage;
    assert_eq!(
        usage,
        LocalUsage {
            files: 2,
            bytes: 21
        }
    );
    assert!(
        meta.local_file(&repository("own"), "b")
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(
        meta.secret_bytes("link_key", &[1; 32]).await.unwrap(),
        [7; 32]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_to_a_server_and_back_and_only_what_differs_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let (file, back) = (directory.path().join("file"), directory.path().join("back"));
    let blobs: Arc<dyn BlobStore> = Arc::new(MemoryBlobStore::new());
    let meta = MetadataStore::open(&file).await.unwrap();
    filled(&meta, &blobs).await;
    meta.close().await;
    let before = std::fs::read(&file).unwrap();

    let postgres = Postgres::shared();
    let server = options(postgres.port(), &postgres.database());
    assert!(
        MetadataStore::connect_to_copy(&server)
            .await
            .unwrap()
            .is_none()
    );
    let target = MetadataStore::connect(&server).await.unwrap();
    assert_eq!(target.holds().await.unwrap(), None);
    let source = MetadataStore::open_to_copy(&file).await.unwrap();
    let none = BTreeSet::new();
    let first = copied(&source, &target, &none).await;
    assert_eq!(tally(&first, "artifacts").written, u64::from(RECORDS) + 1);
    assert_eq!(tally(&first, "blobs").written, u64::from(RECORDS) + 2);
    holds_all(&target, &[]).await;
    assert_eq!(
        source.installation().await.unwrap(),
        target.installation().await.unwrap()
    );
    assert_eq!(target.holds().await.unwrap(), Some("blobs"));
    assert_eq!(written(&copied(&source, &target, &none).await), 0);
    source.put_secret_bytes("x", b"x").await.unwrap_err();
    source.close().await;
    assert!(
        std::fs::read(&file).unwrap() == before,
        "the source has changed"
    );

    // The source goes on being used, and is copied again.
    let meta = MetadataStore::open(&file).await.unwrap();
    meta.apply(vec![Change::DeleteRecord {
        key: key("r", &path(3)),
    }])
    .await
    .unwrap();
    store(&meta, &blobs, &key("r", &path(4)), b"newer").await;
    meta.close().await;
    let source = MetadataStore::open_to_copy(&file).await.unwrap();
    let second = copied(&source, &target, &none).await;
    let artifacts = tally(&second, "artifacts");
    assert_eq!((artifacts.written, artifacts.deleted), (1, 1));
    let rows = tally(&second, "blobs");
    assert_eq!(
        (rows.written, rows.deleted),
        (1, 2),
        "what nothing names is not kept"
    );
    source.close().await;

    // And back, from a connection that changes nothing on the server.
    let source = MetadataStore::connect_to_copy(&server)
        .await
        .unwrap()
        .unwrap();
    let again = MetadataStore::open(&back).await.unwrap();
    copied(&source, &again, &none).await;
    let newer = again.record(&key("r", &path(4))).await.unwrap().unwrap();
    assert_eq!(newer.blob().unwrap().digest, sha256(b"newer"));
    assert_eq!(again.record(&key("r", &path(3))).await.unwrap(), None);
    let (gone, age) = aged();
    assert_eq!(again.age(&gone).await.unwrap(), Some(age));
    let named = again
        .named_blobs(NamedBlobs::Copied, None, 5_000)
        .await
        .unwrap();
    assert_eq!(named.len() as u64, tally(&second, "blobs").rows);
    let names = again.names_of_blob(&sha256(b"uploaded"), 9).await.unwrap();
    assert_eq!((names.len(), names[0].is_local), (1, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_w12_damaged_rows_and_those_of_damaged_blobs_are_left_out_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    let blobs: Arc<dyn BlobStore> = Arc::new(MemoryBlobStore::new());
    let meta = MetadataStore::open(&file).await.unwrap();
    filled(&meta, &blobs).await;
    let long = format!("long/{}", "x".repeat(3_000));
    store(&meta, &blobs, &key("r", &long), b"found by a long path").await;
    meta.close().await;
    // Another row's record under this key.
    let swap = format!(
        "UPDATE artifacts SET record = (SELECT record FROM artifacts WHERE path = '{}') WHERE path = '{}'",
        path(8).replace('\'', "''"),
        path(7).replace('\'', "''")
    );
    raw(&file, &swap).await;
    let postgres = Postgres::shared();
    let server = options(postgres.port(), &postgres.database());
    let target = MetadataStore::connect(&server).await.unwrap();
    let source = MetadataStore::open_to_copy(&file).await.unwrap();
    let damaged = BTreeSet::from([sha256(&bytes(9))]);
    let rows = copied(&source, &target, &damaged).await;
    holds_all(&target, &[7, 9]).await;
    assert_eq!(tally(&rows, "artifacts").left_out, 3);
    assert_eq!((rows.damaged, rows.local_left_out), (1, 0));
    let named: BTreeSet<&str> = rows.left_out.iter().map(|row| &*row.path).collect();
    assert_eq!(named, BTreeSet::from([&*path(7), &*long]));
    source.close().await;
    // What was uploaded is nowhere else.
    raw(
        &file,
        "UPDATE local_files SET uploaded_at = 1 WHERE path = 'a'",
    )
    .await;
    let source = MetadataStore::open_to_copy(&file).await.unwrap();
    let rows = source.copy_rows(&target, &damaged, &|_| {}).await.unwrap();
    assert_eq!(rows.local_left_out, 1);
    assert!(
        rows.left_out
            .iter()
            .any(|row| row.is_local && row.path == "a")
    );
}

#[tokio::test]
async fn what_is_no_database_of_this_version_is_not_copied_from() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    let kind = async || MetadataStore::open_to_copy(&file).await.unwrap_err().kind;
    assert_eq!(kind().await, StorageErrorKind::NotFound);
    std::fs::write(&file, "").unwrap();
    assert_eq!(kind().await, StorageErrorKind::NotFound);
    MetadataStore::open(&file).await.unwrap().close().await;
    let empty = MetadataStore::open_to_copy(&file).await.unwrap();
    assert_eq!(empty.installation().await.unwrap(), None);
    empty.close().await;
    raw(&file, "DELETE FROM schema_version WHERE version > 4").await;
    assert_eq!(kind().await, StorageErrorKind::Unavailable);
}

/// How long it takes, there, once more with nothing to write, and back.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute; part of make stress"]
async fn two_hundred_thousand_rows() {
    const ROWS: u32 = 200_000;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    let meta = MetadataStore::open(&file).await.unwrap();
    for thousand in 0..ROWS / 1_000 {
        let changes = (0..1_000).map(|number| Change::PutRecord {
            key: key("r", &path(thousand * 1_000 + number)),
            record: record(Content::HeadOnly),
            blob: None,
        });
        meta.apply(changes.collect()).await.unwrap();
    }
    meta.close().await;
    let postgres = Postgres::shared();
    let server = options(postgres.port(), &postgres.database());
    let target = MetadataStore::connect(&server).await.unwrap();
    let source = MetadataStore::open_to_copy(&file).await.unwrap();
    let back = MetadataStore::open(&directory.path().join("back"))
        .await
        .unwrap();
    let none = BTreeSet::new();
    for (what, from, to, expected) in [
        ("to the server", &source, &target, ROWS),
        ("once more", &source, &target, 0),
        ("to a file", &target, &back, ROWS),
    ] {
        let began = Instant::now();
        let copied = from.copy_rows(to, &none, &|_| {}).await.unwrap();
        println!("{ROWS} rows {what}: {:?}", began.elapsed());
        assert_eq!(written(&copied), u64::from(expected));
    }
}
