//! A server that another one takes over from: what larder is configured with leads to the one that serves.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

mod support;

use std::time::{Duration, Instant};

use larder_storage::{Attempt, RedisAddress, RedisShared, Shared, Told};
use larder_testkit::servers::RedisServer;
use larder_testkit::servers::postgres::{Disk, PASSWORD, Postgres, USER};
use support::{PATIENCE, Setup, get};

const LONG: Duration = Duration::from_secs(60);

async fn eventually_taken(shared: &RedisShared, key: &str) -> Duration {
    let began = Instant::now();
    loop {
        match shared.lease(key, "", LONG, None).await {
            Attempt::Taken(_) => return began.elapsed(),
            other => assert!(began.elapsed() < PATIENCE, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The server is killed, and the sentinel makes its follower the one that takes writes.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_sentinels_is_led_to_the_server_that_took_over() {
    let mut first = RedisServer::start();
    let port = first.port().to_string();
    let second = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]);
    let sentinel = RedisServer::sentinel_of(&first, "mymaster");
    let began = Instant::now();
    while !sentinel
        .command(&["SENTINEL", "REPLICAS", "mymaster"])
        .contains(&second.port().to_string())
        || !second
            .command(&["INFO", "replication"])
            .contains("master_link_status:up")
    {
        assert!(
            began.elapsed() < PATIENCE,
            "the sentinel knows the follower"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let url = format!("redis-sentinel://127.0.0.1:{}/mymaster", sentinel.port());
    let address = RedisAddress::parse(&url).expect("a URL");
    let (one, other) = (
        RedisShared::connect(address.clone(), "test"),
        RedisShared::connect(address, "test"),
    );
    let mut heard = other.subscribe("topic");
    eventually_taken(&one, "before").await;
    assert_eq!(heard.next().await, Told::Missed, "from now on it listens");

    first.stop();
    let began = Instant::now();
    let lease = one.lease("between", "", LONG, None).await;
    assert_eq!(lease, Attempt::Unknown);
    assert!(began.elapsed() < Duration::from_secs(1), "nobody waits");
    let took = eventually_taken(&one, "after").await;
    eventually_taken(&other, "after, by the other").await;
    println!(
        "used {took:?} after the server was killed, which the sentinel waits for 1 s at least"
    );
    // Keys and subscriptions are on the server that took over.
    let role = second.command(&["ROLE"]);
    assert!(role.contains("master"), "{role}");
    assert!(second.command(&["DBSIZE"]).trim() != ":0");
    let listening = async {
        loop {
            one.publish("topic", b"word").await;
            let told = tokio::time::timeout(Duration::from_millis(100), heard.next()).await;
            if told == Ok(Told::Message(bytes::Bytes::from_static(b"word"))) {
                return;
            }
        }
    };
    let listening = tokio::time::timeout(PATIENCE, listening).await;
    assert!(listening.is_ok(), "what is published is heard");
}

/// A streaming standby takes over from a server that is killed; larder, which knows both, goes on by itself.
#[tokio::test(flavor = "multi_thread")]
async fn larder_goes_on_with_the_standby_that_was_promoted() {
    let first = Postgres::start(Disk::Fast);
    let database = first.database();
    let second = first.standby();
    let ports = format!("{},{}", first.port(), second.port());
    let larder = Setup::new("remotes:\n  files: { type: local }\n")
        .env("DBHOST", "127.0.0.1,127.0.0.1")
        .env("DBPORT", &ports)
        .env("DBUSER", USER)
        .env("DBPASS", PASSWORD)
        .env("DBNAME", &database)
        .start()
        .await;
    let put = async |path: &str| {
        let url = larder.artifact("files", path);
        let sent = support::client::client().put(url).body(path.to_owned());
        let status = sent.send().await.expect("an answer").status();
        status.as_u16()
    };
    assert_eq!(put("before").await, 201);
    let began = Instant::now();
    let there = "SELECT to_regclass('local_files') IS NOT NULL";
    while second.sql(&database, there) != "t"
        || second.sql(&database, "SELECT COUNT(*) FROM local_files") != "1"
    {
        assert!(began.elapsed() < PATIENCE, "it follows");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    first.kill();
    let held = get(&larder.artifact("files", "before")).await;
    println!("without a server: {} for what was uploaded", held.status);
    assert_eq!(put("between").await, 503);
    second.promote();
    let began = Instant::now();
    while put("after").await != 201 {
        assert!(began.elapsed() < Duration::from_secs(5), "{}", larder.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("the first upload {:?} after the promotion", began.elapsed());
    for path in ["before", "after"] {
        let answer = get(&larder.artifact("files", path)).await;
        assert_eq!((answer.status, answer.text()), (200, path.to_owned()));
    }
}
