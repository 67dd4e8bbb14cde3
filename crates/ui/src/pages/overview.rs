//! How everything does, on one page.

use serde::Serialize;

use super::view::page;
use crate::pages::repositories::RepositoryRow;
use crate::pages::trends::Trends;
use crate::values::{Bytes, Count, Moment, Share, Span};

/// The page.
#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    /// Whether this node can serve.
    pub serving: bool,
    /// When it was started.
    pub started: Moment,
    /// The numbers that move while one looks.
    pub live: Live,
    /// How many replicas there are, this one included.
    pub replicas: usize,
    /// Files that are held in all.
    pub files: Count,
    /// Their bytes, those that several names have counted with each.
    pub bytes: Bytes,
    /// The room there is.
    pub disk: Option<Disk>,
    /// The same numbers over time; `None`: not recorded yet.
    pub trends: Option<Trends>,
    /// What an operator should see to, what concerns all first.
    pub problems: Vec<Problem>,
    /// How many there are in all.
    pub problems_in_all: usize,
    /// What upstreams that count requests still allow, those with the least first.
    pub allowances: Vec<Allowance>,
    /// Downloads that are running.
    pub flights: Vec<Flight>,
    /// The last errors, latest first; `None`: not recorded.
    pub errors: Option<Vec<RecentError>>,
    /// The repositories that are asked most.
    pub repositories: Vec<RepositoryRow>,
    /// How many there are in all.
    pub repositories_in_all: usize,
}

page!(Overview, "overview.html", crate::Section::Overview);

/// The numbers that move.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Live {
    /// Downloads that are running.
    pub flights: Count,
    /// Requests since the start.
    pub requests: Count,
    /// The part of them that was answered from what is held.
    pub hit_ratio: Option<Share>,
    /// Bytes sent to clients since the start.
    pub sent: Bytes,
    /// Bytes fetched from upstreams since the start.
    pub fetched: Bytes,
}

impl Live {
    /// The texts by the names of the elements that show them: what the event stream carries.
    pub fn texts(&self) -> [(&'static str, String); 5] {
        [
            ("flights", self.flights.to_string()),
            ("requests", self.requests.to_string()),
            ("hit_ratio", self.hit_ratio()),
            ("sent", self.sent.to_string()),
            ("fetched", self.fetched.to_string()),
        ]
    }

    /// The hit ratio as it is shown.
    pub fn hit_ratio(&self) -> String {
        let ratio = self.hit_ratio.map(|ratio| ratio.to_string());
        ratio.unwrap_or_else(|| "-".to_owned())
    }
}

/// Room in the file system of the data, or in the store.
#[derive(Debug, Clone, Serialize)]
pub struct Disk {
    /// Bytes that are free.
    pub free: Bytes,
    /// Bytes in all.
    pub total: Bytes,
    /// With less than this free, nothing more is kept.
    pub reserve: Bytes,
    /// Whether downloads are kept.
    pub keeping: bool,
    /// Bytes that larder may keep, where that is bounded.
    pub limit: Option<Bytes>,
    /// Bytes of those that it does.
    pub kept: Option<Bytes>,
    /// In how many days the room ends if it goes on like this; `None`: that is not in sight.
    pub full_in_days: Option<u64>,
}

/// Something that an operator should see to.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    /// What it is about.
    pub what: String,
    /// A sentence.
    pub message: String,
    /// The repository, if it is one's.
    pub repository: Option<String>,
    /// Since when, or when last.
    pub at: Option<Moment>,
}

/// What an upstream that counts requests said last.
#[derive(Debug, Clone, Serialize)]
pub struct Allowance {
    /// The repository.
    pub repository: String,
    /// How many it allows in its present window.
    pub limit: Option<Count>,
    /// How many are left of them.
    pub left: Option<Count>,
    /// For how long it wants to be left alone.
    pub retry_in: Option<Span>,
}

/// A download that is running.
#[derive(Debug, Clone, Serialize)]
pub struct Flight {
    /// The repository.
    pub repository: String,
    /// The path below it.
    pub path: String,
    /// Bytes that have arrived.
    pub bytes: Bytes,
    /// Bytes in all, where that is known.
    pub total: Option<Bytes>,
    /// When it began.
    pub started: Moment,
    /// How many are reading it.
    pub readers: Count,
}

/// An error of the last time.
#[derive(Debug, Clone, Serialize)]
pub struct RecentError {
    /// When it was.
    pub at: Moment,
    /// The repository.
    pub repository: String,
    /// The path below it.
    pub path: String,
    /// The stable word for it.
    pub code: String,
    /// A sentence.
    pub message: String,
    /// The request, as the log names it.
    pub request_id: String,
    /// How often in a row.
    pub times: Count,
}
