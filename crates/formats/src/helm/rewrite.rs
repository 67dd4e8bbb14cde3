//! Which URL of an index leads where: chart links lead back to larder, everything else stays byte for byte.

use std::borrow::Cow;

use larder_core::{Digest, DigestAlgorithm, UnixMillis, join_url};
use url::Url;

use super::index;
use crate::generic::forwarded_query;
use crate::links::{Carried, MAX_URL, NotCarried, is_plain, percent_decode};
use crate::splice::Splicer;
use crate::{Claim, Document, Links, Malformed};

/// The index with every chart URL replaced: by a link to larder, or by the URL itself where that may not be carried. A relative one that
/// stayed would lead to another chart, or into another repository, of larder's.
pub(super) fn rewrite<'d>(
    document: &Document<'d>,
    links: &Links<'_>,
) -> Result<Splicer<'d>, Malformed> {
    let resolver = Resolver::new(document, links);
    let (text, index) = index::of(document, links.meter())?;
    let mut splicer = Splicer::new(document.body);
    for span in &index.urls {
        links.meter().count()?;
        let Some((range, reference)) = span.decode(text) else {
            resolver.cannot_read();
            continue;
        };
        match resolver.written(&reference) {
            Some(Written::Path(path)) => {
                splicer.replace_with(range, |out| {
                    span.encode_into(&[links.base().as_str(), &path], out);
                });
            }
            Some(Written::Elsewhere(url)) => {
                splicer.replace_with(range, |out| span.encode_into(&[url.as_str()], out));
            }
            None => {}
        }
    }
    for _ in 0..index.elsewhere {
        links.leave_out(None, NotCarried::Alias);
    }
    links.end()?;
    Ok(splicer)
}

/// What the index says of the charts: a claim for each time it names one.
pub(super) fn claims(
    document: &Document<'_>,
    links: &Links<'_>,
    sink: &mut dyn FnMut(Claim),
) -> Result<(), Malformed> {
    let resolver = Resolver::new(document, links);
    let (text, index) = index::of(document, links.meter())?;
    for version in &index.versions {
        links.meter().count()?;
        let value = |span: Option<super::scan::Span>| {
            span.and_then(|span| span.decode(text))
                .map(|(_, value)| value)
        };
        let name = value(version.name).map(Cow::into_owned);
        let digest = value(version.digest).and_then(|text| digest(&text));
        let published_at = value(version.created).and_then(|text| instant(&text));
        for span in index
            .urls
            .get(version.urls.start as usize..version.urls.end as usize)
            .unwrap_or_default()
        {
            let Some((_, reference)) = span.decode(text) else {
                continue;
            };
            let Some((url, path)) = resolver.url_and_key(&reference) else {
                continue;
            };
            let claim = Claim {
                path,
                url,
                digests: digest.clone().into_iter().collect(),
                identity: None,
                package: name.clone(),
                size: None,
                published_at,
                names_files: false,
            };
            links.claim(claim, sink);
        }
    }
    links.end()
}

/// What an index gets in the place of a link.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written<'t> {
    /// A path within the repository.
    Path(Cow<'t, str>),
    /// The URL that a relative link means, which larder does not carry.
    Elsewhere(Url),
}

