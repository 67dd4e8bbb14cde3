//! `uv.lock`, `pylock.toml` (PEP 751), `poetry.lock` and `pdm.lock`.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{FileHint, Lock, Unreadable, Wanted, line_at};

type Table<'t> = DeTable<'t>;
type Value<'t> = Spanned<DeValue<'t>>;

fn parsed(text: &str) -> Result<Table<'_>, Unreadable> {
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_at(text, span.start));
        Unreadable::at(line, error.message().to_owned())
    })?;
    Ok(table.into_inner())
}

fn text<'v>(table: &'v Table<'_>, key: &str) -> Option<&'v str> {
    table.get(key)?.get_ref().as_str()
}

fn table<'v, 't>(table: &'v Table<'t>, key: &str) -> Option<&'v Table<'t>> {
    table.get(key)?.get_ref().as_table()
}

/// The tables of an array; nothing where there is none.
///
/// # Errors
/// It is something else.
fn tables<'v, 't>(
    (source, of): (&str, &'v Table<'t>),
    key: &str,
) -> Result<Vec<(usize, &'v Table<'t>)>, Unreadable> {
    let Some(found) = of.get(key) else {
        return Ok(Vec::new());
    };
    let wrong = |value: &Value<'_>| {
        let line = line_at(source, value.span().start);
        Unreadable::at(line, format!("{key} is no array of tables"))
    };
    let array = found.get_ref().as_array().ok_or_else(|| wrong(found))?;
    let one = |value: &'v Value<'t>| {
        let table = value.get_ref().as_table().ok_or_else(|| wrong(value))?;
        Ok((line_at(source, value.span().start), table))
    };
    array.iter().map(one).collect()
}

/// The name of a package.
fn name<'v>(line: usize, package: &'v Table<'_>) -> Result<&'v str, Unreadable> {
    text(package, "name").ok_or_else(|| Unreadable::at(line, "a package without a name"))
}

/// The source distribution of a package, and its wheels.
fn files<'v, 't>(source: &str, package: &'v Table<'t>) -> Result<Vec<&'v Table<'t>>, Unreadable> {
    let wheels = tables((source, package), "wheels")?.into_iter();
    let sdist = table(package, "sdist").into_iter();
    Ok(sdist.chain(wheels.map(|(_, wheel)| wheel)).collect())
}

pub(super) fn uv(source: &str) -> Result<Lock, Unreadable> {
    let root = parsed(source)?;
    if root
        .get("version")
        .is_none_or(|version| version.get_ref().as_integer().is_none())
    {
        return Err(Unreadable::at(1, "this is no uv.lock: it has no `version`"));
    }
    let mut lock = Lock::default();
    for (line, package) in tables((source, &root), "package")? {
        let name = name(line, package)?;
        let whence = table(package, "source");
        let is_from = |kind: &str| whence.is_some_and(|whence| whence.contains_key(kind));
        // The project itself, and its workspace.
        if is_from("virtual") || is_from("editable") || is_from("directory") {
            continue;
        }
        if let Some(url) = whence.and_then(|whence| text(whence, "url")) {
            lock.take(line, Wanted::Place(url.to_owned()));
            continue;
        }
        let files = files(source, package)?;
        if !is_from("registry") || files.iter().any(|file| file.contains_key("path")) {
            lock.leave(
                line,
                name,
                "it comes from Git or a folder, not from an index",
            );
            continue;
        }
        let hint = |file: &Table<'_>| FileHint {
            url: text(file, "url").map(str::to_owned),
            sha256: text(file, "hash")
                .and_then(|hash| hash.strip_prefix("sha256:"))
                .map(str::to_ascii_lowercase),
        };
        let wanted = Wanted::Project {
            name: name.to_owned(),
            version: text(package, "version").unwrap_or_default().to_owned(),
            files: files.into_iter().map(hint).collect(),
        };
        lock.take(line, wanted);
    }
    Ok(lock)
}

