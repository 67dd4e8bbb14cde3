//! From the text of a link to what it means, and whether larder carries it.
//!
//! A text is never judged by its letters: a raw space, `//`, `../`, a backslash or a line break means what the WHATWG URL standard
//! says it means, which is what clients make of it.

use larder_core::{ArtifactPath, UpstreamSettings};
use url::Url;

use super::reference::{fold, percent_decode, percent_decode_lossy};
use super::{Links, address};

/// A link that larder carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Carried {
    /// The percent-encoded repository path under which clients get it, with `?query` for package types that forward queries.
    pub(crate) path: String,
    /// The true URL, without fragment.
    pub(crate) url: Url,
}

/// Why a link is not carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotCarried {
    /// It is no URL.
    Unreadable,
    /// It is relative, to a base that may not be followed.
    Base,
    /// Neither http nor https.
    Scheme,
    /// Plain http, although the upstream speaks https.
    PlainHttp,
    /// It carries a user name or a password.
    UserInfo,
    /// `link_hosts` does not name its host.
    Unlisted,
    /// Its host is a private address that `allow_private` does not name.
    Private,
    /// Its path climbs, or holds control characters, or is too long.
    Path,
    /// It names another file, or another project's, than its entry says.
    OtherFile,
    /// Its version has no place among a registry's tarballs.
    Version,
    /// It stands where it is no link.
    Alias,
}

impl NotCarried {
    /// For messages: ends a sentence that begins with the link.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "it is no URL",
            Self::Base => {
                "it is relative to an address that is too long, or on a host that link_hosts does not name"
            }
            Self::Scheme => "only http and https are carried",
            Self::PlainHttp => "it is plain http, which is followed only where base_url is http",
            Self::UserInfo => "it carries credentials",
            Self::Unlisted => "link_hosts does not name its host",
            Self::Private => "its host is a private address that allow_private does not name",
            Self::Path => "its path is one that larder refuses",
            Self::OtherFile => {
                "it leads to another file, or another project's, than its entry names"
            }
            Self::Alias => "it is a YAML alias of what is no link where it stands",
            Self::Version => "its version breaks the grammar of versions",
        }
    }
}

impl Links<'_> {
    /// What a link's text means, relative to `base`.
    pub(crate) fn read(&self, base: Option<&Url>, text: &str) -> Result<Url, NotCarried> {
        let length = text.len() + base.map_or(0, |base| base.as_str().len());
        if !self.take_room(length) {
            return Err(NotCarried::Unreadable);
        }
        Url::options()
            .base_url(base)
            .parse(text)
            .map_err(|error| match error {
                url::ParseError::RelativeUrlWithoutBase => NotCarried::Base,
                _ => NotCarried::Unreadable,
            })
    }

    /// Under which path clients get `url`: below a configured root the rest of its path, where that is a path which larder takes; else
    /// the signed form. Plain http on a host that the operator named as https is read as https. The fragment is dropped.
    ///
    /// Not carried is what the operator does not allow (`link_hosts`, private addresses, plain http beside https), what carries
    /// credentials, and a path that climbs once it is decoded.
    pub(crate) fn carry(&self, mut url: Url) -> Result<Carried, NotCarried> {
        let upstream = self.upstream().ok_or(NotCarried::Scheme)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(NotCarried::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(NotCarried::UserInfo);
        }
        url.set_fragment(None);
        if is_downgraded(upstream, &url) {
            url.set_scheme("https").map_err(|()| NotCarried::Scheme)?;
        }
        let path = if let Some(path) = self.path_below_root(upstream, &url) {
            path
        } else {
            may_carry(upstream, &url)?;
            self.sign(&url).ok_or(NotCarried::Path)?
        };
        Ok(Carried { path, url })
    }

    /// The path of what lies below a configured root; `None` if it does not, or is spelt so that no client could ask larder for it.
    fn path_below_root(&self, upstream: &UpstreamSettings, url: &Url) -> Option<String> {
        let rest = upstream
            .base_urls
            .iter()
            .find_map(|root| below(root, url))?;
        let rest = fold(rest);
        let path = ArtifactPath::parse(&rest, self.path_rules()).ok()?;
        if self.is_reserved(path.as_str()) {
            return None;
        }
        match url.query() {
            None => Some(rest.into_owned()),
            Some(query) if self.forwards_queries() => Some(format!("{rest}?{query}")),
            Some(_) => None,
        }
    }
}

