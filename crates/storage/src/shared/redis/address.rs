//! Where Redis or Valkey is: one server, a set of sentinels that know which server it is, or a cluster.

use std::fmt;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, RedisResult, TlsCertificates, TlsMode,
};

use super::wire::Wire;

/// How long connecting to one server may take.
pub(super) const CONNECT: Duration = Duration::from_secs(1);
const NEGATIVE: &str = "names a database below 0";
/// Addresses that one URL may name.
const MOST_NODES: usize = 64;

/// Where the service is and who asks, out of `REDIS_URL`. `Debug` and `Display` show no credentials.
#[derive(Clone)]
pub struct RedisAddress {
    form: Form,
    shown: String,
    /// As it was written, credentials included.
    written: String,
    /// Certificates in PEM that are trusted instead of the system's.
    authorities: Option<Vec<u8>>,
}

impl PartialEq for RedisAddress {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written && self.authorities == other.authorities
    }
}

impl Eq for RedisAddress {}

#[derive(Clone)]
enum Form {
    One(Box<ConnectionInfo>),
    Sentinels {
        nodes: Vec<ConnectionInfo>,
        service: String,
        /// How the server is spoken to that they name.
        server: RedisConnectionInfo,
        tls: bool,
    },
    Cluster(Vec<ConnectionInfo>),
}

impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// A URL with several hosts, cut into its parts.
struct Parts<'u> {
    tls: bool,
    /// `user:password@`, as it stands, or nothing.
    user_info: &'u str,
    hosts: Vec<&'u str>,
    /// What stands behind the hosts, without slashes around it.
    path: &'u str,
    query: Option<&'u str>,
    fragment: Option<&'u str>,
}

impl RedisAddress {
    /// Reads a URL: `redis://[user[:password]@]host[:port][/db]`, `rediss://…` for TLS, `redis-cluster://…` with one or several hosts
    /// separated by commas, and `redis-sentinel://[user[:password]@]host[:port],…/service[/db]` with the sentinels' addresses and the
    /// name that they know the server by (`mymaster`); credentials are the server's, those of the sentinels follow as
    /// `?sentinel_username=…&sentinel_password=…`. `rediss-cluster` and `rediss-sentinel` are the same with TLS. `valkey` may stand for
    /// `redis`.
    ///
    /// # Errors
    /// What is wrong with it, in words for the operator, without anything out of it that may be secret.
    pub fn parse(url: &str) -> Result<Self, String> {
        let url = url.trim();
        let (scheme, rest) = url.split_once("://").ok_or(
            "is no URL: it begins with redis://, rediss://, redis-sentinel:// or redis-cluster://",
        )?;
        let scheme = scheme.to_ascii_lowercase().replace("valkeys", "rediss");
        let scheme = scheme.replace("valkey", "redis");
        let form = match &*scheme {
            "redis" | "rediss" => Form::One(Box::new(connection(&format!("{scheme}://{rest}"))?)),
            "redis-cluster" | "rediss-cluster" => cluster(&parts(&scheme, rest)?)?,
            "redis-sentinel" | "rediss-sentinel" | "redis+sentinel" | "rediss+sentinel" => {
                sentinels(&parts(&scheme, rest)?)?
            }
            _ => {
                return Err(format!(
                    "has the scheme {scheme:?}: known are redis, rediss, redis-sentinel and redis-cluster"
                ));
            }
        };
        Ok(Self {
            shown: format!("{scheme}://{}", masked(rest, &shown(&form))),
            form,
            written: url.to_owned(),
            authorities: None,
        })
    }

