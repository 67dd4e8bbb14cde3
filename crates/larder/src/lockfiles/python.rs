//! `requirements.txt` of pip, and the names of Python's files.

use super::{FileHint, Lock, Unreadable, Wanted};

/// The logical lines of a file: with those that a backslash continues, without comments, each with the number of its first line.
fn logical(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in text.lines().enumerate() {
        // A comment ends where its line does, whatever is at its end.
        let is_comment = line.trim_start().starts_with('#');
        let bare = if is_comment {
            ""
        } else {
            line.find(" #").map_or(line, |at| &line[..at])
        };
        let (text, goes_on) = match bare.trim_end().strip_suffix('\\') {
            Some(text) => (text, true),
            None => (bare, false),
        };
        let (first, mut joined) = open.take().unwrap_or((number + 1, String::new()));
        joined.push_str(text);
        joined.push(' ');
        if goes_on {
            open = Some((first, joined));
        } else {
            found.push((first, joined));
        }
    }
    found.extend(open);
    found.retain(|(_, line)| !line.trim().is_empty());
    for (_, line) in &mut found {
        line.truncate(line.trim_end().len());
        let blank = line.len() - line.trim_start().len();
        line.drain(..blank);
    }
    found
}

/// The value of one of these options, if the line is that.
fn option<'l>(line: &'l str, names: &[&str]) -> Option<&'l str> {
    names.iter().find_map(|name| {
        let rest = line.strip_prefix(name)?;
        let is_short = !name.starts_with("--");
        let value = match rest.chars().next() {
            Some('=') if !is_short => &rest[1..],
            Some(' ' | '\t') => rest,
            Some(_) if is_short => rest,
            _ => return None,
        };
        Some(value.trim()).filter(|value| !value.is_empty())
    })
}

/// The files that a requirements file includes (`-r`), with the lines where it says so.
pub(crate) fn includes(text: &str) -> Vec<(usize, String)> {
    let lines = logical(text).into_iter();
    lines
        .filter_map(|(number, line)| {
            let included = option(&line, &["--requirement", "-r"])?;
            Some((number, included.to_owned()))
        })
        .collect()
}

pub(super) fn requirements(text: &str) -> Result<Lock, Unreadable> {
    let mut lock = Lock::default();
    for (number, line) in logical(text) {
        if option(&line, &["--editable", "-e"]).is_some() {
            lock.leave(number, &line, "it is a folder, not of an index");
        } else if !line.starts_with('-') {
            requirement(number, &line, &mut lock)?;
        }
    }
    Ok(lock)
}

fn requirement(number: usize, line: &str, lock: &mut Lock) -> Result<(), Unreadable> {
    let (written, hashes) = words(number, line)?;
    // What is behind a semicolon says where it applies: all that could apply is taken.
    let requirement = match written.split_once(" @ ") {
        Some((_, url)) => {
            let url = url.split(" ;").next().unwrap_or(url).trim();
            by_url(number, url, lock);
            return Ok(());
        }
        None => written.split(';').next().unwrap_or_default().trim(),
    };
    if requirement.starts_with("http://") || requirement.starts_with("https://") {
        by_url(number, requirement, lock);
        return Ok(());
    }
    let name_end = requirement
        .find(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c)))
        .unwrap_or(requirement.len());
    let (name, rest) = requirement.split_at(name_end);
    let is_path = requirement.contains('/') || requirement.starts_with('.');
    if is_path {
        lock.leave(
            number,
            requirement,
            "it is a file or folder, not of an index",
        );
        return Ok(());
    }
    let extras = rest.trim_start();
    let rest = match extras.strip_prefix('[') {
        Some(inside) => inside.split_once(']').map_or("", |(_, rest)| rest),
        None => extras,
    };
    let rest = rest.trim();
    let is_right = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && (rest.is_empty() || rest.starts_with(['=', '<', '>', '~', '!', '(']));
    if !is_right {
        let shown: String = line.chars().take(80).collect();
        let message = format!("{shown:?} is no requirement; it looks like name==1.0");
        return Err(Unreadable::at(number, message));
    }
    let version = rest.trim_start_matches('(').trim_end_matches(')');
    let version = version.strip_prefix("===").or(version.strip_prefix("=="));
    match version.map(str::trim) {
        Some(version) if !version.is_empty() && !version.contains(['*', ',', ' ']) => {
            let wanted = Wanted::Project {
                name: name.to_owned(),
                version: version.to_owned(),
                files: hashes,
            };
            lock.take(number, wanted);
        }
        _ => lock.miss(
            number,
            requirement,
            "it is not pinned to one version with ==",
        ),
    }
    Ok(())
}

