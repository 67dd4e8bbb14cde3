//! What is said of an absence that is remembered: the upstream is not asked, and the client is told for how long.

use std::time::Duration;

use larder_core::{ArtifactRecord, Fault, UnixMillis};

use crate::admission::Wanted;
use crate::engine::Engine;
use crate::no_body::passed_on;

/// An absence that still holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remembered {
    /// The upstream's status, 404 or 410.
    pub(crate) status: u16,
    /// When the upstream is asked again; `None`: when the index that the file belongs to is exchanged.
    pub(crate) over: Option<UnixMillis>,
}

impl Remembered {
    /// The absence that a record tells of (that of a generation's companion).
    pub(crate) fn of_record(wanted: &Wanted, status: u16, record: &ArtifactRecord) -> Self {
        Self {
            status,
            over: Some(
                record
                    .contacted_at
                    .plus(wanted.entry.repository.cache.negative_ttl),
            ),
        }
    }
}

impl Engine {
    /// The upstream's 404 once more.
    pub(crate) fn negative_fault(&self, wanted: &Wanted, absence: Remembered) -> Fault {
        let fault = passed_on(wanted, absence.status, None);
        let name = &wanted.entry.repository.name;
        let holds = absence.over.map_or_else(
            || "as long as the index that it belongs to is the same".to_owned(),
            |over| {
                let left = over.since(self.now());
                let seconds =
                    left.as_secs() + u64::from(left > Duration::from_secs(left.as_secs()));
                format!("for {seconds} more seconds (negative_ttl of repository {name})")
            },
        );
        let message = format!(
            "{}; that is remembered {holds}, and a flush forgets it",
            fault.message
        );
        Fault { message, ..fault }
            .by_rule("negative_ttl")
            .upstream_said(format!("{} (remembered)", absence.status))
    }
}
