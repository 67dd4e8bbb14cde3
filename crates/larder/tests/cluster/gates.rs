//! Between a replica and PostgreSQL or Redis stands a gate that behaves as networks do when they fail: it resets, falls silent, loses what
//! is sent, breaks off in the middle of a message. Hazards A3 and A4.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use larder_testkit::servers::Gate;
use larder_testkit::{Payload, Resource};

use super::fixture::{Backends, Cluster, put, until, upload};
use super::oracle::Oracle;
use super::support::client::client;
use super::support::{Answer, TestLarder, get, send};

/// Contract, section 10: an error is told within this, and within that once the backend has been away for [`AWAY`].
const BOUND: Duration = Duration::from_secs(10);
const BOUND_AWAY: Duration = Duration::from_secs(2);
const AWAY: Duration = Duration::from_secs(15);
/// What a busy machine adds.
const SLACK: Duration = Duration::from_secs(1);
/// What needs no backend takes no longer.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Within this of a backend's return, everything is good again.
const RETURN: Duration = Duration::from_secs(5);

/// How a gate misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Connections are reset, new ones too.
    Closed,
    /// Nothing moves, and arrives at last.
    Stalled,
    /// Nothing moves, and never arrives.
    Swallowed,
}

const WAYS: [Way; 3] = [Way::Closed, Way::Stalled, Way::Swallowed];

fn misbehave(gate: &Gate, way: Way) {
    match way {
        Way::Closed => gate.close(),
        Way::Stalled => gate.stall(),
        Way::Swallowed => gate.swallow(),
    }
}

/// A replica with a gate in front of one of its backends.
struct Gated {
    way: Way,
    gate: Gate,
    larder: TestLarder,
}

async fn timed(url: &str) -> (Answer, Duration) {
    let began = Instant::now();
    (get(url).await, began.elapsed())
}

/// Serves a new file at the upstream, and gives its bytes.
fn new_file(backends: &Backends, name: &str) -> bytes::Bytes {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let seed = MADE.fetch_add(1, Ordering::Relaxed);
    let payload = Payload::generated(30_000, seed);
    let resource = Resource::new(payload.clone()).etag("\"strong\"");
    backends.origin.put(&format!("/{name}"), resource);
    payload.slice(0, 30_000)
}

impl Gated {
    async fn of_postgres(backends: &Backends, way: Way) -> Self {
        let gate = Gate::to(&format!("127.0.0.1:{}", backends.postgres.port())).await;
        let port = gate.endpoint().rsplit(':').next().map(str::to_owned);
        let setup = backends.replica().env("DBPORT", &port.expect("a port"));
        let larder = setup.start().await;
        Self { way, gate, larder }
    }

    async fn of_redis(backends: &Backends, way: Way) -> Self {
        let gate = Gate::to(&format!("127.0.0.1:{}", backends.redis.port())).await;
        let setup = backends.replica();
        let larder = setup
            .env("REDIS_URL", &format!("redis://{}", gate.endpoint()))
            .start()
            .await;
        Self { way, gate, larder }
    }

    fn name(&self, of: &str) -> String {
        format!("{of}-{:?}.bin", self.way)
    }

    /// What asks no backend is answered at once, whatever is away.
    async fn probes(&self) {
        for path in ["/live", "/ready", "/metrics"] {
            let (answer, took) = timed(&self.larder.url(path)).await;
            let way = self.way;
            assert!(
                answer.status == 200 && took < AT_ONCE,
                "{way:?} {path}: {} after {took:?}",
                answer.status
            );
        }
    }

    async fn held(&self, bytes: &[u8]) {
        let (answer, took) = timed(&self.larder.artifact("files", "held.bin")).await;
        assert!(answer.body == bytes, "{:?}: other bytes", self.way);
        assert!(took < AT_ONCE, "{:?}: held, {took:?}", self.way);
    }

    async fn cold(&self, backends: &Backends, of: &str, bound: Duration) -> Duration {
        let name = self.name(of);
        let bytes = new_file(backends, &name);
        let (answer, took) = timed(&self.larder.artifact("files", &name)).await;
        let way = self.way;
        assert_eq!(answer.status, 200, "{way:?} {of}: {}", answer.text());
        assert!(answer.body == bytes, "{way:?} {of}: other bytes");
        assert!(took < bound, "{way:?} {of}: {took:?}");
        took
    }

