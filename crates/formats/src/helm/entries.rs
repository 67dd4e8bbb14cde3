//! The chart versions of an index as they are merged: which lines each takes, where its links stand, which scalars would not be the
//! texts that Helm expects, and why Helm would refuse it.
//!
//! Read from the block style that Helm itself writes; whatever else an index may be written in is brought into that style first
//! (`normal.rs`).

use std::borrow::Cow;
use std::collections::HashSet;

use super::scalar::has_slash_escape;
use super::scan::{Kind, Sink, Span, Style, check_depth};
use super::shape::{Number, OTHERWISE, Shape, is_endless, is_no_text, is_null, number, truth};
use super::versions::{Edit, Entries, Entry, UNKNOWN, Unfit};
use super::{index, instant, json, lines, normal};
use crate::Malformed;

/// Reads the chart versions of an index.
pub(super) fn of(body: &[u8]) -> Result<Entries<'_>, Malformed> {
    let text = index::text_of(body)?;
    if u32::try_from(body.len()).is_err() {
        return Err(Malformed("index.yaml is larger than 4 GiB".to_owned()));
    }
    if text.trim_ascii_start().starts_with('{') {
        let mut writer = normal::Writer::of_json(text);
        if json::read(text, &mut writer)? {
            return of_normal(writer.finish(), true);
        }
    }
    let mut reader = Reader::new(text);
    if !normal::has_odd(text) && lines::read(text, &mut reader)? && !reader.is_unusual {
        let (versions, edits, generated) = reader.finish();
        return Ok(Entries {
            text: Cow::Borrowed(text),
            versions,
            edits,
            generated,
            lost: 0,
        });
    }
    drop(reader);
    let mut writer = normal::Writer::of_yaml(text);
    super::events::read(text, &mut writer)?;
    of_normal(writer.finish(), false)
}

fn of_normal((text, lost): (String, usize), is_json: bool) -> Result<Entries<'static>, Malformed> {
    let mut reader = Reader::new(&text);
    reader.is_json = is_json;
    if !lines::read(&text, &mut reader)? || reader.is_unusual {
        return Err(Malformed(
            "index.yaml is written in a way that cannot be merged".to_owned(),
        ));
    }
    let (versions, edits, generated) = reader.finish();
    Ok(Entries {
        text: Cow::Owned(text),
        versions,
        edits,
        generated,
        lost,
    })
}

/// A key as Helm's reader tells it from others, however it is written.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Same<'a> {
    Text(Cow<'a, str>),
    Truth(bool),
    Number(Number),
}

/// An open collection.
#[derive(Debug)]
struct Open<'a> {
    shape: Shape,
    is_mapping: bool,
    /// In a mapping: what the value that comes next is to be, and the number of its key.
    awaited: Option<(u8, Shape)>,
    /// The numbers of the keys that were read.
    fields: u64,
    /// The keys of a mapping whose keys have no number.
    keys: HashSet<Same<'a>>,
}

struct Reader<'a> {
    text: &'a str,
    /// In JSON Helm takes keys in their order, and the merged index is none.
    is_json: bool,
    versions: Vec<Entry>,
    edits: Vec<Edit>,
    generated: Option<Span>,
    open: Vec<Open<'a>>,
    current: Option<Entry>,
    /// The last version's end is not known yet.
    is_last_open: bool,
    /// There is something in a list of versions whose lines cannot be told.
    is_unusual: bool,
}

