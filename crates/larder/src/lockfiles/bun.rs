//! `bun.lock` of Bun: JSON with commas behind the last of a list, which YAML takes as it is.

use super::{Lock, Unreadable, Wanted, is_web};
use crate::config::{Node, yaml_tree};

pub(super) fn bun_lock(file: &str, text: &str) -> Result<Lock, Unreadable> {
    let root = yaml_tree(file, text).map_err(|message| Unreadable::at(0, message))?;
    let root = root.filter(|root| root.get("lockfileVersion").is_some());
    let root =
        root.ok_or_else(|| Unreadable::at(1, "this is no bun.lock: it has no `lockfileVersion`"))?;
    let mut lock = Lock::default();
    for entry in root.get("packages").map_or(&[][..], Node::entries) {
        let line = entry.line();
        let mut items = entry.value().items().iter().map(Node::text);
        let Some(named) = items.next().flatten() else {
            let message =
                "this is no bun.lock: a package in it is no list that begins with its name";
            return Err(Unreadable::at(line, message));
        };
        of_package(line, named, items.next().flatten(), &mut lock);
    }
    Ok(lock)
}

/// `name@1.0.0` with where it was found, which is empty for the usual registry; or `name@` and where else it comes from.
fn of_package(line: usize, named: &str, found: Option<&str>, lock: &mut Lock) {
    let scope = usize::from(named.starts_with('@'));
    let at = named.get(scope..).and_then(|rest| rest.find('@'));
    let Some((name, version)) = at.and_then(|at| {
        let at = at + scope;
        Some((named.get(..at)?, named.get(at + 1..)?))
    }) else {
        return lock.leave(line, named, "it is not named as packages of a registry are");
    };
    if version.starts_with("workspace:") || version.is_empty() {
        // The project itself.
        return;
    }
    if is_web(version) {
        return lock.take(line, Wanted::Place(version.to_owned()));
    }
    if version.contains([':', '/']) {
        let why = "it comes from Git or a folder, not from a registry";
        return lock.leave(line, named, why);
    }
    // The registry itself, or the tarball.
    let url = found.filter(|found| found.rsplit('.').next() == Some("tgz"));
    lock.take(
        line,
        Wanted::Package {
            name: name.to_owned(),
            version: version.to_owned(),
            url: url.map(str::to_owned),
        },
    );
}
