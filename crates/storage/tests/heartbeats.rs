//! Signs of life in a database that several processes share.
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

mod support;

use std::time::Duration;

use larder_core::{Clock as _, SystemClock, UnixMillis};
use larder_storage::{Heartbeats, MetadataStore};
use larder_testkit::servers::postgres::{PgBouncer, Postgres};

use support::place::options;

async fn heartbeats(port: u16, database: &str) -> Heartbeats {
    let store = MetadataStore::connect(&options(port, database)).await;
    store.unwrap().heartbeats().unwrap()
}

/// This process's clock, and one that is so much ahead of it.
fn clock(ahead_ms: i64) -> UnixMillis {
    UnixMillis(SystemClock.now().0 + ahead_ms)
}

/// Clocks are compared as they were when each of them wrote, whenever that is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_reads_the_others_and_how_far_their_clocks_are_ahead() {
    let server = Postgres::shared();
    let database = server.database();
    let one = heartbeats(server.port(), &database).await;
    let other = heartbeats(server.port(), &database).await;
    let nobody = one.beat("a", "it's $1 \\", clock(0)).await.unwrap();
    assert_eq!(nobody, []);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let heard = other.beat("b", "", clock(50_000)).await.unwrap();
    assert_eq!(heard.len(), 1);
    assert_eq!((&*heard[0].replica, &*heard[0].word), ("a", "it's $1 \\"));
    assert!(heard[0].age >= Duration::from_millis(300), "{heard:?}");
    assert!(
        (-51_000..=-49_000).contains(&heard[0].ahead_ms),
        "{heard:?}"
    );
    let heard = one.beat("a", "again", clock(0)).await.unwrap();
    assert_eq!(heard.len(), 1);
    assert!((49_000..=51_000).contains(&heard[0].ahead_ms), "{heard:?}");
    assert_eq!(server.sql(&database, "SELECT COUNT(*) FROM replicas"), "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dead_are_not_heard_and_their_rows_go() {
    let server = Postgres::shared();
    let database = server.database();
    let one = heartbeats(server.port(), &database).await;
    let age = |replica: &str, ms: i64| {
        let set =
            format!("UPDATE replicas SET beat_at = beat_at - {ms} WHERE replica = '{replica}'");
        server.sql(&database, &set);
    };
    let there = || {
        server.sql(
            &database,
            "SELECT string_agg(replica, ',' ORDER BY replica) FROM replicas",
        )
    };
    for (replica, ms) in [("a", 0), ("b", 11_000), ("c", 61_000), ("d", -61_000)] {
        one.beat(replica, "", UnixMillis(0)).await.unwrap();
        age(replica, ms);
    }
    let heard = one.beat("e", "", UnixMillis(0)).await.unwrap();
    let heard: Vec<&str> = heard.iter().map(|beat| &*beat.replica).collect();
    assert_eq!(heard, ["a"]);
    assert_eq!(
        there(),
        "a,b,e",
        "one that is a minute in the future is dead, too"
    );
}

/// Many at once, through a pooler too: nobody waits for anybody, and each has one row.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_meet_without_waiting_for_each_other() {
    let server = Postgres::shared();
    let pooler = PgBouncer::start(server);
    let database = server.database();
    let stores = [
        heartbeats(server.port(), &database).await,
        heartbeats(pooler.port(), &database).await,
    ];
    for n in 0..40 {
        stores[0]
            .beat(&format!("dead {n}"), "", UnixMillis(0))
            .await
            .unwrap();
    }
    server.sql(&database, "UPDATE replicas SET beat_at = 0");
    let beating = (0..24).map(|n| {
        let store = stores[n % 2].clone();
        async move {
            for _ in 0..20 {
                store
                    .beat(&format!("r{n:02}"), "word", UnixMillis(0))
                    .await
                    .unwrap();
            }
        }
    });
    futures_util::future::join_all(beating).await;
    for n in 0..24 {
        let own = format!("r{n:02}");
        let others = stores[n % 2].beat(&own, "word", UnixMillis(0)).await;
        assert_eq!(others.unwrap().len(), 23, "{own}");
    }
    let last = stores[1].beat("last", "", UnixMillis(0)).await.unwrap();
    assert_eq!(last.len(), 24);
    assert_eq!(server.sql(&database, "SELECT COUNT(*) FROM replicas"), "25");
}

/// A file is one process's own.
#[tokio::test]
async fn a_file_has_no_heartbeats() {
    assert!(
        MetadataStore::in_memory()
            .await
            .unwrap()
            .heartbeats()
            .is_none()
    );
}
