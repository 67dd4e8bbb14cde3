//! Three replicas of the program over one PostgreSQL, one Redis and one store that speaks S3, all of them real.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may fail loudly"
)]

#[path = "../support/mod.rs"]
mod support;

mod chained;
mod chaos;
mod costs;
mod deletions;
mod fixture;
mod gates;
mod jobs;
mod limits;
mod oracle;
mod shared_answers;
mod stored;
mod thousand;
mod versions;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fixture::{Cluster, KIB, MIB, put, until};
use larder_testkit::{Payload, Resource};
use rustix::process::Signal;
use support::client::{builder, client, try_send};
use support::{PATIENCE, get, send};

/// What is done on one replica holds on all within this (contract, section 10), with Redis and without.
const SOON: Duration = Duration::from_secs(1);
const BY_POLLING: Duration = Duration::from_secs(2);

/// One upstream GET for a cold file that clients of all replicas want, whatever its length, and nobody waits for the end of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_ask_the_upstream_once() {
    const CLIENTS: usize = 90;
    let cluster = Cluster::start(3).await;
    for (name, length) in [("small.bin", KIB), ("large.bin", 10 * MIB)] {
        let payload = Payload::generated(length, length);
        let resource = Resource::new(payload.clone()).etag("\"strong\"");
        cluster.backends.origin.put(&format!("/{name}"), resource);
        let body = payload.slice(0, length);
        let (client, began) = (client(), Instant::now());
        let one = |number: usize| {
            let url = cluster.replicas[number % 3].artifact("files", name);
            let (client, body) = (client.clone(), body.clone());
            async move {
                let mut response = client.get(url).send().await.expect("a head");
                assert_eq!(response.status(), 200);
                let mut got = response
                    .chunk()
                    .await
                    .expect("bytes")
                    .expect("some")
                    .to_vec();
                let first = began.elapsed();
                while let Some(piece) = response.chunk().await.expect("the body goes on") {
                    got.extend_from_slice(&piece);
                }
                assert!(
                    got == body,
                    "{} of {} bytes, or other ones",
                    got.len(),
                    body.len()
                );
                first
            }
        };
        let firsts = futures_util::future::join_all((0..CLIENTS).map(one)).await;
        let (first, last) = (firsts.iter().min().unwrap(), firsts.iter().max().unwrap());
        println!("{name}: {CLIENTS} clients of three replicas, first bytes {first:?} to {last:?}");
        assert_eq!(
            cluster.backends.origin.count("GET", &format!("/{name}")),
            1,
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_done_on_one_holds_on_all() {
    let mut cluster = Cluster::start(3).await;
    for bound in [SOON, BY_POLLING] {
        if bound == BY_POLLING {
            cluster.backends.redis.stop();
        }
        let own: Vec<String> = (0..3)
            .map(|n| cluster.replicas[n].artifact("own", "a/file.txt"))
            .collect();
        let mut took = Vec::new();
        for (n, body) in ["first", "second", "third"].into_iter().enumerate() {
            let status = put(&own[n], body).await.status;
            assert_eq!(status, if n == 0 { 201 } else { 200 });
            for other in &own {
                took.push(until(other, |answer| answer.text() == body, bound).await);
                // From now on it may be hot there.
                assert_eq!(get(other).await.text(), body);
            }
        }
        assert_eq!(send("DELETE", &own[1], &[]).await.status, 204);
        for other in &own {
            took.push(until(other, |answer| answer.status == 404, bound).await);
        }
        // A flush on one: what the others have in their memory is void.
        cluster
            .backends
            .origin
            .put("/held.bin", Resource::new("old"));
        let held: Vec<String> = (0..3)
            .map(|n| cluster.replicas[n].artifact("files", "held.bin"))
            .collect();
        for _ in 0..3 {
            for url in &held {
                assert_eq!(get(url).await.text(), "old");
            }
        }
        cluster
            .backends
            .origin
            .put("/held.bin", Resource::new("new"));
        let flush = cluster.replicas[2].url("/cache/flush?remote=files");
        assert_eq!(send("PUT", &flush, &[]).await.status, 200);
        for url in &held {
            took.push(until(url, |answer| answer.text() == "new", bound).await);
        }
        send("PUT", &flush, &[]).await;
        println!(
            "bound {bound:?}: seen after {:?} at most",
            took.iter().max().unwrap()
        );
    }
}

/// Revalidated by one, fresh for all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_one_has_revalidated_is_fresh_for_all() {
    let cluster = Cluster::start(3).await;
    let document = Resource::new("{}").etag("\"one\"");
    cluster.backends.origin.put("/index.json", document);
    let urls: Vec<String> = (0..3)
        .map(|n| cluster.replicas[n].artifact("files", "index.json"))
        .collect();
    for url in &urls {
        assert_eq!(get(url).await.text(), "{}");
    }
    assert_eq!(cluster.backends.origin.requests().len(), 1);
    for round in 1..=3 {
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        // The first asks the upstream. What it has learnt reaches the others before it is old again.
        assert_eq!(get(&urls[round % 3]).await.text(), "{}");
        tokio::time::sleep(Duration::from_millis(300)).await;
        for url in &urls {
            assert_eq!(get(url).await.text(), "{}");
        }
        assert_eq!(
            cluster.backends.origin.requests().len(),
            1 + round,
            "round {round}"
        );
    }
}

/// The replica that downloads is killed midway: at most one more GET, and everybody whose own replica lives gets the right bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_that_downloads_is_killed() {
    let mut cluster = Cluster::start(3).await;
    let length = 10 * MIB;
    let payload = Payload::generated(length, 3);
    let resource = Resource::new(payload.clone()).etag("\"strong\"");
    cluster.backends.origin.put("/file.bin", resource);
    cluster.backends.origin.hold_body("/file.bin", 4 * MIB);
    let started = |replica: usize| {
        let url = cluster.replicas[replica].artifact("files", "file.bin");
        async move {
            let mut response = client().get(url).send().await.expect("a head");
            let first = response.chunk().await.expect("bytes").expect("some");
            (response, first.to_vec())
        }
    };
    let leader = started(0).await;
    let followers = [started(1).await, started(2).await, started(1).await];
    cluster.replicas[0].kill9();
    drop(leader);
    tokio::time::sleep(Duration::from_millis(200)).await;
    cluster.backends.origin.release("/file.bin");
    for (mut response, mut got) in followers {
        while let Some(piece) = response.chunk().await.expect("the body goes on") {
            got.extend_from_slice(&piece);
        }
        assert!(
            got == payload.slice(0, length),
            "{} bytes, or other ones",
            got.len()
        );
    }
    let asked = cluster.backends.origin.count("GET", "/file.bin");
    assert!(asked <= 2, "{asked} requests");
    // It comes back, and has it without asking.
    cluster.replicas[0].restart().await;
    let url = cluster.replicas[0].artifact("files", "file.bin");
    assert!(get(&url).await.body == payload.slice(0, length));
    assert_eq!(cluster.backends.origin.count("GET", "/file.bin"), asked);
}

