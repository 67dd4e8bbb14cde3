//! A server on loopback in front of a scripted pipeline, and a client that writes raw bytes.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use larder_core::{
    AccessPolicy, CachePolicy, CacheStatus, ErrorCode, Fault, FaultKind, ForwardReason, Kind,
    LocalSettings, PackageType, Principal, Pseudonym, QuarantinePolicy, Repository, RepositoryKind,
    RepositoryName, Source, UnixMillis, UpstreamSettings, VirtualSettings,
};
use larder_engine::{
    Answer as Reply, ArtifactRequest, BackendHealth, Body, FlushReport, FlushRequest, Freshness,
    Health, RecentErrors, Representation, TrafficSource, scripted,
};
use larder_formats::ErrorBody;
use larder_server::{
    Backend, BoundServer, CounterSnapshot, LiveSettings, ServerHandle, ServerLimits,
    ServerSettings, bind,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// What the scripted pipeline answers to a path.
#[derive(Clone)]
pub(crate) enum Script {
    /// In memory.
    Bytes(Bytes, Spec),
    /// In a file.
    File(Arc<File>, u64, Spec),
    /// Fetched from elsewhere while it is sent.
    Fetched(Bytes, Spec),
    /// These frames, `None` for an error; with a declared length or without.
    Frames(Vec<Option<Bytes>>, Option<u64>),
    /// Passed through.
    Through(Bytes),
    /// Redirected.
    Redirect(&'static str),
    /// Refused.
    Refuse(Fault),
    /// The answer never comes.
    Hang,
    /// Larder itself is at fault.
    Defect,
}

/// What a scripted answer says of itself.
#[derive(Clone, Default)]
pub(crate) struct Spec {
    pub(crate) representation: Representation,
    pub(crate) remaining: Option<Duration>,
    pub(crate) age: Duration,
    pub(crate) hot: bool,
    /// Not everybody may read it.
    pub(crate) not_for_anyone: bool,
}

/// What the pipeline was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) repository: String,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) base: String,
    pub(crate) prefix: String,
    pub(crate) principal: Principal,
    pub(crate) body: Bytes,
}

#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) scripts: Mutex<HashMap<String, Script>>,
    pub(crate) asked: Mutex<Vec<Asked>>,
    pub(crate) flushed: Mutex<Vec<FlushRequest>>,
    pub(crate) now: AtomicI64,
    pub(crate) epoch: Arc<AtomicU64>,
    pub(crate) unhealthy: AtomicBool,
    pub(crate) health_questions: AtomicUsize,
    pub(crate) errors: Arc<RecentErrors>,
    pub(crate) traffic: Mutex<Option<Arc<dyn TrafficSource>>>,
}

#[derive(Clone)]
pub(crate) struct FakeBackend(pub(crate) Arc<Fake>);

pub(crate) const REPOSITORIES: [(&str, RepositoryKind, PackageType); 5] = [
    ("files", RepositoryKind::Remote, PackageType::Generic),
    ("hub", RepositoryKind::Remote, PackageType::Docker),
    ("npm", RepositoryKind::Remote, PackageType::Npm),
    ("uploads", RepositoryKind::Local, PackageType::Generic),
    ("all", RepositoryKind::Virtual, PackageType::Helm),
];

fn repository(name: &str) -> Option<Arc<Repository>> {
    let (name, kind, package) = REPOSITORIES
        .into_iter()
        .find(|(known, ..)| *known == name)?;
    Some(Arc::new(Repository {
        name: RepositoryName::parse(name).unwrap(),
        kind: match kind {
            RepositoryKind::Local => Kind::Local(LocalSettings::default()),
            RepositoryKind::Virtual => Kind::Virtual(VirtualSettings::default()),
            RepositoryKind::Remote => {
                let base = url::Url::parse("https://upstream.example/").unwrap();
                Kind::Remote(Box::new(UpstreamSettings::new(base)))
            }
        },
        package,
        description: format!("about {name}"),
        access: AccessPolicy::default(),
        cache: CachePolicy::default(),
        quarantine: QuarantinePolicy::default(),
        authoritative: false,
        reserved: larder_core::ReservedNames::default(),
        rules_epoch: 0,
    }))
}

