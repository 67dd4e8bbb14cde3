//! The pipeline over a store that knows no files: its blobs are streams that come with delays.
#![expect(
    clippy::unwrap_used,
    reason = "a test program: its helpers panic to report"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use larder_core::*;
use larder_engine::Limits;
use larder_storage::{FsBlobStore, MemoryBlobStore, MemoryObjects, ObjectBlobStore, RecordUse};
use larder_testkit::{Payload, Resource};
use support::{Bench, eventually, publish};

/// Each answer of the service, and each chunk, takes so long.
const DELAY: Duration = Duration::from_millis(1);

struct Scene {
    bench: Bench,
    objects: Arc<MemoryObjects>,
    _spools: tempfile::TempDir,
}

impl Scene {
    async fn set() -> Self {
        Self::limited(Limits::default()).await
    }

    async fn limited(limits: Limits) -> Self {
        let mut bench = Bench::limited(limits, |_| {}).await;
        let objects = Arc::new(MemoryObjects::with_delay(DELAY));
        let spools = tempfile::tempdir().unwrap();
        let local = FsBlobStore::open(spools.path()).unwrap();
        let store = ObjectBlobStore::new(Arc::clone(&objects) as _, local);
        bench.keep_in(Arc::new(store));
        Self {
            bench,
            objects,
            _spools: spools,
        }
    }

