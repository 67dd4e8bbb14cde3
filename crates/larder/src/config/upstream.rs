//! The keys of a remote that say how its upstream is reached.

use std::path::{Path, PathBuf};
use std::time::Duration;

use larder_core::{
    Credentials, PackageType, ProxyRules, RequestLimits, Secret, UpstreamAuth, UpstreamSettings,
};
use url::Url;

use super::bounds;
use super::defaults;
use super::diagnostic::{Place, Report};
use super::fields::Section;
use super::file::beside;
use super::proxies;
use super::request_limits;
use super::schema;
use super::urls::{link_host, private_address, proxy_url, root_url};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// What holds for all upstreams whose remotes say nothing else.
#[derive(Debug, Clone, Copy)]
pub(super) struct ForAll<'a> {
    proxy: Option<&'a ProxyRules>,
    limits: RequestLimits,
}

impl<'a> ForAll<'a> {
    pub(super) fn new(proxy: Option<&'a ProxyRules>, limits: RequestLimits) -> Self {
        Self { proxy, limits }
    }
}

/// Reads them all; `None` without a usable root.
pub(super) fn upstream(
    section: &Section<'_>,
    package: PackageType,
    place: &Place,
    for_all: ForAll<'_>,
    report: &mut Report,
) -> Option<UpstreamSettings> {
    let roots = roots(section, package, place, report);
    let credentials = credentials(section, report);
    let auth = auth(section, package, report);
    let headers = headers(section, report);
    let timeouts = section.section("timeouts", schema::TIMEOUTS, report);
    let mut seconds = |key| {
        timeouts
            .as_ref()
            .and_then(|timeouts| timeouts.seconds(key, 1, report))
    };
    let (connect_timeout, read_timeout) = (
        seconds("connect").unwrap_or(CONNECT_TIMEOUT),
        seconds("read").unwrap_or(READ_TIMEOUT),
    );
    let allow_private = each(section, "allow_private", private_address, report).unwrap_or_default();
    let link_hosts = each(section, "link_hosts", link_host, report);
    let ca_file = ca_file(section, report);
    let proxy = match section.text("proxy", report) {
        None => for_all.proxy.cloned(),
        Some((text, _)) if proxies::is_off(text) => None,
        Some((text, place)) => {
            let url = proxy_url(text)
                .map_err(|why| report.error(place, format!("`{}` {why}", section.path("proxy"))));
            url.ok().map(ProxyRules::for_everything)
        }
    };
    let offline = section.truth("offline", report).unwrap_or(false);
    let max_size = section.size("max_size", report);
    let max_disk = bounds::max_disk(section, report);
    let limits = request_limits::of_one(section, for_all.limits, report);
    let (base_urls, index_url) = roots?;
    // What stands beside the hub is a mirror of it, wherever in the list the hub is.
    let is_hub = package == PackageType::Docker && base_urls.iter().any(defaults::is_docker_hub);
    let default_namespace = is_hub.then(|| defaults::docker_hub().1.to_owned());
    Some(UpstreamSettings {
        base_urls,
        index_url,
        credentials,
        auth,
        default_namespace,
        headers,
        connect_timeout,
        read_timeout,
        allow_private,
        link_hosts,
        ca_file,
        proxy,
        offline,
        max_size,
        max_disk,
        limits,
    })
}

/// The path of `ca_file`, whose certificates were read once to see that they can be.
fn ca_file(section: &Section<'_>, report: &mut Report) -> Option<PathBuf> {
    let (path, place) = section.text("ca_file", report)?;
    let path = beside(Path::new(&*place.file), path);
    let key = section.path("ca_file");
    if !path.is_file() {
        report.error(place, format!("`{key}`: {} is not a file", path.display()));
    } else if let Err(why) = larder_upstream::check_ca_file(&path) {
        report.error(place, format!("`{key}`: {} {why}", path.display()));
    }
    Some(path)
}

