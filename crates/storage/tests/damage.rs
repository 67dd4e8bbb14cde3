//! Damage: a flipped bit makes a row absent or the database go, and never gives another file's bytes; the store never stops working.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test program: its helpers panic to report"
)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use larder_core::{BlobDescriptor, Content, UnixMillis, sha256};
use larder_storage::{
    BlobStore, Change, DerivedRecord, MemoryBlobStore, MetadataStore, OnDamage, StorageErrorKind,
};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{AssertSqlSafe, Row as _};

use support::{fast_directory, key, put, record, repository, store};

const FILES: u32 = 120;

async fn raw(path: &Path) -> SqlitePool {
    SqlitePool::connect_with(SqliteConnectOptions::new().filename(path))
        .await
        .unwrap()
}

fn contents(n: u32) -> Vec<u8> {
    format!("the bytes of file {n}").into_bytes()
}

/// A database of some pages, closed.
async fn filled(path: &Path, blobs: &Arc<dyn BlobStore>) {
    let meta = MetadataStore::open(path).await.unwrap();
    for n in 0..FILES {
        store(
            &meta,
            blobs,
            &key("r", &format!("pool/file-{n}")),
            &contents(n),
        )
        .await;
    }
    for n in 0..20 {
        let info = blobs
            .put_bytes(format!("derived {n}").as_bytes())
            .await
            .unwrap();
        let derived = DerivedRecord {
            blob: info.descriptor.clone(),
            content_type: "text/html".into(),
            made_at: UnixMillis(1),
        };
        let sources = vec![sha256(&contents(n))];
        let change = Change::PutDerivation {
            key: format!("{n:064x}"),
            repository: repository("r"),
            sources,
            derived,
            blob: info,
        };
        meta.apply(vec![change]).await.unwrap();
    }
    meta.secret_bytes("link_key", &[7; 32]).await.unwrap();
    meta.close().await;
}

/// Every key gives what was stored under it, or nothing.
async fn assert_true_or_absent(meta: &MetadataStore, about: &str) -> u32 {
    let mut absent = 0;
    for n in 0..FILES {
        match meta
            .record(&key("r", &format!("pool/file-{n}")))
            .await
            .unwrap()
        {
            Some(record) => {
                let blob = record
                    .blob()
                    .unwrap_or_else(|| panic!("{about}: {record:?}"));
                assert_eq!(
                    blob.digest,
                    sha256(&contents(n)),
                    "{about}: another file's bytes under file-{n}"
                );
            }
            None => absent += 1,
        }
    }
    for n in 0..20 {
        if let Some(derived) = meta.derivation(&format!("{n:064x}")).await.unwrap() {
            assert_eq!(
                derived.blob.digest,
                sha256(format!("derived {n}").as_bytes()),
                "{about}: derivation {n}"
            );
            assert_eq!(derived.content_type, "text/html", "{about}");
        }
    }
    absent
}

/// Bytes of a page of the database.
const PAGE: usize = 4096;

/// The pages of a database that hold what made its tables, counted from 0.
fn pages_of_schema(bytes: &[u8]) -> Vec<usize> {
    let pages = bytes.chunks(PAGE).enumerate();
    let of_schema = pages.filter(|(_, page)| page.windows(7).any(|words| words == b"CREATE "));
    of_schema.map(|(number, _)| number).collect()
}

/// A generator that gives the same places in every run (splitmix64).
struct Places(u64);

