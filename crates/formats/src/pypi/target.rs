//! Where a page's link leads: from the text of a `url` or `href` to a path within the repository.
//!
//! Knows how PyPI pages write links (relative ones, `<base>`, fragments with digests). What a link means and whether it may be carried is
//! decided by [`Links`].

use std::borrow::Cow;
use std::cell::RefCell;

use larder_core::Digest;
use url::Url;

use super::names;
use crate::Links;
use crate::links::{Carried, MAX_URL, NotCarried, percent_decode};

/// How many directories of relative links are remembered.
const MAX_DIRECTORIES: usize = 8;
/// Longest path that is taken by its letters.
const MAX_PLAIN: usize = 1024;

/// Resolves the links of one page.
#[derive(Debug)]
pub(super) struct Resolver<'a> {
    links: &'a Links<'a>,
    /// What relative links are relative to; `None` if the page names a base that may not be followed, or one that is too long.
    base: Option<Url>,
    /// Where the beginnings of relative links (`../../`) lead.
    directories: RefCell<Vec<(String, Option<Directory>)>>,
}

/// A directory below the repository's root.
#[derive(Debug, Clone)]
struct Directory {
    url: String,
    path: String,
}

/// Where a link leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'r> {
    /// Percent-encoded path within the repository.
    pub(super) path: Cow<'r, str>,
    /// The true URL, without fragment.
    pub(super) url: Cow<'r, str>,
    /// The last segment of the true URL's path, decoded: what clients read name and version from.
    pub(super) file_name: Cow<'r, str>,
}

impl Target<'_> {
    /// The true URL of the file beside this one whose name has `suffix`.
    pub(super) fn sidecar_url(&self, suffix: &str) -> String {
        let (path, query) = self
            .url
            .split_at(self.url.find('?').unwrap_or(self.url.len()));
        format!("{path}{suffix}{query}")
    }
}

impl<'a> Resolver<'a> {
    /// For a page found at `page` (after redirects), with the `<base href>` it names.
    ///
    /// A base on another host than the page's own, the upstream's or one that `link_hosts` names would turn every relative
    /// link of the page into one to that host: such a base takes the relative links with it.
    pub(super) fn new(links: &'a Links<'a>, page: &Url, base: Option<&str>) -> Self {
        let base = match base {
            None => Some(page.clone()),
            Some(text) => page
                .join(text)
                .ok()
                .filter(|base| is_trusted(links, page, base)),
        };
        let base = base.map(|mut base| {
            base.set_query(None);
            base
        });
        Self {
            links,
            base: base.filter(|base| base.as_str().len() <= MAX_URL),
            directories: RefCell::default(),
        }
    }

    /// Where `reference` (without its fragment) leads; `None` if larder may not carry it, or if it names no file. What clients would
    /// take for a file and do not get is remembered by [`Links`].
    pub(super) fn resolve<'r>(&self, reference: &'r str) -> Option<Target<'r>> {
        let reference = reference.trim_matches(|c: char| c.is_ascii_whitespace());
        if let Some(target) = self.resolve_plain(reference) {
            return Some(target);
        }
        match self.resolve_any(reference) {
            Ok(target) => target,
            Err((url, why)) => {
                let path = url.as_ref().map_or(reference, Url::path);
                // The page's other links (a parent folder, another order of the list, a mail address) are no loss.
                if percent_decode(path.split(['?', '#']).next().unwrap_or_default())
                    .is_none_or(|path| names::is_distribution(&path))
                {
                    self.leave_out(url.as_ref(), why);
                }
                None
            }
        }
    }

    /// Remembers that an entry was dropped.
    pub(super) fn leave_out(&self, url: Option<&Url>, why: NotCarried) {
        self.links.leave_out(url, why);
    }

    /// [`resolve_any`](Self::resolve_any) by letters alone, for the links that nearly all pages consist of: below the file
    /// root, or relative to a directory that is, and made of characters that mean themselves. Five times as fast.
    fn resolve_plain<'r>(&self, reference: &'r str) -> Option<Target<'r>> {
        let roots = &self.links.repository().upstream()?.base_urls;
        if let Some(path) = roots
            .iter()
            .find_map(|root| reference.strip_prefix(root.as_str()))
        {
            let file_name = plain_file_name(path)?;
            if self.links.is_reserved(path) {
                return None;
            }
            return Some(Target {
                path: Cow::Borrowed(path),
                url: Cow::Borrowed(reference),
                file_name,
            });
        }
        let inner = reference
            .strip_prefix('/')
            .unwrap_or_else(|| below_dots(reference));
        let file_name = plain_file_name(inner)?;
        let directory = self.directory(reference.strip_suffix(inner)?)?;
        let path = directory.path + inner;
        let reserved = self.links.is_reserved(&path) || path.len() > MAX_PLAIN;
        let room = self
            .links
            .take_room(path.len() + directory.url.len() + inner.len());
        (room && !reserved).then(|| Target {
            path: Cow::Owned(path),
            url: Cow::Owned(directory.url + inner),
            file_name,
        })
    }

    /// Where relative links that start with `dots` lead to, if that is below the repository's root.
    fn directory(&self, dots: &str) -> Option<Directory> {
        let mut known = self.directories.borrow_mut();
        if let Some((_, directory)) = known.iter().find(|(text, _)| text == dots) {
            return directory.clone();
        }
        let found = self.base.as_ref().and_then(|base| {
            let url = base.join(if dots.is_empty() { "./" } else { dots }).ok()?;
            let Carried { path, url } = self
                .links
                .carry(url)
                .ok()
                .filter(|carried| !carried.path.starts_with("_ext/"))?;
            Some(Directory {
                url: url.into(),
                path,
            })
        });
        if known.len() < MAX_DIRECTORIES {
            known.push((dots.to_owned(), found.clone()));
        }
        found
    }

    /// `Ok(None)` if it names no file; else why it is not carried, and where it leads if that can be told.
    fn resolve_any(
        &self,
        reference: &str,
    ) -> Result<Option<Target<'static>>, (Option<Url>, NotCarried)> {
        if reference.is_empty() {
            return Ok(None);
        }
        let url = self
            .links
            .read(self.base.as_ref(), reference)
            .map_err(|why| (None, why))?;
        let refused = |why| (Some(url.clone()), why);
        let file_name = url
            .path()
            .rsplit('/')
            .next()
            .and_then(percent_decode)
            .ok_or_else(|| refused(NotCarried::Path))?;
        if file_name.is_empty() {
            return Ok(None);
        }
        if !names::is_safe_file_name(&file_name) {
            return Err(refused(NotCarried::Path));
        }
        let Carried { path, url } = self.links.carry(url.clone()).map_err(refused)?;
        Ok(Some(Target {
            path: Cow::Owned(path),
            url: Cow::Owned(url.into()),
            file_name: Cow::Owned(file_name),
        }))
    }
}

