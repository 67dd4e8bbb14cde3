//! An engine over a scripted origin, without the HTTP server: real upstream client, real storage in a temporary directory.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue, Method};
use larder_core::*;
use larder_engine::*;
use larder_formats::LinkKey;
use larder_storage::{BlobStore, FsBlobStore, MetadataStore};
use larder_testkit::Origin;
use larder_upstream::{HttpUpstream, Options};
use url::Url;

pub struct Bench {
    pub engine: Arc<Engine>,
    pub origin: Origin,
    pub clock: Arc<ManualClock>,
    pub blobs: Arc<dyn BlobStore>,
    pub metadata: MetadataStore,
    _directory: tempfile::TempDir,
}

/// What came back.
#[derive(Debug)]
pub struct Got {
    pub answer: Head,
    pub body: Result<Bytes, String>,
}

#[derive(Debug)]
pub struct Head {
    pub status: u16,
    pub source: Source,
    pub cache_status: String,
    pub representation: Representation,
    pub location: Option<String>,
    pub hot: bool,
}

impl Got {
    pub fn bytes(&self) -> &Bytes {
        self.body.as_ref().expect("the body ended well")
    }
    pub fn text(&self) -> String {
        String::from_utf8(self.bytes().to_vec()).unwrap()
    }
}

pub const START: UnixMillis = UnixMillis(1_780_000_000_000);

pub fn repository(package: PackageType, base: &str) -> Repository {
    let base_url = Url::parse(base).unwrap();
    let index_url = if package == PackageType::Pypi { base_url.join("simple/").unwrap() } else { base_url.clone() };
    Repository {
        name: RepositoryName::parse(package.as_str()).unwrap(),
        kind: RepositoryKind::Remote,
        package,
        description: String::new(),
        upstream: Some(UpstreamSettings {
            base_urls: vec![base_url],
            index_url,
            credentials: None,
            headers: Vec::new(),
            connect_timeout: Duration::from_secs(2),
            read_timeout: Duration::from_millis(1500),
            allow_private: Vec::new(),
            link_hosts: None,
            ca_file: None,
            proxy: None,
            offline: false,
            max_size: None,
        }),
        access: AccessPolicy::default(),
        cache: CachePolicy::default(),
        quarantine: QuarantinePolicy::default(),
        members: Vec::new(),
        rules_epoch: 1,
    }
}

impl Bench {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// An engine with one repository of each built type, named after it, after `change` has had its way with each.
    pub async fn with(change: impl Fn(&mut Repository)) -> Self {
        let origin = Origin::start().await;
        let directory = tempfile::tempdir().unwrap();
        let blobs: Arc<dyn BlobStore> = Arc::new(FsBlobStore::open(directory.path()).unwrap());
        let metadata = MetadataStore::open(&directory.path().join("larder.sqlite")).await.unwrap();
        let clock = Arc::new(ManualClock::new(START));
        let base = origin.url("/");
        let make = |package| {
            let mut repository = repository(package, &base);
            change(&mut repository);
            Arc::new(repository)
        };
        let packages = [PackageType::Generic, PackageType::Pypi, PackageType::Npm, PackageType::Helm];
        let engine = Engine::new(EngineParts {
            repositories: packages.into_iter().map(make).collect(),
            not_built: BTreeMap::new(),
            blobs: Arc::clone(&blobs),
            metadata: metadata.clone(),
            upstream: Arc::new(HttpUpstream::new(Options::new("larder/test"))),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            link_key: LinkKey::from_bytes([7; 32]),
            public_url: None,
            limits: Limits::default(),
        });
        Self { engine, origin, clock, blobs, metadata, _directory: directory }
    }

    pub async fn ask(&self, method: Method, repository: &str, path: &str, headers: &[(&str, &str)]) -> Result<Got, Fault> {
        ask(&self.engine, method, repository, path, headers).await
    }

    pub async fn get(&self, repository: &str, path: &str) -> Result<Got, Fault> {
        self.ask(Method::GET, repository, path, &[]).await
    }

    pub fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Waits until what was downloaded is durable and no flight is left.
    pub async fn settled(&self) {
        for _ in 0..2000 {
            if self.engine.flights_active() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("flights do not end");
    }
}

pub async fn ask(engine: &Arc<Engine>, method: Method, repository: &str, target: &str, headers: &[(&str, &str)]) -> Result<Got, Fault> {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let request = ArtifactRequest {
        repository,
        raw_path: path,
        query,
        method: &method,
        headers: &map,
        client_base: "http://larder.test",
        body: Bytes::new(),
    };
    let answer = engine.read(request).await?;
    let head = Head {
        status: answer.status.as_u16(),
        source: answer.source,
        cache_status: answer.cache_status.to_string(),
        representation: answer.representation,
        location: answer.location,
        hot: answer.hot.is_some(),
    };
    Ok(Got { answer: head, body: read(answer.body.into_inner()).await })
}

pub async fn read(body: Body) -> Result<Bytes, String> {
    match body {
        Body::Empty => Ok(Bytes::new()),
        Body::Bytes(bytes) => Ok(bytes),
        Body::File { file, length } => {
            use std::os::unix::fs::FileExt as _;
            let mut bytes = vec![0; usize::try_from(length).unwrap()];
            file.read_exact_at(&mut bytes, 0).map_err(|error| error.to_string())?;
            Ok(bytes.into())
        }
        Body::InFlight(flight) => collect(flight.reader(None)).await,
        Body::Stream(stream) => collect(stream).await,
    }
}

pub async fn collect(mut stream: impl futures_core::Stream<Item = std::io::Result<Bytes>> + Unpin) -> Result<Bytes, String> {
    let mut all = Vec::new();
    while let Some(chunk) = stream.next().await {
        all.extend_from_slice(&chunk.map_err(|error| error.to_string())?);
    }
    Ok(all.into())
}
