//! Where each key of a repository stands, for whoever asks which line decided (`GET /api/v1/explain`).

use std::collections::BTreeMap;

use super::merge::Document;
use super::node::{Entry, Value};

/// `file:line` by key: `remotes.NAME`, `remotes.NAME.KEY`, `remotes.NAME.KEY.KEY`, and `…[PLACE]` for an item of a list. What is not written
/// down, and holds by default, is not in it.
pub(super) fn lines(document: &Document) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in &document.remotes {
        note(entry, "remotes", &mut found);
    }
    found
}

fn note(entry: &Entry, above: &str, found: &mut BTreeMap<String, String>) {
    let key = format!("{above}.{}", entry.key);
    match &entry.node.value {
        Value::List(items) => {
            for (place, item) in items.iter().enumerate() {
                found.insert(format!("{key}[{place}]"), item.place.to_string());
            }
        }
        // What is written without a value holds by default.
        Value::Null => return,
        Value::Map(_) | Value::Scalar { .. } => {}
    }
    for below in entry.node.entries() {
        note(below, &key, found);
    }
    found.insert(key, entry.place.to_string());
}
