//! Links to places that no configured root holds: `_ext/<signature>/<host[:port]>/<path>`.
//!
//! The mac binds the link to one repository and one URL, so that larder fetches from foreign hosts only what an index named. The
//! signature is `<mac>`, `<mac>.<query>`, or `<mac>..<path and query>` where the path is spelt so that larder would refuse it or change
//! it (`a%2Fb`, `a//b`); what stands behind the host is then for people and patterns. All parts are base64url.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use larder_core::ArtifactPath;
use sha2::Sha256;
use url::Url;

use super::judge::{has_plain_root, may_carry, readable};
use super::reference::fold;
use super::{EXTERNAL, Links, authority, is_plain, percent_decode};

/// Bytes of the HMAC that are kept: 128 bits.
const MAC_BYTES: usize = 16;

/// A verified `_ext` path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalLink {
    /// The URL to fetch.
    pub url: Url,
    /// The decoded path on the other host, without a leading slash: what patterns apply to.
    pub original_path: String,
}

/// What a mac is over, beside the repository.
#[derive(Clone, Copy)]
struct Signed<'s> {
    scheme: &'s str,
    host: &'s str,
    /// Decoded, because clients re-encode it (pip writes `+` as `%2B`) and larder names files by it.
    path: &'s str,
    query: Option<&'s str>,
    /// Path and query as the document has them, where `path` does not tell.
    target: Option<&'s str>,
}

/// What stands behind the mac of a signed path: the query of the URL, or (with one more dot in front) its path and query where the path
/// does not tell them. `None` if it is neither.
fn query_and_target(rest: Option<&str>) -> Option<(Option<String>, Option<String>)> {
    let decode = |text: &str| String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok();
    Some(match rest.map(|rest| (rest, rest.strip_prefix('.'))) {
        None => (None, None),
        Some((_, Some(target))) => (None, Some(decode(target)?)),
        Some((query, None)) => (Some(decode(query)?), None),
    })
}

