//! Bounds on requests to upstreams that replicas keep to together, and what one learns of an upstream for all.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use larder_testkit::Origin;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;
use support::{Answer, TestLarder};

/// An upstream that works on each request for a while, and counts how many it works on at the same time.
#[derive(Clone)]
struct Busy(Arc<Work>);

struct Work {
    address: SocketAddr,
    takes: Duration,
    now: AtomicUsize,
    peak: AtomicUsize,
    began: Mutex<Vec<Instant>>,
}

impl Busy {
    async fn start(takes: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let busy = Self(Arc::new(Work {
            address: listener.local_addr().expect("an address"),
            takes,
            now: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            began: Mutex::default(),
        }));
        let served = busy.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let served = served.clone();
                tokio::spawn(async move { served.serve(socket).await });
            }
        });
        busy
    }

    async fn serve(&self, mut socket: TcpStream) -> Option<()> {
        let mut read = Vec::new();
        loop {
            while !read.ends_with(b"\r\n\r\n") {
                read.push(socket.read_u8().await.ok()?);
            }
            let line = String::from_utf8_lossy(&read).into_owned();
            let path = line.split(' ').nth(1)?.to_owned();
            read.clear();
            let now = self.0.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.0.peak.fetch_max(now, Ordering::SeqCst);
            self.began().push(Instant::now());
            tokio::time::sleep(self.0.takes).await;
            // Its work is done before anybody can have the answer.
            self.0.now.fetch_sub(1, Ordering::SeqCst);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", path.len());
            let answer = format!("{head}{path}");
            socket.write_all(answer.as_bytes()).await.ok()?;
        }
    }

    fn remote(&self, keys: &str) -> String {
        let address = self.0.address;
        format!("  busy: {{ package: generic, base_url: 'http://{address}', {keys} }}\n")
    }

    /// When each request came.
    fn began(&self) -> MutexGuard<'_, Vec<Instant>> {
        self.0.began.lock().expect("nobody panics")
    }

    fn requests(&self) -> usize {
        self.began().len()
    }

    /// The most at a time, from now on anew.
    fn peak(&self) -> usize {
        self.0.peak.swap(0, Ordering::SeqCst)
    }
}

/// Asks each of `of` for its part of so many files, all at the same time; gives the statuses.
fn ask(cluster: &Cluster, of: &[usize], files: std::ops::Range<usize>) -> JoinSet<u16> {
    let client = client();
    let mut asked = JoinSet::new();
    for file in files {
        let replica = &cluster.replicas[of[file % of.len()]];
        let url = replica.artifact("busy", &format!("{file}.bin"));
        let client = client.clone();
        asked.spawn(async move {
            let Ok(answer) = try_send(&client, "GET", &url, &[]).await else {
                return 0;
            };
            if answer.status == 200 {
                assert_eq!(answer.text(), format!("/{file}.bin"));
            }
            answer.status
        });
    }
    asked
}

