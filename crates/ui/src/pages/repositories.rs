//! All repositories in one table.

use serde::Serialize;

use super::view::page;
use crate::values::{Bytes, Count, Share};

/// The list.
#[derive(Debug, Clone, Serialize)]
pub struct Repositories {
    /// Those of this page, sorted by name.
    pub repositories: Vec<RepositoryRow>,
    /// How many there are in all.
    pub repositories_in_all: usize,
    /// Behind which repository the next page begins; `None`: there is none.
    pub next: Option<String>,
}

/// A repository in a table.
#[derive(Debug, Clone, Serialize)]
pub struct RepositoryRow {
    /// Its name.
    pub name: String,
    /// `remote`, `local` or `virtual`.
    pub kind: &'static str,
    /// Its package type.
    pub package: &'static str,
    /// What the operator has written about it.
    pub description: String,
    /// `ok`, `degraded` (some of its upstreams fail), `failing`, `unknown` (not asked yet), `offline` or `not served`.
    pub state: &'static str,
    /// Files held or uploaded; `None` where that is not counted.
    pub files: Option<Count>,
    /// Their bytes.
    pub bytes: Option<Bytes>,
    /// Requests since larder started.
    pub requests: Count,
    /// The part of them that was answered from what is held.
    pub hit_ratio: Option<Share>,
}

impl RepositoryRow {
    /// The class of the mark that shows the state.
    pub fn tone(&self) -> &'static str {
        tone(self.state)
    }
}

/// The class of the mark of a state.
pub(crate) fn tone(state: &str) -> &'static str {
    match state {
        "ok" | "done" | "cached" | "serving" => "good",
        "failing" | "failed" | "unavailable" | "not served" => "bad",
        "degraded" | "offline" | "cancelled" | "skipped" | "warning" => "warn",
        _ => "",
    }
}

page!(
    Repositories,
    "repositories.html",
    crate::Section::Repositories
);
