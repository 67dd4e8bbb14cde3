//! Scrubs over a store that speaks S3: objects that have other bytes, and files of the local tier (docs/adr/0096, docs/adr/0102).
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests may fail loudly"
)]

#[path = "support/store.rs"]
mod store;
mod support;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use larder_core::sha256;
use larder_storage::{Body, ObjectStore as _, S3Objects};
use larder_testkit::servers::S3Server;
use larder_testkit::{Origin, Payload, Resource};
use serde_json::Value;
use store::store_of;
use support::client::client;
use support::{PATIENCE, Setup, TestLarder, get, send};

const MIB: u64 = 1 << 20;

/// Path and bytes of a file.
type Named = (String, Vec<u8>);

/// A larder over a store, with files that were fetched and files that were uploaded.
struct Scene {
    larder: TestLarder,
    origin: Origin,
    store: S3Objects,
    _server: S3Server,
    cached: Vec<Named>,
    local: Vec<Named>,
}

/// Files of some kilobytes, and two that are so long that the store has sums of their parts.
fn files(folder: &str, count: u64, seed: u64) -> Vec<Named> {
    let one = |number: u64| {
        let length = match number {
            0 => 3 * MIB + 5,
            1 => MIB + 1,
            number => 1_000 + number * 37,
        };
        let bytes = Payload::generated(length, seed + number)
            .slice(0, length)
            .to_vec();
        (format!("{folder}/{number:03}.bin"), bytes)
    };
    (0..count).map(one).collect()
}

fn key_of(bytes: &[u8]) -> String {
    format!("sha256/{}", sha256(bytes).to_hex())
}

/// The same bytes but for one bit.
fn flipped(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let place = bytes.len() * 2 / 3;
    bytes[place] ^= 0x04;
    bytes
}

impl Scene {
    async fn new() -> Self {
        let server = S3Server::start().await;
        let origin = Origin::start().await;
        let config = format!(
            "remotes:\n  files: {{ base_url: '{}', immutable_patterns: ['.'] }}\n  own: {{ type: local }}\n",
            origin.url("")
        );
        let setup = Setup::new(&config)
            .env("MINIO_ENDPOINT", &server.endpoint())
            .env("MINIO_SECURE", "false")
            .env("MINIO_BUCKET", S3Server::BUCKET)
            .env("MINIO_ACCESS_KEY", S3Server::ACCESS_KEY)
            .env("MINIO_SECRET_KEY", S3Server::SECRET_KEY);
        let scene = Self {
            larder: setup.start().await,
            origin,
            store: store_of(&server),
            _server: server,
            cached: files("c", 40, 1_000),
            local: files("l", 12, 2_000),
        };
        for (path, bytes) in &scene.cached {
            let resource = Resource::new(bytes.clone()).content_type("application/octet-stream");
            scene.origin.put(&format!("/{path}"), resource);
            let answer = scene
                .larder
                .hit(&scene.larder.artifact("files", path))
                .await;
            assert!(answer.body == *bytes, "{path}");
        }
        for (path, bytes) in &scene.local {
            let url = scene.larder.artifact("own", path);
            let sent = client().put(url).body(bytes.clone()).send().await;
            assert_eq!(sent.expect("an answer").status().as_u16(), 201, "{path}");
        }
        scene.larder.until_idle().await;
        scene
    }

    async fn object(&self, bytes: &[u8]) -> Vec<u8> {
        let length = bytes.len() as u64;
        let mut chunks = self.store.get(&key_of(bytes), 0..length);
        let mut all = Vec::new();
        while let Some(chunk) = chunks.next().await {
            all.extend_from_slice(&chunk.expect("bytes of an object"));
        }
        all
    }