impl Backend for FakeBackend {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.now.load(Ordering::SeqCst))
    }

    fn repository(&self, name: &str) -> Option<Arc<Repository>> {
        repository(name)
    }

    fn repositories(&self) -> Vec<Arc<Repository>> {
        REPOSITORIES
            .iter()
            .filter_map(|(name, ..)| repository(name))
            .collect()
    }

    fn not_built(&self, name: &str) -> Option<String> {
        let what = "virtual repositories of this type are not built in this version of larder";
        (name == "all").then(|| what.to_owned())
    }

    fn body_limit(&self, request: &ArtifactRequest<'_>) -> Result<Option<u64>, Fault> {
        match repository(request.repository) {
            None => Err(Fault::new(
                FaultKind::NotFound,
                ErrorCode::UnknownRepository,
                "no such repository",
            )),
            Some(npm) if npm.package == PackageType::Npm => Ok(Some(1 << 30)),
            Some(_) => Ok(None),
        }
    }

    async fn read(&self, request: ArtifactRequest<'_>) -> Result<Reply, Fault> {
        self.0.asked.lock().unwrap().push(Asked {
            repository: request.repository.to_owned(),
            path: request.raw_path.to_owned(),
            query: request.query.map(str::to_owned),
            base: request.mount.base.to_owned(),
            prefix: request.mount.prefix.to_string(),
            principal: request.principal,
            // A copy: what is kept of the body itself keeps its room in the server's budget.
            body: Bytes::copy_from_slice(&request.body),
        });
        if repository(request.repository).is_none() {
            return Err(Fault::new(
                FaultKind::NotFound,
                ErrorCode::UnknownRepository,
                "no such repository",
            ));
        }
        let script = self
            .0
            .scripts
            .lock()
            .unwrap()
            .get(request.raw_path)
            .cloned();
        match script {
            Some(Script::Hang) => std::future::pending().await,
            Some(script) => self.reply(script),
            None => Err(Fault::new(
                FaultKind::NotFound,
                ErrorCode::NotFound,
                "no script for this path",
            )),
        }
    }

    async fn flush(&self, request: FlushRequest) -> Result<FlushReport, Fault> {
        self.0.epoch.fetch_add(1, Ordering::SeqCst);
        self.0.flushed.lock().unwrap().push(request);
        Ok(FlushReport {
            index: 2,
            files: 3,
            metrics: true,
        })
    }

    async fn health(&self) -> Health {
        self.0.health_questions.fetch_add(1, Ordering::SeqCst);
        let ok = !self.0.unhealthy.load(Ordering::SeqCst);
        Health {
            metadata: BackendHealth {
                kind: "sqlite",
                ok,
                detail: (!ok).then(|| "locked".to_owned()),
            },
            blobs: BackendHealth {
                kind: "filesystem",
                ok: true,
                detail: None,
            },
            disk: None,
        }
    }

    fn observed_by(&self, source: Arc<dyn TrafficSource>) -> Option<Arc<RecentErrors>> {
        *self.0.traffic.lock().unwrap() = Some(source);
        Some(Arc::clone(&self.0.errors))
    }

    fn counters(&self) -> CounterSnapshot {
        CounterSnapshot {
            repositories: vec![("files".to_owned(), vec![("misses", 5)])],
            ..CounterSnapshot::default()
        }
    }

    fn error_body(&self, fault: &Fault, package: Option<PackageType>) -> ErrorBody {
        let body = match package {
            Some(PackageType::Docker) => {
                serde_json::json!({"errors": [{"code": fault.code, "message": fault.message}]})
            }
            _ => {
                serde_json::json!({"error": fault.message, "code": fault.code, "repository": fault.repository, "rule": fault.rule})
            }
        };
        ErrorBody {
            content_type: "application/json",
            body: body.to_string().into_bytes(),
        }
    }
}

