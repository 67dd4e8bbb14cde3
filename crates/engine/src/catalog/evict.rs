//! Bounded disk (`limits.disk`, `max_disk`): before a download is kept, what is superseded, what has expired and what was used least recently
//! goes to make room for it (docs/adr/0094).

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use larder_core::{Repository, RepositoryName};
use larder_storage::{Change, MetadataStore, StorageError, StorageErrorKind};
use tokio::sync::watch;

use super::asked::NotHeld;
use super::bounds::{Bounds, Coming, EVERY, Eviction, Tally};
use super::state::Catalog;
use super::victims::Victims;
use crate::repositories::RepositoryState;

/// Of a budget that is used up this part is freed at once: counting and choosing are not done for every download.
const SLACK: u64 = 32;
/// Records that go in one transaction.
const TOGETHER: usize = 256;
/// All blobs are looked through for superseded ones at most so often, in milliseconds.
const THOROUGHLY_EVERY_MS: i64 = 300_000;

/// So many records may go one after the other without a file of theirs that could be deleted: then it is not a few files that cannot be.
const MOST_IN_VAIN: u64 = 64;
/// How long it is left at what is held then.
const AFTER_VAIN: Duration = Duration::from_mins(1);

/// What went.
#[derive(Debug, Default, Clone, Copy)]
struct Gone {
    records: u64,
    /// Of those records.
    bytes: u64,
    /// Of files that were deleted.
    freed: u64,
}

impl Gone {
    fn add(&mut self, more: Self) {
        self.records += more.records;
        self.bytes += more.bytes;
        self.freed += more.freed;
    }
}

/// Bytes that are to go.
#[derive(Debug, Clone, Copy)]
enum Goal {
    /// Of files.
    Files(u64),
    /// Of what records name.
    Records(u64),
}

impl Goal {
    fn left(self, gone: Gone) -> u64 {
        match self {
            Self::Files(bytes) => bytes.saturating_sub(gone.freed),
            Self::Records(bytes) => bytes.saturating_sub(gone.bytes),
        }
    }
}

