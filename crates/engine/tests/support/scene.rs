//! An engine over a scripted upstream, without sockets, while tokio's time is moved by hand. Disk and database take the real time that
//! they need; nothing here waits for a clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use larder_budget::{BudgetKind, BudgetUse, Budgets, Totals};
use larder_core::*;
use larder_engine::*;
use larder_formats::LinkKey;
use larder_storage::{BlobStore, FsBlobStore, MetadataStore};
use larder_upstream::{ScriptedReply, ScriptedUpstream};
use tokio::task::JoinHandle;

use super::{Got, START, ask, repository, some_time, upstream, while_time_passes};

pub(crate) struct Scene {
    pub(crate) engine: Arc<Engine>,
    pub(crate) upstream: Arc<ScriptedUpstream>,
    pub(crate) metadata: MetadataStore,
    pub(crate) clock: Arc<ManualClock>,
    _directory: tempfile::TempDir,
}

impl Scene {
    /// Generic repositories of these names, each with an upstream of its own and this `timeouts.read`, and so many places for downloads.
    /// Whatever they ask is answered with `replies`, one after the other.
    pub(crate) async fn of(
        names: &[&str],
        read_timeout: Duration,
        downloads: usize,
        replies: impl IntoIterator<Item = ScriptedReply>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let blobs: Arc<dyn BlobStore> = Arc::new(FsBlobStore::open(directory.path()).unwrap());
        let metadata = MetadataStore::open(&directory.path().join("larder.sqlite"))
            .await
            .unwrap();
        let scripted = Arc::new(ScriptedUpstream::new());
        replies.into_iter().for_each(|reply| scripted.push(reply));
        let clock = Arc::new(ManualClock::new(START));
        let of_name = |name: &&str| {
            let base = format!("https://{name}.example.com/");
            let mut repository = repository(PackageType::Generic, &base);
            repository.name = RepositoryName::parse(name).unwrap();
            upstream(&mut repository).read_timeout = read_timeout;
            Arc::new(repository)
        };
        let engine = Engine::new(EngineParts {
            repositories: names.iter().map(of_name).collect(),
            not_built: BTreeMap::new(),
            blobs,
            metadata: metadata.clone(),
            upstream: Arc::clone(&scripted) as Arc<dyn larder_upstream::Upstream>,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            link_key: LinkKey::from_bytes([7; 32]),
            public_urls: PublicUrls::default(),
            limits: Limits::default(),
            budgets: Arc::new(Budgets::new(Totals {
                downloads,
                ..Totals::default()
            })),
        });
        Self {
            engine,
            upstream: scripted,
            metadata,
            clock,
            _directory: directory,
        }
    }

    /// A client that has asked.
    pub(crate) async fn client(
        &self,
        repository: &'static str,
        path: &'static str,
    ) -> JoinHandle<Result<Got, Fault>> {
        let asking = self.asking(repository, path);
        some_time(Duration::from_millis(500)).await;
        asking
    }

    /// One that is about to ask.
    pub(crate) fn asking(
        &self,
        repository: &'static str,
        path: &'static str,
    ) -> JoinHandle<Result<Got, Fault>> {
        let engine = Arc::clone(&self.engine);
        tokio::spawn(async move { ask(&engine, Method::GET, repository, path, &[]).await })
    }

    /// What a client gets within a quarter of an hour, and after how long.
    pub(crate) async fn answer(
        &self,
        client: JoinHandle<Result<Got, Fault>>,
    ) -> (Result<Got, Fault>, Duration) {
        let began = tokio::time::Instant::now();
        let answer = tokio::time::timeout(Duration::from_mins(15), client);
        let answer = while_time_passes(answer).await;
        (answer.expect("an answer").unwrap(), began.elapsed())
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        let requests = self.upstream.requests();
        requests
            .iter()
            .map(|request| request.url.to_string())
            .collect()
    }

    pub(crate) fn downloads(&self) -> BudgetUse {
        let budgets = self.engine.budgets_in_use();
        *budgets
            .iter()
            .find(|budget| budget.kind == BudgetKind::Downloads)
            .unwrap()
    }
}
