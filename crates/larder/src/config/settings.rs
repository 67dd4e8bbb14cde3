//! Flags, environment and the merged files to [`Settings`], in this precedence.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use larder_core::{PackageType, PublicUrls, REDACTED, Repository, RepositoryKind, Secret};
use url::Url;

use super::diagnostic::{Diagnostic, Place, Report};
use super::env::{Environment, UNBUILT_BACKENDS};
use super::fields::Section;
use super::file::{Loaded, beside};
use super::indents;
use super::members::check_members;
use super::merge::Document;
use super::proxies;
use super::registries;
use super::repository::{Built, repository};
use super::schema;
use super::urls::{listen_address, network, root_url};
use super::view;

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
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            document_size: 256 << 20,
            connections: 10_000,
            downloads: 512,
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
    /// The addresses that clients use.
    pub public_urls: PublicUrls,
    /// Peers whose `X-Forwarded-*` headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Serve HTTPS.
    pub tls: Option<Tls>,
    /// Opens what changes state.
    pub admin_token: Option<Secret<String>>,
    /// Bytes that bodies in the hot set may take; 0 turns it off.
    pub hot_set: u64,
    /// Bounds.
    pub limits: Limits,
    /// How long connections are still taken after the signal to stop.
    pub drain: Duration,
    /// What `GET /config` shows: every secret already replaced.
    pub config_view: serde_json::Value,
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
    refuse_unbuilt_backends(&top, &sources.environment, report);
    let built: Vec<Built> = remotes
        .into_iter()
        .filter_map(|entry| repository(entry, proxy.as_ref(), report))
        .collect();
    check_members(&built, report);
    let hostnames = hostnames(&built, report);
    tell_unbuilt(&built, loaded.built_in, report);
    if loaded.document.remotes.is_empty() && !report.has_errors() {
        report.warning(
            None,
            "the configuration names no repositories: every artifact request will answer 404",
        );
    }
    let docker_default_remote = docker_default_remote(&top, &built, report);
    let listen = listen(&top, sources, report);
    let data_dir = data_dir(&top, sources, report);
    let public_urls = public_urls(&top, sources, report);
    let trusted_proxies = trusted_proxies(&top, report);
    let tls = tls(&top, report);
    let admin_token = admin_token(&top, sources, report);
    let hot_set = top.size("hot_set", report).unwrap_or(DEFAULT_HOT_SET);
    let limits = limits(&top, report);
    let drain = top
        .number("drain", 0, 3_600, report)
        .map_or(DEFAULT_DRAIN, Duration::from_secs);
    if report.has_errors() {
        return None;
    }
    if admin_token.is_none() && listen.iter().any(|address| !address.ip().is_loopback()) {
        let open = "auth.admin_token, LARDER_ADMIN_TOKEN or --admin-token-file opens it";
        report.warning(None, format!("listening beyond loopback without an admin token: what changes state answers 401; {open}"));
    }
    let mut settings = Settings {
        not_built: built
            .iter()
            .filter_map(|b| Some((b.repository.name.to_string(), b.not_built.clone()?)))
            .collect(),
        docker_registries: registries::by_host(built.iter().map(|built| &built.repository)),
        repositories: built
            .into_iter()
            .map(|built| Arc::new(built.repository))
            .collect(),
        docker_default_remote,
        hostnames,
        listen,
        data_dir: data_dir?,
        public_urls,
        trusted_proxies,
        tls,
        admin_token,
        hot_set,
        limits,
        drain,
        config_view: serde_json::Value::Null,
        warnings: Vec::new(),
        watched: loaded.watched.clone(),
    };
    settings.repositories.sort_by(|a, b| a.name.cmp(&b.name));
    settings.config_view = view::config_view(&loaded.document, &settings);
    Some(settings)
}