/// What follows the leading `../` and `./` of a relative link.
fn below_dots(reference: &str) -> &str {
    let mut inner = reference;
    while let Some(rest) = inner
        .strip_prefix("../")
        .or_else(|| inner.strip_prefix("./"))
    {
        inner = rest;
    }
    inner
}

/// What a byte of a path may be taken for.
#[derive(Clone, Copy)]
enum Plain {
    Itself,
    /// Itself, but not at the start of a segment.
    NotFirst,
    /// The start of an escape.
    Escape,
    No,
}

/// Looked up rather than compared, because every byte of every link passes here.
const PLAIN: [Plain; 256] = {
    let mut table = [Plain::No; 256];
    let mut at = 0;
    while at < table.len() {
        let byte = at as u8;
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~' | b'+') {
            table[at] = Plain::Itself;
        }
        at += 1;
    }
    table[b'/' as usize] = Plain::NotFirst;
    table[b'.' as usize] = Plain::NotFirst;
    table[b'%' as usize] = Plain::Escape;
    table
};

/// The decoded last segment of a relative path in which every character means itself: letters, digits, `-_.~+`, the escape
/// `%2B`, and single slashes between segments that do not start with a dot. `None` for any other.
fn plain_file_name(path: &str) -> Option<Cow<'_, str>> {
    let bytes = path.as_bytes();
    let mut before = b'/';
    let mut escapes = false;
    for (at, &byte) in bytes.iter().enumerate() {
        let legal = match PLAIN[usize::from(byte)] {
            Plain::Itself => true,
            Plain::NotFirst => before != b'/',
            Plain::Escape => {
                escapes = true;
                bytes
                    .get(at + 1..at + 3)
                    .is_some_and(|digits| digits.eq_ignore_ascii_case(b"2b"))
            }
            Plain::No => false,
        };
        if !legal {
            return None;
        }
        before = byte;
    }
    if before == b'/' || path.len() > MAX_PLAIN {
        return None;
    }
    let last = path.rsplit('/').next()?;
    if escapes {
        percent_decode(last).map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(last))
    }
}

fn is_trusted(links: &Links<'_>, page: &Url, base: &Url) -> bool {
    let Some(upstream) = links.repository().upstream() else {
        return false;
    };
    let listed = || {
        let host = base.host_str().unwrap_or_default();
        let with_port = base
            .port_or_known_default()
            .map(|port| format!("{host}:{port}"));
        let hosts = upstream.link_hosts.as_deref().unwrap_or_default();
        hosts
            .iter()
            .any(|entry| entry == host || Some(entry) == with_port.as_ref())
    };
    base.has_host()
        && (base.origin() == page.origin() || upstream.is_configured_origin(base) || listed())
}

/// Splits a link at its first `#`: the reference, and the fragment as it stands.
pub(super) fn split_fragment(link: &str) -> (&str, Option<&str>) {
    link.split_once('#')
        .map_or((link, None), |(reference, fragment)| {
            (reference, Some(fragment))
        })
}

/// The digests that a fragment states (`sha256=…`, also beside `egg=…`), each with its text. Unknown algorithms are skipped.
pub(super) fn fragment_digests(fragment: &str) -> impl Iterator<Item = (&str, &str, Digest)> {
    fragment
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter_map(|(name, hex)| {
            Digest::from_name_and_hex(name, hex)
                .ok()
                .map(|digest| (name, hex, digest))
        })
}

#[cfg(test)]
mod tests;
