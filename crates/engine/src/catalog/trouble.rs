//! Storage that does not take what it should: what the log says of it, and what `/health` shows.

use std::sync::{Mutex, MutexGuard, PoisonError};

use larder_core::SourceKey;
use larder_storage::StorageError;

use crate::causes::Causes;

/// What has kept downloads from being kept.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    /// What the log has spoken of.
    warned: Causes,
    /// Why the last download could not be written; not for want of room, which is seen anyway.
    unwritten: Mutex<Option<String>>,
}

impl Trouble {
    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.unwritten
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the last download could not be written, if not for want of room.
    pub(crate) fn unwritten(&self) -> Option<String> {
        self.lock().clone()
    }

    fn note_unwritten(&self, error: &StorageError) {
        if !error.is_full() {
            *self.lock() = Some(error.to_string());
        }
    }

    /// A download is kept: whatever was in the way is gone.
    pub(crate) fn note_kept(&self) {
        *self.lock() = None;
    }

    /// The database takes no records, which goes for every download until it does again.
    pub(crate) fn tell_unwritten(&self, error: &StorageError) {
        self.note_unwritten(error);
        if let Some(times) = self.warned.trouble_due("records") {
            tracing::error!(%error, times, "records could not be written; what was downloaded is served but not kept");
        } else {
            tracing::debug!(%error, "records could not be written again");
        }
    }

    /// A download is larger than its bound, or nothing that is kept may go for it.
    pub(crate) fn warn_no_room(&self, key: &SourceKey, bytes: u64) {
        if let Some(times) = self.warned.due("bounded") {
            tracing::warn!(
                %key, bytes, times,
                "a download is served and not kept: `limits.disk` or `max_disk` leaves no room for it; said once an hour, \
                 larder_repository_fills_not_kept_total counts on"
            );
        } else {
            tracing::debug!(%key, bytes, "a download is served and not kept: the bounds leave no room for it");
        }
    }

    /// A download cannot be kept, which may go for all of them.
    pub(crate) fn warn_not_kept(&self, error: &StorageError) {
        self.note_unwritten(error);
        let why = if error.is_full() { "full" } else { "failed" };
        if let Some(times) = self.warned.due(why) {
            tracing::warn!(
                %error, times,
                "a download cannot be kept on disk: it is served all the same; said once an hour, \
                 larder_repository_fills_not_kept_total counts on"
            );
        } else {
            tracing::debug!(%error, "a download cannot be kept on disk: it is served all the same");
        }
    }
}
