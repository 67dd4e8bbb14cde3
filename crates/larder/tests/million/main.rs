//! Many records in the program: its start, its lists and pages, its flushes, and what is evicted, over both databases. `make stress` runs it
//! with a million.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may fail loudly"
)]

mod evict;
mod pages;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use larder_core::{ArtifactRecord, BlobDescriptor, Content, StoredHeaders, UnixMillis, sha256};
use larder_testkit::servers::postgres::Postgres;
use larder_testkit::{Origin, Resource};
use sqlx::AssertSqlSafe;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use support::packages::entry;
use support::{PATIENCE, Setup, TestLarder, get, send};

const MILLION: u32 = 1_000_000;
/// How long a flush may take, and a start to the first answer.
const FLUSH: Duration = Duration::from_secs(2);
const START: Duration = Duration::from_secs(1);
/// How long a page of a list may take.
const PAGE: Duration = Duration::from_millis(100);
/// How many rows of flushed records go in a second, at least: of those that are invalid each for itself, beside other work.
const SWEPT_A_SECOND: f64 = 2_500.0;

/// Held beside the many, with their bytes, before and between and behind them.
const WARM: [&str; 4] = ["keep/a", "pool/3/warm.deb", "pool/7/0000037.deb", "zzz"];

/// A running larder with many records, nine tenths of them of `files`, the others of `other`.
struct Scene {
    larder: TestLarder,
    _origin: Origin,
    /// The server's database, if there is one.
    database: Option<String>,
    records: u32,
    /// Those that were used longest ago, and are the only long ones: one of so many; 0: there are none.
    victims: u32,
}

impl Scene {
    async fn new(on_postgres: bool, records: u32) -> Self {
        Self::with(on_postgres, records, 0, "").await
    }

    /// With more lines of configuration.
    async fn with(on_postgres: bool, records: u32, victims: u32, more: &str) -> Self {
        let origin = Origin::start().await;
        for path in WARM {
            origin.put(&format!("/{path}"), Resource::new(path));
        }
        let keys = "immutable_patterns: ['.*']";
        let config = ["files", "other"].map(|name| entry(name, "generic", &origin, keys));
        let mut setup = Setup::new(&format!("remotes:\n{}{more}", config.concat()));
        let mut database = None;
        if on_postgres {
            let server = Postgres::shared();
            let name = server.database();
            setup = setup
                .env("DBHOST", "127.0.0.1")
                .env("DBPORT", &server.port().to_string())
                .env("DBUSER", larder_testkit::servers::postgres::USER)
                .env("DBPASS", larder_testkit::servers::postgres::PASSWORD)
                .env("DBNAME", &name);
            database = Some(name);
        }
        let scene = Self {
            larder: setup.start().await,
            _origin: origin,
            database,
            records,
            victims,
        };
        for repository in ["files", "other"] {
            for path in WARM {
                scene.warm(repository, path).await;
            }
        }
        scene.larder.until_idle().await;
        scene
    }

    async fn warm(&self, repository: &str, path: &str) {
        let url = self.larder.artifact(repository, path);
        assert_eq!(get(&url).await.status, 200);
        self.larder.hit(&url).await;
    }

