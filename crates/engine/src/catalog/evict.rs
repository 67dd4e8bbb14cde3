//! Bounded disk (`limits.disk`, `max_disk`): before a download is kept, what is superseded, what has expired and what was used least recently
//! goes to make room for it (docs/adr/0094).

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Instant;

use larder_core::{Repository, RepositoryName};
use larder_storage::{Change, StorageError};
use tokio::sync::watch;

use super::asked::NotHeld;
use super::bounds::{Bounds, Coming, EVERY, Tally};
use super::goal::{Goal, Gone, Vain};
use super::state::Catalog;
use super::victims::Victims;
use crate::repositories::RepositoryState;

/// Of a budget that is used up this part is freed at once: counting and choosing are not done for every download.
const SLACK: u64 = 32;
/// Records that go in one transaction.
const TOGETHER: usize = 256;
/// All blobs are looked through for superseded ones at most so often, in milliseconds.
const THOROUGHLY_EVERY_MS: i64 = 300_000;

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
        let turn = self.eviction.alone.lock();
        let Ok(_alone) = tokio::time::timeout(self.eviction.slice(), turn).await else {
            // Room is being made, which takes long: what there is of it is shared out.
            return self.eviction.take(&bounds, coming);
        };
        match self.keep_within(&bounds, &possible, beside).await {
            Ok(_) => self.eviction.take(&bounds, coming),
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
            let mut evicted = 0;
            loop {
                tokio::time::sleep(EVERY).await;
                let Some(catalog) = catalog.upgrade() else {
                    return;
                };
                // What the local tier has deleted may be open in the hot set.
                let tier = catalog.blobs.report().tier;
                let now_evicted = tier.map_or(0, |tier| tier.evicted);
                if std::mem::replace(&mut evicted, now_evicted) != now_evicted {
                    catalog.note_freed();
                }
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
        let mut is_late = true;
        // Bit by bit, so that nobody who brings something waits until all of it is done.
        while is_late {
            let _alone = self.eviction.alone.lock().await;
            is_late = self.see_to_some().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "it could not be found out whether what is kept is within its bounds");
                false
            });
        }
    }

    /// Deletes what was left for another time, and evicts what is beyond the bounds, for a while: whether there is more to do.
    async fn see_to_some(&self) -> Result<bool, StorageError> {
        let until = Instant::now() + self.eviction.slice();
        self.free_due_until(until).await?;
        let is_late = Instant::now() >= until;
        let bounds = self.eviction.bounds.load_full();
        let beside = self.eviction.queued();
        Ok(self.keep_within(&bounds, &[], beside).await? || is_late)
    }

    /// What was used is written down: all of it, or what is due.
    pub(crate) async fn write_uses(&self, all: bool) {
        let _alone = self.eviction.writing.lock().await;
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

    /// Counts, and evicts what is beyond the bounds once `coming` is there, for a while: whether it took longer, and there is more to do.
    async fn keep_within(
        &self,
        bounds: &Bounds,
        coming: &[Coming],
        beside: u64,
    ) -> Result<bool, StorageError> {
        let counted = self.count_kept(bounds, beside).await?;
        self.eviction
            .with_tally(|known| *known = Some(counted.clone()));
        self.correct_uses(&counted).await?;
        let mut with = counted.clone();
        for one in coming {
            with.add(one);
        }
        let Some(gone) = self.evict_beyond(bounds, &counted, &with).await? else {
            self.eviction.note_late(false);
            return Ok(false);
        };
        self.eviction.note_freed();
        let mut tally = self.count_kept(bounds, beside).await?;
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
        // Others may have shared out room meanwhile, and what they keep may not be there yet.
        self.eviction.with_tally(|known| {
            if let Some(known) = known {
                tally.add_since(&counted, known);
            }
            *known = Some(tally);
        });
        self.eviction.note_late(gone.is_late);
        Ok(gone.is_late)
    }

    /// Evicts what is beyond the bounds of what is kept, `with` what is coming; `None`: nothing is.
    async fn evict_beyond(
        &self,
        bounds: &Bounds,
        kept: &Tally,
        with: &Tally,
    ) -> Result<Option<Gone>, StorageError> {
        let is_over = bounds.disk.is_some_and(|most| with.total > most);
        let names: Vec<String> = with.of.keys().cloned().collect();
        let over_own = names.into_iter().filter_map(|name| {
            let (has, most) = (*with.of.get(&name)?, bounds.of(&name)?);
            (has > most).then(|| (name, has - (most - most / SLACK)))
        });
        let over_own: Vec<(String, u64)> = over_own.collect();
        if !is_over && over_own.is_empty() {
            return Ok(None);
        }
        self.write_uses(true).await;
        let mut gone = Gone::default();
        let until = Instant::now() + self.eviction.slice();
        for (name, bytes) in over_own {
            let names = [(name, true)];
            let goal = Goal::Records(bytes);
            gone.add(self.evict(bounds, &names, goal, until).await?);
        }
        if let Some(most) = bounds.disk.filter(|_| is_over) {
            let bytes = (with.total - (most - most / SLACK)).saturating_sub(gone.freed);
            gone.add(self.evict_of_all(bounds, kept, bytes, until).await?);
        }
        Ok(Some(gone))
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
        until: Instant,
    ) -> Result<Gone, StorageError> {
        let now = self.now();
        let last = self.eviction.last_thorough.load(Ordering::Relaxed);
        let thoroughly = now.0.saturating_sub(last) >= THOROUGHLY_EVERY_MS || last > now.0;
        if thoroughly {
            self.eviction.last_thorough.store(now.0, Ordering::Relaxed);
        }
        let superseded = self
            .metadata
            .free_superseded(thoroughly, now, &self.blobs, until)
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
            gone.add(self.evict(bounds, &names, goal, until).await?);
        }
        Ok(gone)
    }

    /// Evicts records of these repositories until so much has gone, or nothing more may go, or time is up.
    async fn evict(
        &self,
        bounds: &Bounds,
        names: &[(String, bool)],
        goal: Goal,
        until: Instant,
    ) -> Result<Gone, StorageError> {
        let mut gone = Gone::default();
        let mut vain = Vain::begin(&self.eviction, &self.metadata, goal)?;
        let mut victims = Victims::new(&self.metadata, &self.uses, names, self.now());
        while goal.left(gone) > 0 {
            gone.is_late = Instant::now() >= until;
            if gone.is_late {
                break;
            }
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
                    ..Gone::default()
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
            let freed = self.free_due_until(until).await?;
            gone.freed += freed;
            vain.note(freed, gone.records)?;
        }
        // Files of records that have gone may be left.
        gone.is_late |= Instant::now() >= until;
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

    /// Deletes the files that evicted records have left, and the rest another time; gives their bytes.
    async fn free_due_until(&self, until: Instant) -> Result<u64, StorageError> {
        let freed = self.metadata.free_due_until(self.now(), &self.blobs, until);
        let (files, bytes) = freed.await?;
        self.count_deleted(files, bytes);
        Ok(bytes)
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

#[cfg(test)]
#[path = "evict_tests.rs"]
mod tests;
