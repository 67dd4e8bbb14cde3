//! This process as one of several replicas: what they share, and the way to the others.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use larder::config::Settings;
use larder_core::{Clock as _, SystemClock, sha256};
use larder_engine::{CLUSTER_HEADER, ClusterParts, ClusterSecret, Engine, FlightRequest, Peers};
use larder_storage::{Chunks, MetadataStore, Notices, RedisShared, Shared};
use larder_upstream::PeerClient;

/// Redis is waited for no longer than this before larder serves without it.
const START: Duration = Duration::from_millis(500);

/// Joins the others, where there is something to share; what is given has to be kept as long as larder serves.
///
/// # Errors
/// The TLS library cannot be used, or the database does not answer.
pub(crate) async fn join(
    settings: &Settings,
    engine: &Engine,
    metadata: &MetadataStore,
    version: &'static str,
) -> Result<Option<Notices>, Box<dyn std::error::Error>> {
    let cluster = &settings.cluster;
    let Some(address) = &cluster.redis else {
        return Ok(None);
    };
    let redis = RedisShared::connect(address.clone(), &name_of_cluster(metadata).await?);
    if !redis.until_connected(START).await {
        tracing::warn!(redis = %address, "Redis does not answer yet: larder serves without it, and uses it once it does");
    }
    let shared: Arc<dyn Shared> = Arc::new(redis);
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
    engine.configured_as(&digest(settings));
    Ok(Some(Notices::between(metadata, &shared)))
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
    let mut candidate = [0_u8; 16];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut candidate)?;
    let stored = metadata.secret_bytes("cluster", &candidate).await?;
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
    ) -> BoxFuture<'a, Result<Chunks, String>> {
        async move {
            let target = request.target();
            let signature = self.secret.sign(&target, SystemClock.now());
            let url = format!("{}://{address}{target}", self.scheme);
            self.client.get(&url, (CLUSTER_HEADER, &signature)).await
        }
        .boxed()
    }
}
