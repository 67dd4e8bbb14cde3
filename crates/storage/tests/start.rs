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

use support::{key, record};

const RECORDS: u32 = 100_000;

#[tokio::test]
async fn a_hundred_thousand_records_open_within_ten_milliseconds() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("larder.db");
    MetadataStore::open(&path).await.unwrap().close().await;
    fill(&path).await;

    let mut best = Duration::MAX;
    // The best of several: other work on the machine is no fault of the store's.
    for _ in 0..50 {
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
        if best < Duration::from_millis(10) {
            break;
        }
    }
    assert!(best < Duration::from_millis(10), "{best:?}");
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
        "{numbers} INSERT INTO artifacts (repository, path, variant, blob, size, updated_at, record) SELECT 'r', 'pool/file-' || i, '', printf('sha256:%064x', i * 7919), 6, 0, $1 FROM n"
    );
    let done = sqlx::query(AssertSqlSafe(records))
        .bind(json)
        .execute(&pool)
        .await
        .unwrap();
    assert_eq!(done.rows_affected(), u64::from(RECORDS));
    pool.close().await;
}
