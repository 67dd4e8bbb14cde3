//! Where in an index the names, chart URLs, digests and dates stand. Knows the shape `entries: {name: [{name, urls, digest, created}]}`,
//! not what any of them means.
//!
//! The reader is chosen here: Helm takes what is valid JSON as JSON and everything else as YAML; YAML goes to the line scanner,
//! and to the real parser if there is a line that the scanner does not know.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use super::scan::{Kind, Sink, Span, Style, check_depth};
use super::{events, json, lines};
use crate::{Document, Malformed, Meter};

/// The chart versions of an index, in document order.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) versions: Vec<Version>,
    /// The items of all `urls`, in document order.
    pub(super) urls: Vec<Span>,
    /// How often a YAML alias of something that is not read as links stands where links do.
    pub(super) elsewhere: u32,
}

/// One chart version.
#[derive(Debug)]
pub(super) struct Version {
    /// Its part of [`Index::urls`].
    pub(super) urls: Range<u32>,
    pub(super) name: Option<Span>,
    pub(super) digest: Option<Span>,
    pub(super) created: Option<Span>,
}

/// The index of a document: read once for its check and all that is derived from the same bytes.
pub(super) fn of<'a>(
    document: &Document<'a>,
    meter: &Meter,
) -> Result<(&'a str, Arc<Index>), Malformed> {
    if let Some(index) = document.memo.and_then(|memo| memo.get::<Arc<Index>>()) {
        return Ok((text_of(document.body)?, Arc::clone(index)));
    }
    let (text, index) = read(document.body, meter)?;
    let index = Arc::new(index);
    if let Some(memo) = document.memo {
        memo.keep(Arc::clone(&index));
    }
    Ok((text, index))
}

pub(super) fn text_of(body: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(body).map_err(|error| {
        Malformed(format!(
            "index.yaml is not UTF-8: byte {} is no character",
            error.valid_up_to()
        ))
    })
}

/// Reads an index. Fails on what Helm would refuse as a whole, and on what is a bomb.
pub(super) fn read<'a>(body: &'a [u8], meter: &Meter) -> Result<(&'a str, Index), Malformed> {
    let text = text_of(body)?;
    if u32::try_from(body.len()).is_err() {
        return Err(Malformed("index.yaml is larger than 4 GiB".to_owned()));
    }
    let begin = text.trim_start_matches('\u{feff}').trim_ascii_start();
    if begin.starts_with('<') {
        return Err(Malformed(
            "index.yaml is a web page (HTML), not an index: the upstream may ask for a login"
                .to_owned(),
        ));
    }
    if begin.starts_with('{') {
        let mut builder = Builder::new(text, meter);
        if json::read(text, &mut builder)? {
            return builder.finish();
        }
    }
    let mut builder = Builder::new(text, meter);
    if lines::read(text, &mut builder)? {
        return builder.finish();
    }
    let mut builder = Builder::new(text, meter);
    events::read(text, &mut builder)?;
    builder.finish()
}

/// Which part of the index a collection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Root,
    Entries,
    Versions,
    Version,
    Urls,
    Other,
}

/// The key whose value comes next, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    ApiVersion,
    Entries,
    Urls,
    Name,
    Digest,
    Created,
    /// `<<`, whose mapping, or each of a list of them, has keys of the mapping that it stands in.
    Merge,
    Other,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    part: Part,
    is_mapping: bool,
    /// What a merge key brings.
    is_merged: bool,
    /// In a mapping: the key that was read, its value being awaited.
    key: Option<Key>,
}

struct Builder<'a, 'm> {
    text: &'a str,
    meter: &'m Meter,
    index: Index,
    open: Vec<Open>,
    name: Option<Span>,
    digest: Option<Span>,
    created: Option<Span>,
    first_url: u32,
    /// The anchor of the node that begins next.
    anchor: usize,
    /// The anchors of what is read as links, or has them.
    linked: HashSet<usize>,
    has_api_version: bool,
    is_mapping: bool,
    bad_entries: bool,
}

impl<'a, 'm> Builder<'a, 'm> {
    fn new(text: &'a str, meter: &'m Meter) -> Self {
        Self {
            text,
            meter,
            index: Index::default(),
            open: Vec::with_capacity(8),
            name: None,
            digest: None,
            created: None,
            first_url: 0,
            anchor: 0,
            linked: HashSet::new(),
            has_api_version: false,
            is_mapping: false,
            bad_entries: false,
        }
    }

    fn finish(self) -> Result<(&'a str, Index), Malformed> {
        self.meter.end()?;
        let problem = if !self.is_mapping {
            "index.yaml is not a mapping"
        } else if !self.has_api_version {
            "index.yaml has no apiVersion, so Helm would refuse it"
        } else if self.bad_entries {
            "index.yaml has 'entries' that is not a mapping"
        } else {
            return Ok((self.text, self.index));
        };
        Err(Malformed(problem.to_owned()))
    }

    /// Which part of the index a collection is that starts now, and whether a merge key brings it. It takes the awaited key with it.
    fn part(&mut self, is_mapping: bool) -> (Part, bool) {
        let Some(parent) = self.open.last_mut() else {
            self.is_mapping = is_mapping;
            return (Part::Root, false);
        };
        let key = parent.key.take();
        let is_list_of_merged = parent.is_merged && !parent.is_mapping;
        if key == Some(Key::Merge) || (is_list_of_merged && is_mapping) {
            return (parent.part, true);
        }
        let part = match (parent.part, key, is_mapping) {
            (Part::Root, Some(Key::Entries), true) => Part::Entries,
            (Part::Root, Some(Key::Entries), false) => {
                self.bad_entries = true;
                Part::Other
            }
            (Part::Entries, Some(_), false) => Part::Versions,
            (Part::Versions, _, true) => Part::Version,
            (Part::Version, Some(Key::Urls), false) => Part::Urls,
            _ => Part::Other,
        };
        (part, false)
    }