/// Never a silent fallback: who asks for a shared backend must not get a private one.
fn refuse_unbuilt_backends(top: &Section<'_>, environment: &Environment, report: &mut Report) {
    for (variable, section, key, what) in UNBUILT_BACKENDS {
        let known = match section {
            "database" => schema::DATABASE,
            "redis" => schema::REDIS,
            _ => schema::S3,
        };
        let why = format!(
            "{what} is not built in this version of larder, and the embedded default would not be what you asked for"
        );
        if environment.get(variable).is_some() {
            report.error(
                None,
                format!(
                    "{variable} is set, but {why}: unset it to run on the data directory alone"
                ),
            );
        }
        let fields = top.section(section, known, report);
        if let Some((text, place)) = fields.and_then(|fields| fields.text(key, report))
            && !text.is_empty()
        {
            report.error(place, format!("`{section}.{key}` is set, but {why}: remove it to run on the data directory alone"));
        }
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

/// A setting that may be given more than once, each item with its name in messages: of the flag, else of the variable (separated by
/// commas), else of the file.
fn items_of<'a>(
    top: &Section<'a>,
    key: &'a str,
    (flag, given): (&'a str, &'a [String]),
    (variable, environment): (&'a str, &'a Environment),
    report: &mut Report,
) -> Option<Vec<(&'a str, &'a str, Option<&'a Place>)>> {
    let from_file = top.one_or_more(key, report);
    if !given.is_empty() {
        return Some(
            given
                .iter()
                .map(|text| (text.as_str(), flag, None))
                .collect(),
        );
    }
    if let Some(list) = environment.get(variable) {
        return Some(
            list.split(',')
                .map(|text| (text.trim(), variable, None))
                .collect(),
        );
    }
    let items: Vec<_> = from_file?
        .into_iter()
        .map(|(text, place)| (text, key, Some(place)))
        .collect();
    if items.is_empty() {
        report.error(
            top.key_place(key),
            format!("`{key}` is an empty list: name at least one address"),
        );
    }
    Some(items)
}

fn listen(top: &Section<'_>, sources: &Sources, report: &mut Report) -> Vec<SocketAddr> {
    let texts = items_of(
        top,
        "listen",
        ("--listen", &sources.listen),
        ("LARDER_LISTEN", &sources.environment),
        report,
    );
    let texts = texts.unwrap_or_else(|| vec![("127.0.0.1:8000", "listen", None)]);
    let mut addresses = Vec::new();
    for (text, name, place) in texts {
        match listen_address(text) {
            Ok(address) if address.port() != 0 && addresses.contains(&address) => {
                report.error(
                    place,
                    format!("{name}: {text:?} stands twice: an address can be listened on once"),
                );
            }
            Ok(address) => addresses.push(address),
            Err(why) => report.error(place, format!("{name}: {why}")),
        }
    }
    addresses
}

fn data_dir(top: &Section<'_>, sources: &Sources, report: &mut Report) -> Option<PathBuf> {
    let from_file = top
        .text("data_dir", report)
        .map(|(path, place)| beside(Path::new(&*place.file), path));
    let chosen = sources
        .data_dir
        .clone()
        .or_else(|| {
            sources
                .environment
                .get("LARDER_DATA_DIR")
                .map(PathBuf::from)
        })
        .or(from_file)
        .or_else(|| sources.environment.default_data_dir());
    if chosen.is_none() {
        report.error(
            None,
            "no data directory: set --data-dir, LARDER_DATA_DIR or `data_dir`, for neither XDG_DATA_HOME nor HOME is set",
        );
    }
    // A shell takes `~` for the home directory, and only at the beginning of a word of its own.
    if let Some(path) = chosen
        .as_deref()
        .filter(|path| path.components().any(|part| part.as_os_str() == "~"))
    {
        report.error(
            top.key_place("data_dir"),
            format!(
                "the data directory {}: `~` is no home directory here: write the whole path",
                path.display()
            ),
        );
    }
    chosen
}

fn public_urls(top: &Section<'_>, sources: &Sources, report: &mut Report) -> PublicUrls {
    let (flag, variable) = (
        ("--public-url", sources.public_url.as_slice()),
        ("LARDER_PUBLIC_URL", &sources.environment),
    );
    let mut urls: Vec<Url> = Vec::new();
    for (text, name, place) in
        items_of(top, "public_url", flag, variable, report).unwrap_or_default()
    {
        match root_url(text) {
            Ok(url) if urls.iter().any(|other| other.origin() == url.origin()) => {
                let why = "names a scheme, host and port twice: a request's Host could not choose between them";
                report.error(place, format!("{name} {why}"));
            }
            Ok(url) => urls.push(url),
            Err(why) => report.error(place, format!("{name} {why}")),
        }
    }
    PublicUrls::new(urls)
}

fn trusted_proxies(top: &Section<'_>, report: &mut Report) -> Vec<IpNet> {
    let mut proxies = Vec::new();
    for (text, place) in top
        .one_or_more("trusted_proxies", report)
        .unwrap_or_default()
    {
        match network(text) {
            Some(network) => proxies.push(network.trunc()),
            None => report.error(
                place,
                format!(
                    "`trusted_proxies`: {text:?} is not an address or a network such as 10.0.0.0/8"
                ),
            ),
        }
    }
    proxies
}

fn tls(top: &Section<'_>, report: &mut Report) -> Option<Tls> {
    let section = top.section("tls", schema::TLS, report)?;
    let mut file = |key| {
        let Some((path, place)) = section.text(key, report) else {
            report.error(
                top.key_place("tls"),
                format!("`tls` needs `cert` and `key`; `{key}` is missing"),
            );
            return None;
        };
        let path = beside(Path::new(&*place.file), path);
        if !path.is_file() {
            report.error(
                place,
                format!("`tls.{key}`: {} is not a file", path.display()),
            );
        }
        Some(path)
    };
    let (cert, key) = (file("cert"), file("key"));
    Some(Tls {
        cert: cert?,
        key: key?,
    })
}

fn admin_token(
    top: &Section<'_>,
    sources: &Sources,
    report: &mut Report,
) -> Option<Secret<String>> {
    let section = top.section("auth", schema::AUTH, report);
    let from_file = section
        .and_then(|section| section.text("admin_token", report))
        .map(|(text, _)| text.to_owned());
    let from_flag =
        sources
            .admin_token_file
            .as_deref()
            .map(|path| match std::fs::read_to_string(path) {
                Ok(text) => text.trim().to_owned(),
                Err(error) => {
                    report.error(
                        None,
                        format!(
                            "--admin-token-file: cannot read {}: {error}",
                            path.display()
                        ),
                    );
                    "unread-but-reported".to_owned()
                }
            });
    let from_flag = from_flag.map(|token| (token, "--admin-token-file", None));
    let from_variable = || {
        Some((
            sources.environment.get("LARDER_ADMIN_TOKEN")?.to_owned(),
            "LARDER_ADMIN_TOKEN",
            None,
        ))
    };
    let place = top.key_place("auth");
    let (token, whence, place) = from_flag
        .or_else(from_variable)
        .or_else(|| from_file.map(|token| (token, "`auth.admin_token`", place)))?;
    // RFC 6750 section 2.1: what may follow `Bearer`.
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
    if token == REDACTED {
        // Reported with the references.
    } else if token.is_empty() || !token.bytes().all(legal) {
        let form = "the admin token must be letters, digits and - . _ ~ + / = (it follows `Bearer` in a header), and not empty";
        report.error(place, format!("{whence}: {form}"));
    } else if token.len() < 16 {
        report.warning(
            place,
            format!("{whence}: the admin token is shorter than 16 characters: anyone who reaches larder may guess it"),
        );
    }
    Some(Secret::new(token))
}

fn limits(top: &Section<'_>, report: &mut Report) -> Limits {
    let mut limits = Limits::default();
    if let Some(section) = top.section("limits", schema::LIMITS, report) {
        limits.document_size = section
            .size("document_size", report)
            .unwrap_or(limits.document_size);
        let connections = section.number("connections", 1, 1_000_000, report);
        let downloads = section.number("downloads", 1, 100_000, report);
        limits.connections = connections.map_or(limits.connections, |n| n as usize);
        limits.downloads = downloads.map_or(limits.downloads, |n| n as usize);
    }
    limits
}
