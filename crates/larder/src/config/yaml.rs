//! The one way in which YAML is read: parser events to a tree with places, bounded in size, depth and expansion.
//!
//! Knows YAML only. Differences from a plain parser: duplicate keys are errors, `<<` merges as PyYAML does, anchors are
//! expanded within a budget (hazard R3), and illegal escapes are mended as [`escape`](super::escape) says.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use super::diagnostic::{Place, Report};
use super::escape::{Repair, repair};
use super::node::{Entry, Node, Value};
use super::yaml_hints::explained;

/// Largest configuration file, in bytes.
const MAX_BYTES: usize = 8 << 20;
/// Deepest nesting, after anchors are expanded.
const MAX_DEPTH: usize = 64;
const TOO_DEEP: &str = "nested deeper than 64 levels";
/// Most nodes in one file, after anchors are expanded.
const MAX_NODES: usize = 500_000;
/// Most scalars with illegal escapes that are mended in one file.
const MAX_REPAIRS: usize = 10_000;

/// A parsed file.
pub(super) struct Parsed {
    /// `None` for a file without content.
    pub(super) root: Option<Node>,
    /// The scalars that had to be mended, each at its place.
    pub(super) repairs: Repairs,
}

/// What was mended, each at its place.
type Repairs = Vec<(Place, Repair)>;

/// Parses a file of one document; `None` if it cannot be used (the report says why).
pub(super) fn parse(file: &Arc<str>, source: &str, report: &mut Report) -> Option<Parsed> {
    let (mut documents, repairs) = parse_all(file, source, 1, report)?;
    Some(Parsed {
        root: documents.pop(),
        repairs,
    })
}

/// Parses a file of up to so many documents, as [`parse`] does one.
pub(super) fn parse_all(
    file: &Arc<str>,
    source: &str,
    most: usize,
    report: &mut Report,
) -> Option<(Vec<Node>, Repairs)> {
    let at = |line, column| Place {
        file: Arc::clone(file),
        line,
        column,
    };
    if source.len() > MAX_BYTES {
        report.error(
            &at(1, 1),
            format!("file is larger than {} MiB", MAX_BYTES >> 20),
        );
        return None;
    }
    let mut source = source.strip_prefix('\u{feff}').unwrap_or(source).to_owned();
    let mut repairs = Vec::new();
    loop {
        let mut builder = Builder {
            file,
            nodes: 0,
            stack: Vec::new(),
            anchors: HashMap::new(),
            documents: Vec::new(),
            repeated: Vec::new(),
        };
        let failed = match builder.run(&source, most) {
            Ok(()) => {
                for (place, message) in builder.repeated {
                    report.error(&place, message);
                }
                return Some((builder.documents, repairs));
            }
            Err(failed) => failed,
        };
        let mended = (failed.unknown_escape && repairs.len() < MAX_REPAIRS)
            .then(|| repair(&source, failed.marker.line(), failed.marker.col()))
            .flatten();
        let place = at(failed.marker.line(), failed.marker.col() + 1);
        let Some(mut mended) = mended else {
            report.error(&place, failed.message);
            return None;
        };
        source = std::mem::take(&mut mended.source);
        repairs.push((place, mended));
    }
}

/// Why parsing stopped.
struct Failed {
    marker: Marker,
    message: String,
    unknown_escape: bool,
}

impl Failed {
    fn new(marker: Marker, message: impl Into<String>) -> Self {
        Self {
            marker,
            message: message.into(),
            unknown_escape: false,
        }
    }
}

/// A mapping or sequence that is not finished yet.
struct Frame {
    place: Place,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        lines: HashMap<String, usize>,
        key: Option<(String, Place)>,
        merges: Vec<Node>,
    },
}

struct Builder<'a> {
    file: &'a Arc<str>,
    nodes: usize,
    stack: Vec<Frame>,
    /// Finished anchored nodes with their size and depth.
    anchors: HashMap<usize, (Node, usize, usize)>,
    /// Those that are finished.
    documents: Vec<Node>,
    /// Duplicate keys: errors, but not a reason to stop reading.
    repeated: Vec<(Place, String)>,
}

/// What the scanner says of a text that is no YAML, in words that help.
fn scan_failed(error: &ScanError, source: &str) -> Failed {
    let message = match error.info() {
        // The scanner reads ahead and has a limit of its own for `[` and `{`.
        "recursion limit exceeded" => TOO_DEEP.to_owned(),
        info => explained(info, source),
    };
    Failed {
        marker: *error.marker(),
        message,
        unknown_escape: error.info().ends_with("unknown escape character"),
    }
}

