//! Jobs that fetch many files, and one of them.

use serde::Serialize;

use super::view::page;
use crate::pages::repositories::tone;
use crate::values::{Bytes, Count, Moment, Share};

/// The list.
#[derive(Debug, Clone, Serialize)]
pub struct Jobs {
    /// The latest first.
    pub jobs: Vec<JobSummary>,
    /// Where the next page begins; `None`: there is none.
    pub next: Option<String>,
}

page!(Jobs, "jobs.html", crate::Section::Jobs);

/// A job without its files.
#[derive(Debug, Clone, Serialize)]
pub struct JobSummary {
    /// Its name.
    pub id: String,
    /// The repository.
    pub repository: String,
    /// `queued`, `running`, `done`, `cancelled` or `failed`.
    pub state: String,
    /// Why it has failed.
    pub reason: Option<String>,
    /// When it was made.
    pub created_at: Moment,
    /// When it ended.
    pub ended_at: Option<Moment>,
    /// Files that wait.
    pub queued: Count,
    /// Files that are fetched at present.
    pub running: Count,
    /// Files that are held now.
    pub cached: Count,
    /// Files that were not fetched: for they may not be, or the job was cancelled.
    pub skipped: Count,
    /// Files that could not be fetched.
    pub failed: Count,
}

impl JobSummary {
    /// The class of the mark that shows the state.
    pub fn tone(&self) -> &'static str {
        tone(&self.state)
    }

    /// Whether it can still be cancelled.
    pub fn is_open(&self) -> bool {
        self.ended_at.is_none() && matches!(&*self.state, "queued" | "running")
    }

    /// Files in all.
    pub fn all(&self) -> Count {
        let counts = [
            self.queued,
            self.running,
            self.cached,
            self.skipped,
            self.failed,
        ];
        Count(counts.iter().map(|count| count.0).sum())
    }

    /// Files that are done with.
    pub fn done(&self) -> Count {
        Count(self.cached.0 + self.skipped.0 + self.failed.0)
    }

    /// The part that is done with.
    pub fn share(&self) -> Share {
        Share::of(self.done().0, self.all().0).unwrap_or_default()
    }
}

/// A job with some of its files.
#[derive(Debug, Clone, Serialize)]
pub struct Job {
    /// The job.
    pub job: JobSummary,
    /// Its files in the order of their paths.
    pub items: Vec<JobItem>,
    /// Where the next page begins; `None`: there is none.
    pub next: Option<String>,
}

page!(Job, "job.html", crate::Section::Jobs);

/// A file of a job.
#[derive(Debug, Clone, Serialize)]
pub struct JobItem {
    /// The path below the repository.
    pub path: String,
    /// `queued`, `running`, `cached`, `skipped` or `failed`.
    pub state: String,
    /// Its bytes, where it is held.
    pub bytes: Option<Bytes>,
    /// Why it was skipped, or has failed.
    pub reason: Option<String>,
}

impl JobItem {
    /// The class of the mark that shows the state.
    pub fn tone(&self) -> &'static str {
        tone(&self.state)
    }
}
