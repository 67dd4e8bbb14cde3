//! `requirements.txt` of pip, and the names of Python's files.

use super::{FileHint, Lock, Unreadable, Wanted, before_comment, is_web};

/// The logical lines of a file: with those that a backslash continues, without comments, each with the number of its first line.
fn logical(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in text.lines().enumerate() {
        // A comment ends where its line does, whatever is at its end.
        let bare = before_comment(line);
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

/// The words of options, as a shell takes them apart.
fn shell_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The value of the first of these options that is among the words.
fn option<'w>(words: &'w [String], names: &[&str]) -> Option<&'w str> {
    let value = |at: usize, name: &&str| {
        let rest = words.get(at)?.strip_prefix(name)?;
        let value = match rest {
            "" => words.get(at + 1)?,
            _ if name.starts_with("--") => rest.strip_prefix('=')?,
            _ => rest,
        };
        Some(value).filter(|value| !value.is_empty())
    };
    (0..words.len()).find_map(|at| names.iter().find_map(|name| value(at, name)))
}

/// What a line of options includes.
fn included(words: &[String]) -> Option<&str> {
    option(words, &["--requirement", "-r"])
}

fn can_be_fetched(place: &str) -> bool {
    is_web(place) && url::Url::parse(place).is_ok()
}

/// The files and addresses that a requirements file includes (`-r`), with the lines where it says so.
pub(crate) fn includes(text: &str) -> Vec<(usize, String)> {
    let lines = logical(text.trim_start_matches('\u{feff}')).into_iter();
    let options = lines.filter(|(_, line)| line.starts_with('-'));
    options
        .filter_map(|(number, line)| Some((number, included(&shell_words(&line))?.to_owned())))
        .filter(|(_, place)| can_be_fetched(place) || !place.contains("://"))
        .collect()
}

pub(super) fn requirements(text: &str) -> Result<Lock, Unreadable> {
    let mut lock = Lock::default();
    for (number, line) in logical(text) {
        if !line.starts_with('-') {
            requirement(number, &line, &mut lock)?;
            continue;
        }
        let words = shell_words(&line);
        if option(&words, &["--editable", "-e"]).is_some() {
            lock.leave(
                number,
                &line,
                "it is a folder or comes from Git, not of an index",
            );
        } else if let Some(url) =
            included(&words).filter(|place| place.contains("://") && !can_be_fetched(place))
        {
            let why =
                "only http and https are asked for what is included: fetch it, and name the file";
            lock.miss(number, url, why);
        }
    }
    Ok(lock)
}

fn requirement(number: usize, line: &str, lock: &mut Lock) -> Result<(), Unreadable> {
    let (written, options) = apart(line);
    let hashes = hashes(number, options)?;
    if is_web(written) {
        by_url(number, written, lock);
        return Ok(());
    }
    let (name, rest) = named(written);
    if let Some(url) = rest.strip_prefix('@') {
        by_url(number, url, lock);
        return Ok(());
    }
    let requirement = before_marker(written);
    let archives = [".whl", ".zip", ".tar.gz"];
    let is_path = requirement.contains('/')
        || requirement.starts_with('.')
        || archives.iter().any(|ending| requirement.ends_with(ending));
    if is_path {
        let why = "it is a file or folder, not of an index";
        lock.leave(number, requirement, why);
        return Ok(());
    }
    let specifiers = before_marker(rest);
    let is_right = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && (specifiers.is_empty() || specifiers.starts_with(['=', '<', '>', '~', '!', '(']));
    if !is_right {
        let shown: String = line.chars().take(80).collect();
        let message = format!("{shown:?} is no requirement; it looks like name==1.0");
        return Err(Unreadable::at(number, message));
    }
    if let Some(version) = pinned(specifiers) {
        let wanted = Wanted::Project {
            name: name.to_owned(),
            version: version.to_owned(),
            files: hashes,
        };
        lock.take(number, wanted);
    } else {
        let why = "it is not pinned to one version with ==";
        lock.miss(number, requirement, why);
    }
    Ok(())
}

/// A requirement and the options behind it: these begin with the first word that begins with a dash.
fn apart(line: &str) -> (&str, &str) {
    let begins_word = |at: &usize| line[..*at].ends_with(char::is_whitespace);
    let mut dashes = line.match_indices('-').map(|(at, _)| at);
    let (written, options) = line.split_at(dashes.find(begins_word).unwrap_or(line.len()));
    (written.trim(), options)
}

/// What is behind a semicolon says where it applies: all that could apply is taken.
fn before_marker(text: &str) -> &str {
    text.split(';').next().unwrap_or_default().trim()
}

