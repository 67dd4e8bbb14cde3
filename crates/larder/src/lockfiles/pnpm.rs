//! `pnpm-lock.yaml`, in its versions 5 to 9.

use super::{Lock, Unreadable, Wanted, is_web};
use crate::config::{Entry, Node, yaml_trees};

pub(super) fn pnpm_lock(file: &str, text: &str) -> Result<Lock, Unreadable> {
    let no_lock = |line| {
        let message = "this is no pnpm-lock.yaml: it has no `lockfileVersion`";
        Unreadable::at(line, message)
    };
    // Where a project pins pnpm itself, or has packages configure it, these have a document of their own before the project's.
    let mut documents = yaml_trees(file, text).map_err(|message| Unreadable::at(0, message))?;
    documents.retain(|document| !document.entries().is_empty());
    if documents.is_empty() {
        return Err(no_lock(1));
    }
    let mut lock = Lock::default();
    for document in &documents {
        if document.get("lockfileVersion").is_none() {
            return Err(no_lock(document.line()));
        }
        let packages = document.get("packages").map_or(&[][..], Node::entries);
        for entry in packages {
            of_package(entry, &mut lock);
        }
    }
    Ok(lock)
}

fn of_package(entry: &Entry, lock: &mut Lock) {
    let (line, key, package) = (entry.line(), entry.key(), entry.value());
    let elsewhere = "it comes from Git or a folder, not from a registry";
    let resolution = package.get("resolution");
    let of_resolution = |key: &str| resolution?.get(key)?.text();
    let named = |key: &str| package.get(key).and_then(Node::text);
    let url = of_resolution("tarball");
    // What has no scheme is a path of the registry.
    let is_file = url.is_some_and(|url| url.contains(':') && !is_web(url));
    if is_file || of_resolution("directory").is_some() || of_resolution("repo").is_some() {
        return lock.leave(line, key, elsewhere);
    }
    let by_key = name_and_version(key);
    let (Some(name), Some(version)) = (
        named("name").or(by_key.map(|found| found.0)),
        named("version").or(by_key.map(|found| found.1)),
    ) else {
        return match url {
            Some(url) => lock.take(line, Wanted::Place(url.to_owned())),
            None => lock.leave(line, key, "it is not named as packages of a registry are"),
        };
    };
    // A tarball by URL has that in the place of its version.
    if version.contains(['/', ':']) {
        return match url {
            Some(url) => lock.take(line, Wanted::Place(url.to_owned())),
            None => lock.leave(line, key, elsewhere),
        };
    }
    let wanted = Wanted::Package {
        name: name.to_owned(),
        version: version.to_owned(),
        url: url.map(str::to_owned),
    };
    lock.take(line, wanted);
}

/// `/name/1.0.0_peer@2.0.0` or `/name/1.0.0/peer@2.0.0` (5), `/name@1.0.0(peer@2.0.0)` (6), `name@1.0.0` (9). In 5 and 6 a registry may stand
/// in front of the slash, its port behind a `+`.
fn name_and_version(key: &str) -> Option<(&str, &str)> {
    let key = key.split('(').next().unwrap_or(key);
    let key = match key.split_once('/') {
        // Nothing, or a host, before the name: a scope begins with an `@`, and a name without one has it before any slash.
        Some((before, rest)) if !before.contains('@') => rest,
        _ => key,
    };
    let scope = if key.starts_with('@') {
        key.find('/')? + 1
    } else {
        0
    };
    let at = scope + key.get(scope..)?.find(['@', '/'])?;
    let (name, version) = (key.get(..at)?, key.get(at + 1..)?);
    let version = match key.as_bytes().get(at) {
        Some(b'/') => version.split(['_', '/']).next().unwrap_or(version),
        _ => version,
    };
    (!name.is_empty() && !version.is_empty()).then_some((name, version))
}
