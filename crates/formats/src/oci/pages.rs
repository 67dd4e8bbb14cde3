//! Pages of lists. A registry's link to the next page may hold anything; it comes back to the registry as it was written, but only what
//! it was that wrote it: parameters that larder does not know are signed on their way out, and those that no link has named go nowhere.
//! So clients follow links, and nobody can make up requests (docs/adr/0039).

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use larder_core::{Repository, sha256};
use sha2::Sha256;
use url::form_urlencoded;

use crate::LinkKey;

/// The parameter with the signature over those that larder does not know.
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
    /// The query of the next page as clients get it, out of a `Link` field (RFC 8288).
    pub(super) fn next_page(&self, link: &str) -> Option<String> {
        let target = next_target(link)?;
        let (before, query) = target.split_once('?')?;
        let query = query.split('#').next().unwrap_or_default();
        if !query
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b'<' | b'>'))
        {
            return None;
        }
        // Registries behind proxies do not know their own host. What they do not name here is for larder to ask, at any rate; what only
        // they understand is theirs, if the link is to this very list.
        let written: Vec<&str> = query
            .split('&')
            .filter(|pair| name(pair) != SIGNATURE && name(pair) != "ns")
            .collect();
        if written.iter().all(|pair| self.known.contains(&name(pair))) || !self.is_this_list(before)
        {
            return only(query, self.known);
        }
        let mac = self.mac(&written)?;
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
            Some(given) if self.mac(&written).as_deref() == Some(given) => Some(written.join("&")),
            _ => only(query, self.known),
        }
    }

    /// Whether the target of a link, without its query, is this list's own.
    fn is_this_list(&self, target: &str) -> bool {
        let bases = self
            .repository
            .upstream()
            .into_iter()
            .flat_map(|upstream| &upstream.base_urls);
        let mut on_it = bases.filter_map(|base| base.join(target).ok().map(|url| (base, url)));
        on_it.any(|(base, url)| {
            let own = url
                .path()
                .strip_suffix(self.path)
                .is_some_and(|before| before.ends_with("/v2/") || before == base.path());
            own && url.origin() == base.origin()
                && url.username().is_empty()
                && url.password().is_none()
        })
    }

    /// The signature over the unknown among these parameters: by what they mean and in no order, since clients write queries anew.
    fn mac(&self, written: &[&str]) -> Option<String> {
        let mut unknown: Vec<(Cow<'_, str>, Cow<'_, str>)> = written
            .iter()
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

/// The target of the link to the next page.
fn next_target(link: &str) -> Option<&str> {
    let mut rest = link;
    loop {
        let (_, after) = rest.split_once('<')?;
        let (target, parameters) = after.split_once('>')?;
        if is_next(parameters.split('<').next().unwrap_or_default()) {
            return Some(target);
        }
        rest = parameters;
    }
}

fn is_next(parameters: &str) -> bool {
    let compact: String = parameters
        .chars()
        .filter(|c| !c.is_whitespace() && *c != '"')
        .collect();
    compact
        .split([';', ','])
        .any(|parameter| parameter.eq_ignore_ascii_case("rel=next"))
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
mod tests {
    use larder_core::PackageType;

    use super::*;
    use crate::testing::remote;

    fn with_list<T>(
        base: &str,
        key: u8,
        path: &str,
        known: &'static [&'static str],
        run: impl FnOnce(&List<'_>) -> T,
    ) -> T {
        let (repository, key) = (
            remote("images", PackageType::Docker, base),
            LinkKey::from_bytes([key; 32]),
        );
        run(&List {
            repository: &repository,
            key: &key,
            path,
            known,
        })
    }

    fn tags<T>(run: impl FnOnce(&List<'_>) -> T) -> T {
        with_list("https://r.example/", 7, "a/tags/list", TAG_PARAMETERS, run)
    }

    #[test]
    fn oci_14_the_next_page_is_taken_from_any_link_and_never_its_host() {
        for (link, query) in [
            (
                r#"</v2/library/nginx/tags/list?last=1.9&n=100>; rel="next""#,
                Some("last=1.9&n=100"),
            ),
            (
                r"<https://other.example/v2/a/tags/list?n=2&last=a%2Fb%3D>;rel=next",
                Some("n=2&last=a%2Fb%3D"),
            ),
            (
                r#"</first?n=1>; rel="prev", </v2/a/tags/list?next_page=xyz>; rel="next""#,
                Some("next_page=xyz"),
            ),
            (r#"</v2/a/tags/list?n=2>; rel="prev""#, None),
            (r#"</v2/a/tags/list>; rel="next""#, None),
            ("nonsense", None),
        ] {
            assert_eq!(
                tags(|list| list.next_page(link)).as_deref(),
                query,
                "{link}"
            );
        }
    }

    /// As any client does that follows the registry's own link (RFC 8288): its query comes back as it was written, or in other words for
    /// the same.
    #[test]
    fn whatever_stands_in_a_registry_s_link_comes_back_to_it() {
        for (base, path, known, target) in [
            (
                "https://r.example/",
                "a/tags/list",
                TAG_PARAMETERS,
                "/v2/a/tags/list",
            ),
            (
                "https://r.example/",
                "a/tags/list",
                TAG_PARAMETERS,
                "https://r.example/v2/a/tags/list",
            ),
            (
                "https://r.example/hub/",
                "a/tags/list",
                TAG_PARAMETERS,
                "/hub/v2/a/tags/list",
            ),
            (
                "https://r.example/v2/",
                "a/tags/list",
                TAG_PARAMETERS,
                "/v2/a/tags/list",
            ),
            (
                "https://r.example/v2/mirror/",
                "a/tags/list",
                TAG_PARAMETERS,
                "/v2/mirror/a/tags/list",
            ),
            (
                "https://r.example/",
                "a/referrers/sha256:00",
                REFERRER_PARAMETERS,
                "/v2/a/referrers/sha256:00",
            ),
        ] {
            for query in [
                "n=2&last=b&cursor=a%2Fb%3D",
                "page=2",
                "artifactType=x%2Fy&token=c3%3D&token=d",
                "last&state",
            ] {
                with_list(base, 7, path, known, |list| {
                    let link = list
                        .next_page(&format!("<{target}?{query}#x>; rel=\"next\""))
                        .unwrap();
                    assert_eq!(list.query(&link).as_deref(), Some(query), "{link}");
                    assert_eq!(
                        list.query(&format!("ns=docker.example&{link}")).as_deref(),
                        Some(query)
                    );
                    // Go's `url.Values.Encode` sorts.
                    let mut sorted: Vec<&str> = link.split('&').collect();
                    sorted.sort_unstable();
                    let back = list.query(&sorted.join("&")).unwrap();
                    let pairs = |text: &str| {
                        let mut pairs: Vec<_> = form_urlencoded::parse(text.as_bytes())
                            .into_owned()
                            .collect();
                        pairs.sort();
                        pairs
                    };
                    assert_eq!(pairs(&back), pairs(query));
                });
            }
        }
    }

    #[test]
    fn parameters_that_no_link_has_named_go_nowhere() {
        let link = tags(|list| list.next_page("</v2/a/tags/list?n=2&cursor=x>; rel=next")).unwrap();
        for made_up in [
            "n=2&cursor=x",
            "n=2&cursor=x&_page=AAAAAAAAAAAAAAAAAAAAAA",
            "n=2&cursor=x&_page=",
            &link.replace("=x", "=y"),
            &format!("{link}&more=1"),
        ] {
            assert_eq!(
                tags(|list| list.query(made_up)).as_deref(),
                Some("n=2"),
                "{made_up}"
            );
        }
        // What anybody may send is not signed.
        assert_eq!(
            tags(|list| list.query(&link.replace("n=2", "n=5"))).as_deref(),
            Some("n=5&cursor=x")
        );
        // Another list's signature, another repository's key.
        for (key, path) in [(7, "b/tags/list"), (8, "a/tags/list")] {
            let given = with_list("https://r.example/", key, path, TAG_PARAMETERS, |list| {
                list.query(&link)
            });
            assert_eq!(given.as_deref(), Some("n=2"));
        }
    }

    #[test]
    fn a_link_that_leads_elsewhere_brings_nothing_of_its_own() {
        for target in [
            "https://other.example/v2/a/tags/list",
            "/v2/b/tags/list",
            "/x",
            "https://u:p@r.example/v2/a/tags/list",
            "//other.example/v2/a/tags/list",
            "http://r.example/v2/a/tags/list",
        ] {
            let link = format!("<{target}?last=x&cursor=1>; rel=next");
            assert_eq!(
                tags(|list| list.next_page(&link)).as_deref(),
                Some("last=x"),
                "{target}"
            );
        }
    }

    #[test]
    fn what_only_a_registry_understands_does_not_stand_in_keys() {
        assert_eq!(in_key("n=2&last=b"), "n=2&last=b");
        let (one, other) = (in_key("n=2&token=c4n4ry"), in_key("n=3&token=c4n4ry"));
        assert!(one != other && !one.contains("c4n4ry"), "{one}");
    }
}