impl FakeBackend {
    fn reply(&self, script: Script) -> Result<Reply, Fault> {
        let plain = |body, representation| Reply {
            status: StatusCode::OK,
            representation,
            body: scripted::cleared(body),
            cache_status: CacheStatus {
                forward: Some(ForwardReason::UriMiss),
                stored: true,
                ..CacheStatus::default()
            },
            source: Source::Remote,
            freshness: Freshness {
                contacted_at: Backend::now(self),
                remaining: None,
                no_store: false,
            },
            location: None,
            reading: None,
            hot: None,
        };
        Ok(match script {
            Script::Bytes(bytes, spec) => self.held(Body::Memory(bytes), spec),
            Script::File(file, length, spec) => self.held(Body::file(file, length), spec),
            Script::Fetched(bytes, spec) => self.held(scripted::fetched(bytes, PAUSE), spec),
            Script::Frames(frames, length) => {
                let representation = Representation {
                    length,
                    ..Representation::default()
                };
                plain(scripted::flight(frames, length, PAUSE), representation)
            }
            Script::Through(bytes) => Reply {
                freshness: Freshness {
                    contacted_at: Backend::now(self),
                    remaining: Some(Duration::ZERO),
                    no_store: true,
                },
                cache_status: CacheStatus {
                    forward: Some(ForwardReason::Bypass),
                    ..CacheStatus::default()
                },
                ..plain(
                    scripted::pass_through(
                        RepositoryName::parse("npm").unwrap(),
                        "https://upstream.example/".parse().unwrap(),
                        bytes,
                    ),
                    Representation::default(),
                )
            },
            Script::Redirect(to) => Reply {
                status: StatusCode::MOVED_PERMANENTLY,
                location: Some(to.to_owned()),
                ..plain(
                    Body::Empty,
                    Representation {
                        length: Some(0),
                        ..Representation::default()
                    },
                )
            },
            Script::Refuse(fault) => return Err(fault),
            Script::Hang | Script::Defect => unreachable!("as scripted"),
        })
    }

    fn held(&self, body: Body, spec: Spec) -> Reply {
        let now = self.0.now.load(Ordering::SeqCst);
        let fresh_until = spec
            .remaining
            .map(|remaining| UnixMillis(now).plus(remaining));
        let contacted_at = UnixMillis(now - i64::try_from(spec.age.as_millis()).unwrap());
        let ttl = spec
            .remaining
            .map(|remaining| i64::try_from(remaining.as_secs()).unwrap());
        Reply {
            status: StatusCode::OK,
            representation: spec.representation,
            body: scripted::cleared(body),
            cache_status: CacheStatus {
                hit: true,
                ttl,
                ..CacheStatus::default()
            },
            source: Source::Cache,
            freshness: Freshness {
                contacted_at,
                remaining: spec.remaining,
                no_store: false,
            },
            location: None,
            reading: None,
            hot: spec.hot.then(|| {
                let mut ticket = scripted::ticket(&self.0.epoch, fresh_until, contacted_at);
                ticket.for_anyone = !spec.not_for_anyone;
                ticket
            }),
        }
    }
}

/// Before each frame, as the network would make it.
const PAUSE: Duration = Duration::from_millis(2);

/// A running server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) fake: Arc<Fake>,
    pub(crate) handle: ServerHandle,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

pub(crate) fn settings() -> ServerSettings {
    ServerSettings {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        tls: None,
        hot_set_bytes: 8 << 20,
        hot_files: 512,
        limits: ServerLimits::default(),
        version: "0.0.0-test",
        pseudonym: Pseudonym::random(),
        budgets: Arc::default(),
        live: LiveSettings {
            config_view: serde_json::json!({"remotes": {}}),
            config_lines: Arc::default(),
            ..LiveSettings::default()
        },
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(settings()).await
    }

    pub(crate) async fn with(settings: ServerSettings) -> Self {
        let bound: BoundServer = bind(settings).await.unwrap();
        let (address, handle) = (bound.local_addrs()[0], bound.handle());
        let fake = Arc::new(Fake::default());
        fake.now.store(1_700_000_000_000, Ordering::SeqCst);
        let (stop, stopped) = oneshot::channel();
        let backend = FakeBackend(Arc::clone(&fake));
        let task = tokio::spawn(bound.run(backend, async move { drop(stopped.await) }));
        Self {
            address,
            fake,
            handle,
            stop: Some(stop),
            task,
        }
    }

    pub(crate) fn script(&self, path: &str, script: Script) {
        self.fake
            .scripts
            .lock()
            .unwrap()
            .insert(path.to_owned(), script);
    }

    pub(crate) fn questions(&self) -> usize {
        self.fake.asked.lock().unwrap().len()
    }

    pub(crate) fn begin_stop(&mut self) {
        drop(self.stop.take());
    }

    pub(crate) async fn stopped(self) {
        self.task.await.unwrap();
    }

    pub(crate) async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }

    /// One request on a connection of its own, `Host` included.
    pub(crate) async fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        let mut client = self.connect().await;
        client.ask(method, target, headers).await
    }

    /// Raw bytes on a connection of their own; the server must close it.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Answer {
        let mut client = self.connect().await;
        client.0.write_all(bytes).await.unwrap();
        let answer = client.answer(false).await;
        client.expect_close().await;
        answer
    }
}

