//! Flags, environment and the merged files to [`Settings`], in this precedence.

mod cluster;
mod program;
mod s3;
mod traces;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use larder_core::{PackageType, PublicUrls, Repository, RepositoryKind, RequestLimits, Secret};
use larder_storage::PostgresOptions;

use super::bounds::{self, DiskLimit};
use super::database::database;
use super::diagnostic::{Diagnostic, Report};
use super::env::Environment;
use super::fields::Section;
use super::file::Loaded;
use super::indents;
use super::lines;
use super::members::check_members;
use super::merge::Document;
use super::proxies;
use super::registries;
use super::repository::{Built, repository};
use super::request_limits;
use super::schema;
use super::upstream::ForAll;
use super::view;
pub use cluster::Cluster;
pub use s3::S3;
pub use traces::Tracing;

use program::{admin_token, data_dir, listen, public_urls, tls, trusted_proxies};

/// Where a configuration comes from: flags, the environment, and the files they name.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `--config`; else `CONFIG_PATH`; else the built-in repositories.
    pub config: Option<PathBuf>,
    /// `--listen`; else `LARDER_LISTEN` (separated by commas); else `listen`.
    pub listen: Vec<String>,
    /// `--data-dir`; else `LARDER_DATA_DIR`; else `data_dir`.
    pub data_dir: Option<PathBuf>,
    /// `--public-url`; else `LARDER_PUBLIC_URL` (separated by commas); else `public_url`.
    pub public_url: Vec<String>,
    /// `--admin-token-file`; else `LARDER_ADMIN_TOKEN`; else `auth.admin_token`.
    pub admin_token_file: Option<PathBuf>,
    /// `--log`; else `LARDER_LOG`.
    pub log: Option<String>,
    /// `--log-format`; else `LARDER_LOG_FORMAT`.
    pub log_format: Option<String>,
    /// The environment.
    pub environment: Environment,
}

impl Sources {
    /// The file or directory that is read, if any.
    pub fn config_path(&self) -> Option<PathBuf> {
        self.config
            .clone()
            .or_else(|| self.environment.get("CONFIG_PATH").map(PathBuf::from))
    }
}

/// PEM files of the server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Certificate chain, the server's own first.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// `limits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest upstream document (index, packument, simple page) that is read, in bytes.
    pub document_size: u64,
    /// Client connections at once.
    pub connections: usize,
    /// Downloads from upstreams at once.
    pub downloads: usize,
    /// What is kept at most, but for uploaded files; `None`: as much as there is room for.
    pub disk: Option<DiskLimit>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            document_size: 256 << 20,
            connections: 10_000,
            downloads: 512,
            disk: None,
        }
    }
}

/// The default of `drain`.
const DEFAULT_DRAIN: Duration = Duration::from_secs(5);

/// The default of `hot_set`, in bytes.
pub const DEFAULT_HOT_SET: u64 = 64 << 20;

/// A loaded and validated configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// All repositories by name, those of `not_built` too.
    pub repositories: Vec<Arc<Repository>>,
    /// Names of repositories that answer 501, each with the sentence that says what is not built.
    pub not_built: BTreeMap<String, String>,
    /// `docker_default_remote`: the repository for image names that begin with no repository.
    pub docker_default_remote: Option<String>,
    /// The docker repository that stands for a registry, by the registry's host (and port, if it is not the usual one).
    pub docker_registries: BTreeMap<String, String>,
    /// `hostnames`: the repository of each host name of its own, in lower case.
    pub hostnames: BTreeMap<String, String>,
    /// Addresses to listen on; at least one.
    pub listen: Vec<SocketAddr>,
    /// Where files and the database live.
    pub data_dir: PathBuf,
    /// The server that metadata is kept in; `None`: SQLite in the data directory.
    pub database: Option<PostgresOptions>,
    /// The addresses that clients use.
    pub public_urls: PublicUrls,
    /// Peers whose `X-Forwarded-*` headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Serve HTTPS.
    pub tls: Option<Tls>,
    /// Opens what changes state.
    pub admin_token: Option<Secret<String>>,
    /// `s3`; `None`: blobs are files of the data directory.
    pub s3: Option<S3>,
    /// Where spans are sent; `None`: nothing is recorded.
    pub tracing: Option<Tracing>,
    /// What replicas need to find each other.
    pub cluster: Cluster,
    /// Bytes that bodies in the hot set may take; 0 turns it off.
    pub hot_set: u64,
    /// Bounds.
    pub limits: Limits,
    /// How long connections are still taken after the signal to stop.
    pub drain: Duration,
    /// What `GET /config` shows: every secret already replaced.
    pub config_view: serde_json::Value,
    /// Where each key of a repository stands (`file:line`, by `remotes.NAME.KEY`), as far as it is written down.
    pub config_lines: Arc<BTreeMap<String, String>>,
    /// Warnings and notes of loading.
    pub warnings: Vec<Diagnostic>,
    /// Files and directories whose change means a reload.
    pub watched: Vec<PathBuf>,
}

