//! Which of a document's tarballs lead through larder, and under which path (docs/reference/protocols/npm.md, sections 3.4 and 3.5).

use std::borrow::Cow;

use url::Url;

use super::name::{PackageName, is_version};
use crate::Links;
use crate::links::{MAX_URL, NotCarried};

/// Places the tarballs of one package.
#[derive(Debug)]
pub(super) struct Tarballs<'l> {
    package: PackageName<'l>,
    links: &'l Links<'l>,
    /// What relative links are relative to: the document's own URL.
    base: Option<&'l Url>,
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

/// A tarball that larder does not carry: why, and where it is, if that can be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unplaced {
    pub(super) url: Option<Url>,
    pub(super) why: NotCarried,
    /// Whether the link as it stands names no scheme: some clients resolve that against larder's address.
    pub(super) is_relative: bool,
}

impl<'l> Tarballs<'l> {
    /// For the versions of `package` in the document that came from `url`.
    pub(super) fn new(package: PackageName<'l>, links: &'l Links<'l>, url: &'l Url) -> Self {
        Self {
            package,
            links,
            base: Some(url).filter(|url| url.as_str().len() <= MAX_URL),
            root: None,
        }
    }

    /// Larder may not carry every link, and a version outside the grammar has no place in the conventional layout. Plain http becomes
    /// https where the repository speaks https, as npm's own clients and servers do it.
    pub(super) fn place<'u>(
        &mut self,
        version: &str,
        link: &'u str,
    ) -> Result<Placed<'u>, Unplaced> {
        if link.is_empty() {
            // To clients it is no tarball, and not the document that a URL parser makes of it.
            return Err(Unplaced {
                url: None,
                why: NotCarried::Unreadable,
                is_relative: false,
            });
        }
        let path = is_version(version).then(|| self.package.tarball(version));
        let known_root = |path: &String| {
            self.root
                .as_deref()
                .is_some_and(|root| link.strip_prefix(root) == Some(path.as_str()))
        };
        if let Some(path) = path.as_ref().filter(|path| known_root(path)) {
            return Ok(Placed {
                path: path.clone(),
                url: Cow::Borrowed(link),
            });
        }
        // Clients read it by itself; only what that does not explain is relative to anything.
        let mut is_relative = false;
        let read = self.links.read(None, link).or_else(|why| {
            is_relative = why == NotCarried::Base;
            if is_relative {
                self.links.read(self.base, link)
            } else {
                Err(why)
            }
        });
        let unplaced = |url, why| Unplaced {
            url,
            why,
            is_relative,
        };
        let url = read.map_err(|why| unplaced(None, why))?;
        let Some(path) = path else {
            return Err(unplaced(Some(url), NotCarried::Version));
        };
        let mut carried = self.links.carry(url.clone());
        if carried == Err(NotCarried::PlainHttp) {
            let mut secure = url.clone();
            carried = secure
                .set_scheme("https")
                .map_err(|()| NotCarried::Scheme)
                .and_then(|()| self.links.carry(secure));
        }
        let carried = carried.map_err(|why| unplaced(Some(url), why))?;
        if carried.path == path && carried.url.as_str() == link {
            self.root = link.strip_suffix(path.as_str()).map(str::to_owned);
        }
        Ok(Placed {
            path,
            url: Cow::Owned(carried.url.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{PLAIN_ROOT, ROOT, links, remote};
    use super::*;

    fn place(root: &str, package: &str, version: &str, link: &str) -> Option<(String, String)> {
        let repository = remote(root);
        let (links, url) = (
            links(&repository),
            Url::parse(root).unwrap().join(package).unwrap(),
        );
        let mut tarballs = Tarballs::new(PackageName::parse(package).unwrap(), &links, &url);
        let mut place = || {
            tarballs
                .place(version, link)
                .map(|p| (p.path, p.url.into_owned()))
                .ok()
        };
        let placed = place();
        // The second time the answer may come from the remembered root.
        assert_eq!(place(), placed);
        placed
    }

    #[track_caller]
    fn assert_placed(package: &str, version: &str, link: &str, path: &str, url: &str) {
        assert_eq!(
            place(ROOT, package, version, link),
            Some((path.to_owned(), url.to_owned())),
            "{link}"
        );
    }

    #[test]
    fn the_conventional_layout() {
        let url = "https://registry.example.com/npm/express/-/express-4.18.2.tgz";
        assert_placed(
            "express",
            "4.18.2",
            url,
            "express/-/express-4.18.2.tgz",
            url,
        );
        let url = "https://registry.example.com/npm/@babel/core/-/core-7.26.0.tgz";
        assert_placed(
            "@babel/core",
            "7.26.0",
            url,
            "@babel/core/-/core-7.26.0.tgz",
            url,
        );
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
        assert_placed(
            "n",
            "1.0.0",
            "http://cdn.example.org/n.tgz",
            path,
            "https://cdn.example.org/n.tgz",
        );
        let plain = format!("{PLAIN_ROOT}n/-/n-1.0.0.tgz");
        assert_eq!(
            place(PLAIN_ROOT, "n", "1.0.0", &plain),
            Some((path.to_owned(), plain.clone()))
        );
    }

    #[test]
    fn fragments_are_dropped() {
        let url = "https://registry.example.com/npm/n/-/n-1.0.0.tgz";
        assert_placed("n", "1.0.0", &format!("{url}#sha1"), "n/-/n-1.0.0.tgz", url);
    }

    /// Expected values by the URL standard: what `new URL(link)` gives in npm, pnpm and yarn.
    #[test]
    fn hazard_x8_links_are_read_as_clients_read_them() {
        for (link, url) in [
            (
                "https://cdn.example.org/ n.tgz",
                "https://cdn.example.org/%20n.tgz",
            ),
            (
                "https://cdn.example.org/n.tgz\n",
                "https://cdn.example.org/n.tgz",
            ),
            (
                "https://cdn.example.org/a\\n.tgz",
                "https://cdn.example.org/a/n.tgz",
            ),
            (
                "https://cdn.example.org//a//n.tgz",
                "https://cdn.example.org//a//n.tgz",
            ),
            (
                "https:cdn.example.org/n.tgz",
                "https://cdn.example.org/n.tgz",
            ),
            (
                "HTTPS://CDN.example.org/n.tgz",
                "https://cdn.example.org/n.tgz",
            ),
            (
                "https://registry.example.com/npm/../other/n.tgz",
                "https://registry.example.com/other/n.tgz",
            ),
            (
                "https://registry.example.com/npm/%2e%2e/n.tgz",
                "https://registry.example.com/n.tgz",
            ),
            (
                "https://registry.example.com/npm/a%2fb/n.tgz",
                "https://registry.example.com/npm/a%2fb/n.tgz",
            ),
            // Relative to the document, which no client of npm's does, but better than to larder.
            (
                "n-1.0.0.tgz",
                "https://registry.example.com/npm/n-1.0.0.tgz",
            ),
            (
                "/n/-/n-1.0.0.tgz",
                "https://registry.example.com/n/-/n-1.0.0.tgz",
            ),
            ("//cdn.example.org/n.tgz", "https://cdn.example.org/n.tgz"),
        ] {
            assert_placed("n", "1.0.0", link, "n/-/n-1.0.0.tgz", url);
        }
    }

    #[test]
    fn hazard_s10_what_larder_may_not_carry_is_told_with_its_reason() {
        let repository = remote(ROOT);
        let (links, url) = (links(&repository), Url::parse(ROOT).unwrap());
        for (link, why) in [
            ("file:///etc/passwd", NotCarried::Scheme),
            ("git+ssh://git@git.example.org/n.git", NotCarried::Scheme),
            ("ftp://cdn.example.org/n.tgz", NotCarried::Scheme),
            (
                "https://user:pw@cdn.example.org/n.tgz",
                NotCarried::UserInfo,
            ),
            ("https://127.0.0.1/n.tgz", NotCarried::Private),
            ("https://[::1]/n.tgz", NotCarried::Private),
            (
                "https://169.254.169.254/latest/meta-data",
                NotCarried::Private,
            ),
            ("https://localhost/n.tgz", NotCarried::Private),
            (
                "https://cdn.example.org/@s%2f..%2fx/n.tgz",
                NotCarried::Path,
            ),
            ("https://[bad/n.tgz", NotCarried::Unreadable),
        ] {
            let mut tarballs = Tarballs::new(PackageName::parse("n").unwrap(), &links, &url);
            assert_eq!(
                tarballs.place("1.0.0", link).unwrap_err().why,
                why,
                "{link:?}"
            );
        }
    }

    #[test]
    fn a_version_outside_the_grammar_has_no_place() {
        for version in [
            "",
            "latest",
            "__proto__",
            "constructor",
            "../1.0.0",
            "1.0.0/../../x",
            "1.0",
        ] {
            let link = format!("https://registry.example.com/npm/n/-/n-{version}.tgz");
            assert_eq!(place(ROOT, "n", version, &link), None, "{version}");
        }
    }

    #[test]
    fn the_remembered_root_is_the_repositorys_own() {
        let repository = remote(ROOT);
        let (links, url) = (links(&repository), Url::parse(ROOT).unwrap());
        let mut tarballs = Tarballs::new(PackageName::parse("n").unwrap(), &links, &url);
        tarballs
            .place("1.0.0", "https://cdn.example.org/n/-/n-1.0.0.tgz")
            .unwrap();
        assert_eq!(tarballs.root, None);
        tarballs
            .place("1.0.0", "https://registry.example.com/npm/n/-/n-1.0.0.tgz")
            .unwrap();
        assert_eq!(tarballs.root.as_deref(), Some(ROOT));
        let other = tarballs
            .place("1.0.1", "https://registry.example.com/npm/n/-/n-1.0.2.tgz")
            .unwrap();
        assert_eq!(
            other,
            Placed {
                path: "n/-/n-1.0.1.tgz".to_owned(),
                url: "https://registry.example.com/npm/n/-/n-1.0.2.tgz".into()
            }
        );
    }
}
