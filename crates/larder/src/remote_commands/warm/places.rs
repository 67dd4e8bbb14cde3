//! Which path of a repository is meant by a URL: one of this repository, under whatever name larder has there, or one of its upstream.

use std::collections::BTreeSet;

use larder_core::{ArtifactPath, PathError, PathRules, fold_segments};
use serde_json::{Map, Value};
use url::Url;

use super::super::server::Server;
use super::super::shown::meant;
use crate::config::docker_hub_hosts;

/// What leads to a repository.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) repository: String,
    /// Larder's names, as far as the configuration may be read: the one that is asked, and those of `public_url`.
    own: Vec<Url>,
    /// Where the upstream is, as far as the configuration may be read.
    upstreams: Vec<Url>,
    /// Of the repository that `docker_default_remote` names: the names of all docker repositories, which are never of an image of it.
    registries: Option<BTreeSet<String>>,
    /// The virtual repositories that it is in, and itself if it is one.
    within: BTreeSet<String>,
    /// Whether it is one: what it shows is its members'.
    pub(super) is_virtual: bool,
}

/// Why a place is no path of the repository, as a clause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Astray {
    /// It is somewhere else, so that the repository is not asked for it.
    Elsewhere(String),
    /// It is of the repository, but nothing that a job could fetch.
    Unusable(String),
}

impl Astray {
    pub(super) fn why(self) -> String {
        match self {
            Self::Elsewhere(why) | Self::Unusable(why) => why,
        }
    }
}

impl Places {
    /// Of a repository; its upstream is in the configuration, which not everybody may read.
    pub(super) async fn of(server: &Server, repository: &str, is_virtual: bool) -> Self {
        let config = server.ask("GET", server.url(&["config"], &[])).await;
        let config = config.unwrap_or_default();
        let remotes = config.get("remotes").and_then(Value::as_object);
        let entry = remotes.and_then(|remotes| remotes.get(repository));
        let urls = |at: Option<&Value>, key: &str| -> Vec<Url> {
            let urls = match at.and_then(|at| at.get(key)) {
                Some(Value::Array(urls)) => urls.iter().collect::<Vec<_>>(),
                one => one.into_iter().collect(),
            };
            let urls = urls.into_iter().filter_map(Value::as_str);
            urls.filter_map(|url| Url::parse(url).ok()).collect()
        };
        let is_default = config.get("docker_default_remote").and_then(Value::as_str);
        let is_docker =
            |entry: &Value| entry.get("package").and_then(Value::as_str) == Some("docker");
        let registries = is_default.filter(|name| *name == repository).map(|_| {
            let docker = remotes.into_iter().flatten();
            let docker = docker.filter(|(_, entry)| is_docker(entry));
            docker.map(|(name, _)| name.clone()).collect()
        });
        let mut within = containing(remotes, repository);
        within.extend(is_virtual.then(|| repository.to_owned()));
        Self {
            repository: repository.to_owned(),
            own: [vec![server.base.clone()], urls(Some(&config), "public_url")].concat(),
            upstreams: [urls(entry, "base_url"), urls(entry, "base_urls")].concat(),
            registries,
            within,
            is_virtual,
        }
    }

    /// The decoded path that a URL, or a path as `larder ls` shows it, means in a list.
    ///
    /// # Errors
    /// It means none.
    pub(super) fn path_of(&self, text: &str) -> Result<String, Astray> {
        if text.contains("://") {
            return self.path_of_url(text);
        }
        let path = meant(text);
        usable(
            ArtifactPath::from_decoded(&fold_segments(&path)),
            "it is empty",
        )
    }

    /// The decoded path that a URL means.
    ///
    /// # Errors
    /// It means none.
    pub(super) fn path_of_url(&self, text: &str) -> Result<String, Astray> {
        // Where URLs are read, tabs and line ends are taken out.
        if text.contains(char::is_control) {
            return Err(Astray::Unusable("it has a control character".to_owned()));
        }
        let url = Url::parse(text).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url
            .ok_or_else(|| Astray::Elsewhere("it is no URL of a server that larder asks".into()))?;
        let below = self.below(&url).map_err(Astray::Elsewhere)?;
        if url.query().is_some() {
            let why = "it has a query; jobs fetch paths without one";
            return Err(Astray::Unusable(why.to_owned()));
        }
        let path = ArtifactPath::parse(below, RULES);
        usable(path, "it is the repository itself")
    }

    /// The decoded path of a tarball, which lock files name by a URL, or by an encoded path of the registry. Registries give it whatever
    /// the query is.
    ///
    /// # Errors
    /// It means none.
    pub(super) fn path_of_tarball(&self, text: &str) -> Result<String, Astray> {
        let bare = text.split(['?', '#']).next().unwrap_or_default();
        if bare.contains("://") {
            return self.path_of_url(bare);
        }
        usable(ArtifactPath::parse(bare, RULES), "it is empty")
    }

