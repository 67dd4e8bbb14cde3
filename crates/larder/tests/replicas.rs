//! The program as one of several replicas: with a real Redis, and with another process to which and from which bytes go while they
//! arrive.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may fail loudly"
)]

mod support;

use std::time::{Duration, Instant};

use larder_core::{Clock as _, RepositoryName, Secret, SourceKey, SystemClock};
use larder_engine::{CLUSTER_HEADER, ClusterSecret, FlightRequest};
use larder_storage::{Attempt, RedisAddress, RedisShared, Shared as _};
use larder_testkit::servers::RedisServer;
use larder_testkit::{Origin, Payload, Resource};
use rustix::process::Signal;
use support::packages::remote;
use support::{Setup, TestLarder, get, send};

const MIB: u64 = 1 << 20;
const SECRET: &str = "a secret of replicas";

fn replica(origin: &Origin, redis: &RedisServer) -> Setup {
    Setup::new(&remote("generic", origin, ""))
        .env("REDIS_URL", &redis.url())
        .env("LARDER_ADVERTISE", "127.0.0.1:1")
        .env("LARDER_CLUSTER_SECRET", SECRET)
}

async fn cluster(larder: &TestLarder) -> serde_json::Value {
    get(&larder.url("/health")).await.json()["cluster"].clone()
}

async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until_redis(larder: &TestLarder, status: &str) {
    until(status, || async {
        cluster(larder).await["shared"]["status"] == status
    })
    .await;
}

/// A file of eight MiB whose second half the origin holds back.
fn held_back(origin: &Origin) -> bytes::Bytes {
    let payload = Payload::generated(8 * MIB, 7);
    let resource = Resource::new(payload.clone()).etag("\"strong\"");
    origin.put("/file.bin", resource);
    origin.hold_body("/file.bin", 4 * MIB);
    payload.slice(0, 8 * MIB)
}

