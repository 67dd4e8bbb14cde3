//! Replicas that see each other through the database: without Redis, and where Redis is away from one or all of them.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

mod support;

use std::time::{Duration, Instant};

use larder_testkit::servers::postgres::{Disk, PASSWORD, Postgres, USER};
use larder_testkit::servers::{RedisServer, S3Server};
use serde_json::Value;
use support::{PATIENCE, Setup, TestLarder, get};

/// What is done on one replica holds on all within this without Redis (contract, section 10), and what a busy machine adds.
const BY_POLLING: Duration = Duration::from_secs(2);
const BUSY: Duration = Duration::from_secs(3);

struct Backends {
    postgres: Postgres,
    database: String,
    objects: S3Server,
}

impl Backends {
    async fn start() -> Self {
        let postgres = Postgres::start(Disk::Fast);
        let database = postgres.database();
        Self {
            postgres,
            database,
            objects: S3Server::start().await,
        }
    }

    fn replica(&self, config: &str, redis: Option<&str>) -> Setup {
        let setup = Setup::new(config)
            .env("DBHOST", "127.0.0.1")
            .env("DBPORT", &self.postgres.port().to_string())
            .env("DBUSER", USER)
            .env("DBPASS", PASSWORD)
            .env("DBNAME", &self.database)
            .env("MINIO_ENDPOINT", &self.objects.endpoint())
            .env("MINIO_SECURE", "false")
            .env("MINIO_BUCKET", S3Server::BUCKET)
            .env("MINIO_ACCESS_KEY", S3Server::ACCESS_KEY)
            .env("MINIO_SECRET_KEY", S3Server::SECRET_KEY);
        match redis {
            Some(url) => setup.env("REDIS_URL", url),
            None => setup,
        }
    }

    fn sql(&self, statement: &str) -> String {
        self.postgres.sql(&self.database, statement)
    }
}

fn config(description: &str) -> String {
    format!("remotes:\n  files: {{ type: local, description: {description} }}\n")
}

async fn cluster(larder: &TestLarder) -> Value {
    get(&larder.url("/health")).await.json()["cluster"].clone()
}

/// Waits until `/health` speaks so of the cluster, and gives how long that took.
async fn until(what: &str, larder: &TestLarder, is_so: impl Fn(&Value) -> bool) -> Duration {
    let began = Instant::now();
    loop {
        let cluster = cluster(larder).await;
        if is_so(&cluster) {
            return began.elapsed();
        }
        assert!(
            began.elapsed() < PATIENCE,
            "{what}: {cluster}\n{}",
            larder.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn others(cluster: &Value) -> usize {
    cluster["replicas"].as_array().map_or(0, Vec::len)
}

fn alarms(cluster: &Value) -> usize {
    cluster["alarms"].as_array().map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_replicas_see_each_other_and_drift_and_skew_are_alarms() {
    let backends = Backends::start().await;
    let mut one = backends.replica(&config("same"), None).start().await;
    let mut other = backends.replica(&config("same"), None).start().await;
    for replica in [&one, &other] {
        until("the other is seen", replica, |seen| others(seen) == 1).await;
    }
    let seen = cluster(&one).await;
    assert_eq!(seen["shared"]["kind"], "none");
    assert_eq!(seen["alarms"], serde_json::json!([]));
    assert_eq!(seen["replicas"][0]["same_configuration"], true);
    assert_eq!(seen["replicas"][0]["configuration"], seen["configuration"]);
    assert!(seen["replicas"][0]["clock_skew_ms"].as_u64() < Some(1_000));
    assert!((one.metric("larder_cluster_replicas", "").await - 2.0).abs() < 0.1);

    // One has another configuration from now on. The other reads its own again, and is told of what has not changed there.
    one.write_config(&config("another"));
    one.signal(rustix::process::Signal::HUP);
    let own = seen["configuration"].clone();
    until("it is in use", &one, |seen| seen["configuration"] != own).await;
    let took = until("drift", &other, |seen| alarms(seen) == 1).await;
    println!("drift is an alarm after {took:?}");
    assert!(took < BY_POLLING + BUSY, "{took:?}");
    other.logged("reads its own again").await;
    assert!((other.metric("larder_cluster_configurations", "").await - 2.0).abs() < 0.1);
    for (replica, of) in [("this", &other), ("", &one)] {
        let digest = cluster(of).await["configuration"].clone();
        let labels = format!("replica=\"{replica}\",digest={digest}");
        let value = other.metric("larder_cluster_configuration", &labels).await;
        assert!((value - 1.0).abs() < 0.1, "{labels}");
    }
    // Its own has changed, too: a reload of one is a reload of all. The alarm of before is there still, so only the digest tells that
    // the third one is in use.
    let another = cluster(&one).await["configuration"].clone();
    other.write_config(&config("a third"));
    one.write_config(&config("a third"));
    one.signal(rustix::process::Signal::HUP);
    until("one has read it", &one, |seen| {
        seen["configuration"] != another
    })
    .await;
    let third = cluster(&one).await["configuration"].clone();
    let took = until("all have it", &other, |seen| {
        seen["configuration"] == third && alarms(seen) == 0
    })
    .await;
    println!("the other has read its own again after {took:?}");

    // Somebody whose clock is a minute ahead.
    let word = serde_json::json!({
        "replica": "fast", "address": "10.0.0.2:80", "version": "1.2.3", "config": third, "at": 0,
    });
    backends.sql(&format!(
        "INSERT INTO replicas SELECT 'fast', '{word}', 60000, CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"
    ));
    let took = until("skew", &other, |seen| alarms(seen) == 1).await;
    assert!(took < BY_POLLING + BUSY, "{took:?}");
    assert!((other.metric("larder_cluster_clock_skew_seconds", "").await - 60.0).abs() < 1.0);
    other.logged("more than five seconds").await;

    // Who is killed is not there any more, and neither is its row after a while.
    one.kill9();
    until("gone", &other, |seen| others(seen) == 0).await;
    backends.sql("UPDATE replicas SET beat_at = beat_at - 60000 WHERE ahead = 60000 OR beat_at < (SELECT MAX(beat_at) FROM replicas)");
    let began = Instant::now();
    while backends.sql("SELECT COUNT(*) FROM replicas") != "1" {
        assert!(began.elapsed() < PATIENCE, "rows of the dead go");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_that_is_away_hides_nobody() {
    let backends = Backends::start().await;
    let mut redis = RedisServer::start();
    let url = redis.url();
    let near = backends.replica(&config("same"), Some(&url)).start().await;
    // It is cut off from Redis, and has another configuration.
    let cut_off = backends
        .replica(&config("another"), Some("redis://127.0.0.1:1"))
        .start()
        .await;
    for replica in [&near, &cut_off] {
        let took = until("the other is seen", replica, |seen| alarms(seen) == 1).await;
        println!("drift of one that is cut off is an alarm after {took:?}");
    }
    assert_eq!(cluster(&near).await["shared"]["status"], "ok");
    // Redis goes, and a third comes.
    redis.stop();
    let third = backends.replica(&config("same"), Some(&url)).start().await;
    for replica in [&near, &cut_off, &third] {
        until("all others are seen", replica, |seen| others(seen) == 2).await;
    }
    // The database goes: who was there is forgotten, and nothing else happens.
    backends.postgres.stop();
    until("nobody is heard", &near, |seen| others(seen) == 0).await;
    assert_eq!(get(&near.url("/live")).await.status, 200);
    backends.postgres.start_again();
    until("all others are seen again", &near, |seen| others(seen) == 2).await;
}
