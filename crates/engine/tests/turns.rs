//! Who waits for a turn, and who gives one up: an engine over a scripted upstream with one place for downloads, while tokio's time is
//! moved by hand.
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
use tokio::task::JoinHandle;

const STEP: Duration = Duration::from_millis(100);

struct Scene {
    engine: Arc<Engine>,
    upstream: Arc<ScriptedUpstream>,
    clock: Arc<ManualClock>,
    _directory: tempfile::TempDir,
}

impl Scene {
    /// Two generic repositories, `slow` and `other`, each with an upstream of its own.
    async fn of(replies: impl IntoIterator<Item = ScriptedReply>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let blobs: Arc<dyn BlobStore> = Arc::new(FsBlobStore::open(directory.path()).unwrap());
        let metadata = MetadataStore::open(&directory.path().join("larder.sqlite"))
            .await
            .unwrap();
        let upstream = Arc::new(ScriptedUpstream::new());
        replies.into_iter().for_each(|reply| upstream.push(reply));
        let clock = Arc::new(ManualClock::new(START));
        let repositories = ["slow", "other"].map(|name| {
            let mut repository = repository(
                PackageType::Generic,
                &format!("https://{name}.example.com/"),
            );
            repository.name = RepositoryName::parse(name).unwrap();
            support::upstream(&mut repository).read_timeout = Duration::from_mins(60);
            Arc::new(repository)
        });
        let engine = Engine::new(EngineParts {
            repositories: repositories.to_vec(),
            not_built: BTreeMap::new(),
            blobs,
            metadata,
            upstream: Arc::clone(&upstream) as Arc<dyn larder_upstream::Upstream>,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            link_key: LinkKey::from_bytes([7; 32]),
            public_urls: PublicUrls::default(),
            limits: Limits {
                downloads: 1,
                ..Limits::default()
            },
        });
        Self {
            engine,
            upstream,
            clock,
            _directory: directory,
        }
    }

    /// A client that has asked.
    async fn client(
        &self,
        repository: &'static str,
        path: &'static str,
    ) -> JoinHandle<Result<Got, Fault>> {
        let engine = Arc::clone(&self.engine);
        let asking =
            tokio::spawn(async move { ask(&engine, Method::GET, repository, path, &[]).await });
        self.some_time(Duration::from_millis(500)).await;
        asking
    }

    async fn some_time(&self, time: Duration) {
        let steps = time.as_millis() / STEP.as_millis();
        for _ in 0..steps {
            pass(STEP).await;
        }
    }

    /// What a client gets within a minute and a half, and after how long.
    async fn answer(
        &self,
        client: JoinHandle<Result<Got, Fault>>,
    ) -> (Result<Got, Fault>, Duration) {
        let began = tokio::time::Instant::now();
        while began.elapsed() < Duration::from_secs(90) {
            if client.is_finished() {
                return (client.await.unwrap(), began.elapsed());
            }
            pass(STEP).await;
        }
        panic!("no answer in a minute and a half");
    }

    fn asked(&self) -> Vec<String> {
        let requests = self.upstream.requests();
        requests
            .iter()
            .map(|request| request.url.to_string())
            .collect()
    }

    fn downloads(&self) -> BudgetUse {
        let budgets = self.engine.budgets_in_use();
        *budgets
            .iter()
            .find(|budget| budget.kind == BudgetKind::Downloads)
            .unwrap()
    }
}

/// A file whose head comes, and nothing else.
fn endless(never: &Arc<Notify>) -> ScriptedReply {
    ScriptedReply::status(200)
        .header("content-length", "4000000")
        .chunk("x")
        .wait(never)
}

fn file(text: &'static str) -> ScriptedReply {
    ScriptedReply::ok(text).header("content-length", &text.len().to_string())
}

