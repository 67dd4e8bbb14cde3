//! Pointing clients back at larder: the only place that builds public URLs, and that maps upstream URLs to repository paths.
//!
//! Knows the two shapes of a path: below a configured root (`charts/foo-1.0.0.tgz`), and signed, for any other place
//! (`_ext/<mac>/<host[:port]>/<path>`). The mac binds the link to one repository and one URL, so that larder fetches from
//! foreign hosts only what an index named (spec section 4, "Links."). Does not know which links a document holds.

mod address;
mod reference;

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use larder_core::{ArtifactPath, PackageType, PathRules, Repository, UpstreamSettings, fold_segments};
use sha2::Sha256;
use url::Url;

pub(crate) use reference::{is_absolute, is_clean, is_plain, percent_decode};

/// First segment of every signed path.
const EXTERNAL: &str = "_ext/";
/// Bytes of the HMAC that are kept: 128 bits.
const MAC_BYTES: usize = 16;

/// Where links start: `/larder/api/v1/remote/pypi/` (path-absolute) or `https://larder.example/api/v1/remote/npm/`; ends in a slash.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LinkBase(pub String);

impl LinkBase {
    /// Takes the base with or without its final slash.
    pub fn new(base: impl Into<String>) -> Self {
        let mut base = base.into();
        if !base.ends_with('/') {
            base.push('/');
        }
        Self(base)
    }

    /// The text, with its final slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The key that signs links to other hosts; 32 random bytes, made once and kept in the metadata database.
#[derive(Clone)]
pub struct LinkKey(pub(crate) [u8; 32]);

impl LinkKey {
    /// From the stored bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkKey(..)")
    }
}

/// Maps upstream URLs to paths within one repository, and back.
#[derive(Clone)]
pub struct Links<'a> {
    repository: &'a Repository,
    base: LinkBase,
    /// HMAC that has taken the key, the repository's name and a NUL.
    keyed: Option<Hmac<Sha256>>,
}

impl fmt::Debug for Links<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("repository", &self.repository.name).field("base", &self.base).finish_non_exhaustive()
    }
}

/// A verified `_ext` path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalLink {
    /// The URL to fetch.
    pub url: Url,
    /// The decoded path on the other host, without a leading slash: what patterns apply to.
    pub original_path: String,
}

impl<'a> Links<'a> {
    /// Links of `repository` below `base`, signed with `key`.
    pub fn new(repository: &'a Repository, key: &LinkKey, base: LinkBase) -> Self {
        // HMAC takes keys of any length; should that ever fail, no external link is made or accepted.
        let keyed = Hmac::<Sha256>::new_from_slice(&key.0).ok().map(|mut mac| {
            mac.update(repository.name.as_str().as_bytes());
            mac.update(&[0]);
            mac
        });
        Self { repository, base, keyed }
    }

