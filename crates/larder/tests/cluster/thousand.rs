//! Hundreds of clients of three replicas want one cold file at the same moment: the upstream is asked once, everybody has the right
//! bytes, and nobody waits for the end of it. Times are those of a release build on a machine that does nothing else; which program is
//! measured says `LARDER_TEST_PROGRAM`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use larder_testkit::{Behaviour, Origin, Payload, Resource};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Barrier;

use super::fixture::{Cluster, KIB, MIB};
use super::support::{TestLarder, get};

const REPLICAS: usize = 3;
/// Everybody has a first byte within this of the first one who has one.
const TOGETHER: Duration = Duration::from_millis(200);
/// Bytes are the same again after so many: a prime, so that no mistake by a round number of bytes goes unseen.
const PERIOD: u64 = 1_048_573;

/// What came of one client's request.
#[derive(Debug, Clone, Copy)]
struct Outcome {
    replica: usize,
    /// From the moment when all began to the first byte of the body.
    first: Option<Duration>,
    /// Bytes that came, each compared.
    length: u64,
    /// Whether as many came as were announced.
    is_whole: bool,
}

/// A body that is one piece over and over.
struct Pattern {
    /// The piece, and the beginning of its next turn.
    piece: Bytes,
    length: u64,
}

impl Pattern {
    fn new(length: u64) -> Self {
        let once = Payload::generated(PERIOD.min(length), length).slice(0, PERIOD);
        Self {
            piece: [&once[..], &once[..]].concat().into(),
            length,
        }
    }

    fn resource(&self) -> Resource {
        let once = self.piece.slice(..self.piece.len() / 2);
        let body = Payload::Cycle {
            piece: once,
            length: self.length,
        };
        Resource::new(body).etag("\"strong\"")
    }

    /// Whether these are its bytes at `offset`.
    fn has(&self, mut offset: u64, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let at = (offset % PERIOD) as usize;
            let most = (self.piece.len() - at).min(bytes.len());
            let (now, rest) = bytes.split_at(most);
            if self.piece[at..at + most] != *now {
                return false;
            }
            (offset, bytes) = (offset + most as u64, rest);
        }
        true
    }
}

