//! Pages of lists. A registry's link to the next page may hold anything; it comes back to the registry as it was written, but only what
//! it was that wrote it: parameters that larder does not know are signed on their way out, and those that no link has named go nowhere.
//! So clients follow links, and nobody can make up requests (docs/adr/0039).

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use larder_core::{Repository, sha256};
use sha2::Sha256;
use url::{Url, form_urlencoded};

use crate::LinkKey;

/// The parameter with the signature over those that larder does not know. A registry that is a larder, too, has signed with it: on its way
/// out the registry's own gets one more `_` in front, and loses it on its way back.
const SIGNATURE: &str = "_page";
/// Bytes of the HMAC that are kept: 128 bits.
const MAC_BYTES: usize = 16;
/// Parameters that anybody may send, with each kind of list; they are not signed. `n` and `last` are the specification's, the third
/// stands in the links of some registries.
pub(super) const TAG_PARAMETERS: &[&str] = &["n", "last", "next_page"];
pub(super) const REFERRER_PARAMETERS: &[&str] = &["artifactType"];

/// A list of which pages are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct List<'a> {
    pub(super) repository: &'a Repository,
    pub(super) key: &'a LinkKey,
    /// `{name}/tags/list` or `{name}/referrers/{digest}`, as the registry knows it.
    pub(super) path: &'a str,
    /// The parameters that anybody may send.
    pub(super) known: &'static [&'static str],
}

impl List<'_> {
    /// The query of the next page as clients get it, out of the `Link` field (RFC 8288) of the page that was asked for with the query
    /// `own`; `None` if it names none, or none that could be asked for: what leads to the same page again would be followed for ever.
    pub(super) fn next_page(&self, link: &str, own: Option<&str>) -> Option<String> {
        let next = self.named_by(next_target(link)?)?;
        let asked = self.query(&next);
        (begins(asked.as_deref()) != begins(own)).then_some(next)
    }

    /// The query that clients get for a link to `target`.
    fn named_by(&self, target: &str) -> Option<String> {
        let (before, query) = target.split_once('?')?;
        let query = query.split('#').next().unwrap_or_default();
        if !query
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b'<' | b'>'))
        {
            return None;
        }
        let written: Vec<Cow<'_, str>> = query
            .split('&')
            .filter(|pair| name(pair) != "ns")
            .map(escaped)
            .collect();
        // What only the registry understands is taken if the link is to this very list.
        if written.iter().all(|pair| self.known.contains(&name(pair))) || !self.is_this_list(before)
        {
            return only(query, self.known);
        }
        let mac = self.mac(written.iter().map(|pair| &**pair))?;
        Some(format!("{}&{SIGNATURE}={mac}", written.join("&")))
    }

    /// What of a client's query goes to the registry: all that a link of its own has named, else what anybody may send.
    pub(super) fn query(&self, query: &str) -> Option<String> {
        let given = query
            .split('&')
            .find_map(|pair| pair.strip_prefix(SIGNATURE)?.strip_prefix('='));
        let written: Vec<&str> = query
            .split('&')
            .filter(|pair| name(pair) != SIGNATURE && name(pair) != "ns")
            .collect();
        match given {
            // Whoever tries to guess it learns nothing from how long this takes: the right one is handed out with every page.
            Some(given) if self.mac(written.iter().copied()).as_deref() == Some(given) => {
                let own: Vec<&str> = written.into_iter().map(unescaped).collect();
                Some(own.join("&"))
            }
            _ => only(query, self.known),
        }
    }

    /// Whether the target of a link, without its query, is this list's own: read from the page that names it, on whatever host and below
    /// whatever root. Registries behind proxies do not know their own address, and no host that a link names is asked.
    fn is_this_list(&self, target: &str) -> bool {
        let page = Url::parse(&format!("http://registry.invalid/v2/{}", self.path));
        page.and_then(|page| page.join(target)).is_ok_and(|url| {
            let root = url.path().strip_suffix(self.path);
            root.is_some_and(|root| root.ends_with('/'))
                && url.username().is_empty()
                && url.password().is_none()
        })
    }

    /// The signature over the unknown among these parameters: by what they mean and in no order, since clients write queries anew.
    fn mac<'q>(&self, written: impl Iterator<Item = &'q str>) -> Option<String> {
        let mut unknown: Vec<(Cow<'_, str>, Cow<'_, str>)> = written
            .filter(|pair| !self.known.contains(&name(pair)))
            .flat_map(|pair| form_urlencoded::parse(pair.as_bytes()))
            .collect();
        unknown.sort();
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key.0).ok()?;
        let mut part = |text: &str| {
            mac.update(&(text.len() as u64).to_be_bytes());
            mac.update(text.as_bytes());
        };
        // A text that no signature of a link begins with.
        part("a page");
        part(self.repository.name.as_str());
        part(self.path);
        for (name, value) in &unknown {
            part(name);
            part(value);
        }
        Some(URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes().get(..MAC_BYTES)?))
    }
}