/// Validates everything that was read, `document` being what it says once references to the environment are replaced. The result is only to
/// be used if the report holds no error.
pub(super) fn validate(
    loaded: &Loaded,
    document: &Document,
    sources: &Sources,
    report: &mut Report,
) -> Option<Settings> {
    let remotes = indents::check(document, report);
    let top = Section::top(&document.top, report);
    let proxy = proxies::general(&top, &sources.environment, report);
    let database = database(&top, &sources.environment, report);
    let (mut limits, of_upstreams) = limits(&top, report);
    let for_all = ForAll::new(proxy.as_ref(), of_upstreams);
    let entries = remotes.into_iter();
    let built = entries.filter_map(|entry| repository(entry, for_all, report));
    let built: Vec<Built> = built.collect();
    check_members(&built, report);
    let hostnames = hostnames(&built, report);
    tell_unbuilt(&built, loaded.built_in, report);
    tell_empty(loaded, report);
    let docker_default_remote = docker_default_remote(&top, &built, report);
    let listen = listen(&top, sources, report);
    let data_dir = data_dir(&top, sources, report);
    let public_urls = public_urls(&top, sources, report);
    let trusted_proxies = trusted_proxies(&top, report);
    let tls = tls(&top, report);
    let admin_token = admin_token(&top, sources, report);
    let s3 = s3::s3(&top, &sources.environment, proxy.as_ref(), report);
    limits.disk = bounds::disk(&top, s3.is_some(), report);
    let cluster = cluster::cluster(&top, sources, report);
    let tracing = traces::tracing(&top, &sources.environment, report);
    let hot_set = top.size("hot_set", report).unwrap_or(DEFAULT_HOT_SET);
    let drain = top.number("drain", 0, 3_600, report);
    let drain = drain.map_or(DEFAULT_DRAIN, Duration::from_secs);
    if report.has_errors() {
        return None;
    }
    if admin_token.is_none() {
        tell_closed(&listen, report);
    }
    let mut settings = Settings {
        not_built: not_built(&built),
        docker_registries: registries(&built, docker_default_remote.as_deref()),
        repositories: shared(built, s3.as_ref(), report),
        docker_default_remote,
        hostnames,
        listen,
        data_dir: data_dir?,
        database,
        public_urls,
        trusted_proxies,
        tls,
        admin_token,
        s3,
        tracing,
        cluster,
        hot_set,
        limits,
        drain,
        config_view: serde_json::Value::Null,
        config_lines: Arc::new(lines::lines(&loaded.document)),
        warnings: Vec::new(),
        watched: loaded.watched.clone(),
    };
    settings.repositories.sort_by(|a, b| a.name.cmp(&b.name));
    settings.config_view = view::config_view(&loaded.document, &settings);
    Some(settings)
}

fn registries(built: &[Built], default_remote: Option<&str>) -> BTreeMap<String, String> {
    let repositories = built.iter().map(|built| &built.repository);
    registries::by_host(repositories, default_remote)
}

