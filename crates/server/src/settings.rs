//! What the server is started with, and the part of it that a reload may change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use larder_budget::Budgets;
use larder_core::{Pseudonym, PublicUrls, Secret};

/// Everything the server is started with.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Addresses to listen on; port 0 takes a free port. At least one.
    pub listen: Vec<SocketAddr>,
    /// Serve HTTPS (HTTP/1.1 and HTTP/2) in place of plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Bytes that bodies in the hot set may take; 0 turns it off.
    pub hot_set_bytes: u64,
    /// How many files the hot set may hold open at once.
    pub hot_files: usize,
    /// Bounds on connections and requests.
    pub limits: ServerLimits,
    /// Larder's version, for `GET /`.
    pub version: &'static str,
    /// What larder calls itself in the `Via` of what it sends upstream: a request that carries it has come back.
    pub pseudonym: Pseudonym,
    /// Where uploads and the bytes of request bodies are leased: the same for the whole process.
    pub budgets: Arc<Budgets>,
    /// What a reload may change.
    pub live: LiveSettings,
}

/// The settings that a reload may change while the server runs.
#[derive(Debug, Clone, Default)]
pub struct LiveSettings {
    /// The addresses that clients use.
    pub public_urls: PublicUrls,
    /// Peers whose `X-Forwarded-*` headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Opens what changes state (`auth.admin_token`).
    pub admin_token: Option<Secret<String>>,
    /// The docker repository for image names that begin with no repository's.
    pub docker_default_remote: Option<String>,
    /// The docker repository that stands for a registry, by the registry's host: for image names that begin with no repository's and
    /// come with `?ns=`.
    pub docker_registries: BTreeMap<String, String>,
    /// The names, in lower case and without ports, by which browsers may address a server on loopback beside `localhost`: the hosts of
    /// `public_url` and of `hostnames`.
    pub host_names: BTreeSet<String>,
    /// The loaded configuration as `GET /config` shows it: every secret already replaced.
    pub config_view: serde_json::Value,
    /// Top-level keys that it has other values for than those in force, because they take effect only at a start.
    pub config_waiting: Vec<String>,
    /// Where each key of a repository stands (`file:line`, by `remotes.NAME.KEY`), as far as it is written down: for
    /// `GET /api/v1/explain`.
    pub config_lines: Arc<BTreeMap<String, String>>,
    /// What loading the configuration had to say, as `larder check` prints it: warnings and notes, without secrets.
    pub config_warnings: Arc<Vec<String>>,
}

/// PEM files of the server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain, the server's own first.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// Bounds that keep strangers from using up the server (contract, section 1, hazards R1 and R5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerLimits {
    /// Connections at once, beside a few that are kept for probes. No peer has more than three quarters of them.
    pub connections: usize,
    /// From a connection's start, or the first byte of a request, to the end of the request's head.
    pub header_timeout: Duration,
    /// A kept-alive connection without requests is closed after this.
    pub idle_timeout: Duration,
    /// A client that acknowledges no byte for this long is dropped, and one that takes fewer than `stall_bytes` of an answer that is
    /// ready for it.
    pub stall_timeout: Duration,
    /// What a client must take of an answer within `stall_timeout`, in bytes.
    pub stall_bytes: u64,
    /// A request body that brings no byte for this long is given up.
    pub body_timeout: Duration,
    /// An upload that brings no byte for this long is given up. There is no bound on its whole time.
    pub upload_timeout: Duration,
    /// An upload that brings fewer bytes than this in any `upload_timeout` is given up; one that others wait for, sooner.
    pub upload_bytes: u64,
    /// How long an upload waits for its place among others.
    pub upload_patience: Duration,
    /// From the beginning of a request body to its end.
    pub body_total: Duration,
    /// How long a request body waits for room among others.
    pub body_patience: Duration,
    /// Largest request body that is collected in memory, in bytes.
    pub body_bytes: usize,
    /// From accepting a connection to the end of its TLS handshake.
    pub handshake_timeout: Duration,
    /// What running answers are given when the server stops.
    pub drain_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(1),
            stall_timeout: Duration::from_mins(5),
            stall_bytes: 64 << 10,
            body_timeout: Duration::from_secs(10),
            upload_timeout: Duration::from_mins(1),
            upload_bytes: 64 << 10,
            upload_patience: Duration::from_secs(5),
            body_total: Duration::from_mins(1),
            body_patience: Duration::from_secs(5),
            body_bytes: 10 << 20,
            handshake_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// The default of `hot_set`: 64 MiB.
pub const DEFAULT_HOT_SET_BYTES: u64 = 64 << 20;
