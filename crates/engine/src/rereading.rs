//! Documents that are read once more before their time, because a file was asked for that they do not name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use larder_core::{SourceKey, UnixMillis};

use crate::admission::Wanted;
use crate::engine::Engine;
use crate::flight::Flight;
use crate::obtain::Effort;

/// From the beginning of one such reading of a document to that of the next: whoever asks for made-up names causes no more requests
/// for a document than that, and a client that follows a publisher within it at worst gets what an unnamed file gets, which is not
/// remembered.
const APART: Duration = Duration::from_secs(1);
/// Documents whose readings are remembered.
const CAPACITY: usize = 4_096;

/// When each document was last read for that reason.
#[derive(Debug, Default)]
pub(crate) struct Rereadings(Mutex<HashMap<SourceKey, UnixMillis>>);

impl Engine {
    /// The reading that is running, or a new one (`true`); `None` if the last one is over and was a moment ago.
    pub(crate) fn reread(self: &Arc<Self>, document: &Arc<Wanted>) -> Option<(Arc<Flight>, bool)> {
        let now = self.now();
        // Under the lock, so that no one finds the last reading over and the next one not begun.
        let mut readings = self
            .rereadings
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if readings
            .get(&document.key)
            .is_some_and(|began| is_recent(*began, now))
        {
            let running = self
                .flights
                .running(&document.key)
                .filter(|flight| !flight.is_done());
            return running.map(|flight| (flight, false));
        }
        if readings.len() >= CAPACITY {
            readings.retain(|_, began| is_recent(*began, now));
        }
        readings.insert(document.key.clone(), now);
        tracing::debug!(document = %document.key, "a document that does not name a file is read once more");
        Some(self.flight_or_join(document, Effort::Recheck))
    }
}

/// A clock that was set back makes nothing recent for long.
fn is_recent(began: UnixMillis, now: UnixMillis) -> bool {
    began <= now && now < began.plus(APART)
}
