//! Everything that can be killed is killed, one after the other, while clients read and upload: nothing that was acknowledged is lost,
//! nobody gets other bytes, and nothing but what was killed has to be started again. `LARDER_KILL_CYCLES` sets the number of cycles.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use larder_testkit::{Payload, Resource};
use tokio::task::block_in_place;

use super::fixture::{Backends, Cluster, KIB, MIB, until_ready, upload};
use super::oracle::Oracle;
use super::support::client::{client, try_send};
use super::support::{Answer, TestLarder};

const REPLICAS: usize = 3;
/// Within this of a service's return, everything is good again.
const RETURN: Duration = Duration::from_secs(5);
/// The same of a build that is not optimised, on a machine that runs other tests beside this one.
const RETURN_AMONG_OTHERS: Duration = Duration::from_secs(15);
/// No answer takes longer, whatever is away.
const BOUND: Duration = Duration::from_secs(10);
/// A replica without Redis sees what others have done within this.
const COHERENT: Duration = Duration::from_secs(2);
/// A replica that knew of no upload to a path knows of one by then.
const ABSENT: Duration = Duration::from_secs(3);
/// Files that every replica has held from the beginning.
const HELD: u64 = 12;
/// Files that nobody has asked for, for each cycle.
const COLD: u64 = 40;
/// Paths that several upload to.
const COMMON: u64 = 4;
const LARGE: u64 = 12 * MIB;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_whatever_is_killed() {
    let cycles = setting("LARDER_KILL_CYCLES").unwrap_or(7);
    run(cycles, RETURN_AMONG_OTHERS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "half an hour; part of make stress"]
async fn nothing_is_lost_in_five_hundred_kills() {
    let cycles = setting("LARDER_KILL_CYCLES").unwrap_or(500);
    run(cycles, RETURN).await;
}

#[expect(
    clippy::disallowed_methods,
    reason = "a setting of the test, not of the program"
)]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Nobody,
    Replica,
    /// The sessions of PostgreSQL, by an operator's command.
    Sessions,
    /// The process of one session, after which the server ends all of them and recovers.
    Session,
    Postmaster,
    Objects,
    Redis,
}

const VICTIMS: [Victim; 6] = [
    Victim::Replica,
    Victim::Sessions,
    Victim::Postmaster,
    Victim::Objects,
    Victim::Redis,
    Victim::Session,
];

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wish {
    Held,
    Cold,
    Large,
    Document,
    /// A read of what was uploaded.
    Own,
    Upload,
}

impl Victim {
    /// Whether a replica that lives may refuse this, or break it off, while that is away: what only the database or the store has.
    fn excuses(self, wish: Wish) -> bool {
        match self {
            Self::Sessions | Self::Session | Self::Postmaster => {
                matches!(wish, Wish::Own | Wish::Upload)
            }
            // What a replica has read before is in its tier. Anything else may be in the store already.
            Self::Objects => wish != Wish::Held,
            Self::Nobody | Self::Replica | Self::Redis => false,
        }
    }
}

/// Numbers that look random; the seed is printed, so that a run can be repeated as far as timing allows.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        let word = Payload::generated(8, self.0).slice(0, 8);
        self.0 = word
            .first_chunk()
            .map_or(0, |word| u64::from_le_bytes(*word));
        self.0 % bound
    }
}

/// What clients share.
#[derive(Debug)]
struct World {
    bases: Vec<String>,
    /// Odd while the replica is down.
    lives: Vec<AtomicU64>,
    victim: Mutex<Victim>,
    cycle: AtomicU64,
    is_over: AtomicBool,
    /// So long after a return everything has to be good.
    bound: Duration,
    oracle: Oracle,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    good: BTreeMap<Wish, u64>,
    refused: BTreeMap<(Victim, Wish, String), u64>,
    /// Of answers of replicas that live.
    longest: BTreeMap<Victim, (Duration, String)>,
    returned: BTreeMap<Victim, (u64, Duration)>,
    faults: Vec<String>,
}

/// Waits while a server is killed or started, which takes its time.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    block_in_place(work)
}

fn held(number: u64) -> (String, Bytes) {
    let length = 1 + number * 9_001;
    (
        format!("held{number}.bin"),
        generated(length, 1_000 + number),
    )
}

fn cold(cycle: u64, number: u64) -> (String, Bytes) {
    let seed = cycle * 1_000 + number;
    (
        format!("c{cycle}/{number}.bin"),
        generated(seed * 4_093 % 40_000, seed),
    )
}

