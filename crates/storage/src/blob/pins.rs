//! Pins: what keeps a blob from deletion between its publication and the row that refers to it (hazard L3).
//!
//! Knows this process only: replicas over one store need the database's row lock as well.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use larder_core::Digest;

/// Counts the pins of each digest.
#[derive(Debug, Default)]
pub(super) struct Pins(Mutex<HashMap<Digest, usize>>);

/// Holds one blob; dropping it lets go.
#[derive(Debug)]
pub struct BlobPin {
    pins: Arc<Pins>,
    digest: Digest,
}

impl Pins {
    /// Holds `digest`. To be called before the store looks whether the blob exists.
    pub(super) fn pin(self: &Arc<Self>, digest: &Digest) -> Arc<BlobPin> {
        *self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(digest.clone())
            .or_insert(0) += 1;
        Arc::new(BlobPin {
            pins: Arc::clone(self),
            digest: digest.clone(),
        })
    }

    /// Runs `delete` unless `digest` is held, and lets nobody pin it meanwhile. `None` if it is held.
    pub(super) fn unless_pinned<T>(
        &self,
        digest: &Digest,
        delete: impl FnOnce() -> T,
    ) -> Option<T> {
        let pins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!pins.contains_key(digest)).then(delete)
    }
}

impl Drop for BlobPin {
    fn drop(&mut self) {
        let mut pins = self.pins.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = pins.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.digest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use larder_core::sha256;

    use super::*;

    #[test]
    fn the_last_pin_decides() {
        let pins = Arc::new(Pins::default());
        let digest = sha256(b"x");
        let first = pins.pin(&digest);
        let second = pins.pin(&digest);
        assert_eq!(pins.unless_pinned(&digest, || ()), None);
        drop(first);
        assert_eq!(pins.unless_pinned(&digest, || ()), None);
        drop(second);
        assert_eq!(pins.unless_pinned(&digest, || ()), Some(()));
        assert!(pins.0.lock().unwrap().is_empty(), "no entry is left behind");
    }
}