/// What of a line is the requirement, and the digests behind it.
fn words(number: usize, line: &str) -> Result<(String, Vec<FileHint>), Unreadable> {
    let mut words = line.split_whitespace();
    let mut written = Vec::new();
    let mut hashes = Vec::new();
    while let Some(word) = words.next() {
        let hash = match word.strip_prefix("--hash") {
            Some("") => words.next(),
            Some(rest) => rest.strip_prefix('='),
            None => None,
        };
        match hash {
            Some(hash) => hashes.extend(digest(number, hash)?),
            None if word.starts_with("--") => {}
            None => written.push(word),
        }
    }
    Ok((written.join(" "), hashes))
}

fn by_url(number: usize, url: &str, lock: &mut Lock) {
    if url.starts_with("http://") || url.starts_with("https://") {
        let url = url.split('#').next().unwrap_or(url);
        lock.take(number, Wanted::Place(url.to_owned()));
    } else {
        lock.leave(
            number,
            url,
            "it comes from Git or a folder, not from an index",
        );
    }
}

/// The SHA-256 of an option; nothing of another algorithm, whose digests an offer does not state.
fn digest(number: usize, hash: &str) -> Result<Option<FileHint>, Unreadable> {
    let (algorithm, hex) = hash.split_once(':').unwrap_or(("", ""));
    if algorithm.is_empty() || hex.is_empty() || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        let shown: String = hash.chars().take(80).collect();
        let message = format!("--hash={shown} is no digest; it looks like --hash=sha256:0123…");
        return Err(Unreadable::at(number, message));
    }
    Ok((algorithm == "sha256").then(|| FileHint {
        url: None,
        sha256: Some(hex.to_ascii_lowercase()),
    }))
}

/// What the name of a file says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FileOf<'f> {
    /// Whose it is, as it is written there.
    pub(crate) project: &'f str,
    /// Of which version, as it is written there.
    pub(crate) version: &'f str,
}

/// Whose file this is, by its name: of a wheel, a source distribution or an old binary; `None` if it is none of these.
pub(crate) fn of_file<'f>(file: &'f str, project: &str) -> Option<FileOf<'f>> {
    let wheel = file.strip_suffix(".whl").or(file.strip_suffix(".egg"));
    if let Some(wheel) = wheel {
        let (project, rest) = wheel.split_once('-')?;
        let version = rest.split('-').next().unwrap_or(rest);
        return Some(FileOf { project, version });
    }
    let endings = [".tar.gz", ".zip", ".tar.bz2", ".tar.xz", ".tgz", ".tar"];
    let stem = endings.iter().find_map(|end| file.strip_suffix(end))?;
    // A name may have dashes, and a version too: what is before one of them is the project.
    let mut dashes = stem.match_indices('-').map(|(at, _)| at);
    let at = dashes.find(|at| normal_name(&stem[..*at]) == normal_name(project))?;
    Some(FileOf {
        project: &stem[..at],
        version: &stem[at + 1..],
    })
}

/// PEP 503.
fn normal_name(name: &str) -> String {
    let mut normal = String::with_capacity(name.len());
    for c in name.chars() {
        if !"-_.".contains(c) {
            normal.push(c.to_ascii_lowercase());
        } else if !normal.ends_with('-') {
            normal.push('-');
        }
    }
    normal
}

/// Whether two spellings are one version, as far as PEP 440 lets one tell without an order: letters of either case, `v` before it,
/// separators, long forms of its parts, zeros at the end of the release.
pub(crate) fn same_version(one: &str, other: &str) -> bool {
    normal_version(one) == normal_version(other)
}

fn normal_version(version: &str) -> String {
    let lower = version.trim().to_ascii_lowercase();
    let lower = lower.strip_prefix('v').unwrap_or(&lower);
    let lower = lower.strip_prefix("0!").unwrap_or(lower);
    let (public, local) = lower.split_once('+').unwrap_or((lower, ""));
    let end = public.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (release, rest) = public.split_at(end.unwrap_or(public.len()));
    let mut numbers: Vec<&str> = release
        .split('.')
        .filter(|part| !part.is_empty())
        .map(|part| part.trim_start_matches('0'))
        .collect();
    while numbers.last().is_some_and(|last| last.is_empty()) {
        numbers.pop();
    }
    let numbers: Vec<&str> = numbers
        .iter()
        .map(|part| if part.is_empty() { "0" } else { part })
        .collect();
    let mut rest: String = rest.chars().filter(|c| !"-_.".contains(*c)).collect();
    for (long, short) in [
        ("alpha", "a"),
        ("beta", "b"),
        ("preview", "rc"),
        ("rev", "post"),
    ] {
        rest = rest.replace(long, short);
    }
    if let Some(number) = rest.strip_prefix('c') {
        rest = format!("rc{number}");
    }
    let local = local.replace(['-', '_'], ".");
    format!("{}|{rest}|{local}", numbers.join("."))
}
