//! Several engines over one data directory, as replicas have them: one of them asks the upstream, and the others get the bytes from it
//! while they arrive.
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

mod support;

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::{StreamExt as _, stream};
use http::Method;
use larder_core::FaultKind::{Forbidden, NotFound};
use larder_core::{FaultKind, RepositoryName, Secret, SourceKey};
use larder_engine::*;
use larder_storage::{Chunks, MemoryShared, RedisAddress, RedisShared, Shared};
use larder_testkit::servers::RedisServer;
use larder_testkit::{Behaviour, Payload, Resource};
use larder_upstream::PeerError;
use support::{Bench, Client, Got, ask};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const SECRET: &str = "a secret of three";

fn secret() -> ClusterSecret {
    ClusterSecret::new(Secret::new(SECRET.to_owned()))
}

/// The network between replicas.
#[derive(Debug)]
struct Network {
    engines: Mutex<HashMap<String, Arc<Engine>>>,
    dead: Mutex<HashSet<String>>,
    /// What those who follow sign with.
    secret: Mutex<ClusterSecret>,
}

impl Network {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            engines: Mutex::default(),
            dead: Mutex::default(),
            secret: Mutex::new(secret()),
        })
    }

    fn is_dead(&self, address: &str) -> bool {
        self.dead.lock().unwrap().contains(address)
    }

    /// Nothing comes from there any more.
    fn kill(&self, address: &str) {
        self.dead.lock().unwrap().insert(address.to_owned());
    }
}

#[derive(Debug)]
struct Way(Arc<Network>);

impl Peers for Way {
    fn follow<'a>(
        &'a self,
        address: &'a str,
        request: &'a FlightRequest,
    ) -> BoxFuture<'a, Result<Chunks, PeerError>> {
        async move {
            let network = Arc::clone(&self.0);
            if network.is_dead(address) {
                return Err(PeerError::Gone("refused".to_owned()));
            }
            let engine = network.engines.lock().unwrap().get(address).cloned();
            let engine = engine.ok_or(PeerError::Gone("nobody is there".to_owned()))?;
            let target = request.target();
            let signature = network.secret.lock().unwrap().sign(&target, engine.now());
            let body =
                engine
                    .peer_flight(Some(&signature), &target)
                    .map_err(|fault| match fault.kind {
                        FaultKind::Forbidden => PeerError::Closed(fault.message),
                        _ => PeerError::Gone(fault.message),
                    })?;
            let address = address.to_owned();
            let chunks = body.chunks().flat_map(move |chunk| {
                let dead = network.is_dead(&address);
                let broken = || Err(io::Error::other("the connection was reset"));
                stream::iter([if dead { broken() } else { chunk }])
            });
            Ok(Box::pin(chunks) as Chunks)
        }
        .boxed()
    }
}

struct Replicas {
    bench: Bench,
    engines: Vec<Arc<Engine>>,
    network: Arc<Network>,
    _directory: tempfile::TempDir,
}

impl Replicas {
    /// Three engines, each with its own connection to one database. `advertised`: they reach each other.
    async fn three(advertised: bool) -> Self {
        Self::over(|| Arc::new(MemoryShared::new()), true, advertised).await
    }

    /// The same with what `shared` gives: one for all if it is `common`, else one for each.
    async fn over(shared: impl Fn() -> Arc<dyn Shared>, common: bool, advertised: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bench = Bench::sharing(directory.path(), Limits::default(), true, |_| {}).await;
        let engines = vec![
            Arc::clone(&bench.engine),
            bench.second(true).await,
            bench.second(true).await,
        ];
        let one = shared();
        let network = Network::new();
        for (n, engine) in engines.iter().enumerate() {
            let address = format!("replica-{n}:80");
            let known = (address.clone(), Arc::clone(engine));
            network.engines.lock().unwrap().extend([known]);
            engine.join_cluster(ClusterParts {
                shared: if common { Arc::clone(&one) } else { shared() },
                peers: advertised.then(|| Arc::new(Way(Arc::clone(&network))) as Arc<dyn Peers>),
                advertise: advertised.then_some(address),
                secret: Some(secret()),
                version: "test",
            });
        }
        Self {
            bench,
            engines,
            network,
            _directory: directory,
        }
    }

    fn publish(&self, path: &str, size: u64) -> Bytes {
        let payload = Payload::generated(size, 7);
        let resource = Resource::new(payload.clone()).etag("\"strong\"");
        self.bench.origin.put(&format!("/{path}"), resource);
        payload.slice(0, size)
    }

