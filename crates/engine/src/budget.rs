//! Bounds that protect the process, and what the engine leases of what is scarce.

use std::time::Duration;

pub(crate) use larder_budget::{BudgetKind, Budgets, Lease, Refused, Usage};

/// How many files of derived documents stay open, where descriptors are plenty: what the budget of derivations has room for.
pub const MOST_DERIVED_FILES: usize = 2_048;

/// Bounds that protect the process, beside those of what is leased.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest document (index, packument) that is rewritten, in bytes.
    pub document_size: u64,
    /// Files of derived documents that stay open.
    pub derived_files: usize,
    /// Bytes of memory a download may hold for its readers when the disk cannot take it.
    pub ring_bytes: usize,
    /// How long the first byte of a large body waits for its digest, where another mirror could be asked for the right body.
    pub held_back: Duration,
    /// Bytes that are kept at most, but for uploaded files; `None`: as much as there is room for.
    pub disk: Option<u64>,
    /// Whether what is kept is brought within its bounds behind the scenes, and deletions are gone on with that others have begun. Where it
    /// is not, room is made only for what comes.
    pub keeps_up: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            document_size: 256 << 20,
            derived_files: MOST_DERIVED_FILES,
            ring_bytes: 4 << 20,
            held_back: Duration::from_secs(2),
            disk: None,
            keeps_up: true,
        }
    }
}
