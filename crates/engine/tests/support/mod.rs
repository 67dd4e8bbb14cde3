//! An engine over a scripted origin, without the HTTP server: real upstream client, real storage in a temporary directory.
//!
//! | file | knows |
//! |---|---|
//! | `client.rs` | asking as an HTTP client would: conditions, ranges, leaving early, reading slowly |
//! | `documents.rs` | the same file published in each of the four formats, with the document that names it |
//! | `memory.rs` | what a process holds in memory, measured in a process of its own |
//! | `disk.rs` | a small file system that can be filled |
//! | `scene.rs` | an engine over a scripted upstream, while tokio's time is moved by hand |
#![allow(dead_code, unused_imports, reason = "each test file uses a part of it")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test program: its helpers panic to report"
)]

mod client;
mod disk;
mod documents;
mod memory;
mod scene;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use larder_core::*;
use larder_engine::*;
use larder_formats::LinkKey;
use larder_storage::{BlobStore, FsBlobStore, MetadataStore};
use larder_testkit::Origin;
use larder_upstream::{HttpUpstream, Options};
use url::Url;

pub(crate) use client::{Client, Got, Head, ask, read};
pub(crate) use disk::{SmallDisk, fill};
pub(crate) use documents::{
    FORMATS, Published, base64, helm_index, npm_packument, publish, pypi_page,
};
pub(crate) use memory::{Peak, alone, too_slow};
pub(crate) use scene::Scene;

pub(crate) struct Bench {
    pub(crate) engine: Arc<Engine>,
    pub(crate) origin: Origin,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) blobs: Arc<dyn BlobStore>,
    pub(crate) metadata: MetadataStore,
    repositories: Vec<Arc<Repository>>,
    limits: Limits,
    path: PathBuf,
    _directory: Option<tempfile::TempDir>,
}

/// How much of tokio's time passes at once.
const STEP: Duration = Duration::from_millis(50);

/// The engine's time when a bench is made.
pub(crate) const START: UnixMillis = UnixMillis(1_780_000_000_000);

pub(crate) fn repository(package: PackageType, base: &str) -> Repository {
    let base_url = Url::parse(base).unwrap();
    let index_url = if package == PackageType::Pypi {
        base_url.join("simple/").unwrap()
    } else {
        base_url.clone()
    };
    Repository {
        name: RepositoryName::parse(package.as_str()).unwrap(),
        package,
        description: String::new(),
        kind: Kind::Remote(Box::new(UpstreamSettings {
            base_urls: vec![base_url],
            index_url,
            credentials: None,
            auth: UpstreamAuth::Basic,
            default_namespace: None,
            headers: Vec::new(),
            connect_timeout: Duration::from_secs(2),
            read_timeout: Duration::from_millis(1500),
            allow_private: Vec::new(),
            link_hosts: None,
            ca_file: None,
            proxy: None,
            offline: false,
            max_size: None,
            max_disk: None,
            limits: larder_core::RequestLimits::default(),
        })),
        access: AccessPolicy::default(),
        // The wait that is the default is seen by the tests of the program; here a busy machine may take longer.
        cache: CachePolicy {
            stale_wait: Duration::from_mins(1),
            ..CachePolicy::default()
        },
        quarantine: QuarantinePolicy::default(),
        authoritative: false,
        reserved: larder_core::ReservedNames::default(),
        rules_epoch: 1,
    }
}

/// The settings of a repository's upstream, to be changed.
pub(crate) fn upstream(repository: &mut Repository) -> &mut UpstreamSettings {
    repository.upstream_mut().unwrap()
}

async fn engine(
    path: &Path,
    repositories: &[Arc<Repository>],
    limits: Limits,
    clock: &Arc<ManualClock>,
    share: bool,
) -> (Arc<Engine>, Arc<dyn BlobStore>, MetadataStore) {
    let blobs: Arc<dyn BlobStore> = Arc::new(FsBlobStore::open(path).unwrap());
    let metadata = MetadataStore::open(&path.join("larder.sqlite"))
        .await
        .unwrap();
    if share {
        metadata.share();
    }
    let engine = over(
        Arc::clone(&blobs),
        metadata.clone(),
        repositories,
        limits,
        clock,
    );
    (engine, blobs, metadata)
}

