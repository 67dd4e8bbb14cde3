//! Documents are also read once more before their time, because a file was asked for that they do not name: when each was.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use larder_core::{SourceKey, UnixMillis};

/// From the beginning of one such reading of a document to that of the next: whoever asks for made-up names causes no more requests
/// for a document than that, and a client that follows a publisher within it at worst gets what an unnamed file gets, which is not
/// remembered.
const APART: Duration = Duration::from_secs(1);
/// Documents whose readings are remembered.
const CAPACITY: usize = 4_096;

/// When each document was last read for that reason.
#[derive(Debug, Default)]
pub(super) struct Rereadings(Mutex<HashMap<SourceKey, UnixMillis>>);

impl Rereadings {
    /// What is `running` if the last reading was a moment ago, else what is begun now. Both are asked under the lock, so that no one
    /// finds the last reading over and the next one not begun.
    pub(super) fn running_or_begun<T>(
        &self,
        document: &SourceKey,
        now: UnixMillis,
        running: impl FnOnce() -> Option<T>,
        begin: impl FnOnce() -> T,
    ) -> Option<T> {
        let mut readings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if readings
            .get(document)
            .is_some_and(|began| is_recent(*began, now))
        {
            return running();
        }
        if readings.len() >= CAPACITY {
            readings.retain(|_, began| is_recent(*began, now));
        }
        readings.insert(document.clone(), now);
        Some(begin())
    }
}

/// A clock that was set back makes nothing recent for long.
fn is_recent(began: UnixMillis, now: UnixMillis) -> bool {
    began <= now && now < began.plus(APART)
}