    /// The repository that links lead to.
    pub fn repository(&self) -> &'a Repository {
        self.repository
    }

    /// What links start with.
    pub fn base(&self) -> &LinkBase {
        &self.base
    }

    /// The percent-encoded repository path under which clients get `url`; `None` if the link may not be carried: another
    /// scheme than https (http only where the repository's own root is http), user-info, a host that `link_hosts` does not
    /// name, a private address that is not the operator's, or a path that larder refuses.
    ///
    /// Below a configured root it is the rest of the path, with `?query` for package types that forward queries; else the
    /// signed form. The fragment is dropped. `url` must come from a text without dot segments if those are to be refused:
    /// parsing a URL resolves them.
    pub fn path_of(&self, url: &Url) -> Option<String> {
        let upstream = self.repository.upstream.as_ref()?;
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
            return None;
        }
        let own = self.path_below_root(upstream, url);
        if own.is_some() {
            return own;
        }
        if !may_carry(upstream, url) {
            return None;
        }
        self.sign(url)
    }

    /// Whether `url` lies below one of the repository's configured roots.
    pub fn is_below_root(&self, url: &Url) -> bool {
        let upstream = self.repository.upstream.as_ref();
        upstream.is_some_and(|upstream| upstream.base_urls.iter().any(|root| below(root, url).is_some()))
    }

    /// As [`path_of`](Self::path_of), for the text of an absolute URL that starts with a configured root and goes on with
    /// nothing that any rule speaks of: most links of an index, at a fraction of the cost. `None` says nothing.
    pub(crate) fn plain_path_of<'t>(&self, text: &'t str) -> Option<&'t str> {
        let upstream = self.repository.upstream.as_ref()?;
        let rest = upstream.base_urls.iter().find_map(|root| text.strip_prefix(root.as_str()))?;
        (is_plain(rest) && !rest.starts_with(EXTERNAL)).then_some(rest)
    }

    /// A public link to an encoded repository path.
    pub fn href(&self, encoded_path: &str) -> String {
        let mut href = String::with_capacity(self.base.0.len() + encoded_path.len());
        href.push_str(&self.base.0);
        href.push_str(encoded_path);
        href
    }

    /// The public link to `url`; `None` where [`path_of`](Self::path_of) says so.
    pub fn public(&self, url: &Url) -> Option<String> {
        self.path_of(url).map(|path| self.href(&path))
    }

    /// Verifies a path that starts with `_ext/` and gives the URL it stands for; `None` (answer 403) if this repository did
    /// not sign it, or would not carry it any more.
    ///
    /// A sidecar is reached by its subject's mac: if the path as it stands does not verify, each of `sidecar_suffixes` that
    /// it ends in is taken off for the check, and the URL is the one with the suffix.
    pub fn resolve_external(&self, path: &ArtifactPath, sidecar_suffixes: &[&str]) -> Option<ExternalLink> {
        let upstream = self.repository.upstream.as_ref()?;
        let (signature, host, original_path) = split_external(path.as_str())?;
        let (_, _, encoded_path) = split_external(path.encoded())?;
        let (mac, query) = match signature.split_once('.') {
            Some((mac, query)) => (mac, Some(String::from_utf8(URL_SAFE_NO_PAD.decode(query).ok()?).ok()?)),
            None => (signature, None),
        };
        let mac = URL_SAFE_NO_PAD.decode(mac).ok().filter(|mac| mac.len() == MAC_BYTES)?;
        let schemes: &[&str] = if has_plain_root(upstream) { &["https", "http"] } else { &["https"] };
        for scheme in schemes {
            let signs = |path: &str| {
                self.mac(scheme, host, path, query.as_deref()).is_some_and(|m| m.verify_truncated_left(&mac).is_ok())
            };
            let subject = |suffix: &&str| original_path.strip_suffix(*suffix).is_some_and(&signs);
            if !signs(original_path) && !sidecar_suffixes.iter().any(subject) {
                continue;
            }
            let mut url = Url::parse(&format!("{scheme}://{host}/{encoded_path}")).ok()?;
            url.set_query(query.as_deref());
            // The mac proves that an index named the host; the operator may have forbidden it since.
            let same_host = authority(&url).as_deref() == Some(host);
            return (same_host && may_carry(upstream, &url))
                .then(|| ExternalLink { url, original_path: original_path.to_owned() });
        }
        None
    }

    fn path_below_root(&self, upstream: &UpstreamSettings, url: &Url) -> Option<String> {
        let rest = upstream.base_urls.iter().find_map(|root| below(root, url))?;
        // A leading slash would be folded away, and `_ext/` belongs to signed links.
        if rest.starts_with(['/']) || rest.starts_with(EXTERNAL) || !self.can_be_asked_for(rest) {
            return None;
        }
        match url.query() {
            None => Some(rest.to_owned()),
            Some(query) if self.forwards_queries() => Some(format!("{rest}?{query}")),
            Some(_) => None,
        }
    }

    fn forwards_queries(&self) -> bool {
        matches!(self.repository.package, PackageType::Generic | PackageType::Helm)
    }

    /// Whether a request for this path would be for what the link leads to: neither refused nor folded into another.
    fn can_be_asked_for(&self, path: &str) -> bool {
        matches!(fold_segments(path), Cow::Borrowed(_)) && ArtifactPath::parse(path, self.path_rules()).is_ok()
    }

    fn path_rules(&self) -> PathRules {
        crate::format_of(self.repository.package).map_or_else(PathRules::default, crate::Format::path_rules)
    }

    fn sign(&self, url: &Url) -> Option<String> {
        let host = authority(url)?;
        let path = url.path().strip_prefix('/')?;
        // Nothing in a plain path can be refused, and decoding would not change it.
        let plain = is_plain(path) && url.query().is_none();
        let decoded = if plain { Cow::Borrowed(path) } else { Cow::Owned(percent_decode(path)?) };
        let mac = self.mac(url.scheme(), &host, &decoded, url.query())?.finalize().into_bytes();
        let mut signed = String::with_capacity(EXTERNAL.len() + 24 + host.len() + 1 + path.len());
        signed.push_str(EXTERNAL);
        URL_SAFE_NO_PAD.encode_string(mac.get(..MAC_BYTES)?, &mut signed);
        if let Some(query) = url.query() {
            signed.push('.');
            URL_SAFE_NO_PAD.encode_string(query, &mut signed);
        }
        signed.push('/');
        signed.push_str(&host);
        signed.push('/');
        signed.push_str(path);
        (plain || self.can_be_asked_for(&signed)).then_some(signed)
    }

    /// The mac over repository, scheme, host, path and query. The path is taken decoded, because clients re-encode it (pip
    /// writes `+` as `%2B`) and larder names files by it; NUL cannot occur in any part.
    fn mac(&self, scheme: &str, host: &str, decoded_path: &str, query: Option<&str>) -> Option<Hmac<Sha256>> {
        let mut mac = self.keyed.clone()?;
        for part in [scheme, "://", host, "/", decoded_path] {
            mac.update(part.as_bytes());
        }
        if let Some(query) = query {
            mac.update(&[0]);
            mac.update(query.as_bytes());
        }
        Some(mac)
    }
}