/// An engine over these stores.
fn over(
    blobs: Arc<dyn BlobStore>,
    metadata: MetadataStore,
    repositories: &[Arc<Repository>],
    limits: Limits,
    clock: &Arc<ManualClock>,
) -> Arc<Engine> {
    // The breaker's pauses run on the same clock, so that a test decides when an origin is asked again.
    let options = Options {
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        ..Options::new("larder/test")
    };
    Engine::new(EngineParts {
        repositories: repositories.to_vec(),
        not_built: BTreeMap::new(),
        blobs,
        metadata,
        upstream: Arc::new(HttpUpstream::new(options)),
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        link_key: LinkKey::from_bytes([7; 32]),
        public_urls: PublicUrls::default(),
        limits,
        budgets: Arc::default(),
    })
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// An engine with one repository of each built type, named after it, after `change` has had its way with each.
    pub(crate) async fn with(change: impl Fn(&mut Repository)) -> Self {
        Self::limited(Limits::default(), change).await
    }

    /// As [`with`](Self::with), with other bounds.
    pub(crate) async fn limited(limits: Limits, change: impl Fn(&mut Repository)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        let bench = Self::in_directory(&path, limits, change).await;
        Self {
            _directory: Some(directory),
            ..bench
        }
    }

    /// As [`with`](Self::with), with its data in a directory of the caller's.
    pub(crate) async fn in_directory(
        path: &Path,
        limits: Limits,
        change: impl Fn(&mut Repository),
    ) -> Self {
        Self::sharing(path, limits, false, change).await
    }

    /// The same; `share`: with other programs that may use the directory.
    pub(crate) async fn sharing(
        path: &Path,
        limits: Limits,
        share: bool,
        change: impl Fn(&mut Repository),
    ) -> Self {
        let origin = Origin::start().await;
        let base = origin.url("/");
        let make = |package| {
            let mut repository = repository(package, &base);
            change(&mut repository);
            Arc::new(repository)
        };
        let packages = [
            PackageType::Generic,
            PackageType::Pypi,
            PackageType::Npm,
            PackageType::Helm,
            PackageType::Alpine,
            PackageType::Rpm,
            PackageType::Docker,
        ];
        let repositories: Vec<_> = packages.into_iter().map(make).collect();
        let clock = Arc::new(ManualClock::new(START));
        let (engine, blobs, metadata) = engine(path, &repositories, limits, &clock, share).await;
        Self {
            engine,
            origin,
            clock,
            blobs,
            metadata,
            repositories,
            limits,
            path: path.to_owned(),
            _directory: None,
        }
    }

    /// Takes a blob store of the caller's into use, before anything has been stored.
    pub(crate) fn keep_in(&mut self, blobs: Arc<dyn BlobStore>) {
        self.engine = over(
            Arc::clone(&blobs),
            self.metadata.clone(),
            &self.repositories,
            self.limits,
            &self.clock,
        );
        self.blobs = blobs;
    }

    /// A second engine over the same data. `own_store`: as another program would, with a database connection and a blob store of its
    /// own over the same files; else on the first one's.
    pub(crate) async fn second(&self, own_store: bool) -> Arc<Engine> {
        let (blobs, metadata) = if own_store {
            let metadata = MetadataStore::open(&self.path.join("larder.sqlite"))
                .await
                .unwrap();
            metadata.share();
            let blobs: Arc<dyn BlobStore> = Arc::new(FsBlobStore::open(&self.path).unwrap());
            (blobs, metadata)
        } else {
            (Arc::clone(&self.blobs), self.metadata.clone())
        };
        over(
            blobs,
            metadata,
            &self.repositories,
            self.limits,
            &self.clock,
        )
    }

    /// An engine over another database.
    pub(crate) fn over(&self, metadata: MetadataStore) -> Arc<Engine> {
        let blobs = Arc::clone(&self.blobs);
        over(
            blobs,
            metadata,
            &self.repositories,
            self.limits,
            &self.clock,
        )
    }

    /// A new process over the same data: nothing in memory survives.
    pub(crate) async fn restart(&mut self) {
        self.settled().await;
        self.engine.drain(Duration::from_secs(5)).await;
        self.metadata.close().await;
        (self.engine, self.blobs, self.metadata) = engine(
            &self.path,
            &self.repositories,
            self.limits,
            &self.clock,
            false,
        )
        .await;
    }

    /// Takes repositories into use that `change` has had its way with, as a reload does.
    pub(crate) fn reload(&mut self, change: impl Fn(&mut Repository)) {
        let changed = |old: &Arc<Repository>| {
            let mut repository = Repository::clone(old);
            change(&mut repository);
            Arc::new(repository)
        };
        self.repositories = self.repositories.iter().map(changed).collect();
        self.engine.replace_repositories(
            self.repositories.clone(),
            &BTreeMap::new(),
            PublicUrls::default(),
        );
    }

    pub(crate) async fn ask(
        &self,
        method: Method,
        repository: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Got, Fault> {
        ask(&self.engine, method, repository, path, headers).await
    }

    pub(crate) async fn get(&self, repository: &str, path: &str) -> Result<Got, Fault> {
        self.ask(Method::GET, repository, path, &[]).await
    }

    /// A GET that may be changed before it is run.
    pub(crate) fn client(&self, repository: &str, target: &str) -> Client {
        Client::new(&self.engine, repository, target)
    }

    pub(crate) fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    pub(crate) async fn flush(&self) -> FlushReport {
        self.engine.flush(FlushRequest::default()).await.unwrap()
    }

    /// Flushes one repository and forgets what was asked of the origin.
    pub(crate) async fn forget(&self, repository: &str) {
        let request = FlushRequest {
            remote: Some(repository.to_owned()),
            ..FlushRequest::default()
        };
        self.engine.flush(request).await.unwrap();
        self.origin.reset_log();
    }

    /// What is remembered of a file or document; `variant` is empty for most.
    pub(crate) async fn record(
        &self,
        repository: &str,
        path: &str,
        variant: &str,
    ) -> Option<ArtifactRecord> {
        let repository = RepositoryName::parse(repository).unwrap();
        let key = SourceKey {
            repository,
            path: path.into(),
            variant: variant.to_owned().into(),
        };
        self.metadata.record(&key).await.unwrap()
    }

    /// Waits until what was downloaded is durable and no flight is left.
    pub(crate) async fn settled(&self) {
        self.settled_within(Duration::from_secs(20)).await;
    }

    pub(crate) async fn settled_within(&self, patience: Duration) {
        let began = std::time::Instant::now();
        while self.engine.flights_active() > 0 {
            assert!(began.elapsed() < patience, "flights do not end");
            look_again().await;
        }
    }

    /// What a counter of a repository says.
    pub(crate) fn counter(&self, repository: &str, name: &str) -> u64 {
        let all = self.engine.repository_counters();
        let found = all.iter().find(|(of, _)| of.as_str() == repository);
        let counters = found.expect("such a repository").1.snapshot();
        let found = counters.iter().find(|(of, _)| *of == name);
        found.expect("such a counter").1
    }

    /// Waits until so many bytes of bodies have come from a repository's upstream.
    pub(crate) async fn until_come(&self, repository: &str, bytes: u64) {
        eventually("the bytes have come", async || {
            self.counter(repository, "upstream_bytes") >= bytes
        })
        .await;
    }

    /// Waits until so many GETs to a repository wait for what they ask for, or have it.
    pub(crate) async fn until_asked(&self, repository: &str, times: u64) {
        eventually("all have asked", async || {
            let found = ["hits", "misses", "collapsed"].map(|name| self.counter(repository, name));
            found.into_iter().sum::<u64>() >= times
        })
        .await;
    }

    /// Lets requests that have just been begun come as far as they can: each looks into the database once or twice, whose reads are
    /// queued, so that those of later ones end later. For tests on one thread.
    pub(crate) async fn let_others_go(&self) {
        for _ in 0..20 {
            self.record("generic", "of no use", "").await;
            pass(Duration::from_millis(1)).await;
        }
    }

    /// The files of this size below the data directory.
    pub(crate) fn files_of_size(&self, size: u64) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![self.path.clone()];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                let metadata = entry.metadata().unwrap();
                if metadata.is_dir() {
                    open.push(entry.path());
                } else if metadata.len() == size {
                    found.push(entry.path());
                }
            }
        }
        found
    }
}