    /// Trusts the authorities in `pem` (certificates in PEM), and no others, where it speaks TLS.
    ///
    /// # Errors
    /// It does not speak TLS, or `pem` cannot be read: in words for the operator.
    pub fn trusting(mut self, pem: Vec<u8>) -> Result<Self, String> {
        let certificates = certificates(&pem);
        let trusting = |info: &mut ConnectionInfo| -> Result<(), String> {
            if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
                return Err(
                    "has an effect with rediss:// only: this URL does not speak TLS".to_owned(),
                );
            }
            let client = Client::build_with_tls(info.clone(), certificates.clone());
            let client = client.map_err(|error| format!("cannot be used: {error}"))?;
            *info = client.get_connection_info().clone();
            Ok(())
        };
        match &mut self.form {
            Form::One(info) => trusting(info)?,
            Form::Sentinels { nodes, .. } | Form::Cluster(nodes) => {
                nodes.iter_mut().try_for_each(trusting)?;
            }
        }
        self.authorities = Some(pem);
        Ok(self)
    }

    /// Connects for commands.
    pub(super) async fn connect(&self) -> RedisResult<Wire> {
        match &self.form {
            Form::One(info) => {
                let client = Client::open((**info).clone())?;
                let mut connection = connect(&client).await?;
                if is_of_a_cluster(&mut connection).await {
                    return self.cluster(std::slice::from_ref(&**info)).await;
                }
                Ok(Wire::One(connection))
            }
            Form::Sentinels { .. } => Ok(Wire::One(connect(&self.server().await?).await?)),
            Form::Cluster(nodes) => self.cluster(nodes).await,
        }
    }

    async fn cluster(&self, nodes: &[ConnectionInfo]) -> RedisResult<Wire> {
        let mut builder = ClusterClient::builder(nodes.iter().cloned())
            .connection_timeout(CONNECT)
            .response_timeout(super::PATIENCE)
            .retries(1);
        if let Some(pem) = &self.authorities {
            builder = builder.certs(certificates(pem));
        }
        Ok(Wire::Cluster(
            builder.build()?.get_async_connection().await?,
        ))
    }

    /// The first server that is connected to.
    pub(super) fn first(&self) -> Option<&ConnectionAddr> {
        match &self.form {
            Form::One(info) => Some(info.addr()),
            Form::Sentinels { nodes, .. } | Form::Cluster(nodes) => {
                nodes.first().map(ConnectionInfo::addr)
            }
        }
    }

    /// Servers that can be listened to, in the order in which they are to be tried. Every node of a cluster hears everything.
    pub(super) async fn listening(&self) -> RedisResult<Vec<Client>> {
        match &self.form {
            Form::One(info) => Ok(vec![Client::open((**info).clone())?]),
            Form::Sentinels { .. } => Ok(vec![self.server().await?]),
            Form::Cluster(nodes) => nodes
                .iter()
                .map(|node| Client::open(node.clone()))
                .collect(),
        }
    }

    /// The server that the sentinels name at present.
    async fn server(&self) -> RedisResult<Client> {
        let Form::Sentinels {
            nodes,
            service,
            server,
            tls,
        } = &self.form
        else {
            return Err(RedisError::from((
                ErrorKind::InvalidClientConfig,
                "no sentinels",
            )));
        };
        let addresses = nodes.iter().map(|node| node.addr().clone());
        let mut asked = SentinelClientBuilder::new(addresses, service, SentinelServerType::Master)?
            .set_client_to_redis_db(server.db());
        if let Some(name) = server.username() {
            asked = asked.set_client_to_redis_username(name);
        }
        if let Some(word) = server.password() {
            asked = asked.set_client_to_redis_password(word);
        }
        let of_sentinels = nodes.first().map(ConnectionInfo::redis_settings);
        if let Some(name) = of_sentinels.and_then(RedisConnectionInfo::username) {
            asked = asked.set_client_to_sentinel_username(name);
        }
        if let Some(word) = of_sentinels.and_then(RedisConnectionInfo::password) {
            asked = asked.set_client_to_sentinel_password(word);
        }
        if *tls {
            asked = asked.set_client_to_redis_tls_mode(TlsMode::Secure);
        }
        if let Some(pem) = &self.authorities {
            asked = asked.set_client_to_redis_certificates(certificates(pem));
        }
        asked.build()?.async_get_client().await
    }
}

fn certificates(pem: &[u8]) -> TlsCertificates {
    TlsCertificates {
        client_tls: None,
        root_cert: Some(pem.to_vec()),
    }
}

async fn connect(client: &Client) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(super::PATIENCE));
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

/// Whether a server that was named alone is a node of a cluster. A user who may not ask is told by the first command that is another
/// node's.
async fn is_of_a_cluster(connection: &mut MultiplexedConnection) -> bool {
    let said: RedisResult<String> = redis::cmd("INFO")
        .arg("cluster")
        .query_async(connection)
        .await;
    said.is_ok_and(|said| said.contains("cluster_enabled:1"))
}

/// `shown` with `***` where credentials stand in what follows the scheme.
fn masked(rest: &str, shown: &str) -> String {
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let user_info = if before.contains('@') { "***@" } else { "" };
    let query = query
        .split(['&', '#'])
        .filter_map(|pair| pair.split_once('='));
    let query: Vec<String> = query.map(|(name, _)| format!("{name}=***")).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{user_info}{shown}{mark}{}", query.join("&"))
}

/// What follows the scheme, without credentials.
fn shown(form: &Form) -> String {
    let (nodes, service, db) = match form {
        Form::One(info) => (
            std::slice::from_ref(&**info),
            None,
            info.redis_settings().db(),
        ),
        Form::Sentinels {
            nodes,
            service,
            server,
            ..
        } => (&**nodes, Some(service), server.db()),
        Form::Cluster(nodes) => (&**nodes, None, 0),
    };
    let nodes: Vec<String> = nodes.iter().map(|node| shown_node(node.addr())).collect();
    let mut shown = nodes.join(",");
    if let Some(service) = service {
        shown = format!("{shown}/{service}");
    }
    if db != 0 {
        shown = format!("{shown}/{db}");
    }
    shown
}

fn shown_node(address: &ConnectionAddr) -> String {
    match address {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. }
            if host.contains(':') =>
        {
            format!("[{host}]:{port}")
        }
        other => other.to_string(),
    }
}