/// The rest of `url`'s path below `root`, as found; `None` if it is not below it.
fn below<'u>(root: &Url, url: &'u Url) -> Option<&'u str> {
    let same = root.scheme() == url.scheme() && root.host_str() == url.host_str() && root.port() == url.port();
    if same { url.path().strip_prefix(root.path()) } else { None }
}

fn has_plain_root(upstream: &UpstreamSettings) -> bool {
    upstream.base_urls.iter().any(|root| root.scheme() == "http")
}

/// Whether the operator lets larder follow a link to `url`'s scheme and host.
fn may_carry(upstream: &UpstreamSettings, url: &Url) -> bool {
    let scheme = url.scheme() == "https" || (url.scheme() == "http" && has_plain_root(upstream));
    let Some(host) = url.host() else { return false };
    let roots = upstream.base_urls.iter().chain([&upstream.index_url]);
    let configured = roots.into_iter().any(|root| root.host() == Some(host.clone()));
    let listed = match &upstream.link_hosts {
        None => true,
        Some(hosts) => configured || hosts.iter().any(|entry| names(entry, url)),
    };
    let port = url.port_or_known_default().unwrap_or(0);
    scheme && listed && (configured || address::may_be_reached(&host, port, &upstream.allow_private))
}

/// Whether an entry of `link_hosts` (`host` or `host:port`) names `url`'s host.
fn names(entry: &str, url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    match entry.strip_prefix(host) {
        Some("") => true,
        Some(rest) => rest.strip_prefix(':').and_then(|port| port.parse().ok()) == url.port_or_known_default(),
        None => false,
    }
}

/// The server that a URL leads to, for messages: neither path nor credentials.
pub(crate) fn server_of(url: &str) -> String {
    let server = Url::parse(url).ok().and_then(|url| Some(format!("{}://{}", url.scheme(), authority(&url)?)));
    server.unwrap_or_else(|| "another place".to_owned())
}

/// `host` or `host:port` of a URL, the scheme's own port left out.
fn authority(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// Splits `_ext/<signature>/<host>/<path>`.
fn split_external(path: &str) -> Option<(&str, &str, &str)> {
    let (signature, rest) = path.strip_prefix(EXTERNAL)?.split_once('/')?;
    let (host, rest) = rest.split_once('/')?;
    Some((signature, host, rest))
}

#[cfg(test)]
mod tests;
