//! Which path of a repository is meant by a URL: one of this repository, under whatever name larder has there, or one of its upstream.

use larder_core::{ArtifactPath, PathRules};
use serde_json::Value;
use url::Url;

use super::super::server::Server;

/// What leads to a repository.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) repository: String,
    /// The larder that is asked.
    own: Url,
    /// Where the upstream is, as far as the configuration may be read.
    upstreams: Vec<Url>,
}

impl Places {
    /// Of a repository; its upstream is in the configuration, which not everybody may read.
    pub(super) async fn of(server: &Server, repository: &str) -> Self {
        let config = server.ask("GET", server.url(&["config"], &[])).await;
        let entry = config.ok().and_then(|config| {
            let entry = config.get("remotes")?.get(repository)?;
            Some(entry.clone())
        });
        let urls = |key: &str| match entry.as_ref().and_then(|entry| entry.get(key)) {
            Some(Value::String(url)) => vec![url.clone()],
            Some(Value::Array(urls)) => {
                let urls = urls.iter().filter_map(Value::as_str);
                urls.map(str::to_owned).collect()
            }
            _ => Vec::new(),
        };
        let upstreams = urls("base_url").into_iter().chain(urls("base_urls"));
        Self {
            repository: repository.to_owned(),
            own: server.base.clone(),
            upstreams: upstreams.filter_map(|url| Url::parse(&url).ok()).collect(),
        }
    }

    /// The decoded path that a URL, or a path as lists show it, means.
    ///
    /// # Errors
    /// It means none; why, as a clause.
    pub(super) fn path_of(&self, text: &str) -> Result<String, String> {
        if !text.contains("://") {
            let path = text.trim_start_matches('/');
            return match ArtifactPath::from_decoded(path) {
                Ok(path) if !path.is_root() => Ok(path.as_str().to_owned()),
                Ok(_) => Err("it is empty".to_owned()),
                Err(error) => Err(error.to_string()),
            };
        }
        let url = Url::parse(text).map_err(|_| "the URL cannot be understood".to_owned())?;
        let below = self.below(&url)?;
        if url.query().is_some() {
            return Err("it has a query; jobs fetch paths without one".to_owned());
        }
        let rules = PathRules {
            encoded_scope_slash: true,
        };
        match ArtifactPath::parse(below, rules) {
            Ok(path) if !path.is_root() => Ok(path.as_str().to_owned()),
            Ok(_) => Err("it is the repository itself".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What of a URL is below the repository.
    fn below<'u>(&self, url: &'u Url) -> Result<&'u str, String> {
        let path = url.path();
        for root in ["/api/v1/remote/", "/v2/"] {
            let own = format!("{root}{}/", self.repository);
            if let Some(at) = path.find(&own)
                && (root != "/v2/" || url.origin() == self.own.origin())
            {
                return Ok(&path[at + own.len()..]);
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

    /// Whether a chart repository's address is that of this repository, or of its upstream.
    pub(super) fn is_root(&self, text: &str) -> bool {
        let text = format!("{}/", text.trim_end_matches('/'));
        Url::parse(&text).is_ok_and(|url| self.below(&url) == Ok(""))
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
        if host == authority(&self.own) {
            let own = rest.split_once('/');
            return match own.filter(|(repository, _)| *repository == self.repository) {
                Some((_, image)) => Ok(image),
                None => Err(format!(
                    "it is of another repository than {}",
                    self.repository
                )),
            };
        }
        // An index may have a name of its own, one up from its registry's.
        let is_upstream = self.upstreams.iter().any(|upstream| {
            let upstream = authority(upstream);
            upstream == host
                || upstream
                    .strip_suffix(host)
                    .is_some_and(|sub| sub.ends_with('.'))
        });
        if is_upstream {
            return Ok(rest);
        }
        Err(format!(
            "it is of the registry {host}, which is not the upstream of {}",
            self.repository
        ))
    }
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(upstream: &str) -> Places {
        Places {
            repository: "files".to_owned(),
            own: Url::parse("http://127.0.0.1:8000/").unwrap(),
            upstreams: vec![Url::parse(upstream).unwrap()],
        }
    }

    #[test]
    fn a_url_of_the_repository_or_of_its_upstream_is_a_path() {
        let places = places("https://files.example.com/pool/");
        for (url, path) in [
            ("a/b.bin", "a/b.bin"),
            ("/a b%20c", "a b%20c"),
            ("https://files.example.com/pool/a%20b/c", "a b/c"),
            ("http://user:x@files.example.com:443/pool/c", "c"),
            ("http://127.0.0.1:8000/api/v1/remote/files/x/y", "x/y"),
            // Under another of larder's names, and behind a path.
            (
                "https://larder.example.com/cache/api/v1/remote/files/@a%2fb",
                "@a/b",
            ),
            (
                "http://127.0.0.1:8000/v2/files/app/manifests/1",
                "app/manifests/1",
            ),
        ] {
            assert_eq!(places.path_of(url).as_deref(), Ok(path), "{url}");
        }
    }

    #[test]
    fn what_is_elsewhere_or_cannot_be_asked_for_is_none() {
        let places = places("https://files.example.com/pool/");
        for (url, word) in [
            ("https://other.example.com/pool/c", "other.example.com"),
            ("https://files.example.com/poolside/c", "neither"),
            ("http://127.0.0.1:8000/api/v1/remote/other/x", "neither"),
            ("https://files.example.com/pool/c?token=canary", "query"),
            ("https://files.example.com/pool/", "itself"),
            ("https://files.example.com/pool/a%2fb", "slash"),
            ("", "empty"),
        ] {
            let why = places.path_of(url).expect_err(url);
            assert!(
                why.contains(word) && !why.contains("canary"),
                "{url}: {why}"
            );
        }
    }

    #[test]
    fn images_may_begin_with_the_names_of_larder_and_of_the_upstream() {
        let places = places("https://registry-1.hub.example.com/");
        for (name, image) in [
            ("team/app", "team/app"),
            ("app", "app"),
            ("127.0.0.1:8000/files/team/app", "team/app"),
            ("hub.example.com/library/app", "library/app"),
            ("registry-1.hub.example.com/app", "app"),
        ] {
            assert_eq!(places.image(name), Ok(image), "{name}");
        }
        for name in [
            "127.0.0.1:8000/other/app",
            "ub.example.com/app",
            "example.org/app",
        ] {
            places.image(name).expect_err(name);
        }
    }

    #[test]
    fn a_chart_repository_is_known_by_its_address() {
        let places = places("https://charts.example.com/stable");
        for own in [
            "https://charts.example.com/stable/",
            "https://charts.example.com/stable",
            "https://larder.example.com/api/v1/remote/files",
        ] {
            assert!(places.is_root(own), "{own}");
        }
        assert!(!places.is_root("https://charts.example.com/other"));
    }
}