/// The repositories, told whether they give files by redirects to the store.
fn shared(built: Vec<Built>, s3: Option<&S3>, report: &mut Report) -> Vec<Arc<Repository>> {
    let repositories = built.into_iter().map(|built| {
        let mut repository = built.repository;
        let by_default = s3.is_some_and(|s3| s3.presign);
        repository.cache.presign = match &built.presign {
            Some((wanted, place)) if s3.is_none() => {
                if *wanted {
                    let why = "blobs are files of the data directory, and no object store has them";
                    let name = &repository.name;
                    report.warning(
                        place,
                        format!("`remotes.{name}.presign` has no effect: {why}"),
                    );
                }
                false
            }
            Some((wanted, _)) => *wanted,
            None => by_default,
        };
        Arc::new(repository)
    });
    repositories.collect()
}

fn not_built(built: &[Built]) -> BTreeMap<String, String> {
    let sentence = |b: &Built| Some((b.repository.name.to_string(), b.not_built.clone()?));
    built.iter().filter_map(sentence).collect()
}

fn tell_empty(loaded: &Loaded, report: &mut Report) {
    if loaded.document.remotes.is_empty() && !report.has_errors() {
        report.warning(
            None,
            "the configuration names no repositories: every artifact request will answer 404",
        );
    }
}

/// Says that nothing can change state, where that is so: beyond loopback and without a token.
fn tell_closed(listen: &[SocketAddr], report: &mut Report) {
    if listen.iter().any(|address| !address.ip().is_loopback()) {
        let open = "auth.admin_token, LARDER_ADMIN_TOKEN or --admin-token-file opens it";
        report.warning(None, format!("listening beyond loopback without an admin token: what changes state answers 401; {open}"));
    }
}

fn tell_unbuilt(built: &[Built], built_in: bool, report: &mut Report) {
    for (built, why) in built
        .iter()
        .filter_map(|built| Some((built, built.not_built.as_ref()?)))
    {
        let message = format!("repository `{}` answers 501: {why}", built.repository.name);
        if built_in {
            report.note(&built.place, message);
        } else {
            report.warning(&built.place, message);
        }
    }
}

/// Whose each host name is: a request's host must not mean two repositories.
fn hostnames(built: &[Built], report: &mut Report) -> BTreeMap<String, String> {
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    for built in built {
        let own = &built.repository.name;
        for (name, place) in &built.hostnames {
            if let Some(owner) = owners.insert(name.clone(), own.to_string()) {
                let message = if owner == own.as_str() {
                    format!("`{name}` stands twice in the `hostnames` of `{own}`")
                } else {
                    format!(
                        "`{name}` stands in the `hostnames` of `{owner}` and of `{own}`: a host name belongs to one repository"
                    )
                };
                report.error(place, message);
            }
        }
    }
    owners
}

fn docker_default_remote(
    top: &Section<'_>,
    built: &[Built],
    report: &mut Report,
) -> Option<String> {
    let (name, place) = top.text("docker_default_remote", report)?;
    let found = built
        .iter()
        .find(|built| built.repository.name.as_str() == name);
    match found {
        Some(found)
            if found.repository.package == PackageType::Docker
                && found.repository.kind() != RepositoryKind::Local =>
        {
            Some(name.to_owned())
        }
        Some(_) => {
            report.error(
                place,
                format!("`docker_default_remote`: `{name}` is not a docker repository that pulls"),
            );
            None
        }
        None => {
            report.error(
                place,
                format!("`docker_default_remote`: there is no repository `{name}`"),
            );
            None
        }
    }
}

fn limits(top: &Section<'_>, report: &mut Report) -> (Limits, RequestLimits) {
    let mut limits = Limits::default();
    let section = top.section("limits", schema::LIMITS, report);
    if let Some(section) = &section {
        limits.document_size = section
            .size("document_size", report)
            .unwrap_or(limits.document_size);
        let connections = section.number("connections", 1, 1_000_000, report);
        let downloads = section.number("downloads", 1, 100_000, report);
        limits.connections = connections.map_or(limits.connections, |n| n as usize);
        limits.downloads = downloads.map_or(limits.downloads, |n| n as usize);
    }
    (limits, request_limits::of_all(section.as_ref(), report))
}