impl Builder<'_> {
    fn run(&mut self, source: &str, most: usize) -> Result<(), Failed> {
        let mut documents = 0;
        for event in Parser::new_from_str(source) {
            let (event, span) = event.map_err(|error| scan_failed(&error, source))?;
            let marker = span.start;
            match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > most {
                        return Err(Failed::new(
                            marker,
                            "a second YAML document (`---`) in one file: use one file for each",
                        ));
                    }
                }
                Event::Scalar(text, style, anchor, tag) => {
                    check_tag(tag.as_deref(), marker)?;
                    self.count(1, marker)?;
                    let plain = style == ScalarStyle::Plain;
                    self.scalar(text.into_owned(), plain, anchor, marker)?;
                }
                Event::SequenceStart(anchor, tag) => {
                    check_tag(tag.as_deref(), marker)?;
                    self.open(Content::List(Vec::new()), anchor, marker)?;
                }
                Event::MappingStart(anchor, tag) => {
                    check_tag(tag.as_deref(), marker)?;
                    let content = Content::Map {
                        entries: Vec::new(),
                        lines: HashMap::new(),
                        key: None,
                        merges: Vec::new(),
                    };
                    self.open(content, anchor, marker)?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.close(marker)?,
                Event::Alias(anchor) => self.alias(anchor, marker)?,
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            }
        }
        Ok(())
    }

    /// A key where one is due, else a value.
    fn scalar(
        &mut self,
        text: String,
        plain: bool,
        anchor: usize,
        marker: Marker,
    ) -> Result<(), Failed> {
        if self.wants_key() {
            self.key(text, marker);
            return Ok(());
        }
        let value = if plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
            Value::Null
        } else {
            Value::Scalar { text, plain }
        };
        let place = self.place(marker);
        self.finish(Node { place, value }, anchor, marker)
    }

    fn place(&self, marker: Marker) -> Place {
        Place {
            file: Arc::clone(self.file),
            line: marker.line(),
            column: marker.col() + 1,
        }
    }

    fn count(&mut self, nodes: usize, marker: Marker) -> Result<(), Failed> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(Failed::new(
                marker,
                format!("more than {MAX_NODES} values after expanding anchors"),
            ));
        }
        Ok(())
    }

    /// Whether the next node is a key of a mapping.
    fn wants_key(&self) -> bool {
        matches!(
            self.stack.last(),
            Some(Frame {
                content: Content::Map { key: None, .. },
                ..
            })
        )
    }

    fn key(&mut self, text: String, marker: Marker) {
        let place = self.place(marker);
        if let Some(Frame {
            content: Content::Map { key, .. },
            ..
        }) = self.stack.last_mut()
        {
            *key = Some((text, place));
        }
    }

    fn open(&mut self, content: Content, anchor: usize, marker: Marker) -> Result<(), Failed> {
        self.count(1, marker)?;
        if self.wants_key() {
            return Err(Failed::new(
                marker,
                "a key must be plain text, not a list or a mapping",
            ));
        }
        if self.stack.len() >= MAX_DEPTH {
            return Err(Failed::new(marker, TOO_DEEP));
        }
        let place = self.place(marker);
        self.stack.push(Frame {
            place,
            anchor,
            content,
        });
        Ok(())
    }

    fn close(&mut self, marker: Marker) -> Result<(), Failed> {
        let Some(frame) = self.stack.pop() else {
            return Ok(());
        };
        let value = match frame.content {
            Content::List(items) => Value::List(items),
            Content::Map {
                mut entries,
                mut lines,
                merges,
                ..
            } => {
                for merged in merges.iter().flat_map(Node::entries) {
                    if !lines.contains_key(&merged.key) {
                        lines.insert(merged.key.clone(), merged.place.line);
                        entries.push(merged.clone());
                    }
                }
                Value::Map(entries)
            }
        };
        self.finish(
            Node {
                place: frame.place,
                value,
            },
            frame.anchor,
            marker,
        )
    }

    fn alias(&mut self, anchor: usize, marker: Marker) -> Result<(), Failed> {
        let found = self
            .anchors
            .get(&anchor)
            .map(|(node, size, depth)| (node.clone(), *size, *depth));
        let Some((node, size, depth)) = found else {
            return Err(Failed::new(marker, "an anchor that contains itself"));
        };
        if self.wants_key() {
            return Err(Failed::new(
                marker,
                "a key must be plain text, not an alias",
            ));
        }
        self.count(size, marker)?;
        if self.stack.len() + depth > MAX_DEPTH {
            return Err(Failed::new(marker, TOO_DEEP));
        }
        self.finish(node, 0, marker)
    }

    /// Puts a finished node where it belongs.
    fn finish(&mut self, node: Node, anchor: usize, marker: Marker) -> Result<(), Failed> {
        if anchor != 0 {
            let (size, depth) = node.measure();
            // The copy that is kept counts as well: many nested anchors would keep many copies.
            self.count(size, marker)?;
            self.anchors.insert(anchor, (node.clone(), size, depth));
        }
        match self.stack.last_mut().map(|frame| &mut frame.content) {
            None => self.documents.push(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map {
                entries,
                lines,
                key,
                merges,
            }) => {
                let Some((key, place)) = key.take() else {
                    return Ok(());
                };
                if key == "<<" {
                    merges.extend(merge_sources(node, marker)?);
                } else if let Some(line) = lines.get(&key) {
                    self.repeated.push((
                        place,
                        format!("key `{key}` stands twice in this mapping (first on line {line})"),
                    ));
                } else {
                    lines.insert(key.clone(), place.line);
                    entries.push(Entry { key, place, node });
                }
            }
        }
        Ok(())
    }
}

/// What `<<` merges: a mapping, or several of which the first wins.
fn merge_sources(node: Node, marker: Marker) -> Result<Vec<Node>, Failed> {
    let sources = match node.value {
        Value::List(items) => items,
        _ => vec![node],
    };
    if sources
        .iter()
        .any(|source| !matches!(source.value, Value::Map(_)))
    {
        return Err(Failed::new(
            marker,
            "`<<` takes a mapping or a list of mappings",
        ));
    }
    Ok(sources)
}

fn check_tag(tag: Option<&Tag>, marker: Marker) -> Result<(), Failed> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema() && tag.to_string() != "!" => Err(Failed::new(
            marker,
            format!("tag `{tag}` is not known: only the tags of YAML itself are"),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "yaml_tests.rs"]
mod tests;
