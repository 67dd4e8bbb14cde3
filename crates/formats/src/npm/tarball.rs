//! Which of a document's tarballs lead through larder, and under which path (protocols/npm.md sections 3.4 and 3.5).

use std::borrow::Cow;

use url::Url;

use super::name::{PackageName, is_version};
use crate::Links;
use crate::links::{is_absolute, is_clean};

/// Places the tarballs of one package.
#[derive(Debug)]
pub(super) struct Tarballs<'l> {
    package: PackageName<'l>,
    links: &'l Links<'l>,
    /// What a URL starts with that has the conventional path below the repository's root, once one was seen: thousands of
    /// versions then cost a comparison each, not a URL parser.
    root: Option<String>,
}

/// A tarball that larder carries.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Placed<'u> {
    /// The conventional path within the repository, whatever the upstream's own layout is; the same decoded and encoded.
    pub(super) path: String,
    /// Where the file really is.
    pub(super) url: Cow<'u, str>,
}

impl<'l> Tarballs<'l> {
    /// For the versions of `package`.
    pub(super) fn new(package: PackageName<'l>, links: &'l Links<'l>) -> Self {
        Self { package, links, root: None }
    }

    /// `None` if the link must stay as it is: it is no absolute URL, larder may not carry it, or the version has no place in
    /// the conventional layout. Plain http becomes https where the repository speaks https.
    pub(super) fn place<'u>(&mut self, version: &str, link: &'u str) -> Option<Placed<'u>> {
        if !is_version(version) {
            return None;
        }
        let path = self.package.tarball(version);
        let known_root = self.root.as_deref().is_some_and(|root| link.strip_prefix(root) == Some(path.as_str()));
        if known_root {
            return Some(Placed { path, url: Cow::Borrowed(link) });
        }
        let plain = plain_scope(link);
        if !is_absolute(&plain) || !is_clean(&plain) {
            return None;
        }
        let mut url = Url::parse(link).ok()?;
        url.set_fragment(None);
        let mut probe = match &plain {
            Cow::Borrowed(_) => url.clone(),
            Cow::Owned(plain) => Url::parse(plain).ok()?,
        };
        let mut own = self.links.path_of(&probe);
        if own.is_none() && url.scheme() == "http" {
            url.set_scheme("https").ok()?;
            probe.set_scheme("https").ok()?;
            own = self.links.path_of(&probe);
        }
        if own? == path && url.as_str() == link {
            self.root = link.strip_suffix(path.as_str()).map(str::to_owned);
        }
        Some(Placed { path, url: Cow::Owned(url.into()) })
    }
}

