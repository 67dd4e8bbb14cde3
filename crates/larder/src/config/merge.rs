//! Several files to one configuration: entries are replaced whole, and every replacement is told.

use super::diagnostic::Report;
use super::hints;
use super::node::{Entry, Node, Value};
use super::schema;

/// The merged files.
#[derive(Default, Clone)]
pub(super) struct Document {
    /// Top-level keys beside `remotes`.
    pub(super) top: Vec<Entry>,
    /// The repositories, in the order in which their names came up first.
    pub(super) remotes: Vec<Entry>,
}

impl Document {
    /// Merges a whole file: its repositories and its top-level keys win over those merged before.
    pub(super) fn add(&mut self, root: Node, report: &mut Report) {
        for entry in root_entries(root, report) {
            if entry.key == "remotes" {
                self.add_remotes(entry, report);
            } else {
                replace(&mut self.top, entry, "key", report);
            }
        }
    }

    /// Merges a file of `config_dir`, which contributes its repositories only.
    pub(super) fn add_remotes_of(&mut self, root: Node, report: &mut Report) {
        for entry in root_entries(root, report) {
            if entry.key == "remotes" {
                self.add_remotes(entry, report);
            } else if schema::TOP.contains(&entry.key.as_str()) {
                let why = "files of `config_dir` contribute their `remotes` only: move it to the main file";
                report.warning(
                    &entry.place,
                    format!("`{}` is not used here: {why}", entry.key),
                );
            } else {
                report.error(
                    &entry.place,
                    format!("unknown key `{}`: {}", entry.key, hints::of_top(&entry)),
                );
            }
        }
    }

    fn add_remotes(&mut self, remotes: Entry, report: &mut Report) {
        match remotes.node.value {
            Value::Map(entries) => {
                for entry in entries {
                    replace(&mut self.remotes, entry, "repository", report);
                }
            }
            Value::Null => {}
            _ => report.error(
                &remotes.node.place,
                format!(
                    "`remotes` must be a mapping of names to repositories, but is {}",
                    remotes.node.kind()
                ),
            ),
        }
    }

    /// A top-level key.
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.top.iter().find(|entry| entry.key == key)
    }
}

fn root_entries(root: Node, report: &mut Report) -> Vec<Entry> {
    match root.value {
        Value::Map(entries) => entries,
        Value::Null => Vec::new(),
        _ => {
            report.error(
                &root.place,
                format!(
                    "a configuration file is a mapping, but this is {}",
                    root.kind()
                ),
            );
            Vec::new()
        }
    }
}

fn replace(entries: &mut Vec<Entry>, new: Entry, what: &str, report: &mut Report) {
    let Some(old) = entries.iter_mut().find(|entry| entry.key == new.key) else {
        entries.push(new);
        return;
    };
    report.note(
        &new.place,
        format!(
            "{what} `{}` replaces the one of {}, whole",
            new.key, old.place
        ),
    );
    *old = new;
}