/// The same few bodies under new names: the disk is not filled with them.
fn large(cycle: u64) -> (String, Bytes) {
    (format!("large{cycle}.bin"), generated(LARGE, cycle % 4))
}

fn generated(length: u64, seed: u64) -> Bytes {
    Payload::generated(length, seed).slice(0, length)
}

fn document(cycle: u64) -> String {
    format!("version {cycle} {}", "x".repeat(3_000))
}

impl World {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn victim(&self) -> Victim {
        *self.victim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_victim(&self, victim: Victim) {
        *self.victim.lock().unwrap_or_else(PoisonError::into_inner) = victim;
    }

    fn fault(&self, what: String) {
        eprintln!(
            "FAULT in cycle {}: {what}",
            self.cycle.load(Ordering::SeqCst)
        );
        self.seen().faults.push(what);
    }

    fn life(&self, replica: usize) -> u64 {
        self.lives[replica].load(Ordering::SeqCst)
    }

    fn url(&self, replica: usize, repository: &str, path: &str) -> String {
        format!("{}api/v1/remote/{repository}/{path}", self.bases[replica])
    }

    /// Sends a request, and notes what comes of it. Gives the answer if it is good, or says that nothing was uploaded there.
    async fn ask(
        &self,
        client: &reqwest::Client,
        replica: usize,
        wish: Wish,
        path: &str,
    ) -> Option<Answer> {
        let (victim, life, began) = (self.victim(), self.life(replica), Instant::now());
        let answer = self.send(client, replica, wish, path).await;
        let took = began.elapsed();
        let lives = life.is_multiple_of(2) && life == self.life(replica);
        let victims = [victim, self.victim()];
        if lives {
            let mut seen = self.seen();
            let longest = seen.longest.entry(victims[1]).or_default();
            if longest.0 < took {
                *longest = (took, format!("{wish:?} {path}"));
            }
        }
        let (status, text) = match &answer {
            Ok(answer) if answer.status < 300 => (answer.status.to_string(), String::new()),
            Ok(answer) => (answer.status.to_string(), answer.text()),
            Err(error) if error.is_connect() => ("no connection".to_owned(), format!("{error:?}")),
            Err(error) => ("broken off".to_owned(), format!("{error:?}")),
        };
        let answer = answer.ok();
        let known = match wish {
            Wish::Upload => ["200", "201"],
            Wish::Own => ["200", "404"],
            _ => ["200"; 2],
        };
        if known.contains(&&*status) {
            *self.seen().good.entry(wish).or_default() += 1;
            return answer;
        }
        let is_excused = !lives || victims.iter().any(|victim| victim.excuses(wish));
        let is_clear = answer.as_ref().is_none_or(|answer| answer.status == 503);
        if !is_excused || !is_clear {
            self.fault(format!(
                "{victims:?}: {wish:?} {path} of replica {replica} after {took:?}: {status} {text}"
            ));
        }
        *self
            .seen()
            .refused
            .entry((victims[1], wish, status))
            .or_default() += 1;
        None
    }

    async fn send(
        &self,
        client: &reqwest::Client,
        replica: usize,
        wish: Wish,
        path: &str,
    ) -> reqwest::Result<Answer> {
        match wish {
            Wish::Upload => {
                let (number, body) = self.oracle.begin(path);
                let answer = upload(client, &self.url(replica, "own", path), body).await;
                let status = answer.as_ref().map_or(0, |answer| answer.status);
                self.oracle.end(path, number, matches!(status, 200 | 201));
                answer
            }
            Wish::Own => try_send(client, "GET", &self.url(replica, "own", path), &[]).await,
            _ => try_send(client, "GET", &self.url(replica, "files", path), &[]).await,
        }
    }

    /// A read whose bytes are known.
    async fn read(
        &self,
        client: &reqwest::Client,
        replica: usize,
        wish: Wish,
        (path, bytes): (String, Bytes),
    ) -> bool {
        let Some(answer) = self.ask(client, replica, wish, &path).await else {
            return false;
        };
        if answer.body != bytes {
            let (got, right) = (answer.body.len(), bytes.len());
            self.fault(format!("{path}: {got} of {right} bytes, or other ones"));
        }
        true
    }

    async fn read_document(&self, client: &reqwest::Client, replica: usize) {
        let Some(answer) = self.ask(client, replica, Wish::Document, "doc.json").await else {
            return;
        };
        let text = answer.text();
        let version = text.split(' ').nth(1).and_then(|text| text.parse().ok());
        let is_right = version.is_some_and(|version| {
            version <= self.cycle.load(Ordering::SeqCst)
                && document(version) == text
                && answer.header("etag") == format!("\"v{version}\"")
        });
        if !is_right {
            self.fault(format!("a document with {}: {text}", answer.header("etag")));
        }
    }

