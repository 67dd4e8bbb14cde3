//! `pnpm-lock.yaml`, in its versions 5 to 9.

use super::{Lock, Unreadable, Wanted};
use crate::config::{Node, yaml_tree};

pub(super) fn pnpm_lock(file: &str, text: &str) -> Result<Lock, Unreadable> {
    let root = yaml_tree(file, text).map_err(|message| Unreadable::at(0, message))?;
    let root = root.filter(|root| root.get("lockfileVersion").is_some());
    let root = root.ok_or_else(|| {
        Unreadable::at(1, "this is no pnpm-lock.yaml: it has no `lockfileVersion`")
    })?;
    let mut lock = Lock::default();
    let packages = root.get("packages").map_or(&[][..], Node::entries);
    for entry in packages {
        let (line, key, package) = (entry.line(), entry.key(), entry.value());
        let resolution = package.get("resolution");
        let of_resolution = |key: &str| resolution?.get(key)?.text();
        let named = |key: &str| package.get(key).and_then(Node::text);
        if of_resolution("directory").is_some() || of_resolution("repo").is_some() {
            lock.leave(
                line,
                key,
                "it comes from Git or a folder, not from a registry",
            );
            continue;
        }
        let by_key = name_and_version(key);
        let url = of_resolution("tarball");
        let (Some(name), Some(version)) = (
            named("name").or(by_key.map(|found| found.0)),
            named("version").or(by_key.map(|found| found.1)),
        ) else {
            match url {
                Some(url) => lock.take(line, Wanted::Place(url.to_owned())),
                None => lock.leave(line, key, "it is not named as packages of a registry are"),
            }
            continue;
        };
        // A tarball by URL has that in the place of its version.
        if version.contains(['/', ':']) {
            match url {
                Some(url) => lock.take(line, Wanted::Place(url.to_owned())),
                None => lock.leave(
                    line,
                    key,
                    "it comes from Git or a folder, not from a registry",
                ),
            }
            continue;
        }
        let wanted = Wanted::Package {
            name: name.to_owned(),
            version: version.to_owned(),
            url: url.map(str::to_owned),
        };
        lock.take(line, wanted);
    }
    Ok(lock)
}

/// `/name/1.0.0_peer@2.0.0` (5), `/name@1.0.0(peer@2.0.0)` (6), `name@1.0.0` (9); a registry may stand in front of the slash.
fn name_and_version(key: &str) -> Option<(&str, &str)> {
    let key = key.split('(').next().unwrap_or(key);
    let key = match key.split_once('/') {
        // Nothing, or a host, before the name.
        Some((before, rest)) if before.is_empty() || before.contains('.') => rest,
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
        Some(b'/') => version.split('_').next().unwrap_or(version),
        _ => version,
    };
    (!name.is_empty() && !version.is_empty()).then_some((name, version))
}
