//! Blobs whose files could not be deleted: each is tried again after a while, and keeps none of the others (docs/adr/0094).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use larder_core::Digest;

use super::MetadataStore;
use crate::error::StorageError;

/// How long one is let be before it is tried again.
const REST: Duration = Duration::from_mins(1);
/// One that was not tried for so long is due no more: the collector runs each hour.
const FORGOTTEN: Duration = Duration::from_hours(2);
/// So many are remembered; what is beyond them is tried again at once.
const MOST: usize = 10_000;

/// Blobs whose files could not be deleted when that was tried last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Undeleted {
    /// How many.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What the last one of them failed by, for users.
    pub why: Option<String>,
}

#[derive(Debug)]
struct Failed {
    size: u64,
    tried: Instant,
    why: String,
}

/// Those of this store.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<BTreeMap<Digest, Failed>>);

impl Failures {
    fn all(&self) -> MutexGuard<'_, BTreeMap<Digest, Failed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file of a blob could not be deleted.
    pub(super) fn note(&self, digest: &Digest, size: u64, error: &StorageError) {
        let mut all = self.all();
        if !all.contains_key(digest) {
            let cause = error.source.as_ref().map(ToString::to_string);
            tracing::warn!(%digest, %error, cause, "the file of a blob could not be deleted, and is tried again later");
        }
        if all.len() >= MOST {
            all.retain(|_, failed| failed.tried.elapsed() < FORGOTTEN);
        }
        if all.len() < MOST {
            let failed = Failed {
                size,
                tried: Instant::now(),
                why: error.to_string(),
            };
            all.insert(digest.clone(), failed);
        }
    }

    /// It has gone after all.
    pub(super) fn forget(&self, digest: &Digest) {
        self.all().remove(digest);
    }

    /// Whether it has just been tried in vain.
    pub(super) fn rests(&self, digest: &Digest) -> bool {
        let all = self.all();
        let failed = all.get(digest);
        failed.is_some_and(|failed| failed.tried.elapsed() < REST)
    }

    /// All are to be tried again, and told anew.
    pub(super) fn forget_all(&self) {
        self.all().clear();
    }
}

impl MetadataStore {
    /// Blobs that this store would delete and whose files stay.
    pub fn undeleted(&self) -> Undeleted {
        let all = self.shared.undeleted.all();
        let mut found = Undeleted::default();
        let present = all
            .values()
            .filter(|failed| failed.tried.elapsed() < FORGOTTEN);
        for failed in present {
            found.blobs += 1;
            found.bytes += failed.size;
        }
        let last = all.values().max_by_key(|failed| failed.tried);
        found.why = last
            .filter(|_| found.blobs > 0)
            .map(|last| last.why.clone());
        found
    }
}
