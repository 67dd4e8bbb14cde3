//! What a decoded path within an npm repository names (docs/reference/protocols/npm.md, section 1). Knows no method, query or header.

use super::name::{PackageName, is_version, is_version_or_tag};

/// A path of the registry API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route<'p> {
    /// `{pkg}`
    Packument(PackageName<'p>),
    /// `{pkg}/{version or tag}`
    Manifest(PackageName<'p>, &'p str),
    /// `{pkg}/-/{base}-{version}.tgz`, with its version.
    Tarball(PackageName<'p>, &'p str),
    /// `-/package/{pkg}/dist-tags`
    DistTags(PackageName<'p>),
    /// `-/v1/search`
    Search,
    /// `-/npm/v1/keys`
    Keys,
    /// `-/npm/v1/attestations/{pkg}@{version}`
    Attestations(PackageName<'p>, &'p str),
    /// `-/npm/v1/security/advisories/bulk` and its two forerunners.
    Audit,
    /// `-/ping`
    Ping,
    /// `-/whoami`, `-/npm/v1/user`, `-/npm/v1/tokens…`: there is nobody to tell about.
    Account,
    /// `-/v1/login…`, `-/user/…`: there is nowhere to log in.
    Login,
}

/// Why a path names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unroutable {
    /// The package name breaks the grammar.
    Name,
    /// The version or tag breaks the grammar.
    Version,
    /// The file is not a tarball of the package in front of it.
    File,
    /// No such endpoint, or not offered by a remote repository.
    Endpoint,
}

impl<'p> Route<'p> {
    /// Parses a decoded path without a leading slash; one trailing slash means nothing.
    pub(super) fn parse(path: &'p str) -> Result<Self, Unroutable> {
        let path = path.strip_suffix('/').unwrap_or(path);
        if let Some(endpoint) = path.strip_prefix("-/") {
            return parse_endpoint(endpoint);
        }
        let (name, rest) = split_name(path);
        let name = PackageName::parse(name).ok_or(if path.is_empty() {
            Unroutable::Endpoint
        } else {
            Unroutable::Name
        })?;
        let Some(rest) = rest else {
            return Ok(Self::Packument(name));
        };
        if let Some(file) = rest.strip_prefix("-/") {
            // `-/{file}/-rev/{rev}` and the like belong to publishing.
            if file.contains('/') {
                return Err(Unroutable::Endpoint);
            }
            return name
                .version_of(file)
                .map(|version| Self::Tarball(name, version))
                .ok_or(Unroutable::File);
        }
        if rest.contains('/') || rest.starts_with('-') {
            return Err(Unroutable::Endpoint);
        }
        if is_version_or_tag(rest) {
            Ok(Self::Manifest(name, rest))
        } else {
            Err(Unroutable::Version)
        }
    }

    /// The decoded path by which records are named: one for all spellings.
    pub(super) fn key_path(self) -> String {
        match self {
            Self::Packument(name) => name.as_str().to_owned(),
            Self::Manifest(name, version) => format!("{}/{version}", name.as_str()),
            Self::Tarball(name, version) => name.tarball(version),
            Self::DistTags(name) => format!("-/package/{}/dist-tags", name.as_str()),
            Self::Attestations(name, version) => {
                format!("-/npm/v1/attestations/{}@{version}", name.as_str())
            }
            Self::Search => "-/v1/search".to_owned(),
            Self::Keys => "-/npm/v1/keys".to_owned(),
            Self::Audit | Self::Ping | Self::Account | Self::Login => String::new(),
        }
    }

    /// The path as it is sent upstream: `@scope%2fname` where the name is one segment of the API, plain in tarballs.
    pub(super) fn upstream_path(self) -> String {
        match self {
            Self::Packument(name) => name.encoded(),
            Self::Manifest(name, version) => format!("{}/{version}", name.encoded()),
            Self::DistTags(name) => format!("-/package/{}/dist-tags", name.encoded()),
            Self::Attestations(name, version) => {
                format!("-/npm/v1/attestations/{}@{version}", name.encoded())
            }
            _ => self.key_path(),
        }
    }
}