impl Places {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_w12_flipped_bits_give_the_right_bytes_or_none() {
    let directory = fast_directory();
    let blobs: Arc<dyn BlobStore> = Arc::new(MemoryBlobStore::new());
    let pristine = directory.path().join("pristine.sqlite");
    filled(&pristine, &blobs).await;
    let bytes = std::fs::read(&pristine).unwrap();
    let mut places = Places(1);
    let (mut rows, mut files, mut none) = (0, 0, 0);
    let schema = pages_of_schema(&bytes);
    for round in 0..100_u64 {
        // The schema is looked at closely; of the others each gets its share.
        let at = if round < 30 {
            let page = schema[round as usize % schema.len()];
            page * PAGE + places.next() as usize % PAGE
        } else {
            places.next() as usize % bytes.len()
        };
        let bit = places.next() % 8;
        let about = format!("byte {at} bit {bit}");
        let path = directory.path().join(format!("{round}.sqlite"));
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << bit;
        std::fs::write(&path, flipped).unwrap();
        let meta = MetadataStore::open_with(&path, OnDamage::PutAside)
            .await
            .unwrap_or_else(|error| panic!("{about}: {error:?}"));
        assert_true_or_absent(&meta, &about).await;
        // It goes on: what is fetched again is kept, at the latest in the database that takes the damaged one's place.
        let again = key("r", "pool/file-7");
        let change = put(&again, blobs.put_bytes(&contents(7)).await.unwrap());
        let kept = async {
            loop {
                let _ = meta.apply(vec![change.clone()]).await;
                if meta
                    .record(&again)
                    .await
                    .unwrap()
                    .is_some_and(|r| r.blob().unwrap().digest == sha256(&contents(7)))
                {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), kept)
            .await
            .unwrap_or_else(|_| panic!("{about}: nothing is kept any more"));
        assert_true_or_absent(&meta, &about).await;
        let damage = meta.damage();
        rows += u32::from(damage.rows > 0);
        files += u32::from(damage.put_aside > 0);
        none += u32::from(damage.rows == 0 && damage.put_aside == 0);
        meta.close().await;
        for entry in std::fs::read_dir(directory.path()).unwrap().flatten() {
            if entry
                .file_name()
                .to_string_lossy()
                .starts_with(&format!("{round}."))
            {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
    }
    eprintln!("damaged rows in {rows} databases, {files} put aside, {none} without consequence");
    assert!(
        rows > 2 && files > 8,
        "the flips did hit: {rows} {files} {none}"
    );
}

/// An index that leads to another file's row: the row itself is whole.
#[tokio::test]
async fn hazard_w1_a_row_under_another_key_is_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("larder.db");
    let (meta, blobs) = (
        MetadataStore::open(&path).await.unwrap(),
        Arc::new(MemoryBlobStore::new()) as Arc<dyn BlobStore>,
    );
    store(&meta, &blobs, &key("r", "one"), b"one").await;
    store(&meta, &blobs, &key("r", "two"), b"two").await;
    let swap = "UPDATE artifacts SET record = (SELECT record FROM artifacts WHERE path = 'two') WHERE path = 'one'";
    sqlx::query(swap).execute(&raw(&path).await).await.unwrap();
    assert_eq!(meta.record(&key("r", "one")).await.unwrap(), None);
    assert_eq!(meta.damage().rows, 1);
    assert!(meta.record(&key("r", "two")).await.unwrap().is_some());
}

fn aside(directory: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    all.filter(|path| path.to_string_lossy().contains(".damaged-"))
        .collect()
}

#[tokio::test]
async fn what_is_no_database_is_put_aside_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("larder.sqlite");
    for round in 1..=5_usize {
        let text = format!(
            "round {round}: this is a text, and long enough to be read as a header of a database. "
        )
        .repeat(20);
        std::fs::write(&path, &text).unwrap();
        let meta = MetadataStore::open_with(&path, OnDamage::PutAside)
            .await
            .unwrap();
        assert_eq!(meta.damage().put_aside, 1);
        assert_eq!(meta.counts().await.unwrap().records, 0);
        meta.close().await;
        let kept = aside(directory.path());
        assert_eq!(
            kept.len(),
            round.min(3),
            "a bad disk does not fill itself: {kept:?}"
        );
        assert!(
            kept.iter()
                .any(|path| std::fs::read_to_string(path).unwrap() == text),
            "whoever wants to look finds it"
        );
        std::fs::remove_file(&path).unwrap();
    }
}

#[tokio::test]
async fn where_uploads_may_be_a_damaged_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("larder.sqlite");
    let blobs: Arc<dyn BlobStore> = Arc::new(MemoryBlobStore::new());
    filled(&path, &blobs).await;
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..16].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    let error = MetadataStore::open_with(&path, OnDamage::Refuse)
        .await
        .unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Corrupt, "{error:?}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "left alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_met_while_running_is_absence_and_then_a_cold_cache_with_the_same_secrets() {
    let directory = fast_directory();
    let path = directory.path().join("larder.sqlite");
    let blobs: Arc<dyn BlobStore> = Arc::new(MemoryBlobStore::new());
    filled(&path, &blobs).await;
    let mut bytes = std::fs::read(&path).unwrap();
    // Every page of tables and indexes but their first ones, and not the schema: what a start looks at.
    let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(&path));
    let pool = pool.await.unwrap();
    let last_root: i64 = sqlx::query_scalar("SELECT MAX(rootpage) FROM sqlite_master")
        .fetch_one(&pool)
        .await
        .unwrap();
    pool.close().await;
    let schema = pages_of_schema(&bytes);
    let further = last_root as usize..bytes.len() / PAGE;
    for page in further.filter(|page| !schema.contains(page)) {
        bytes[page * PAGE..(page + 1) * PAGE].fill(0xa5);
    }
    std::fs::write(&path, &bytes).unwrap();
    let meta = MetadataStore::open_with(&path, OnDamage::PutAside)
        .await
        .unwrap();
    let secret = meta.secret_bytes("link_key", &[9; 32]).await.unwrap();
    let found = async {
        while meta.damage().put_aside == 0 {
            assert_true_or_absent(&meta, "running").await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found)
        .await
        .unwrap();
    assert_eq!(
        aside(directory.path())
            .iter()
            .filter(|path| !path.to_string_lossy().ends_with("-shm"))
            .count(),
        1
    );
    assert_eq!(
        assert_true_or_absent(&meta, "cold").await,
        FILES,
        "a cold cache"
    );
    store(&meta, &blobs, &key("r", "pool/file-1"), &contents(1)).await;
    assert_eq!(assert_true_or_absent(&meta, "warm again").await, FILES - 1);
    meta.close().await;
    let later = MetadataStore::open(&path).await.unwrap();
    assert_eq!(
        later.secret_bytes("link_key", &[1; 32]).await.unwrap(),
        secret,
        "links made before stay good"
    );
}

/// A database as the version before left it: no seals, absences as rows.
#[tokio::test]
async fn hazard_x6_rows_of_earlier_versions_are_read_and_their_absences_go() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("larder.db");
    let pool = SqlitePool::connect_with(
        SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true),
    )
    .await
    .unwrap();
    let script = include_str!("../src/meta/migrations/0001_artifacts.sql");
    let version = "CREATE TABLE schema_version (version BIGINT PRIMARY KEY NOT NULL); INSERT INTO schema_version VALUES (1);";
    sqlx::raw_sql(AssertSqlSafe(format!("{version}{script}")))
        .execute(&pool)
        .await
        .unwrap();
    let blob = BlobDescriptor {
        digest: sha256(b"x"),
        size: 1,
    };
    let insert = "INSERT INTO blobs VALUES ($1, 1, 0, NULL)";
    sqlx::query(insert)
        .bind(blob.digest.to_string())
        .execute(&pool)
        .await
        .unwrap();
    let negative = || serde_json::to_string(&record(Content::Negative { status: 404 })).unwrap();
    let held = serde_json::to_string(&record(Content::Blob(blob.clone()))).unwrap();
    let mut rows = vec![
        ("repodata/repomd.xml".to_owned(), held),
        ("repodata/repomd.xml.asc".to_owned(), negative()),
    ];
    rows.extend((0..3000).map(|n| (format!("no/{n}"), negative())));
    for (path, record) in rows {
        let blob = record.contains("blob").then(|| blob.digest.to_string());
        let insert = "INSERT INTO artifacts VALUES ('r', $1, '', $2, 1, 0, $3)";
        sqlx::query(insert)
            .bind(path)
            .bind(blob)
            .bind(record)
            .execute(&pool)
            .await
            .unwrap();
    }
    pool.close().await;
    let meta = MetadataStore::open(&path).await.unwrap();
    assert_eq!(meta.counts().await.unwrap().records, 2);
    assert!(
        meta.record(&key("r", "repodata/repomd.xml"))
            .await
            .unwrap()
            .unwrap()
            .blob()
            .is_some()
    );
    // That the held generation has no signature is part of it.
    let signature = meta
        .record(&key("r", "repodata/repomd.xml.asc"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(signature.content, Content::Negative { status: 404 });
    // A row gets its seal when it is written again.
    let document = key("r", "repodata/repomd.xml");
    let again = meta.record(&document).await.unwrap().unwrap();
    meta.apply(vec![Change::PutRecord {
        key: document,
        record: again,
        blob: None,
    }])
    .await
    .unwrap();
    let rows = sqlx::query("SELECT record FROM artifacts WHERE path = 'repodata/repomd.xml'")
        .fetch_all(&raw(&path).await)
        .await;
    assert_ne!(rows.unwrap()[0].get::<Vec<u8>, _>(0)[0], b'{');
}

async fn pages(path: &Path) -> i64 {
    sqlx::query_scalar("PRAGMA page_count")
        .fetch_one(&raw(path).await)
        .await
        .unwrap()
}

#[tokio::test]
async fn hazard_x6_a_database_shrinks_after_deletions_new_or_old() {
    for old in [false, true] {
        let directory = fast_directory();
        let path = directory.path().join("larder.db");
        if old {
            // Made without the setting, as earlier versions did.
            let options = SqliteConnectOptions::new()
                .filename(&path)
                .create_if_missing(true);
            let pool = SqlitePool::connect_with(options).await.unwrap();
            sqlx::raw_sql("PRAGMA auto_vacuum = 0; CREATE TABLE x (y); DROP TABLE x")
                .execute(&pool)
                .await
                .unwrap();
            pool.close().await;
        }
        let meta = MetadataStore::open(&path).await.unwrap();
        let mut large = record(Content::Negative { status: 404 });
        large.source_url = format!("https://example.com/{}", "x".repeat(8000));
        let keys: Vec<_> = (0..1500).map(|n| key("r", &format!("{n}"))).collect();
        let puts = keys.iter().map(|key| Change::PutRecord {
            key: key.clone(),
            record: large.clone(),
            blob: None,
        });
        meta.apply(puts.collect()).await.unwrap();
        let full = pages(&path).await;
        assert!(full > 2000, "{full}");
        meta.apply(
            keys.into_iter()
                .map(|key| Change::DeleteRecord { key })
                .collect(),
        )
        .await
        .unwrap();
        let given_back = meta.shrink(1 << 30).await.unwrap();
        let left = pages(&path).await;
        assert!(left < 300, "old: {old}: {left} of {full} pages are left");
        assert!(
            given_back > (full as u64 - 300) * 4096,
            "old: {old}: {given_back}"
        );
        let length = std::fs::metadata(&path).unwrap().len();
        assert!(
            length <= left as u64 * 4096,
            "old: {old}: the file itself: {length}"
        );
        // From now on in small steps, whoever made it.
        let mode: i64 = sqlx::query_scalar("PRAGMA auto_vacuum")
            .fetch_one(&raw(&path).await)
            .await
            .unwrap();
        assert_eq!(mode, 2, "old: {old}");
    }
}

/// Addresses that were configured side by side are one upstream; others are not.
#[tokio::test]
async fn copies_belong_to_the_upstream_that_they_came_from() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("larder.db");
    let addresses = |urls: &[&str]| {
        urls.iter()
            .map(|url| format!("files {url}"))
            .collect::<Vec<_>>()
    };
    let [a, b, c] = [
        "http://a.example:80",
        "http://b.example:80",
        "http://c.example:80",
    ];
    let mut meta = MetadataStore::open(&path).await.unwrap();
    let name = repository("r");
    assert_eq!(meta.origin(&name, &addresses(&[a])), "");
    assert_eq!(
        meta.origin(&name, &addresses(&[a, b])),
        "",
        "a mirror is added"
    );
    assert_eq!(
        meta.origin(&name, &addresses(&[b])),
        "",
        "and the first one goes"
    );
    for _ in 0..2 {
        let other = meta.origin(&name, &addresses(&[c]));
        assert_ne!(other, "", "another server");
        assert_eq!(meta.origin(&name, &addresses(&[c])), other);
        assert_eq!(meta.origin(&name, &addresses(&[a])), "", "back again");
        assert_eq!(
            meta.origin(&repository("other"), &addresses(&[c])),
            "",
            "of each repository its own"
        );
        meta.keep_origins(&[]).await.unwrap();
        meta.close().await;
        meta = MetadataStore::open(&path).await.unwrap();
    }
}