    /// What of a URL is below the repository.
    fn below<'u>(&self, url: &'u Url) -> Result<&'u str, String> {
        let is_own = self.own.iter().any(|own| own.origin() == url.origin());
        let path = url.path();
        for root in ["/api/v1/remote/", "/v2/"] {
            let own = format!("{root}{}/", self.repository);
            if let Some(at) = path.find(&own)
                && (root != "/v2/" || is_own)
            {
                return Ok(&path[at + own.len()..]);
            }
        }
        for name in &self.within {
            let root = format!("/api/v1/virtual/{name}/");
            if let Some(at) = path.find(&root) {
                let below = &path[at + root.len()..];
                // A link that has its member in it.
                let Some(of_member) = below.strip_prefix(MEMBER) else {
                    return Ok(below);
                };
                let own = of_member.strip_prefix(&*self.repository);
                let another =
                    || format!("it is of another member of {name} than {}", self.repository);
                return own
                    .and_then(|own| own.strip_prefix('/'))
                    .ok_or_else(another);
            }
        }
        for upstream in &self.upstreams {
            let is_same = (url.host_str(), url.port_or_known_default())
                == (upstream.host_str(), upstream.port_or_known_default());
            let root = upstream.path().trim_end_matches('/');
            if is_same
                && let Some(below) = path.strip_prefix(root)
                && let Some(below) = below.strip_prefix('/')
            {
                return Ok(below);
            }
        }
        let host = url.host_str().unwrap_or_default();
        Err(format!(
            "it is at {host}, which is neither {} nor its upstream",
            self.repository
        ))
    }

    /// Whether a chart repository's address is that of this repository, of its upstream, or of a virtual repository that it is in.
    pub(super) fn is_root(&self, text: &str) -> bool {
        let text = format!("{}/", text.trim_end_matches('/'));
        Url::parse(&text).is_ok_and(|url| self.below(&url) == Ok(""))
    }

    /// Whether it is that of a virtual repository that this one is in: what is there may be another member's.
    pub(super) fn is_wider(&self, text: &str) -> bool {
        let text = format!("{}/", text.trim_end_matches('/'));
        let own = format!("/api/v1/virtual/{}/", self.repository);
        self.is_root(&text) && text.contains("/api/v1/virtual/") && !text.contains(&own)
    }

    /// The name of an image in the repository, of one that may begin with the name of a registry.
    ///
    /// # Errors
    /// That is another registry; why, as a clause.
    pub(super) fn image<'n>(&self, name: &'n str) -> Result<&'n str, String> {
        let Some((host, rest)) = name.split_once('/') else {
            return Ok(name);
        };
        if !crate::lockfiles::is_registry(host) {
            return Ok(name);
        }
        if self
            .own
            .iter()
            .any(|own| authority(own) == usual(own, host))
        {
            let (first, image) = rest.split_once('/').unwrap_or((rest, ""));
            if first == self.repository && !image.is_empty() {
                return Ok(image);
            }
            let registries = self.registries.as_ref();
            return match registries.filter(|registries| !registries.contains(first)) {
                Some(_) => Ok(rest),
                None => Err(format!(
                    "it is of another repository than {}",
                    self.repository
                )),
            };
        }
        let mut at_host = self.upstreams.iter().filter(|url| is_called(url, host));
        let Some(first) = at_host.next() else {
            return Err(format!(
                "it is of the registry {host}, which is not the upstream of {}",
                self.repository
            ));
        };
        let mut bases = std::iter::once(first).chain(at_host).map(namespace);
        let below = |base: &str| match base {
            "" => Some(rest),
            base => rest.strip_prefix(base)?.strip_prefix('/'),
        };
        bases.find_map(below).ok_or_else(|| {
            let (part, name) = (namespace(first), &self.repository);
            format!("it is not below {host}/{part}, where the upstream of {name} is")
        })
    }
}

/// What stands before a member's name in the paths of a virtual repository.
pub(super) const MEMBER: &str = "_m/";

/// An npm package's name may encode its slash.
pub(super) const RULES: PathRules = PathRules {
    encoded_scope_slash: true,
};

/// The decoded path of a URL, wherever that leads.
pub(super) fn decoded_path(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    // Below a registry's own path, the slash of a scope is one, too.
    let path = url.path().replace("%2f", "/").replace("%2F", "/");
    let path = ArtifactPath::parse(path.trim_start_matches('/'), RULES).ok()?;
    Some(path.as_str().to_owned())
}

pub(super) fn usable(
    path: Result<ArtifactPath, PathError>,
    if_root: &str,
) -> Result<String, Astray> {
    match path {
        Ok(path) if path.is_root() => Err(Astray::Unusable(if_root.to_owned())),
        Ok(path) => Ok(path.as_str().to_owned()),
        Err(error) => Err(Astray::Unusable(error.to_string())),
    }
}

/// The virtual repositories that a repository is in, maybe within others.
fn containing(remotes: Option<&Map<String, Value>>, repository: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![repository.to_owned()];
    while let Some(member) = open.pop() {
        for (name, entry) in remotes.into_iter().flatten() {
            let members = entry.get("members").and_then(Value::as_array);
            let is_in = members.into_iter().flatten().any(|other| other == &*member);
            if is_in && found.insert(name.clone()) {
                open.push(name.clone());
            }
        }
    }
    found
}

/// Whether images of a registry may begin with this host. Docker Hub has several; an index may have one of its own, one up from its registry's.
fn is_called(registry: &Url, host: &str) -> bool {
    let (own, host) = (authority(registry), &*usual(registry, host));
    let hub = docker_hub_hosts();
    own == host
        || own.strip_suffix(host).is_some_and(|sub| sub.ends_with('.'))
        || (hub.contains(&&*own) && hub.contains(&host))
}

/// A host in an image's name as a URL of this scheme has it: in small letters, and without the port that is understood.
fn usual(of: &Url, host: &str) -> String {
    let host = host.to_ascii_lowercase();
    let port = match of.scheme() {
        "https" => ":443",
        _ => ":80",
    };
    host.strip_suffix(port).map(str::to_owned).unwrap_or(host)
}

/// What of an image's name stands in a `base_url` that is a part of a registry.
fn namespace(base: &Url) -> &str {
    let path = base.path().strip_prefix("/v2/").unwrap_or_default();
    path.trim_end_matches('/')
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
#[path = "places_tests.rs"]
mod tests;