fn request() -> FlightRequest {
    FlightRequest {
        key: SourceKey {
            repository: RepositoryName::parse("generic").unwrap(),
            path: "file.bin".into(),
            variant: "".into(),
        },
        offset: 0,
        replica: "a test".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_a3_redis_comes_and_goes_and_larder_serves() {
    let origin = Origin::start().await;
    let mut redis = RedisServer::start();
    redis.stop();
    let larder = replica(&origin, &redis).start().await;
    assert_eq!(cluster(&larder).await["shared"]["status"], "unavailable");
    assert_eq!(get(&larder.url("/ready")).await.status, 200);
    let serves = async |name: &str| {
        origin.put(&format!("/{name}"), Resource::new(name.to_owned()));
        let began = Instant::now();
        let answer = get(&larder.artifact("generic", name)).await;
        assert_eq!((answer.status, answer.text()), (200, name.to_owned()));
        assert_eq!(origin.count("GET", &format!("/{name}")), 1);
        began.elapsed()
    };
    let bound = Duration::from_secs(2);
    assert!(serves("down").await < bound);
    redis.start_again();
    until_redis(&larder, "ok").await;
    assert!(serves("up").await < bound);
    assert_eq!(cluster(&larder).await["downloads"]["led"], 1);
    redis.freeze();
    let took = serves("frozen").await;
    assert!(took < bound, "{took:?}");
    until_redis(&larder, "unavailable").await;
    assert!(serves("known to be frozen").await < bound);
    redis.thaw();
    until_redis(&larder, "ok").await;
    redis.stop();
    assert!(serves("killed").await < bound);
    assert_eq!(get(&larder.url("/health")).await.status, 200);
}

/// Redis answers, and keeps nothing: that is said as long as it is so, and once.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_keeps_nothing_is_unavailable_until_it_does() {
    let origin = Origin::start().await;
    let redis = RedisServer::start();
    let larder = replica(&origin, &redis).start().await;
    until_redis(&larder, "ok").await;
    let miss = async |name: String| {
        origin.put(&format!("/{name}"), Resource::new(name.clone()));
        let answer = get(&larder.artifact("generic", &name)).await;
        assert_eq!((answer.status, answer.text()), (200, name));
    };
    let told = || larder.log().matches("Redis refuses").count();
    for (name, refuse, allow) in [
        (
            "full",
            &["CONFIG", "SET", "maxmemory", "1"][..],
            &["CONFIG", "SET", "maxmemory", "0"][..],
        ),
        (
            "alone",
            &["CONFIG", "SET", "min-replicas-to-write", "1"],
            &["CONFIG", "SET", "min-replicas-to-write", "0"],
        ),
        (
            "read-only",
            &["REPLICAOF", "127.0.0.1", "1"],
            &["REPLICAOF", "NO", "ONE"],
        ),
    ] {
        redis.command(refuse);
        let before = told();
        for n in 0..4 {
            miss(format!("{name}-{n}")).await;
            // Meanwhile larder has asked it for other things, which it does.
            tokio::time::sleep(Duration::from_millis(600)).await;
            let shared = &cluster(&larder).await["shared"];
            assert_eq!(shared["status"], "unavailable", "{name}-{n}: {shared}");
        }
        let up = larder.metric("larder_cluster_shared_up", "").await;
        assert!(up.abs() < 0.1, "{up}");
        // Once; a machine that is busy for long may have lost the connection in between.
        assert!(told() - before <= 2, "{}", larder.log());
        redis.command(allow);
        let mut n = 0;
        while cluster(&larder).await["shared"]["status"] != "ok" {
            assert!(n < 100, "{name}: {}", larder.log());
            miss(format!("{name}-allowed-{n}")).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            n += 1;
        }
    }
}

/// A start waits for Redis for a moment. What tells larder to stop in that moment is not lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_while_redis_is_waited_for_ends_the_start() {
    let origin = Origin::start().await;
    let redis = RedisServer::start();
    redis.freeze();
    let mut larder = replica(&origin, &redis).spawned();
    let database = larder.data_dir().join("larder.sqlite");
    until("a database", || async { database.exists() }).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    larder.signal(Signal::TERM);
    assert_eq!(larder.wait().code(), Some(0));
    redis.thaw();
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_given_what_is_under_way_and_nobody_else_anything() {
    let origin = Origin::start().await;
    let redis = RedisServer::start();
    let larder = replica(&origin, &redis).start().await;
    let body = held_back(&origin);
    let target = request().target();
    let secret = ClusterSecret::new(Secret::new(SECRET.to_owned()));
    let ask = async |signature: &str| {
        send("GET", &larder.url(&target), &[(CLUSTER_HEADER, signature)]).await
    };
    // Nothing is begun for a replica.
    let absent = ask(&secret.sign(&target, SystemClock.now())).await;
    assert_eq!((absent.status, origin.requests().len()), (404, 0));
    let url = larder.artifact("generic", "file.bin");
    let client = tokio::spawn(async move { get(&url).await });
    origin.wait_for("GET", "/file.bin", 1).await;

    let signature = secret.sign(&target, SystemClock.now());
    let late = larder_core::UnixMillis(SystemClock.now().0 - 16_000);
    for refused in ["", "v1 0 0 00", &secret.sign(&target, late)] {
        let answer = ask(refused).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (403, &"not_a_replica".into())
        );
    }
    let follow = reqwest::Client::new()
        .get(larder.url(&target))
        .header(CLUSTER_HEADER, &signature)
        .send();
    let mut followed = follow.await.unwrap();
    assert_eq!(followed.status(), 200);
    let mut arrived = Vec::new();
    while (arrived.len() as u64) < 3 * MIB {
        arrived.extend_from_slice(&followed.chunk().await.unwrap().expect("bytes"));
    }
    let middle = &body[MIB as usize..MIB as usize + 1_000];
    assert!(
        arrived.windows(1_000).any(|window| window == middle),
        "while they arrive"
    );
    let replay = ask(&signature).await;
    assert_eq!(replay.status, 403);
    origin.release("/file.bin");
    assert_eq!(client.await.unwrap().body, body);
    while let Some(chunk) = followed.chunk().await.unwrap() {
        arrived.extend_from_slice(&chunk);
    }
    assert!(arrived.len() as u64 > 8 * MIB);
    assert_eq!(origin.count("GET", "/file.bin"), 1);
}

/// A lease on the test's file in the cluster of `larder`, in the name of a replica at `address`.
async fn lease_of(larder: &TestLarder, redis: &RedisServer, address: &str) -> RedisShared {
    until_redis(larder, "ok").await;
    let named = || {
        let said = redis.command(&["PUBSUB", "CHANNELS", "larder:*"]);
        let line = said.lines().find(|line| line.starts_with("larder:"))?;
        Some(line.split(':').nth(1)?.to_owned())
    };
    until("it listens", || async { named().is_some() }).await;
    let shared = RedisShared::connect(
        RedisAddress::parse(&redis.url()).unwrap(),
        &named().unwrap(),
    );
    assert!(shared.until_connected(Duration::from_secs(10)).await);
    let life = Duration::from_mins(2);
    let holder = format!("another {address}");
    let lease = shared.lease("flight\ngeneric\nfile.bin\n", &holder, life, None);
    assert!(matches!(lease.await, Attempt::Taken(_)));
    shared
}

