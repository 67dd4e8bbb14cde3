//! An index in JSON, or in YAML that the reader of lines does not know, written anew in the block style that it does: keys and scalars in
//! their order, everything outside of `entries` and `generated` left out.
//!
//! A plain scalar keeps its text; every other text is written in double quotes. Aliases are not followed: a mark stands in their place.

use std::borrow::Cow;
use std::fmt::Write as _;

use memchr::memchr3;

use super::scan::{Kind, Sink, Span, Style, check_depth};
use super::shape::{Shape, is_no_text, is_null};
use crate::Malformed;

/// Stands in the place of an alias.
pub(super) const ALIAS: &str = "\u{e000}alias";

/// Writes the normal form of one document.
pub(super) struct Writer<'a> {
    text: &'a str,
    out: String,
    open: Vec<Open>,
    /// Go reads JSON leniently, and the merged index strictly: keys that Helm does not know are left out.
    is_json: bool,
    /// Collections that are open within what is left out.
    skipped: usize,
    /// Whether the next node is left out.
    skips_next: bool,
    /// Whether what is left out at present is a key.
    skips_key: bool,
    /// Versions, or lists of them, that stand elsewhere (aliases) and are left out.
    pub(super) lost: usize,
}

struct Open {
    shape: Shape,
    is_mapping: bool,
    /// The column of its keys or dashes.
    indent: usize,
    /// Whether something of it is written.
    has_content: bool,
    /// A key is written, and its value is not.
    awaited: Option<Shape>,
    /// Whether its first line has begun already, with the dash of the list that it is in.
    follows_dash: bool,
}

impl<'a> Writer<'a> {
    /// For a document in JSON.
    pub(super) fn of_json(text: &'a str) -> Self {
        Self {
            is_json: true,
            ..Self::of_yaml(text)
        }
    }

    /// For a document in any YAML.
    pub(super) fn of_yaml(text: &'a str) -> Self {
        Self {
            text,
            out: String::with_capacity(text.len()),
            open: Vec::with_capacity(8),
            is_json: false,
            skipped: 0,
            skips_next: false,
            skips_key: false,
            lost: 0,
        }
    }

    /// The normal form, and how many versions it lacks.
    pub(super) fn finish(self) -> (String, usize) {
        (self.out, self.lost)
    }

    /// Begins the node that comes next, where one may stand; `None` if it is left out. Gives what it is expected to be.
    fn begin(&mut self, kind: Option<Kind>) -> Option<Shape> {
        if std::mem::take(&mut self.skips_next) {
            return None;
        }
        let Some(open) = self.open.last_mut() else {
            return Some(Shape::Root);
        };
        if open.is_mapping {
            return Some(open.awaited.take().unwrap_or(Shape::Any));
        }
        // Helm passes over what is no mapping in a list of versions; it has no lines of its own to be copied.
        if open.shape == Shape::Versions && kind != Some(Kind::Mapping) {
            return None;
        }
        let shape = open.shape.item();
        self.begin_line();
        self.out.push_str("- ");
        Some(shape)
    }

    /// Starts a line of the innermost collection, and the collection itself if this is its first.
    fn begin_line(&mut self) {
        let depth = self.open.len();
        match self.open.last_mut() {
            // The dash of a version is written with its first key: an empty one has no lines.
            Some(open) if open.shape == Shape::Entry && !open.has_content => {
                open.has_content = true;
                self.begin_line_at(depth.saturating_sub(2));
                self.out.push_str("- ");
            }
            _ => self.begin_line_at(depth.saturating_sub(1)),
        }
    }

    fn begin_line_at(&mut self, at: usize) {
        let Some(open) = self.open.get_mut(at) else {
            return;
        };
        let is_first = !std::mem::replace(&mut open.has_content, true);
        let (indent, follows_dash) = (open.indent, open.follows_dash);
        if is_first && follows_dash {
            return;
        }
        if is_first && !self.out.is_empty() {
            // After the key whose value this is.
            self.out.push('\n');
        }
        self.out.extend(std::iter::repeat_n(' ', indent));
    }

    fn key(&mut self, span: Span, value: &str) {
        let Some(open) = self.open.last() else {
            return;
        };
        let expected = match open.shape {
            Shape::Root => Shape::of_root(value),
            Shape::Entries => Some(Shape::Versions),
            Shape::Labels => Some(Shape::Text),
            shape if shape.has_fields() => match shape.field(value.as_bytes()) {
                Some((_, shape)) => Some(shape),
                None if self.is_json => None,
                None => Some(Shape::Any),
            },
            _ => Some(Shape::Any),
        };
        let Some(expected) = expected else {
            self.skips_next = true;
            // The value is not told from a key otherwise.
            if let Some(open) = self.open.last_mut() {
                open.awaited = Some(Shape::Any);
            }
            return;
        };
        self.begin_line();
        let is_plain =
            span.style == Style::Plain && !value.contains(['\n', '\r']) && !has_odd(value);
        if (is_plain && !is_null(value)) || is_plain_word(value) {
            self.out.push_str(value);
        } else {
            quote_into(value, &mut self.out);
        }
        self.out.push(':');
        if let Some(open) = self.open.last_mut() {
            open.awaited = Some(expected);
        }
    }

