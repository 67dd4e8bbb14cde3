//! When records were last asked for, counted in memory: a hit of the hot set stores a time, and asks nobody. A task writes it down in
//! batches (docs/adr/0094).

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use larder_core::{Clock, RepositoryName, SourceKey, UnixMillis};
use larder_storage::{MOST_AHEAD, RecordUse, Usage};

/// A use is not told from one so long before, in milliseconds: a record that everybody asks for is written to by few of them.
const COARSE_MS: i64 = 100;
/// Parts of the table, each with its own lock.
const PARTS: usize = 16;
/// So long a use may be newer than what is written down of it, in milliseconds; before something goes, all is written down.
const WRITTEN_EVERY_MS: i64 = 60_000;
/// The same where nothing ever goes, and it is only to be shown.
const COUNTED_EVERY_MS: i64 = 600_000;

/// What all uses have in common.
#[derive(Debug)]
struct Common {
    clock: Arc<dyn Clock>,
    /// Whether anything is ever evicted.
    is_bounded: AtomicBool,
}

/// One record's use: shared by the table and by every answer that is remembered of it.
#[derive(Debug)]
pub(crate) struct Use {
    /// In milliseconds.
    last: AtomicI64,
    /// What is written down of it.
    written: AtomicI64,
    /// Answers with its bytes that are not written down yet.
    served: AtomicU32,
    /// Answers with its bytes that are under way.
    readers: AtomicU32,
    /// It is evicted: no answer that is remembered of it holds.
    is_gone: AtomicBool,
    common: Arc<Common>,
    /// Whether it is an uploaded file: those never go.
    is_upload: bool,
}

impl Use {
    fn new(common: &Arc<Common>, is_upload: bool) -> Self {
        Self {
            last: AtomicI64::new(0),
            written: AtomicI64::new(0),
            served: AtomicU32::new(0),
            readers: AtomicU32::new(0),
            is_gone: AtomicBool::new(false),
            common: Arc::clone(common),
            is_upload,
        }
    }

    /// Whether it may be evicted.
    fn may_go(&self) -> bool {
        !self.is_upload && self.common.is_bounded.load(Ordering::Relaxed)
    }

    /// An answer has its bytes, or a part of them.
    pub(crate) fn serve(&self) {
        self.served.fetch_add(1, Ordering::Relaxed);
    }

    /// It is asked for.
    pub(crate) fn touch(&self, now: UnixMillis) {
        let last = self.last.load(Ordering::Relaxed);
        // A clock that ran ahead may have been set right.
        if now.0.wrapping_sub(last) >= COARSE_MS || last > now.plus(MOST_AHEAD).0 {
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
        let is_used_since =
            || self.last.load(Ordering::Relaxed) > used_at.0.saturating_add(COARSE_MS);
        if is_used_since() {
            return false;
        }
        self.is_gone.store(true, Ordering::SeqCst);
        // Whoever has ended reading in between has used it.
        if self.readers.load(Ordering::SeqCst) > 0 || is_used_since() {
            self.is_gone.store(false, Ordering::SeqCst);
            return false;
        }
        true
    }
}

/// An answer with a record's bytes is under way: until this is dropped they are not evicted, and when it is, they have just been used: who
/// reads for an hour uses them for an hour.
#[derive(Debug)]
pub struct Reading {
    of: Arc<Use>,
    /// Whether it is one of [`Use::readers`].
    keeps: bool,
}

impl Reading {
    /// `None` if the bytes are gone already, or nothing ever goes.
    pub(crate) fn begin(of: &Arc<Use>) -> Option<Self> {
        if !of.may_go() {
            return None;
        }
        of.readers.fetch_add(1, Ordering::SeqCst);
        let reading = Self {
            of: Arc::clone(of),
            keeps: true,
        };
        (!of.is_gone.load(Ordering::SeqCst)).then_some(reading)
    }

    /// As that, for an answer that is to be counted: where nothing ever goes, it keeps nothing.
    pub(crate) fn counted(of: &Arc<Use>) -> Option<Self> {
        if of.may_go() {
            Self::begin(of)
        } else {
            Some(Self::of_copy(of))
        }
    }

    /// Of an answer whose bytes are elsewhere, or already in memory.
    pub(crate) fn of_copy(of: &Arc<Use>) -> Self {
        Self {
            of: Arc::clone(of),
            keeps: false,
        }
    }

