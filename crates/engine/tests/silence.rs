//! Time-outs are of silence and never of a whole transfer (hazard A5): an engine over a scripted upstream, while tokio's time is moved by
//! hand. Disk and database take the real time that they need; nothing here waits for a clock.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test program: its helpers panic to report"
)]

#[path = "support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use larder_core::*;
use larder_engine::*;
use larder_formats::LinkKey;
use larder_storage::{BlobStore, FsBlobStore, MetadataStore};
use larder_upstream::{ScriptedReply, ScriptedUpstream};
use support::{Got, START, ask, pass, repository};
use tokio::sync::Notify;

/// `timeouts.read` of the repositories of these tests.
const READ_TIMEOUT: Duration = Duration::from_millis(1500);
/// One step short of it.
const ALMOST: Duration = Duration::from_millis(1400);
const STEP: Duration = Duration::from_millis(100);

struct Scene {
    engine: Arc<Engine>,
    upstream: Arc<ScriptedUpstream>,
    metadata: MetadataStore,
    _directory: tempfile::TempDir,
}

impl Scene {
    /// A generic repository whose upstream answers these, one after the other.
    async fn of(replies: impl IntoIterator<Item = ScriptedReply>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let blobs: Arc<dyn BlobStore> = Arc::new(FsBlobStore::open(directory.path()).unwrap());
        let metadata = MetadataStore::open(&directory.path().join("larder.sqlite"))
            .await
            .unwrap();
        let upstream = Arc::new(ScriptedUpstream::new());
        replies.into_iter().for_each(|reply| upstream.push(reply));
        let clock = Arc::new(ManualClock::new(START));
        let mut generic = repository(PackageType::Generic, "https://files.example.com/");
        support::upstream(&mut generic).read_timeout = READ_TIMEOUT;
        let engine = Engine::new(EngineParts {
            repositories: vec![Arc::new(generic)],
            not_built: BTreeMap::new(),
            blobs,
            metadata: metadata.clone(),
            upstream: Arc::clone(&upstream) as Arc<dyn larder_upstream::Upstream>,
            clock,
            link_key: LinkKey::from_bytes([7; 32]),
            public_urls: PublicUrls::default(),
            limits: Limits::default(),
        });
        Self {
            engine,
            upstream,
            metadata,
            _directory: directory,
        }
    }

    /// Asks for the file while time passes in small steps; gives how much of it passed as well.
    async fn get(&self) -> (Result<Got, Fault>, Duration) {
        let engine = Arc::clone(&self.engine);
        let began = tokio::time::Instant::now();
        let asking =
            tokio::spawn(
                async move { ask(&engine, Method::GET, "generic", "file.bin", &[]).await },
            );
        for _ in 0..10_000 {
            if asking.is_finished() {
                return (asking.await.unwrap(), began.elapsed());
            }
            pass(STEP).await;
        }
        panic!("a quarter of an hour, and no answer");
    }
}

fn reply(status: u16, length: u64) -> ScriptedReply {
    ScriptedReply::status(status)
        .header("content-length", &length.to_string())
        .header("etag", "\"strong\"")
}

#[tokio::test]
async fn hazard_a5_a_transfer_may_take_as_long_as_it_likes_while_something_comes() {
    let drip = (0..40).fold(reply(200, 40), |reply, _| reply.pause(ALMOST).chunk("x"));
    let scene = Scene::of([drip]).await;
    let (got, elapsed) = scene.get().await;
    assert_eq!(got.unwrap().text(), "x".repeat(40));
    assert!(elapsed >= ALMOST * 40, "{elapsed:?}");
    assert_eq!(scene.upstream.requests().len(), 1, "not taken up again");
}

#[tokio::test]
async fn hazard_a5_a_silent_transfer_is_taken_up_where_it_stopped() {
    let never = Arc::new(Notify::new());
    let silent = reply(200, 10).chunk("abcde").wait(&never);
    let rest = reply(206, 5)
        .header("content-range", "bytes 5-9/10")
        .chunk("fghij");
    let scene = Scene::of([silent, rest]).await;
    let (got, elapsed) = scene.get().await;
    assert_eq!(got.unwrap().text(), "abcdefghij");
    assert!(elapsed >= READ_TIMEOUT, "{elapsed:?}");
    let asked: Vec<Option<u64>> = scene
        .upstream
        .requests()
        .iter()
        .map(|request| request.resume.as_ref().map(|resume| resume.offset))
        .collect();
    assert_eq!(asked, [None, Some(5)]);
}

#[tokio::test]
async fn hazard_a5_an_upstream_that_stays_silent_is_a_time_out_and_leaves_nothing() {
    let never = Arc::new(Notify::new());
    let silent = || ScriptedReply::status(200).header("content-length", "10");
    let scene = Scene::of((0..8).map(|_| silent().chunk("abc").wait(&never))).await;
    let (got, elapsed) = scene.get().await;
    let fault = got.unwrap_err();
    assert_eq!(fault.code, "upstream_timeout", "{fault:?}");
    assert!(elapsed >= READ_TIMEOUT, "{elapsed:?}");
    let key = SourceKey {
        repository: RepositoryName::parse("generic").unwrap(),
        path: "file.bin".into(),
        variant: String::new().into(),
    };
    assert_eq!(scene.metadata.record(&key).await.unwrap(), None);
}