    /// Makes the records behind the program's back, while it is not running.
    async fn fill(&self) {
        let sample = ArtifactRecord {
            content: Content::Blob(BlobDescriptor {
                digest: sha256(b"sample"),
                size: 6,
            }),
            headers: StoredHeaders::default(),
            source_url: "https://example.com/file".to_owned(),
            published_at: None,
            first_seen_at: UnixMillis(1),
            contacted_at: UnixMillis(2),
            fresh_since: UnixMillis(3),
            served_since: UnixMillis(4),
            verified: true,
        };
        // Rows of earlier versions are texts without a seal, and are read.
        let json = serde_json::to_string(&sample).expect("JSON");
        let last = self.records - 1;
        let columns = "INSERT INTO artifacts (repository, path, variant, blob, size, updated_at, record, epoch, used_at)";
        let (size, used_at) = match self.victims {
            0 => ("6".to_owned(), "0".to_owned()),
            each => {
                let is_one = format!("i % {each} = {}", evict::FIRST);
                let used_at = format!("CASE WHEN {is_one} THEN i + 1 ELSE 1000000000 + i END");
                let size = format!("CASE WHEN {is_one} THEN {} ELSE 6 END", evict::LENGTH);
                (size, used_at)
            }
        };
        let repository = "CASE WHEN i % 10 = 9 THEN 'other' ELSE 'files' END";
        let epoch = format!(
            "COALESCE((SELECT e.epoch FROM epochs AS e WHERE e.repository = {repository}), 0)"
        );
        // As if each had been fetched anew.
        let anew = "ON CONFLICT (repository, path, variant) DO UPDATE SET epoch = excluded.epoch";
        if let Some(database) = &self.database {
            let digest = "'sha256:' || lpad(to_hex((i::bigint * 2654435761) % 4294967296), 8, '0') || lpad(to_hex(i), 56, '0')";
            let path = "'pool/' || (i / 7 % 10) || '/' || lpad(i::text, 7, '0') || '.deb'";
            let numbers = format!("generate_series(0, {last}) AS n(i)");
            Postgres::shared().sql(
                    database,
                    &format!(
                        "INSERT INTO blobs (digest, size, modified_ns) SELECT {digest}, {size}, 0 FROM {numbers} ON CONFLICT DO NOTHING; \
                         {columns} SELECT {repository}, {path}, '', {digest}, {size}, 0, convert_to('{json}', 'UTF8'), {epoch}, {used_at} \
                         FROM {numbers} {anew}; ANALYZE"
                    ),
                );
            // What the server does by itself in a minute.
            Postgres::shared().sql(database, "VACUUM artifacts");
        } else {
            let digest = "printf('sha256:%08x%056x', (i * 2654435761) % 4294967296, i)";
            let path = "printf('pool/%d/%07d.deb', i / 7 % 10, i)";
            let numbers = format!(
                "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {last})"
            );
            self.sqlite(&format!(
                    "PRAGMA synchronous = OFF; PRAGMA cache_size = -400000; BEGIN; \
                     {numbers} INSERT INTO blobs (digest, size, modified_ns) SELECT {digest}, {size}, 0 FROM n WHERE TRUE \
                     ON CONFLICT DO NOTHING; \
                     {numbers} {columns} SELECT {repository}, {path}, '', {digest}, {size}, 0, '{json}', {epoch}, {used_at} FROM n WHERE TRUE \
                     {anew}; COMMIT; PRAGMA wal_checkpoint(TRUNCATE)"
                ))
                .await;
        }
    }

