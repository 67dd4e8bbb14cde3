//! `yarn.lock`: the form of Yarn 1, and the YAML of later ones.

use super::{Lock, Unreadable, Wanted, is_web};
use crate::config::{Node, yaml_tree};

pub(super) fn yarn_lock(file: &str, text: &str) -> Result<Lock, Unreadable> {
    if text.lines().any(|line| line.starts_with("__metadata:")) {
        return berry(file, text);
    }
    classic(text)
}

/// A block of Yarn 1 while it is read.
struct Block<'t> {
    line: usize,
    pattern: &'t str,
    version: Option<&'t str>,
    resolved: Option<&'t str>,
}

fn classic(text: &str) -> Result<Lock, Unreadable> {
    let mut lock = Lock::default();
    let mut block: Option<Block<'_>> = None;
    let mut is_lock = text.contains("# yarn lockfile v1");
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if !line.starts_with(' ') {
            let patterns = line.strip_suffix(':').ok_or_else(|| {
                Unreadable::at(
                    number,
                    "this is no yarn.lock: a block begins with a line that ends with a colon",
                )
            })?;
            finish(block.take(), &mut lock)?;
            // In quotes, a range may have the comma that is between patterns.
            let first = match patterns.strip_prefix('"') {
                Some(quoted) => quoted.split('"').next(),
                None => patterns.split(", ").next(),
            };
            block = Some(Block {
                line: number,
                pattern: first.unwrap_or(patterns),
                version: None,
                resolved: None,
            });
            is_lock = true;
            continue;
        }
        let Some(block) = &mut block else {
            return Err(Unreadable::at(
                number,
                "this is no yarn.lock: a field outside of a block",
            ));
        };
        // What is further in is of the block's dependencies.
        let field = line
            .strip_prefix("  ")
            .filter(|field| !field.starts_with(' '));
        match field.and_then(|field| field.split_once(' ')) {
            Some(("version", value)) => block.version = Some(unquoted(value)),
            Some(("resolved", value)) => block.resolved = Some(unquoted(value)),
            _ => {}
        }
    }
    finish(block, &mut lock)?;
    if !is_lock {
        return Err(Unreadable::at(
            1,
            "this is no yarn.lock: it has no block, and not its first line",
        ));
    }
    Ok(lock)
}

fn finish(block: Option<Block<'_>>, lock: &mut Lock) -> Result<(), Unreadable> {
    let Some(block) = block else {
        return Ok(());
    };
    let version = block.version.ok_or_else(|| {
        Unreadable::at(
            block.line,
            "this is no yarn.lock: a block without `version`",
        )
    })?;
    let (name, range) = split_range(block.pattern);
    // `alias@npm:name@range`
    let name = range
        .strip_prefix("npm:")
        .map_or(name, |real| split_range(real).0);
    let url = block
        .resolved
        .map(|url| url.split('#').next().unwrap_or(url));
    match url {
        Some(url) if !is_web(url) || block.resolved.is_some_and(is_git) => {
            lock.leave(
                block.line,
                block.pattern,
                "it comes from Git or a folder, not from a registry",
            );
        }
        None if range.contains(':') && !range.starts_with("npm:")
            || range.starts_with(['.', '/']) =>
        {
            lock.leave(
                block.line,
                block.pattern,
                "it comes from Git or a folder, not from a registry",
            );
        }
        url => {
            let wanted = Wanted::Package {
                name: name.to_owned(),
                version: version.to_owned(),
                url: url.map(str::to_owned),
            };
            lock.take(block.line, wanted);
        }
    }
    Ok(())
}

/// A repository with a commit: `https://…/x.git#0123…`.
fn is_git(url: &str) -> bool {
    let (url, commit) = url.split_once('#').unwrap_or((url, ""));
    std::path::Path::new(url)
        .extension()
        .is_some_and(|extension| extension == "git")
        && !commit.is_empty()
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .unwrap_or(text)
}

/// `@scope/name@range` in two.
fn split_range(pattern: &str) -> (&str, &str) {
    let start = usize::from(pattern.starts_with('@'));
    match pattern.get(start..).and_then(|rest| rest.find('@')) {
        Some(at) => (&pattern[..start + at], &pattern[start + at + 1..]),
        None => (pattern, ""),
    }
}

fn berry(file: &str, text: &str) -> Result<Lock, Unreadable> {
    let root = yaml_tree(file, text).map_err(|message| Unreadable::at(0, message))?;
    let mut lock = Lock::default();
    for entry in root.iter().flat_map(Node::entries) {
        if entry.key() == "__metadata" {
            continue;
        }
        let line = entry.line();
        let resolution = entry.value().get("resolution").and_then(Node::text);
        let Some(resolution) = resolution else {
            return Err(Unreadable::at(
                line,
                "this is no yarn.lock: an entry without `resolution`",
            ));
        };
        let (name, reference) = split_range(resolution);
        if reference.starts_with("workspace:")
            || reference.starts_with("link:")
            || reference.starts_with("portal:")
        {
            continue;
        }
        if reference.starts_with("patch:") {
            // What is patched has an entry of its own.
            continue;
        }
        let Some(version) = reference.strip_prefix("npm:") else {
            if reference.starts_with("http") && !reference.contains('#') {
                lock.take(line, Wanted::Place(reference.to_owned()));
            } else {
                lock.leave(
                    line,
                    resolution,
                    "it comes from Git or a folder, not from a registry",
                );
            }
            continue;
        };
        let (version, bound) = version.split_once("::").unwrap_or((version, ""));
        let url = url::form_urlencoded::parse(bound.as_bytes())
            .find(|(key, _)| key == "__archiveUrl")
            .map(|(_, url)| url.into_owned());
        let wanted = Wanted::Package {
            name: name.to_owned(),
            version: version.to_owned(),
            url,
        };
        lock.take(line, wanted);
    }
    Ok(lock)
}
