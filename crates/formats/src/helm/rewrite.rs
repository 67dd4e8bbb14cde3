//! Which URL of an index leads where: chart links lead back to larder, everything else stays byte for byte.

use std::borrow::Cow;
use std::collections::HashSet;

use larder_core::{Digest, DigestAlgorithm, UnixMillis};
use url::Url;

use super::index;
use crate::generic::forwarded_query;
use crate::links::{is_absolute, is_clean, is_plain, percent_decode};
use crate::splice::Splicer;
use crate::{Claim, Document, Links, Malformed};

/// The index with every chart URL that may be carried replaced (protocols/helm.md section 3).
pub(super) fn derive(document: &Document<'_>, links: &Links<'_>) -> Result<Vec<u8>, Malformed> {
    let (text, index) = index::of(document)?;
    let resolver = Resolver::new(document, links);
    let mut splicer = Splicer::new(document.body);
    for span in &index.urls {
        let Some((range, reference)) = span.decode(text) else { continue };
        let Some(path) = resolver.path(&reference) else { continue };
        splicer.replace_with(range, |out| span.encode_into(&[links.base().as_str(), &path], out));
    }
    Ok(splicer.finish())
}

/// What the index says of the charts: one claim for each path, the first version that names it being right.
pub(super) fn claims(document: &Document<'_>, links: &Links<'_>, sink: &mut dyn FnMut(Claim)) -> Result<(), Malformed> {
    let (text, index) = index::of(document)?;
    let resolver = Resolver::new(document, links);
    let mut seen = HashSet::with_capacity(index.urls.len());
    for version in &index.versions {
        let value = |span: Option<super::scan::Span>| span.and_then(|span| span.decode(text)).map(|(_, value)| value);
        let digest = value(version.digest).and_then(|text| digest(&text));
        let published_at = value(version.created).and_then(|text| instant(&text));
        for span in index.urls.get(version.urls.start as usize..version.urls.end as usize).unwrap_or_default() {
            let Some((_, reference)) = span.decode(text) else { continue };
            let Some((url, path)) = resolver.url_and_key(&reference) else { continue };
            if seen.insert(path.clone()) {
                sink(Claim { path, url, digests: digest.clone().into_iter().collect(), size: None, published_at });
            }
        }
    }
    Ok(())
}

/// Turns the text of a `urls` item into the URL it means and the repository path that carries it.
struct Resolver<'a> {
    document_url: &'a Url,
    /// Helm replaces the query of a relative link by the repository URL's.
    query: Option<&'a str>,
    links: &'a Links<'a>,
    /// The folder of the document, as URL and as repository path, if plain links below it need no further thought.
    folder: Option<(&'a str, &'a str)>,
}

impl<'a> Resolver<'a> {
    fn new(document: &Document<'a>, links: &'a Links<'a>) -> Self {
        // Elsewhere than below the repository's own root the query is the redirect's (a signature), and not the client's.
        let own = links.is_below_root(document.url);
        let query = document.url.query().filter(|_| own);
        let folder = document.url.as_str().rsplit_once('/').and_then(|(folder, last)| {
            let path = links.plain_path_of(document.url.as_str())?;
            Some((document.url.as_str().get(..=folder.len())?, path.strip_suffix(last)?))
        });
        Self { document_url: document.url, query, links, folder }
    }

    /// The encoded repository path that carries a link.
    fn path<'t>(&self, reference: &'t str) -> Option<Cow<'t, str>> {
        if let Some(path) = self.links.plain_path_of(reference) {
            return Some(Cow::Borrowed(path));
        }
        if let Some((_, folder)) = self.plain_folder(reference) {
            return Some(Cow::Owned([folder, reference].concat()));
        }
        self.resolve(reference).map(|(_, path)| Cow::Owned(path))
    }

    /// The URL that a link means, and the name of its file in the cache.
    fn url_and_key(&self, reference: &str) -> Option<(String, String)> {
        if let Some(path) = self.links.plain_path_of(reference) {
            return Some((reference.to_owned(), path.to_owned()));
        }
        if let Some((url, folder)) = self.plain_folder(reference) {
            return Some(([url, reference].concat(), [folder, reference].concat()));
        }
        let (url, path) = self.resolve(reference)?;
        Some((url.into(), key_of(&path)?))
    }

    /// The folder that a plain relative link is appended to. `None` says nothing. Below `_ext/`, and where the whole is
    /// longer than paths may be, `resolve` decides.
    fn plain_folder(&self, reference: &str) -> Option<(&'a str, &'a str)> {
        self.folder.filter(|(_, path)| is_plain(reference) && !(path.is_empty() && reference.starts_with("_ext/")))
    }

    /// `None` for a link that is left as it is: another scheme (`oci:`, `s3:` …), a text that clients may read in two ways, a
    /// place that larder may not fetch from.
    fn resolve(&self, reference: &str) -> Option<(Url, String)> {
        if reference.is_empty() || reference.contains('#') || !is_clean(reference) {
            return None;
        }
        let url = if is_absolute(reference) {
            Url::parse(reference).ok()?
        } else {
            // A colon in the first segment would make it a scheme; Helm refuses such a link.
            let first = reference.split(['/', '?']).next().unwrap_or(reference);
            let mut url = (!first.contains(':')).then(|| self.document_url.join(reference).ok()).flatten()?;
            url.set_query(self.query);
            url
        };
        let path = self.links.path_of(&url).filter(|path| !path.is_empty())?;
        Some((url, path))
    }
}

/// The name of a carried path in the cache: decoded, the query raw.
fn key_of(encoded: &str) -> Option<String> {
    let (path, query) = encoded.split_once('?').map_or((encoded, None), |(path, query)| (path, forwarded_query(query)));
    let path = percent_decode(path)?;
    Some(query.map_or_else(|| path.clone(), |query| format!("{path}?{query}")))
}

/// The digest of a chart archive: SHA-256 in hexadecimal, with or without `sha256:`.
fn digest(text: &str) -> Option<Digest> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    Digest::from_hex(DigestAlgorithm::Sha256, hex).ok()
}

/// An RFC 3339 time.
fn instant(text: &str) -> Option<UnixMillis> {
    text.parse::<jiff::Timestamp>().ok().map(|time| UnixMillis(time.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{links, remote};
    use larder_core::PackageType;

    /// The short cuts for plain links give what the long way gives.
    #[test]
    fn short_cuts_agree_with_the_long_way() {
        let repository = remote("stable", PackageType::Helm, "https://charts.example.com/stable/");
        let links = links(&repository);
        let mut taken = 0;
        for url in [
            "https://charts.example.com/stable/index.yaml",
            "https://charts.example.com/stable/a/b/index.yaml",
            "https://charts.example.com/stable/index.yaml?q=1",
            "https://charts.example.com/index.yaml",
            "https://charts.example.com/stable/%41/index.yaml",
        ] {
            let url = url.parse().unwrap();
            let document = Document { body: b"", content_type: "", url: &url, key_path: "index.yaml", variant: "", memo: None };
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
                taken += usize::from(links.plain_path_of(reference).is_some() || resolver.plain_folder(reference).is_some());
                assert_eq!(
                    resolver.path(reference).map(Cow::into_owned),
                    long.as_ref().map(|(_, path)| path.clone()),
                    "{reference} in {url}"
                );
                let long = long.and_then(|(url, path)| Some((url.to_string(), key_of(&path)?)));
                assert_eq!(resolver.url_and_key(reference), long, "{reference} in {url}");
            }
        }
        assert!(taken >= 9, "the short cuts were taken {taken} times");
    }
}
