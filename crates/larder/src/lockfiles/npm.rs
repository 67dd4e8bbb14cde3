//! `package-lock.json` of npm, in its versions 1 to 3.

use serde_json::Value;

use super::{Lock, Unreadable, Wanted, is_web};

pub(super) fn package_lock(text: &str) -> Result<Lock, Unreadable> {
    let root: Value = serde_json::from_str(text)
        .map_err(|error| Unreadable::at(error.line(), format!("no JSON: {error}")))?;
    let no_lock = || Unreadable::at(1, "this is no package-lock.json: it has no `packages`");
    let mut lock = Lock::default();
    if let Some(packages) = root.get("packages") {
        let packages = packages.as_object().ok_or_else(no_lock)?;
        for (place, package) in packages {
            of_place(place, package, &mut lock);
        }
        return Ok(lock);
    }
    // An empty project has neither.
    if root.get("lockfileVersion").is_none() {
        return Err(no_lock());
    }
    if let Some(dependencies) = root.get("dependencies") {
        let dependencies = dependencies.as_object().ok_or_else(no_lock)?;
        for (name, dependency) in dependencies {
            of_tree(name, dependency, &mut lock);
        }
    }
    Ok(lock)
}

fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key)?.as_str()
}

fn truth(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or_default()
}

/// Of versions 2 and 3: by the folder that it is installed in.
fn of_place(place: &str, package: &Value, lock: &mut Lock) {
    let Some((_, folder)) = place.rsplit_once("node_modules/") else {
        // The project itself, or a part of it.
        return;
    };
    if truth(package, "link") || truth(package, "inBundle") {
        return;
    }
    let name = text(package, "name").unwrap_or(folder);
    let url = text(package, "resolved");
    match text(package, "version") {
        Some(version) => of_registry(name, version, url, lock),
        None => lock.leave(0, name, "it has no version"),
    }
}

/// Of version 1: those that are needed by one package alone stand inside of it.
fn of_tree(name: &str, dependency: &Value, lock: &mut Lock) {
    let inner = dependency.get("dependencies").and_then(Value::as_object);
    for (name, dependency) in inner.into_iter().flatten() {
        of_tree(name, dependency, lock);
    }
    if truth(dependency, "bundled") {
        return;
    }
    let url = text(dependency, "resolved");
    match text(dependency, "version") {
        // Of a tarball by URL, which may be the registry's.
        Some(version) if is_web(version) => lock.take(0, Wanted::Place(version.to_owned())),
        Some(version) => {
            let alias = version
                .strip_prefix("npm:")
                .and_then(|alias| alias.rsplit_once('@'));
            let (name, version) = alias.unwrap_or((name, version));
            of_registry(name, version, url, lock);
        }
        None => lock.leave(0, name, "it has no version"),
    }
}

/// What came from a registry is one; the rest is from Git, a folder, or wherever a URL leads.
fn of_registry(name: &str, version: &str, url: Option<&str>, lock: &mut Lock) {
    let elsewhere = |place: &str| place.contains(':') && !is_web(place);
    if elsewhere(version) || url.is_some_and(elsewhere) || version.contains('/') {
        let what = format!("{name} {version}");
        lock.leave(
            0,
            &what,
            "it comes from Git, a folder or a URL, not from a registry",
        );
        return;
    }
    let wanted = Wanted::Package {
        name: name.to_owned(),
        version: version.to_owned(),
        url: url.map(str::to_owned),
    };
    if !lock
        .items
        .iter()
        .rev()
        .take(64)
        .any(|item| item.wanted == wanted)
    {
        lock.take(0, wanted);
    }
}
