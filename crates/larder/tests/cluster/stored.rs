//! What replicas fetch together is stored once: a replica that follows another's download sends nothing to the store that is on its way
//! there. Bytes are counted by a gate in front of the store, one for each replica.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use larder_core::sha256;
use larder_testkit::servers::{Gate, S3Server};
use larder_testkit::{Payload, Resource};

use super::fixture::{Backends, MIB, until_ready};
use super::support::client::client;
use super::support::{PATIENCE, TestLarder, get};

const LENGTH: u64 = 64 * MIB;
/// The sums of a blob, requests without bodies and the signatures of parts are no bytes of it.
const BESIDE: u64 = 2 * MIB;

/// Three replicas, each with a gate of its own in front of the store.
struct Stored {
    backends: Backends,
    gates: Vec<Gate>,
    replicas: Vec<TestLarder>,
}

impl Stored {
    async fn start() -> Self {
        let backends = Backends::start().await;
        let target = backends.objects.endpoint();
        let gates = join_all((0..3).map(|_| Gate::to(&target))).await;
        let images = format!(
            "  images: {{ package: docker, base_url: '{}' }}\n",
            backends.origin.url("")
        );
        let replicas = join_all(gates.iter().map(|gate| {
            let setup = backends.replica_and(&images);
            setup.env("MINIO_ENDPOINT", &gate.endpoint()).start()
        }))
        .await;
        join_all(replicas.iter().map(until_ready)).await;
        Self {
            backends,
            gates,
            replicas,
        }
    }

    /// Bytes that each replica has sent to the store.
    fn sent(&self) -> Vec<u64> {
        self.gates.iter().map(Gate::asked).collect()
    }

    /// Serves new bytes at the upstream, and gives them.
    fn publish(&self, path: &str, seed: u64) -> Bytes {
        let payload = Payload::generated(LENGTH, seed);
        let body = payload.slice(0, LENGTH);
        let resource = Resource::new(payload).etag("\"strong\"");
        self.backends.origin.put(path, resource);
        body
    }

    /// Begins to read at each replica, in this order, when the upstream has sent only the beginning: so the first one asks the upstream.
    async fn begin(&self, upstream: &str, url: impl Fn(&TestLarder) -> String) -> Vec<Reading> {
        self.backends.origin.hold_body(upstream, 4 * MIB);
        let mut readings = Vec::new();
        for replica in &self.replicas {
            let mut response = client().get(url(replica)).send().await.expect("a head");
            assert_eq!(response.status(), 200);
            let first = response.chunk().await.expect("bytes").expect("some");
            readings.push(Reading {
                response,
                got: first.to_vec(),
            });
        }
        readings
    }

