//! What would be answered if the upstream died now.

use serde::Serialize;

use super::view::page;
use crate::pages::RepositoryHead;
use crate::values::{Count, Moment, Share};

/// The page.
#[derive(Debug, Clone, Serialize)]
pub struct Outage {
    /// The repository.
    pub repository: RepositoryHead,
    /// From when on requests count.
    pub since: Moment,
    /// Requests since then.
    pub requests: Count,
    /// Those of them that would not be answered.
    pub missing_requests: Count,
    /// The part that would be.
    pub answered: Option<Share>,
    /// How many paths would not be answered.
    pub missing_paths: Count,
    /// Some of them, those that were asked for most first.
    pub missing: Vec<Missing>,
    /// Where the next page begins; `None`: there is none.
    pub next: Option<String>,
}

impl Outage {
    /// Whether it is one of several upstreams.
    pub fn is_virtual(&self) -> bool {
        self.repository.kind == "virtual"
    }

    /// Whether fetching what is shown may help.
    pub fn may_help(&self) -> bool {
        self.next.is_some() || self.missing.iter().any(Missing::may_come)
    }
}

page!(Outage, "outage.html", crate::Section::Repositories);

/// A path that was asked for and would not be answered.
#[derive(Debug, Clone, Serialize)]
pub struct Missing {
    /// The repository whose upstream has it: of a virtual one's list a member.
    pub repository: String,
    /// The path below the repository.
    pub path: String,
    /// How often it was asked for; 0: not counted.
    pub requests: Count,
    /// The last time.
    pub last: Moment,
    /// Whether clients ask for it with queries alone, which are not shown.
    pub has_query: bool,
    /// Why it is not held, in a word.
    pub why: String,
}

impl Missing {
    /// Whether a job would bring it.
    fn may_come(&self) -> bool {
        !self.has_query && !matches!(&*self.why, "absent" | "passed_through")
    }

    /// The same in words.
    pub fn reason(&self) -> &str {
        match &*self.why {
            "not_kept" => "served and not kept",
            "absent" => "the upstream does not have it",
            "failed" => "the upstream failed",
            "passed_through" => "passed through, never kept",
            "evicted" => "gone to make room",
            "flushed" => "flushed",
            "too_old" => "held, but too old to serve",
            other => other,
        }
    }
}