/// The name that a requirement begins with, and what follows it and its extras.
fn named(written: &str) -> (&str, &str) {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let end = written.find(|c| !is_of_name(c)).unwrap_or(written.len());
    let (name, rest) = written.split_at(end);
    let rest = match rest.trim_start().strip_prefix('[') {
        Some(extras) => extras.split_once(']').map_or("", |(_, rest)| rest),
        None => rest,
    };
    (name, rest.trim_start())
}

/// The one version that specifiers admit by `==`; what else they say was true of it.
fn pinned(specifiers: &str) -> Option<&str> {
    let specifiers = specifiers.trim_start_matches('(').trim_end_matches(')');
    specifiers.split(',').find_map(|one| {
        let one = one.trim();
        let version = one.strip_prefix("===").or(one.strip_prefix("=="))?.trim();
        (!version.is_empty() && !version.contains(['*', ' '])).then_some(version)
    })
}

/// The digests among the options of a requirement.
fn hashes(number: usize, options: &str) -> Result<Vec<FileHint>, Unreadable> {
    let mut hashes = Vec::new();
    let mut words = shell_words(options).into_iter();
    while let Some(word) = words.next() {
        let hash = match word.strip_prefix("--hash") {
            Some("") => words.next(),
            Some(rest) => rest.strip_prefix('=').map(str::to_owned),
            None => None,
        };
        if let Some(hash) = hash {
            hashes.extend(digest(number, &hash)?);
        }
    }
    Ok(hashes)
}

/// By a URL, which ends where a blank is; what is behind that says where it applies.
fn by_url(number: usize, written: &str, lock: &mut Lock) {
    let url = written.split_whitespace().next().unwrap_or_default();
    let url = url.trim_end_matches(';');
    if is_web(url) {
        let url = url.split('#').next().unwrap_or(url);
        lock.take(number, Wanted::Place(url.to_owned()));
    } else {
        let why = "it comes from Git or a folder, not from an index";
        lock.leave(number, url, why);
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

/// Whether `==` with the version `pinned` takes what is of the version `found` (PEP 440): all spellings of a version are one, and `pinned`
/// without a local version takes any.
pub(crate) fn is_version(found: &str, pinned: &str) -> bool {
    let (found, pinned) = (normal_version(found), normal_version(pinned));
    found.0 == pinned.0 && (pinned.1.is_empty() || found.1 == pinned.1)
}

/// The public version and the local one, each as all its spellings are written.
fn normal_version(version: &str) -> (String, String) {
    let lower = version.trim().to_ascii_lowercase();
    let lower = lower.strip_prefix('v').unwrap_or(&lower);
    let (public, local) = lower.split_once('+').unwrap_or((lower, ""));
    let (epoch, public) = public.split_once('!').unwrap_or(("0", public));
    let end = public.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (release, rest) = public.split_at(end.unwrap_or(public.len()));
    let parts = release.split('.').filter(|part| !part.is_empty());
    let mut numbers: Vec<&str> = parts.map(number).collect();
    while numbers.last() == Some(&"0") {
        numbers.pop();
    }
    let normal = format!("{}!{}{}", number(epoch), numbers.join("."), suffixes(rest));
    (normal, local.replace(['-', '_'], "."))
}

/// Without zeros in front.
fn number(digits: &str) -> &str {
    match digits.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    }
}

/// What follows the release: `-RC.1`, `c1` and `pre1` are `rc1`; `-1` and `.rev1` are `post1`.
fn suffixes(mut rest: &str) -> String {
    const SEPARATORS: [char; 3] = ['-', '_', '.'];
    let mut normal = String::new();
    loop {
        rest = rest.trim_start_matches(SEPARATORS);
        let Some(first) = rest.chars().next() else {
            return normal;
        };
        if !first.is_ascii_alphanumeric() {
            normal.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let end = rest.find(|c: char| !c.is_ascii_alphabetic());
        let (letters, behind) = rest.split_at(end.unwrap_or(rest.len()));
        let behind = behind.trim_start_matches(SEPARATORS);
        let end = behind.find(|c: char| !c.is_ascii_digit());
        let (digits, behind) = behind.split_at(end.unwrap_or(behind.len()));
        normal.push_str(match letters {
            "alpha" => "a",
            "beta" => "b",
            "c" | "pre" | "preview" => "rc",
            "" | "r" | "rev" => "post",
            other => other,
        });
        normal.push_str(number(digits));
        rest = behind;
    }
}
