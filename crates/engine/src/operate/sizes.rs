//! How much is held, as it was last counted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use larder_storage::{Counts, HeldSize};

/// Sizes are counted at most this often, and in at most a hundredth of the time.
const LEAST_AGE: Duration = Duration::from_secs(1);

/// What is held as it was last counted.
#[derive(Debug, Default)]
pub(crate) struct HeldSizes {
    pub(super) last: Mutex<Option<Counted>>,
    pub(super) counting: AtomicBool,
    /// How often much has gone.
    pub(super) outdated: AtomicU64,
}

#[derive(Debug, Clone)]
pub(super) struct Counted {
    pub(super) at: Instant,
    pub(super) took: Duration,
    pub(super) sizes: Arc<Vec<HeldSize>>,
    pub(super) stored: Counts,
    /// How often much had gone before.
    pub(super) outdated: u64,
}

impl HeldSizes {
    /// Much of what was counted has gone: whoever asks next has it counted again.
    pub(crate) fn outdate(&self) {
        self.outdated.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn is_due(&self, last: &Counted) -> bool {
        last.at.elapsed() >= LEAST_AGE.max(last.took * 100)
            || last.outdated != self.outdated.load(Ordering::Acquire)
    }

    pub(super) fn last(&self) -> Option<Counted> {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