impl Links<'_> {
    /// Verifies a path that starts with `_ext/` and gives the URL it stands for; `None` (answer 403) if this repository did
    /// not sign it, or would not carry it any more.
    ///
    /// A sidecar is reached by its subject's mac: if the path as it stands does not verify, each of `sidecar_suffixes` that
    /// it ends in is taken off for the check, and the URL is the one with the suffix.
    pub fn resolve_external(
        &self,
        path: &ArtifactPath,
        sidecar_suffixes: &[&str],
    ) -> Option<ExternalLink> {
        let upstream = self.upstream()?;
        let (signature, host, original_path) = split_external(path.as_str())?;
        let (_, _, encoded_path) = split_external(path.encoded())?;
        let (mac, rest) = signature
            .split_once('.')
            .map_or((signature, None), |(mac, rest)| (mac, Some(rest)));
        let (query, target) = query_and_target(rest)?;
        let mac = URL_SAFE_NO_PAD
            .decode(mac)
            .ok()
            .filter(|mac| mac.len() == MAC_BYTES)?;
        let schemes: &[&str] = if has_plain_root(upstream) {
            &["https", "http"]
        } else {
            &["https"]
        };
        for scheme in schemes {
            let signs = |path: &str| {
                let signed = Signed {
                    scheme,
                    host,
                    path,
                    query: query.as_deref(),
                    target: target.as_deref(),
                };
                self.mac(signed)
                    .is_some_and(|m| m.verify_truncated_left(&mac).is_ok())
            };
            let subject = |suffix: &&&str| original_path.strip_suffix(**suffix).is_some_and(&signs);
            let suffix = if signs(original_path) {
                ""
            } else {
                sidecar_suffixes
                    .iter()
                    .find(subject)
                    .copied()
                    .unwrap_or_default()
            };
            if suffix.is_empty() && !signs(original_path) {
                continue;
            }
            let mut url = match &target {
                None => Url::parse(&format!("{scheme}://{host}/{encoded_path}")).ok()?,
                Some(target) => Url::parse(&format!(
                    "{scheme}://{host}/{}",
                    with_suffix(target, suffix)
                ))
                .ok()?,
            };
            if target.is_none() {
                url.set_query(query.as_deref());
            }
            // The mac proves that an index named the host; the operator may have forbidden it since.
            let same_host = authority(&url).as_deref() == Some(host);
            return (same_host && may_carry(upstream, &url).is_ok()).then(|| ExternalLink {
                url,
                original_path: original_path.to_owned(),
            });
        }
        None
    }

    /// The signed path of a URL; `None` if larder would refuse it.
    pub fn sign(&self, url: &Url) -> Option<String> {
        let host = authority(url)?;
        let path = url.path().strip_prefix('/')?;
        // Nothing in a plain path can be refused, and decoding would not change it.
        let plain = is_plain(path) && url.query().is_none();
        let decoded = if plain {
            Some(Cow::Borrowed(path))
        } else {
            percent_decode(path).map(Cow::Owned)
        };
        let Some(decoded) = decoded.filter(|_| fold(path) == path) else {
            return self.sign_respelt(url, &host, path);
        };
        let signed = Signed {
            scheme: url.scheme(),
            host: &host,
            path: &decoded,
            query: url.query(),
            target: None,
        };
        let tail = url.query().map_or_else(String::new, |query| {
            format!(".{}", URL_SAFE_NO_PAD.encode(query))
        });
        let text = self.signed_path(signed, &tail, path)?;
        let as_it_is = plain || ArtifactPath::parse(&text, self.path_rules()).is_ok();
        if as_it_is {
            Some(text)
        } else {
            self.sign_respelt(url, &host, path)
        }
    }

    /// The same for a path that larder would refuse or change.
    fn sign_respelt(&self, url: &Url, host: &str, path: &str) -> Option<String> {
        let readable = readable(path)?;
        let target = url
            .query()
            .map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
        let signed = Signed {
            scheme: url.scheme(),
            host,
            path: readable.as_str(),
            query: None,
            target: Some(&target),
        };
        let path = self.signed_path(
            signed,
            &format!("..{}", URL_SAFE_NO_PAD.encode(&target)),
            readable.encoded(),
        )?;
        ArtifactPath::parse(&path, self.path_rules())
            .is_ok()
            .then_some(path)
    }

    fn signed_path(&self, signed: Signed<'_>, tail: &str, path: &str) -> Option<String> {
        let mac = self.mac(signed)?.finalize().into_bytes();
        let mut text = String::with_capacity(
            EXTERNAL.len() + 24 + tail.len() + signed.host.len() + 1 + path.len(),
        );
        text.push_str(EXTERNAL);
        URL_SAFE_NO_PAD.encode_string(mac.get(..MAC_BYTES)?, &mut text);
        for part in [tail, "/", signed.host, "/", path] {
            text.push_str(part);
        }
        Some(text)
    }

    /// The mac over repository, scheme, host, path, query and target. NUL cannot occur in any part.
    fn mac(&self, signed: Signed<'_>) -> Option<Hmac<Sha256>> {
        let mut mac = self.keyed.clone()?;
        for part in [signed.scheme, "://", signed.host, "/", signed.path] {
            mac.update(part.as_bytes());
        }
        if let Some(query) = signed.query {
            mac.update(&[0]);
            mac.update(query.as_bytes());
        }
        if let Some(target) = signed.target {
            mac.update(&[0, 0]);
            mac.update(target.as_bytes());
        }
        Some(mac)
    }
}

/// Path and query of the file beside the one that `target` names.
fn with_suffix(target: &str, suffix: &str) -> String {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    format!("{path}{suffix}{query}")
}

/// Splits `_ext/<signature>/<host>/<path>`.
fn split_external(path: &str) -> Option<(&str, &str, &str)> {
    let (signature, rest) = path.strip_prefix(EXTERNAL)?.split_once('/')?;
    let (host, rest) = rest.split_once('/')?;
    Some((signature, host, rest))
}
