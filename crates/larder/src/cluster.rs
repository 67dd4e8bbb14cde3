//! This process as one of several replicas: what they share, and the way to the others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::metadata::random;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use larder::config::Settings;
use larder_core::{Clock as _, SystemClock, sha256};
use larder_engine::{CLUSTER_HEADER, ClusterParts, ClusterSecret, Engine, FlightRequest, Peers};
use larder_storage::{
    Attempt, Chunks, Lease, MetadataStore, Notices, RedisAddress, RedisShared, Renewal, Shared,
    Told, Unshared,
};
use larder_upstream::{PeerClient, PeerError};
use rustix::process::{Signal, getpid, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Redis is waited for no longer than this before larder serves without it.
const START: Duration = Duration::from_millis(500);

/// Who does what one replica does for all, and how often it is asked for.
const CHORES: &str = "chores";
const CHORES_LIFE: Duration = Duration::from_secs(90);
const CHORES_TURN: Duration = Duration::from_secs(30);
/// Says that a configuration has been taken into use.
const RELOADS: &str = "reloads";
/// Between two reloads that others ask for there is at least this time.
const RELOADS_APART: Duration = Duration::from_secs(1);

/// This process among others, as long as it is there.
#[derive(Debug)]
pub(crate) struct Member {
    shared: Arc<dyn Shared>,
    /// The digest of the configuration in force.
    config: Arc<Mutex<String>>,
    /// Whether this replica does what one does for all.
    does_chores: Arc<AtomicBool>,
    _notices: Notices,
    tasks: [AbortHandle; 3],
}

impl Drop for Member {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Member {
    /// Whether this replica is the one that collects garbage, or cannot tell.
    pub(crate) fn does_chores(&self) -> bool {
        self.does_chores.load(Ordering::Relaxed)
    }

    /// Another configuration is in force: the other replicas read their own files again.
    pub(crate) fn reloaded(&self, settings: &Settings) {
        let digest = digest(settings);
        let before = std::mem::replace(&mut *lock(&self.config), digest.clone());
        if before != digest {
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move { shared.publish(RELOADS, digest.as_bytes()).await });
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Joins the others, where there is something to share.
///
/// # Errors
/// The TLS library cannot be used, or the database does not answer.
pub(crate) async fn join(
    settings: &Settings,
    engine: &Engine,
    metadata: &MetadataStore,
    version: &'static str,
) -> Result<Option<Arc<Member>>, Box<dyn std::error::Error>> {
    let cluster = &settings.cluster;
    let heartbeats = metadata.heartbeats();
    let shared: Arc<dyn Shared> = match &cluster.redis {
        Some(address) => Arc::new(redis(address, metadata).await?),
        // Over a server's database there may be others; nobody else has a file.
        None if heartbeats.is_some() => Arc::new(Unshared::new()),
        None => return Ok(None),
    };
    let peers = match &cluster.secret {
        Some(secret) => Some(Arc::new(Replicas {
            client: PeerClient::new(&format!("larder/{version}"))?,
            secret: ClusterSecret::new(secret.clone()),
            scheme: if settings.tls.is_some() {
                "https"
            } else {
                "http"
            },
        }) as Arc<dyn Peers>),
        None => None,
    };
    engine.join_cluster(ClusterParts {
        shared: Arc::clone(&shared),
        peers,
        advertise: cluster.advertise.clone(),
        secret: cluster.secret.clone().map(ClusterSecret::new),
        version,
    });
    let config = Arc::new(Mutex::new(digest(settings)));
    engine.configured_as(&lock(&config));
    let does_chores = Arc::new(AtomicBool::new(true));
    // From now on the signal is handled, whoever waits for it: it is sent before anybody does, perhaps.
    let _handled = signal(SignalKind::hangup())?;
    let read = heartbeats.and_then(|heartbeats| engine.meet_in_database(heartbeats));
    let tasks = [
        tokio::spawn(reload_with_others(Arc::clone(&shared), Arc::clone(&config))).abort_handle(),
        tokio::spawn(reload_with_those_read(read)).abort_handle(),
        tokio::spawn(take_turns(Arc::clone(&shared), Arc::clone(&does_chores))).abort_handle(),
    ];
    Ok(Some(Arc::new(Member {
        _notices: Notices::between(metadata, &shared),
        shared,
        config,
        does_chores,
        tasks,
    })))
}

/// Reads the configuration again when another replica has taken another one into use, as SIGHUP does.
async fn reload_with_others(shared: Arc<dyn Shared>, config: Arc<Mutex<String>>) {
    let mut reloads = shared.subscribe(RELOADS);
    loop {
        let Told::Message(digest) = reloads.next().await else {
            continue;
        };
        if digest == lock(&config).as_bytes() {
            continue;
        }
        reload().await;
    }
}

/// The same, by what is read of the others in the database.
async fn reload_with_those_read(read: Option<watch::Receiver<u64>>) {
    let Some(mut read) = read else { return };
    while read.changed().await.is_ok() {
        reload().await;
    }
}

async fn reload() {
    tracing::info!(
        "another replica has taken another configuration into use: this one reads its own again"
    );
    if let Err(error) = kill_process(getpid(), Signal::HUP) {
        tracing::warn!(%error, "the configuration is read again at the next change only");
    }
    tokio::time::sleep(RELOADS_APART).await;
}

/// Begins to connect to Redis.
async fn redis(
    address: &RedisAddress,
    metadata: &MetadataStore,
) -> Result<RedisShared, Box<dyn std::error::Error>> {
    let redis = RedisShared::connect(address.clone(), &name_of_cluster(metadata).await?);
    if !redis.until_connected(START).await {
        tracing::warn!(redis = %address, "Redis does not answer yet: larder serves without it, and uses it once it does");
    }
    Ok(redis)
}

/// Keeps the lease of what one does for all, or waits for it. Where it cannot be told who has it, everybody does it: it is right, and more
/// than is needed.
async fn take_turns(shared: Arc<dyn Shared>, does_chores: Arc<AtomicBool>) {
    let mut lease: Option<Lease> = None;
    loop {
        if let Some(held) = &lease
            && shared.renew(held, CHORES_LIFE).await == Renewal::Lost
        {
            lease = None;
        }
        let mut may = true;
        if lease.is_none() {
            match shared.lease(CHORES, "", CHORES_LIFE, None).await {
                Attempt::Taken(taken) => lease = Some(taken),
                Attempt::Held(_) => may = false,
                Attempt::Unknown => {}
            }
        }
        does_chores.store(may, Ordering::Relaxed);
        tokio::time::sleep(CHORES_TURN).await;
    }
}

/// What replicas compare: the configuration without what is each one's own.
pub(crate) fn digest(settings: &Settings) -> String {
    let mut shown = settings.config_view.clone();
    if let Some(keys) = shown.as_object_mut() {
        for own in ["advertise", "data_dir", "listen"] {
            keys.remove(own);
        }
    }
    let mut digest = sha256(shown.to_string().as_bytes()).to_hex();
    digest.truncate(16);
    digest
}

/// What tells this cluster from others that use the same Redis: who shares a database is one cluster. It says nothing of the secret that
/// it is made of.
async fn name_of_cluster(metadata: &MetadataStore) -> Result<String, Box<dyn std::error::Error>> {
    let stored = metadata.secret_bytes("cluster", &random()?).await?;
    let mut name = sha256(&stored).to_hex();
    name.truncate(16);
    Ok(name)
}

/// The other replicas, over HTTP.
#[derive(Debug)]
struct Replicas {
    client: PeerClient,
    secret: ClusterSecret,
    /// As this replica serves: all of them have one configuration.
    scheme: &'static str,
}

impl Peers for Replicas {
    fn follow<'a>(
        &'a self,
        address: &'a str,
        request: &'a FlightRequest,
    ) -> BoxFuture<'a, Result<Chunks, PeerError>> {
        async move {
            let target = request.target();
            let signature = self.secret.sign(&target, SystemClock.now());
            let url = format!("{}://{address}{target}", self.scheme);
            self.client.get(&url, (CLUSTER_HEADER, &signature)).await
        }
        .boxed()
    }
}
