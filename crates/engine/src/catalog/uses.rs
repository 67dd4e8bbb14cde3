//! When records were last asked for, counted in memory: a hit of the hot set stores a time, and asks nobody. A task writes it down in
//! batches (docs/adr/0094).

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use larder_core::{RepositoryName, SourceKey, UnixMillis};
use larder_storage::RecordKey;

/// A use is not told from one so long before, in milliseconds: a record that everybody asks for is written to by few of them.
const COARSE_MS: i64 = 100;
/// Parts of the table, each with its own lock.
const PARTS: usize = 16;
/// So long a use may be newer than what is written down of it, in milliseconds; before something goes, all is written down.
const WRITTEN_EVERY_MS: i64 = 60_000;

/// One record's use: shared by the table and by every answer that is remembered of it.
#[derive(Debug, Default)]
pub(crate) struct Use {
    /// In milliseconds.
    last: AtomicI64,
    /// What is written down of it.
    written: AtomicI64,
    /// Answers with its bytes that are under way.
    readers: AtomicU32,
    /// It is evicted: no answer that is remembered of it holds.
    is_gone: AtomicBool,
}

impl Use {
    /// It is asked for.
    pub(crate) fn touch(&self, now: UnixMillis) {
        if now.0.wrapping_sub(self.last.load(Ordering::Relaxed)) >= COARSE_MS {
            self.last.store(now.0, Ordering::Relaxed);
        }
    }

    /// Whether it is evicted.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }

    /// Whether it may go, having been used last at `used_at` as far as is written down: nobody has asked for it since, and nobody is
    /// reading it. From then on nobody begins to.
    fn let_go(&self, used_at: UnixMillis) -> bool {
        if self.last.load(Ordering::Relaxed) > used_at.0.saturating_add(COARSE_MS) {
            return false;
        }
        self.is_gone.store(true, Ordering::SeqCst);
        if self.readers.load(Ordering::SeqCst) > 0 {
            self.is_gone.store(false, Ordering::SeqCst);
            return false;
        }
        true
    }
}

/// An answer with a record's bytes is under way: until this is dropped they are not evicted.
#[derive(Debug)]
pub struct Reading(Arc<Use>);

impl Reading {
    /// `None` if they are gone already.
    pub(crate) fn begin(of: &Arc<Use>) -> Option<Self> {
        of.readers.fetch_add(1, Ordering::SeqCst);
        let reading = Self(Arc::clone(of));
        (!of.is_gone.load(Ordering::SeqCst)).then_some(reading)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::Release);
    }
}

type Part = HashMap<SourceKey, Arc<Use>>;

/// The uses of records that were asked for lately, or that answers are remembered of.
#[derive(Debug)]
pub(super) struct Uses {
    parts: [Mutex<Part>; PARTS],
    hasher: RandomState,
    /// Whether anything is ever evicted.
    is_counting: AtomicBool,
}

impl Default for Uses {
    fn default() -> Self {
        Self {
            parts: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            is_counting: AtomicBool::new(false),
        }
    }
}

/// When records of one repository were last asked for.
pub(super) type Batch = (RepositoryName, Vec<(RecordKey, UnixMillis)>);

impl Uses {
    pub(super) fn count(&self, is_counting: bool) {
        self.is_counting.store(is_counting, Ordering::Relaxed);
    }

    pub(super) fn is_counting(&self) -> bool {
        self.is_counting.load(Ordering::Relaxed)
    }

    fn part(&self, key: &SourceKey) -> MutexGuard<'_, Part> {
        let index = self.hasher.hash_one(key) as usize % PARTS;
        lock(&self.parts[index])
    }

    /// A record is asked for; `None` where nothing is ever evicted.
    pub(super) fn of(&self, key: &SourceKey, now: UnixMillis) -> Option<Arc<Use>> {
        if !self.is_counting() {
            return None;
        }
        let mut part = self.part(key);
        let found = match part.get(key) {
            Some(found) if !found.is_gone() => Arc::clone(found),
            _ => {
                let new = Arc::<Use>::default();
                part.insert(key.clone(), Arc::clone(&new));
                new
            }
        };
        found.touch(now);
        Some(found)
    }

    /// Whether a record may go that was last used at `used_at` as far as is written down; if so, no answer that is remembered of it holds.
    pub(super) fn let_go(&self, key: &SourceKey, used_at: UnixMillis) -> bool {
        let mut part = self.part(key);
        let Some(found) = part.get(key) else {
            return true;
        };
        let goes = found.let_go(used_at);
        if goes {
            part.remove(key);
        }
        goes
    }

    /// What is to be written down: of each record that was asked for since that was last done, or long enough ago; and forgets what nobody
    /// has asked for since and no answer is remembered of.
    pub(super) fn to_be_written(&self, all: bool) -> Vec<Batch> {
        let least = if all { 1 } else { WRITTEN_EVERY_MS };
        let mut batches: HashMap<RepositoryName, Vec<(RecordKey, UnixMillis)>> = HashMap::new();
        for part in &self.parts {
            lock(part).retain(|key, found| {
                let last = found.last.load(Ordering::Relaxed);
                let written = found.written.load(Ordering::Relaxed);
                let is_remembered = Arc::strong_count(found) > 1;
                if last - written >= least || (last > written && !is_remembered) {
                    found.written.store(last, Ordering::Relaxed);
                    let record = (key.path.to_string(), key.variant.to_string());
                    let batch = batches.entry(key.repository.clone());
                    batch.or_default().push((record, UnixMillis(last)));
                }
                is_remembered
            });
        }
        // Whoever locks several rows does so in their order.
        for batch in batches.values_mut() {
            batch.sort_unstable();
        }
        batches.into_iter().collect()
    }

    /// It could not be written down: it is to be tried again.
    pub(super) fn not_written(&self) {
        for part in &self.parts {
            let part = lock(part);
            for found in part.values() {
                found.written.store(0, Ordering::Relaxed);
            }
        }
    }
}

fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}