/// The rest of `url`'s path below `root`, as found; `None` if it is not below it. Escapes (`%7E` for `~`, `%2f` for `%2F`) and doubled
/// slashes do not make it another place.
fn below<'u>(root: &Url, url: &'u Url) -> Option<&'u str> {
    let same = root.scheme() == url.scheme()
        && root.host_str() == url.host_str()
        && root.port() == url.port();
    if !same {
        return None;
    }
    let (root, path) = (root.path(), url.path());
    if let Some(rest) = path.strip_prefix(root) {
        return Some(rest);
    }
    if !(path.contains('%') || path.contains("//") || root.contains('%')) {
        return None;
    }
    let mut rest = path;
    for segment in root.split('/').filter(|segment| !segment.is_empty()) {
        let (own, after) = rest.trim_start_matches('/').split_once('/')?;
        if percent_decode(own)? != percent_decode(segment)? {
            return None;
        }
        rest = after;
    }
    Some(rest)
}

/// Whether a link says http of a host that the operator has named as https, and not as http too.
fn is_downgraded(upstream: &UpstreamSettings, url: &Url) -> bool {
    let named = |scheme: &str| {
        let mut roots = upstream.base_urls.iter().chain([&upstream.index_url]);
        roots.any(|root| root.scheme() == scheme && root.host() == url.host())
    };
    url.scheme() == "http" && named("https") && !named("http")
}

pub(super) fn has_plain_root(upstream: &UpstreamSettings) -> bool {
    upstream
        .base_urls
        .iter()
        .any(|root| root.scheme() == "http")
}

/// Whether the operator lets larder follow a link to `url`'s scheme and host.
pub(super) fn may_carry(upstream: &UpstreamSettings, url: &Url) -> Result<(), NotCarried> {
    if url.scheme() != "https" && !(url.scheme() == "http" && has_plain_root(upstream)) {
        return Err(NotCarried::PlainHttp);
    }
    let host = url.host().ok_or(NotCarried::Unreadable)?;
    let is_own_host = || {
        let mut roots = upstream.base_urls.iter().chain([&upstream.index_url]);
        roots.any(|root| root.host() == Some(host.clone()))
    };
    let listed = upstream
        .link_hosts
        .as_ref()
        .is_none_or(|hosts| is_own_host() || hosts.iter().any(|entry| names(entry, url)));
    if !listed {
        return Err(NotCarried::Unlisted);
    }
    let port = url.port_or_known_default().unwrap_or(0);
    // As connections are judged: another port of a private host is another service.
    if upstream.is_configured_origin(url)
        || address::may_be_reached(&host, port, &upstream.allow_private)
    {
        Ok(())
    } else {
        Err(NotCarried::Private)
    }
}

/// Whether an entry of `link_hosts` (`host` or `host:port`) names `url`'s host.
fn names(entry: &str, url: &Url) -> bool {
    let Some(host) = url.host_str() else {
        return false;
    };
    match entry.strip_prefix(host) {
        Some("") => true,
        Some(rest) => {
            rest.strip_prefix(':').and_then(|port| port.parse().ok()) == url.port_or_known_default()
        }
        None => false,
    }
}

/// A path's text for people and patterns, where its own spelling is none that larder takes: decoded once, every kind of slash a slash,
/// none of them doubled. `None` if it climbs, or holds what no path may hold.
pub(super) fn readable(path: &str) -> Option<ArtifactPath> {
    let decoded = percent_decode_lossy(path).replace('\\', "/");
    let folded = fold(decoded.trim_start_matches('/'));
    ArtifactPath::from_decoded(&folded).ok()
}
