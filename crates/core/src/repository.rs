//! What a repository is: its name, kind, package type and rules. Built by the configuration, read by everyone.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::cache_policy::CachePolicy;
use crate::policy::AccessPolicy;
use crate::policy::quarantine::QuarantinePolicy;
use crate::proxies::ProxyRules;
use crate::reserved::ReservedNames;
use crate::secret::{SafeUrl, Secret};

/// The name under which clients reach a repository: 1 to 128 of `A-Z a-z 0-9 . _ -`, not starting with a dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepositoryName(Arc<str>);

/// Why a text is not a repository name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a repository name: 1 to 128 of A-Z a-z 0-9 . _ - are allowed, and no dot in front"
)]
pub struct InvalidRepositoryName(pub String);

impl RepositoryName {
    /// Checks the grammar.
    pub fn parse(text: &str) -> Result<Self, InvalidRepositoryName> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if text.is_empty() || text.len() > 128 || text.starts_with('.') || !text.bytes().all(legal)
        {
            return Err(InvalidRepositoryName(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for RepositoryName {
    type Error = InvalidRepositoryName;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<RepositoryName> for String {
    fn from(name: RepositoryName) -> Self {
        name.0.as_ref().to_owned()
    }
}

/// Where a repository's files come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RepositoryKind {
    /// An upstream server, cached.
    Remote,
    /// Uploads to larder itself.
    Local,
    /// Other repositories of the same package type, merged in order.
    Virtual,
}

impl RepositoryKind {
    /// The word used in configuration files and in `GET /`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Remote => "remote",
            Self::Local => "local",
            Self::Virtual => "virtual",
        }
    }
}

/// The ecosystem whose rules a repository follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PackageType {
    /// Any HTTP file server.
    Generic,
    /// Alpine Linux (apk).
    Alpine,
    /// RPM with createrepo metadata.
    Rpm,
    /// Docker and OCI registries.
    Docker,
    /// Python packages (Simple Repository API).
    Pypi,
    /// npm registry.
    Npm,
    /// Helm chart repositories.
    Helm,
}

impl PackageType {
    /// The word used in configuration files and in `GET /`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::Alpine => "alpine",
            Self::Rpm => "rpm",
            Self::Docker => "docker",
            Self::Pypi => "pypi",
            Self::Npm => "npm",
            Self::Helm => "helm",
        }
    }

    /// All package types, in the order of the specification.
    pub const ALL: [Self; 7] = [
        Self::Generic,
        Self::Alpine,
        Self::Rpm,
        Self::Docker,
        Self::Pypi,
        Self::Npm,
        Self::Helm,
    ];
}

/// How to reach a remote repository's upstream. `Debug` shows URLs without the credentials that they may carry.
#[derive(Clone)]
pub struct UpstreamSettings {
    /// The roots below which files are found, first choice first; each ends in a slash. At least one.
    pub base_urls: Vec<Url>,
    /// pypi only: the simple root, `{index_url}{project}/`; ends in a slash. For other types equal to `base_urls[0]`.
    pub index_url: Url,
    /// User name and password for the origins of `base_urls` and `index_url`, and for no other.
    pub credentials: Option<Credentials>,
    /// How `credentials` are presented.
    pub auth: UpstreamAuth,
    /// docker only: the namespace of image names without a slash, where the upstream is the public hub.
    pub default_namespace: Option<String>,
    /// Extra request headers (`headers:`), sent to the configured origins only.
    pub headers: Vec<(String, Secret<String>)>,
    /// Time allowed for connecting.
    pub connect_timeout: Duration,
    /// A transfer that brings no byte for this long is broken off. There is no total time-out.
    pub read_timeout: Duration,
    /// Private addresses that redirects and documents may lead to.
    pub allow_private: Vec<AllowPrivate>,
    /// Other hosts (lower case, `host` or `host:port`) whose links in an index are carried; `None` = any public address.
    pub link_hosts: Option<Vec<String>>,
    /// Extra certificate authorities (PEM file) for this upstream.
    pub ca_file: Option<PathBuf>,
    /// HTTP(S) or SOCKS proxies for this upstream; `None` = it is reached directly.
    pub proxy: Option<ProxyRules>,
    /// Never contact the upstream.
    pub offline: bool,
    /// Bodies above this many bytes are streamed and not kept.
    pub max_size: Option<u64>,
    /// `max_disk`: bytes that are kept of the repository at most; what is used least recently goes.
    pub max_disk: Option<u64>,
    /// How many requests each host gets on behalf of this repository.
    pub limits: RequestLimits,
}