/// The items of a list, each through `read`.
fn each<T>(
    section: &Section<'_>,
    key: &str,
    read: fn(&str) -> Result<T, String>,
    report: &mut Report,
) -> Option<Vec<T>> {
    let items = section.node(key).and_then(|_| section.list(key, report))?;
    let mut values = Vec::with_capacity(items.len());
    for (text, place) in items {
        match read(text) {
            Ok(value) => values.push(value),
            Err(why) => report.error(place, format!("`{}`: {why}", section.path(key))),
        }
    }
    Some(values)
}

/// The roots of the files, and the root of the index.
fn roots(
    section: &Section<'_>,
    package: PackageType,
    place: &Place,
    report: &mut Report,
) -> Option<(Vec<Url>, Url)> {
    let base_urls = base_urls(section, package, place, report);
    let index_url = section.text("index_url", report).and_then(|(text, place)| {
        if package != PackageType::Pypi {
            report.warning(
                place,
                format!(
                    "`{}` has no effect: only pypi has an index of its own",
                    section.path("index_url")
                ),
            );
        }
        root_url(text)
            .map_err(|why| report.error(place, format!("`{}` {why}", section.path("index_url"))))
            .ok()
    });
    let mut base_urls = base_urls?;
    if package == PackageType::Docker {
        base_urls = with_the_hub_s_registry(base_urls);
    }
    let first = base_urls.first()?.clone();
    if package != PackageType::Pypi {
        return Some((base_urls, first));
    }
    if base_urls.len() > 1 && base_urls.iter().any(defaults::is_public_pypi) {
        let why = "PyPI's public hosts cannot be one of several mirrors, for their pages and files live apart";
        let advice = "give them a repository of their own";
        report.error(
            section.key_place("base_url").unwrap_or(place),
            format!("`{}`: {why}: {advice}", section.path("base_url")),
        );
    }
    // PyPI's pages and files live on two hosts, whichever of them `base_url` names (contract, section 4).
    if defaults::is_public_pypi(&first) {
        let (simple, files) = defaults::public_pypi();
        base_urls = vec![Url::parse(files).ok()?];
        return Some((base_urls, index_url.or_else(|| Url::parse(simple).ok())?));
    }
    if index_url.is_none() && first.path().ends_with("/simple/") {
        let advice = "leave `/simple` out of base_url, or set index_url";
        report.warning(
            section.key_place("base_url"),
            format!("the index is looked for below {first}simple/: {advice}"),
        );
    }
    let index_url = index_url.or_else(|| first.join("simple/").ok())?;
    Some((base_urls, index_url))
}

/// The hub has one registry under several names, of which some only lead to web pages.
fn with_the_hub_s_registry(base_urls: Vec<Url>) -> Vec<Url> {
    let mut named = Vec::with_capacity(base_urls.len());
    for url in base_urls {
        let registry = Url::parse(defaults::docker_hub().0).ok();
        let url = registry
            .filter(|_| defaults::is_docker_hub(&url))
            .unwrap_or(url);
        if !named.contains(&url) {
            named.push(url);
        }
    }
    named
}

fn base_urls(
    section: &Section<'_>,
    package: PackageType,
    place: &Place,
    report: &mut Report,
) -> Option<Vec<Url>> {
    let path = section.path("base_url");
    let Some(texts) = section.one_or_more("base_url", report) else {
        let public =
            defaults::public_registry(package).filter(|_| section.node("base_url").is_none());
        // Of one that is there and misspelt, all has been said.
        let is_misspelt = || section.misspells("base_url", schema::REPOSITORY);
        if section.node("base_url").is_none() && public.is_none() && !is_misspelt() {
            let package = package.as_str();
            report.error(
                place,
                format!(
                    "`{path}` is missing: {package} has no single public registry to fall back on"
                ),
            );
        }
        return public
            .and_then(|url| Url::parse(url).ok())
            .map(|url| vec![url]);
    };
    if texts.is_empty() {
        report.error(
            section.key_place("base_url"),
            format!("`{path}` is an empty list: name at least one address"),
        );
    }
    let mut urls = Vec::with_capacity(texts.len());
    for (text, place) in &texts {
        match root_url(text) {
            Ok(url) => urls.push(url),
            Err(why) => report.error(*place, format!("`{path}` {why}")),
        }
    }
    (!urls.is_empty() && urls.len() == texts.len()).then_some(urls)
}

