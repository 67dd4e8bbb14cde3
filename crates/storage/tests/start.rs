//! Opening takes the same time however much is stored.
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

mod support;

use std::time::{Duration, Instant};

use larder_core::{BlobDescriptor, Content, sha256};
use larder_storage::{FsBlobStore, MetadataStore};
use sqlx::AssertSqlSafe;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

use support::place::Place;
use support::{key, record, repository};

const RECORDS: u32 = 100_000;

#[tokio::test]
async fn a_hundred_thousand_records_open_within_ten_milliseconds() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("larder.db");
    MetadataStore::open(&path).await.unwrap().close().await;
    fill(&path).await;

    let mut best = Duration::MAX;
    // The best of several: other work on the machine is no fault of the store's.
    for _ in 0..10 {
        let start = Instant::now();
        let meta = MetadataStore::open(&path).await.unwrap();
        let _blobs = FsBlobStore::open(directory.path()).unwrap();
        let opened = start.elapsed();
        let found = meta.record(&key("r", "pool/file-77777")).await.unwrap();
        assert!(found.is_some());
        println!(
            "opened in {opened:?}, first record after {:?}",
            start.elapsed()
        );
        best = best.min(opened);
        meta.close().await;
    }
    assert!(best < Duration::from_millis(10), "{best:?}");
}

/// On a server, too; and what is asked of many rows is answered from an index.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_records_on_a_server_open_at_once_and_are_found_by_index() {
    let place = Place::postgres();
    place.open().await.close().await;
    let numbers = format!("generate_series(0, {}) AS n(i)", RECORDS - 1);
    let digest = "'sha256:' || lpad(to_hex(i), 64, '0')";
    place
        .run(&format!(
            "INSERT INTO blobs (digest, size, modified_ns) SELECT {digest}, 6, 0 FROM {numbers}; \
             INSERT INTO artifacts (repository, path, variant, blob, size, updated_at, record) \
             SELECT 'r', 'pool/file-' || i, '', {digest}, 6, 0, decode('00', 'hex') FROM {numbers}"
        ))
        .await;
    // The best of several: other work on the machine is no fault of the store's.
    let mut best = [Duration::MAX; 3];
    for _ in 0..5 {
        let start = Instant::now();
        let meta = place.open().await;
        // It cannot be read, and is nobody's: the row is found all the same.
        assert_eq!(
            meta.record(&key("r", "pool/file-77777")).await.unwrap(),
            None
        );
        assert_eq!(meta.damage().rows, 1, "it was found");
        best[0] = best[0].min(start.elapsed());
        let start = Instant::now();
        let after = ("pool/file-5".to_owned(), String::new());
        let rows = meta.rows(&repository("r"), Some(&after), 200).await;
        assert_eq!(rows.unwrap().len(), 200);
        best[1] = best[1].min(start.elapsed());
        let start = Instant::now();
        assert_eq!(
            meta.held_sizes().await.unwrap()[0].files,
            u64::from(RECORDS)
        );
        best[2] = best[2].min(start.elapsed());
        meta.close().await;
    }
    println!(
        "opened and found {:?}, a page {:?}, the sum {:?}",
        best[0], best[1], best[2]
    );
    assert!(best[0] < Duration::from_secs(1), "{best:?}");
    assert!(best[1] < Duration::from_millis(100), "{best:?}");
    assert!(best[2] < Duration::from_secs(1), "{best:?}");
}

async fn fill(path: &std::path::Path) {
    let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(path))
        .await
        .unwrap();
    let sample = record(Content::Blob(BlobDescriptor {
        digest: sha256(b"sample"),
        size: 6,
    }));
    let json = serde_json::to_string(&sample).unwrap();
    let numbers = format!(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {} )",
        RECORDS - 1
    );
    let blobs = format!(
        "{numbers} INSERT INTO blobs (digest, size, modified_ns, delete_after) SELECT printf('sha256:%064x', i * 7919), 6, 0, NULL FROM n"
    );
    sqlx::query(AssertSqlSafe(blobs))
        .execute(&pool)
        .await
        .unwrap();
    let records = format!(
        "{numbers} INSERT INTO artifacts SELECT 'r', 'pool/file-' || i, '', printf('sha256:%064x', i * 7919), 6, 0, $1 FROM n"
    );
    let done = sqlx::query(AssertSqlSafe(records))
        .bind(json)
        .execute(&pool)
        .await
        .unwrap();
    assert_eq!(done.rows_affected(), u64::from(RECORDS));
    pool.close().await;
}