/// One after the other is stopped as an init system does it and started again, while clients behind a balancer read and upload: no
/// request fails. The balancer asks `/ready`, and sends a request elsewhere only if its connection is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_fails_no_request() {
    let mut cluster = Cluster::start(3).await;
    for n in 0..20 {
        let body = Payload::generated(100 * KIB, n);
        cluster
            .backends
            .origin
            .put(&format!("/{n}.bin"), Resource::new(body));
    }
    let bases: Arc<Vec<String>> = Arc::new(cluster.replicas.iter().map(|r| r.url("")).collect());
    let ready: Arc<Vec<AtomicBool>> = Arc::new((0..3).map(|_| AtomicBool::new(true)).collect());
    let (stop, done) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let probe = tokio::spawn({
        let (bases, ready, stop) = (Arc::clone(&bases), Arc::clone(&ready), Arc::clone(&stop));
        async move {
            while !stop.load(Ordering::Relaxed) {
                for (base, is_ready) in bases.iter().zip(ready.iter()) {
                    let answer = support::client::get_timeout(&format!("{base}ready")).await;
                    is_ready.store(answer.is_some_and(|a| a.status == 200), Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    });
    let clients: Vec<_> = (0..8)
        .map(|number: usize| {
            let (bases, ready) = (Arc::clone(&bases), Arc::clone(&ready));
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                // Each request on a connection of its own, as a balancer without keep-alive has them.
                let client = builder().pool_max_idle_per_host(0).build().unwrap();
                for turn in number.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    request_through_a_balancer(&client, &bases, &ready, turn).await;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for n in 0..3 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        cluster.replicas[n].signal(Signal::TERM);
        assert!(cluster.replicas[n].wait().success());
        cluster.replicas[n].restart().await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("no request fails");
    }
    probe.await.unwrap();
    println!(
        "{} requests while three replicas were restarted",
        done.load(Ordering::Relaxed)
    );
    assert!(done.load(Ordering::Relaxed) > 100);
}

async fn request_through_a_balancer(
    client: &reqwest::Client,
    bases: &[String],
    ready: &[AtomicBool],
    turn: usize,
) {
    let began = Instant::now();
    for at in turn.. {
        assert!(began.elapsed() < PATIENCE, "nobody takes it");
        if !ready[at % 3].load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        let base = &bases[at % 3];
        let upload = turn.is_multiple_of(10);
        let (method, path) = if upload {
            ("PUT", format!("api/v1/remote/own/{turn}.txt"))
        } else {
            ("GET", format!("api/v1/remote/files/{}.bin", turn % 20))
        };
        match try_send(client, method, &format!("{base}{path}"), &[]).await {
            Ok(answer) => {
                let is_good = if upload { [200, 201] } else { [200, 200] };
                assert!(
                    is_good.contains(&answer.status),
                    "{path}: {} {}",
                    answer.status,
                    answer.text()
                );
                return;
            }
            Err(error) if error.is_connect() => {}
            Err(error) => panic!("{path}: {error:?}"),
        }
    }
}
