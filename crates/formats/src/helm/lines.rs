//! The block style that Helm, chart-releaser and ChartMuseum write, read a line at a time.
//!
//! Knows block mappings and sequences, plain and quoted scalars (over several lines too), block scalars, `[]`, `{}` and
//! comments. Whatever it meets besides (anchors, tags, flow collections, tabs as indentation, `? `, directives, carriage returns), it does not
//! guess at: the document then goes to the real parser. What it does accept it reads as that parser does; a property test
//! holds the two against each other.

mod text;

use memchr::memchr;

use super::scan::{Kind, Sink, Span, Style};
use crate::Malformed;
use text::{block_header, is_dash, key_end, plain_end, skip_spaces};

pub(super) use text::quoted_end;

/// Reads `text`; `false` if there is a line that this reader does not know, and then what `sink` has got is worth nothing.
pub(super) fn read(text: &str, sink: &mut impl Sink) -> Result<bool, Malformed> {
    let bytes = text.as_bytes();
    if has_control(bytes) || text.starts_with('\u{feff}') {
        return Ok(false);
    }
    let mut scanner = Scanner {
        text: bytes,
        next: 0,
        peeked: Line::default(),
        levels: Vec::with_capacity(8),
        awaited: Some(Awaited::Root),
        sink,
    };
    match scanner.run() {
        Ok(()) => Ok(true),
        Err(Stop::Unrecognised) => Ok(false),
        Err(Stop::Malformed(malformed)) => Err(malformed),
    }
}

/// Whether there is a control character other than line feed and tab. Without a branch per byte: this runs at memory speed.
fn has_control(bytes: &[u8]) -> bool {
    let control = |b: u8| matches!(b, 0..=8 | 0x0b..=0x1f | 0x7f);
    bytes
        .chunks(4096)
        .any(|chunk| chunk.iter().fold(false, |found, &b| found | control(b)))
}

enum Stop {
    Unrecognised,
    Malformed(Malformed),
}

impl From<Malformed> for Stop {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// An open collection, and the column of its keys or dashes.
#[derive(Clone, Copy)]
struct Level {
    indent: usize,
    kind: Kind,
}

/// A node that must come on a later line.
#[derive(Clone, Copy)]
enum Awaited {
    Root,
    /// The value of a key in this column.
    Value(usize),
    /// An item whose dash is in this column.
    Item(usize),
}

struct Scanner<'a, S> {
    text: &'a [u8],
    /// Start of the next line.
    next: usize,
    /// The line that was looked at last: most are looked at twice.
    peeked: Line,
    levels: Vec<Level>,
    awaited: Option<Awaited>,
    sink: &'a mut S,
}

/// A line: offsets of its first byte, of its first byte that is no space, and of its end.
#[derive(Clone, Copy, Default)]
struct Line {
    start: usize,
    content: usize,
    end: usize,
}

impl Line {
    fn indent(self) -> usize {
        self.content - self.start
    }

    fn is_blank(self) -> bool {
        self.content == self.end
    }
}