/// A request over a connection that stands, and what came of it; bytes are compared as they come, and not kept.
async fn client(
    mut stream: TcpStream,
    replica: usize,
    path: &str,
    pattern: &Pattern,
    (began, together): (Instant, Option<&Barrier>),
) -> Outcome {
    let mut outcome = Outcome {
        replica,
        first: None,
        length: 0,
        is_whole: false,
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    if stream.write_all(request.as_bytes()).await.is_err() {
        return outcome;
    }
    let mut buffer = vec![0; 256 << 10];
    let mut filled = 0;
    let body = loop {
        match stream.read(&mut buffer[filled..]).await {
            Ok(count @ 1..) => filled += count,
            _ => return outcome,
        }
        if let Some(end) = buffer[..filled]
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
        {
            break end + 4;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..body]).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let announced = head
        .split("\r\n")
        .find_map(|line| line.strip_prefix("content-length: "));
    let announced: u64 = announced
        .and_then(|text| text.parse().ok())
        .expect("a length");
    assert_eq!(announced, pattern.length, "{head}");
    buffer.copy_within(body..filled, 0);
    let mut count = filled - body;
    loop {
        if count > 0 {
            if outcome.first.is_none() {
                outcome.first = Some(began.elapsed());
                // The rest is read when everybody has a first byte: bytes that are compared here would take the processors from those who wait.
                if let Some(together) = together {
                    let _ = tokio::time::timeout(TOGETHER * 20, together.wait()).await;
                }
            }
            assert!(pattern.has(outcome.length, &buffer[..count]), "other bytes");
            outcome.length += count as u64;
        }
        if outcome.length == announced {
            outcome.is_whole = true;
            return outcome;
        }
        count = match stream.read(&mut buffer).await {
            Ok(count @ 1..) => count,
            _ => return outcome,
        };
    }
}

/// All clients at once, spread over the replicas; they are connected before they ask.
async fn crowd(
    cluster: &Cluster,
    clients: usize,
    name: &str,
    pattern: &Pattern,
    together: Option<&Barrier>,
) -> Vec<Outcome> {
    let addresses: Vec<SocketAddr> = cluster.replicas.iter().map(TestLarder::address).collect();
    let connect = |number: usize| TcpStream::connect(addresses[number % REPLICAS]);
    let streams = join_all((0..clients).map(connect)).await;
    let path = format!("/api/v1/remote/files/{name}");
    let began = Instant::now();
    let requests = streams.into_iter().enumerate().map(|(number, stream)| {
        let stream = stream.expect("a connection");
        client(stream, number % REPLICAS, &path, pattern, (began, together))
    });
    join_all(requests).await
}

fn first_bytes(outcomes: &[Outcome]) -> (Duration, Duration) {
    let firsts = outcomes.iter().filter_map(|one| one.first);
    let (first, last) = (firsts.clone().min(), firsts.max());
    (first.unwrap_or_default(), last.unwrap_or_default())
}

/// One file for a crowd; gives the time between the first client's first byte and the last one's.
async fn cold_file(cluster: &Cluster, clients: usize, name: &str, length: u64) -> Duration {
    let pattern = Pattern::new(length);
    let origin = &cluster.backends.origin;
    origin.put(&format!("/{name}"), pattern.resource());
    let began = Instant::now();
    let together = Barrier::new(clients);
    let outcomes = crowd(cluster, clients, name, &pattern, Some(&together)).await;
    let took = began.elapsed();
    assert!(
        outcomes.iter().all(|one| one.is_whole),
        "{name}: {:?}",
        outcomes.iter().find(|one| !one.is_whole)
    );
    let asked = origin.count("GET", &format!("/{name}"));
    let (first, last) = first_bytes(&outcomes);
    println!(
        "{name}, {length} bytes: {clients} clients of {REPLICAS} replicas, {asked} request upstream, first bytes {first:?} to {last:?}, all done after {took:?}"
    );
    for replica in 0..REPLICAS {
        let of_it: Vec<Outcome> = outcomes
            .iter()
            .copied()
            .filter(|one| one.replica == replica)
            .collect();
        println!("  replica {replica}: {:?}", first_bytes(&of_it));
    }
    assert_eq!(asked, 1, "{name}");
    last.saturating_sub(first)
}

/// The replica that asks the upstream is killed when half of the file has come: one more request at most, and whoever asked another
/// replica has all of it. Nobody's answer ends well with less.
async fn killed_midway(cluster: &mut Cluster, clients: usize, name: &str, length: u64) {
    let pattern = Pattern::new(length);
    let path = format!("/{name}");
    cluster.backends.origin.put(&path, pattern.resource());
    cluster.backends.origin.hold_body(&path, length / 2);
    let led = leads(cluster).await;
    let mut leader = None;
    let asked = {
        let crowd = crowd(cluster, clients, name, &pattern, None);
        let kill = async {
            cluster.backends.origin.wait_for("GET", &path, 1).await;
            // All have begun to follow.
            tokio::time::sleep(Duration::from_secs(2)).await;
            let now = leads(cluster).await;
            leader = (0..REPLICAS).find(|number| now[*number] > led[*number]);
            let leader = leader.expect("one of them asks the upstream");
            cluster.replicas[leader].signal(rustix::process::Signal::KILL);
            tokio::time::sleep(Duration::from_millis(500)).await;
            cluster.backends.origin.release(&path);
        };
        let (outcomes, ()) = tokio::join!(crowd, kill);
        let of_the_dead = |one: &&Outcome| Some(one.replica) == leader;
        for one in &outcomes {
            assert!(of_the_dead(&one) || one.is_whole, "{one:?}");
        }
        let whole = outcomes.iter().filter(|one| one.is_whole).count();
        let lost = outcomes.iter().filter(of_the_dead).count();
        println!(
            "{name}, {length} bytes, the replica that downloads is killed midway: {whole} of {clients} clients have it, {lost} had asked the one that died"
        );
        told_of(&cluster.backends.origin, &path)
    };
    assert!(asked.len() <= 2, "requests upstream: {asked:#?}");
    let leader = leader.expect("one was killed");
    cluster.replicas[leader].wait();
    cluster.replicas[leader].restart().await;
}

/// The GETs of a path that have come to the upstream, by connection and range.
fn told_of(origin: &Origin, path: &str) -> Vec<String> {
    let requests = origin.requests().into_iter();
    let gets = requests.filter(|one| one.method == "GET" && one.path() == path);
    gets.map(|one| format!("connection {}, {:?}", one.connection, one.header("range")))
        .collect()
}

/// How many downloads each replica has begun for all.
async fn leads(cluster: &Cluster) -> Vec<u64> {
    let led = |url: String| async move {
        let health = get(&url).await.json();
        health["cluster"]["downloads"]["led"]
            .as_u64()
            .unwrap_or_default()
    };
    join_all(cluster.replicas.iter().map(|one| led(one.url("/health")))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_gets_one_cold_file_from_three_replicas() {
    let mut cluster = Cluster::start(REPLICAS).await;
    cold_file(&cluster, 90, "small.bin", KIB).await;
    cold_file(&cluster, 90, "large.bin", 10 * MIB).await;
    killed_midway(&mut cluster, 90, "killed.bin", 10 * MIB).await;
}

/// The upstream is as fast as one across a network: one on the loopback fills the processors with the first clients' bytes before the last
/// ones have any.
fn far_away(cluster: &Cluster) {
    let bytes_per_second = 10_000_000;
    let throttled = Behaviour::Throttle { bytes_per_second };
    cluster.backends.origin.behave("*", throttled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "times of a release build on a quiet machine; part of make stress"]
async fn three_hundred_clients_get_one_cold_file() {
    let mut cluster = Cluster::start(REPLICAS).await;
    far_away(&cluster);
    let small = cold_file(&cluster, 300, "small.bin", KIB).await;
    let large = cold_file(&cluster, 300, "large.bin", 10 * MIB).await;
    killed_midway(&mut cluster, 300, "killed.bin", 10 * MIB).await;
    assert!(small < TOGETHER && large < TOGETHER, "{small:?} {large:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes, and 500 GiB over the loopback; part of make stress"]
async fn three_hundred_clients_get_a_gibibyte() {
    let mut cluster = Cluster::start(REPLICAS).await;
    far_away(&cluster);
    let huge = cold_file(&cluster, 300, "huge.bin", KIB * MIB).await;
    killed_midway(&mut cluster, 300, "killed.bin", KIB * MIB).await;
    assert!(huge < TOGETHER, "{huge:?}");
}

/// What clients compare with is what the upstream sends.
#[test]
fn a_pattern_is_known_at_every_offset() {
    let length = 3 * PERIOD + 5;
    let pattern = Pattern::new(length);
    let all = pattern.resource().body.slice(0, length);
    assert_eq!(all.len() as u64, length);
    for (offset, count) in [
        (0, 7),
        (PERIOD - 1, 2 * PERIOD),
        (length - 1, 1),
        (5, 1 << 20),
    ] {
        let end = (offset + count).min(length) as usize;
        assert!(pattern.has(offset, &all[offset as usize..end]), "{offset}");
        assert!(
            !pattern.has(offset + 1, &all[offset as usize..end]),
            "{offset}"
        );
    }
}