    /// Another engine over the same rows and objects: nothing in memory survives.
    async fn forget_memory(&mut self) {
        self.bench.settled().await;
        self.bench.engine = self.bench.second(false).await;
        self.bench.origin.reset_log();
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> support::Got {
        let got = self.bench.ask(Method::GET, "generic", path, headers).await;
        got.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miss_a_hit_a_part_and_a_head() {
    let mut scene = Scene::set().await;
    let body: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    let file = Resource::new(body.clone()).etag("\"v1\"");
    scene.bench.origin.put("/a/file.bin", file);
    let miss = scene.get("a/file.bin", &[]).await;
    assert_eq!(miss.answer.source, Source::Remote);
    assert!(*miss.bytes() == body);
    scene.forget_memory().await;
    assert_eq!(
        scene.objects.count(),
        2,
        "the blob and the sums of its blocks"
    );

    let hit = scene.get("a/file.bin", &[]).await;
    assert!(hit.is_hit() && *hit.bytes() == body);
    let given = scene.objects.bytes_given();
    let range = [("range", "bytes=1000000-1000099")];
    let part = scene.get("a/file.bin", &range).await;
    assert!(*part.bytes() == body[1_000_000..1_000_100]);
    assert_eq!(
        scene.objects.bytes_given() - given,
        1 << 20,
        "no more is fetched than the block that has them"
    );
    let head = scene
        .bench
        .ask(Method::HEAD, "generic", "a/file.bin", &[])
        .await
        .unwrap();
    assert_eq!(head.answer.representation.length, Some(3_000_000));
    let known = [("if-none-match", "\"v1\"")];
    assert_eq!(scene.get("a/file.bin", &known).await.answer.status, 304);
    assert_eq!(scene.bench.origin.requests().len(), 0, "all from the store");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_cold_clients_cause_one_download_and_one_object() {
    let scene = Scene::set().await;
    let body = Payload::generated(2 << 20, 5);
    scene.bench.origin.put("/big", Resource::new(body.clone()));
    let clients: Vec<_> = (0..32)
        .map(|_| tokio::spawn(scene.bench.client("generic", "big").run()))
        .collect();
    for client in clients {
        let got = client.await.unwrap().unwrap();
        assert!(*got.bytes() == body.slice(0, 2 << 20));
    }
    scene.bench.settled().await;
    assert_eq!(scene.bench.origin.count("GET", "/big"), 1);
    assert_eq!(
        scene.objects.count(),
        2,
        "the blob and the sums of its blocks"
    );
}

/// One that is held in the bucket, say: what is bounded makes room with the others.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_cannot_be_deleted_keeps_nobody_from_being_kept() {
    let scene = Scene::limited(Limits {
        disk: Some(250_000),
        ..Limits::default()
    })
    .await;
    for number in 0..9_u8 {
        let path = format!("f{number}");
        let body = vec![number; 50_000];
        if number == 0 {
            let key = format!("sha256/{}", sha256(&body).to_hex());
            scene.objects.hold(&key);
        }
        let origin = &scene.bench.origin;
        origin.put(&format!("/{path}"), Resource::new(body));
        scene.get(&path, &[]).await;
        scene.bench.settled().await;
        scene.bench.wait(5);
        let again = scene.get(&path, &[]).await;
        assert!(again.is_hit(), "{path}: {}", again.answer.cache_status);
    }
    assert_eq!(scene.bench.metadata.undeleted().blobs, 1);
    let kept = scene.bench.metadata.cached_bytes().await.unwrap();
    assert!(kept <= 250_000, "{kept}");
    let health = scene.bench.engine.health().await;
    let detail = health.blobs.detail.unwrap_or_default();
    assert!(
        detail.contains("1 blobs of 50000 bytes could not be deleted"),
        "{detail}"
    );
    assert!(health.blobs.ok);
}

/// What a clock that was ahead has noted as used next month does not stay before all that is used from now on.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_in_the_future_goes_in_its_turn() {
    let mut scene = Scene::limited(Limits {
        disk: Some(250_000),
        ..Limits::default()
    })
    .await;
    for (path, seed) in [("ahead", 1), ("b", 2), ("c", 3)] {
        let body = vec![seed; 100_000];
        let origin = &scene.bench.origin;
        origin.put(&format!("/{path}"), Resource::new(body));
    }
    scene.get("ahead", &[]).await;
    scene.bench.settled().await;
    let name = RepositoryName::parse("generic").unwrap();
    let month = scene.bench.engine.now().plus(Duration::from_hours(30 * 24));
    let used = RecordUse {
        key: ("ahead".to_owned(), String::new()),
        at: month,
        served: 1,
    };
    let metadata = scene.bench.metadata.clone();
    metadata
        .note_used(&name, false, &[used], month)
        .await
        .unwrap();
    scene.forget_memory().await;
    for path in ["b", "c"] {
        scene.bench.wait(60);
        scene.get(path, &[]).await;
        scene.bench.settled().await;
    }
    scene.bench.wait(60);
    let rows = metadata.least_used("generic", None, 10).await.unwrap();
    let held: Vec<&str> = rows.iter().map(|row| &*row.key.0).collect();
    assert_eq!(held, ["b", "c"]);
}

/// What is derived from a document, and what it claims of its files, is read from the store: no engine has it in memory.
#[tokio::test(flavor = "multi_thread")]
async fn documents_are_derived_from_objects_and_their_claims_hold() {
    for repository in ["pypi", "npm", "helm"] {
        let mut scene = Scene::set().await;
        let body = Payload::generated(200_000, 7);
        let file = publish(&scene.bench.origin, repository, &body, "\"one\"");
        let first = scene.bench.get(repository, file.document).await.unwrap();
        scene.forget_memory().await;
        let again = scene.bench.get(repository, file.document).await.unwrap();
        assert_eq!(first.text(), again.text(), "{repository}");
        assert_eq!(scene.bench.origin.requests().len(), 0, "{repository}");

        // The file is checked by what the document in the store says.
        scene.forget_memory().await;
        let got = scene.bench.get(repository, &file.path).await.unwrap();
        assert!(*got.bytes() == body.slice(0, 200_000), "{repository}");
        scene.bench.flush().await;
        scene.bench.get(repository, file.document).await.unwrap();
        scene.forget_memory().await;
        let wrong = Resource::new(Payload::generated(200_000, 8)).etag("\"two\"");
        scene.bench.origin.put(&file.at, wrong);
        let got = scene.bench.get(repository, &file.path).await;
        assert!(
            got.as_ref()
                .is_err_and(|fault| fault.kind == FaultKind::BadGateway),
            "{repository}: {got:?}"
        );
    }
}

/// Longer than what stays in memory after its check: whoever parses it reads it as a stream.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_document_is_parsed_from_its_object() {
    let mut scene = Scene::set().await;
    let mut index = String::from("apiVersion: v1\nentries:\n  a:\n");
    for n in 0..20_000 {
        let entry = format!("  - name: a\n    version: 1.0.{n}\n    urls: [a-1.0.{n}.tgz]\n");
        index.push_str(&entry);
    }
    let index = Resource::new(index).content_type("application/yaml");
    scene.bench.origin.put("/index.yaml", index);
    let first = scene.bench.get("helm", "index.yaml").await.unwrap();
    assert!(first.text().contains("1.0.19999"), "{}", first.text().len());
    scene.forget_memory().await;
    let form = [("accept-encoding", "gzip")];
    let coded = scene
        .bench
        .ask(Method::GET, "helm", "index.yaml", &form)
        .await
        .unwrap();
    assert!(coded.is_hit());
    scene.bench.settled().await;
    // The compressed form is made behind the scenes, from the derivation in the store.
    eventually("there is a compressed form", async || {
        let got = scene.bench.ask(Method::GET, "helm", "index.yaml", &form);
        let got = got.await.unwrap();
        got.answer.representation.content_encoding.is_some()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_collector_deletes_objects_that_nothing_refers_to() {
    let mut scene = Scene::set().await;
    for path in ["one", "two"] {
        let file = Resource::new(path).etag("\"v\"");
        scene.bench.origin.put(&format!("/{path}"), file);
        scene.get(path, &[]).await;
    }
    scene.forget_memory().await;
    let (meta, blobs) = (&scene.bench.metadata, &scene.bench.blobs);
    let collect = || meta.collect(UnixMillis(i64::MAX / 2_000_000), Duration::ZERO, blobs);
    assert_eq!(collect().await.unwrap().blobs_deleted, 0, "both are held");
    scene.bench.flush().await;
    // What a flush leaves is deleted behind it, and what is still there by the collector.
    assert!(collect().await.unwrap().blobs_deleted <= 2);
    let since = std::time::Instant::now();
    while scene.objects.count() > 0 {
        assert!(since.elapsed() < Duration::from_secs(30), "not deleted");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(scene.get("one", &[]).await.text(), "one");
    scene.bench.settled().await;
    assert_eq!(scene.objects.count(), 1, "fetched and kept again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_lost_is_fetched_again() {
    let mut scene = Scene::set().await;
    let file = Resource::new("bytes").etag("\"v\"");
    scene.bench.origin.put("/file", file);
    scene.get("file", &[]).await;
    scene.forget_memory().await;
    let digest = sha256(b"bytes");
    assert!(scene.bench.blobs.delete(&digest).await.unwrap());
    assert_eq!(scene.get("file", &[]).await.text(), "bytes");
    assert_eq!(scene.bench.origin.count("GET", "/file"), 1);
    scene.bench.settled().await;
    assert_eq!(scene.objects.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_service_is_silent_files_come_from_the_upstream() {
    let mut scene = Scene::set().await;
    let file = Resource::new("bytes").etag("\"v\"");
    scene.bench.origin.put("/file", file);
    scene.get("file", &[]).await;
    scene.forget_memory().await;
    scene.objects.break_off(true);
    assert_eq!(scene.get("file", &[]).await.text(), "bytes");
    assert_eq!(scene.bench.origin.count("GET", "/file"), 1);
    scene.bench.settled().await;
    scene.objects.break_off(false);
    scene.forget_memory().await;
    assert!(
        scene.get("file", &[]).await.is_hit(),
        "its row is still there"
    );
    assert_eq!(scene.bench.origin.requests().len(), 0);
}

/// The store in memory hands out bytes, and no files either.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_in_memory_are_served_alike() {
    let mut bench = Bench::new().await;
    bench.keep_in(Arc::new(MemoryBlobStore::new()));
    let body = Payload::generated(300_000, 7);
    let file = publish(&bench.origin, "npm", &body, "\"one\"");
    let document = bench.get("npm", file.document).await.unwrap();
    let whole = bench.get("npm", &file.path).await.unwrap();
    assert!(*whole.bytes() == body.slice(0, 300_000));
    bench.settled().await;
    bench.engine = bench.second(false).await;
    bench.origin.reset_log();
    let again = bench.get("npm", file.document).await.unwrap();
    assert_eq!(document.text(), again.text());
    let range = [("range", "bytes=-7")];
    let part = bench.ask(Method::GET, "npm", &file.path, &range).await;
    assert!(*part.unwrap().bytes() == body.slice(299_993, 7));
    assert_eq!(bench.origin.requests().len(), 0);
}
