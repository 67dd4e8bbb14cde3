//! `Pipfile.lock` of pipenv.

use serde_json::Value;

use super::{FileHint, Lock, Unreadable, Wanted};

pub(super) fn pipfile_lock(text: &str) -> Result<Lock, Unreadable> {
    let root: Value = serde_json::from_str(text)
        .map_err(|error| Unreadable::at(error.line(), format!("no JSON: {error}")))?;
    let root = root.as_object().filter(|root| root.contains_key("_meta"));
    let root =
        root.ok_or_else(|| Unreadable::at(1, "this is no Pipfile.lock: it has no `_meta`"))?;
    let mut lock = Lock::default();
    // `default`, `develop`, and the groups that a project makes itself.
    for (_, group) in root.iter().filter(|(key, _)| *key != "_meta") {
        let packages = group.as_object().ok_or_else(|| {
            Unreadable::at(1, "this is no Pipfile.lock: a group in it is no object")
        })?;
        for (name, package) in packages {
            of_package(name, package, &mut lock);
        }
    }
    Ok(lock)
}

fn of_package(name: &str, package: &Value, lock: &mut Lock) {
    let text = |key: &str| package.get(key).and_then(Value::as_str);
    if let Some(url) = text("file").filter(|url| url.contains("://")) {
        return lock.take(0, Wanted::Place(url.to_owned()));
    }
    let others = ["git", "hg", "svn", "bzr", "path", "file"];
    if others.iter().any(|key| package.get(*key).is_some()) {
        let why = "it comes from a repository of sources or a folder, not from an index";
        return lock.leave(0, name, why);
    }
    let Some(version) = text("version").and_then(|version| version.strip_prefix("==")) else {
        return lock.miss(0, name, "it is not pinned with ==");
    };
    let hashes = package.get("hashes").and_then(Value::as_array);
    let files = hashes.into_iter().flatten().filter_map(|hash| {
        let digest = hash.as_str()?.strip_prefix("sha256:")?;
        Some(FileHint {
            url: None,
            sha256: Some(digest.to_ascii_lowercase()),
        })
    });
    let wanted = Wanted::Project {
        name: name.to_owned(),
        version: version.trim_start_matches('=').to_owned(),
        files: files.collect(),
    };
    if !lock.items.iter().any(|item| item.wanted == wanted) {
        lock.take(0, wanted);
    }
}