fn credentials(section: &Section<'_>, report: &mut Report) -> Option<Credentials> {
    let username = section
        .text("username", report)
        .map(|(text, _)| text)
        .filter(|text| !text.is_empty());
    let password = section
        .text("password", report)
        .map(|(text, _)| text)
        .filter(|text| !text.is_empty());
    match (username, password) {
        (Some(username), password) => {
            if username.contains(':') || username.contains(char::is_control) {
                report.error(
                    section.key_place("username"),
                    format!(
                        "`{}` holds a colon or a control character",
                        section.path("username")
                    ),
                );
            }
            Some(Credentials {
                username: username.to_owned(),
                password: Secret::new(password.unwrap_or_default().to_owned()),
            })
        }
        (None, Some(_)) => {
            report.error(
                section.key_place("password"),
                format!("`{}` without `username`", section.path("password")),
            );
            None
        }
        (None, None) => None,
    }
}

/// Container registries say by a 401 what they want; all other upstreams are told at once.
fn auth(section: &Section<'_>, package: PackageType, report: &mut Report) -> UpstreamAuth {
    let token_hosts = each(section, "token_hosts", link_host, report);
    if package == PackageType::Docker {
        return UpstreamAuth::Challenge {
            token_hosts: token_hosts.unwrap_or_default(),
        };
    }
    if token_hosts.is_some() {
        let place = section.key_place("token_hosts");
        report.warning(
            place,
            format!(
                "`{}` has no effect: only docker upstreams want tokens",
                section.path("token_hosts")
            ),
        );
    }
    UpstreamAuth::Basic
}

/// Header fields that larder sets itself, or whose change would break caching or framing.
const OWN_HEADERS: &[&str] = &[
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "range",
    "if-range",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
    "accept-encoding",
    "expect",
    "proxy-authorization",
];

fn headers(section: &Section<'_>, report: &mut Report) -> Vec<(String, Secret<String>)> {
    let Some(node) = section.node("headers") else {
        return Vec::new();
    };
    let names: Vec<&str> = node
        .entries()
        .iter()
        .map(|entry| entry.key.as_str())
        .collect();
    // The names are the operator's own, so that none is unknown; a section is opened to check the shape.
    let fields = Section::open(node, section.path("headers"), &names, report);
    let mut headers = Vec::new();
    for entry in node.entries() {
        let path = fields.path(&entry.key);
        let Some((text, place)) = fields.text(&entry.key, report) else {
            continue;
        };
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if entry.key.is_empty() || !entry.key.bytes().all(token) {
            report.error(
                &entry.place,
                format!("`{path}` is not the name of a header field"),
            );
        } else if OWN_HEADERS.contains(&entry.key.to_ascii_lowercase().as_str()) {
            report.error(&entry.place, format!("`{path}` is set by larder itself"));
        } else {
            if text.contains(char::is_control) {
                report.error(place, format!("`{path}` holds a control character"));
            }
            headers.push((entry.key.clone(), Secret::new(text.to_owned())));
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_root() {
        for package in PackageType::ALL {
            if let Some(url) = defaults::public_registry(package) {
                assert_eq!(root_url(url).map(String::from).as_deref(), Ok(url));
            }
        }
        let (hub, _) = defaults::docker_hub();
        assert!(defaults::is_docker_hub(&root_url(hub).unwrap()));
        let (simple, files) = defaults::public_pypi();
        assert!(
            defaults::is_public_pypi(&root_url(simple).unwrap())
                && defaults::is_public_pypi(&root_url(files).unwrap())
        );
    }
}