/// Turns the text of a `urls` item into the URL it means and the repository path that carries it.
pub(super) struct Resolver<'a> {
    /// The repository URL that clients are configured with, as it would be without larder: Helm resolves relative links against it,
    /// whatever redirects `index.yaml` took. `None` where it is too long to be multiplied.
    folder_url: Option<Url>,
    links: &'a Links<'a>,
    /// The folder of the index, as URL and as repository path, if plain links below it need no further thought.
    folder: Option<(String, String)>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(document: &Document<'a>, links: &'a Links<'a>) -> Self {
        links.begin(document.body.len());
        let folder_url =
            repository_url(document.key_path, links).filter(|url| url.as_str().len() <= MAX_URL);
        // Helm replaces the query of a relative link by the repository URL's.
        let plain = folder_url.as_ref().filter(|_| links.query().is_none());
        let folder = plain.and_then(|url| {
            let root = links.repository().upstream()?.base_urls.first()?;
            let path = url.as_str().strip_prefix(root.as_str())?;
            let is_simple = path.strip_suffix('/').map_or(path.is_empty(), is_plain)
                && !path.starts_with("_ext/");
            is_simple.then(|| (url.as_str().to_owned(), path.to_owned()))
        });
        Self {
            folder_url,
            links,
            folder,
        }
    }

    /// What links into the repository begin with.
    pub(super) fn base(&self) -> &str {
        self.links.base().as_str()
    }

    /// A link has no text that larder can tell, and is left as it is.
    pub(super) fn cannot_read(&self) {
        self.links.leave_out(None, NotCarried::Unreadable);
    }

    /// What is written in the place of a link; `None` for one that is left as it is, because it means the same everywhere, or nothing.
    pub(super) fn written<'t>(&self, reference: &'t str) -> Option<Written<'t>> {
        if let Some(path) = self.links.plain_path_of(reference) {
            return Some(Written::Path(Cow::Borrowed(path)));
        }
        if let Some((_, folder)) = self.plain_folder(reference) {
            return Some(Written::Path(Cow::Owned([folder, reference].concat())));
        }
        match self.resolve(reference) {
            Ok(Carried { path, .. }) => Some(Written::Path(Cow::Owned(path))),
            Err((url, why)) => {
                self.links.leave_out(url.as_ref(), why);
                url.filter(|_| !names_scheme(reference))
                    .map(Written::Elsewhere)
            }
        }
    }

    /// The URL that a link means, and the name of its file in the cache.
    pub(super) fn url_and_key(&self, reference: &str) -> Option<(String, String)> {
        if let Some(path) = self.links.plain_path_of(reference) {
            return Some((reference.to_owned(), path.to_owned()));
        }
        if let Some((url, folder)) = self.plain_folder(reference) {
            return Some(([url, reference].concat(), [folder, reference].concat()));
        }
        let Carried { path, url } = self.resolve(reference).ok()?;
        Some((url.into(), key_of(&path)?))
    }

    /// The folder that a plain relative link is appended to. `None` says nothing. Below `_ext/`, and where the whole is
    /// longer than paths may be, `resolve` decides.
    fn plain_folder(&self, reference: &str) -> Option<(&str, &str)> {
        let (url, path) = self.folder.as_ref()?;
        let reserved = path.is_empty() && reference.starts_with("_ext/");
        let room = is_plain(reference) && !reserved && self.links.take_room(url.len() + path.len());
        room.then_some((url, path))
    }

    /// `Err` for a link that larder does not carry: another scheme (`oci:`, `s3:` …) or a place that it may not fetch from; with the
    /// URL that clients would ask, if it is one.
    fn resolve(&self, reference: &str) -> Result<Carried, (Option<Url>, NotCarried)> {
        if reference.is_empty() {
            return Err((None, NotCarried::Unreadable));
        }
        let mut url = self
            .links
            .read(self.folder_url.as_ref(), reference)
            .map_err(|why| (None, why))?;
        if url.query() != self.links.query() && !names_scheme(reference) {
            url.set_query(self.links.query());
        }
        match self.links.carry(url.clone()) {
            // The repository itself is no chart.
            Ok(carried) if carried.path.is_empty() => Err((Some(url), NotCarried::Path)),
            Ok(carried) => Ok(carried),
            Err(why) => Err((Some(url), why)),
        }
    }
}

/// `https://host/root/folder/` for the index at `folder/index.yaml`.
fn repository_url(key_path: &str, links: &Links<'_>) -> Option<Url> {
    let root = links.repository().upstream()?.base_urls.first()?;
    let folder =
        larder_core::ArtifactPath::from_decoded(key_path.strip_suffix("index.yaml")?).ok()?;
    join_url(root, folder.encoded(), None).ok()
}