    /// The answer has the bytes, or a part of them.
    pub fn serve(&self) {
        self.of.serve();
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if self.keeps {
            self.of.touch(self.of.common.clock.now());
            self.of.readers.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

type Part = HashMap<SourceKey, Arc<Use>>;

/// The uses of records that were asked for lately, or that answers are remembered of.
#[derive(Debug)]
pub(super) struct Uses {
    parts: [Mutex<Part>; PARTS],
    hasher: RandomState,
    common: Arc<Common>,
}

/// Uses of one repository that are to be written down, in the order of the records.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) repository: RepositoryName,
    /// Whether they are of uploaded files.
    pub(super) is_upload: bool,
    pub(super) uses: Vec<RecordUse>,
}

impl Uses {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            parts: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            common: Arc::new(Common {
                clock,
                is_bounded: AtomicBool::new(false),
            }),
        }
    }

    pub(super) fn bound(&self, is_bounded: bool) {
        self.common.is_bounded.store(is_bounded, Ordering::Relaxed);
    }

    pub(super) fn is_bounded(&self) -> bool {
        self.common.is_bounded.load(Ordering::Relaxed)
    }

    fn part(&self, key: &SourceKey) -> MutexGuard<'_, Part> {
        let index = self.hasher.hash_one(key) as usize % PARTS;
        lock(&self.parts[index])
    }

    /// A record is asked for, or an uploaded file.
    pub(super) fn of(&self, key: &SourceKey, is_upload: bool, now: UnixMillis) -> Arc<Use> {
        let mut part = self.part(key);
        let found = match part.get(key) {
            Some(found) if !found.is_gone() && found.is_upload == is_upload => Arc::clone(found),
            _ => {
                let new = Arc::new(Use::new(&self.common, is_upload));
                part.insert(key.clone(), Arc::clone(&new));
                new
            }
        };
        found.touch(now);
        found
    }

    /// What is written down of a record's use, or an uploaded file's, with what is not yet.
    pub(super) fn beside(&self, key: &SourceKey, is_upload: bool, written: Usage) -> Usage {
        let part = self.part(key);
        let Some(found) = part.get(key).filter(|found| found.is_upload == is_upload) else {
            return written;
        };
        let last = UnixMillis(found.last.load(Ordering::Relaxed));
        Usage {
            served: written.served + u64::from(found.served.load(Ordering::Relaxed)),
            used_at: written.used_at.max((last.0 > 0).then_some(last)),
        }
    }

    /// What was used in the future is used now, and is written down so.
    pub(super) fn correct(&self, now: UnixMillis) {
        let latest = now.plus(MOST_AHEAD).0;
        for part in &self.parts {
            for found in lock(part).values() {
                if found.last.load(Ordering::Relaxed) > latest {
                    found.last.store(now.0, Ordering::Relaxed);
                }
                if found.written.load(Ordering::Relaxed) > latest {
                    found.written.store(0, Ordering::Relaxed);
                }
            }
        }
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
        let least = match (all, self.is_bounded()) {
            (true, _) => 1,
            (false, true) => WRITTEN_EVERY_MS,
            (false, false) => COUNTED_EVERY_MS,
        };
        let mut batches: HashMap<(RepositoryName, bool), Vec<RecordUse>> = HashMap::new();
        for part in &self.parts {
            lock(part).retain(|key, found| {
                let last = found.last.load(Ordering::Relaxed);
                let written = found.written.load(Ordering::Relaxed);
                let is_remembered = Arc::strong_count(found) > 1;
                let has_served = found.served.load(Ordering::Relaxed) > 0;
                if last - written >= least || ((last > written || has_served) && !is_remembered) {
                    found.written.store(last, Ordering::Relaxed);
                    let batch = batches.entry((key.repository.clone(), found.is_upload));
                    batch.or_default().push(RecordUse {
                        key: (key.path.to_string(), key.variant.to_string()),
                        at: UnixMillis(last),
                        served: found.served.swap(0, Ordering::Relaxed),
                    });
                }
                is_remembered
            });
        }
        // Whoever locks several rows does so in their order.
        let batch = |((repository, is_upload), mut uses): ((RepositoryName, bool), Vec<_>)| {
            uses.sort_unstable();
            Batch {
                repository,
                is_upload,
                uses,
            }
        };
        batches.into_iter().map(batch).collect()
    }

    /// These could not be written down: they are to be tried again.
    pub(super) fn not_written(
        &self,
        repository: &RepositoryName,
        is_upload: bool,
        uses: &[RecordUse],
    ) {
        for RecordUse { key, served, at } in uses {
            let key = SourceKey {
                repository: repository.clone(),
                path: key.0.as_str().into(),
                variant: key.1.clone().into(),
            };
            let found = self.of(&key, is_upload, *at);
            found.written.store(0, Ordering::Relaxed);
            found.served.fetch_add(*served, Ordering::Relaxed);
        }
    }
}

/// The key under which an uploaded file's use is found.
pub(super) fn upload_key(repository: &RepositoryName, path: &str) -> SourceKey {
    SourceKey {
        repository: repository.clone(),
        path: path.into(),
        variant: "".into(),
    }
}

fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}
