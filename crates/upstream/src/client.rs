//! HTTP clients: one per way of connecting, built when first needed and kept. Knows TLS roots, proxies and connection pools; does not
//! know requests.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use larder_budget::Budgets;
use larder_core::{SafeUrl, UpstreamSettings};
use reqwest::{Client, Proxy, redirect, retry};
use tokio::sync::OnceCell;
use url::Url;

use crate::address::Reach;
use crate::connect_watch::WatchLayer;
use crate::lookups::Lookups;
use crate::resolver::{CheckedResolver, NameLookup};
use crate::retry::RetryBudget;
use crate::trust::Authorities;

/// Idle connections are dropped after this; common servers keep them for 60 to 75 s.
const POOL_IDLE: Duration = Duration::from_secs(50);
const POOL_PER_HOST: usize = 32;
/// How much of `timeouts.connect` a name may take: so that what is said in the end is that it was the name.
const NAME_SHARE: f64 = 0.9;
/// Most fields of an answer's head, as curl takes them; the HTTP library's own limit of 100 refuses answers of real servers.
const MOST_FIELDS: usize = 5_000;
/// Longest head over HTTP/2, in bytes: as long as the HTTP library takes it over HTTP/1, where its default is 16 KiB.
const LONGEST_HEAD: u32 = 400 << 10;

/// Everything that makes two clients differ.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct ClientKey {
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) proxy: Option<Url>,
    pub(crate) connect_timeout: Duration,
    pub(crate) reach: Reach,
    /// Whether connections are kept and used again. The one retry after a stale connection goes to a client that keeps none.
    pub(crate) keep_alive: bool,
}

impl ClientKey {
    /// For requests to `url`, which decides on the proxy.
    pub(crate) fn new(settings: &UpstreamSettings, url: &Url, reach: Reach) -> Self {
        Self {
            ca_file: settings.ca_file.clone(),
            proxy: settings.proxy_for(url).cloned(),
            connect_timeout: settings.connect_timeout,
            reach,
            keep_alive: true,
        }
    }

    /// The same way of connecting, without kept connections.
    pub(crate) fn without_keep_alive(&self) -> Self {
        Self {
            keep_alive: false,
            ..self.clone()
        }
    }
}

impl fmt::Debug for ClientKey {
    /// Proxy URLs may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientKey")
            .field("ca_file", &self.ca_file)
            .field("proxy", &self.proxy.clone().map(SafeUrl))
            .field("connect_timeout", &self.connect_timeout)
            .field("reach", &self.reach)
            .field("keep_alive", &self.keep_alive)
            .finish()
    }
}

/// A client and the retry budget of its requests.
#[derive(Clone)]
pub(crate) struct PooledClient {
    pub(crate) client: Client,
    pub(crate) budget: Arc<RetryBudget>,
}

/// Why a client cannot be built: a fault in the configuration or the machine's certificate store.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("ca_file {} cannot be read: {cause}", path.display())]
    Unreadable {
        path: PathBuf,
        cause: std::io::ErrorKind,
    },
    #[error("ca_file {} holds no PEM certificate, or one that cannot be read", .0.display())]
    NoCertificate(PathBuf),
    #[error("proxy: {0} is not a proxy URL (http, https, socks4, socks4a, socks5 or socks5h)")]
    Proxy(SafeUrl),
    #[error("TLS cannot be set up; are root certificates installed on this machine?")]
    Tls,
}

/// All clients built so far.
pub(crate) struct Clients {
    user_agent: String,
    lookups: Arc<Lookups>,
    built: Mutex<HashMap<ClientKey, Arc<OnceCell<PooledClient>>>>,
}

impl Clients {
    pub(crate) fn new(
        user_agent: String,
        lookup: Arc<dyn NameLookup>,
        budgets: Arc<Budgets>,
    ) -> Self {
        Self {
            user_agent,
            lookups: Lookups::new(lookup, budgets),
            built: Mutex::default(),
        }
    }

    /// The client for `key`. Many may ask at once; one builds.
    pub(crate) async fn get(&self, key: &ClientKey) -> Result<PooledClient, ClientError> {
        let cell = {
            let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
            match built.get(key) {
                Some(cell) => Arc::clone(cell),
                None => Arc::clone(built.entry(key.clone()).or_default()),
            }
        };
        cell.get_or_try_init(|| self.build(key)).await.cloned()
    }

    /// Forgets the clients with a `ca_file`, whose content may have changed. Transfers under way go on.
    pub(crate) fn forget_certificates(&self) {
        self.built
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|key, _| key.ca_file.is_none());
    }

    async fn build(&self, key: &ClientKey) -> Result<PooledClient, ClientError> {
        let resolver = CheckedResolver {
            lookups: Arc::clone(&self.lookups),
            reach: key.reach.clone(),
            wait: key.connect_timeout.mul_f64(NAME_SHARE),
            proxy_host: key
                .proxy
                .as_ref()
                .and_then(|proxy| proxy.host_str().map(str::to_owned)),
        };
        let mut builder = Client::builder()
            .user_agent(&self.user_agent)
            .no_proxy()
            .referer(false)
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .connect_timeout(key.connect_timeout)
            .connector_layer(WatchLayer)
            .dns_resolver(resolver)
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(if key.keep_alive { POOL_PER_HOST } else { 0 })
            .http1_max_headers(MOST_FIELDS)
            .http2_max_header_list_size(LONGEST_HEAD)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .http2_keep_alive_timeout(Duration::from_secs(10));
        let authorities = match &key.ca_file {
            Some(path) => Some(Authorities::read(path).await?),
            None => None,
        };
        if let Some(url) = &key.proxy {
            builder = builder.proxy(
                Proxy::all(url.clone()).map_err(|_| ClientError::Proxy(SafeUrl(url.clone())))?,
            );
        }
        // Reading the machine's root certificates takes tens of milliseconds.
        let build = move || {
            let builder = match authorities.map(Authorities::client_config).transpose() {
                Ok(Some(config)) => builder.tls_backend_preconfigured(config),
                Ok(None) => builder,
                Err(_) => return Err(ClientError::Tls),
            };
            builder.build().map_err(|_| ClientError::Tls)
        };
        let client = tokio::task::spawn_blocking(build)
            .await
            .map_err(|_| ClientError::Tls)??;
        Ok(PooledClient {
            client,
            budget: Arc::new(RetryBudget::new()),
        })
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients")
            .field("user_agent", &self.user_agent)
            .finish_non_exhaustive()
    }
}
