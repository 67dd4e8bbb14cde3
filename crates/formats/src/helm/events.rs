//! Any YAML, read by a real parser's events: constant memory, aliases never expanded. What is tagged `!!binary` is taken for an alias: it
//! does not stand here as text.
//!
//! The parser counts characters; a cursor that only moves forward turns its positions into byte offsets. Only the first
//! document of a stream is read, as Helm does.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use memchr::memchr;
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Tag};

use super::lines::quoted_end;
use super::scan::{Kind, Sink, Span, Style};
use crate::Malformed;

/// Most nodes that aliases may stand for, nested ones counted (hazard R3).
const MAX_EXPANSIONS: u64 = 1000;
/// How many characters the parser may read past its last event. It holds the tokens of a flow collection that could still
/// turn out to be a key, at nearly two hundred times its size: without a leash, 4 MB of `[1,1,1…` take 700 MB.
const LEASH: usize = 256 << 10;

/// Reads the first YAML document of `text`.
pub(super) fn read(text: &str, sink: &mut impl Sink) -> Result<(), Malformed> {
    // The parser asserts its own invariants; a document that breaks one is malformed, and must not take a thread along.
    catch_unwind(AssertUnwindSafe(|| parse(text, sink)))
        .unwrap_or_else(|_| Err(Malformed("index.yaml cannot be parsed as YAML".to_owned())))
}

fn parse(text: &str, sink: &mut impl Sink) -> Result<(), Malformed> {
    // The parser takes a byte order mark for content.
    let skipped = text.len() - text.trim_start_matches('\u{feff}').len();
    let content = text.get(skipped..).unwrap_or_default();
    let leash = Leash::default();
    let mut parser = Parser::new_from_iter(leash.hold(content));
    let mut cursor = Cursor::new(content);
    let mut aliases = Aliases::default();
    let last = content.rsplit(['\n', '\r']).next().unwrap_or_default();
    let ends_line = last.trim_start_matches(' ').is_empty();
    while let Some(event) = parser.next_event() {
        sink.tick()?;
        if leash.is_taut.get() {
            return Err(Malformed(format!(
                "index.yaml has a scalar or a flow collection of more than {LEASH} characters"
            )));
        }
        let (event, span) = event.map_err(|error| malformed(&error))?;
        leash.end.set(span.end.index() + LEASH);
        match event {
            Event::MappingStart(anchor, _) => {
                begin(Kind::Mapping, anchor, &mut aliases, sink)?;
            }
            Event::SequenceStart(anchor, _) => {
                begin(Kind::Sequence, anchor, &mut aliases, sink)?;
            }
            Event::MappingEnd | Event::SequenceEnd => {
                aliases.close();
                sink.end();
            }
            // Its text is not what it stands for.
            Event::Scalar(_, _, anchor, Some(tag)) if is_binary(&tag) => {
                sink.anchor(anchor);
                sink.alias(0);
            }
            Event::Scalar(value, style, anchor, tag) => {
                let (from, to) = (
                    cursor.byte_of(span.start.index()),
                    cursor.byte_of(span.end.index()),
                );
                let has_properties = anchor > 0 || tag.is_some();
                let style = style_of(style);
                // An absent value has a span all the same, over what stands beside it.
                let range = if style == Style::Plain && value.is_empty() {
                    from..from
                } else {
                    tighten(content, from..to, style, has_properties)
                };
                let value = with_tabs(content.get(range.clone()).unwrap_or_default(), value, style);
                // The parser ends a block scalar with a line break where the document has none.
                let is_cut = style == Style::Block && range.end == content.len() && !ends_line;
                let text = value.strip_suffix('\n').filter(|_| is_cut);
                let span = Span::new(skipped + range.start..skipped + range.end, style);
                sink.anchor(anchor);
                sink.scalar_value(span, text.unwrap_or(&value));
            }
            Event::Alias(anchor) => {
                aliases.expand(anchor)?;
                sink.alias(anchor);
            }
            Event::DocumentEnd | Event::StreamEnd => break,
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) => {}
        }
    }
    Ok(())
}

fn begin(
    kind: Kind,
    anchor: usize,
    aliases: &mut Aliases,
    sink: &mut impl Sink,
) -> Result<(), Malformed> {
    aliases.open(anchor);
    sink.anchor(anchor);
    sink.start(kind)
}

/// Whether a tag says that a text is base64, which Helm decodes.
fn is_binary(tag: &Tag) -> bool {
    [&*tag.handle, &*tag.suffix].concat() == "tag:yaml.org,2002:binary"
}

fn malformed(error: &ScanError) -> Malformed {
    let at = error.marker();
    Malformed(format!(
        "index.yaml is not YAML: {} at line {} column {}",
        error.info(),
        at.line(),
        at.col() + 1
    ))
}

fn style_of(style: ScalarStyle) -> Style {
    match style {
        ScalarStyle::Plain => Style::Plain,
        ScalarStyle::SingleQuoted => Style::Single,
        ScalarStyle::DoubleQuoted => Style::Double,
        ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
    }
}

