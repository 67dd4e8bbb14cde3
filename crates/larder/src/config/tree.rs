//! YAML that is no configuration, such as lock files: read in the same way and within the same bounds, asked by key.

use std::sync::Arc;

use super::diagnostic::Report;
use super::node::{Entry, Node, Value};
use super::yaml;

/// Reads a text as YAML; `None`: there is nothing in it. `file` is what it is called in messages.
///
/// # Errors
/// It is no YAML, has a key twice, or is too large or too deep: a line for each, with its place.
pub(crate) fn yaml_tree(file: &str, text: &str) -> Result<Option<Node>, String> {
    Ok(trees(file, text, 1)?.pop())
}

/// As [`yaml_tree`], of all documents of a text that may have several.
pub(crate) fn yaml_trees(file: &str, text: &str) -> Result<Vec<Node>, String> {
    trees(file, text, usize::MAX)
}

fn trees(file: &str, text: &str, most: usize) -> Result<Vec<Node>, String> {
    let mut report = Report::default();
    let parsed = yaml::parse_all(&Arc::from(file), text, most, &mut report);
    match parsed {
        Some((documents, _)) if !report.has_errors() => Ok(documents),
        _ => {
            let found = report.into_sorted();
            let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
            Err(lines.join("\n"))
        }
    }
}

impl Node {
    /// What a mapping has under a key.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        let entry = self.entries().iter().find(|entry| entry.key == key)?;
        Some(&entry.node)
    }

    /// The items of a sequence; nothing for anything else.
    pub(crate) fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The text of a single value.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The line that it begins in.
    pub(crate) fn line(&self) -> usize {
        self.place.line
    }
}

impl Entry {
    /// Its key.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Its value.
    pub(crate) fn value(&self) -> &Node {
        &self.node
    }

    /// The line that its key is in.
    pub(crate) fn line(&self) -> usize {
        self.place.line
    }
}