/// Lets so much of tokio's time pass at once, and what became due do its work. What is not tokio's (disk, database) keeps its own pace,
/// so time stands still only for this moment. For tests on one thread.
pub(crate) async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
    tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(1)))
        .await
        .unwrap();
}

/// Lets so much of tokio's time pass in small steps, of each of which what becomes due does its work. For tests on one thread.
pub(crate) async fn some_time(time: Duration) {
    let mut passed = Duration::ZERO;
    while passed < time {
        pass(STEP).await;
        passed += STEP;
    }
}

/// Carries `work` out while tokio's time passes in small steps. For tests on one thread.
pub(crate) async fn while_time_passes<F: Future>(work: F) -> F::Output {
    let mut work = Box::pin(work);
    // Not in a race with the steps: one that is broken off would leave time standing still.
    loop {
        if let Poll::Ready(done) = futures_util::poll!(&mut work) {
            return done;
        }
        pass(STEP).await;
    }
}

/// Waits until something is so of which no event tells.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = std::time::Instant::now();
    while !is_so().await {
        let waited = began.elapsed();
        assert!(
            waited < Duration::from_secs(20),
            "it does not come to this: {what}"
        );
        look_again().await;
    }
}

/// A moment of real time: what is waited for is done by threads (of the database, of blocking work) that know nothing of tokio's.
async fn look_again() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}

/// A time before [`START`], as an HTTP date.
pub(crate) fn days_ago(days: i64) -> String {
    UnixMillis(START.0 - days * 86_400_000).to_http_date()
}
