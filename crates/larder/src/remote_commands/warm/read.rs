//! The files that are named on the command line, and those that they include.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::lockfiles::{
    Format, KNOWN, Lock, Unreadable, format_by_name, includes, unreadable_by_name,
};

use super::Failure;

/// The largest file that is read, in bytes.
const MOST: u64 = 64 << 20;
/// Files that one may include, in all.
const MOST_FILES: usize = 1_000;

/// A file that has been read.
#[derive(Debug)]
pub(super) struct Source {
    /// As it is called in messages.
    pub(super) name: String,
    pub(super) format: Format,
    pub(super) lock: Lock,
}

/// The text on standard input, if that is among the files. Whoever types it there may interrupt it as always: nothing has begun.
///
/// # Errors
/// It cannot be read.
pub(super) fn standard_input(files: &[PathBuf]) -> Result<String, Failure> {
    let is_named = files.iter().any(|file| file.as_os_str() == "-");
    if is_named {
        text_of(Path::new("-"))
    } else {
        Ok(String::new())
    }
}

/// Reads the files; `input` is what came on standard input, `package` the type of the repository that they are for.
///
/// # Errors
/// One cannot be read, or is not what it should be: the command is misused.
pub(super) fn read(
    files: &[PathBuf],
    input: &str,
    format: Option<Format>,
    package: &str,
) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    let mut open: Vec<PathBuf> = files.iter().rev().cloned().collect();
    let mut seen: Vec<PathBuf> = Vec::new();
    while let Some(path) = open.pop() {
        if seen.contains(&path) {
            continue;
        }
        seen.push(path.clone());
        if seen.len() > MOST_FILES {
            return Err(Failure::misused(format!(
                "more than {MOST_FILES} files include each other"
            )));
        }
        let name = path.display().to_string();
        let text = if path.as_os_str() == "-" {
            input.to_owned()
        } else {
            text_of(&path)?
        };
        let format = format
            .or_else(|| format_by_name(&path.file_name()?.to_string_lossy()))
            .or(match package {
                "docker" => Some(Format::Images),
                "generic" | "rpm" | "alpine" => Some(Format::Urls),
                _ => None,
            })
            .ok_or_else(|| unknown(&name, &path))?;
        if format == Format::Requirements {
            let folder = path.parent().unwrap_or(Path::new(""));
            let included = includes(&text).into_iter();
            let is_web = |path: &str| path.contains("://");
            let included = included.filter(|(_, path)| !is_web(path));
            open.extend(included.map(|(_, path)| folder.join(path)));
        }
        let lock = format
            .read(&name, &text)
            .map_err(|unreadable| misread(&name, &unreadable))?;
        sources.push(Source { name, format, lock });
    }
    Ok(sources)
}

/// Of a file whose name does not tell how it is written.
fn unknown(name: &str, path: &Path) -> Failure {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    Failure::misused(match unreadable_by_name(&file) {
        Some(why) => format!("{name}: {why}"),
        None => format!(
            "the name of {name} does not tell how it is written: say it with --format; known by their names are {KNOWN}"
        ),
    })
}

fn misread(name: &str, Unreadable { line, message }: &Unreadable) -> Failure {
    Failure::misused(match line {
        0 if message.starts_with(name) => message.clone(),
        0 => format!("{name}: {message}"),
        line => format!("{name}:{line}: {message}"),
    })
}

fn text_of(path: &Path) -> Result<String, Failure> {
    let shown = path.display();
    let cannot =
        |error: &dyn std::fmt::Display| Failure::misused(format!("cannot read {shown}: {error}"));
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin()
            .lock()
            .take(MOST + 1)
            .read_to_end(&mut bytes)
    } else {
        let file = std::fs::File::open(path).map_err(|error| cannot(&error))?;
        file.take(MOST + 1).read_to_end(&mut bytes)
    };
    read.map_err(|error| cannot(&error))?;
    if bytes.len() as u64 > MOST {
        return Err(cannot(&format!("it is larger than {} MiB", MOST >> 20)));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(&error.as_bytes()[..valid]);
        let line = text.matches('\n').count() + 1;
        Failure::misused(format!("{shown}:{line}: no text: it is not in UTF-8"))
    })
}