    fn write_scalar(&mut self, span: Span, value: &str) {
        let raw = self.text.get(span.range()).unwrap_or_default();
        let is_item = self.open.last().is_some_and(|open| !open.is_mapping);
        if !is_item {
            self.out.push(' ');
        }
        if span.style == Style::Plain && !raw.contains(['\n', '\r']) && !has_odd(raw) {
            if raw.is_empty() {
                self.out.push_str("null");
            } else {
                self.out.push_str(raw);
            }
        } else {
            quote_into(value, &mut self.out);
        }
        self.out.push('\n');
    }
}

impl Sink for Writer<'_> {
    fn start(&mut self, kind: Kind) -> Result<(), Malformed> {
        check_depth(self.open.len() + self.skipped)?;
        if self.skipped > 0 {
            self.skipped += 1;
            return Ok(());
        }
        let in_list = self.open.last().is_some_and(|open| !open.is_mapping);
        if self
            .open
            .last()
            .is_some_and(|open| open.is_mapping && open.awaited.is_none())
        {
            // A collection as a key: nothing that an index has.
            (self.skips_next, self.skips_key) = (true, true);
        }
        // The dashes of a list stand below its key.
        let indent = self.open.last().map_or(0, |open| {
            let is_below = open.is_mapping && kind == Kind::Sequence;
            open.indent + if is_below { 0 } else { 2 }
        });
        let is_versions = self
            .open
            .last()
            .is_some_and(|open| open.shape == Shape::Versions);
        if is_versions && kind == Kind::Mapping && !self.skips_next {
            self.open.push(Open {
                shape: Shape::Entry,
                is_mapping: true,
                indent,
                has_content: false,
                awaited: None,
                follows_dash: false,
            });
            return Ok(());
        }
        match self.begin(Some(kind)) {
            Some(expected) => self.open.push(Open {
                shape: if expected.takes(kind) {
                    expected
                } else {
                    Shape::Any
                },
                is_mapping: kind == Kind::Mapping,
                indent,
                has_content: false,
                awaited: None,
                follows_dash: in_list,
            }),
            None => self.skipped = 1,
        }
        Ok(())
    }

    fn end(&mut self) {
        if self.skipped > 0 {
            self.skipped -= 1;
            if self.skipped == 0 {
                self.skips_next = std::mem::take(&mut self.skips_key);
                let awaited = self.skips_next.then_some(Shape::Any);
                if let Some(open) = self.open.last_mut() {
                    open.awaited = awaited;
                }
            }
            return;
        }
        let Some(closed) = self.open.pop() else {
            return;
        };
        if closed.has_content || closed.shape == Shape::Entry {
            return;
        }
        let empty = if closed.is_mapping { "{}\n" } else { "[]\n" };
        if !closed.follows_dash && !self.out.is_empty() {
            self.out.push(' ');
        }
        self.out.push_str(empty);
    }

    fn scalar(&mut self, span: Span) {
        // JSON: the value is not decoded yet.
        let value = span
            .decode(self.text)
            .map_or(Cow::Borrowed(""), |(_, value)| value);
        let raw = self.text.get(span.range()).unwrap_or_default();
        let value = if span.style == Style::Plain {
            Cow::Borrowed(raw)
        } else {
            value
        };
        self.scalar_value(span, &value);
    }

    fn scalar_value(&mut self, span: Span, value: &str) {
        if self.skipped > 0 {
            return;
        }
        let awaits_key = self
            .open
            .last()
            .is_some_and(|open| open.is_mapping && open.awaited.is_none());
        if awaits_key {
            self.key(span, value);
        } else if self.skips_next {
            self.skips_next = false;
            if let Some(open) = self.open.last_mut() {
                open.awaited = None;
            }
        } else if self.begin(None).is_some() {
            self.write_scalar(span, value);
        }
    }

    fn alias(&mut self, _anchor: usize) {
        let stands_for_versions = self.open.last().is_some_and(|open| {
            open.shape == Shape::Versions || open.awaited == Some(Shape::Versions)
        });
        self.lost += usize::from(stands_for_versions && self.skipped == 0);
        self.scalar_value(Span::new(0..0, Style::Double), ALIAS);
    }
}

/// Whether a text holds characters that Helm's reader refuses or takes for the end of a line (YAML 1.1): C1 controls, U+2028, U+2029, the
/// byte order mark, noncharacters.
pub(super) fn has_odd(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(found) = bytes
        .get(at..)
        .and_then(|rest| memchr3(0xc2, 0xe2, 0xef, rest))
    {
        at += found;
        let is_odd = match bytes.get(at..).unwrap_or_default() {
            [0xc2, second, ..] => *second < 0xa0,
            [0xe2, 0x80, third, ..] => matches!(third, 0xa8 | 0xa9),
            [0xef, 0xbb, 0xbf, ..] => true,
            [0xef, 0xbf, third, ..] => *third >= 0xbe,
            _ => false,
        };
        if is_odd {
            return true;
        }
        at += 1;
    }
    false
}

/// Whether a text is a plain scalar that every reader takes for this text.
pub(super) fn is_plain_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'))
        && !is_null(text)
        && !is_no_text(text)
}

/// Appends a text in double quotes.
pub(super) fn quote_into(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            ' '..='~'
            | '\u{a0}'..='\u{2027}'
            | '\u{202a}'..='\u{fefe}'
            | '\u{ff00}'..='\u{fffd}' => {
                out.push(character);
            }
            _ if u32::from(character) >= 0x1_0000 => out.push(character),
            _ => drop(write!(out, "\\u{:04x}", u32::from(character))),
        }
    }
    out.push('"');
}