    /// Remembers the anchor of the node that begins, if it is one that links are read of.
    fn take_anchor(&mut self, is_linked: bool) {
        let anchor = std::mem::take(&mut self.anchor);
        if anchor > 0 && is_linked && self.meter.hold(size_of::<[usize; 4]>()) {
            self.linked.insert(anchor);
        }
    }

    fn key(&self, part: Part, span: Span) -> Key {
        if !matches!(part, Part::Root | Part::Entries | Part::Version) {
            return Key::Other;
        }
        let raw = self.text.as_bytes().get(span.range()).unwrap_or_default();
        if span.style == Style::Plain && raw == b"<<" {
            return Key::Merge;
        }
        let decoded;
        let name = if span.style == Style::Plain {
            raw
        } else {
            decoded = span.decode(self.text).map(|(_, value)| value);
            decoded.as_deref().unwrap_or_default().as_bytes()
        };
        // Helm does not tell upper from lower case.
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match part {
            Part::Root if is(b"apiVersion") => Key::ApiVersion,
            Part::Root if is(b"entries") => Key::Entries,
            Part::Version if is(b"urls") => Key::Urls,
            Part::Version if is(b"name") => Key::Name,
            Part::Version if is(b"digest") => Key::Digest,
            Part::Version if is(b"created") => Key::Created,
            _ => Key::Other,
        }
    }

    fn value(&mut self, key: Key, span: Span, is_merged: bool) {
        let given = !matches!(
            self.text.get(span.range()),
            None | Some("" | "~" | "null" | "\"\"" | "''")
        );
        match key {
            Key::ApiVersion => self.has_api_version = given,
            Key::Entries => self.bad_entries = given,
            // What stands in the mapping itself has priority.
            Key::Name if is_merged && self.name.is_some() => {}
            Key::Digest if is_merged && self.digest.is_some() => {}
            Key::Created if is_merged && self.created.is_some() => {}
            Key::Name => self.name = given.then_some(span),
            Key::Digest => self.digest = given.then_some(span),
            Key::Created => self.created = given.then_some(span),
            Key::Urls | Key::Merge | Key::Other => {}
        }
    }
}

impl Sink for Builder<'_, '_> {
    fn start(&mut self, kind: Kind) -> Result<(), Malformed> {
        check_depth(self.open.len())?;
        let is_mapping = kind == Kind::Mapping;
        let (part, is_merged) = self.part(is_mapping);
        self.take_anchor(!matches!(part, Part::Root | Part::Other));
        if part == Part::Version && !is_merged {
            (self.name, self.digest, self.created) = (None, None, None);
            self.first_url = self.index.urls.len() as u32;
        }
        self.open.push(Open {
            part,
            is_mapping,
            is_merged,
            key: None,
        });
        Ok(())
    }

    fn end(&mut self) {
        let Some(closed) = self.open.pop() else {
            return;
        };
        if closed.part == Part::Version
            && !closed.is_merged
            && self.meter.entry()
            && self.meter.hold(size_of::<Version>())
        {
            let urls = self.first_url..self.index.urls.len() as u32;
            self.index.versions.push(Version {
                urls,
                name: self.name.take(),
                digest: self.digest.take(),
                created: self.created.take(),
            });
        }
    }

    fn scalar(&mut self, span: Span) {
        let Some(&Open {
            part,
            is_mapping,
            is_merged,
            key,
        }) = self.open.last()
        else {
            return;
        };
        self.take_anchor(part == Part::Urls);
        match key {
            None if is_mapping => {
                let key = self.key(part, span);
                if let Some(open) = self.open.last_mut() {
                    open.key = Some(key);
                }
            }
            Some(key) => {
                if let Some(open) = self.open.last_mut() {
                    open.key = None;
                }
                self.value(key, span, is_merged);
            }
            None if part == Part::Urls
                && self.meter.entry()
                && self.meter.hold(size_of::<Span>()) =>
            {
                self.index.urls.push(span);
            }
            None => {}
        }
    }

    fn tick(&mut self) -> Result<(), Malformed> {
        self.meter.tick();
        self.meter.end()
    }

    fn anchor(&mut self, anchor: usize) {
        self.anchor = anchor;
    }

    fn alias(&mut self, anchor: usize) {
        // What an alias stands for is not known here: as a key it is none that matters, as a value it is left alone.
        let stands_for_links = match self.open.last_mut() {
            Some(open) if open.is_mapping && open.key.is_none() => {
                open.key = Some(Key::Other);
                false
            }
            Some(open) if open.is_mapping => {
                let key = open.key.take();
                self.has_api_version |= key == Some(Key::ApiVersion);
                matches!(key, Some(Key::Urls | Key::Merge))
            }
            Some(open) => open.part == Part::Urls || open.is_merged,
            None => false,
        };
        let is_news = stands_for_links && !self.linked.contains(&anchor);
        self.index.elsewhere += u32::from(is_news);
    }
}
