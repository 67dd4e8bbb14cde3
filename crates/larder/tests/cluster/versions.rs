//! Two versions of the tables at once: a newer larder has brought them up to date, and older replicas go on over them. What a newer one
//! may do to the tables is played by statements, as its scripts are; `LARDER_TEST_OLDER` names an older program that then runs beside
//! this build's.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder_testkit::{Payload, Resource};

use super::fixture::{Backends, put, until, until_ready};
use super::support::{Answer, TestLarder, get, send};

const SOON: Duration = Duration::from_secs(10);

/// What a script of a newer version may do, in one transaction that takes a while: every table gets a column, a table and an index come
/// to them, and the version is noted, with the oldest one that still works.
const EXPANSION: &str = "BEGIN; SET LOCAL lock_timeout = 600000; \
    SELECT version FROM schema_version WHERE version = 0 FOR UPDATE; \
    DO $$ DECLARE t TEXT; BEGIN \
      FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'schema_version' ORDER BY tablename LOOP \
        EXECUTE format('ALTER TABLE %I ADD COLUMN later TEXT NOT NULL DEFAULT ''new''', t); \
      END LOOP; END $$; \
    CREATE TABLE later (id BIGINT PRIMARY KEY, of_file TEXT); \
    CREATE INDEX local_files_later ON local_files (repository, later); \
    SELECT pg_sleep(1.5); \
    INSERT INTO schema_version (version, oldest) SELECT MAX(version) + 1, 1 FROM schema_version; COMMIT";

/// The version that needs a larder which knows it.
const CONTRACTION: &str = "INSERT INTO schema_version (version, oldest) SELECT MAX(version) + 1, MAX(version) + 1 FROM schema_version";

/// Reads and uploads on all replicas, none of which may fail.
struct Load {
    is_over: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(backends: &Backends, replicas: &[&TestLarder]) -> Self {
        let (is_over, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        for n in 0..300 {
            let body = Payload::generated(5_000, n);
            backends
                .origin
                .put(&format!("/{n}.bin"), Resource::new(body));
        }
        let client = |number: u64| {
            let replica = replicas[number as usize % replicas.len()];
            let (files, own) = (replica.artifact("files", ""), replica.artifact("own", ""));
            let (is_over, done) = (Arc::clone(&is_over), Arc::clone(&done));
            tokio::spawn(async move {
                let mut turn = number;
                while !is_over.load(Ordering::SeqCst) {
                    turn += 1;
                    let file = turn % 300;
                    let answer = get(&format!("{files}{file}.bin")).await;
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    assert!(answer.body == Payload::generated(5_000, file).slice(0, 5_000));
                    let url = format!("{own}{number}/{}", turn % 20);
                    let answer = put(&url, "uploaded").await;
                    assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
                    assert_eq!(get(&url).await.text(), "uploaded");
                    if turn.is_multiple_of(7) {
                        assert_eq!(send("DELETE", &url, &[]).await.status, 204);
                    }
                    done.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        let clients = (0..6).map(client).collect();
        Self {
            is_over,
            done,
            clients,
        }
    }

    /// Waits until so many more turns have been done.
    async fn goes_on(&self, turns: u64) {
        let (before, since) = (self.done.load(Ordering::SeqCst), Instant::now());
        while self.done.load(Ordering::SeqCst) < before + turns {
            let has_failed = self
                .clients
                .iter()
                .any(tokio::task::JoinHandle::is_finished);
            assert!(
                !has_failed && since.elapsed() < 3 * SOON,
                "clients got stuck"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn end(self) -> u64 {
        self.is_over.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.expect("no request fails");
        }
        self.done.load(Ordering::SeqCst)
    }
}

/// Runs the script, again where it and a replica's transaction were in each other's way, as larder does.
fn expand(backends: &Backends) {
    let mut tries = 0;
    while let Err(said) = backends.postgres.try_sql(&backends.database, EXPANSION) {
        tries += 1;
        assert!(said.contains("deadlock") && tries < 10, "{said}");
    }
}

/// The program that plays the older replica.
fn older() -> Option<PathBuf> {
    std::env::var_os("LARDER_TEST_OLDER").map(PathBuf::from)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_replicas_go_on_when_a_newer_one_has_brought_the_tables_up_to_date() {
    let backends = Backends::start().await;
    let old = || {
        let setup = backends.replica();
        match older() {
            Some(program) => setup.program(program),
            None => setup,
        }
    };
    let (mut first, second) = (old().start().await, backends.replica().start().await);
    let load = Load::start(&backends, &[&first, &second]);
    load.goes_on(30).await;
    let began = Instant::now();
    tokio::task::block_in_place(|| expand(&backends));
    println!(
        "the tables were brought up to date in {:?}, under load",
        began.elapsed()
    );
    load.goes_on(60).await;
    println!("{} turns of clients, none failed", load.end().await);

    // One that starts does so over the newer tables; so does one that has never seen the older ones.
    assert!(first.terminate().success());
    first.restart().await;
    until_ready(&first).await;
    let third = old().start().await;
    let load = Load::start(&backends, &[&first, &second, &third]);
    load.goes_on(60).await;
    load.end().await;
    let columns = backends
        .postgres
        .sql(&backends.database, "SELECT DISTINCT later FROM local_files");
    assert_eq!(columns, "new", "rows of older replicas have the default");

    // The newer one declares that these are too old. Who runs goes on, and who starts is told.
    backends.postgres.sql(&backends.database, CONTRACTION);
    let newest = "SELECT MAX(version) FROM schema_version";
    let newest = backends.postgres.sql(&backends.database, newest);
    let load = Load::start(&backends, &[&second, &third]);
    load.goes_on(30).await;
    load.end().await;
    assert!(first.terminate().success());
    first.spawn();
    let status = first.wait();
    let said = first.log();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(
        said.contains(&format!("needs a larder that knows version {newest}")),
        "{said}"
    );
    assert!(said.contains("start the newer larder"), "{said}");
    for replica in [&second, &third] {
        let tells = |answer: &Answer| {
            let metadata = answer.json()["backends"]["metadata"].to_string();
            metadata.contains("start the newer larder")
        };
        until(&replica.url("/health"), tells, SOON).await;
        assert!(replica.log().contains("too old for its database"));
        assert_eq!(get(&replica.url("/ready")).await.status, 200);
        assert_eq!(get(&replica.artifact("files", "1.bin")).await.status, 200);
    }
}
