//! The words for a generation's parts.

use std::sync::Arc;

use crate::catalog::RecordChange;
use crate::target::Target;
use crate::transfer::flight::Settled;

/// A file that is exchanged together with its document.
pub(in crate::origin::remote) type Member = (Arc<Target>, RecordChange);

/// One that has arrived and is not kept yet, to be read.
pub(super) fn as_settled((member, change): &Member) -> Option<(Arc<Target>, Settled)> {
    let RecordChange::Store { record, spool, .. } = change else {
        return None;
    };
    let settled = Settled::of_record(record, spool.body());
    Some((Arc::clone(member), settled))
}

/// Why a generation should not be exchanged for the one before yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::origin::remote) enum Incomplete {
    /// Files of it are missing, or are not what the document states: it may be in the middle of being published.
    MissingFiles,
    /// The one before had a signature, and this one has none, or the same.
    Unsigned,
    /// Nobody answers, or not in time.
    Unreachable,
}

/// What is known of the other files before they are asked for.
#[derive(Debug, Clone, Copy)]
pub(in crate::origin::remote) struct Others {
    /// Whether the document would replace one of another generation.
    pub(super) is_other: bool,
    /// Whether another replica has just exchanged this very generation: what stands in the database is of it.
    pub(super) is_exchanged: bool,
}