    /// So many clients at each engine.
    fn clients(&self, each: usize, path: &str, body: &Bytes) -> tokio::task::JoinSet<(usize, Got)> {
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..each {
            for (n, engine) in self.engines.iter().enumerate() {
                let client = Client::new(engine, "generic", path).expect(body);
                clients.spawn(async move { (n, client.run().await.unwrap()) });
            }
        }
        clients
    }

    fn gets(&self, path: &str) -> usize {
        self.bench.origin.count("GET", &format!("/{path}"))
    }

    fn count(&self, name: &str) -> Vec<u64> {
        let of = |engine: &Arc<Engine>| {
            let counts = engine.cluster().unwrap().counts;
            counts.iter().find(|(known, _)| *known == name).unwrap().1
        };
        self.engines.iter().map(of).collect()
    }

    /// The engine that downloads.
    async fn leader(&self) -> usize {
        loop {
            if let Some(leader) = self.count("led").iter().position(|led| *led > 0) {
                return leader;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let began = Instant::now();
        while !is_so() {
            assert!(began.elapsed() < Duration::from_secs(20), "{what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn crowd(replicas: &Replicas, path: &str, each: usize, size: u64) {
    let body = replicas.publish(path, size);
    if size > KIB {
        let bytes_per_second = size.min(50 * MIB);
        replicas.bench.origin.behave(
            &format!("/{path}"),
            Behaviour::Throttle { bytes_per_second },
        );
    }
    let mut clients = replicas.clients(each, path, &body);
    let mut answers = 0;
    while let Some(got) = clients.join_next().await {
        let (engine, got) = got.unwrap();
        assert_eq!(got.body, Ok(Bytes::new()), "engine {engine}");
        answers += 1;
    }
    assert_eq!(answers, each * 3);
    println!(
        "{size} bytes: led {:?}, followed {:?}, waited {:?}, served {:?}",
        replicas.count("led"),
        replicas.count("followed"),
        replicas.count("waited"),
        replicas.count("served")
    );
    // All of them hold it now.
    let gets = replicas.gets(path);
    for engine in &replicas.engines {
        let got = Client::new(engine, "generic", path).expect(&body).run();
        let got = got.await.unwrap();
        assert!(got.is_hit() && got.body == Ok(Bytes::new()));
    }
    assert_eq!(replicas.gets(path), gets);
}

async fn three_hundred(size: u64) {
    let replicas = Replicas::three(true).await;
    crowd(&replicas, "file.bin", 100, size).await;
    assert_eq!(replicas.gets("file.bin"), 1);
}

/// The same with a real Redis, to which each replica has a connection of its own; and when it is gone: a download for each replica, and
/// nobody is held up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_one_download_and_without_it_one_for_each_replica() {
    let mut redis = RedisServer::start();
    let address = RedisAddress::parse(&redis.url()).unwrap();
    let connect = || Arc::new(RedisShared::connect(address.clone(), "test")) as Arc<dyn Shared>;
    let replicas = Replicas::over(connect, false, true).await;
    let all = |ok: bool| {
        let is = |engine: &Arc<Engine>| engine.cluster().unwrap().shared.ok == ok;
        replicas.engines.iter().all(is)
    };
    replicas.until("connected", || all(true)).await;
    for (path, size) in [("small", KIB), ("large", 10 * MIB)] {
        crowd(&replicas, path, 100, size).await;
        assert_eq!(replicas.gets(path), 1);
    }
    redis.stop();
    let began = Instant::now();
    crowd(&replicas, "without", 100, KIB).await;
    let gets = replicas.gets("without");
    println!("without Redis: {gets} downloads, {:?}", began.elapsed());
    assert!((1..=3).contains(&gets));
    replicas.until("known to be gone", || all(false)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a gibibyte"]
async fn three_replicas_cause_one_download_of_a_gibibyte() {
    let replicas = Replicas::three(true).await;
    crowd(&replicas, "file.bin", 2, 1 << 30).await;
    assert_eq!(replicas.gets("file.bin"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_clients_of_three_replicas_cause_one_download_of_a_kibibyte() {
    three_hundred(KIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_clients_of_three_replicas_cause_one_download_of_ten_mebibytes() {
    three_hundred(10 * MIB).await;
}

/// The bytes reach the clients of the others before the download has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_are_passed_on_while_they_arrive() {
    let replicas = Replicas::three(true).await;
    let body = replicas.publish("file.bin", 4 * MIB);
    replicas.bench.origin.hold_body("/file.bin", 2 * MIB);
    for engine in &replicas.engines {
        let client = Client::new(engine, "generic", "file.bin").expect(&body);
        let got = client.leave_after(MIB).run().await.unwrap();
        assert!(got.answer.in_flight);
        assert_eq!(got.body, Err("left".to_owned()), "the right bytes so far");
    }
    assert_eq!(replicas.count("followed").iter().sum::<u64>(), 2);
    replicas.bench.origin.release("/file.bin");
    replicas.bench.settled().await;
    assert_eq!(replicas.gets("file.bin"), 1);
}

/// A HEAD of what another replica downloads takes its head from there, and asks nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_joins_the_download_of_another_replica() {
    let replicas = Replicas::three(true).await;
    let body = replicas.publish("file.bin", 4 * MIB);
    replicas.bench.origin.hold_body("/file.bin", 2 * MIB);
    let getting = Client::new(&replicas.engines[0], "generic", "file.bin").expect(&body);
    let getting = tokio::spawn(getting.run());
    replicas.bench.origin.wait_for("GET", "/file.bin", 1).await;
    let head = ask(
        &replicas.engines[1],
        Method::HEAD,
        "generic",
        "file.bin",
        &[],
    );
    let head = head.await.unwrap().answer.representation;
    assert_eq!(head.length, Some(4 * MIB));
    assert_eq!(head.etag.as_deref(), Some("\"strong\""));
    assert_eq!(replicas.bench.origin.count("HEAD", "/file.bin"), 0);
    replicas.bench.origin.release("/file.bin");
    assert_eq!(getting.await.unwrap().unwrap().body, Ok(Bytes::new()));
    assert_eq!(replicas.gets("file.bin"), 1);
}

/// The replica that downloads is gone, midway: one of the others goes on from where it was, and all bodies are right.
async fn leader_lost(lose: impl AsyncFn(&Replicas, usize), at_all: bool) {
    let replicas = Replicas::three(true).await;
    let body = replicas.publish("file.bin", 8 * MIB);
    replicas.bench.origin.hold_body("/file.bin", 4 * MIB);
    let mut clients = replicas.clients(20, "file.bin", &body);
    let leader = replicas.leader().await;
    replicas
        .until("followed", || {
            replicas.count("followed").iter().sum::<u64>() == 2
        })
        .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(replicas.gets("file.bin"), 1);
    lose(&replicas, leader).await;
    replicas.bench.origin.wait_for("GET", "/file.bin", 2).await;
    replicas.bench.origin.release("/file.bin");
    let mut right = [0; 3];
    while let Some(got) = clients.join_next().await {
        let (engine, got) = got.unwrap();
        if got.body.is_ok() {
            right[engine] += 1;
        }
    }
    println!(
        "right bodies {right:?}, the leader was {leader}, taken over {:?}",
        replicas.count("taken_over")
    );
    for (engine, right) in right.iter().enumerate() {
        assert!(
            *right == 20 || (engine == leader && !at_all),
            "{engine}: {right}"
        );
    }
    assert_eq!(replicas.gets("file.bin"), 2, "one, and the rest once");
    let last = replicas.bench.origin.requests().pop().unwrap();
    assert!(last.header("range").is_some(), "the rest, not all of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stops_is_followed_by_one_other() {
    leader_lost(
        async |replicas, leader| replicas.engines[leader].drain(Duration::ZERO).await,
        false,
    )
    .await;
}

/// What cannot be taken up again, for nothing says that two parts belong together, is asked for anew, for those who have seen no byte of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_file_without_validators_survives_its_leader() {
    let replicas = Replicas::three(true).await;
    let payload = Payload::generated(512 * KIB, 7);
    let origin = &replicas.bench.origin;
    origin.put("/file.bin", Resource::new(payload.clone()));
    origin.hold_body("/file.bin", 256 * KIB);
    let body = payload.slice(0, 512 * KIB);
    let mut clients = tokio::task::JoinSet::new();
    for (n, engine) in replicas.engines.iter().enumerate() {
        let client = Client::new(engine, "generic", "file.bin").expect(&body);
        clients.spawn(async move { (n, client.run().await) });
    }
    let leader = replicas.leader().await;
    let followed = || replicas.count("followed").iter().sum::<u64>() == 2;
    replicas.until("followed", followed).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    replicas.engines[leader].drain(Duration::ZERO).await;
    origin.wait_for("GET", "/file.bin", 2).await;
    origin.release("/file.bin");
    while let Some(got) = clients.join_next().await {
        let (engine, got) = got.unwrap();
        if engine != leader {
            assert_eq!(got.unwrap().body, Ok(Bytes::new()), "{engine}");
        }
    }
    println!("{} downloads", replicas.gets("file.bin"));
    assert!(replicas.gets("file.bin") <= 3);
}

/// It cannot be reached any more, and has not said that it ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_is_followed_by_one_other() {
    leader_lost(
        async |replicas, leader| {
            replicas.network.kill(&format!("replica-{leader}:80"));
        },
        true,
    )
    .await;
}

/// Where replicas do not reach each other, or do not let each other follow, they wait for the record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_addresses_or_with_other_secrets_the_others_wait_for_what_is_kept() {
    without_a_way(Replicas::three(false).await).await;
    let strangers = Replicas::three(true).await;
    *strangers.network.secret.lock().unwrap() =
        ClusterSecret::new(Secret::new("another secret of three".to_owned()));
    without_a_way(strangers).await;
}

async fn without_a_way(replicas: Replicas) {
    let body = replicas.publish("file.bin", 2 * MIB);
    let bytes_per_second = 4 * MIB;
    replicas
        .bench
        .origin
        .behave("/file.bin", Behaviour::Throttle { bytes_per_second });
    let mut clients = replicas.clients(10, "file.bin", &body);
    while let Some(got) = clients.join_next().await {
        assert_eq!(got.unwrap().1.body, Ok(Bytes::new()));
    }
    assert_eq!(replicas.gets("file.bin"), 1);
    assert_eq!(replicas.count("waited").iter().sum::<u64>(), 2);
}

/// A flush overtakes a download, and nobody waits for the lease of that one: neither here nor elsewhere, addresses or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_that_a_flush_has_overtaken_holds_nobody_up() {
    for advertised in [false, true] {
        let replicas = Replicas::three(advertised).await;
        replicas.publish("file.bin", 4 * MIB);
        replicas.bench.origin.hold_body("/file.bin", 2 * MIB);
        let engine = &replicas.engines[0];
        let client = Client::new(engine, "generic", "file.bin").leave_after(MIB);
        client.run().await.unwrap();
        let open = Client::new(engine, "generic", "file.bin").run();
        let open = tokio::spawn(open);
        tokio::time::sleep(Duration::from_millis(100)).await;
        engine.flush(FlushRequest::default()).await.unwrap();
        let began = Instant::now();
        let client = Client::new(engine, "generic", "file.bin").leave_after(MIB);
        client.run().await.unwrap();
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(replicas.gets("file.bin"), 2);
        replicas.bench.origin.release("/file.bin");
        open.await.unwrap().unwrap();
    }
}

/// A replica that waits for its upstream is there: the others do not help themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_finds_out_is_not_asked_by_the_others() {
    let replicas = Replicas::three(true).await;
    let origin = &replicas.bench.origin;
    for engine in &replicas.engines {
        let got = ask(engine, http::Method::GET, "generic", "absent.bin", &[]).await;
        assert_eq!(got.unwrap_err().kind, FaultKind::Upstream(404));
    }
    origin.hold("/file.bin");
    let body = replicas.publish("file.bin", KIB);
    let mut clients = replicas.clients(1, "file.bin", &body);
    origin.wait_for("GET", "/file.bin", 1).await;
    // Longer than a replica may be silent: one that waits for its upstream is not.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(replicas.gets("file.bin"), 1);
    origin.release("/file.bin");
    while let Some(got) = clients.join_next().await {
        assert_eq!(got.unwrap().1.body, Ok(Bytes::new()));
    }
    assert_eq!(replicas.gets("file.bin"), 1);
}

/// Strangers get nothing, and replicas nothing that is not under way: no download is begun for another replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_replicas_are_given_what_is_under_way_and_nothing_is_begun_for_them() {
    let replicas = Replicas::three(true).await;
    replicas.publish("file.bin", KIB);
    let engine = &replicas.engines[0];
    let request = FlightRequest {
        key: SourceKey {
            repository: RepositoryName::parse("generic").unwrap(),
            path: "file.bin".into(),
            variant: "".into(),
        },
        offset: 0,
        replica: "another".to_owned(),
    };
    let target = request.target();
    let kind = |signature: Option<&str>| {
        let refused = engine.peer_flight(signature, &target).unwrap_err();
        refused.kind
    };
    assert_eq!(kind(None), Forbidden);
    assert_eq!(kind(Some("v1 1 2 3")), Forbidden);
    let stranger = ClusterSecret::new(Secret::new("another secret of three".to_owned()));
    assert_eq!(kind(Some(&stranger.sign(&target, engine.now()))), Forbidden);
    let signature = secret().sign(&target, engine.now());
    assert_eq!(kind(Some(&signature)), NotFound);
    assert_eq!(kind(Some(&signature)), Forbidden, "a replay");
    assert_eq!(replicas.gets("file.bin"), 0);
    let alone = Bench::new().await;
    let refused = alone.engine.peer_flight(Some(&signature), &target);
    assert_eq!(refused.unwrap_err().kind, NotFound);
}
