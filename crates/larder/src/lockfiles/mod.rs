//! What lock files name, as pure functions over their text: which files of which project, package, chart or image an installation from
//! them asks for. Knows nothing of larder, and reads no file.
//!
//! | file | knows |
//! |---|---|
//! | `python.rs` | `requirements.txt` |
//! | `python_toml.rs` | `uv.lock`, `pylock.toml`, `poetry.lock`, `pdm.lock` |
//! | `pipfile.rs` | `Pipfile.lock` |
//! | `npm.rs` | `package-lock.json`, `npm-shrinkwrap.json` |
//! | `pnpm.rs` | `pnpm-lock.yaml` |
//! | `bun.rs` | `bun.lock` |
//! | `yarn.rs` | `yarn.lock`, of Yarn 1 and of later ones |
//! | `chart.rs` | `Chart.lock`, `requirements.lock` |
//! | `lists.rs` | lists of images, of URLs and of paths |

#![expect(
    unreachable_pub,
    reason = "the command line is public, and names the formats"
)]

mod bun;
mod chart;
mod lists;
mod npm;
mod pipfile;
mod pnpm;
mod python;
mod python_toml;
mod yarn;

pub(crate) use chart::addresses as chart_addresses;
pub(crate) use lists::{image_path, is_registry};
pub(crate) use python::{includes, is_version, of_file};

use clap::ValueEnum;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// requirements.txt, of pip
    Requirements,
    /// uv.lock
    Uv,
    /// pylock.toml
    Pylock,
    /// poetry.lock
    Poetry,
    /// pdm.lock
    Pdm,
    /// Pipfile.lock, of pipenv
    Pipfile,
    /// package-lock.json or npm-shrinkwrap.json
    Npm,
    /// pnpm-lock.yaml
    Pnpm,
    /// yarn.lock, of any Yarn
    Yarn,
    /// bun.lock, as text
    Bun,
    /// Chart.lock
    Chart,
    /// Names of images, one a line
    Images,
    /// URLs, or paths of the repository, one a line
    Urls,
}

/// Something that a file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// Where it stands; 0 where that is not known.
    pub(crate) line: usize,
    /// What it is.
    pub(crate) wanted: Wanted,
}

/// What is to be held for an installation to succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A file by its URL, or by its path in the repository.
    Place(String),
    /// Files of a version of a Python project: these, or all of them where none is named.
    Project {
        /// As it is written.
        name: String,
        /// As it is written.
        version: String,
        /// What is known of the files.
        files: Vec<FileHint>,
    },
    /// The tarball of a version of an npm package.
    Package {
        /// With its scope.
        name: String,
        /// Exact.
        version: String,
        /// Where it was found when the lock file was written, if that is said: a URL, or a path of the registry.
        url: Option<String>,
    },
    /// A version of a chart.
    Chart {
        /// Its name.
        name: String,
        /// Exact.
        version: String,
        /// The repository that it is from, as it is written.
        repository: String,
    },
    /// An image: `name`, `name:tag` or `name@digest`.
    Image(String),
}

/// What a lock file says of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FileHint {
    /// Where it was found.
    pub(crate) url: Option<String>,
    /// Its SHA-256 in hexadecimal digits.
    pub(crate) sha256: Option<String>,
}

/// Something that is named and cannot come from a repository, or not be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rest {
    /// Where it stands; 0 where that is not known.
    pub(crate) line: usize,
    /// What it is.
    pub(crate) what: String,
    /// Why, as a clause.
    pub(crate) why: String,
    /// Whether an installation will ask the repository for it all the same, so that something is missing.
    pub(crate) is_missing: bool,
}

/// What a file names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lock {
    /// In the order of the file, or of their names.
    pub(crate) items: Vec<Item>,
    /// What is not in it.
    pub(crate) rest: Vec<Rest>,
}

impl Lock {
    fn take(&mut self, line: usize, wanted: Wanted) {
        self.items.push(Item { line, wanted });
    }

    /// Comes from elsewhere: no repository is asked for it.
    fn leave(&mut self, line: usize, what: &str, why: impl Into<String>) {
        self.rest.push(Rest {
            line,
            what: what.to_owned(),
            why: why.into(),
            is_missing: false,
        });
    }

    /// What of it a repository would be asked for is not known.
    fn miss(&mut self, line: usize, what: &str, why: impl Into<String>) {
        self.rest.push(Rest {
            line,
            what: what.to_owned(),
            why: why.into(),
            is_missing: true,
        });
    }
}

/// Why a text is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreadable {
    /// Where; 0 where that is not known, or said in the message.
    pub(crate) line: usize,
    /// What is wrong, for people.
    pub(crate) message: String,
}

impl Unreadable {
    fn at(line: usize, message: impl Into<String>) -> Self {
        Self {
            line,
            message: message.into(),
        }
    }
}