    /// Flips a bit of an object behind larder's back.
    async fn spoil_object(&self, bytes: &[u8]) {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&flipped(bytes)).expect("written");
        let body = Body::file(Arc::new(file), bytes.len() as u64);
        let put = self.store.put(&key_of(bytes), body).await;
        put.expect("an object in its place");
        assert!(self.object(bytes).await == flipped(bytes));
    }

    fn tier_file(&self, bytes: &[u8]) -> PathBuf {
        let digits = sha256(bytes).to_hex();
        let folder = self.larder.blob_dir().join("blobs/sha256");
        folder.join(&digits[..2]).join(&digits[2..4]).join(&digits)
    }

    /// Scrubs all there is, and gives the scrub with the names that it has found: kind, path, outcome.
    async fn scrub(&self) -> (Value, BTreeSet<(String, String, String)>) {
        let url = self.larder.url("api/v1/scrub?rate=1000000000");
        assert_eq!(send("POST", &url, &[]).await.status, 202);
        let since = Instant::now();
        loop {
            let answer = get(&self.larder.url("api/v1/scrub?limit=300")).await;
            let scrub = answer.json();
            if scrub["state"] != "running" {
                let found = scrub["findings"].as_array().expect("findings");
                let text = |found: &Value, name: &str| found[name].as_str().map(str::to_owned);
                let names = found.iter().filter_map(|found| {
                    Some((
                        text(found, "kind")?,
                        text(found, "path")?,
                        text(found, "outcome")?,
                    ))
                });
                let names = names.collect();
                return (scrub, names);
            }
            assert!(since.elapsed() < 10 * PATIENCE, "{scrub}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn is_served(&self, repository: &str, (path, bytes): &Named) -> bool {
        let answer = get(&self.larder.artifact(repository, path)).await;
        assert_eq!(answer.status, 200, "{path}");
        answer.body == *bytes
    }
}

fn expected(kind: &str, outcome: &str, files: &[Named]) -> BTreeSet<(String, String, String)> {
    let one = |(path, _): &Named| (kind.to_owned(), path.clone(), outcome.to_owned());
    files.iter().map(one).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_objects_are_found_and_no_others_and_what_was_fetched_heals() {
    let scene = Scene::new().await;
    let (cached_bad, cached_good) = scene.cached.split_at(18);
    let (local_bad, local_good) = scene.local.split_at(5);
    for (_, bytes) in cached_bad.iter().chain(local_bad) {
        scene.spoil_object(bytes).await;
    }
    let (scrub, found) = scene.scrub().await;
    assert_eq!(
        (&scrub["state"], scrub["damaged"].as_u64()),
        (&"done".into(), Some(23)),
        "{scrub}"
    );
    assert_eq!(scrub["blobs"].as_u64(), Some(52));
    let mut all = expected("cached", "refetched", cached_bad);
    all.extend(expected("local", "kept", local_bad));
    assert!(found == all, "{found:?}");
    for (path, bytes) in &scene.cached {
        assert!(scene.object(bytes).await == *bytes, "{path}");
        assert!(
            scene
                .is_served("files", &(path.clone(), bytes.clone()))
                .await
        );
    }
    for (files, times) in [(cached_bad, 2), (cached_good, 1)] {
        for (path, _) in files {
            let asked = scene.origin.count("GET", &format!("/{path}"));
            assert_eq!(asked, times, "{path}");
        }
    }
    for (path, bytes) in local_bad {
        assert!(scene.object(bytes).await == flipped(bytes), "{path}");
    }
    for (path, bytes) in local_good {
        assert!(scene.object(bytes).await == *bytes, "{path}");
    }
    let metric = "larder_scrub_local_damaged_total";
    assert!((scene.larder.metric(metric, "").await - 5.0).abs() < 0.5);
    let since = Instant::now();
    loop {
        let health = get(&scene.larder.url("health")).await.text();
        if health.contains("damaged") {
            break;
        }
        assert!(since.elapsed() < PATIENCE, "{health}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_files_of_the_tier_are_dropped_and_right_ones_are_not() {
    let mut scene = Scene::new().await;
    assert!(scene.larder.terminate().success());
    let (bad, good) = scene.cached.split_at(7);
    for (_, bytes) in bad {
        let path = scene.tier_file(bytes);
        assert!(std::fs::read(&path).expect("a file of the tier") == *bytes);
        std::fs::write(&path, flipped(bytes)).expect("written");
    }
    scene.larder.restart().await;
    for file in bad {
        assert!(!scene.is_served("files", file).await, "why it is scrubbed");
    }
    let (scrub, found) = scene.scrub().await;
    assert_eq!(scrub["damaged"].as_u64(), Some(0), "{scrub}");
    assert!(found.is_empty());
    let metric = "larder_tier_spoilt_blobs_total";
    let since = Instant::now();
    while scene.larder.metric(metric, "").await < 6.5 {
        assert!(since.elapsed() < PATIENCE, "{}", scene.larder.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for file in bad.iter().chain(good) {
        assert!(scene.is_served("files", file).await, "{}", file.0);
    }
    let spoilt = scene.larder.metric(metric, "").await;
    assert!((spoilt - 7.0).abs() < 0.5, "{spoilt}");
    for (path, _) in &scene.cached {
        let asked = scene.origin.count("GET", &format!("/{path}"));
        assert_eq!(asked, 1, "{path}: the store has it");
    }
}