    async fn read_own(
        &self,
        client: &reqwest::Client,
        replica: usize,
        path: &str,
        grace: Duration,
    ) -> Result<bool, String> {
        let began = Instant::now();
        let Some(answer) = self.ask(client, replica, Wish::Own, path).await else {
            return Ok(false);
        };
        let found = (answer.status == 200).then_some(&answer.body[..]);
        // Nothing is known to be absent for long after it is there.
        let grace = if found.is_some() {
            grace
        } else {
            grace.min(ABSENT)
        };
        self.oracle.judge(path, found, began, grace).map(|()| true)
    }

    /// One client, until the cycle is over.
    async fn live(self: Arc<Self>, number: u64) {
        let (client, cycle) = (client(), self.cycle.load(Ordering::SeqCst));
        let mut random = Random(cycle * 100 + number);
        let mut turn = 0;
        while !self.is_over.load(Ordering::SeqCst) {
            let replica = random.below(REPLICAS as u64) as usize;
            turn += 1;
            match number {
                0 if turn % 4 == 0 => self.read_document(&client, replica).await,
                0 | 1 => {
                    let file = held(random.below(HELD));
                    self.read(&client, replica, Wish::Held, file).await;
                }
                2 | 3 => {
                    let file = cold(cycle, random.below(COLD));
                    self.read(&client, replica, Wish::Cold, file).await;
                }
                4..=6 => {
                    let replica = number as usize - 4;
                    self.read(&client, replica, Wish::Large, large(cycle)).await;
                    tokio::time::sleep(Duration::from_millis(1_500)).await;
                }
                7 | 8 => {
                    let path = format!("d{cycle}/{number}-{turn}");
                    self.ask(&client, replica, Wish::Upload, &path).await;
                }
                9 | 10 => {
                    let path = format!("common{}", random.below(COMMON));
                    self.ask(&client, replica, Wish::Upload, &path).await;
                }
                _ => {
                    let path = format!("common{}", random.below(COMMON));
                    // What is in memory is served while the database is away, and may be older than what it has.
                    let grace = Duration::from_secs(60 * 60);
                    let read = self.read_own(&client, replica, &path, grace).await;
                    if let Err(what) = read {
                        self.fault(what);
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until a replica serves what it holds, what it does not hold, and uploads; says when it did each.
    async fn until_good(&self, replica: usize) -> String {
        let (began, mut told) = (Instant::now(), format!("replica {replica}:"));
        let (client, cycle) = (client(), self.cycle.load(Ordering::SeqCst));
        let mut pending = vec![Wish::Held, Wish::Cold, Wish::Upload];
        for turn in 0.. {
            let mut left = Vec::new();
            for wish in pending {
                let is_good = match wish {
                    Wish::Held => self.read(&client, replica, wish, held(turn % HELD)).await,
                    Wish::Cold => {
                        let file = cold(cycle, COLD + replica as u64);
                        self.read(&client, replica, wish, file).await
                    }
                    _ => {
                        let path = format!("d{cycle}/return{replica}-{turn}");
                        self.ask(&client, replica, wish, &path).await.is_some()
                    }
                };
                if is_good {
                    let _ = write!(told, " {wish:?} after {:?}", began.elapsed());
                } else {
                    left.push(wish);
                }
            }
            if left.is_empty() {
                return told;
            }
            pending = left;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        told
    }

    /// Everything that was acknowledged at these paths is there, at every replica, and nothing has to be waited for but the notice.
    async fn all_there(&self, paths: &[String]) {
        let client = client();
        let began = Instant::now();
        let jobs = paths
            .iter()
            .flat_map(|path| (0..REPLICAS).map(move |replica| (replica, path)));
        let verify = |(replica, path): (usize, &String)| {
            let (client, path) = (client.clone(), path.clone());
            async move {
                loop {
                    let read = self.read_own(&client, replica, &path, Duration::ZERO);
                    match read.await {
                        Ok(true) => return,
                        Err(_) | Ok(false) if began.elapsed() < COHERENT => {}
                        Ok(false) => return self.fault(format!("{path} cannot be read")),
                        Err(what) => return self.fault(format!("replica {replica}: {what}")),
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        };
        futures_util::stream::iter(jobs)
            .for_each_concurrent(8, verify)
            .await;
    }
}

fn publish(backends: &Backends, cycle: u64) {
    let origin = &backends.origin;
    let put = |(path, bytes): (String, Bytes)| {
        let tag = format!("\"{path}\"");
        origin.put(&format!("/{path}"), Resource::new(bytes).etag(&tag));
    };
    (0..COLD + REPLICAS as u64).for_each(|number| put(cold(cycle, number)));
    put(large(cycle));
    let text = Resource::new(document(cycle)).etag(&format!("\"v{cycle}\""));
    origin.put("/doc.json", text);
}

/// What the upstream had for a cycle that is over, so that this test itself does not grow.
fn withdraw(backends: &Backends, cycle: u64) {
    let paths = (0..COLD + REPLICAS as u64).map(|number| cold(cycle, number).0);
    for path in paths.chain([large(cycle).0]) {
        backends.origin.remove(&format!("/{path}"));
    }
    backends.origin.reset_log();
}

/// Kills, leaves it dead for a while, starts it again; gives the moment of its return.
async fn kill(
    cluster: &mut Cluster,
    world: &World,
    victim: Victim,
    random: &mut Random,
) -> Instant {
    let pause = Duration::from_millis(random.below(400));
    let backends = &mut cluster.backends;
    match victim {
        Victim::Nobody => {}
        Victim::Replica => {
            let number = random.below(REPLICAS as u64) as usize;
            world.lives[number].fetch_add(1, Ordering::SeqCst);
            cluster.replicas[number].kill9();
            tokio::time::sleep(pause).await;
            let began = Instant::now();
            let replica = &mut cluster.replicas[number];
            replica.restart().await;
            // Until then a balancer sends it nothing.
            until_ready(replica).await;
            world.lives[number].fetch_add(1, Ordering::SeqCst);
            return began;
        }
        Victim::Sessions => assert!(blocking(|| backends.postgres.end_sessions()) > 0),
        Victim::Session => {
            assert!(blocking(|| backends.postgres.kill_session()));
            blocking(|| backends.postgres.until_it_answers());
        }
        Victim::Postmaster => {
            blocking(|| backends.postgres.kill());
            tokio::time::sleep(pause).await;
            blocking(|| backends.postgres.start_again());
        }
        Victim::Objects => {
            backends.objects.kill();
            tokio::time::sleep(pause).await;
            backends.objects.restart().await;
        }
        Victim::Redis => {
            backends.redis.stop();
            tokio::time::sleep(pause).await;
            blocking(|| backends.redis.start_again());
        }
    }
    Instant::now()
}

async fn cycle(cluster: &mut Cluster, world: &Arc<World>, victim: Victim, random: &mut Random) {
    let number = world.cycle.load(Ordering::SeqCst);
    publish(&cluster.backends, number);
    world.is_over.store(false, Ordering::SeqCst);
    world.set_victim(victim);
    let clients: Vec<_> = (0..13)
        .map(|number| tokio::spawn(Arc::clone(world).live(number)))
        .collect();
    tokio::time::sleep(Duration::from_millis(100 + random.below(400))).await;
    let returned = kill(cluster, world, victim, random).await;
    let good = join_all((0..REPLICAS).map(|replica| world.until_good(replica)));
    let good = tokio::time::timeout(2 * world.bound, good).await;
    let took = returned.elapsed();
    if good.is_err() || took > world.bound {
        let load = load();
        world.fault(format!(
            "{victim:?}: not everything is good after {took:?} (load {load}): {good:?}"
        ));
    }
    {
        let mut seen = world.seen();
        let entry = seen.returned.entry(victim).or_default();
        *entry = (entry.0 + 1, entry.1.max(took));
    }
    world.is_over.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.expect("a client does not fail");
    }
    world.set_victim(Victim::Nobody);
    for (number, replica) in cluster.replicas.iter_mut().enumerate() {
        if let Some(status) = replica.ended() {
            world.fault(format!("replica {number} has ended: {status}"));
        }
    }
    let prefix = format!("d{number}/");
    let mut paths = world.oracle.acknowledged();
    paths.retain(|path| path.starts_with(&prefix) || path.starts_with("common"));
    world.all_there(&paths).await;
    withdraw(&cluster.backends, number);
}

async fn run(cycles: u64, bound: Duration) {
    let seed = setting("LARDER_KILL_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("{cycles} cycles, LARDER_KILL_SEED={seed}");
    let mut random = Random(seed);
    // Five hundred cycles leave gigabytes in the store, and need not be in three tiers as well.
    let mut cluster = Cluster::start_with(REPLICAS, "s3: { tier: 512MiB }\n").await;
    let world = Arc::new(World {
        bases: cluster
            .replicas
            .iter()
            .map(|replica| replica.url(""))
            .collect(),
        lives: (0..REPLICAS).map(|_| AtomicU64::new(0)).collect(),
        victim: Mutex::new(Victim::Nobody),
        cycle: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
        bound,
        oracle: Oracle::default(),
        seen: Mutex::default(),
    });
    for (path, bytes) in (0..HELD).map(held) {
        let resource = Resource::new(bytes).etag(&format!("\"{path}\""));
        cluster.backends.origin.put(&format!("/{path}"), resource);
    }
    publish(&cluster.backends, 0);
    join_all((0..REPLICAS).map(|replica| world.until_good(replica))).await;
    warm(&cluster, &world).await;
    let mut bag = Vec::new();
    let began = Instant::now();
    for done in 1..=cycles {
        world.cycle.store(done, Ordering::SeqCst);
        if bag.is_empty() {
            bag = VICTIMS.to_vec();
        }
        let victim = bag.swap_remove(random.below(bag.len() as u64) as usize);
        cycle(&mut cluster, &world, victim, &mut random).await;
        if done % 25 == 0 {
            let faults = world.seen().faults.len();
            let took = began.elapsed();
            eprintln!(
                "{done} cycles in {took:?}, load {}, {faults} faults",
                load()
            );
        }
        assert!(
            world.seen().faults.len() < 20,
            "{}",
            report(&world, done, began.elapsed())
        );
    }
    at_last(&mut cluster, &world).await;
    let report = report(&world, cycles, began.elapsed());
    eprintln!("{report}");
    assert!(world.seen().faults.is_empty(), "{report}");
    let longest = world.seen().longest.values().map(|(took, _)| *took).max();
    assert!(longest.unwrap_or_default() < BOUND, "{report}");
}

/// Every replica has what all of them are to hold, in its own tier.
async fn warm(cluster: &Cluster, world: &World) {
    let client = client();
    for (number, replica) in cluster.replicas.iter().enumerate() {
        for (path, bytes) in (0..HELD).map(held) {
            let digest = larder_core::sha256(&bytes).to_hex();
            let (upper, lower) = (&digest[..2], &digest[2..4]);
            let place = replica.data_dir().join("tier/blobs/sha256");
            let place = place.join(upper).join(lower).join(&digest);
            let since = Instant::now();
            while !place.exists() {
                let file = (path.clone(), bytes.clone());
                world.read(&client, number, Wish::Held, file).await;
                assert!(
                    since.elapsed() < 2 * BOUND,
                    "{path} does not come into the tier"
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// One that has nothing on its own disk any more finds all of it in the store.
async fn at_last(cluster: &mut Cluster, world: &World) {
    let replica: &mut TestLarder = &mut cluster.replicas[0];
    assert!(replica.terminate().success());
    std::fs::remove_dir_all(replica.data_dir().join("tier")).expect("a tier");
    replica.restart().await;
    until_ready(replica).await;
    let paths = world.oracle.acknowledged();
    let client = client();
    let read = |path: String| {
        let client = client.clone();
        async move {
            match world.read_own(&client, 0, &path, Duration::ZERO).await {
                Ok(true) => {}
                Ok(false) => world.fault(format!("{path} cannot be read at last")),
                Err(what) => world.fault(format!("at last: {what}")),
            }
        }
    };
    futures_util::stream::iter(paths)
        .for_each_concurrent(8, read)
        .await;
}

/// How busy the machine is: what waits for a processor takes its time.
fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

fn report(world: &World, cycles: u64, took: Duration) -> String {
    let seen = world.seen();
    let mut text = format!("{cycles} cycles in {took:?}, load {}\n", load());
    for (victim, (times, slowest)) in &seen.returned {
        let (longest, what) = seen.longest.get(victim).cloned().unwrap_or_default();
        let _ = writeln!(
            text,
            "{victim:?}: {times} times, all good {slowest:?} after the return at most; the longest answer {longest:?} ({what})"
        );
    }
    let acknowledged = world.oracle.acknowledged().len();
    let _ = writeln!(
        text,
        "good answers: {:?}; {acknowledged} paths with acknowledged uploads",
        seen.good
    );
    for ((victim, wish, status), times) in &seen.refused {
        let _ = writeln!(text, "refused: {victim:?} {wish:?} {status}: {times}");
    }
    let _ = writeln!(
        text,
        "{} faults:\n{}",
        seen.faults.len(),
        seen.faults.join("\n")
    );
    text
}

/// The bodies of this test are what they are meant to be.
#[test]
fn large_bodies_are_longer_than_a_part() {
    assert!(LARGE > 8 * MIB && held(HELD - 1).1.len() as u64 > 64 * KIB);
}