/// Two processes, each with a database and a Redis of its own, as far apart as can be: what the first is told by a lease makes it follow
/// the second.
async fn follower(kill: bool) {
    let origin = Origin::start().await;
    let (near, far) = (RedisServer::start(), RedisServer::start());
    let follower = replica(&origin, &near).start().await;
    let mut leader = replica(&origin, &far).start().await;
    let body = held_back(&origin);
    let url = leader.artifact("generic", "file.bin");
    let at_leader = tokio::spawn(async move { reqwest::get(url).await?.bytes().await });
    origin.wait_for("GET", "/file.bin", 1).await;
    let shared = lease_of(&follower, &near, &leader.address().to_string()).await;

    let url = follower.artifact("generic", "file.bin");
    let began = Instant::now();
    let mut answer = reqwest::get(url).await.unwrap();
    let mut arrived = answer.chunk().await.unwrap().expect("bytes").to_vec();
    println!("the first byte at the follower after {:?}", began.elapsed());
    assert_eq!(origin.count("GET", "/file.bin"), 1);
    if kill {
        while (arrived.len() as u64) < 3 * MIB {
            arrived.extend_from_slice(&answer.chunk().await.unwrap().expect("bytes"));
        }
        leader.kill9();
        origin.wait_for("GET", "/file.bin", 2).await;
        let last = origin.requests().pop().unwrap();
        assert!(last.header("range").is_some(), "the rest, not all of it");
    }
    origin.release("/file.bin");
    while let Some(chunk) = answer.chunk().await.unwrap() {
        arrived.extend_from_slice(&chunk);
    }
    assert!(arrived == body);
    let (gets, downloads) = if kill {
        (2, "taken_over")
    } else {
        (1, "followed")
    };
    assert_eq!(origin.count("GET", "/file.bin"), gets);
    assert_eq!(cluster(&follower).await["downloads"][downloads], 1);
    let at_leader = at_leader.await.unwrap();
    assert!(if kill {
        at_leader.is_err()
    } else {
        at_leader.unwrap() == body
    });
    drop(shared);
    // It holds the file now.
    let again = get(&follower.artifact("generic", "file.bin")).await;
    assert!(again.body == body && again.source() == "cache");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_gets_the_bytes_from_another_process_while_they_arrive() {
    follower(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_goes_on_where_another_process_was_killed() {
    follower(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_refused_and_no_secret_is_shown() {
    let refused = |variables: &[(&str, &str)]| {
        let setup = variables
            .iter()
            .fold(Setup::without_config(), |setup, (name, value)| {
                setup.env(name, value)
            });
        let (status, said) = setup.run_to_end();
        assert_eq!(status.code(), Some(1), "{variables:?}");
        assert!(!said.contains("canary"), "{said}");
        said
    };
    for (variables, want) in [
        (&[("REDIS_URL", "canary:6379")][..], "REDIS_URL is no URL"),
        (&[("REDIS_URL", "http://canary")], "known are redis"),
        (
            &[("REDIS_URL", "redis-sentinel://u:canary@h")],
            "which service",
        ),
        (
            &[("REDIS_URL", "redis://canary"), ("REDIS_URL_FILE", "/x")],
            "both set",
        ),
        (&[("REDIS_URL_FILE", "/nowhere")], "cannot be read"),
        (&[("LARDER_ADVERTISE", "h:1")], "needs `cluster.secret`"),
        (&[("LARDER_ADVERTISE", "http://h:1")], "is not HOST:PORT"),
        (&[("LARDER_CLUSTER_SECRET", "canary")], "shorter than 16"),
    ] {
        let said = refused(variables);
        assert!(said.contains(want), "{want}: {said}");
    }
    let redis = RedisServer::start_with(&["--requirepass", "canary"]);
    let url = format!("redis://:canary@127.0.0.1:{}", redis.port());
    let larder = Setup::without_config()
        .env("REDIS_URL", &url)
        .env("LARDER_CLUSTER_SECRET", "canary canary canary")
        .start()
        .await;
    until_redis(&larder, "ok").await;
    let shown = get(&larder.url("/config")).await;
    assert_eq!(
        shown.json()["redis"]["url"],
        format!("redis://***@127.0.0.1:{}", redis.port())
    );
    let health = get(&larder.url("/health")).await;
    for text in [shown.text(), health.text(), larder.log()] {
        assert!(!text.contains("canary"), "{text}");
    }
    // Without Redis it is alone, and says nothing of others.
    let alone = Setup::without_config().start().await;
    let among = cluster(&alone).await;
    assert!(
        among.is_null() || among["shared"]["kind"] == "none",
        "{among}"
    );
    let nobody = get(&alone.url(&request().target())).await;
    assert_eq!(nobody.status, 404);
}

/// Two replicas of one cluster cannot run over an embedded database; a second one is played here, through the same Redis.
#[tokio::test(flavor = "multi_thread")]
async fn drift_and_skew_are_alarms_and_metrics() {
    let origin = Origin::start().await;
    let redis = RedisServer::start();
    let larder = replica(&origin, &redis).start().await;
    until_redis(&larder, "ok").await;
    let own = cluster(&larder).await;
    assert_eq!(own["alarms"], serde_json::json!([]));
    let topic = || {
        let said = redis.command(&["PUBSUB", "CHANNELS", "larder:*:topic:replicas"]);
        let line = said.lines().find(|line| line.starts_with("larder:"))?;
        Some(line.to_owned())
    };
    until("it listens", || async { topic().is_some() }).await;
    let says = |config: &str, ahead: i64| {
        let word = serde_json::json!({
            "replica": "another", "address": "10.0.0.2:80", "version": "1.2.3", "config": config,
            "at": SystemClock.now().0 + ahead,
        });
        redis.command(&["PUBLISH", &topic().unwrap(), &word.to_string()]);
    };
    let alarms = |want: usize| {
        let larder = &larder;
        async move { cluster(larder).await["alarms"].as_array().map(Vec::len) == Some(want) }
    };
    says(own["configuration"].as_str().unwrap(), 0);
    until("it is heard", || async {
        cluster(&larder).await["replicas"][0]["same_configuration"] == true
    })
    .await;
    assert!(alarms(0).await);
    // One word may have been late.
    for _ in 0..2 {
        says("0123456789abcdef", 60_000);
    }
    until("two alarms", || alarms(2)).await;
    let value = async |name: &str| larder.metric(name, "").await;
    assert!((value("larder_cluster_replicas").await - 2.0).abs() < 0.1);
    assert!((value("larder_cluster_configurations").await - 2.0).abs() < 0.1);
    assert!((value("larder_cluster_clock_skew_seconds").await - 60.0).abs() < 5.0);
    larder.logged("another configuration").await;
    larder.logged("more than five seconds").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_of_one_is_a_reload_of_all() {
    let origin = Origin::start().await;
    let redis = RedisServer::start();
    let mut larder = replica(&origin, &redis).start().await;
    until_redis(&larder, "ok").await;
    let named = || {
        let said = redis.command(&["PUBSUB", "CHANNELS", "larder:*:topic:reloads"]);
        let line = said.lines().find(|line| line.starts_with("larder:"))?;
        Some(line.to_owned())
    };
    until("it listens", || async { named().is_some() }).await;
    let topic = named().unwrap();
    let cluster_name = topic.split(':').nth(1).unwrap();
    let address = RedisAddress::parse(&redis.url()).unwrap();
    let other = RedisShared::connect(address, cluster_name);
    let mut heard = other.subscribe("reloads");
    assert_eq!(heard.next().await, larder_storage::Told::Missed);

    // Another has changed: this one looks at its own files, and keeps serving by them.
    let own = cluster(&larder).await["configuration"].clone();
    redis.command(&["PUBLISH", &topic, own.as_str().unwrap()]);
    redis.command(&["PUBLISH", &topic, "0123456789abcdef"]);
    larder.logged("reads its own again").await;
    larder.logged("nothing has changed").await;
    for digest in [own.as_str().unwrap(), "0123456789abcdef"] {
        let message = bytes::Bytes::copy_from_slice(digest.as_bytes());
        assert_eq!(heard.next().await, larder_storage::Told::Message(message));
    }
    // It has changed itself, and says so once.
    larder.write_config(&remote("generic", &origin, "description: changed"));
    larder.signal(rustix::process::Signal::HUP);
    let told = tokio::time::timeout(Duration::from_secs(20), heard.next()).await;
    let now = cluster(&larder).await["configuration"].clone();
    assert_ne!(now, own);
    let message = bytes::Bytes::copy_from_slice(now.as_str().unwrap().as_bytes());
    assert_eq!(told.unwrap(), larder_storage::Told::Message(message));
    let lease = other.holder("chores").await;
    assert!(lease.is_some(), "it collects, and nobody else does");
}