    /// What only the database can tell is refused, clearly and in time.
    async fn refuses(&self, path: &str, bound: Duration) -> Duration {
        let url = self.larder.artifact("own", path);
        let mut longest = Duration::ZERO;
        let unknown = self.larder.artifact("own", "nobody-has-asked-for-this");
        for method in ["PUT", "GET"] {
            let began = Instant::now();
            let answer = match method {
                "PUT" => put(&url, "refused").await,
                _ => get(&unknown).await,
            };
            let took = began.elapsed();
            let way = self.way;
            assert_eq!(answer.status, 503, "{way:?} {method}: {}", answer.text());
            assert_eq!(answer.json()["code"], "storage_unavailable", "{method}");
            assert!(!answer.header("retry-after").is_empty(), "{method}");
            assert!(took < bound, "{way:?} {method}: {took:?}");
            longest = longest.max(took);
        }
        longest
    }

    /// Uploads without a pause; gives how long the longest took.
    async fn uploads(&self, is_over: &AtomicBool) -> Duration {
        let url = self.larder.artifact("own", &self.name("busy"));
        let mut longest = Duration::ZERO;
        while !is_over.load(Ordering::SeqCst) {
            let began = Instant::now();
            let status = put(&url, "busy").await.status;
            assert!(
                matches!(status, 200 | 201 | 503),
                "{:?}: {status}",
                self.way
            );
            longest = longest.max(began.elapsed());
        }
        longest
    }

