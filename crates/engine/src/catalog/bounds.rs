//! What may be kept, how much is, and who waits for room (`limits.disk`, `max_disk`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use larder_core::RepositoryName;
use tokio::sync::{Notify, watch};

use crate::repositories::RepositoryState;

/// So long a download waits for one of those before it to be committed, or given up; each that is lets it wait anew. A database that takes
/// nothing for so long keeps nobody from being served.
const BEGINS_AFTER: Duration = Duration::from_secs(30);
/// What has arrived may wait to be committed up to this part of the bound of all, and ...
const QUEUED_PART: u64 = 8;
/// ... so many bytes in any case. Whatever arrives beyond it is served and not kept.
const QUEUED_ANYWAY: u64 = 64 << 20;
/// How often it is looked for uses in the future.
const CORRECTED_EVERY: Duration = Duration::from_hours(1);
/// So long whoever brings something waits for others who make room, and so long makes room: what there is none for by then is served and not
/// kept. At least twice as long as counting takes, so that it is not only counted; ...
const SLICE: Duration = Duration::from_secs(2);
/// ... and at most this.
const LONGEST_SLICE: Duration = Duration::from_secs(10);
/// How often what was used is written down, and it is seen to whether bounds are passed.
pub(super) const EVERY: Duration = Duration::from_secs(10);

/// What may be kept.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    /// Bytes of all blobs but those of uploaded files.
    pub(super) disk: Option<u64>,
    pub(super) entries: Vec<Arc<RepositoryState>>,
}

impl Bounds {
    /// Bytes of what the records of a repository name.
    pub(super) fn of(&self, repository: &str) -> Option<u64> {
        let entry = self
            .entries
            .iter()
            .find(|entry| entry.repository.name.as_str() == repository);
        entry?.repository.upstream()?.max_disk
    }

    pub(super) fn is_any(&self) -> bool {
        let of_one = |entry: &Arc<RepositoryState>| {
            let upstream = entry.repository.upstream();
            upstream.is_some_and(|upstream| upstream.max_disk.is_some())
        };
        self.disk.is_some() || self.entries.iter().any(of_one)
    }

    pub(super) fn is_configured(&self, repository: &str) -> bool {
        let is_it = |entry: &Arc<RepositoryState>| entry.repository.name.as_str() == repository;
        self.entries.iter().any(is_it)
    }
}

/// How much is kept: counted now and then, and added to in between.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) total: u64,
    pub(super) of: BTreeMap<String, u64>,
}

impl Tally {
    /// Whether so much more of a repository is within bounds.
    pub(super) fn has_room(&self, bounds: &Bounds, (repository, size): &Coming) -> bool {
        let of_one = self.of.get(repository.as_str()).copied().unwrap_or(0);
        bounds
            .disk
            .is_none_or(|most| self.total.saturating_add(*size) <= most)
            && bounds
                .of(repository.as_str())
                .is_none_or(|most| of_one.saturating_add(*size) <= most)
    }

    pub(super) fn add(&mut self, (repository, size): &Coming) {
        self.total = self.total.saturating_add(*size);
        let of_one = self.of.entry(repository.to_string()).or_default();
        *of_one = of_one.saturating_add(*size);
    }

    /// Adds what has been taken note of between these two.
    pub(super) fn add_since(&mut self, then: &Self, now: &Self) {
        self.total += now.total.saturating_sub(then.total);
        for (name, has) in &now.of {
            let more = has.saturating_sub(then.of.get(name).copied().unwrap_or(0));
            if more > 0 {
                *self.of.entry(name.clone()).or_default() += more;
            }
        }
    }
}

/// A blob that is about to be kept: whose, and its length.
pub(super) type Coming = (RepositoryName, u64);

/// What the catalog needs for it.
#[derive(Debug)]
pub(super) struct Eviction {
    pub(super) bounds: ArcSwap<Bounds>,
    tally: Mutex<Option<Tally>>,
    /// Whether there is more to free than could be lately.
    is_late: AtomicBool,
    /// When it was counted, and how long that took.
    pub(super) counted: Mutex<Option<(Instant, Duration)>>,
    /// Held by whoever counts and evicts.
    pub(super) alone: tokio::sync::Mutex<()>,
    /// Held by whoever writes down what was used: what another one is writing is not known before.
    pub(super) writing: tokio::sync::Mutex<()>,
    pub(super) last_thorough: AtomicI64,
    /// When records went last whose files could not be deleted.
    in_vain: Mutex<Option<Instant>>,
    /// When it was looked last for uses in the future.
    corrected: Mutex<Option<Instant>>,
    /// Bytes of what has arrived and waits to be committed.
    queued: AtomicU64,
    /// Some of it has been committed.
    settled: Notify,
    /// Files have gone that may still be open.
    freed: watch::Sender<u64>,
}