/// The scalar alone: the parser's span takes in a tag and an anchor before it, and a comment after a quoted one.
fn tighten(text: &str, range: Range<usize>, style: Style, has_properties: bool) -> Range<usize> {
    let bytes = text.as_bytes();
    let mut start = range.start;
    if has_properties {
        start = after_properties(bytes, start);
        if style == Style::Block {
            start = bytes
                .get(start..)
                .and_then(|rest| memchr(b'\n', rest))
                .map_or(range.end, |header| start + header + 1);
        }
    }
    let end = match style {
        Style::Single | Style::Double => quoted_end(bytes, start).unwrap_or(start),
        Style::Plain | Style::Block => range.end.max(start),
    };
    start..end
}

/// The value of a scalar with the tabs behind colons that its text has and the parser did not see. A colon that is written as an escape
/// leaves a space.
fn with_tabs<'v>(text: &str, value: Cow<'v, str>, style: Style) -> Cow<'v, str> {
    if style == Style::Plain || !text.contains(":\t") {
        return value;
    }
    let colons = |text: &str| -> Vec<usize> { text.match_indices(':').map(|(at, _)| at).collect() };
    let (of_text, of_value) = (colons(text), colons(&value));
    if of_text.len() != of_value.len() {
        return value;
    }
    let mut value = value.into_owned();
    for (colon, at) in of_text.into_iter().zip(of_value) {
        let after = text.get(colon + 1..).unwrap_or_default();
        // Blanks at the end of a line between quotes are no text.
        let is_text = style == Style::Block
            || !after
                .trim_start_matches([' ', '\t'])
                .starts_with(['\n', '\r']);
        if after.starts_with('\t') && is_text && value.get(at + 1..at + 2) == Some(" ") {
            value.replace_range(at + 1..at + 2, "\t");
        }
    }
    Cow::Owned(value)
}

/// Skips `&anchor`, `!tag`, white space and comments.
fn after_properties(bytes: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = bytes.get(at) {
        let ends: fn(&u8) -> bool = match byte {
            b' ' | b'\t' | b'\r' | b'\n' => |_| true,
            b'#' => |b| *b == b'\n',
            b'&' | b'!' => |b| b.is_ascii_whitespace(),
            _ => break,
        };
        at += 1;
        if !byte.is_ascii_whitespace() {
            at += bytes
                .get(at..)
                .and_then(|rest| rest.iter().position(ends))
                .unwrap_or(0);
        }
    }
    at
}

/// How far the parser may read.
struct Leash {
    end: Cell<usize>,
    /// Whether it wanted to read on.
    is_taut: Cell<bool>,
}

impl Default for Leash {
    fn default() -> Self {
        Self {
            end: Cell::new(LEASH),
            is_taut: Cell::new(false),
        }
    }
}

impl Leash {
    /// The characters of `text`, up to the end of the leash at the time they are asked for. A tab behind a colon comes as a space, for
    /// there the parser refuses it (YAML 1.2 section 6.1 and Helm do not); [`with_tabs`] puts it back where it is text.
    fn hold(&self, text: &str) -> impl Iterator<Item = char> {
        let mut before = '\0';
        text.chars().enumerate().map_while(move |(at, character)| {
            let within = at < self.end.get();
            if !within {
                self.is_taut.set(true);
            }
            let is_tab = before == ':' && character == '\t';
            before = character;
            within.then_some(if is_tab { ' ' } else { character })
        })
    }
}

/// Turns character positions into byte offsets.
struct Cursor<'a> {
    text: &'a str,
    characters: usize,
    bytes: usize,
}

impl<'a> Cursor<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            characters: 0,
            bytes: 0,
        }
    }

    /// The byte offset of a character not before the one asked for last.
    fn byte_of(&mut self, character: usize) -> usize {
        let wanted = character.saturating_sub(self.characters);
        let rest = self.text.get(self.bytes..).unwrap_or_default();
        // Most of an index is ASCII, where the two are equal.
        let step = match rest.as_bytes().get(..wanted) {
            Some(run) if run.is_ascii() => wanted,
            _ => rest
                .char_indices()
                .nth(wanted)
                .map_or(rest.len(), |(at, _)| at),
        };
        self.characters += wanted;
        self.bytes += step;
        self.bytes
    }
}

/// Counts what aliases stand for, without expanding any.
#[derive(Default)]
struct Aliases {
    total: u64,
    /// Expansions within each finished anchored collection.
    weight: HashMap<usize, u64>,
    /// Open collections: anchor (0 = none) and total at their start.
    open: Vec<(usize, u64)>,
}

impl Aliases {
    fn open(&mut self, anchor: usize) {
        self.open.push((anchor, self.total));
    }

    fn close(&mut self) {
        if let Some((anchor, before)) = self.open.pop()
            && anchor > 0
        {
            self.weight.insert(anchor, self.total - before);
        }
    }

    fn expand(&mut self, anchor: usize) -> Result<(), Malformed> {
        if self.open.iter().any(|(open, _)| *open == anchor) {
            return Err(Malformed(
                "index.yaml has an alias that contains itself".to_owned(),
            ));
        }
        self.total = self
            .total
            .saturating_add(1)
            .saturating_add(self.weight.get(&anchor).copied().unwrap_or(0));
        if self.total > MAX_EXPANSIONS {
            return Err(Malformed(format!(
                "index.yaml has aliases that stand for more than {MAX_EXPANSIONS} nodes"
            )));
        }
        Ok(())
    }
}
