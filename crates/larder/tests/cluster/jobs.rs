//! A job among replicas: the one that works on it is killed, and another goes on.

use std::time::{Duration, Instant};

use larder_testkit::Resource;
use serde_json::json;

use crate::fixture::Cluster;
use crate::support::client::client;
use crate::support::{PATIENCE, TestLarder, get};

/// A job is left to a replica that is not heard of for this long (docs/adr/0095); then comes the work itself.
const LEASE: Duration = Duration::from_secs(20);

/// Files that a replica fetches for jobs at this moment, as its metrics say.
async fn at_work(replica: &TestLarder) -> u64 {
    let metrics = get(&replica.url("/metrics")).await.text();
    let line = metrics
        .lines()
        .find(|line| line.starts_with("larder_budget_held{kind=\"job_files\"}"));
    let held = line.and_then(|line| line.rsplit(' ').next());
    held.and_then(|held| held.parse().ok()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_replica_goes_on_with_the_job_of_one_that_is_killed() {
    let mut cluster = Cluster::start(2).await;
    let origin = &cluster.backends.origin;
    let paths: Vec<String> = (0..80).map(|number| format!("f/{number:03}.bin")).collect();
    for path in &paths {
        origin.put(
            &format!("/{path}"),
            Resource::new(format!("the bytes of {path}")),
        );
    }
    // Whoever works on the job has all its places taken by these when the first forty are there.
    let held = &paths[40..44];
    for path in held {
        origin.hold(&format!("/{path}"));
    }
    let url = cluster.replicas[0].url("api/v1/artifacts/files/cache");
    let body = json!({"paths": paths}).to_string();
    let made = client()
        .post(url)
        .body(body)
        .send()
        .await
        .expect("an answer");
    assert_eq!(made.status(), 202);
    let made = made.bytes().await.expect("a body");
    let made: serde_json::Value = serde_json::from_slice(&made).expect("a job");
    let job = format!("api/v1/jobs/{}", made["id"].as_str().expect("an id"));
    let until = async |replica: &TestLarder, cached: u64| {
        let begun = Instant::now();
        loop {
            let shown = get(&replica.url(&job)).await;
            assert_eq!(shown.status, 200, "{}", shown.text());
            let shown = shown.json();
            if shown["counts"]["cached"] == cached {
                return shown;
            }
            assert!(begun.elapsed() < LEASE + 4 * PATIENCE, "{shown}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // What one replica does, each shows.
    for replica in &cluster.replicas {
        until(replica, 40).await;
    }
    let mut working = Vec::new();
    for replica in &cluster.replicas {
        working.push(at_work(replica).await > 0);
    }
    assert_eq!(
        working.iter().filter(|works| **works).count(),
        1,
        "one works"
    );
    let worker = working.iter().position(|works| *works).expect("a worker");
    cluster.replicas[worker].kill9();
    let survivor = &cluster.replicas[1 - worker];
    for path in held {
        origin.release(&format!("/{path}"));
    }
    let ended = until(survivor, 80).await;
    assert_eq!(ended["counts"]["failed"], 0, "{ended}");
    for path in &paths {
        let asked = origin.count("GET", &format!("/{path}"));
        let most = if held.contains(path) { 2 } else { 1 };
        assert!(
            (1..=most).contains(&asked),
            "{path} was fetched {asked} times"
        );
        let answer = get(&survivor.artifact("files", path)).await;
        let expected = (200, format!("the bytes of {path}"), "cache");
        assert_eq!((answer.status, answer.text(), answer.source()), expected);
    }
}
