//! The files that are named on the command line, and what they include.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use larder_core::SafeUrl;
use larder_upstream::{Asked, Asker};
use url::Url;

use crate::lockfiles::{
    Format, KNOWN, Lock, Rest, Unreadable, format_by_name, includes, unreadable_by_name,
};

use super::Failure;

/// The largest file that is read, in bytes.
const MOST: u64 = 64 << 20;
/// Files that one may include, in all.
const MOST_FILES: usize = 1_000;
/// A web address may lead to another one, but not for ever.
const MOST_REDIRECTS: usize = 5;

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

/// Where a text is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    File(PathBuf),
    /// Included by a requirements file.
    Web(Url),
}

impl At {
    /// What it is called in messages.
    fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Web(url) => SafeUrl(url.clone()).to_string(),
        }
    }

    /// What `included` means in a text that is here, as pip takes it.
    fn beside(&self, included: &str) -> Option<Self> {
        match self {
            Self::Web(url) => url.join(included).ok().map(Self::Web),
            Self::File(_) if included.contains("://") => Url::parse(included).ok().map(Self::Web),
            Self::File(path) => {
                let folder = path.parent().unwrap_or(Path::new(""));
                Some(Self::File(folder.join(included)))
            }
        }
    }
}

/// What is still to be read.
struct Open {
    at: At,
    format: Option<Format>,
    /// The source that includes it, by its place among them, and in which line.
    by: Option<(usize, usize)>,
}

/// Reads the files; `input` is what came on standard input, `package` the type of the repository that they are for. `fetch` gets what
/// requirements files include by URLs, or says why it cannot.
///
/// # Errors
/// One cannot be read, or is not what it should be: the command is misused.
pub(super) async fn read(
    files: &[PathBuf],
    input: &str,
    format: Option<Format>,
    package: &str,
    fetch: impl AsyncFn(Url) -> Result<Vec<u8>, String>,
) -> Result<Vec<Source>, Failure> {
    let mut sources: Vec<Source> = Vec::new();
    let named = files.iter().rev().map(|path| Open {
        at: At::File(path.clone()),
        format,
        by: None,
    });
    let mut open: Vec<Open> = named.collect();
    let mut seen: Vec<At> = Vec::new();
    while let Some(Open { at, format, by }) = open.pop() {
        if seen.contains(&at) {
            continue;
        }
        seen.push(at.clone());
        if seen.len() > MOST_FILES {
            return Err(Failure::misused(format!(
                "more than {MOST_FILES} files include each other"
            )));
        }
        let name = at.name();
        let text = match &at {
            At::File(path) if path.as_os_str() == "-" => input.to_owned(),
            At::File(path) => text_of(path)?,
            At::Web(url) => match fetch(url.clone()).await {
                Ok(bytes) => decoded(bytes).map_err(|line| no_text(&name, line))?,
                Err(why) => {
                    lack(&mut sources, by, name, why);
                    continue;
                }
            },
        };
        let format = match (&at, format) {
            (_, Some(format)) => format,
            (At::Web(_), None) => Format::Requirements,
            (At::File(path), None) => format_of(path, package)?,
        };
        if format == Format::Requirements {
            let own = sources.len();
            // Whatever their names are.
            let included = includes(&text).into_iter().filter_map(|(line, place)| {
                Some(Open {
                    at: at.beside(&place)?,
                    format: Some(format),
                    by: Some((own, line)),
                })
            });
            open.extend(included);
        }
        let lock = format
            .read(&name, &text)
            .map_err(|unreadable| misread(&name, &unreadable))?;
        sources.push(Source { name, format, lock });
    }
    Ok(sources)
}

/// Says of what is included that it cannot be had.
fn lack(sources: &mut [Source], by: Option<(usize, usize)>, what: String, why: String) {
    if let Some((source, line)) = by.and_then(|(own, line)| Some((sources.get_mut(own)?, line))) {
        source.lock.rest.push(Rest {
            line,
            what,
            why,
            is_missing: true,
        });
    }
}

/// How a file is written by its name, or else by what the repository holds.
fn format_of(path: &Path, package: &str) -> Result<Format, Failure> {
    let by_name = path
        .file_name()
        .and_then(|name| format_by_name(&name.to_string_lossy()));
    let by_package = match package {
        "docker" => Some(Format::Images),
        "generic" | "rpm" | "alpine" => Some(Format::Urls),
        _ => None,
    };
    by_name.or(by_package).ok_or_else(|| unknown(path))
}