impl<S: Sink> Scanner<'_, S> {
    fn run(&mut self) -> Result<(), Stop> {
        while let Some(line) = self.peek() {
            self.sink.tick()?;
            self.next = line.end + 1;
            match self.at(line.content) {
                _ if line.is_blank() => {}
                b'#' => {}
                b'\t' => return Err(Stop::Unrecognised),
                b'-' if line.start == 0 && self.is_document_start(line) => {}
                _ => self.node_line(line)?,
            }
        }
        match self.awaited.take() {
            Some(Awaited::Root) => return Err(Stop::Unrecognised),
            Some(Awaited::Value(_) | Awaited::Item(_)) => self.absent(self.text.len()),
            None => {}
        }
        while self.levels.pop().is_some() {
            self.sink.end();
        }
        Ok(())
    }

    fn at(&self, at: usize) -> u8 {
        self.text.get(at).copied().unwrap_or(b'\n')
    }

    fn peek(&mut self) -> Option<Line> {
        if self.peeked.start == self.next && self.peeked.end > self.next {
            return Some(self.peeked);
        }
        let rest = self.text.get(self.next..).filter(|rest| !rest.is_empty())?;
        let end = self.next + memchr(b'\n', rest).unwrap_or(rest.len());
        self.peeked = Line {
            start: self.next,
            content: skip_spaces(self.text, self.next, end),
            end,
        };
        Some(self.peeked)
    }

    /// `---` in the first line.
    fn is_document_start(&self, line: Line) -> bool {
        self.text.get(line.start..line.end) == Some(b"---")
    }

    fn node_line(&mut self, line: Line) -> Result<(), Stop> {
        let opens = self.settle(line)?;
        self.node(line, opens)
    }

    /// Closes what ends before this line. Gives the column of the parent if a new node starts here, `None` if an open
    /// collection goes on.
    fn settle(&mut self, line: Line) -> Result<Option<isize>, Stop> {
        let indent = line.indent();
        let dash = is_dash(self.text, line.content, line.end);
        match self.awaited.take() {
            Some(Awaited::Root) => return Ok(Some(-1)),
            Some(Awaited::Value(parent)) if indent > parent || (indent == parent && dash) => {
                return Ok(Some(parent as isize));
            }
            Some(Awaited::Item(parent)) if indent > parent => return Ok(Some(parent as isize)),
            Some(_) => self.absent(line.start),
            None => {}
        }
        let kind = if dash { Kind::Sequence } else { Kind::Mapping };
        while let Some(&level) = self.levels.last() {
            if level.indent < indent || (level.indent == indent && level.kind == kind) {
                break;
            }
            if level.indent == indent && dash {
                return Err(Stop::Unrecognised);
            }
            self.levels.pop();
            self.sink.end();
        }
        match self.levels.last() {
            Some(level) if level.indent == indent => Ok(None),
            _ => Err(Stop::Unrecognised),
        }
    }

    fn open(&mut self, indent: usize, kind: Kind) -> Result<(), Stop> {
        self.levels.push(Level { indent, kind });
        Ok(self.sink.start(kind)?)
    }

    fn absent(&mut self, at: usize) {
        self.sink.scalar(Span::new(at..at, Style::Plain));
    }

    /// Reads the content of a line: dashes, a key, a value. `parent` is the column of the parent of a node that starts here.
    fn node(&mut self, line: Line, mut parent: Option<isize>) -> Result<(), Stop> {
        let mut at = line.content;
        loop {
            let column = at - line.start;
            if is_dash(self.text, at, line.end) {
                if parent.is_some() {
                    self.open(column, Kind::Sequence)?;
                }
                at = skip_spaces(self.text, at + 1, line.end);
                if self.is_empty_or_comment(at, line.end) {
                    self.awaited = Some(Awaited::Item(column));
                    return Ok(());
                }
                parent = Some(column as isize);
                continue;
            }
            let Some((key, after)) = key_end(self.text, at, line.end).ok_or(Stop::Unrecognised)?
            else {
                // A line of its own in a mapping must have a key, and so must one at the root.
                let parent = parent
                    .filter(|parent| *parent >= 0)
                    .ok_or(Stop::Unrecognised)?;
                return self.value(at, line.end, parent as usize);
            };
            if parent.is_some() {
                self.open(column, Kind::Mapping)?;
            }
            self.sink.scalar(key);
            at = skip_spaces(self.text, after, line.end);
            if self.is_empty_or_comment(at, line.end) {
                self.awaited = Some(Awaited::Value(column));
                return Ok(());
            }
            return self.value(at, line.end, column);
        }
    }

    fn is_empty_or_comment(&self, at: usize, end: usize) -> bool {
        at == end || self.at(at) == b'#'
    }

    /// A scalar or an empty flow collection. Lines that go on with it are indented more than `parent`.
    fn value(&mut self, at: usize, end: usize, parent: usize) -> Result<(), Stop> {
        match self.at(at) {
            b'"' | b'\'' => self.quoted(at, parent),
            b'|' | b'>' => self.block(at, end, parent),
            b'[' => self.empty_flow(at, end, b"[]", Kind::Sequence),
            b'{' => self.empty_flow(at, end, b"{}", Kind::Mapping),
            b'&' | b'*' | b'!' | b'%' | b'@' | b'`' | b',' | b']' | b'}' | b'#' | b'\t' => {
                Err(Stop::Unrecognised)
            }
            b'-' | b'?' | b':' if matches!(self.at(at + 1), b' ' | b'\t' | b'\n') => {
                Err(Stop::Unrecognised)
            }
            _ => self.plain(at, end, parent),
        }
    }

    fn empty_flow(&mut self, at: usize, end: usize, both: &[u8], kind: Kind) -> Result<(), Stop> {
        let rest = self.text.get(at..end).unwrap_or_default();
        if rest
            .strip_prefix(both)
            .is_none_or(|tail| !tail.iter().all(|&b| b == b' '))
        {
            return Err(Stop::Unrecognised);
        }
        self.sink.start(kind)?;
        self.sink.end();
        Ok(())
    }

    fn plain(&mut self, at: usize, end: usize, parent: usize) -> Result<(), Stop> {
        let (mut stop, mut comment) = plain_end(self.text, at, end).ok_or(Stop::Unrecognised)?;
        let mut resume = self.next;
        while !comment && let Some(line) = self.peek() {
            self.next = line.end + 1;
            if line.is_blank() {
                continue;
            }
            if line.indent() <= parent || self.at(line.content) == b'#' {
                break;
            }
            if self.at(line.content) == b'\t' {
                return Err(Stop::Unrecognised);
            }
            (stop, comment) =
                plain_end(self.text, line.content, line.end).ok_or(Stop::Unrecognised)?;
            resume = self.next;
        }
        self.next = resume;
        self.sink.scalar(Span::new(at..stop, Style::Plain));
        Ok(())
    }

    fn quoted(&mut self, at: usize, parent: usize) -> Result<(), Stop> {
        let stop = quoted_end(self.text, at).ok_or(Stop::Unrecognised)?;
        // Further lines of the scalar must be indented; a document marker at column 0 is refused with them.
        while self.next < stop {
            let line = self.peek().ok_or(Stop::Unrecognised)?;
            if !line.is_blank() && (line.indent() <= parent || self.at(line.content) == b'\t') {
                return Err(Stop::Unrecognised);
            }
            self.next = line.end + 1;
        }
        let line_end = self.next.saturating_sub(1).min(self.text.len());
        let after = skip_spaces(self.text, stop, line_end);
        let comment = after > stop && self.at(after) == b'#';
        if after < line_end && !comment {
            return Err(Stop::Unrecognised);
        }
        let style = if self.at(at) == b'"' {
            Style::Double
        } else {
            Style::Single
        };
        self.sink.scalar(Span::new(at..stop, style));
        Ok(())
    }

    /// A literal or folded scalar: its header's line, then every line that is blank or indented enough.
    fn block(&mut self, at: usize, end: usize, parent: usize) -> Result<(), Stop> {
        let explicit =
            block_header(self.text.get(at..end).unwrap_or_default()).ok_or(Stop::Unrecognised)?;
        let mut required = explicit.map(|indentation| parent + indentation);
        let mut lines: Option<(usize, usize)> = None;
        let mut widest_blank = 0;
        while let Some(line) = self.peek() {
            let indent = line.indent();
            if line.is_blank() {
                widest_blank = widest_blank.max(indent);
            } else {
                if indent <= parent {
                    break;
                }
                let required = *required.get_or_insert(indent);
                // Too little indentation is an error there; so are blank lines wider than the first that is not.
                let ambiguous =
                    lines.is_none() && (widest_blank > required || self.at(line.content) == b'\t');
                if indent < required || ambiguous {
                    return Err(Stop::Unrecognised);
                }
                lines = Some((
                    lines.map_or(line.start + required, |(first, _)| first),
                    line.end,
                ));
            }
            self.next = line.end + 1;
        }
        let tab_follows = self
            .peek()
            .is_some_and(|line| self.at(line.content) == b'\t');
        // A block of blank lines only has a value too; leave it to the parser.
        let (first, last) = lines.filter(|_| !tab_follows).ok_or(Stop::Unrecognised)?;
        self.sink.scalar(Span::new(first..last, Style::Block));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