/// Some registries encode the slash of a scope in their links too. It means the same, and is the one encoded slash that is
/// no trick.
fn plain_scope(link: &str) -> Cow<'_, str> {
    let Some(at) = link.find("/@") else { return Cow::Borrowed(link) };
    let (before, scope) = link.split_at(at + 1);
    match scope.find(['/', '%', '?', '#']) {
        Some(end) if scope.get(end..end + 3).is_some_and(|slash| slash.eq_ignore_ascii_case("%2f")) => {
            let (scope, rest) = scope.split_at(end);
            Cow::Owned([before, scope, "/", rest.get(3..).unwrap_or_default()].concat())
        }
        _ => Cow::Borrowed(link),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{PLAIN_ROOT, ROOT, links, remote};
    use super::*;

    fn place(root: &str, package: &str, version: &str, link: &str) -> Option<(String, String)> {
        let repository = remote(root);
        let links = links(&repository);
        let mut tarballs = Tarballs::new(PackageName::parse(package).unwrap(), &links);
        let placed = tarballs.place(version, link).map(|p| (p.path, p.url.into_owned()));
        // The second time the answer may come from the remembered root.
        assert_eq!(tarballs.place(version, link).map(|p| (p.path, p.url.into_owned())), placed);
        placed
    }

    #[track_caller]
    fn assert_placed(package: &str, version: &str, link: &str, path: &str, url: &str) {
        assert_eq!(place(ROOT, package, version, link), Some((path.to_owned(), url.to_owned())), "{link}");
    }

    #[test]
    fn the_conventional_layout() {
        let url = "https://registry.example.com/npm/express/-/express-4.18.2.tgz";
        assert_placed("express", "4.18.2", url, "express/-/express-4.18.2.tgz", url);
        let url = "https://registry.example.com/npm/@babel/core/-/core-7.26.0.tgz";
        assert_placed("@babel/core", "7.26.0", url, "@babel/core/-/core-7.26.0.tgz", url);
    }

    #[test]
    fn npm_3_5_other_layouts_and_hosts_keep_their_true_url() {
        for url in [
            "https://registry.example.com/npm/download/@s/n/1.0.0/0123abcd",
            "https://registry.example.com/npm/@s/n/-/@s/n-1.0.0.tgz",
            "https://registry.example.com/npm/@s/n/-/n-1.0.0.tgz?sig=a%2Fb",
            "https://registry.example.com/elsewhere/n-1.0.0.tgz",
            "https://registry.example.com:8443/npm/@s/n/-/n-1.0.0.tgz",
            "https://cdn.example.org/n-1.0.0.tgz",
        ] {
            assert_placed("@s/n", "1.0.0", url, "@s/n/-/n-1.0.0.tgz", url);
        }
        let encoded = "https://registry.example.com/npm/@s%2Fn/-/n-1.0.0.tgz";
        assert_placed("@s/n", "1.0.0", encoded, "@s/n/-/n-1.0.0.tgz", encoded);
    }

    #[test]
    fn npm_3_5_http_becomes_https_where_the_registry_is_https() {
        let path = "n/-/n-1.0.0.tgz";
        assert_placed(
            "n",
            "1.0.0",
            "http://registry.example.com/npm/n/-/n-1.0.0.tgz",
            path,
            "https://registry.example.com/npm/n/-/n-1.0.0.tgz",
        );
        assert_placed("n", "1.0.0", "http://cdn.example.org/n.tgz", path, "https://cdn.example.org/n.tgz");
        let plain = format!("{PLAIN_ROOT}n/-/n-1.0.0.tgz");
        assert_eq!(place(PLAIN_ROOT, "n", "1.0.0", &plain), Some((path.to_owned(), plain.clone())));
    }

    #[test]
    fn fragments_are_dropped() {
        let url = "https://registry.example.com/npm/n/-/n-1.0.0.tgz";
        assert_placed("n", "1.0.0", &format!("{url}#sha1"), "n/-/n-1.0.0.tgz", url);
    }

    #[test]
    fn hazard_s10_links_that_larder_may_not_carry_stay_as_they_are() {
        for link in [
            "",
            "n-1.0.0.tgz",
            "/n/-/n-1.0.0.tgz",
            "//cdn.example.org/n.tgz",
            "https:cdn.example.org/n.tgz",
            "file:///etc/passwd",
            "git+ssh://git@git.example.org/n.git",
            "ftp://cdn.example.org/n.tgz",
            "https://user:pw@cdn.example.org/n.tgz",
            "https://127.0.0.1/n.tgz",
            "https://[::1]/n.tgz",
            "https://169.254.169.254/latest/meta-data",
            "https://localhost/n.tgz",
            "https://registry.example.com/npm/../secret/n.tgz",
            "https://registry.example.com/npm/%2e%2e/n.tgz",
            "https://registry.example.com/npm/a%2fb/n.tgz",
            "https://registry.example.com\\n.tgz",
            "https://cdn.example.org/ n.tgz",
            "https://cdn.example.org/n.tgz\n",
            "https://cdn.example.org/@s%2f..%2fx/n.tgz",
        ] {
            assert_eq!(place(ROOT, "n", "1.0.0", link), None, "{link:?}");
        }
    }

    #[test]
    fn a_version_outside_the_grammar_has_no_place() {
        for version in ["", "latest", "__proto__", "constructor", "../1.0.0", "1.0.0/../../x", "1.0"] {
            let link = format!("https://registry.example.com/npm/n/-/n-{version}.tgz");
            assert_eq!(place(ROOT, "n", version, &link), None, "{version}");
        }
    }

    #[test]
    fn the_remembered_root_is_the_repositorys_own() {
        let repository = remote(ROOT);
        let links = links(&repository);
        let mut tarballs = Tarballs::new(PackageName::parse("n").unwrap(), &links);
        tarballs.place("1.0.0", "https://cdn.example.org/n/-/n-1.0.0.tgz").unwrap();
        assert_eq!(tarballs.root, None);
        tarballs.place("1.0.0", "https://registry.example.com/npm/n/-/n-1.0.0.tgz").unwrap();
        assert_eq!(tarballs.root.as_deref(), Some(ROOT));
        let other = tarballs.place("1.0.1", "https://registry.example.com/npm/n/-/n-1.0.2.tgz").unwrap();
        assert_eq!(
            other,
            Placed { path: "n/-/n-1.0.1.tgz".to_owned(), url: "https://registry.example.com/npm/n/-/n-1.0.2.tgz".into() }
        );
    }
}