impl Default for Eviction {
    fn default() -> Self {
        Self {
            bounds: ArcSwap::default(),
            tally: Mutex::default(),
            is_late: AtomicBool::new(false),
            counted: Mutex::default(),
            alone: tokio::sync::Mutex::default(),
            writing: tokio::sync::Mutex::default(),
            last_thorough: AtomicI64::new(i64::MIN),
            in_vain: Mutex::default(),
            corrected: Mutex::default(),
            queued: AtomicU64::new(0),
            settled: Notify::new(),
            freed: watch::Sender::new(0),
        }
    }
}

impl Eviction {
    /// Changes whenever files are deleted: who keeps files open lets those go that nobody may be served any more.
    pub(super) fn freed(&self) -> watch::Receiver<u64> {
        self.freed.subscribe()
    }

    /// So many bytes have arrived, and wait to be committed.
    pub(super) fn queue(&self, bytes: u64) {
        self.queued.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Bytes of what waits to be committed, or is being.
    pub(super) fn queued(&self) -> u64 {
        self.queued.load(Ordering::Acquire)
    }

    /// They wait no longer.
    pub(super) fn settle(&self, bytes: u64) {
        self.queued.fetch_sub(bytes, Ordering::AcqRel);
        self.settled.notify_waiters();
    }

    /// Whether what waits to be committed has used up its share of the bound: what arrives now is served and not kept.
    pub(super) fn is_queue_full(&self) -> bool {
        let most = self.bounds.load().disk;
        most.is_some_and(|most| self.queued() > (most / QUEUED_PART).max(QUEUED_ANYWAY))
    }

    /// Waits until what is kept and what waits to be is within the bound of all together: then what is under way is the only thing beyond
    /// it. Not for ever, where nothing is committed any more.
    pub(super) async fn within(&self) {
        let Some(most) = self.bounds.load().disk else {
            return;
        };
        loop {
            let next = self.settled.notified();
            tokio::pin!(next);
            next.as_mut().enable();
            let kept = self.with_tally(|tally| tally.as_ref().map_or(0, |tally| tally.total));
            let queued = self.queued();
            if queued == 0 || kept.saturating_add(queued) <= most {
                return;
            }
            if tokio::time::timeout(BEGINS_AFTER, next).await.is_err() {
                return;
            }
        }
    }

    pub(super) fn note_freed(&self) {
        self.freed.send_modify(|times| *times += 1);
    }

    /// Records go, and their files cannot be deleted.
    pub(super) fn note_in_vain(&self) {
        let mut last = self.in_vain.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(Instant::now());
    }

    /// Whether that was so a short while ago.
    pub(super) fn was_in_vain(&self, within: Duration) -> bool {
        let last = *self.in_vain.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|at| at.elapsed() < within)
    }

    /// Whether it is time to look for uses in the future; from then on it is not, for a while.
    pub(super) fn is_correction_due(&self) -> bool {
        let mut last = self
            .corrected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|at| at.elapsed() >= CORRECTED_EVERY);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }

    /// How long room is made at a time.
    pub(super) fn slice(&self) -> Duration {
        let counted = *self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let took = counted.map_or(Duration::ZERO, |(_, took)| took);
        (took * 2).clamp(SLICE, LONGEST_SLICE)
    }

    /// Whether there is more to free than there was time for: then it is time to count again.
    pub(super) fn note_late(&self, is_late: bool) {
        self.is_late.store(is_late, Ordering::Relaxed);
    }

    /// Whether it is time to count again, which takes a hundredth of the time at most where nothing is to be freed.
    pub(super) fn is_due(&self) -> bool {
        if self.is_late.load(Ordering::Relaxed) {
            return true;
        }
        let counted = *self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.is_none_or(|(at, took)| at.elapsed() >= (took * 100).max(EVERY))
    }

    pub(super) fn with_tally<T>(&self, work: impl FnOnce(&mut Option<Tally>) -> T) -> T {
        work(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes note of what is about to be kept, if all of it is known to be within bounds.
    pub(super) fn takes_all(&self, bounds: &Bounds, coming: &[Coming]) -> bool {
        self.with_tally(|tally| {
            let Some(tally) = tally else { return false };
            let mut next = tally.clone();
            let fits = coming.iter().all(|one| {
                let fits = next.has_room(bounds, one);
                next.add(one);
                fits
            });
            if fits {
                *tally = next;
            }
            fits
        })
    }

    /// Of each whether it is within bounds; those that are, are taken note of. None is before it is known how much is kept.
    pub(super) fn take(&self, bounds: &Bounds, coming: &[Coming]) -> Vec<bool> {
        self.with_tally(|tally| {
            let Some(tally) = tally else {
                return vec![false; coming.len()];
            };
            let take = |one| {
                let fits = tally.has_room(bounds, one);
                if fits {
                    tally.add(one);
                }
                fits
            };
            coming.iter().map(take).collect()
        })
    }
}
