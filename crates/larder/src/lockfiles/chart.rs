//! `Chart.lock` (and `requirements.lock` of Helm 2): the charts that a chart depends on.

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