/// Whether a reference begins with a scheme, so that it is relative to nothing.
fn names_scheme(reference: &str) -> bool {
    Url::parse(reference).is_ok()
}

/// The name of a carried path in the cache: decoded, the query raw.
fn key_of(encoded: &str) -> Option<String> {
    let (path, query) = encoded
        .split_once('?')
        .map_or((encoded, None), |(path, query)| {
            (path, forwarded_query(query))
        });
    let path = percent_decode(path)?;
    Some(query.map_or_else(|| path.clone(), |query| format!("{path}?{query}")))
}

/// The digest of a chart archive: SHA-256 in hexadecimal, with or without `sha256:`.
fn digest(text: &str) -> Option<Digest> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    Digest::from_hex(DigestAlgorithm::Sha256, hex).ok()
}

/// A time as Helm reads it, or as registries write times.
pub(super) fn instant(text: &str) -> Option<UnixMillis> {
    super::instant::of(text).or_else(|| crate::instant::instant(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{links, remote};
    use larder_core::PackageType;

    /// Helm refuses the last two; when a chart was made can be told all the same.
    #[test]
    fn times_are_read_in_every_spelling() {
        for text in [
            "2024-01-02T3:04:05,0Z",
            "2024-01-02T03:04:05",
            "Tue, 02 Jan 2024 03:04:05 GMT",
        ] {
            assert_eq!(instant(text), Some(UnixMillis(1_704_164_645_000)), "{text}");
        }
    }

    /// The short cuts for plain links give what the long way gives.
    #[test]
    fn short_cuts_agree_with_the_long_way() {
        let repository = remote(
            "stable",
            PackageType::Helm,
            "https://charts.example.com/stable/",
        );
        let url = "https://charts.example.com/stable/index.yaml"
            .parse()
            .unwrap();
        let mut taken = 0;
        for (key_path, query) in [
            ("index.yaml", None),
            ("a/b/index.yaml", None),
            ("index.yaml", Some("q=1")),
            ("a b/index.yaml", None),
            ("_ext/index.yaml", None),
        ] {
            let links = links(&repository).asked_with(query);
            let document = crate::testing::document(b"", &url, key_path);
            let resolver = Resolver::new(&document, &links);
            for reference in [
                "x.tgz",
                "a/x-1+b.tgz",
                "_ext/x.tgz",
                "a/",
                "",
                ".x",
                "a%2Bb",
                "x?y",
                "https://charts.example.com/stable/x.tgz",
                "https://charts.example.com/stable/_ext/x.tgz",
                "https://charts.example.com/stable/",
                "https://charts.example.com/x.tgz",
                "https://charts.example.com/stable/a//b",
                "https://charts.example.com:443/stable/x.tgz",
            ] {
                let long = resolver.resolve(reference);
                taken += usize::from(
                    links.plain_path_of(reference).is_some()
                        || resolver.plain_folder(reference).is_some(),
                );
                let path = |carried: &Carried| Written::Path(carried.path.clone().into());
                let left = |url: &Option<Url>| {
                    url.clone()
                        .filter(|_| !names_scheme(reference))
                        .map(Written::Elsewhere)
                };
                let written = long
                    .as_ref()
                    .map_or_else(|(url, _)| left(url), |carried| Some(path(carried)));
                assert_eq!(
                    resolver.written(reference),
                    written,
                    "{reference} in {key_path}"
                );
                let long = long
                    .ok()
                    .and_then(|carried| Some((carried.url.to_string(), key_of(&carried.path)?)));
                assert_eq!(
                    resolver.url_and_key(reference),
                    long,
                    "{reference} in {key_path}"
                );
            }
        }
        assert!(taken >= 9, "the short cuts were taken {taken} times");
    }
}