/// Whether a decoded path names a tarball: what is immutable in a repository without patterns.
pub(super) fn is_tarball(path: &str) -> bool {
    path.strip_suffix(".tgz")
        .is_some_and(|file| file.contains("/-/"))
}

fn parse_endpoint(endpoint: &str) -> Result<Route<'_>, Unroutable> {
    let below = |prefix: &str| {
        endpoint
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if let Some(subject) = endpoint.strip_prefix("npm/v1/attestations/") {
        // The `@` of the version, not the scope's.
        let at = subject
            .rfind('@')
            .filter(|at| *at > 0)
            .ok_or(Unroutable::Version)?;
        let (name, version) = subject.split_at(at);
        let name = PackageName::parse(name).ok_or(Unroutable::Name)?;
        let version = version
            .get(1..)
            .filter(|version| is_version_or_tag(version))
            .ok_or(Unroutable::Version)?;
        return Ok(Route::Attestations(name, version));
    }
    if let Some(name) = endpoint
        .strip_prefix("package/")
        .and_then(|rest| rest.strip_suffix("/dist-tags"))
    {
        return PackageName::parse(name)
            .map(Route::DistTags)
            .ok_or(Unroutable::Name);
    }
    // The package named `-` stands where the endpoints do; none of those is spelt like a file of it, or like a version.
    if let Some(name) = PackageName::parse("-") {
        if let Some(version) = endpoint
            .strip_prefix("-/")
            .and_then(|file| name.version_of(file))
        {
            return Ok(Route::Tarball(name, version));
        }
        if is_version(endpoint) {
            return Ok(Route::Manifest(name, endpoint));
        }
    }
    match endpoint {
        "v1/search" => Ok(Route::Search),
        "npm/v1/keys" => Ok(Route::Keys),
        "npm/v1/security/advisories/bulk"
        | "npm/v1/security/audits/quick"
        | "npm/v1/security/audits" => Ok(Route::Audit),
        "ping" => Ok(Route::Ping),
        "whoami" => Ok(Route::Account),
        _ if below("npm/v1/user") || below("npm/v1/tokens") => Ok(Route::Account),
        _ if below("v1/login") || below("v1/done") || below("user") => Ok(Route::Login),
        _ => Err(Unroutable::Endpoint),
    }
}