pub(super) fn pylock(source: &str) -> Result<Lock, Unreadable> {
    let root = parsed(source)?;
    match text(&root, "lock-version") {
        Some(version) if version.starts_with("1.") => {}
        Some(version) => {
            let message = format!("lock-version is {version:?}: only 1.x is understood");
            return Err(Unreadable::at(1, message));
        }
        None => {
            let message = "this is no pylock.toml: it has no `lock-version`";
            return Err(Unreadable::at(1, message));
        }
    }
    let mut lock = Lock::default();
    for (line, package) in tables((source, &root), "packages")? {
        let name = name(line, package)?;
        let archive = table(package, "archive").and_then(|archive| text(archive, "url"));
        if let Some(url) = archive {
            lock.take(line, Wanted::Place(url.to_owned()));
            continue;
        }
        let files = files(source, package)?;
        let is_local = |file: &&Table<'_>| !file.contains_key("url") && file.contains_key("path");
        if files.is_empty() || files.iter().any(is_local) {
            lock.leave(
                line,
                name,
                "it comes from Git or a folder, not from an index",
            );
            continue;
        }
        let hint = |file: &Table<'_>| FileHint {
            url: text(file, "url").map(str::to_owned),
            sha256: table(file, "hashes")
                .and_then(|hashes| text(hashes, "sha256"))
                .map(str::to_ascii_lowercase),
        };
        let wanted = Wanted::Project {
            name: name.to_owned(),
            version: text(package, "version").unwrap_or_default().to_owned(),
            files: files.into_iter().map(hint).collect(),
        };
        lock.take(line, wanted);
    }
    Ok(lock)
}

/// `{file = "…", hash = "sha256:…"}`, or with `url` in the place of `file`.
fn hint_of_file(file: &Table<'_>) -> FileHint {
    FileHint {
        url: text(file, "url").map(str::to_owned),
        sha256: text(file, "hash")
            .and_then(|hash| hash.strip_prefix("sha256:"))
            .map(str::to_ascii_lowercase),
    }
}

/// The files of a package: beside it, or, as older versions wrote them, below `metadata.files`.
fn listed_files(
    source: &str,
    root: &Table<'_>,
    package: &Table<'_>,
    older: &str,
) -> Result<Vec<FileHint>, Unreadable> {
    let of_package = tables((source, package), "files")?;
    let of_root = match table(root, "metadata").and_then(|metadata| table(metadata, "files")) {
        Some(files) if of_package.is_empty() => tables((source, files), older)?,
        _ => Vec::new(),
    };
    let all = of_package.iter().chain(&of_root);
    Ok(all.map(|(_, file)| hint_of_file(file)).collect())
}

pub(super) fn poetry(source: &str) -> Result<Lock, Unreadable> {
    let root = parsed(source)?;
    let version = table(&root, "metadata").and_then(|metadata| text(metadata, "lock-version"));
    if version.is_none() {
        let message = "this is no poetry.lock: it has no `metadata.lock-version`";
        return Err(Unreadable::at(1, message));
    }
    let mut lock = Lock::default();
    for (line, package) in tables((source, &root), "package")? {
        let name = name(line, package)?;
        let whence = table(package, "source");
        match whence.and_then(|whence| text(whence, "type")) {
            // An index of its own, or the usual one.
            None | Some("legacy") => {}
            Some("url") => {
                let url = whence.and_then(|whence| text(whence, "url"));
                lock.take(line, Wanted::Place(url.unwrap_or_default().to_owned()));
                continue;
            }
            Some(_) => {
                let why = "it comes from Git or a folder, not from an index";
                lock.leave(line, name, why);
                continue;
            }
        }
        let wanted = Wanted::Project {
            name: name.to_owned(),
            version: text(package, "version").unwrap_or_default().to_owned(),
            files: listed_files(source, &root, package, name)?,
        };
        lock.take(line, wanted);
    }
    Ok(lock)
}

pub(super) fn pdm(source: &str) -> Result<Lock, Unreadable> {
    let root = parsed(source)?;
    let version = table(&root, "metadata").and_then(|metadata| text(metadata, "lock_version"));
    if version.is_none() {
        let message = "this is no pdm.lock: it has no `metadata.lock_version`";
        return Err(Unreadable::at(1, message));
    }
    let mut lock = Lock::default();
    for (line, package) in tables((source, &root), "package")? {
        let name = name(line, package)?;
        if let Some(url) = text(package, "url") {
            lock.take(line, Wanted::Place(url.to_owned()));
            continue;
        }
        let others = ["git", "hg", "svn", "bzr", "path"];
        if others.iter().any(|key| package.contains_key(*key)) {
            let why = "it comes from a repository of sources or a folder, not from an index";
            lock.leave(line, name, why);
            continue;
        }
        let version = text(package, "version").unwrap_or_default();
        let wanted = Wanted::Project {
            name: name.to_owned(),
            version: version.to_owned(),
            files: listed_files(source, &root, package, &format!("{name} {version}"))?,
        };
        // A package stands once for each set of its extras.
        if !lock.items.iter().any(|item| item.wanted == wanted) {
            lock.take(line, wanted);
        }
    }
    Ok(lock)
}