/// The names of the files that are known by them, for people.
pub(crate) const KNOWN: &str = "requirements.txt, uv.lock, pylock.toml, poetry.lock, pdm.lock, Pipfile.lock, package-lock.json, \
    npm-shrinkwrap.json, pnpm-lock.yaml, yarn.lock, bun.lock, Chart.lock, and lists of images (*images*.txt) or URLs (*urls*.txt)";

/// What is said of a file of this name, which cannot be read though its name is known.
pub(crate) fn unreadable_by_name(name: &str) -> Option<&'static str> {
    match name {
        "bun.lockb" => Some(
            "the binary form of Bun's lock file is not read: `bun install --save-text-lockfile` makes a bun.lock",
        ),
        "Pipfile" | "pyproject.toml" | "package.json" | "Chart.yaml" => {
            Some("it names ranges of versions: the lock file that is made from it says which ones")
        }
        _ => None,
    }
}

/// How a file of this name is written; `None` where its name does not tell.
pub(crate) fn format_by_name(name: &str) -> Option<Format> {
    let is_pylock = name == "pylock.toml"
        || name
            .strip_prefix("pylock.")
            .and_then(|rest| rest.strip_suffix(".toml"))
            .is_some_and(|middle| !middle.is_empty() && !middle.contains('.'));
    let is_text = std::path::Path::new(name)
        .extension()
        .is_some_and(|extension| extension == "txt");
    match name {
        "uv.lock" => Some(Format::Uv),
        "poetry.lock" => Some(Format::Poetry),
        "pdm.lock" => Some(Format::Pdm),
        "Pipfile.lock" => Some(Format::Pipfile),
        "bun.lock" => Some(Format::Bun),
        _ if is_pylock => Some(Format::Pylock),
        "package-lock.json" | "npm-shrinkwrap.json" | ".package-lock.json" => Some(Format::Npm),
        "pnpm-lock.yaml" => Some(Format::Pnpm),
        "yarn.lock" => Some(Format::Yarn),
        "Chart.lock" | "requirements.lock" => Some(Format::Chart),
        _ if is_text && name.contains("requirements") => Some(Format::Requirements),
        _ if is_text && name.contains("images") => Some(Format::Images),
        _ if is_text && name.contains("urls") => Some(Format::Urls),
        _ => None,
    }
}

impl Format {
    /// The type of the repositories that hold what it names; `None`: any.
    pub(crate) fn package(self) -> Option<&'static str> {
        match self {
            Self::Requirements
            | Self::Uv
            | Self::Pylock
            | Self::Poetry
            | Self::Pdm
            | Self::Pipfile => Some("pypi"),
            Self::Npm | Self::Pnpm | Self::Yarn | Self::Bun => Some("npm"),
            Self::Chart => Some("helm"),
            Self::Images => Some("docker"),
            Self::Urls => None,
        }
    }

    /// Reads a text; `file` is what it is called in messages.
    ///
    /// # Errors
    /// It is not written so; says where.
    pub(crate) fn read(self, file: &str, text: &str) -> Result<Lock, Unreadable> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        match self {
            Self::Requirements => python::requirements(text),
            Self::Uv => python_toml::uv(text),
            Self::Pylock => python_toml::pylock(text),
            Self::Poetry => python_toml::poetry(text),
            Self::Pdm => python_toml::pdm(text),
            Self::Pipfile => pipfile::pipfile_lock(text),
            Self::Npm => npm::package_lock(text),
            Self::Pnpm => pnpm::pnpm_lock(file, text),
            Self::Yarn => yarn::yarn_lock(file, text),
            Self::Bun => bun::bun_lock(file, text),
            Self::Chart => chart::chart_lock(file, text),
            Self::Images => lists::images(text),
            Self::Urls => lists::urls(text),
        }
    }
}

/// Reads a text in every way that there is.
///
/// # Panics
/// Never, unless something is refused without a reason.
pub(crate) fn read_as_all(text: &str) {
    for format in Format::value_variants() {
        if let Err(unreadable) = format.read("file", text) {
            assert!(!unreadable.message.is_empty(), "refused without a reason");
        }
    }
    let _ = includes(text);
    let _ = chart_addresses(text, "demo", "1.0.0");
}

fn is_web(url: &str) -> bool {
    url.starts_with("https://") || url.starts_with("http://")
}

/// What of a line is before its comment, which begins with a `#` at the line's beginning or behind a blank.
fn before_comment(line: &str) -> &str {
    let mut previous = ' ';
    for (at, c) in line.char_indices() {
        if c == '#' && previous.is_whitespace() {
            return &line[..at];
        }
        previous = c;
    }
    line
}

/// The line of a byte of a text, from 1.
fn line_at(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or(text);
    1 + before.matches('\n').count()
}

#[cfg(test)]
mod tests;
