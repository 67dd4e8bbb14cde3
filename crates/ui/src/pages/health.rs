//! Backends, upstreams and limits.

use serde::Serialize;

use super::view::page;
use crate::pages::overview::Disk;
use crate::pages::repositories::tone;
use crate::pages::repository::Mirror;
use crate::values::{Count, Moment};

/// The page.
#[derive(Debug, Clone, Serialize)]
pub struct Health {
    /// `ok` or `unavailable`.
    pub status: &'static str,
    /// When larder was started.
    pub started: Moment,
    /// Database and store.
    pub backends: Vec<Backend>,
    /// The room there is.
    pub disk: Option<Disk>,
    /// The other replicas; `None` if larder is alone.
    pub cluster: Option<Replicas>,
    /// The places of upstreams, with the repository of each; those that fail first.
    pub upstreams: Vec<UpstreamRow>,
    /// How many there are in all.
    pub upstreams_in_all: usize,
    /// What is scarce, and how much of it is in use.
    pub limits: Vec<Limit>,
    /// Requests that larder has refused or failed, by cause.
    pub refusals: Vec<Refusals>,
    /// The server's certificate.
    pub certificate: Option<Certificate>,
    /// The last reload of the configuration.
    pub reload: Option<Reload>,
}

impl Health {
    /// The class of the mark that shows the status.
    pub fn tone(&self) -> &'static str {
        tone(self.status)
    }
}

page!(Health, "health.html", crate::Section::Health);

/// A place of a repository's upstream.
#[derive(Debug, Clone, Serialize)]
pub struct UpstreamRow {
    /// The repository.
    pub repository: String,
    /// The place.
    #[serde(flatten)]
    pub mirror: Mirror,
}

/// A backend.
#[derive(Debug, Clone, Serialize)]
pub struct Backend {
    /// What it holds.
    pub name: &'static str,
    /// What it is: `sqlite`, `s3`.
    pub kind: &'static str,
    /// `ok` or `unavailable`.
    pub state: &'static str,
    /// A word for people.
    pub detail: Option<String>,
}

impl Backend {
    /// The class of the mark that shows the state.
    pub fn tone(&self) -> &'static str {
        tone(self.state)
    }
}

/// This replica among the others.
#[derive(Debug, Clone, Serialize)]
pub struct Replicas {
    /// What they share beside the database.
    pub shared: Backend,
    /// The others.
    pub replicas: Vec<Replica>,
    /// What an operator should see to.
    pub alarms: Vec<String>,
}

/// Another replica.
#[derive(Debug, Clone, Serialize)]
pub struct Replica {
    /// Where it is reached.
    pub address: String,
    /// Its version.
    pub version: String,
    /// Whether it has the configuration of this one.
    pub same_configuration: bool,
    /// By how much its clock differs, in milliseconds.
    pub clock_skew_ms: u64,
}

/// Something scarce.
#[derive(Debug, Clone, Serialize)]
pub struct Limit {
    /// What it is.
    pub name: &'static str,
    /// What is in use.
    pub used: String,
    /// What there is.
    pub limit: String,
    /// How many wait for some.
    pub waiting: Count,
}

/// Refused requests of one cause.
#[derive(Debug, Clone, Serialize)]
pub struct Refusals {
    /// The repository; empty where none was asked.
    pub repository: String,
    /// The stable word for the cause.
    pub code: String,
    /// How many.
    pub count: Count,
}

/// The server's certificate.
#[derive(Debug, Clone, Serialize)]
pub struct Certificate {
    /// When it expires.
    pub not_after: Moment,
    /// For which names it is.
    pub names: Vec<String>,
}

/// A reload of the configuration.
#[derive(Debug, Clone, Serialize)]
pub struct Reload {
    /// When it was.
    pub at: Moment,
    /// What was wrong; `None` if the new configuration is in force.
    pub error: Option<String>,
    /// What changed.
    pub changed: Vec<String>,
    /// Top-level keys whose present values take effect only when larder is started again.
    pub waiting: Vec<String>,
}
