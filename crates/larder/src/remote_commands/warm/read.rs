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
    let named = files.iter().rev().map(|path| (path.clone(), format));
    let mut open: Vec<(PathBuf, Option<Format>)> = named.collect();
    let mut seen: Vec<PathBuf> = Vec::new();
    while let Some((path, format)) = open.pop() {
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
            // Whatever their names are.
            let included = includes(&text).into_iter();
            open.extend(included.map(|(_, path)| (folder.join(path), Some(format))));
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
    decoded(bytes)
        .map_err(|line| Failure::misused(format!("{shown}:{line}: no text: it is not in UTF-8")))
}

/// A text in UTF-8, or in UTF-16 with a byte order mark, which shells of Windows write.
///
/// # Errors
/// It is neither; in which line.
fn decoded(bytes: Vec<u8>) -> Result<String, usize> {
    let unit: fn([u8; 2]) -> u16 = match bytes[..] {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => {
            return String::from_utf8(bytes).map_err(|error| {
                let valid = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(&error.as_bytes()[..valid]);
                text.matches('\n').count() + 1
            });
        }
    };
    let (pairs, rest) = bytes[2..].as_chunks();
    let text = String::from_utf16(&pairs.iter().copied().map(unit).collect::<Vec<u16>>());
    text.ok().filter(|_| rest.is_empty()).ok_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_with_a_byte_order_mark_is_read_in_its_coding() {
        let coded = |mark: &[u8], unit: fn(u16) -> [u8; 2]| {
            let units = "größe==1.0\r\n".encode_utf16().flat_map(unit);
            mark.iter().copied().chain(units).collect::<Vec<u8>>()
        };
        let little = coded(&[0xff, 0xfe], u16::to_le_bytes);
        assert_eq!(decoded(little.clone()).as_deref(), Ok("größe==1.0\r\n"));
        let big = coded(&[0xfe, 0xff], u16::to_be_bytes);
        assert_eq!(decoded(big).as_deref(), Ok("größe==1.0\r\n"));
        assert_eq!(decoded(little[..little.len() - 1].to_vec()), Err(1));
        assert_eq!(decoded(b"a\n\xff".to_vec()), Err(2));
        assert_eq!(decoded(b"a".to_vec()).as_deref(), Ok("a"));
    }

    #[test]
    fn what_a_requirements_file_includes_is_one_whatever_its_name() {
        let home = tempfile::tempdir().unwrap();
        let file = |name: &str| home.path().join(name);
        std::fs::write(file("dev.txt"), "-r base.txt\n-r \"images of it.txt\"\n").unwrap();
        std::fs::write(file("base.txt"), "demo==1.0\n").unwrap();
        std::fs::write(file("images of it.txt"), "-r dev.txt\njam==1.0\n").unwrap();
        let files = [file("dev.txt")];
        let format = Some(Format::Requirements);
        let sources = read(&files, "", format, "pypi").unwrap();
        let named: Vec<usize> = sources.iter().map(|one| one.lock.items.len()).collect();
        assert_eq!(named, [0, 1, 1]);
        std::fs::rename(file("dev.txt"), file("requirements.txt")).unwrap();
        let files = [file("requirements.txt")];
        std::fs::write(file("images of it.txt"), "jam==1.0\n").unwrap();
        assert_eq!(read(&files, "", None, "pypi").unwrap().len(), 3);
    }
}