/// How many requests one upstream host gets from all replicas together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestLimits {
    /// At once; `None` = as many as there are.
    pub concurrency: Option<u32>,
    /// The time between two of them; `None` = none.
    pub apart: Option<Duration>,
    /// Whether the repository's requests are counted by themselves, and not with those of all others to the same host.
    pub is_own: bool,
}

impl fmt::Debug for UpstreamSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let safe = |url: &Url| SafeUrl(url.clone());
        f.debug_struct("UpstreamSettings")
            .field(
                "base_urls",
                &self.base_urls.iter().map(safe).collect::<Vec<_>>(),
            )
            .field("index_url", &safe(&self.index_url))
            .field("proxy", &self.proxy)
            .field("credentials", &self.credentials)
            .field("auth", &self.auth)
            .field("default_namespace", &self.default_namespace)
            .field("headers", &self.headers)
            .field("connect_timeout", &self.connect_timeout)
            .field("read_timeout", &self.read_timeout)
            .field("allow_private", &self.allow_private)
            .field("link_hosts", &self.link_hosts)
            .field("ca_file", &self.ca_file)
            .field("offline", &self.offline)
            .field("max_size", &self.max_size)
            .field("max_disk", &self.max_disk)
            .field("limits", &self.limits)
            .finish()
    }
}

impl UpstreamSettings {
    /// An upstream at one address with the defaults of the configuration (`timeouts` 5 s and 30 s, no credentials).
    pub fn new(base_url: Url) -> Self {
        Self {
            base_urls: vec![base_url.clone()],
            index_url: base_url,
            credentials: None,
            auth: UpstreamAuth::default(),
            default_namespace: None,
            headers: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(30),
            allow_private: Vec::new(),
            link_hosts: None,
            ca_file: None,
            proxy: None,
            offline: false,
            max_size: None,
            max_disk: None,
            limits: RequestLimits::default(),
        }
    }

    /// The proxy through which `url` is asked for; `None` = directly.
    pub fn proxy_for(&self, url: &Url) -> Option<&Url> {
        self.proxy.as_ref()?.for_url(url)
    }

    /// The roots of the index: one for each of `base_urls` where it lies below the first of them in the usual place, else `index_url`
    /// alone.
    pub fn index_urls(&self) -> Vec<Url> {
        let usual = |base: &Url| base.join("simple/").ok();
        match self.base_urls.first() {
            Some(first) if self.index_url == *first => self.base_urls.clone(),
            Some(first) if usual(first).as_ref() == Some(&self.index_url) => {
                self.base_urls.iter().filter_map(usual).collect()
            }
            _ => vec![self.index_url.clone()],
        }
    }

    /// Whether `url` has the scheme, host and port of one of the configured roots: only there go credentials and `headers`.
    pub fn is_configured_origin(&self, url: &Url) -> bool {
        let same = |base: &Url| base.origin() == url.origin();
        self.base_urls.iter().any(same) || same(&self.index_url)
    }
}

/// How an upstream is told who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum UpstreamAuth {
    /// Credentials go out with every request (RFC 7617), and a 401 is an answer like any other.
    #[default]
    Basic,
    /// The way of container registries: nothing goes out before the upstream's 401 has said what it wants, Basic or a Bearer token
    /// from a realm that the 401 names. Without credentials, anonymous tokens are fetched.
    Challenge {
        /// Hosts (lower case, `host` or `host:port`) that may be given the credentials as token realms, and may be private, beside
        /// those of the upstream's own registrable domain.
        token_hosts: Vec<String>,
    },
}

/// User name and password.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// User name, sent as it is.
    pub username: String,
    /// Password; never printed.
    pub password: Secret<String>,
}

/// An entry of `allow_private`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowPrivate {
    /// Any port of these addresses.
    Network(IpNet),
    /// One address and port.
    Socket(std::net::SocketAddr),
}

/// Where a repository's files come from, with what only such a repository has.
#[derive(Debug, Clone)]
pub enum Kind {
    /// An upstream server, cached.
    Remote(Box<UpstreamSettings>),
    /// Uploads to larder itself.
    Local(LocalSettings),
    /// Other repositories of the same package type, merged in order.
    Virtual(VirtualSettings),
}