fn parts<'u>(scheme: &str, rest: &'u str) -> Result<Parts<'u>, String> {
    let (rest, fragment) = match rest.split_once('#') {
        Some((rest, fragment)) => (rest, Some(fragment)),
        None => (rest, None),
    };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (rest, None),
    };
    // A password may hold `@`, so that the last one counts.
    let at = rest.rfind('@').map_or(0, |at| at + 1);
    let (user_info, rest) = rest.split_at(at);
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    let hosts: Vec<&str> = hosts.split(',').map(str::trim).collect();
    if hosts.iter().any(|host| host.is_empty()) || hosts.len() > MOST_NODES {
        return Err("names no host, or an empty one between commas".to_owned());
    }
    Ok(Parts {
        tls: scheme.starts_with("rediss"),
        user_info,
        hosts,
        path: path.trim_matches('/'),
        query,
        fragment,
    })
}

/// One server out of a URL of the form that the driver knows.
fn connection(url: &str) -> Result<ConnectionInfo, String> {
    if url.contains('?') {
        return Err(
            "has parameters, which would have no effect: the database's number stands behind a slash, user and password before an @ \
             (redis://user:password@host:port/2; special characters of a password are percent-encoded)"
                .to_owned(),
        );
    }
    // The driver's words may hold the URL's.
    let info = url.into_connection_info().map_err(|error| {
        let why = match error.kind() {
            ErrorKind::InvalidClientConfig => {
                "host, port, database number or protocol cannot be used"
            }
            _ => "it cannot be read",
        };
        format!(
            "is no URL of Redis: {why} (redis://user:password@host:port/0; special characters of a password are percent-encoded)"
        )
    })?;
    if let ConnectionAddr::Tcp(_, 0) | ConnectionAddr::TcpTls { port: 0, .. } = info.addr() {
        return Err("has port 0, which nobody can connect to".to_owned());
    }
    if info.redis_settings().db() < 0 {
        return Err(NEGATIVE.to_owned());
    }
    Ok(info)
}

fn node(
    parts: &Parts<'_>,
    host: &str,
    user_info: &str,
    port: u16,
) -> Result<ConnectionInfo, String> {
    let scheme = if parts.tls { "rediss" } else { "redis" };
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(before, after)| !after.ends_with(']') && !before.is_empty());
    let port = if has_port {
        String::new()
    } else {
        format!(":{port}")
    };
    connection(&format!("{scheme}://{user_info}{host}{port}"))
}

fn cluster(parts: &Parts<'_>) -> Result<Form, String> {
    if !matches!(parts.path, "" | "0") || parts.query.is_some() || parts.fragment.is_some() {
        return Err(
            "names a database: a cluster has database 0 only; nothing follows the hosts".to_owned(),
        );
    }
    let nodes: Result<Vec<_>, _> = parts
        .hosts
        .iter()
        .map(|host| node(parts, host, parts.user_info, 6379))
        .collect();
    Ok(Form::Cluster(nodes?))
}

fn sentinels(parts: &Parts<'_>) -> Result<Form, String> {
    let (mut service, mut db) = (parts.fragment.unwrap_or_default(), 0);
    for part in parts.path.split('/').filter(|part| !part.is_empty()) {
        match part.parse::<i64>() {
            Ok(number) if number < 0 => return Err(NEGATIVE.to_owned()),
            Ok(number) => db = number,
            Err(_) if service.is_empty() => service = part,
            Err(_) => return Err("names the service twice".to_owned()),
        }
    }
    if service.is_empty() {
        return Err(
            "does not say which service the sentinels are to be asked for: redis-sentinel://host:26379,…/mymaster"
                .to_owned(),
        );
    }
    let mut of_sentinels = (String::new(), String::new());
    for pair in parts
        .query
        .unwrap_or_default()
        .split('&')
        .filter(|p| !p.is_empty())
    {
        match pair.split_once('=') {
            Some(("sentinel_username", name)) => name.clone_into(&mut of_sentinels.0),
            Some(("sentinel_password", word)) => word.clone_into(&mut of_sentinels.1),
            _ => {
                return Err(
                    "has a parameter that is none: known are sentinel_username and sentinel_password"
                        .to_owned(),
                );
            }
        }
    }
    let user_info = match &of_sentinels {
        (name, word) if name.is_empty() && word.is_empty() => String::new(),
        (name, word) => format!("{name}:{word}@"),
    };
    let nodes: Result<Vec<_>, _> = parts
        .hosts
        .iter()
        .map(|host| node(parts, host, &user_info, 26379))
        .collect();
    // The server's own credentials, decoded by the same rules.
    let own = node(parts, parts.hosts[0], parts.user_info, 26379)?;
    let mut settings = RedisConnectionInfo::default().set_db(db);
    if let Some(name) = own.redis_settings().username() {
        settings = settings.set_username(name);
    }
    if let Some(word) = own.redis_settings().password() {
        settings = settings.set_password(word);
    }
    Ok(Form::Sentinels {
        nodes: nodes?,
        service: service.to_owned(),
        server: settings,
        tls: matches!(own.addr(), ConnectionAddr::TcpTls { .. }),
    })
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
