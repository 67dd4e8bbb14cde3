//! The events that the readers of an index (`lines`, `events`, `json`) produce and that `index` consumes.
//!
//! Scalars are not decoded: an event says where in the document the text stands and how it is quoted.

use std::ops::Range;

use crate::Malformed;

/// Deepest nesting that is read (hazard R3); Helm's own indexes use seven levels.
const MAX_DEPTH: usize = 64;

/// Whether there may be one more collection within so many open ones.
pub(super) fn check_depth(open: usize) -> Result<(), Malformed> {
    if open >= MAX_DEPTH {
        return Err(Malformed(format!(
            "index.yaml is nested more than {MAX_DEPTH} levels deep"
        )));
    }
    Ok(())
}

/// How a scalar is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Without quotes. An absent value is an empty plain scalar.
    Plain,
    /// `'…'`
    Single,
    /// `"…"`, in YAML or JSON.
    Double,
    /// `|` or `>` and, in the lines below, the text.
    Block,
}

/// Where a scalar stands: with its quotes, but of a block scalar only the lines. Offsets are bytes; documents are below 4 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) style: Style,
}

impl Span {
    pub(super) fn new(range: Range<usize>, style: Style) -> Self {
        Self {
            start: range.start as u32,
            end: range.end as u32,
            style,
        }
    }

    pub(super) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A kind of collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Mapping,
    Sequence,
}

/// Takes the events of one document in order. In a mapping, keys and values alternate.
pub(super) trait Sink {
    /// A collection begins. Fails if it is nested too deeply.
    fn start(&mut self, kind: Kind) -> Result<(), Malformed>;
    /// The innermost collection ends.
    fn end(&mut self);
    /// A scalar.
    fn scalar(&mut self, span: Span);
    /// A scalar whose value the reader has worked out already, as that of YAML at large has.
    fn scalar_value(&mut self, span: Span, _value: &str) {
        self.scalar(span);
    }
    /// The node that begins next has this anchor, by which [`alias`](Sink::alias) names it; none is 0.
    fn anchor(&mut self, _anchor: usize) {}
    /// A node that stands elsewhere (YAML's `*alias`): the one with this anchor.
    fn alias(&mut self, anchor: usize);
    /// Asked now and then: fails once the document has gone beyond its budget.
    fn tick(&mut self) -> Result<(), Malformed> {
        Ok(())
    }
}
