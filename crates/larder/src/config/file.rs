//! The three forms of `CONFIG_PATH`: one file, a directory, a main file with `config_dir` (contract, section 2).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::defaults::BUILT_IN;
use super::diagnostic::{Place, Report};
use super::merge::Document;
use super::node::{Node, Value};
use super::schema;
use super::yaml::{Parsed, parse};

/// What was read, and the files and directories that it came from.
pub(super) struct Loaded {
    pub(super) document: Document,
    /// For the watcher: directories count with the YAML files in them.
    pub(super) watched: Vec<PathBuf>,
    /// No configuration at all: the built-in repositories.
    pub(super) built_in: bool,
}

/// Reads the configuration at `path`, or the built-in one.
pub(super) fn read(path: Option<&Path>, report: &mut Report) -> Loaded {
    let mut document = Document::default();
    let Some(path) = path else {
        if let Some(root) =
            parse(&"built-in".into(), BUILT_IN, report).and_then(|parsed| parsed.root)
        {
            document.add(root, report);
        }
        return Loaded {
            document,
            watched: Vec::new(),
            built_in: true,
        };
    };
    let mut watched = vec![path.to_owned()];
    if path.is_dir() {
        for file in yaml_files(path, None, report) {
            if let Some(root) = read_file(&file, report) {
                document.add(root, report);
            }
        }
        if let Some(entry) = document.get("config_dir") {
            report
                .error(&entry.place, "`config_dir` belongs to a single main file, but the configuration is a directory already");
        }
        return Loaded {
            document,
            watched,
            built_in: false,
        };
    }
    if let Some(root) = read_file(path, report) {
        document.add(root, report);
    }
    if let Some((directory, place)) = config_dir(&document, path, report) {
        for file in yaml_files(&directory, Some(&place), report) {
            if let Some(root) = read_file(&file, report) {
                document.add_remotes_of(root, report);
            }
        }
        watched.push(directory);
    }
    Loaded {
        document,
        watched,
        built_in: false,
    }
}

/// The directory that the main file names, relative to that file.
fn config_dir(document: &Document, main: &Path, report: &mut Report) -> Option<(PathBuf, Place)> {
    let entry = document.get("config_dir")?;
    match &entry.node.value {
        Value::Null => None,
        Value::Scalar { text, .. } => Some((beside(main, text), entry.node.place.clone())),
        _ => {
            report.error(
                &entry.node.place,
                "`config_dir` must be the path of a directory",
            );
            None
        }
    }
}

/// A path as a file names it: relative to the directory of that file.
pub(super) fn beside(file: &Path, path: &str) -> PathBuf {
    file.parent().unwrap_or_else(|| Path::new("")).join(path)
}

/// The visible `*.yaml` and `*.yml` of a directory, in alphabetical order.
pub(super) fn list_yaml(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let yaml = path.extension().is_some_and(|e| e == "yaml" || e == "yml");
        // Through links: a mounted ConfigMap is a directory of links. One that leads nowhere is for the reader to complain of.
        if yaml && !name.starts_with('.') && (path.is_file() || !path.exists()) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn yaml_files(directory: &Path, named_at: Option<&Place>, report: &mut Report) -> Vec<PathBuf> {
    match list_yaml(directory) {
        Ok(files) => {
            if files.is_empty() {
                report.warning(
                    named_at,
                    format!("no *.yaml or *.yml file in {}", directory.display()),
                );
            }
            files
        }
        Err(error) => {
            report.error(
                named_at,
                format!(
                    "cannot read the configuration directory {}: {error}",
                    directory.display()
                ),
            );
            Vec::new()
        }
    }
}

fn read_file(path: &Path, report: &mut Report) -> Option<Node> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            report.error(
                None,
                format!(
                    "cannot read the configuration file {}: {error}",
                    path.display()
                ),
            );
            return None;
        }
    };
    let name: Arc<str> = path.display().to_string().into();
    let Ok(text) = String::from_utf8(bytes) else {
        report.error(
            &Place {
                file: name,
                line: 1,
                column: 1,
            },
            "file is not UTF-8 text",
        );
        return None;
    };
    let parsed = parse(&name, &text, report)?;
    tell_repairs(&parsed, report);
    parsed.root
}

/// Warns of every mended escape; the text is shown unless it may be a secret.
fn tell_repairs(parsed: &Parsed, report: &mut Report) {
    let mut secrets = Vec::new();
    if let Some(root) = &parsed.root {
        secret_places(root, false, &mut secrets);
    }
    for (place, repair) in &parsed.repairs {
        let escape = &repair.escape;
        let short = repair.written.chars().count() <= 200 && !repair.written.contains(['\n', '\r']);
        // A later repair on the line shifts columns, so that the line alone decides: rather too little shown than a secret.
        if short && !secrets.iter().any(|secret| secret.line == place.line) {
            let (written, corrected) = (&repair.written, &repair.corrected);
            let plain =
                format!("`{escape}` in {written} is not a YAML escape: read as {corrected}");
            report.warning(place, format!("{plain}; write that, or use single quotes"));
        } else {
            let plain = "the text holds a backslash that starts no YAML escape, read as if doubled";
            report.warning(place, format!("{plain}: double it, or use single quotes"));
        }
    }
}

/// Where secret values stand: those of secret keys, and all below `headers`.
fn secret_places<'n>(node: &'n Node, secret: bool, found: &mut Vec<&'n Place>) {
    match &node.value {
        Value::Scalar { .. } if secret => found.push(&node.place),
        Value::Scalar { .. } | Value::Null => {}
        Value::List(items) => items
            .iter()
            .for_each(|item| secret_places(item, secret, found)),
        Value::Map(entries) => {
            for entry in entries {
                secret_places(
                    &entry.node,
                    secret || schema::is_secret(&entry.key) || entry.key == "headers",
                    found,
                );
            }
        }
    }
}