/// The package name at the front of a path, and what follows the slash behind it.
fn split_name(path: &str) -> (&str, Option<&str>) {
    let from = if path.starts_with('@') {
        path.find('/').map_or(path.len(), |slash| slash + 1)
    } else {
        0
    };
    match path.get(from..).and_then(|rest| rest.find('/')) {
        Some(slash) => (
            path.get(..from + slash).unwrap_or(path),
            path.get(from + slash + 1..),
        ),
        None => (path, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> PackageName<'_> {
        PackageName::parse(text).unwrap()
    }

    #[test]
    fn every_endpoint_of_the_protocol() {
        let cases = [
            ("express", Route::Packument(name("express"))),
            ("express/", Route::Packument(name("express"))),
            ("@babel/core", Route::Packument(name("@babel/core"))),
            ("express/latest", Route::Manifest(name("express"), "latest")),
            (
                "@babel/core/7.26.0",
                Route::Manifest(name("@babel/core"), "7.26.0"),
            ),
            (
                "express/-/express-4.18.2.tgz",
                Route::Tarball(name("express"), "4.18.2"),
            ),
            (
                "@babel/core/-/core-7.26.0.tgz",
                Route::Tarball(name("@babel/core"), "7.26.0"),
            ),
            // The package that is named as the endpoints' first segment is.
            ("-", Route::Packument(name("-"))),
            ("-/0.0.1", Route::Manifest(name("-"), "0.0.1")),
            ("-/-/--0.0.1.tgz", Route::Tarball(name("-"), "0.0.1")),
            (
                "-/package/express/dist-tags",
                Route::DistTags(name("express")),
            ),
            (
                "-/package/@babel/core/dist-tags",
                Route::DistTags(name("@babel/core")),
            ),
            ("-/v1/search", Route::Search),
            ("-/npm/v1/keys", Route::Keys),
            (
                "-/npm/v1/attestations/sigstore@1.4.0",
                Route::Attestations(name("sigstore"), "1.4.0"),
            ),
            (
                "-/npm/v1/attestations/@babel/core@7.26.0",
                Route::Attestations(name("@babel/core"), "7.26.0"),
            ),
            ("-/npm/v1/security/advisories/bulk", Route::Audit),
            ("-/npm/v1/security/audits/quick", Route::Audit),
            ("-/npm/v1/security/audits", Route::Audit),
            ("-/ping", Route::Ping),
            ("-/whoami", Route::Account),
            ("-/npm/v1/user", Route::Account),
            ("-/npm/v1/tokens", Route::Account),
            ("-/npm/v1/tokens/token/abc", Route::Account),
            ("-/v1/login", Route::Login),
            ("-/user/org.couchdb.user:me", Route::Login),
            ("-/user/token/abc", Route::Login),
        ];
        for (path, route) in cases {
            assert_eq!(Route::parse(path), Ok(route), "{path}");
        }
    }

    #[test]
    fn npm_19_paths_that_name_nothing_are_refused() {
        let cases = [
            ("", Unroutable::Endpoint),
            ("@a", Unroutable::Name),
            ("@a/", Unroutable::Name),
            ("@a/b/c/d", Unroutable::Endpoint),
            ("a/b/c", Unroutable::Endpoint),
            (".hidden", Unroutable::Name),
            ("_utils", Unroutable::Name),
            ("a b", Unroutable::Name),
            ("@a/b@1", Unroutable::Name),
            ("express/a b", Unroutable::Version),
            ("express/-/vue-1.0.0.tgz", Unroutable::File),
            ("@a/b/-/a-1.0.0.tgz", Unroutable::File),
            ("express/-/express-latest.tgz", Unroutable::File),
            ("express/-/express-1.0.0.tgz/-rev/1", Unroutable::Endpoint),
            ("express/-rev/1", Unroutable::Endpoint),
            ("express/-rev", Unroutable::Endpoint),
            ("express/-", Unroutable::Endpoint),
            ("-/all", Unroutable::Endpoint),
            ("-/package/express/access", Unroutable::Endpoint),
            ("-/package/express/dist-tags/latest", Unroutable::Endpoint),
            ("-/package/a/b/dist-tags", Unroutable::Name),
            ("-/npm/v1/attestations/@a/b", Unroutable::Version),
            ("-/npm/v1/attestations/a@", Unroutable::Version),
            ("-/npm/v1/attestations/@a/b/c@1.0.0", Unroutable::Name),
            ("-/v1/loginx", Unroutable::Endpoint),
        ];
        for (path, reason) in cases {
            assert_eq!(Route::parse(path), Err(reason), "{path}");
        }
    }

    #[test]
    fn key_paths_parse_back_to_their_route() {
        for path in [
            "express",
            "@b/c",
            "@b/c/latest",
            "@b/c/-/c-1.0.0.tgz",
            "-/package/@b/c/dist-tags",
            "-/npm/v1/attestations/@b/c@1.0.0",
            "-/v1/search",
            "-/npm/v1/keys",
        ] {
            let route = Route::parse(path).unwrap();
            assert_eq!(route.key_path(), path);
            assert_eq!(Route::parse(&route.key_path()), Ok(route));
        }
    }

    #[test]
    fn scopes_are_one_segment_upstream_except_in_tarballs() {
        let upstream = |path| Route::parse(path).unwrap().upstream_path();
        assert_eq!(upstream("@b/c"), "@b%2fc");
        assert_eq!(upstream("@b/c/1.0.0"), "@b%2fc/1.0.0");
        assert_eq!(upstream("@b/c/-/c-1.0.0.tgz"), "@b/c/-/c-1.0.0.tgz");
        assert_eq!(
            upstream("-/package/@b/c/dist-tags"),
            "-/package/@b%2fc/dist-tags"
        );
        assert_eq!(
            upstream("-/npm/v1/attestations/@b/c@1.0.0"),
            "-/npm/v1/attestations/@b%2fc@1.0.0"
        );
    }
}