/// A text of the web. No token is shown there.
///
/// # Errors
/// Why it cannot be had, as a clause.
pub(super) async fn fetched(mut url: Url) -> Result<Vec<u8>, String> {
    for _ in 0..=MOST_REDIRECTS {
        let asker = Asker::new(&url).map_err(|error| error.to_string())?;
        let get = "GET".parse().unwrap_or_default();
        let answer = asker.send(get, url.clone(), None, &[], None).await;
        let answer = answer.map_err(|error| format!("it cannot be fetched: {error}"))?;
        match answer.status() {
            200 => return bounded(answer).await,
            301 | 302 | 303 | 307 | 308 => {
                let next = answer.header("location");
                let next = next.and_then(|next| url.join(next).ok());
                let next =
                    next.filter(|next| next.scheme() == "https" || next.scheme() == url.scheme());
                url = next.ok_or("its redirect leads nowhere")?;
            }
            status => return Err(format!("it is answered with {status}")),
        }
    }
    Err("its redirects have no end".to_owned())
}

async fn bounded(mut answer: Asked) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|error| error.to_string())? {
        bytes.extend_from_slice(&piece);
        if bytes.len() as u64 > MOST {
            return Err(too_large());
        }
    }
    Ok(bytes)
}

/// Of a file whose name does not tell how it is written.
fn unknown(path: &Path) -> Failure {
    let name = path.display();
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
        return Err(cannot(&too_large()));
    }
    decoded(bytes).map_err(|line| no_text(&shown.to_string(), line))
}

fn too_large() -> String {
    format!("it is larger than {} MiB", MOST >> 20)
}

fn no_text(name: &str, line: usize) -> Failure {
    Failure::misused(format!("{name}:{line}: no text: it is not in UTF-8"))
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

    #[tokio::test]
    async fn what_a_requirements_file_includes_is_one_whatever_its_name() {
        let nothing =
            async |url: Url| -> Result<Vec<u8>, String> { Err(format!("{url} is not there")) };
        let home = tempfile::tempdir().unwrap();
        let file = |name: &str| home.path().join(name);
        std::fs::write(file("dev.txt"), "-r base.txt\n-r \"images of it.txt\"\n").unwrap();
        std::fs::write(file("base.txt"), "demo==1.0\n").unwrap();
        std::fs::write(file("images of it.txt"), "-r dev.txt\njam==1.0\n").unwrap();
        let files = [file("dev.txt")];
        let format = Some(Format::Requirements);
        let sources = read(&files, "", format, "pypi", &nothing).await.unwrap();
        let named: Vec<usize> = sources.iter().map(|one| one.lock.items.len()).collect();
        assert_eq!(named, [0, 1, 1]);
        std::fs::rename(file("dev.txt"), file("requirements.txt")).unwrap();
        let files = [file("requirements.txt")];
        std::fs::write(file("images of it.txt"), "jam==1.0\n").unwrap();
        let sources = read(&files, "", None, "pypi", &nothing).await;
        assert_eq!(sources.unwrap().len(), 3);
    }

    /// What is included there is beside it, whatever it looks like.
    #[tokio::test]
    async fn what_is_included_by_a_url_is_fetched_or_missing() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("requirements.txt");
        let text = "-r https://u:canary@files.example.com/dir/web.txt?canary\n-r http://files.example.com/none.txt\n";
        std::fs::write(&file, text).unwrap();
        let web = async |url: Url| match url.path() {
            "/dir/web.txt" => Ok(b"-r more.txt\n-r /etc/passwd\none==1.0\n".to_vec()),
            "/dir/more.txt" | "/etc/passwd" => Ok(b"two==1.0\n".to_vec()),
            path => Err(format!("there is no {path}")),
        };
        let sources = read(&[file], "", None, "pypi", web).await.unwrap();
        let mut names: Vec<&str> = sources.iter().map(|source| &*source.name).collect();
        names.sort_unstable();
        let (last, webs) = names.split_last().unwrap();
        assert!(last.starts_with("https://files.example.com/etc/"), "{last}");
        assert!(webs.iter().all(|name| !name.contains("canary")), "{webs:?}");
        let rest: Vec<&Rest> = sources.iter().flat_map(|one| &one.lock.rest).collect();
        let expected = Rest {
            line: 2,
            what: "http://files.example.com/none.txt".to_owned(),
            why: "there is no /none.txt".to_owned(),
            is_missing: true,
        };
        assert_eq!(rest, [&expected]);
        let items = sources.iter().map(|one| one.lock.items.len());
        assert_eq!(items.sum::<usize>(), 3);
    }
}