async fn all_good(asked: JoinSet<u16>) {
    let statuses = asked.join_all().await;
    let wrong: Vec<&u16> = statuses.iter().filter(|status| **status != 200).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Asks replicas for new files until the upstream has been asked for as many at a time as it may be, never for more: what others had runs
/// out within seconds.
async fn until_all_is_had(busy: &Busy, cluster: &Cluster, of: &[usize], bound: usize, from: usize) {
    const FILES: usize = 30;
    let began = Instant::now();
    for batch in 0.. {
        let first = from + batch * FILES;
        all_good(ask(cluster, of, first..first + FILES)).await;
        let peak = busy.peak();
        println!("{FILES} cold files of replicas {of:?}: {peak} at a time at most");
        assert!(peak <= bound, "{peak}");
        if peak == bound {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{peak} of {bound}");
    }
}

async fn redis_is(cluster: &Cluster, status: &str) {
    for replica in &cluster.replicas {
        let is_so = |answer: &Answer| answer.json()["cluster"]["shared"]["status"] == status;
        until(&replica.url("health"), is_so, PATIENCE).await;
    }
}

/// All replicas have heard each other.
async fn all_are_known(cluster: &Cluster) {
    let others = cluster.replicas.len() - 1;
    for replica in &cluster.replicas {
        let knows_all = |answer: &Answer| {
            let known = answer.json()["cluster"]["replicas"]
                .as_array()
                .map(Vec::len);
            known == Some(others)
        };
        until(&replica.url("health"), knows_all, PATIENCE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_together_ask_an_upstream_for_four_things_at_a_time() {
    let busy = Busy::start(Duration::from_millis(300)).await;
    let top = "limits: { upstream: { concurrency: 4 } }";
    let mut cluster = Cluster::start_with_remotes(3, top, |_| busy.remote("")).await;
    redis_is(&cluster, "ok").await;
    all_are_known(&cluster).await;
    let began = Instant::now();
    all_good(ask(&cluster, &[0, 1, 2], 0..60)).await;
    let (peak, took) = (busy.peak(), began.elapsed());
    println!("60 cold files of three replicas: {peak} at a time at most, in {took:?}");
    assert_eq!(busy.requests(), 60);
    assert!((3..=4).contains(&peak), "{peak}");

    // One alone has them all.
    until_all_is_had(&busy, &cluster, &[1], 4, 1_000).await;

    // One that is killed in the middle of it gives nothing back, and what it had runs out.
    let lost = ask(&cluster, &[0], 80..100);
    let kept = ask(&cluster, &[1, 2], 100..160);
    tokio::time::sleep(Duration::from_millis(700)).await;
    cluster.replicas[0].kill9();
    let began = Instant::now();
    all_good(kept).await;
    drop(lost);
    let (peak, took) = (busy.peak(), began.elapsed());
    println!(
        "one of three killed among 80 files: {peak} at a time at most, the others' done in {took:?}"
    );
    assert!(peak <= 4);
    assert!(took < Duration::from_secs(30), "{took:?}");
    // When its claims have run out, nothing of it is left.
    until_all_is_had(&busy, &cluster, &[1, 2], 4, 2_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_each_keeps_to_its_part_and_none_fails() {
    let busy = Busy::start(Duration::from_millis(60)).await;
    let top = "limits: { upstream: { concurrency: 7 } }";
    let mut cluster = Cluster::start_with_remotes(3, top, |_| busy.remote("")).await;
    all_are_known(&cluster).await;
    let under_way = ask(&cluster, &[0, 1, 2], 0..60);
    tokio::time::sleep(Duration::from_millis(100)).await;
    cluster.backends.redis.stop();
    all_good(under_way).await;
    println!(
        "Redis stopped among 60 files: {} at a time at most",
        busy.peak()
    );
    redis_is(&cluster, "unavailable").await;
    all_good(ask(&cluster, &[0, 1, 2], 60..120)).await;
    let peak = busy.peak();
    println!("60 files without Redis: {peak} at a time at most");
    assert!((3..=6).contains(&peak), "a third of seven for each: {peak}");
    all_good(ask(&cluster, &[0], 120..130)).await;
    assert_eq!(busy.peak(), 2);
    cluster.backends.redis.start_again();
    redis_is(&cluster, "ok").await;
    until_all_is_had(&busy, &cluster, &[0], 7, 3_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_together_keep_to_a_rate() {
    const RATE: usize = 8;
    const FILES: usize = 24;
    let busy = Busy::start(Duration::ZERO).await;
    let top = format!("limits: {{ upstream: {{ rate: {RATE} }} }}");
    let cluster = Cluster::start_with_remotes(3, &top, |_| busy.remote("")).await;
    redis_is(&cluster, "ok").await;
    all_good(ask(&cluster, &[0, 1, 2], 0..FILES)).await;
    let began = busy.began().clone();
    let most = began.iter().map(|first| {
        let within =
            |other: &&Instant| **other >= *first && **other - *first < Duration::from_secs(1);
        began.iter().filter(within).count()
    });
    let (most, took) = (most.max().unwrap(), *began.iter().max().unwrap() - began[0]);
    println!("{FILES} files at {RATE} a second: at most {most} in any second, in {took:?}");
    // What a busy machine holds up comes together with what follows.
    assert!(most <= RATE * 3 / 2, "{most}");
    let least = Duration::from_secs_f64((FILES - 1) as f64 / RATE as f64);
    assert!(took + Duration::from_millis(200) > least, "{took:?}");
}

/// A turn that comes too late: 503 and when to come back; the copy, where one is held.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_would_wait_too_long_gets_the_copy_or_503() {
    let busy = Busy::start(Duration::ZERO).await;
    let keys = "limits: { rate: 0.025 }, mutable_patterns: ['json$'], cache: { mutable_ttl: 1 }";
    let config = format!("remotes:\n{}", busy.remote(keys));
    let larder = TestLarder::start(&config).await;
    let document = larder.artifact("busy", "index.json");
    assert_eq!(get(&document).await.status, 200);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let refused = get(&larder.artifact("busy", "other.bin")).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(refused.json()["code"], "busy");
    assert!(
        refused.text().contains("(rate of limits)"),
        "{}",
        refused.text()
    );
    let seconds: u64 = refused.header("retry-after").parse().expect("Retry-After");
    assert!(seconds > 0);
    let copy = get(&document).await;
    assert_eq!((copy.status, copy.text()), (200, "/index.json".to_owned()));
    assert_eq!(busy.requests(), 1);
    let upstreams = get(&larder.url("health")).await.json()["upstreams"].clone();
    assert_eq!(upstreams[0]["failures"], 0, "{upstreams}");
}

const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}"#;

fn manifest(limit: u32, remaining: u32) -> Resource {
    Resource::new(MANIFEST)
        .content_type("application/vnd.oci.image.manifest.v1+json")
        .header("RateLimit-Limit", &format!("{limit};w=21600"))
        .header("RateLimit-Remaining", &format!("{remaining};w=21600"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_registry_allows_is_counted_once_for_all() {
    let registry = |origin: &Origin| {
        let url = origin.url("");
        format!(
            "  images: {{ package: docker, base_url: '{url}', cache: {{ mutable_ttl: 1 }} }}\n  mirror: {{ package: docker, base_url: '{url}' }}\n"
        )
    };
    let cluster = Cluster::start_with_remotes(3, "", registry).await;
    redis_is(&cluster, "ok").await;
    let at = |tag: &str| format!("/v2/team/app/manifests/{tag}");
    let url = |replica: usize, tag: &str| {
        cluster.replicas[replica].url(&format!("v2/images/team/app/manifests/{tag}"))
    };
    cluster.backends.origin.put(&at("held"), manifest(100, 76));
    assert_eq!(get(&url(0, "held")).await.status, 200);
    for replica in &cluster.replicas {
        let allowed = |answer: &Answer| {
            let said = answer.json()["allowances"].clone();
            let said = said.as_array().cloned().unwrap_or_default();
            let is_said = |name: &str| {
                let mut all = said.iter();
                all.any(|one| {
                    one["repository"] == name && one["limit"] == 100 && one["remaining"] == 76
                })
            };
            is_said("images") && is_said("mirror")
        };
        let took = until(&replica.url("health"), allowed, SOON).await;
        println!("what it allows is known after {took:?}");
        let metrics = get(&replica.url("metrics")).await.text();
        let line = "larder_repository_upstream_quota_remaining{repository=\"mirror\"} 76";
        assert!(metrics.lines().any(|found| found == line), "{metrics}");
    }
    // Little is left: what is held is served as it is, what is not is asked for.
    cluster
        .backends
        .origin
        .put(&at("missed"), manifest(100, 10));
    assert_eq!(get(&url(1, "missed")).await.status, 200);
    tokio::time::sleep(Duration::from_millis(1_300)).await;
    let asked = cluster.backends.origin.count("GET", &at("held"));
    for replica in 0..3 {
        let copy = get(&url(replica, "held")).await;
        assert_eq!(copy.status, 200);
        assert!(
            copy.cache_status().starts_with("larder; hit"),
            "{}",
            copy.cache_status()
        );
    }
    assert_eq!(cluster.backends.origin.count("GET", &at("held")), asked);
    cluster
        .backends
        .origin
        .put(&at("another"), manifest(100, 9));
    assert_eq!(get(&url(2, "another")).await.status, 200);
    // Nothing is left: nobody asks on.
    let nothing = manifest(100, 0).header("Retry-After", "30");
    cluster
        .backends
        .origin
        .put(&at("refused"), nothing.status(429));
    assert_eq!(get(&url(0, "refused")).await.status, 429);
    tokio::time::sleep(SOON / 2).await;
    let asked = cluster.backends.origin.requests().len();
    for replica in 0..3 {
        for tag in ["refused", "yet-another"] {
            let refused = get(&url(replica, tag)).await;
            assert_eq!(
                refused.status,
                429,
                "{tag} at {replica}: {}",
                refused.text()
            );
            let seconds: u64 = refused.header("retry-after").parse().expect("Retry-After");
            assert!((20..=30).contains(&seconds), "{seconds}");
        }
        assert_eq!(get(&url(replica, "held")).await.status, 200);
    }
    assert_eq!(
        cluster.backends.origin.requests().len(),
        asked,
        "nobody asks"
    );
}

/// What one is told is not there, or refused for a while, the others know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absences_and_refusals_are_learnt_for_all() {
    let cluster = Cluster::start(3).await;
    redis_is(&cluster, "ok").await;
    let later = Resource::new("later").header("Retry-After", "40");
    cluster.backends.origin.put("/later.bin", later.status(503));
    for (name, status) in [("absent.bin", 404), ("later.bin", 503)] {
        let url = |replica: usize| cluster.replicas[replica].artifact("files", name);
        assert_eq!(get(&url(0)).await.status, status);
        tokio::time::sleep(SOON / 2).await;
        for replica in 0..3 {
            assert_eq!(get(&url(replica)).await.status, status, "{name}");
        }
        let asked = cluster.backends.origin.count("GET", &format!("/{name}"));
        println!("{name}: asked for {asked} time, for three replicas");
        assert_eq!(asked, 1, "{name}");
        // It is there now, and a flush on one holds for all.
        cluster
            .backends
            .origin
            .put(&format!("/{name}"), Resource::new("here"));
        let flush = cluster.replicas[1].url("cache/flush?remote=files");
        assert_eq!(send("PUT", &flush, &[]).await.status, 200);
        for replica in 0..3 {
            until(&url(replica), |answer| answer.status == 200, SOON).await;
        }
    }
}
