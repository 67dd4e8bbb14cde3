//! Repositories whose keys are not indented: YAML reads them as names of other repositories, which is never what was meant.

use super::diagnostic::Report;
use super::merge::Document;
use super::node::{Entry, Value};
use super::schema;

/// The entries of `remotes` that are repositories. Those that are keys of a repository are reported, and the empty ones that they were
/// meant for are left out, so that nothing is said twice.
pub(super) fn check<'d>(document: &'d Document, report: &mut Report) -> Vec<&'d Entry> {
    let mut repositories: Vec<&Entry> = Vec::new();
    let mut meant_for: Option<&Entry> = None;
    for entry in &document.remotes {
        if !is_key(entry) {
            meant_for = Some(entry);
            repositories.push(entry);
            continue;
        }
        let key = &entry.key;
        let message = match meant_for.filter(|owner| matches!(owner.node.value, Value::Null)) {
            Some(owner) => {
                repositories.retain(|entry| entry.key != owner.key);
                let name = &owner.key;
                format!(
                    "`{key}` stands beside `{name}`, not below it: indent it by two more spaces than `{name}`"
                )
            }
            None => format!(
                "`{key}` is a key of a repository, and stands where the names of repositories do: indent it below its own"
            ),
        };
        report.error(&entry.place, message);
    }
    repositories
}

/// Whether an entry of `remotes` is not a repository but a key of one. A repository may be called like a key.
fn is_key(entry: &Entry) -> bool {
    if !schema::REPOSITORY.contains(&entry.key.as_str()) {
        return false;
    }
    let within: &[&str] = match entry.key.as_str() {
        "cache" => schema::CACHE,
        "stale" => schema::STALE,
        "timeouts" => schema::TIMEOUTS,
        _ => &[],
    };
    match &entry.node.value {
        Value::Map(entries) => entries
            .iter()
            .any(|entry| within.contains(&entry.key.as_str())),
        Value::Null => false,
        Value::Scalar { .. } | Value::List(_) => true,
    }
}