#[tokio::test]
async fn who_waits_too_long_for_a_turn_is_told_when_to_come_back() {
    let scene = Scene::of([endless(&Arc::new(Notify::new())), file("late")]).await;
    let _reading = scene.client("slow", "endless.bin").await;
    let waiting = scene.client("other", "file.bin").await;
    let (answer, elapsed) = scene.answer(waiting).await;
    let fault = answer.unwrap_err();
    assert_eq!(
        (fault.kind, fault.code),
        (FaultKind::Unavailable, ErrorCode::Busy),
        "{fault:?}"
    );
    assert!(fault.retry_after.is_some() && fault.rule.as_deref() == Some("limits"));
    assert_eq!(fault.repository.as_deref(), Some("other"));
    assert!(
        elapsed > Duration::from_secs(28) && elapsed < Duration::from_secs(32),
        "{elapsed:?}"
    );
    assert_eq!(scene.asked().len(), 1, "{:?}", scene.asked());
    let used = scene.downloads();
    assert_eq!((used.held, used.waiting, used.refused), (1, 0, 1));
}

#[tokio::test]
async fn who_waits_too_long_gets_the_copy_that_is_held() {
    let scene = Scene::of([
        file("held"),
        endless(&Arc::new(Notify::new())),
        file("late"),
    ])
    .await;
    let client = scene.client("other", "folder/").await;
    assert_eq!(scene.answer(client).await.0.unwrap().text(), "held");
    scene.some_time(Duration::from_secs(1)).await;
    let _reading = scene.client("slow", "endless.bin").await;
    // A folder is asked for again once it is old.
    scene.clock.advance(Duration::from_hours(48));
    let waiting = scene.client("other", "folder/").await;
    let got = scene.answer(waiting).await.0.unwrap();
    assert_eq!(got.text(), "held");
    assert_eq!(scene.asked().len(), 2, "{:?}", scene.asked());
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_not_begun() {
    let end = Arc::new(Notify::new());
    let first = ScriptedReply::status(200)
        .header("content-length", "2")
        .chunk("x")
        .wait(&end)
        .chunk("y");
    let scene = Scene::of([first, file("wanted")]).await;
    let reading = scene.client("slow", "first.bin").await;
    let given_up = scene.client("other", "given-up.bin").await;
    let waiting = scene.client("other", "wanted.bin").await;
    assert_eq!(scene.downloads().waiting, 2);
    given_up.abort();
    scene.some_time(Duration::from_millis(200)).await;
    assert_eq!(scene.downloads().waiting, 1);
    end.notify_one();
    assert_eq!(scene.answer(reading).await.0.unwrap().text(), "xy");
    assert_eq!(scene.answer(waiting).await.0.unwrap().text(), "wanted");
    assert!(
        scene.asked().iter().all(|url| !url.contains("given-up")),
        "{:?}",
        scene.asked()
    );
}

#[tokio::test]
async fn a_slow_download_that_nobody_reads_makes_room_for_others() {
    let scene = Scene::of([endless(&Arc::new(Notify::new())), file("soon")]).await;
    let reading = scene.client("slow", "endless.bin").await;
    scene.some_time(Duration::from_secs(5)).await;
    reading.abort();
    scene.some_time(Duration::from_secs(5)).await;
    assert_eq!(scene.downloads().held, 1, "nobody else wants the place");
    let waiting = scene.client("other", "file.bin").await;
    let (answer, elapsed) = scene.answer(waiting).await;
    assert_eq!(answer.unwrap().text(), "soon");
    assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");
}

#[tokio::test]
async fn a_slow_download_that_somebody_reads_keeps_its_place() {
    let scene = Scene::of([endless(&Arc::new(Notify::new()))]).await;
    let reading = scene.client("slow", "endless.bin").await;
    let second = scene.client("slow", "endless.bin").await;
    second.abort();
    let waiting = scene.client("other", "file.bin").await;
    scene.some_time(Duration::from_secs(10)).await;
    assert!(!waiting.is_finished() && !reading.is_finished());
    assert_eq!(scene.downloads().held, 1);
}