/// The first byte of [`normal::ALIAS`].
const ALIAS_BYTE: u8 = 0xee;
/// The number of a key that has none.
const NO_FIELD: u8 = u8::MAX;

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            is_json: false,
            versions: Vec::new(),
            edits: Vec::new(),
            generated: None,
            open: Vec::with_capacity(8),
            current: None,
            is_last_open: false,
            is_unusual: false,
        }
    }

    fn finish(mut self) -> (Vec<Entry>, Vec<Edit>, Option<Span>) {
        self.end_last(self.text.len() as u32);
        (self.versions, self.edits, self.generated)
    }

    /// What starts at this offset is no part of the last version.
    fn end_last(&mut self, at: u32) {
        if self.is_last_open
            && let Some(last) = self.versions.last_mut()
        {
            last.end = at;
        }
        self.is_last_open = false;
    }

    fn fault(&mut self, what: impl FnOnce() -> String) {
        if let Some(entry) = &mut self.current {
            entry.fault.get_or_insert_with(|| Box::new(Unfit(what())));
        }
    }

    fn raw(&self, span: Span) -> &'a str {
        self.text.get(span.range()).unwrap_or_default()
    }

    fn decoded(&self, span: Span) -> Option<Cow<'a, str>> {
        span.decode(self.text).map(|(_, value)| value)
    }

    /// The offset of the first byte of the line that a scalar stands in.
    fn line_start(&self, span: Span) -> u32 {
        let before = self.text.as_bytes().get(..span.start as usize);
        before
            .and_then(|before| memchr::memrchr(b'\n', before))
            .map_or(0, |at| at as u32 + 1)
    }

    /// The first key of a version stands in the line of its dash, or nobody can tell where that line is.
    fn begin_at(&mut self, key: Span) {
        let start = self.line_start(key);
        let before = self
            .text
            .get(start as usize..key.start as usize)
            .unwrap_or_default();
        let after_indent = before.trim_start_matches(' ');
        let column = before.len() - after_indent.len();
        if after_indent
            .strip_prefix('-')
            .is_none_or(|rest| rest.is_empty() || !rest.bytes().all(|b| b == b' '))
        {
            self.is_unusual = true;
        }
        self.end_last(start);
        if let Some(entry) = &mut self.current {
            entry.start = start;
            entry.column = column as u32;
        }
    }

    fn key(&mut self, span: Span) {
        let Some(open) = self.open.last() else {
            return;
        };
        let (shape, fields) = (open.shape, open.fields);
        if shape == Shape::Entry && self.current.as_ref().is_some_and(|e| e.start == UNKNOWN) {
            self.begin_at(span);
        }
        if self.current.is_none() {
            self.outer_key(shape, span);
            return;
        }
        let raw = self.raw(span);
        let key = if span.style == Style::Plain {
            Cow::Borrowed(raw)
        } else {
            self.decoded(span).unwrap_or(Cow::Borrowed(raw))
        };
        let awaited = if shape.has_fields() {
            if let Some((field, value)) = self.field(shape, &key) {
                if fields & (1 << field) != 0 {
                    self.fault(|| format!("the key {} stands twice", shown(&key)));
                }
                (field, value)
            } else {
                self.fault(|| format!("Helm does not know the key {}", shown(&key)));
                (NO_FIELD, Shape::Any)
            }
        } else if shape == Shape::Labels {
            (NO_FIELD, Shape::Text)
        } else {
            (NO_FIELD, Shape::Any)
        };
        let is_plain = span.style == Style::Plain;
        let same = match (truth(raw), number(raw)) {
            (Some(truth), _) if is_plain => Same::Truth(truth),
            (_, Some(number)) if is_plain => Same::Number(number),
            _ => Same::Text(key.clone()),
        };
        let is_new = self.open.last_mut().is_none_or(|open| {
            open.awaited = Some(awaited);
            if awaited.0 != NO_FIELD {
                open.fields |= 1 << awaited.0;
            }
            shape.has_fields() || open.keys.insert(same)
        });
        if !is_new {
            self.fault(|| format!("the key {} stands twice", shown(&key)));
        }
        if is_plain && is_null(raw) {
            self.fault(|| "a key is null".to_owned());
        }
        self.check_escapes(span);
        if key == normal::ALIAS || key == "<<" {
            self.fault(|| {
                "it is written with YAML aliases or !!binary, which larder does not follow"
                    .to_owned()
            });
        }
    }

    /// As [`Shape::field`]. In JSON there is one number for all spellings.
    fn field(&self, shape: Shape, key: &str) -> Option<(u8, Shape)> {
        let (field, value) = shape.field(key.as_bytes())?;
        let is_one = self.is_json;
        Some((if is_one { field % OTHERWISE } else { field }, value))
    }

    fn check_escapes(&mut self, span: Span) {
        let raw = self.raw(span);
        if span.style == Style::Double && has_slash_escape(raw) {
            self.fault(|| format!("{} has an escape that Helm does not know", shown(raw)));
        }
    }

    /// A key outside of all versions.
    fn outer_key(&mut self, shape: Shape, span: Span) {
        let awaited = match shape {
            Shape::Root => self
                .decoded(span)
                .and_then(|key| Shape::of_root(&key))
                .unwrap_or(Shape::Any),
            Shape::Entries => Shape::Versions,
            _ => Shape::Any,
        };
        if matches!(shape, Shape::Root | Shape::Entries) {
            self.end_last(self.line_start(span));
        }
        if let Some(open) = self.open.last_mut() {
            open.awaited = Some((NO_FIELD, awaited));
        }
    }

    /// A scalar where `shape` is expected.
    fn value(&mut self, parent: Shape, field: u8, shape: Shape, span: Span) {
        let Some(entry) = &mut self.current else {
            if parent == Shape::Root && shape == Shape::Instant {
                self.generated = Some(span);
            }
            return;
        };
        let raw = self.text.get(span.range()).unwrap_or_default();
        let is_plain = span.style == Style::Plain;
        if parent == Shape::Entry {
            entry.set(field, span, is_plain && truth(raw) == Some(true));
        }
        // Without a line break at its end its text has none, whatever its header says; in another place it would get one.
        self.is_unusual |= span.style == Style::Block && span.end as usize == self.text.len();
        self.check_escapes(span);
        if memchr::memchr(ALIAS_BYTE, raw.as_bytes()).is_some()
            && self.decoded(span).as_deref() == Some(normal::ALIAS)
        {
            self.fault(|| {
                "it is written with YAML aliases or !!binary, which larder does not follow"
                    .to_owned()
            });
        }
        if is_plain && is_null(raw) {
            return;
        }
        let fits = match shape {
            Shape::Text => {
                let is_link = parent == Shape::Urls;
                if is_link || (is_plain && is_no_text(raw)) {
                    self.edits.push(Edit::of(span, is_link));
                }
                true
            }
            Shape::Flag => is_plain && truth(raw).is_some(),
            Shape::Instant => self
                .decoded(span)
                .is_some_and(|text| instant::of(&text).is_some()),
            Shape::Any => !(is_plain && is_endless(raw)),
            _ => false,
        };
        if !fits {
            self.fault(|| {
                format!(
                    "{} is no {}",
                    shown(raw),
                    shape.as_str().trim_start_matches("a ")
                )
            });
        }
    }
}