    /// What the database's absence does to requests that come meanwhile, and to those that were under way.
    async fn postgres_is_away(
        &self,
        backends: &Backends,
        free: &TestLarder,
        for_so_long: Duration,
    ) {
        let (way, is_over) = (self.way, AtomicBool::new(false));
        let held = get(&free.artifact("files", "held.bin")).await.body;
        let own = self.larder.artifact("own", &self.name("own"));
        assert_eq!(put(&own, "before").await.status, 201);
        for _ in 0..3 {
            self.held(&held).await;
        }
        self.larder.until_idle().await;
        let story = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            self.postgres_goes(backends, free, &held, for_so_long).await;
            is_over.store(true, Ordering::SeqCst);
        };
        let (longest, ()) = tokio::join!(self.uploads(&is_over), story);
        println!("{way:?}: of all uploads the longest took {longest:?}");
        assert!(longest < BOUND + SLACK, "{way:?}: {longest:?}");
    }

    async fn postgres_goes(
        &self,
        backends: &Backends,
        free: &TestLarder,
        held: &[u8],
        for_so_long: Duration,
    ) {
        let way = self.way;
        misbehave(&self.gate, way);
        let since = Instant::now();
        let raced = self.name("raced");
        // Several want the same, and none waits for the others' waiting.
        let crowd = self.name("crowd");
        new_file(backends, &crowd);
        let crowd = self.larder.artifact("files", &crowd);
        let crowd = join_all((0..6).map(|_| timed(&crowd)));
        let ((), crowd, cold, refused, ()) = tokio::join!(
            self.held(held),
            crowd,
            self.cold(backends, "cold", BOUND + SLACK),
            self.refuses(&raced, BOUND + SLACK),
            self.probes(),
        );
        let longest = crowd.iter().map(|(_, took)| *took).max();
        println!(
            "{way:?}: at first a cold file took {cold:?}, one for six {longest:?}, an error {refused:?}"
        );
        for (answer, took) in crowd {
            assert_eq!(answer.status, 200, "{way:?}: {}", answer.text());
            assert!(took < BOUND + SLACK, "{way:?}: {took:?}");
        }
        // Another replica's upload to the same path holds, whatever comes of what was on its way.
        let acknowledged = put(&free.artifact("own", &raced), "acknowledged").await;
        assert!(
            matches!(acknowledged.status, 200 | 201),
            "{}",
            acknowledged.text()
        );
        while since.elapsed() < AWAY {
            self.probes().await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let mut round = 0;
        while since.elapsed() < for_so_long || round == 0 {
            round += 1;
            let late = format!("late{round}");
            let ((), cold, refused, ()) = tokio::join!(
                self.held(held),
                self.cold(backends, &late, BOUND + SLACK),
                self.refuses(&raced, BOUND_AWAY + SLACK),
                self.probes(),
            );
            println!(
                "{way:?}: away for {:?}, a cold file took {cold:?}, an error {refused:?}",
                since.elapsed()
            );
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        self.gate.open();
        let opened = Instant::now();
        let own = self.larder.artifact("own", &self.name("own"));
        while put(&own, "after").await.status != 200 {
            assert!(opened.elapsed() < RETURN, "{way:?}: {}", self.larder.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("{way:?}: an upload {:?} after the return", opened.elapsed());
        for larder in [&self.larder, free] {
            let url = larder.artifact("own", &raced);
            until(&url, |answer| answer.text() == "acknowledged", RETURN).await;
        }
        // Now it is kept again.
        let name = self.name("kept");
        new_file(backends, &name);
        let url = self.larder.artifact("files", &name);
        get(&url).await;
        self.larder.hit(&url).await;
    }

    async fn redis_is_away(&self, backends: &Backends, free: &TestLarder, for_so_long: Duration) {
        let way = self.way;
        let held = get(&free.artifact("files", "held.bin")).await.body;
        self.held(&held).await;
        self.shared_is("ok").await;
        misbehave(&self.gate, way);
        let since = Instant::now();
        let mut turn = 0;
        while since.elapsed() < for_so_long {
            turn += 1;
            self.held(&held).await;
            // The other replica asks for the same at the same moment.
            let cold = format!("cold{turn}");
            let name = self.name(&cold);
            let other = free.artifact("files", &name);
            let (cold, other, ()) = tokio::join!(
                self.cold(backends, &cold, BOUND_AWAY + SLACK),
                async {
                    // The upstream has it by then.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    get(&other).await.status
                },
                self.probes(),
            );
            assert_eq!(other, 200);
            let path = self.name(&format!("own{turn}"));
            let began = Instant::now();
            let uploaded = put(&free.artifact("own", &path), "elsewhere").await;
            assert_eq!(uploaded.status, 201, "{}", uploaded.text());
            let url = self.larder.artifact("own", &path);
            until(
                &url,
                |answer| answer.text() == "elsewhere",
                BOUND_AWAY + SLACK,
            )
            .await;
            assert_eq!(put(&url, "here").await.status, 200);
            let seen = free.artifact("own", &path);
            until(&seen, |answer| answer.text() == "here", BOUND_AWAY + SLACK).await;
            if turn == 1 {
                println!(
                    "{way:?}: a cold file took {cold:?}, both uploads were seen after {:?}",
                    began.elapsed()
                );
            }
        }
        self.shared_is("unavailable").await;
        self.gate.open();
        let opened = Instant::now();
        self.shared_is("ok").await;
        println!(
            "{way:?}: {turn} rounds; used again {:?} after the return",
            opened.elapsed()
        );
        assert!(opened.elapsed() < RETURN, "{way:?}");
    }

    async fn shared_is(&self, status: &str) {
        let health = self.larder.url("/health");
        let is_so = |answer: &Answer| answer.json()["cluster"]["shared"]["status"] == status;
        until(&health, is_so, RETURN).await;
    }
}

async fn postgres_away(for_so_long: Duration) {
    let backends = Backends::start().await;
    new_file(&backends, "held.bin");
    let free = backends.replica().start().await;
    let gated = join_all(WAYS.map(|way| Gated::of_postgres(&backends, way))).await;
    let each = gated
        .iter()
        .map(|one| one.postgres_is_away(&backends, &free, for_so_long));
    join_all(each).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_a4_postgresql_that_is_reset_silent_or_lost_is_told_in_time() {
    postgres_away(AWAY + Duration::from_secs(4)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "more than a minute; part of make stress"]
async fn hazard_a4_postgresql_that_stalls_for_a_minute() {
    postgres_away(Duration::from_secs(60)).await;
}

async fn redis_away(for_so_long: Duration) {
    let backends = Backends::start().await;
    new_file(&backends, "held.bin");
    let free = backends.replica().start().await;
    let gated = join_all(WAYS.map(|way| Gated::of_redis(&backends, way))).await;
    let each = gated
        .iter()
        .map(|one| one.redis_is_away(&backends, &free, for_so_long));
    join_all(each).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_a3_redis_that_is_reset_silent_or_lost_is_nobodys_error() {
    redis_away(Duration::from_secs(8)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "more than a minute; part of make stress"]
async fn hazard_a3_redis_that_stalls_for_a_minute() {
    redis_away(Duration::from_secs(60)).await;
}

/// Connections that are cut after some bytes of answers: in the middle of a message, and of a commit. What was acknowledged is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_a4_answers_of_postgresql_that_break_off() {
    let backends = Backends::start().await;
    let gated = Gated::of_postgres(&backends, Way::Closed).await;
    let held = new_file(&backends, "held.bin");
    gated.held(&held).await;
    gated.larder.until_idle().await;
    let (oracle, client) = (Oracle::default(), client());
    let (mut acknowledged, mut refused) = (0, 0);
    for (round, bytes) in [400, 700, 1_000, 1_500, 3_000, 10_000, 40_000]
        .into_iter()
        .enumerate()
    {
        gated.gate.cut_after(bytes);
        let since = Instant::now();
        for turn in 0.. {
            if since.elapsed() > Duration::from_millis(1_200) {
                break;
            }
            gated.held(&held).await;
            gated
                .cold(&backends, &format!("cold{round}-{turn}"), BOUND + SLACK)
                .await;
            let path = format!("f{}", turn % 3);
            let (number, body) = oracle.begin(&path);
            let began = Instant::now();
            let answer = upload(&client, &gated.larder.artifact("own", &path), body).await;
            let answer = answer.expect("larder itself breaks nothing off");
            let is_acknowledged = matches!(answer.status, 200 | 201);
            oracle.end(&path, number, is_acknowledged);
            assert!(is_acknowledged || answer.status == 503, "{}", answer.text());
            assert!(began.elapsed() < BOUND + SLACK, "{:?}", began.elapsed());
            acknowledged += u32::from(is_acknowledged);
            refused += u32::from(!is_acknowledged);
        }
        gated.probes().await;
    }
    println!(
        "{} resets: {acknowledged} uploads acknowledged, {refused} refused",
        gated.gate.resets()
    );
    assert!(acknowledged > 0 && refused > 0);
    gated.gate.open();
    let since = Instant::now();
    for path in oracle.acknowledged() {
        let url = gated.larder.artifact("own", &path);
        until(&url, |answer| answer.status == 200, RETURN).await;
        let began = Instant::now();
        let body = get(&url).await.body;
        oracle
            .judge(&path, Some(&body), began, Duration::ZERO)
            .expect("what was acknowledged");
    }
    assert!(since.elapsed() < RETURN);
}

/// Answers of Redis with other bytes in them, and answers that break off, are nobody's error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_a3_answers_of_redis_that_are_spoilt_or_break_off() {
    let backends = Backends::start().await;
    let gated = Gated::of_redis(&backends, Way::Closed).await;
    let free = backends.replica().start().await;
    for round in 0_u64..24 {
        match round % 2 {
            0 => gated.gate.spoil_after(round * 3),
            _ => gated.gate.cut_after(1 + round * 7),
        }
        let name = format!("cold{round}");
        gated.cold(&backends, &name, BOUND_AWAY + SLACK).await;
        let (other, _) = timed(&free.artifact("files", &gated.name(&name))).await;
        assert_eq!(other.status, 200, "{}", other.text());
        let path = format!("own{round}");
        assert_eq!(
            put(&gated.larder.artifact("own", &path), "here")
                .await
                .status,
            201
        );
        let url = free.artifact("own", &path);
        until(&url, |answer| answer.text() == "here", BOUND_AWAY + SLACK).await;
        gated.probes().await;
    }
    gated.gate.open();
    gated.shared_is("ok").await;
}

/// What makes of every key that replicas have in Redis something else: a text, a list, a hash, a lease without end, a lease of a replica
/// that is not there.
const GARBAGE: &str = "local keys = redis.call('KEYS', 'larder:*') \
    for n, key in ipairs(keys) do \
      local held = redis.pcall('GET', key) \
      local turn = (n + tonumber(ARGV[1])) % 5 \
      if turn == 0 then redis.call('SET', key, 'no lease at all') \
      elseif turn == 1 then redis.call('DEL', key) redis.call('RPUSH', key, 'a', 'list') \
      elseif turn == 2 then redis.call('PERSIST', key) \
      elseif turn == 3 and type(held) == 'string' then \
        redis.call('SET', key, (string.gsub(held, '127.0.0.1:%d+', '127.0.0.1:1')), 'PX', 20000) \
      else redis.call('DEL', key) redis.call('HSET', key, 'fence', '99999999999999999999') end \
    end return #keys";

/// Redis loses everything again and again, or has nonsense in its keys and in its notices, while replicas serve: no request fails, and
/// nobody gets other bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_a3_flushed_and_stale_values_under_load() {
    let cluster = Cluster::start(3).await;
    let backends = &cluster.backends;
    let (oracle, is_over) = (
        Arc::new(Oracle::default()),
        Arc::new(AtomicBool::new(false)),
    );
    let files: Vec<_> = (0..60).map(|n| format!("cold{n}.bin")).collect();
    let bodies: Vec<_> = files.iter().map(|name| new_file(backends, name)).collect();
    let load = |number: usize| {
        let urls: Vec<_> = files
            .iter()
            .map(|name| cluster.urls("files", name))
            .collect();
        let (bodies, own) = (bodies.clone(), cluster.urls("own", ""));
        let (oracle, is_over) = (Arc::clone(&oracle), Arc::clone(&is_over));
        tokio::spawn(async move {
            let client = client();
            let mut turn = number;
            while !is_over.load(Ordering::SeqCst) {
                turn += 1;
                let file = turn % bodies.len();
                let answer = get(&urls[file][(turn / 7) % 3]).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                assert!(answer.body == bodies[file], "other bytes");
                let path = format!("f{}", turn % 4);
                let (upload_number, body) = oracle.begin(&path);
                let url = format!("{}{path}", own[turn % 3]);
                let answer = upload(&client, &url, body).await.expect("an answer");
                assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
                oracle.end(&path, upload_number, true);
            }
            turn - number
        })
    };
    let clients: Vec<_> = (0..6).map(load).collect();
    let since = Instant::now();
    let (mut rounds, mut keys) = (0, 0);
    let flush = cluster.replicas[1].url("/cache/flush?remote=files");
    while since.elapsed() < Duration::from_secs(6) {
        rounds += 1;
        if rounds % 3 == 0 {
            backends.redis.command(&["FLUSHALL"]);
        } else {
            let turn = rounds.to_string();
            let said = backends.redis.command(&["EVAL", GARBAGE, "0", &turn]);
            let spoilt = said.trim_start_matches(':').trim();
            keys += spoilt.parse::<u64>().expect("a number");
        }
        for topic in backends
            .redis
            .command(&["PUBSUB", "CHANNELS", "larder:*"])
            .lines()
        {
            if topic.starts_with("larder:") {
                backends
                    .redis
                    .command(&["PUBLISH", topic, "\u{0}nonsense {"]);
            }
        }
        // Everything is cold again from time to time.
        if rounds % 10 == 0 {
            assert_eq!(send("PUT", &flush, &[]).await.status, 200);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    is_over.store(true, Ordering::SeqCst);
    let turns = join_all(clients)
        .await
        .into_iter()
        .map(|turns| turns.expect("no fault"));
    println!(
        "{rounds} rounds, {keys} keys spoilt, {} turns of clients",
        turns.sum::<usize>()
    );
    assert!(keys > 0, "nothing was ever spoilt");
    for path in oracle.acknowledged() {
        for url in cluster.urls("own", &path) {
            let is_there = |answer: &Answer| {
                let found = (answer.status == 200).then_some(&answer.body[..]);
                oracle
                    .judge(&path, found, Instant::now(), Duration::ZERO)
                    .is_ok()
            };
            until(&url, is_there, BOUND_AWAY + SLACK).await;
        }
    }
    // Nonsense that stays is overwritten, and one replica asks for all again.
    let bytes = new_file(backends, "after.bin");
    let all = cluster.urls("files", "after.bin");
    for answer in join_all(all.iter().map(|url| get(url))).await {
        assert!(answer.body == bytes);
    }
    assert_eq!(backends.origin.count("GET", "/after.bin"), 1);
}