pub(crate) struct Client(pub(crate) TcpStream);

/// A parsed response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The reason phrase.
    pub(crate) reason: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether the body ended as its framing says.
    pub(crate) complete: bool,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self
            .headers
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} twice in {self:?}");
        value
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Client {
    pub(crate) async fn ask(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut text = format!("{method} {target} HTTP/1.1\r\n");
        if !headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            text.push_str("Host: localhost\r\n");
        }
        for (name, value) in headers {
            write!(text, "{name}: {value}\r\n").unwrap();
        }
        text.push_str("\r\n");
        self.0.write_all(text.as_bytes()).await.unwrap();
        self.answer(method == "HEAD").await
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// Reads one response.
    pub(crate) async fn answer(&mut self, head_only: bool) -> Answer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            let read = tokio::time::timeout(Duration::from_secs(20), self.0.read(&mut byte))
                .await
                .expect("no answer")
                .unwrap();
            assert!(
                read == 1,
                "closed within the head: {:?}",
                String::from_utf8_lossy(&head)
            );
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let mut status_line = lines.next().unwrap().splitn(3, ' ').skip(1);
        let status: u16 = status_line.next().unwrap().parse().unwrap();
        let reason = status_line.next().unwrap_or_default().to_owned();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut answer = Answer {
            status,
            reason,
            headers,
            body: Vec::new(),
            complete: true,
        };
        if head_only || status == 304 || status == 204 {
            return answer;
        }
        match answer
            .header("content-length")
            .map(|length| length.parse::<usize>().unwrap())
        {
            Some(length) => {
                let mut body = vec![0; length];
                let mut filled = 0;
                while filled < length {
                    match self.0.read(&mut body[filled..]).await {
                        Ok(read) if read > 0 => filled += read,
                        _ => break,
                    }
                }
                answer.complete = filled == length;
                body.truncate(filled);
                answer.body = body;
            }
            None if answer.header("transfer-encoding") == Some("chunked") => {
                (answer.body, answer.complete) = self.chunks().await;
            }
            None => {
                answer.complete = self.0.read_to_end(&mut answer.body).await.is_ok();
            }
        }
        answer
    }

    async fn chunks(&mut self) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                let mut byte = [0];
                if !matches!(self.0.read(&mut byte).await, Ok(1)) {
                    return (body, false);
                }
                line.push(byte[0]);
            }
            let length =
                usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
            let mut chunk = vec![0; length + 2];
            if self.0.read_exact(&mut chunk).await.is_err() {
                return (body, false);
            }
            if length == 0 {
                return (body, true);
            }
            body.extend_from_slice(&chunk[..length]);
        }
    }

    /// Nothing more comes, and the connection is closed soon.
    pub(crate) async fn expect_close(&mut self) {
        let mut rest = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(5), self.0.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "the connection is still open");
        assert!(
            rest.is_empty(),
            "unexpected: {:?}",
            String::from_utf8_lossy(&rest)
        );
    }
}

/// Bytes in which every position can be told from its neighbours.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

/// A file with a name, as a store's files have: one without is taken for deleted.
pub(crate) fn file_of(bytes: &[u8]) -> Arc<File> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(folder).unwrap();
    // The next run takes the same names.
    let path = folder.join(format!("http-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
    let _ = std::fs::remove_file(&path);
    let mut options = File::options();
    options.read(true).write(true).create_new(true);
    let mut file = options.open(path).unwrap();
    file.write_all(bytes).unwrap();
    Arc::new(file)
}

pub(crate) fn etag(tag: &str) -> Representation {
    Representation {
        etag: Some(format!("\"{tag}\"")),
        ..Representation::default()
    }
}
