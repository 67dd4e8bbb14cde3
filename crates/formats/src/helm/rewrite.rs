//! Which URL of an index leads where: chart links lead back to larder, everything else stays byte for byte.

use std::collections::HashSet;

use larder_core::{Digest, DigestAlgorithm, UnixMillis};
use url::Url;

use super::index;
use crate::generic::forwarded_query;
use crate::links::{is_absolute, is_clean, percent_decode};
use crate::splice::Splicer;
use crate::{Claim, Document, Links, Malformed};

/// The index with every chart URL that may be carried replaced (protocols/helm.md section 3).
pub(super) fn derive(document: &Document<'_>, links: &Links<'_>) -> Result<Vec<u8>, Malformed> {
    let (text, index) = index::read(document.body)?;
    let resolver = Resolver::new(document, links);
    let mut splicer = Splicer::new(document.body);
    for span in &index.urls {
        let Some((range, reference)) = span.decode(text) else { continue };
        let Some((_, path)) = resolver.resolve(&reference) else { continue };
        splicer.replace_with(range, |out| span.encode_into(&links.href(&path), out));
    }
    Ok(splicer.finish())
}

/// What the index says of the charts: one claim for each path, the first version that names it being right.
pub(super) fn claims(document: &Document<'_>, links: &Links<'_>, sink: &mut dyn FnMut(Claim)) -> Result<(), Malformed> {
    let (text, index) = index::read(document.body)?;
    let resolver = Resolver::new(document, links);
    let mut seen = HashSet::with_capacity(index.urls.len());
    for version in &index.versions {
        let value = |span: Option<super::scan::Span>| span.and_then(|span| span.decode(text)).map(|(_, value)| value);
        let digest = value(version.digest).and_then(|text| digest(&text));
        let published_at = value(version.created).and_then(|text| instant(&text));
        for span in index.urls.get(version.urls.start as usize..version.urls.end as usize).unwrap_or_default() {
            let Some((_, reference)) = span.decode(text) else { continue };
            let Some((url, path)) = resolver.resolve(&reference) else { continue };
            let Some(path) = key_of(&path) else { continue };
            if seen.insert(path.clone()) {
                sink(Claim { path, url: url.into(), digests: digest.clone().into_iter().collect(), size: None, published_at });
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
}

impl<'a> Resolver<'a> {
    fn new(document: &Document<'a>, links: &'a Links<'a>) -> Self {
        // Elsewhere than below the repository's own root the query is the redirect's (a signature), and not the client's.
        let own = links.is_below_root(document.url);
        Self { document_url: document.url, query: document.url.query().filter(|_| own), links }
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