    async fn until_idle(&self, replicas: &[usize]) {
        let began = Instant::now();
        for number in replicas {
            let name = "larder_downloads_in_flight";
            while self.replicas[*number].metric(name, "").await > 0.0 {
                assert!(began.elapsed() < 3 * PATIENCE, "downloads do not end");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Whether the store has an object with these bytes.
    async fn is_stored(&self, body: &[u8]) -> bool {
        let path = format!("/{}/sha256/{}", S3Server::BUCKET, sha256(body).to_hex());
        self.backends.objects.ask("HEAD", &path, "").await == Some(200)
    }
}

/// An answer that is being read.
struct Reading {
    response: reqwest::Response,
    got: Vec<u8>,
}

impl Reading {
    async fn reads(mut self, body: &[u8]) {
        while let Some(piece) = self.response.chunk().await.expect("the body goes on") {
            self.got.extend_from_slice(&piece);
        }
        let length = self.got.len();
        assert!(self.got == body, "{length} bytes, or other ones");
    }
}

/// Where its digest is known beforehand bytes reach the store while they come, where it is not they do so at the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_store_one_object() {
    let stored = Stored::start().await;
    let digest = sha256(&Payload::generated(LENGTH, 1).slice(0, LENGTH)).to_hex();
    let known = format!("team/app/blobs/sha256:{digest}");
    let cases = [
        (
            "/large.bin".to_owned(),
            "api/v1/remote/files/large.bin".to_owned(),
            0,
        ),
        (format!("/v2/{known}"), format!("v2/images/{known}"), 1),
    ];
    for (upstream, path, seed) in cases {
        let body = stored.publish(&upstream, seed);
        let (before, began) = (stored.sent(), Instant::now());
        let readings = stored.begin(&upstream, |replica| replica.url(&path)).await;
        stored.backends.origin.release(&upstream);
        join_all(readings.into_iter().map(|reading| reading.reads(&body))).await;
        let read = began.elapsed();
        stored.until_idle(&[0, 1, 2]).await;
        let sent = stored.sent();
        let sent: Vec<u64> = sent
            .iter()
            .zip(&before)
            .map(|(now, before)| now - before)
            .collect();
        println!(
            "{path}: read after {read:?}, kept after {:?}, sent to the store by each: {sent:?}",
            began.elapsed()
        );
        assert_eq!(stored.backends.origin.count("GET", &upstream), 1);
        let all: u64 = sent.iter().sum();
        assert!((LENGTH..LENGTH + BESIDE).contains(&all), "{path}: {sent:?}");
        assert!(stored.is_stored(&body).await);
        // Each has it at hand, and fetches none of it.
        let given: u64 = stored.gates.iter().map(Gate::answered).sum();
        for replica in &stored.replicas {
            assert!(get(&replica.url(&path)).await.body == body);
        }
        let fetched = stored.gates.iter().map(Gate::answered).sum::<u64>() - given;
        assert!(fetched < MIB, "{fetched} bytes came from the store");
    }
}

/// The one that downloads is killed midway, or when all has been read and it has stored none of it: the others store it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_one_that_downloads_does_not_store_the_others_do() {
    let mut stored = Stored::start().await;
    for (seed, is_midway) in [(2, true), (3, false)] {
        let name = format!("{seed}.bin");
        let upstream = format!("/{name}");
        let body = stored.publish(&upstream, seed);
        let before = stored.sent();
        let mut readings = stored
            .begin(&upstream, |replica| replica.artifact("files", &name))
            .await;
        if is_midway {
            stored.replicas[0].kill9();
            readings.remove(0);
            stored.backends.origin.release(&upstream);
            join_all(readings.into_iter().map(|reading| reading.reads(&body))).await;
        } else {
            stored.gates[0].stall();
            stored.backends.origin.release(&upstream);
            join_all(readings.into_iter().map(|reading| reading.reads(&body))).await;
            assert!(!stored.is_stored(&body).await);
            stored.replicas[0].kill9();
        }
        stored.until_idle(&[1, 2]).await;
        let sent: u64 = stored
            .sent()
            .iter()
            .zip(&before)
            .map(|(now, before)| now - before)
            .sum();
        println!("{name}: {sent} bytes sent to the store");
        assert!(stored.is_stored(&body).await);
        assert!(
            (LENGTH..2 * LENGTH + BESIDE).contains(&sent),
            "{name}: {sent}"
        );
        let asked = stored.backends.origin.count("GET", &upstream);
        assert!(asked <= 2, "{asked} requests");
        stored.gates[0].open();
        stored.replicas[0].restart().await;
        until_ready(&stored.replicas[0]).await;
        for replica in &stored.replicas {
            assert!(get(&replica.artifact("files", &name)).await.body == body);
        }
        assert_eq!(stored.backends.origin.count("GET", &upstream), asked);
    }
}

/// The store does not answer the one that downloads: it gives up, and the others store what they have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_store_is_away_keeps_the_others_from_nothing() {
    let stored = Stored::start().await;
    let body = stored.publish("/away.bin", 4);
    let url = |replica: &TestLarder| replica.artifact("files", "away.bin");
    let readings = stored.begin("/away.bin", url).await;
    stored.gates[0].close();
    stored.backends.origin.release("/away.bin");
    join_all(readings.into_iter().map(|reading| reading.reads(&body))).await;
    let began = Instant::now();
    while !stored.is_stored(&body).await {
        assert!(began.elapsed() < 2 * PATIENCE, "nobody stores it");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("stored {:?} after it had been read", began.elapsed());
    stored.until_idle(&[1, 2]).await;
    for number in [1, 2] {
        assert!(get(&url(&stored.replicas[number])).await.body == body);
    }
    assert_eq!(stored.backends.origin.count("GET", "/away.bin"), 1);
}
