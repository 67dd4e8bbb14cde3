//! Leases and notices: the conformance suite over both implementations, and what Redis may do to them.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test program: its helpers panic to report"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_storage::{
    Attempt, Lease, MemoryShared, Pace, RationClaim, RedisAddress, RedisShared, Renewal, Shared,
    shared_conformance,
};
use larder_testkit::servers::RedisServer;

const LONG: Duration = Duration::from_secs(60);
/// No call may take longer, whatever Redis does: 250 ms, and what a busy machine adds.
const BOUND: Duration = Duration::from_millis(800);

fn client(url: &str) -> RedisShared {
    RedisShared::connect(RedisAddress::parse(url).unwrap(), "test")
}

async fn connected(url: &str) -> Arc<dyn Shared> {
    let client = client(url);
    let standing = client.standing();
    assert!(
        client.until_connected(Duration::from_secs(10)).await,
        "{standing:?}"
    );
    Arc::new(client)
}

async fn two(url: &str) -> (Arc<dyn Shared>, Arc<dyn Shared>) {
    (connected(url).await, connected(url).await)
}

fn taken(attempt: Attempt) -> Lease {
    match attempt {
        Attempt::Taken(lease) => lease,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_conforms() {
    let shared: Arc<dyn Shared> = Arc::new(MemoryShared::new());
    shared_conformance::suite(Arc::clone(&shared), shared).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_conforms() {
    let server = RedisServer::start();
    let (one, other) = two(&server.url()).await;
    shared_conformance::suite(one, other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_conforms_also_where_it_is_named_as_one_server() {
    let server = RedisServer::start_with(&["--cluster-enabled", "yes"]);
    let said = server.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    assert!(said.starts_with("+OK"), "{said}");
    let begun = Instant::now();
    while !server
        .command(&["CLUSTER", "INFO"])
        .contains("cluster_state:ok")
    {
        assert!(begun.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let plain = connected(&server.url()).await;
    let named = connected(&server.url().replace("redis:", "redis-cluster:")).await;
    shared_conformance::suite(plain, named).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_are_asked_for_the_server() {
    let server = RedisServer::start_with(&["--requirepass", "p@ss"]);
    let sentinel = RedisServer::sentinel_of(&server, "mymaster");
    let said = sentinel.command(&["SENTINEL", "SET", "mymaster", "auth-pass", "p@ss"]);
    assert!(said.starts_with("+OK"), "{said}");
    let url = format!(
        "redis-sentinel://:p%40ss@127.0.0.1:{}/mymaster",
        sentinel.port()
    );
    let (one, other) = two(&url).await;
    let lease = taken(one.lease("a", "me", LONG, None).await);
    let holder = other.holder("a").await.unwrap();
    assert_eq!(holder.fence, lease.fence);
}

/// The rights that the guide names, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_few_rights_will_do() {
    let server = RedisServer::start();
    let rights = "on >p@ss ~larder:* &larder:* -@all +@connection +@scripting +@pubsub +get +set +pttl +pexpire +del +time";
    let words: Vec<&str> = ["ACL", "SETUSER", "larder"]
        .into_iter()
        .chain(rights.split(' '))
        .collect();
    let said = server.command(&words);
    assert!(said.starts_with("+OK"), "{said}");
    let url = format!("redis://larder:p%40ss@127.0.0.1:{}", server.port());
    let (one, other) = two(&url).await;
    shared_conformance::suite(one, other).await;
    let wrong = client(&url.replace("p%40ss", "wrong"));
    assert!(!wrong.until_connected(Duration::from_millis(500)).await);
    let standing = wrong.standing();
    assert!(!standing.ok && !standing.detail.unwrap().contains("wrong"));
}

/// It waits for the end of what it takes for a command: the time that is up would be all that is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_tls_that_is_asked_with_tls_is_said_to_be_one() {
    let server = RedisServer::start();
    for scheme in ["rediss", "rediss-cluster"] {
        let asked = client(&format!("{scheme}://127.0.0.1:{}", server.port()));
        let begun = Instant::now();
        loop {
            let detail = asked.standing().detail.unwrap_or_default();
            if detail.contains("does not speak TLS") {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{detail}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clusters_over_one_server_do_not_meet() {
    let server = RedisServer::start();
    let one = connected(&server.url()).await;
    let other = RedisShared::connect(RedisAddress::parse(&server.url()).unwrap(), "another");
    assert!(other.until_connected(Duration::from_secs(10)).await);
    taken(one.lease("a", "", LONG, None).await);
    taken(other.lease("a", "", LONG, None).await);
}

async fn eventually_taken(shared: &dyn Shared, key: &str) -> Lease {
    let begun = Instant::now();
    loop {
        match shared.lease(key, "", LONG, None).await {
            Attempt::Taken(lease) => return lease,
            other => assert!(begun.elapsed() < Duration::from_secs(10), "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_a3_redis_that_is_down_delays_nobody_and_is_found_again() {
    let mut server = RedisServer::start();
    server.stop();
    let begun = Instant::now();
    let shared = client(&server.url());
    assert_eq!(shared.lease("a", "", LONG, None).await, Attempt::Unknown);
    assert!(!shared.publish("t", b"x").await);
    assert_eq!(shared.holder("a").await, None);
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    assert!(!shared.standing().ok);

    server.start_again();
    let lease = eventually_taken(&shared, "a").await;
    assert!(shared.standing().ok);

    server.stop();
    let begun = Instant::now();
    assert_eq!(shared.renew(&lease, LONG).await, Renewal::Unknown);
    shared.release(&lease).await;
    for _ in 0..1_000 {
        assert_eq!(shared.lease("b", "", LONG, None).await, Attempt::Unknown);
    }
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());

    // It comes back empty: who has the lease has it still, with the number that it had, unless somebody was faster.
    server.start_again();
    eventually_taken(&shared, "c").await;
    assert_eq!(shared.renew(&lease, LONG).await, Renewal::Kept);
    assert_eq!(shared.holder("a").await.unwrap().fence, lease.fence);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_a3_redis_that_is_silent_is_given_up_for_the_time() {
    let server = RedisServer::start();
    let shared = connected(&server.url()).await;
    taken(shared.lease("a", "", LONG, None).await);
    server.freeze();
    let begun = Instant::now();
    for n in 0..200 {
        let key = n.to_string();
        assert_eq!(shared.lease(&key, "", LONG, None).await, Attempt::Unknown);
    }
    // Two calls wait for an answer, and nobody after them.
    assert!(begun.elapsed() < BOUND * 2, "{:?}", begun.elapsed());
    assert!(!shared.standing().ok);
    let silent = client(&server.url());
    let begun = Instant::now();
    assert_eq!(silent.lease("b", "", LONG, None).await, Attempt::Unknown);
    assert!(begun.elapsed() < BOUND);
    server.thaw();
    eventually_taken(&*shared, "c").await;
    eventually_taken(&silent, "d").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_a3_keys_that_are_deleted_or_stale_stop_nobody() {
    let server = RedisServer::start();
    let (one, other) = two(&server.url()).await;
    let lease = taken(one.lease("a", "me", LONG, None).await);
    let said = server.command(&["KEYS", "larder:test:lease:*"]);
    let keys: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("larder:"))
        .collect();
    let key = *keys.iter().find(|key| key.ends_with('}')).unwrap();
    let fence = *keys.iter().find(|key| key.ends_with(":fence")).unwrap();

    // All keys are deleted: the number grows all the same, and who had the lease hears of it.
    server.command(&["FLUSHALL"]);
    let next = taken(other.lease("a", "you", LONG, None).await);
    assert!(next.fence > lease.fence);
    assert_eq!(one.renew(&lease, LONG).await, Renewal::Lost);

    // Without an end, of another type, no lease, and with an end in a hundred years.
    let value = "larder1 5 00ff stale";
    let (forever, century) = (["SET", key, value], ["SET", key, value, "EX", "3153600000"]);
    for stale in [
        &forever[..],
        &["RPUSH", key, "x"],
        &["SET", key, "something else"],
        &century,
        &["SET", fence, "99999999999999999999"],
        &["RPUSH", fence, "x"],
    ] {
        server.command(&["FLUSHALL"]);
        server.command(stale);
        assert_eq!(other.holder("a").await.filter(|h| h.left < LONG), None);
        let lease = taken(other.lease("a", "you", LONG, None).await);
        assert!(lease.fence > next.fence, "{stale:?}: {lease:?}");
        assert_eq!(other.renew(&lease, LONG).await, Renewal::Kept, "{stale:?}");
        assert!(other.standing().ok, "{:?}", other.standing());
    }
}

/// What is left in a ration, or is no moment, keeps nobody waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_a3_stale_rations_and_moments_stop_nobody() {
    let server = RedisServer::start();
    let shared = connected(&server.url()).await;
    let claim = RationClaim {
        holder: "a",
        limit: 4,
        held: 0,
        wanted: 9,
        ttl: LONG,
    };
    assert_eq!(shared.ration("r", &claim).await, Some(4));
    let apart = LONG / 60;
    let now = Some(Pace::After(Duration::ZERO));
    assert_eq!(shared.pace("p", apart, Duration::ZERO).await, now);
    let named = |kind: &str| {
        let said = server.command(&["KEYS", &format!("larder:test:{kind}:*")]);
        let key = said.lines().find(|line| line.starts_with("larder:"));
        key.unwrap().to_owned()
    };
    let (ration, pace) = (named("ration"), named("pace"));
    let micros = "9000000000000000";
    let held_for_ever = format!("larder1 b 4 9 0 {micros};");
    for (key, stale) in [
        (&ration, &*held_for_ever),
        (&ration, "larder1 b 4 9 0 1;"),
        (&ration, "larder1 ;;; 4"),
        (&ration, "something else"),
        (&pace, micros),
        (&pace, "soon"),
    ] {
        server.command(&["FLUSHALL"]);
        server.command(&["SET", key, stale]);
        assert_eq!(shared.ration("r", &claim).await, Some(4), "{stale}");
        let moment = shared.pace("p", apart, Duration::ZERO).await;
        assert_eq!(moment, now, "{stale}");
    }
    for key in [&ration, &pace] {
        server.command(&["DEL", key]);
        server.command(&["RPUSH", key, "x"]);
    }
    assert_eq!(shared.ration("r", &claim).await, Some(4));
    assert_eq!(shared.pace("p", apart, Duration::ZERO).await, now);
    assert!(shared.standing().ok, "{:?}", shared.standing());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_that_refuses_is_told_once_and_used_again() {
    let server = RedisServer::start();
    let shared = connected(&server.url()).await;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(shared.lease("a", "", LONG, None).await, Attempt::Unknown);
    let standing = shared.standing();
    assert!(!standing.ok, "{standing:?}");
    server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    taken(shared.lease("a", "", LONG, None).await);
    assert!(shared.standing().ok);
}
