//! Where a client sees a repository.

use std::borrow::Cow;

use crate::{PublicUrls, RepositoryKind};

/// The URL prefix under which one client sees one repository. Whatever makes links into the repository, or redirects within it, puts
/// this in front of the path and spells no URL of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount<'a> {
    /// `http://host:port` as the client sees it, no trailing slash. It chooses among the configured public URLs; one that is configured
    /// takes its place.
    pub base: &'a str,
    /// The path below `base` and below the path of a public URL: `/api/v1/remote/NAME`, no trailing slash. Empty where the repository has
    /// a host name of its own.
    pub prefix: Cow<'a, str>,
}

impl<'a> Mount<'a> {
    /// The prefix below which every repository of a kind is found: `/api/v1/virtual/NAME` or `/api/v1/remote/NAME`.
    pub fn api(base: &'a str, kind: RepositoryKind, repository: &str) -> Self {
        let word = match kind {
            RepositoryKind::Virtual => "virtual",
            RepositoryKind::Remote | RepositoryKind::Local => "remote",
        };
        Self {
            base,
            prefix: Cow::Owned(format!("/api/v1/{word}/{repository}")),
        }
    }

    /// The part of a request's raw path that stands before the path below the repository: `/v2/NAME`, `/v2`, `/NAME/v2`.
    pub fn at(base: &'a str, prefix: &'a str) -> Self {
        Self {
            base,
            prefix: Cow::Borrowed(prefix.trim_end_matches('/')),
        }
    }

    /// Where the same client sees another repository, by its prefix of the API.
    pub fn beside(&self, kind: RepositoryKind, repository: &str) -> Mount<'a> {
        Self::api(self.base, kind, repository)
    }

    /// The prefix as a path, that of the public URL included: what a `Location` begins with. No trailing slash.
    pub fn path(&self, public: &PublicUrls) -> String {
        let root = public
            .of_client(self.base)
            .map_or("", |url| url.path().trim_end_matches('/'));
        format!("{root}{}", self.prefix)
    }

    /// The prefix as a URL with scheme and host: the public URL's, else those that the client used. No trailing slash.
    pub fn url(&self, public: &PublicUrls) -> String {
        let root = public
            .of_client(self.base)
            .map_or(self.base, |url| url.as_str().trim_end_matches('/'));
        format!("{root}{}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_a_path_and_a_url_below_the_public_url_where_there_is_one() {
        let none = PublicUrls::default();
        let below = PublicUrls::new(vec!["https://larder.example/cache/".parse().unwrap()]);
        let seen = Mount::api("http://127.0.0.1:8000", RepositoryKind::Remote, "npm");
        assert_eq!(seen.path(&none), "/api/v1/remote/npm");
        assert_eq!(seen.url(&none), "http://127.0.0.1:8000/api/v1/remote/npm");
        assert_eq!(seen.path(&below), "/cache/api/v1/remote/npm");
        assert_eq!(
            seen.url(&below),
            "https://larder.example/cache/api/v1/remote/npm"
        );
        let beside = seen.beside(RepositoryKind::Virtual, "all");
        assert_eq!(beside.path(&none), "/api/v1/virtual/all");
        let local = Mount::api("http://a", RepositoryKind::Local, "uploads");
        assert_eq!(local.path(&none), "/api/v1/remote/uploads");
    }

    #[test]
    fn a_repository_on_a_host_name_of_its_own_begins_at_the_root() {
        let none = PublicUrls::default();
        let own = Mount::at("http://npm.example", "/");
        assert_eq!(
            (own.path(&none), own.url(&none)),
            (String::new(), "http://npm.example".to_owned())
        );
        assert_eq!(Mount::at("http://a", "/v2/hub/").path(&none), "/v2/hub");
    }
}
