//! Replicas of the program, and all that they share: a PostgreSQL, a Redis, a store that speaks S3, and an upstream.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use larder_testkit::Origin;
use larder_testkit::servers::postgres::{Disk, PASSWORD, Postgres, USER};
use larder_testkit::servers::{RedisServer, S3Server, free_port};

use super::support::client::client;
use super::support::{Answer, PATIENCE, Setup, TestLarder, get};

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;

/// What replicas share.
#[derive(Debug)]
pub(crate) struct Backends {
    pub(crate) origin: Origin,
    pub(crate) redis: RedisServer,
    pub(crate) postgres: Postgres,
    pub(crate) objects: S3Server,
    /// The database of this cluster.
    pub(crate) database: String,
}

impl Backends {
    /// Starts all of them, empty.
    pub(crate) async fn start() -> Self {
        let postgres = Postgres::start(Disk::Fast);
        Self {
            origin: Origin::start().await,
            redis: RedisServer::start(),
            objects: S3Server::start().await,
            database: postgres.database(),
            postgres,
        }
    }

    /// A remote repository `files`, whose documents end in `json` and are fresh for a second, and a local one, `own`.
    pub(crate) fn config(&self) -> String {
        format!(
            "drain: 1\nremotes:\n  files: {{ package: generic, base_url: '{}', immutable_patterns: ['bin$'], mutable_patterns: ['json$'], \
             cache: {{ mutable_ttl: 1 }} }}\n  own: {{ package: generic, type: local }}\n",
            self.origin.url("")
        )
    }

    /// A replica that is to be started, with an address of its own.
    pub(crate) fn replica(&self) -> Setup {
        self.replica_with("")
    }

    /// One with more lines of configuration.
    pub(crate) fn replica_with(&self, lines: &str) -> Setup {
        self.replica_of(&format!("{lines}{}", self.config()))
    }

    /// One with further remotes.
    pub(crate) fn replica_and(&self, remotes: &str) -> Setup {
        self.replica_of(&format!("{}{remotes}", self.config()))
    }

    fn replica_of(&self, config: &str) -> Setup {
        let address = format!("127.0.0.1:{}", free_port());
        Setup::new(config)
            .env("DBHOST", "127.0.0.1")
            .env("DBPORT", &self.postgres.port().to_string())
            .env("DBUSER", USER)
            .env("DBPASS", PASSWORD)
            .env("DBNAME", &self.database)
            .env("REDIS_URL", &self.redis.url())
            .env("MINIO_ENDPOINT", &self.objects.endpoint())
            .env("MINIO_SECURE", "false")
            .env("MINIO_BUCKET", S3Server::BUCKET)
            .env("MINIO_ACCESS_KEY", S3Server::ACCESS_KEY)
            .env("MINIO_SECRET_KEY", S3Server::SECRET_KEY)
            .env("LARDER_LISTEN", &address)
            .env("LARDER_ADVERTISE", &address)
            .env("LARDER_CLUSTER_SECRET", "what replicas share")
    }
}

/// Replicas that run, and what they share.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) replicas: Vec<TestLarder>,
    pub(crate) backends: Backends,
}

impl Cluster {
    /// So many replicas over backends of their own.
    pub(crate) async fn start(of: usize) -> Self {
        Self::start_with(of, "").await
    }

    /// With more lines of configuration.
    pub(crate) async fn start_with(of: usize, lines: &str) -> Self {
        Self::start_with_remotes(of, lines, |_| String::new()).await
    }

    /// The same with further remotes, perhaps over the same upstream.
    pub(crate) async fn start_with_remotes(
        of: usize,
        lines: &str,
        remotes: impl FnOnce(&Origin) -> String,
    ) -> Self {
        let backends = Backends::start().await;
        let remotes = remotes(&backends.origin);
        let replica = || backends.replica_of(&format!("{lines}\n{}{remotes}", backends.config()));
        // All at once: whoever comes first makes the tables.
        let replicas = join_all((0..of).map(|_| replica().start())).await;
        join_all(replicas.iter().map(until_ready)).await;
        Self { replicas, backends }
    }

    /// The URL of a path in a repository, at each replica.
    pub(crate) fn urls(&self, repository: &str, path: &str) -> Vec<String> {
        let url = |replica: &TestLarder| replica.artifact(repository, path);
        self.replicas.iter().map(url).collect()
    }
}

/// Uploads a body, and reads the whole answer.
pub(crate) async fn upload(
    client: &reqwest::Client,
    url: &str,
    body: bytes::Bytes,
) -> reqwest::Result<Answer> {
    let response = client.put(url).body(body).send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Answer {
        status,
        headers,
        body: response.bytes().await?.to_vec(),
    })
}

/// Uploads a body that must be answered.
pub(crate) async fn put(url: &str, body: &'static str) -> Answer {
    let answer = upload(&client(), url, bytes::Bytes::from_static(body.as_bytes())).await;
    answer.expect("an answer")
}

/// Waits until a balancer would send requests to it.
pub(crate) async fn until_ready(replica: &TestLarder) {
    let ready = replica.url("/ready");
    until(&ready, |answer| answer.status == 200, PATIENCE).await;
}

/// Waits until an answer is as it should be, and gives how long that took.
pub(crate) async fn until(url: &str, is_so: impl Fn(&Answer) -> bool, bound: Duration) -> Duration {
    let began = Instant::now();
    loop {
        let answer = get(url).await;
        if is_so(&answer) {
            return began.elapsed();
        }
        assert!(
            began.elapsed() < bound,
            "{url}: {} {}",
            answer.status,
            answer.text()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
