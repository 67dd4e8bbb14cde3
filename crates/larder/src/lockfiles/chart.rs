//! `Chart.lock` (and `requirements.lock` of Helm 2): the charts that a chart depends on; and where an index says that they are.

use saphyr_parser::{Event, Parser};

use super::{Lock, Unreadable, Wanted};
use crate::config::{Node, yaml_tree};

pub(super) fn chart_lock(file: &str, text: &str) -> Result<Lock, Unreadable> {
    let root = yaml_tree(file, text).map_err(|message| Unreadable::at(0, message))?;
    let dependencies = root.as_ref().and_then(|root| root.get("dependencies"));
    let dependencies = dependencies
        .ok_or_else(|| Unreadable::at(1, "this is no Chart.lock: it has no `dependencies`"))?;
    let mut lock = Lock::default();
    for dependency in dependencies.items() {
        let line = dependency.line();
        let text = |key: &str| dependency.get(key).and_then(Node::text);
        let (Some(name), Some(version)) = (text("name"), text("version")) else {
            return Err(Unreadable::at(
                line,
                "a dependency without `name` and `version`",
            ));
        };
        let repository = text("repository").unwrap_or_default();
        let what = format!("{name} {version}");
        if repository.starts_with("oci://") {
            lock.leave(line, &what, "it comes from a registry: list it as an image");
        } else if repository.is_empty() || repository.starts_with("file://") {
            lock.leave(line, &what, "it is a folder beside the chart");
        } else {
            let wanted = Wanted::Chart {
                name: name.to_owned(),
                version: version.to_owned(),
                repository: repository.to_owned(),
            };
            lock.take(line, wanted);
        }
    }
    Ok(lock)
}

/// Where the reader of an index is: in a list, or in a mapping, at the value of a key if that was read.
enum Level {
    List,
    Map(Option<String>),
}

/// From which addresses, as they stand in a repository's index, clients may fetch a version of a chart. An index may be longer than what
/// is read as a tree.
///
/// # Errors
/// It is no YAML; says where.
pub(crate) fn addresses(index: &str, name: &str, version: &str) -> Result<Vec<String>, Unreadable> {
    let (mut found, mut at) = (Vec::new(), Vec::new());
    let (mut of_entry, mut address) = (None, None);
    for event in Parser::new_from_str(index) {
        let (event, _) = event.map_err(|error| {
            let message = format!("no YAML: {}", error.info());
            Unreadable::at(error.marker().line(), message)
        })?;
        match event {
            Event::MappingStart(..) => at.push(Level::Map(None)),
            Event::SequenceStart(..) => at.push(Level::List),
            Event::Scalar(text, ..) => {
                if let Some(Level::Map(key @ None)) = at.last_mut() {
                    *key = Some(text.into_owned());
                    continue;
                }
                match field(&at, name) {
                    Some([Level::Map(Some(key))]) if key == "version" => {
                        of_entry = Some(text.into_owned());
                    }
                    // Clients take the first.
                    Some([Level::Map(Some(key)), Level::List]) if key == "urls" => {
                        address.get_or_insert(text.into_owned());
                    }
                    _ => {}
                }
                ended(&mut at);
            }
            Event::Alias(_) => match at.last_mut() {
                Some(Level::Map(key @ None)) => *key = Some(String::new()),
                _ => ended(&mut at),
            },
            Event::MappingEnd | Event::SequenceEnd => {
                at.pop();
                if let Some([]) = field(&at, name) {
                    let (of_entry, address) = (of_entry.take(), address.take());
                    let is_wanted = of_entry.is_some_and(|other| is_same(&other, version));
                    found.extend(address.filter(|_| is_wanted));
                }
                ended(&mut at);
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Where in an entry of the chart this is.
fn field<'l>(at: &'l [Level], name: &str) -> Option<&'l [Level]> {
    match at {
        [
            Level::Map(Some(root)),
            Level::Map(Some(chart)),
            Level::List,
            field @ ..,
        ] => (root == "entries" && chart == name).then_some(field),
        _ => None,
    }
}

/// A value is at its end: the next key follows.
fn ended(at: &mut [Level]) {
    if let Some(Level::Map(key)) = at.last_mut() {
        *key = None;
    }
}

/// Whether clients take one version for the other: they pass over a `v` before it and what is built of it, and numbers that are not
/// there are zero.
fn is_same(one: &str, other: &str) -> bool {
    normal(one) == normal(other)
}

fn normal(version: &str) -> (Vec<&str>, &str) {
    let bare = version.strip_prefix('v').unwrap_or(version);
    let bare = bare.split('+').next().unwrap_or_default();
    let (release, early) = bare.split_once('-').unwrap_or((bare, ""));
    let mut numbers: Vec<&str> = release.split('.').collect();
    while numbers.len() < 3 {
        numbers.push("0");
    }
    (numbers, early)
}