impl Sink for Reader<'_> {
    fn start(&mut self, kind: Kind) -> Result<(), Malformed> {
        check_depth(self.open.len())?;
        let expected = match self.open.last_mut() {
            None => Shape::Root,
            Some(open) if open.is_mapping => {
                open.awaited.take().map_or(Shape::Any, |(_, shape)| shape)
            }
            Some(open) => open.shape.item(),
        };
        let shape = if expected.takes(kind) {
            expected
        } else {
            self.is_unusual |= expected == Shape::Entry;
            self.fault(|| {
                format!(
                    "there is a collection where {} should be",
                    expected.as_str()
                )
            });
            Shape::Any
        };
        if shape == Shape::Entry {
            let first = self.edits.len() as u32;
            self.current = Some(Entry::beginning(first));
        }
        self.open.push(Open {
            shape,
            is_mapping: kind == Kind::Mapping,
            awaited: None,
            fields: 0,
            keys: HashSet::new(),
        });
        Ok(())
    }

    fn end(&mut self) {
        let Some(closed) = self.open.pop() else {
            return;
        };
        if closed.shape == Shape::Entry
            && let Some(entry) = self.current.take()
        {
            self.is_unusual |= entry.start == UNKNOWN;
            self.versions.push(entry);
            self.is_last_open = true;
        }
    }

    fn scalar(&mut self, span: Span) {
        let Some(open) = self.open.last_mut() else {
            return;
        };
        let shape = open.shape;
        match (open.is_mapping, open.awaited.take()) {
            (true, None) => self.key(span),
            (true, Some((field, expected))) => self.value(shape, field, expected, span),
            (false, _) if shape == Shape::Versions => self.is_unusual = true,
            (false, _) => self.value(shape, NO_FIELD, shape.item(), span),
        }
    }

    fn alias(&mut self, _anchor: usize) {
        // The reader of lines knows none.
    }
}

/// A text from an index, for a message.
fn shown(text: &str) -> String {
    let text: String = text.chars().take(60).collect();
    format!("{text:?}")
}
