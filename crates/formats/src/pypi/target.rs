//! Where a page's link leads: from the text of a `url` or `href` to a path within the repository.
//!
//! Knows how PyPI pages write links (relative ones, `<base>`, fragments with digests) and what must be refused of them.
//! Which hosts may be carried is decided by [`Links`].

use larder_core::Digest;
use url::Url;

use super::names;
use crate::Links;
use crate::links::{is_absolute, is_clean, percent_decode};

/// Resolves the links of one page.
#[derive(Debug)]
pub(super) struct Resolver<'a> {
    links: &'a Links<'a>,
    /// What relative links are relative to; `None` if the page names a base that may not be followed.
    base: Option<Url>,
}

/// Where a link leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Percent-encoded path within the repository.
    pub(super) path: String,
    /// The true URL, without fragment.
    pub(super) url: Url,
    /// The last segment of the true URL's path, decoded: what clients read name and version from.
    pub(super) file_name: String,
}

impl<'a> Resolver<'a> {
    /// For a page found at `page` (after redirects), with the `<base href>` it names.
    ///
    /// A base on another host than the page's own, the upstream's or one that `link_hosts` names would turn every relative
    /// link of the page into one to that host: such a base takes the relative links with it.
    pub(super) fn new(links: &'a Links<'a>, page: &Url, base: Option<&str>) -> Self {
        let base = match base {
            None => Some(page.clone()),
            Some(text) => page.join(text).ok().filter(|base| is_trusted(links, page, base)),
        };
        Self { links, base }
    }

    /// Where `reference` (without its fragment) leads; `None` if larder may not carry it, or if it names no file.
    pub(super) fn resolve(&self, reference: &str) -> Option<Target> {
        let reference = reference.trim_matches(|c: char| c.is_ascii_whitespace());
        let mut inner = reference;
        while let Some(rest) = inner.strip_prefix("../").or_else(|| inner.strip_prefix("./")) {
            inner = rest;
        }
        if reference.is_empty() || !is_clean(inner) {
            return None;
        }
        let url = if is_absolute(reference) { Url::parse(reference).ok()? } else { self.base.as_ref()?.join(reference).ok()? };
        let file_name = percent_decode(url.path().rsplit('/').next()?)?;
        if !names::is_safe_file_name(&file_name) {
            return None;
        }
        let path = self.links.path_of(&url)?;
        Some(Target { path, url, file_name })
    }
}

fn is_trusted(links: &Links<'_>, page: &Url, base: &Url) -> bool {
    let Some(upstream) = &links.repository().upstream else { return false };
    let listed = || {
        let host = base.host_str().unwrap_or_default();
        let with_port = base.port_or_known_default().map(|port| format!("{host}:{port}"));
        let hosts = upstream.link_hosts.as_deref().unwrap_or_default();
        hosts.iter().any(|entry| entry == host || Some(entry) == with_port.as_ref())
    };
    base.has_host() && (base.origin() == page.origin() || upstream.is_configured_origin(base) || listed())
}

/// Splits a link at its first `#`: the reference, and the fragment as it stands.
pub(super) fn split_fragment(link: &str) -> (&str, Option<&str>) {
    link.split_once('#').map_or((link, None), |(reference, fragment)| (reference, Some(fragment)))
}

/// The digests that a fragment states (`sha256=…`, also beside `egg=…`). Unknown algorithms are skipped.
pub(super) fn fragment_digests(fragment: &str) -> impl Iterator<Item = (&str, &str)> {
    fragment.split('&').filter_map(|pair| pair.split_once('=')).filter(|(name, hex)| Digest::from_name_and_hex(name, hex).is_ok())
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{links_of, repository};
    use super::*;

    fn resolve(base: Option<&str>, reference: &str) -> Option<String> {
        let repository = repository("https://files.example.com/", "https://index.example.com/simple/");
        let links = links_of(&repository);
        let page = Url::parse("https://index.example.com/simple/foo/").unwrap();
        Resolver::new(&links, &page, base).resolve(reference).map(|target| target.path)
    }

    #[test]
    fn links_to_the_file_host_become_paths() {
        assert_eq!(resolve(None, "https://files.example.com/packages/x-1.0.whl").as_deref(), Some("packages/x-1.0.whl"));
        assert_eq!(resolve(None, "https://files.example.com/whl/x-1.0%2Bcpu.whl").as_deref(), Some("whl/x-1.0%2Bcpu.whl"));
        assert_eq!(resolve(None, " //files.example.com/x-1.0.whl\n").as_deref(), Some("x-1.0.whl"));
        assert_eq!(resolve(Some("https://files.example.com/a/b/"), "../x-1.0.whl").as_deref(), Some("a/x-1.0.whl"));
    }

    #[test]
    fn links_to_other_hosts_are_signed() {
        let path = resolve(None, "https://cdn.example.net/x-1.0.whl").unwrap();
        assert!(path.starts_with("_ext/") && path.ends_with("/cdn.example.net/x-1.0.whl"), "{path}");
        let path = resolve(None, "../../packages/x-1.0.whl").unwrap();
        assert!(path.ends_with("/index.example.com/packages/x-1.0.whl"), "{path}");
    }

    #[test]
    fn checklist_13_a_foreign_base_and_other_schemes_are_not_reachable() {
        for reference in ["x-1.0.whl", "/x-1.0.whl", "//evil.example.net/x-1.0.whl", "../x-1.0.whl"] {
            assert_eq!(resolve(Some("https://evil.example.net/"), reference), None, "{reference}");
        }
        for base in ["javascript:alert(1)", "data:text/html,x", "file:///etc/", "https://"] {
            assert_eq!(resolve(Some(base), "x-1.0.whl"), None, "{base}");
        }
        for reference in [
            "javascript:alert(1)",
            "JaVaScRiPt:alert(1)//x.whl",
            "file:///etc/x-1.0.whl",
            "data:,x.whl",
            "ftp://files.example.com/x.whl",
        ] {
            assert_eq!(resolve(None, reference), None, "{reference}");
        }
        // A foreign base does not touch links that name their host.
        assert!(resolve(Some("https://evil.example.net/"), "https://files.example.com/x-1.0.whl").is_some());
    }

    #[test]
    fn what_parsers_would_read_differently_is_refused() {
        for reference in [
            "",
            "/",
            "a/",
            "java\nscript:x",
            "https://files.example.com/a/../x.whl",
            "https://files.example.com\\x.whl",
            "https://files.example.com/a%2f..%2fx.whl",
            "https://files.example.com/%2e%2e/x.whl",
            "https://u:p@files.example.com/x.whl",
            "https://files.example.com/.hidden",
        ] {
            assert_eq!(resolve(None, reference), None, "{reference:?}");
        }
    }

    #[test]
    fn fragments_keep_their_bytes_and_tell_digests() {
        assert_eq!(split_fragment("a#b#c"), ("a", Some("b#c")));
        assert_eq!(split_fragment("a"), ("a", None));
        let md5 = "d41d8cd98f00b204e9800998ecf8427e";
        let fragment = format!("egg=x&md5={md5}&sha256=short&crc=1");
        assert_eq!(fragment_digests(&fragment).collect::<Vec<_>>(), [("md5", md5)]);
    }
}