/// A query in keys and logs. What only a registry understands may be a credential: of it stands there what tells it from others.
pub(super) fn in_key(query: &str) -> Cow<'_, str> {
    let known = |pair: &str| {
        TAG_PARAMETERS.contains(&name(pair)) || REFERRER_PARAMETERS.contains(&name(pair))
    };
    if query.split('&').all(known) {
        return Cow::Borrowed(query);
    }
    Cow::Owned(format!("{SIGNATURE}={}", sha256(query.as_bytes()).to_hex()))
}

/// Whether a `Link` field names a next page.
pub(super) fn goes_on(link: &str) -> bool {
    next_target(link).is_some()
}

/// The target of the link to the next page (RFC 8288, section 3).
fn next_target(link: &str) -> Option<&str> {
    unquoted(link, ',').find_map(|one| {
        let (target, parameters) = one.split_once('<')?.1.split_once('>')?;
        is_next(parameters).then_some(target)
    })
}

/// Whether the first `rel` among a link's parameters holds `next`, maybe beside other relations.
fn is_next(parameters: &str) -> bool {
    let relations = unquoted(parameters, ';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("rel").then_some(value)
    });
    relations.is_some_and(|relations| {
        let mut all = relations.trim().trim_matches('"').split_whitespace();
        all.any(|relation| relation.eq_ignore_ascii_case("next"))
    })
}

/// The parts of a field's value between separators that stand neither in quotes nor in a link's target.
fn unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut in_quotes, mut in_target, mut is_escaped) = (false, false, false);
    text.split(move |c: char| {
        let is_plain = !std::mem::take(&mut is_escaped);
        match c {
            '\\' if in_quotes => is_escaped = is_plain,
            '"' if !in_target && is_plain => in_quotes = !in_quotes,
            '<' if !in_quotes => in_target = true,
            '>' if !in_quotes => in_target = false,
            _ => {}
        }
        c == separator && !in_quotes && !in_target
    })
}

/// Where in its list a page begins, as its query says: all but how long it may be.
fn begins(query: Option<&str>) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    let mut pairs: Vec<_> = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .filter(|(name, _)| name != "n")
        .collect();
    pairs.sort();
    pairs
}

/// A parameter of a registry's as it travels to clients: not to be taken for larder's own.
fn escaped(pair: &str) -> Cow<'_, str> {
    if is_signature(name(pair)) {
        Cow::Owned(format!("_{pair}"))
    } else {
        Cow::Borrowed(pair)
    }
}

/// The same on its way back.
fn unescaped(pair: &str) -> &str {
    pair.strip_prefix('_')
        .filter(|own| is_signature(name(own)))
        .unwrap_or(pair)
}

/// Whether it is the name of a signature, be it of a larder behind others.
fn is_signature(name: &str) -> bool {
    name.trim_start_matches('_') == "page" && name.starts_with('_')
}

/// The parameters of a query that travel on, as they came; `None` if none is left.
fn only(query: &str, parameters: &[&str]) -> Option<String> {
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| parameters.contains(&name(pair)))
        .collect();
    (!kept.is_empty()).then(|| kept.join("&"))
}

fn name(pair: &str) -> &str {
    pair.split('=').next().unwrap_or_default()
}

#[cfg(test)]
mod tests;