/// Records that go though their files cannot be deleted.
struct Vain<'e> {
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
    fn begin(
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
    fn note(&mut self, freed: u64, records: u64) -> Result<(), StorageError> {
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

/// Records whose use is written in one transaction: what of it is lost or counted twice when one breaks off is no more than that.
const WRITTEN_TOGETHER: usize = 500;

impl Catalog {
    /// From now on no more than what these repositories are configured with is kept of each.
    pub(crate) fn bound_each(&self, entries: Vec<Arc<RepositoryState>>) {
        self.bound(self.eviction.bounds.load().disk, entries);
    }

    /// As that, and of all no more than `disk` bytes.
    pub(crate) fn bound(&self, disk: Option<u64>, entries: Vec<Arc<RepositoryState>>) {
        let bounds = Bounds { disk, entries };
        self.uses.bound(bounds.is_any());
        self.eviction.bounds.store(Arc::new(bounds));
    }

    /// The longest blob that is ever kept of a repository: for what is larger than its bound no room is made.
    pub(crate) fn longest_kept(&self, repository: &Repository) -> u64 {
        let own = repository.upstream().and_then(|upstream| upstream.max_disk);
        let all = self.eviction.bounds.load().disk;
        own.into_iter().chain(all).min().unwrap_or(u64::MAX)
    }

    /// Whether blobs of these lengths, which are being committed, may be kept: makes room for them first. A blob that is larger than its
    /// bound never may.
    pub(super) async fn make_room_for(&self, coming: &[Coming]) -> Vec<bool> {
        self.make_room_beside(coming, 0).await
    }

    /// As that, where so many bytes may be on their way into the database.
    async fn make_room_beside(&self, coming: &[Coming], beside: u64) -> Vec<bool> {
        let bounds = self.eviction.bounds.load_full();
        if !bounds.is_any() || self.eviction.takes_all(&bounds, coming) {
            return vec![true; coming.len()];
        }
        let empty = Tally::default();
        let possible = coming.iter().filter(|one| empty.has_room(&bounds, one));
        let possible: Vec<Coming> = possible.cloned().collect();
        let _alone = self.eviction.alone.lock().await;
        match self.keep_within(&bounds, &possible, beside).await {
            Ok(()) => self.eviction.take(&bounds, coming),
            Err(error) => {
                tracing::warn!(%error, "it could not be found out what may go to make room: downloads are not kept");
                vec![false; coming.len()]
            }
        }
    }

    /// The same for one derived document, which counts with all that is kept and with no repository.
    pub(crate) async fn has_room_for(&self, repository: &RepositoryName, size: u64) -> bool {
        let coming = [(repository.clone(), size)];
        let beside = self.eviction.queued();
        self.make_room_beside(&coming, beside).await == [true]
    }

    /// Keeps to the bounds behind the scenes, and writes down what was used, as long as the catalog is there.
    pub(crate) fn start_eviction(self: &Arc<Self>) {
        let catalog: Weak<Self> = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(EVERY).await;
                let Some(catalog) = catalog.upgrade() else {
                    return;
                };
                catalog.write_uses(false).await;
                if catalog.uses.is_bounded() {
                    catalog.see_to_bounds().await;
                }
            }
        });
    }

    async fn see_to_bounds(&self) {
        if !self.eviction.is_due() {
            return;
        }
        let bounds = self.eviction.bounds.load_full();
        let _alone = self.eviction.alone.lock().await;
        let beside = self.eviction.queued();
        if let Err(error) = self.keep_within(&bounds, &[], beside).await {
            tracing::warn!(%error, "it could not be found out whether what is kept is within its bounds");
        }
    }

    /// What was used is written down: all of it, or what is due.
    pub(crate) async fn write_uses(&self, all: bool) {
        let (mut has_failed, now) = (false, self.now());
        for batch in self.uses.to_be_written(all) {
            let (repository, is_upload) = (&batch.repository, batch.is_upload);
            for uses in batch.uses.chunks(WRITTEN_TOGETHER) {
                if !has_failed {
                    let written = self
                        .metadata
                        .note_used(repository, is_upload, uses, now)
                        .await;
                    if let Err(error) = written {
                        tracing::debug!(%error, "what was used could not be written down");
                        has_failed = true;
                    }
                }
                if has_failed {
                    self.uses.not_written(repository, is_upload, uses);
                }
            }
        }
    }

    /// What is kept, counted anew.
    async fn count_kept(&self, bounds: &Bounds, beside: u64) -> Result<Tally, StorageError> {
        let since = Instant::now();
        let total = match bounds.disk {
            Some(_) => self.metadata.cached_bytes().await?.saturating_add(beside),
            None => 0,
        };
        let sizes = self.metadata.held_sizes().await?;
        let of = sizes.into_iter().map(|size| (size.repository, size.bytes));
        let of = of.collect();
        let counted = Some((since, since.elapsed()));
        *self
            .eviction
            .counted
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = counted;
        Ok(Tally { total, of })
    }

    /// Counts, and evicts what is beyond the bounds once `coming` is there.
    async fn keep_within(
        &self,
        bounds: &Bounds,
        coming: &[Coming],
        beside: u64,
    ) -> Result<(), StorageError> {
        let mut tally = self.count_kept(bounds, beside).await?;
        self.correct_uses(&tally).await?;
        let mut with = tally.clone();
        for one in coming {
            with.add(one);
        }
        let is_over = bounds.disk.is_some_and(|most| with.total > most);
        let names: Vec<String> = with.of.keys().cloned().collect();
        let over_own = names.into_iter().filter_map(|name| {
            let (has, most) = (*with.of.get(&name)?, bounds.of(&name)?);
            (has > most).then(|| (name, has - (most - most / SLACK)))
        });
        let over_own: Vec<(String, u64)> = over_own.collect();
        if is_over || !over_own.is_empty() {
            self.write_uses(true).await;
            let mut gone = Gone::default();
            for (name, bytes) in over_own {
                let names = [(name, true)];
                gone.add(self.evict(bounds, &names, Goal::Records(bytes)).await?);
            }
            if let Some(most) = bounds.disk.filter(|_| is_over) {
                let bytes = (with.total - (most - most / SLACK)).saturating_sub(gone.freed);
                gone.add(self.evict_of_all(bounds, &tally, bytes).await?);
            }
            self.eviction.note_freed();
            tally = self.count_kept(bounds, beside).await?;
            let undeleted = self.metadata.undeleted().blobs;
            tracing::info!(
                records = gone.records,
                bytes = gone.bytes,
                freed = gone.freed,
                kept = tally.total,
                limit = bounds.disk,
                undeleted,
                "room was made: what was superseded, expired or used least recently has been evicted"
            );
        }
        self.eviction.with_tally(|known| *known = Some(tally));
        Ok(())
    }

    /// Now and then, and before anything is evicted for the first time: what was used in the future, by a clock that has been set right since,
    /// would stay before all that is used from now on.
    async fn correct_uses(&self, tally: &Tally) -> Result<(), StorageError> {
        if !self.eviction.is_correction_due() {
            return Ok(());
        }
        let now = self.now();
        self.uses.correct(now);
        let mut records = 0;
        for repository in tally.of.keys() {
            records += self.metadata.correct_uses(repository, now).await?;
        }
        if records > 0 {
            tracing::warn!(
                records,
                "these were last used in the future, as a clock had it: they count as used now"
            );
        }
        Ok(())
    }

    /// Superseded blobs first, then records of whichever repository.
    async fn evict_of_all(
        &self,
        bounds: &Bounds,
        tally: &Tally,
        bytes: u64,
    ) -> Result<Gone, StorageError> {
        let now = self.now();
        let last = self.eviction.last_thorough.load(Ordering::Relaxed);
        let thoroughly = now.0.saturating_sub(last) >= THOROUGHLY_EVERY_MS || last > now.0;
        if thoroughly {
            self.eviction.last_thorough.store(now.0, Ordering::Relaxed);
        }
        let superseded = self
            .metadata
            .free_superseded(thoroughly, now, &self.blobs)
            .await?;
        let mut gone = Gone {
            freed: superseded.1,
            ..Gone::default()
        };
        let names = tally.of.keys().map(|name| {
            let is_configured = bounds.is_configured(name);
            (name.clone(), is_configured)
        });
        let names: Vec<(String, bool)> = names.collect();
        let goal = Goal::Files(bytes.saturating_sub(gone.freed));
        if goal.left(Gone::default()) > 0 {
            gone.add(self.evict(bounds, &names, goal).await?);
        }
        Ok(gone)
    }

    /// Evicts records of these repositories until so much has gone, or nothing more may go.
    async fn evict(
        &self,
        bounds: &Bounds,
        names: &[(String, bool)],
        goal: Goal,
    ) -> Result<Gone, StorageError> {
        let mut gone = Gone::default();
        let mut vain = Vain::begin(&self.eviction, &self.metadata, goal)?;
        let mut victims = Victims::new(&self.metadata, &self.uses, names, self.now());
        while goal.left(gone) > 0 {
            let batch = victims.next(goal.left(gone), TOGETHER).await?;
            if batch.is_empty() {
                break;
            }
            let mut of_each: HashMap<RepositoryName, (Vec<_>, u64)> = HashMap::new();
            for (key, row) in batch {
                self.note_gone(&key, &row, NotHeld::Evicted);
                let (keys, bytes) = of_each.entry(key.repository.clone()).or_default();
                keys.push(key);
                *bytes += row.size;
            }
            for (repository, (keys, bytes)) in of_each {
                let records = keys.len() as u64;
                self.drop_evicted(&repository, keys).await?;
                gone.add(Gone {
                    records,
                    bytes,
                    freed: 0,
                });
                let entry = bounds
                    .entries
                    .iter()
                    .find(|entry| entry.repository.name == repository);
                let of_all = &self.counters;
                of_all.evicted_files.fetch_add(records, Ordering::Relaxed);
                of_all.evicted_bytes.fetch_add(bytes, Ordering::Relaxed);
                if let Some(entry) = entry {
                    let counters = &entry.counters;
                    counters.evicted_files.fetch_add(records, Ordering::Relaxed);
                    counters.evicted_bytes.fetch_add(bytes, Ordering::Relaxed);
                }
            }
            let freed = self.free_due().await?;
            gone.freed += freed;
            vain.note(freed, gone.records)?;
        }
        Ok(gone)
    }

    async fn drop_evicted(
        &self,
        repository: &RepositoryName,
        keys: Vec<larder_core::SourceKey>,
    ) -> Result<(), StorageError> {
        let records = keys
            .iter()
            .map(|key| (key.path.to_string(), key.variant.to_string()));
        let change = Change::DeleteRecords {
            repository: repository.clone(),
            keys: records.collect(),
        };
        let dropped = self
            .metadata
            .apply_by(self.writer, vec![change], Vec::new())
            .await;
        for key in &keys {
            self.records.remove(key);
        }
        dropped.map(drop)
    }

    /// Deletes the files that flushed and evicted records have left; gives their bytes.
    pub(super) async fn free_due(&self) -> Result<u64, StorageError> {
        let (files, bytes) = self.metadata.free_due(self.now(), &self.blobs).await?;
        self.count_deleted(files, bytes);
        Ok(bytes)
    }

    pub(super) fn note_freed(&self) {
        self.eviction.note_freed();
    }

    /// Changes whenever files are deleted that may still be open.
    pub(crate) fn freed(&self) -> watch::Receiver<u64> {
        self.eviction.freed()
    }

    /// What is bounded: bytes that are kept and that may be kept in all, and what each repository may.
    pub(crate) fn bounds_in_use(&self) -> DiskUse {
        let bounds = self.eviction.bounds.load();
        let kept = self
            .eviction
            .with_tally(|tally| tally.as_ref().map(|tally| tally.total));
        let of_each = bounds.entries.iter().filter_map(|entry| {
            let most = entry.repository.upstream()?.max_disk?;
            Some((entry.repository.name.to_string(), most))
        });
        DiskUse {
            limit: bounds.disk,
            kept: kept.filter(|_| bounds.disk.is_some()),
            repositories: of_each.collect(),
        }
    }
}

/// What is kept, where that is bounded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskUse {
    /// Bytes that may be kept in all.
    pub limit: Option<u64>,
    /// Bytes that are; `None` before they are counted for the first time, and without a limit.
    pub kept: Option<u64>,
    /// What those repositories may keep that have a bound of their own, by name.
    pub repositories: Vec<(String, u64)>,
}
