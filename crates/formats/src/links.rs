//! Pointing clients back at larder: the only place that builds public URLs, and that maps upstream URLs to repository paths.
//!
//! Links are read as clients read them (the WHATWG URL standard), and what was read is judged, not the text: below a configured root
//! a link becomes the rest of its path (`charts/foo-1.0.0.tgz`), elsewhere a signed one (`_ext/<mac>/<host[:port]>/<path>`,
//! `signed.rs`). Does not know which links a document holds.

mod address;
mod judge;
mod reference;
mod signed;

use std::cell::RefCell;
use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use larder_core::{PathRules, Repository, UpstreamSettings};
use sha2::Sha256;
use url::Url;

pub(crate) use crate::budget::MAX_URL;
use crate::{Claim, Malformed, Meter, Profile};
pub(crate) use judge::{Carried, NotCarried};
pub(crate) use reference::{is_plain, percent_decode};
pub use signed::ExternalLink;

/// First segment of every signed path.
const EXTERNAL: &str = "_ext/";

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

/// What stands in a derived document where the client's own name for larder would: documents of which only that differs are derived once,
/// and it is put in while they are sent. Nobody can know a mark but who has the key, so that no upstream's document has one in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark(String);

impl Mark {
    /// The mark for clients whose base is `client_base` (`http://host:port`): it has the same scheme, and is a host in brackets where
    /// that is one, for a base of either kind is written in another way into YAML and XML.
    pub fn of(key: &LinkKey, client_base: &str) -> Self {
        let (scheme, host) = client_base
            .split_once("://")
            .unwrap_or(("http", client_base));
        let secret = Hmac::<Sha256>::new_from_slice(&key.0).map_or_else(
            |_| [0; 32],
            |mut mac| {
                // A text that no signature of a link begins with.
                mac.update(b"a mark in the place of a base");
                mac.finalize().into_bytes().into()
            },
        );
        let name = format!(
            "{:032x}",
            u128::from_be_bytes(*secret.first_chunk().unwrap_or(&[0; 16]))
        );
        let is_bracketed = host.contains(['[', ']']);
        Self(if is_bracketed {
            format!("{scheme}://[{name}]")
        } else {
            format!("{scheme}://{name}.invalid")
        })
    }

    /// What stands in the place of `http://host:port`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where it stands in a document.
    pub fn points(&self, body: &[u8]) -> Vec<u64> {
        memchr::memmem::find_iter(body, self.0.as_bytes())
            .map(|at| at as u64)
            .collect()
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
    /// The query that the document was asked for with.
    query: Option<&'a str>,
    /// Counts what the document's links and claims take.
    meter: Meter,
    left: RefCell<LeftOut>,
}

impl fmt::Debug for Links<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links")
            .field("repository", &self.repository.name)
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

/// The links of a document that larder does not carry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// How many they are.
    pub count: u64,
    /// Where the first of them leads (scheme and host), and why it is not carried.
    pub first: Option<(String, &'static str)>,
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
        Self {
            repository,
            base,
            keyed,
            query: None,
            meter: Meter::default(),
            left: RefCell::default(),
        }
    }

    /// The same for a document that was asked for with `query`: some clients (Helm) send that with every relative link.
    #[must_use]
    pub fn asked_with(self, query: Option<&'a str>) -> Self {
        Self { query, ..self }
    }

    /// The repository that links lead to.
    pub fn repository(&self) -> &'a Repository {
        self.repository
    }

    /// What links start with.
    pub fn base(&self) -> &LinkBase {
        &self.base
    }

    /// The query that the document was asked for with.
    pub(crate) fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// A public link to an encoded repository path.
    pub fn href(&self, encoded_path: &str) -> String {
        let mut href = String::with_capacity(self.base.0.len() + encoded_path.len());
        href.push_str(&self.base.0);
        href.push_str(encoded_path);
        href
    }

    /// The repository path of the text of an absolute URL that starts with a configured root and goes on with nothing that any rule
    /// speaks of: most links of an index, at a fraction of the cost. `None` says nothing.
    pub(crate) fn plain_path_of<'t>(&self, text: &'t str) -> Option<&'t str> {
        let upstream = self.repository.upstream()?;
        let rest = upstream
            .base_urls
            .iter()
            .find_map(|root| text.strip_prefix(root.as_str()))?;
        (is_plain(rest) && !self.is_reserved(rest)).then_some(rest)
    }

    /// Whether a decoded path cannot be that of a file which a document links to: it belongs to signed links, or is reserved by the format.
    pub(crate) fn is_reserved(&self, path: &str) -> bool {
        path.starts_with(EXTERNAL) || crate::format_of(self.repository.package).is_reserved(path)
    }

    /// The same with another budget than the usual one.
    #[must_use]
    pub fn metered(self, meter: Meter) -> Self {
        Self { meter, ..self }
    }

    /// What counts what the document takes.
    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// A document of this length is read from its start.
    pub(crate) fn begin(&self, document_length: usize) {
        self.left.take();
        self.meter.begin(document_length);
    }

    /// Takes room for a resolved link; false once there is none left.
    pub(crate) fn take_room(&self, bytes: usize) -> bool {
        self.meter.output(bytes)
    }

    /// Hands over a claim, if there is room for it.
    pub(crate) fn claim(&self, claim: Claim, sink: &mut dyn FnMut(Claim)) {
        if self.meter.hold(claim.weight()) {
            sink(claim);
        }
    }

    /// Fails where the document took more than its budget: it is an attack, or of no use.
    pub(crate) fn end(&self) -> Result<(), Malformed> {
        self.meter.end()
    }

    /// Remembers that a link is not carried.
    pub(crate) fn leave_out(&self, url: Option<&Url>, why: NotCarried) {
        let mut left = self.left.borrow_mut();
        left.count += 1;
        left.first.get_or_insert_with(|| {
            (
                url.map_or_else(|| "no place".to_owned(), server),
                why.as_str(),
            )
        });
    }

    /// What was not carried until now.
    pub fn left_out(&self) -> LeftOut {
        self.left.borrow().clone()
    }

    fn upstream(&self) -> Option<&'a UpstreamSettings> {
        self.repository.upstream()
    }

    fn forwards_queries(&self) -> bool {
        self.profile().forwards_queries
    }

    fn path_rules(&self) -> PathRules {
        self.profile().path_rules
    }

    fn profile(&self) -> &'static Profile {
        crate::format_of(self.repository.package).profile()
    }
}

/// The endings of sidecars: a link to `x` also carries `x` with one of these ([`Links::resolve_external`]).
pub const SIDECAR_SUFFIXES: &[&str] = &[".metadata", ".prov", ".asc", ".sig"];

/// The server that a URL leads to, for messages: neither path nor credentials.
pub(crate) fn server_of(url: &str) -> String {
    Url::parse(url)
        .ok()
        .filter(Url::has_host)
        .as_ref()
        .map_or_else(|| "another place".to_owned(), server)
}

fn server(url: &Url) -> String {
    authority(url).map_or_else(
        || format!("{}:", url.scheme()),
        |authority| format!("{}://{authority}", url.scheme()),
    )
}

/// `host` or `host:port` of a URL, the scheme's own port left out.
fn authority(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(
        url.port()
            .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
    )
}

#[cfg(test)]
mod tests;
