//! Search in what is held.

use serde::Serialize;

use super::view::page;
use crate::values::{Bytes, Count, Moment};

/// The page.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Search {
    /// What is searched for; empty: nothing yet.
    pub query: String,
    /// In what: `any`, `prefix`, `name`, `version` or `digest`.
    pub kind: &'static str,
    /// The one repository that is meant; empty: all.
    pub repository: String,
    /// The repositories to choose from, empty where there are too many; in a virtual one what its members hold is searched.
    pub repositories: Vec<String>,
    /// What was found.
    pub hits: Vec<Hit>,
    /// Where the next page begins; `None`: all has been looked at.
    pub next: Option<String>,
    /// Paths that were looked at for this page.
    pub looked_at: Count,
}

page!(Search, "search.html", crate::Section::Search);

/// In what is searched, with its word.
const KINDS: [(&str, &str); 5] = [
    ("any", "anything"),
    ("name", "a part of the path"),
    ("prefix", "the beginning of the path"),
    ("version", "a version"),
    ("digest", "a SHA-256, or its first 8 digits and more"),
];

impl Search {
    /// Whether a digest is searched for, and this is the beginning of none that could be looked for.
    pub fn is_no_digest(&self) -> bool {
        let digits = self.query.trim_start_matches("sha256:");
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        self.kind == "digest" && !(is_hex && (8..=64).contains(&digits.len()))
    }

    /// In what may be searched: its name, its word, and whether it is chosen.
    pub fn kinds(&self) -> [(&'static str, &'static str, bool); 5] {
        KINDS.map(|(kind, word)| (kind, word, kind == self.kind))
    }
}

/// Something that was found.
#[derive(Debug, Clone, Serialize)]
pub struct Hit {
    /// The repository.
    pub repository: String,
    /// The path below it.
    pub path: String,
    /// Bytes; `None` for a name that leads to others' bytes.
    pub size: Option<Bytes>,
    /// SHA-256 of the bytes, in hexadecimal digits.
    pub sha256: Option<String>,
    /// Whether it is the present upstream's copy.
    pub cached: bool,
    /// When these bytes were fetched or uploaded.
    pub cached_at: Moment,
}
