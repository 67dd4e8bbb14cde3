//! How much is to go where room is made, how much has gone, and when it is left at that.

use std::time::Duration;

use larder_storage::{MetadataStore, StorageError, StorageErrorKind};

use super::bounds::Eviction;

/// So many records may go one after the other without a file of theirs that could be deleted: then it is not a few files that cannot be.
const MOST_IN_VAIN: u64 = 64;
/// How long it is left at what is held then.
const AFTER_VAIN: Duration = Duration::from_mins(1);

/// What went.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Gone {
    pub(super) records: u64,
    /// Of those records.
    pub(super) bytes: u64,
    /// Of files that were deleted.
    pub(super) freed: u64,
    /// Whether time was up before it was enough.
    pub(super) is_late: bool,
}

impl Gone {
    pub(super) fn add(&mut self, more: Self) {
        self.records += more.records;
        self.bytes += more.bytes;
        self.freed += more.freed;
        self.is_late |= more.is_late;
    }
}

/// Bytes that are to go.
#[derive(Debug, Clone, Copy)]
pub(super) enum Goal {
    /// Of files.
    Files(u64),
    /// Of what records name.
    Records(u64),
}

impl Goal {
    pub(super) fn left(self, gone: Gone) -> u64 {
        match self {
            Self::Files(bytes) => bytes.saturating_sub(gone.freed),
            Self::Records(bytes) => bytes.saturating_sub(gone.bytes),
        }
    }
}

/// Records that go though their files cannot be deleted.
pub(super) struct Vain<'e> {
    eviction: &'e Eviction,
    metadata: &'e MetadataStore,
    goal: Goal,
    /// Files that could not be deleted when that was looked at last.
    undeleted: u64,
    /// Records that had gone when a file was deleted last.
    since: u64,
}

impl<'e> Vain<'e> {
    /// Fails where hardly any files could be deleted a short while ago.
    pub(super) fn begin(
        eviction: &'e Eviction,
        metadata: &'e MetadataStore,
        goal: Goal,
    ) -> Result<Self, StorageError> {
        let undeleted = metadata.undeleted();
        if matches!(goal, Goal::Files(_)) && eviction.was_in_vain(AFTER_VAIN) {
            return Err(in_vain(undeleted.why));
        }
        Ok(Self {
            eviction,
            metadata,
            goal,
            undeleted: undeleted.blobs,
            since: 0,
        })
    }

    /// So many bytes of files have gone with the last records, and so many records in all.
    pub(super) fn note(&mut self, freed: u64, records: u64) -> Result<(), StorageError> {
        let undeleted = self.metadata.undeleted();
        if freed > 0 || undeleted.blobs <= self.undeleted {
            self.since = records;
        }
        self.undeleted = undeleted.blobs;
        let is_in_vain = records - self.since >= MOST_IN_VAIN;
        if is_in_vain && matches!(self.goal, Goal::Files(_)) {
            self.eviction.note_in_vain();
            return Err(in_vain(undeleted.why));
        }
        Ok(())
    }
}

fn in_vain(why: Option<String>) -> StorageError {
    let message = why.unwrap_or_else(|| "files of blobs cannot be deleted".to_owned());
    StorageError::new(StorageErrorKind::Io, message)
}
