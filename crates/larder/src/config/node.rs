//! A YAML document as a tree in which every key and value knows its place. Knows nothing of what the keys mean.

use super::diagnostic::Place;

/// A value and where it stands. No `Debug`: it may hold secrets.
#[derive(Clone)]
pub(crate) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

#[derive(Clone)]
pub(crate) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Text; `plain` if it was not quoted and may stand for a number or a truth value.
    Scalar { text: String, plain: bool },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<Entry>),
}

/// A key of a mapping with its value.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) node: Node,
}

impl Node {
    /// The entries of a mapping; nothing for anything else.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// What a user would call it, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// Number of nodes in this tree, and its depth.
    pub(super) fn measure(&self) -> (usize, usize) {
        let children: Box<dyn Iterator<Item = &Node>> = match &self.value {
            Value::List(items) => Box::new(items.iter()),
            Value::Map(entries) => Box::new(entries.iter().map(|e| &e.node)),
            _ => Box::new(std::iter::empty()),
        };
        let (mut size, mut depth) = (1, 0);
        for (child_size, child_depth) in children.map(Self::measure) {
            size += child_size;
            depth = depth.max(child_depth);
        }
        (size, depth + 1)
    }
}