    async fn sqlite(&self, statements: &str) {
        let path = self.larder.data_dir().join("larder.sqlite");
        let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(path));
        let pool = pool.await.expect("the database");
        let done = sqlx::raw_sql(AssertSqlSafe(statements.to_owned()));
        done.execute(&pool).await.expect("rows");
        pool.close().await;
    }

    /// Ends the program, makes the records, and starts it again.
    async fn start_filled(&mut self) {
        self.larder.terminate();
        let since = Instant::now();
        self.fill().await;
        println!("{} records made in {:?}", self.records, since.elapsed());
        self.larder.restart().await;
    }

    /// Ends the program and starts it again; gives the time from its start to the first cached answer.
    async fn start_again(&mut self) -> Duration {
        self.larder.terminate();
        let since = Instant::now();
        self.larder.restart().await;
        let url = self.larder.artifact("files", WARM[0]);
        loop {
            let answer = get(&url).await;
            if answer.status == 200 {
                assert_eq!(answer.source(), "cache");
                return since.elapsed();
            }
            assert!(since.elapsed() < PATIENCE, "{}", answer.text());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Flushes; gives how many files were dropped, and how long it took.
    async fn flush(&self, query: &str) -> (u64, Duration) {
        let since = Instant::now();
        let url = self.larder.url(&format!("cache/flush{query}"));
        let answer = send("PUT", &url, &[]).await;
        let took = since.elapsed();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let flushed = &answer.json()["flushed"];
        assert_eq!(flushed["index"], 0);
        println!("  flush{query}: {} in {took:?}", flushed["files"]);
        (flushed["files"].as_u64().expect("a number"), took)
    }

    /// Which of the warm files of `files` are still served from the cache.
    async fn still_held(&self) -> Vec<&'static str> {
        let mut held = Vec::new();
        for path in WARM {
            let url = self.larder.artifact("files", path);
            let answer = get(&url).await;
            assert_eq!((answer.status, &*answer.body), (200, path.as_bytes()));
            if answer.source() == "cache" {
                held.push(path);
            }
        }
        self.larder.until_idle().await;
        held
    }

    /// How many records of a repository are there, by its summary.
    async fn counted(&self, repository: &str) -> u64 {
        let url = format!("api/v1/artifacts/{repository}?summary=true");
        let answer = get(&self.larder.url(&url)).await;
        let found = &answer.json()["repositories"][0]["files"];
        found
            .as_u64()
            .unwrap_or_else(|| panic!("{}", answer.text()))
    }

    /// Rows of the table, those of flushed records included.
    async fn rows(&self) -> u64 {
        const COUNT: &str = "SELECT COUNT(*) FROM artifacts";
        if let Some(database) = &self.database {
            let count = Postgres::shared().sql(database, COUNT);
            return count.parse().expect("a number");
        }
        let path = self.larder.data_dir().join("larder.sqlite");
        let options = SqliteConnectOptions::new().filename(path).read_only(true);
        let pool = SqlitePool::connect_with(options)
            .await
            .expect("the database");
        let count: i64 = sqlx::query_scalar(COUNT)
            .fetch_one(&pool)
            .await
            .expect("a number");
        pool.close().await;
        count.unsigned_abs()
    }

    /// Waits until no row of a flushed record is left; gives whether they went as fast as they are to.
    async fn until_swept(&self, left: u64) -> bool {
        if self.records < MILLION {
            // The next flush meets what is left of this one.
            return true;
        }
        let since = Instant::now();
        let number = self.rows().await - left;
        while self.rows().await > left {
            assert!(since.elapsed() < PATIENCE * 20, "{}", self.larder.log());
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert_eq!(self.rows().await, left);
        let took = since.elapsed();
        let in_a_second = number as f64 / took.as_secs_f64();
        println!("  {number} swept {took:?} later: {in_a_second:.0} in a second");
        in_a_second > SWEPT_A_SECOND
    }

    fn number_of(&self, which: impl Fn(u32) -> bool) -> u64 {
        (0..self.records).filter(|i| which(*i)).count() as u64
    }

    async fn lists(&self) {
        let mut longest = Duration::ZERO;
        for (query, found) in [
            ("files?limit=100", 100),
            ("files?limit=100&pattern=%5Epool%2F7%2F", 100),
            ("files?limit=100&pattern=%5Ezzz", 1),
            ("files?limit=100&pattern=nothing%20like%20it", 0),
            ("files?limit=100&cached=false", 0),
        ] {
            let url = self.larder.url(&format!("api/v1/artifacts/{query}"));
            // The best of several, as with the starts.
            let mut best = Duration::MAX;
            for _ in 0..5 {
                let since = Instant::now();
                let answer = get(&url).await;
                best = best.min(since.elapsed());
                let page = answer.json();
                let artifacts = page["artifacts"].as_array().expect("a list");
                assert_eq!(artifacts.len(), found, "{query}: {}", answer.text());
            }
            longest = longest.max(best);
            println!("  {query}: {found} in {best:?}");
        }
        assert!(longest < PAGE, "{longest:?}");
    }
}

/// Asks for a held file all the while; gives the longest time that it took.
fn hits(url: String, until: Arc<AtomicBool>) -> tokio::task::JoinHandle<Duration> {
    tokio::spawn(async move {
        let mut longest = Duration::ZERO;
        while !until.load(Ordering::Acquire) {
            let since = Instant::now();
            assert_eq!(get(&url).await.status, 200);
            longest = longest.max(since.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        longest
    })
}

async fn many(on_postgres: bool, records: u32) {
    let mut scene = Scene::new(on_postgres, records).await;
    scene.start_filled().await;
    let mut starts = Vec::new();
    for _ in 0..3 {
        starts.push(scene.start_again().await);
    }
    println!("started and answered in {starts:?}");
    // The best of several: other work on the machine is no fault of the program's.
    let best = starts.iter().min().expect("three");
    assert!(*best < START, "{starts:?}");
    scene.lists().await;
    pages::all(&scene).await;

    let warm = WARM.len() as u64;
    let of_files = |i: u32| i % 10 != 9;
    let is_prefixed = |i: u32| i / 7 % 10 == 3;
    let is_matched = |i: u32| i / 10 % 10 == 3;
    let all = scene.number_of(of_files) + warm;
    let others = u64::from(records) + warm - scene.number_of(of_files);
    let done = Arc::new(AtomicBool::new(false));
    let hits = hits(scene.larder.artifact("other", WARM[0]), Arc::clone(&done));
    let mut slow = Vec::new();
    let mut note = |name: &str, took: Duration| {
        // Until the rows of one flush are deleted the next one reads rows, too.
        let is_alone = records == MILLION || matches!(name, "nothing" | "a prefix");
        if took > FLUSH && is_alone {
            slow.push(format!("{name}: {took:?}"));
        }
    };

    let (files, took) = scene
        .flush("?remote=files&pattern=nothing%20like%20it")
        .await;
    note("nothing", took);
    assert_eq!(files, 0);
    assert_eq!(scene.still_held().await, WARM);

    let prefixed = scene.number_of(|i| of_files(i) && is_prefixed(i)) + 1;
    let (files, took) = scene.flush("?remote=files&pattern=%5Epool%2F3%2F").await;
    note("a prefix", took);
    assert_eq!(files, prefixed);
    assert_eq!(scene.still_held().await, [WARM[0], WARM[2], WARM[3]]);
    // The one that was fetched again.
    assert_eq!(scene.counted("files").await, all - prefixed + 1);
    let mut is_swept_soon = scene.until_swept(all - prefixed + 1 + others).await;

    let matched = scene.number_of(|i| of_files(i) && is_matched(i) && !is_prefixed(i)) + 1;
    let (files, took) = scene
        .flush("?remote=files&pattern=3%5B0-9%5D%5C.deb%24")
        .await;
    note("a tenth", took);
    assert_eq!(files, matched);
    assert_eq!(scene.still_held().await, [WARM[0], WARM[1], WARM[3]]);
    let left = all - prefixed - matched + 2;
    assert_eq!(scene.counted("files").await, left);
    is_swept_soon &= scene.until_swept(left + others).await;

    let (files, took) = scene.flush("?remote=files").await;
    note("a repository", took);
    assert_eq!(files, left);
    assert_eq!(scene.still_held().await, [""; 0]);
    assert_eq!(scene.still_held().await, WARM, "each was fetched again");
    is_swept_soon &= scene.until_swept(warm + others).await;
    assert_eq!(scene.counted("files").await, warm);
    assert_eq!(scene.still_held().await, WARM, "the sweep leaves those");
    done.store(true, Ordering::Release);
    println!("  hits took {:?} at most", hits.await.expect("hits"));

    scene.start_filled().await;
    let (files, took) = scene.flush("").await;
    note("everything", took);
    assert_eq!(files, u64::from(records) + 2 * warm);
    assert_eq!(scene.still_held().await, [""; 0]);
    // Another start finds nothing of it, whatever of the rows is left.
    scene.larder.kill9();
    scene.larder.restart().await;
    assert_eq!(scene.counted("files").await, warm);
    assert_eq!(scene.counted("other").await, 0);
    assert!(slow.is_empty(), "{slow:?}");
    assert!(is_swept_soon, "a sweep took long");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_on_sqlite() {
    many(false, 100_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_on_postgresql() {
    many(true, 100_000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a million records"]
async fn a_million_on_sqlite() {
    many(false, MILLION).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a million records"]
async fn a_million_on_postgresql() {
    many(true, MILLION).await;
}