/// What a local repository takes (contract, section 7).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalSettings {
    /// Whether other bytes may take the place of what is there under the same path; the same bytes always may be sent again.
    pub allow_overwrite: bool,
    /// The longest body that is taken, in bytes.
    pub max_size: Option<u64>,
    /// How many bytes the repository may hold in all: an upload that would exceed it is answered 507.
    pub quota: Option<u64>,
}

/// What a virtual repository is made of (contract, section 7).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VirtualSettings {
    /// The members, highest priority first.
    pub members: Vec<RepositoryName>,
    /// Whether an authoritative member that fails and has no copy makes the index fail, too, instead of being skipped.
    pub fail_closed: bool,
    /// Where the links of a merged index lead.
    pub member_urls: MemberUrls,
    /// The local repository that takes what is published to the virtual one; `None`: it takes nothing.
    pub default_local: Option<RepositoryName>,
}

/// Where the links of a merged index lead (`member_urls`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MemberUrls {
    /// To the member's own path: downloads bypass the virtual repository.
    #[default]
    Member,
    /// Below the virtual repository, which serves the member's files.
    Virtual,
}

/// A configured repository.
#[derive(Debug, Clone)]
pub struct Repository {
    /// Its name.
    pub name: RepositoryName,
    /// Where its files come from, with the settings that only such repositories have.
    pub kind: Kind,
    /// Whose rules it follows.
    pub package: PackageType,
    /// Free text for people.
    pub description: String,
    /// Which paths may be asked for, and which of them change.
    pub access: AccessPolicy,
    /// How long copies are good, and what happens afterwards.
    pub cache: CachePolicy,
    /// Whether and how long new artifacts are held back.
    pub quarantine: QuarantinePolicy,
    /// Whether virtual repositories ask no other member for a name that this one has (`authoritative: true`); of local
    /// repositories that holds always.
    pub authoritative: bool,
    /// Names that virtual repositories ask no other member for, whether this one has them or not.
    pub reserved: ReservedNames,
    /// Changes with anything that decides what is served: part of every derivation's key.
    pub rules_epoch: u64,
}

impl Repository {
    /// The kind alone.
    pub fn kind(&self) -> RepositoryKind {
        match self.kind {
            Kind::Remote(_) => RepositoryKind::Remote,
            Kind::Local(_) => RepositoryKind::Local,
            Kind::Virtual(_) => RepositoryKind::Virtual,
        }
    }

    /// Whether whole files may be given by redirects to the object store. apk follows no 307 (apk-tools, libfetch), so never where its
    /// packages are.
    pub fn redirects_to_store(&self) -> bool {
        self.cache.presign && self.package != PackageType::Alpine
    }

    /// How to reach the upstream; `None` for local and virtual repositories.
    pub fn upstream(&self) -> Option<&UpstreamSettings> {
        match &self.kind {
            Kind::Remote(settings) => Some(settings),
            Kind::Local(_) | Kind::Virtual(_) => None,
        }
    }

    /// The same, to be changed while a repository is built.
    pub fn upstream_mut(&mut self) -> Option<&mut UpstreamSettings> {
        match &mut self.kind {
            Kind::Remote(settings) => Some(settings),
            Kind::Local(_) | Kind::Virtual(_) => None,
        }
    }

    /// What is taken from whoever uploads; `None` for remote and virtual repositories.
    pub fn local(&self) -> Option<&LocalSettings> {
        match &self.kind {
            Kind::Local(settings) => Some(settings),
            Kind::Remote(_) | Kind::Virtual(_) => None,
        }
    }

    /// What a virtual repository is made of; `None` for others.
    pub fn virtual_settings(&self) -> Option<&VirtualSettings> {
        match &self.kind {
            Kind::Virtual(settings) => Some(settings),
            Kind::Remote(_) | Kind::Local(_) => None,
        }
    }

    /// The members of a virtual repository, highest priority first; of others none.
    pub fn members(&self) -> &[RepositoryName] {
        match &self.kind {
            Kind::Virtual(settings) => &settings.members,
            Kind::Remote(_) | Kind::Local(_) => &[],
        }
    }
}

#[cfg(test)]
mod tests;
