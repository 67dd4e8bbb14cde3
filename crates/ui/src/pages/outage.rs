//! What would be answered if the upstream died now.

use serde::Serialize;

use crate::page::page;
use crate::pages::RepositoryHead;
use crate::values::{Count, Moment, Share};

/// The page.
#[derive(Debug, Clone, Serialize)]
pub struct Outage {
    /// The repository.
    pub repository: RepositoryHead,
    /// Whether this is recorded.
    pub recorded: bool,
    /// Requests of the last 30 days.
    pub requests: Count,
    /// The part of them that would be answered.
    pub answered: Option<Share>,
    /// Paths that would not be answered, those that were asked for most first.
    pub missing: Vec<Missing>,
    /// Where the next page begins; `None`: there is none.
    pub next: Option<String>,
}

page!(Outage, "outage.html", crate::Section::Repositories);

/// A path that was asked for and would not be answered.
#[derive(Debug, Clone, Serialize)]
pub struct Missing {
    /// The path below the repository.
    pub path: String,
    /// How often it was asked for.
    pub requests: Count,
    /// The last time.
    pub last: Moment,
}
