//! Blob, then record, then the in-process copy, in this order and in groups. Who waits for a record to become visible is told when it is.

use std::sync::Arc;

use larder_core::{ArtifactRecord, Digest, SourceKey, UnixMillis, fresh_until};
use larder_storage::{BlobInfo, Change, Expected, Receipt, SealedSpool, StorageError};
use tokio::sync::MutexGuard;

use super::commits::{Batch, Commit, Landing, RecordChange};
use super::noted::{noted, noted_by_digest};
use super::state::{Catalog, superseded};
use crate::counters::count;
use crate::target::Target;

/// The right to make records visible that others are compared with: as long as it is held, nobody else does.
#[derive(Debug)]
pub(crate) struct Exclusive<'a> {
    pub(super) catalog: &'a Catalog,
    _alone: MutexGuard<'a, ()>,
}

impl Exclusive<'_> {
    /// Makes changes durable and visible, and waits for that. What could not be written is not kept, and who waits for it is told so.
    pub(crate) async fn commit(&self, batch: Batch<'_>) {
        self.catalog.commit_batch(batch).await;
    }
}

struct Prepared {
    wanted: Arc<Target>,
    landing: Arc<dyn Landing>,
    replaces: Option<Arc<ArtifactRecord>>,
    key: SourceKey,
    also: Option<(SourceKey, Arc<ArtifactRecord>)>,
    record: Option<Arc<ArtifactRecord>>,
    blob: Option<BlobInfo>,
    is_new: bool,
    /// The status that says that there is nothing, and when it came.
    absence: Option<(u16, UnixMillis)>,
    /// Whether the database is told.
    written: bool,
}

impl Catalog {
    /// Waits until nobody else makes records visible.
    pub(crate) async fn exclusive(&self) -> Exclusive<'_> {
        Exclusive {
            catalog: self,
            _alone: self.committing.lock().await,
        }
    }

    async fn commit_batch(&self, mut batch: Batch<'_>) {
        let (mut ready, waiting) = self.prepare(std::mem::take(&mut batch.commits));
        let waiting = self.within_bounds(waiting).await;
        ready.extend(self.publish_group(waiting).await);
        if !ready.iter().any(|one| one.is_new) && self.is_disk_low() {
            // What brings no bytes is remembered in memory until there is space again: each row is one more that a full disk has to take.
            ready
                .iter_mut()
                .filter(|one| one.record.is_some())
                .for_each(|one| one.written = false);
        }
        let mut applied = self.write(&ready, &batch).await;
        // What belongs to a document becomes visible with it or not at all; what was enqueued does not depend on each other.
        let is_of_deletion = applied.as_ref().is_err_and(StorageError::is_of_deletion);
        if is_of_deletion && batch.entry.is_none() && self.leave_out_condemned(&mut ready).await {
            applied = self.write(&ready, &batch).await;
        }
        if let Err(error) = &applied {
            self.trouble.tell_unwritten(error);
        } else if ready.iter().any(|one| one.is_new) {
            self.trouble.note_kept();
        }
        if applied.is_ok() && !batch.contradicted.is_empty() {
            for key in batch.contradicted {
                self.records.remove(key);
            }
            batch.entry.inspect(|entry| entry.bump());
        }
        for prepared in ready {
            self.make_visible(prepared, applied.as_ref().ok());
        }
        // Answers from these downloads carry the epoch of before.
        if batch.restate.is_some_and(|restate| restate()) {
            batch.entry.inspect(|entry| entry.bump());
        }
    }

    async fn write(&self, ready: &[Prepared], batch: &Batch<'_>) -> Result<Receipt, StorageError> {
        let drops = batch
            .contradicted
            .iter()
            .map(|key| Change::DeleteRecord { key: key.clone() });
        let changes = drops
            .chain(ready.iter().filter(|one| one.written).flat_map(changes_of))
            .collect::<Vec<_>>();
        let notices = self.superseded_by(ready, batch);
        self.metadata.apply_by(self.writer, changes, notices).await
    }

    /// Those whose blobs are being deleted are served and not kept, so that the others are: who has begun it may have died, and then it takes
    /// until somebody goes on with it. Whether there are others.
    async fn leave_out_condemned(&self, ready: &mut Vec<Prepared>) -> bool {
        let digest_of = |one: &Prepared| Some(one.blob.as_ref()?.descriptor.digest.clone());
        let digests: Vec<Digest> = ready.iter().filter_map(digest_of).collect();
        let Ok(condemned) = self.metadata.condemned_of(&digests).await else {
            return false;
        };
        let is_out = |one: &Prepared| {
            digest_of(one).is_some_and(|digest| condemned.contains(&digest.to_string()))
        };
        let (out, others): (Vec<_>, Vec<_>) = std::mem::take(ready).into_iter().partition(is_out);
        *ready = others;
        for one in out {
            tracing::debug!(key = %one.key, "a download is served and not kept: the same bytes are being deleted");
            self.make_visible(one, None);
        }
        !ready.is_empty()
    }

    /// What other engines are told: which repositories' epochs this raises.
    fn superseded_by(&self, ready: &[Prepared], batch: &Batch<'_>) -> Vec<larder_storage::Notice> {
        let by_document = batch.entry.filter(|_| !batch.contradicted.is_empty());
        let by_commit = ready.iter().filter(|one| {
            let before = one.replaces.clone().or_else(|| self.records.peek(&one.key));
            before.is_some_and(|before| {
                self.is_superseded(&one.wanted, &before, one.record.as_deref())
            })
        });
        let mut notices = Vec::new();
        for entry in by_document
            .into_iter()
            .chain(by_commit.map(|one| &*one.wanted.entry))
        {
            for notice in superseded(entry) {
                if !notices.contains(&notice) {
                    notices.push(notice);
                }
            }
        }
        notices
    }

    /// What is to be written at once, and what has bytes to be published first. What was flushed meanwhile is left out.
    fn prepare(&self, commits: Vec<Commit>) -> (Vec<Prepared>, Vec<(Prepared, SealedSpool)>) {
        let mut ready = Vec::new();
        let mut waiting = Vec::new();
        for Commit {
            wanted,
            landing,
            change,
            replaces,
        } in commits
        {
            if landing.is_flushed() {
                landing.landed();
                count(&wanted.entry.counters.fills_not_kept);
                continue;
            }
            let key = wanted.key.clone();
            let is_restated = landing.is_restated();
            let is_known = replaces.is_some() || self.records.peek(&key).is_some();
            let prepared = |record, is_new, also| Prepared {
                wanted,
                landing,
                replaces,
                key,
                also,
                record,
                blob: None,
                is_new,
                absence: None,
                written: true,
            };
            match change {
                RecordChange::Store {
                    record,
                    spool,
                    also,
                } => {
                    let record = trusted(record, is_restated);
                    waiting.push((prepared(Some(record), true, also), spool));
                }
                RecordChange::Renew { record } => {
                    let record = trusted(record, is_restated);
                    ready.push(prepared(Some(record), false, None));
                }
                RecordChange::Drop => ready.push(prepared(None, false, None)),
                RecordChange::Absent {
                    status,
                    at,
                    was_held,
                } => ready.push(Prepared {
                    absence: Some((status, at)),
                    written: was_held || is_known,
                    ..prepared(None, false, None)
                }),
            }
        }
        (ready, waiting)
    }

    /// Those that there is room for, which is made first. The others are served and not kept.
    async fn within_bounds(
        &self,
        waiting: Vec<(Prepared, SealedSpool)>,
    ) -> Vec<(Prepared, SealedSpool)> {
        let coming: Vec<_> = waiting
            .iter()
            .map(|(one, spool)| (one.key.repository.clone(), spool.descriptor.size))
            .collect();
        let mut fits = self.make_room_for(&coming).await.into_iter();
        let mut kept = Vec::with_capacity(waiting.len());
        for (one, spool) in waiting {
            if fits.next().unwrap_or(true) {
                kept.push((one, spool));
                continue;
            }
            self.not_kept_for_room(&one.landing, &one.wanted, spool.descriptor.size);
        }
        kept
    }

    /// Says that a download of so many bytes was served and not kept, since there is no room for it.
    pub(super) fn not_kept_for_room(
        &self,
        landing: &Arc<dyn Landing>,
        wanted: &Target,
        bytes: u64,
    ) {
        let say = || self.trouble.warn_no_room(&wanted.key, bytes);
        landing.span().in_scope(say);
        count(&wanted.entry.counters.fills_not_kept);
        landing.landed();
    }

    async fn publish_group(&self, waiting: Vec<(Prepared, SealedSpool)>) -> Vec<Prepared> {
        if waiting.is_empty() {
            return Vec::new();
        }
        let (mut prepared, spools): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        let mut results = self.blobs.publish(spools).await.into_iter();
        prepared.retain_mut(|one| match results.next() {
            Some(Ok(info)) => {
                one.blob = Some(info);
                true
            }
            failed => {
                let say = || {
                    if let Some(error) = failed.and_then(Result::err) {
                        self.trouble.warn_not_kept(&error);
                    } else {
                        tracing::warn!(key = %one.key, "a download was served and not kept: its writing was interrupted");
                    }
                };
                one.landing.span().in_scope(say);
                count(&one.wanted.entry.counters.fills_not_kept);
                one.landing.landed();
                false
            }
        });
        prepared
    }

    fn make_visible(&self, prepared: Prepared, applied: Option<&Receipt>) {
        let Prepared {
            wanted,
            landing,
            replaces,
            key,
            also,
            record,
            is_new,
            absence,
            ..
        } = prepared;
        // What was found to be something else than expected has been changed by somebody else, and is read anew.
        let is_left = applied.is_some_and(|receipt| receipt.left.contains(&key));
        let applied = applied.is_some() && !is_left;
        let before = replaces.or_else(|| self.records.peek(&key));
        if let Some(absence) = absence {
            self.note_absence(&wanted.entry, &key, absence);
        }
        if applied {
            self.take_over(&key, record.as_ref(), also);
            let is_news = record.as_ref().is_some_and(|now| {
                before
                    .as_ref()
                    .is_none_or(|before| before.blob() != now.blob())
            });
            if is_new && is_news && wanted.spec.is_document {
                wanted.entry.arrived();
            }
            if is_new {
                count(&wanted.entry.counters.fills_committed);
            }
        } else if is_new {
            count(&wanted.entry.counters.fills_not_kept);
        }
        if is_left {
            self.records.remove(&key);
        }
        // What was remembered of an expired copy has expired with it; a copy that is replaced before its time is taken back.
        if applied
            && before.is_some_and(|before| self.is_superseded(&wanted, &before, record.as_deref()))
        {
            wanted.entry.bump();
        }
        landing.landed();
    }

    /// Takes what the database has been told into the in-process copy; `also` is the name by digest of the same bytes.
    fn take_over(
        &self,
        key: &SourceKey,
        record: Option<&Arc<ArtifactRecord>>,
        also: Option<(SourceKey, Arc<ArtifactRecord>)>,
    ) {
        let Some(record) = record else {
            self.records.remove(key);
            return;
        };
        if let Some((also, record)) = also {
            self.absences.remove(&also);
            self.records.put(also, record);
        }
        self.absences.remove(key);
        self.records.put(key.clone(), Arc::clone(record));
    }

    /// Whether a copy that was still fresh has given way to other bytes, or to none.
    fn is_superseded(
        &self,
        wanted: &Target,
        before: &ArtifactRecord,
        after: Option<&ArtifactRecord>,
    ) -> bool {
        let until = fresh_until(
            before,
            wanted.class_of(before),
            &wanted.entry.repository.cache,
        );
        let was_fresh =
            before.blob().is_some() && until.is_none_or(|until| self.clock.now() < until);
        was_fresh && after.is_none_or(|after| after.blob() != before.blob())
    }
}

/// What vouched for it does so no more, if it was restated.
fn trusted(record: Arc<ArtifactRecord>, is_restated: bool) -> Arc<ArtifactRecord> {
    if !is_restated {
        return record;
    }
    Arc::new(ArtifactRecord {
        verified: false,
        ..ArtifactRecord::clone(&record)
    })
}

fn changes_of(prepared: &Prepared) -> impl Iterator<Item = Change> {
    let key = prepared.key.clone();
    let put = |key, record| Change::PutRecord {
        key,
        record,
        blob: prepared.blob.clone(),
    };
    let expires = prepared.record.as_deref().and_then(|record| {
        record.blob()?;
        let wanted = &prepared.wanted;
        let class = wanted.class_of(record);
        let at = fresh_until(record, class, &wanted.entry.repository.cache)?;
        let key = prepared.key.clone();
        Some(Change::Expires { key, at })
    });
    let change = match &prepared.record {
        Some(record) => Change::If {
            expected: expected(prepared, record),
            change: Box::new(put(key, ArtifactRecord::clone(record))),
        },
        None => Change::DeleteRecord { key },
    };
    let age = |record: &Arc<ArtifactRecord>| noted(&prepared.wanted, record);
    let age = prepared.record.as_ref().and_then(age);
    let also = prepared.also.as_ref().map(|(key, record)| {
        let age = noted_by_digest(&prepared.wanted, key, record);
        (put(key.clone(), ArtifactRecord::clone(record)), age)
    });
    let (also, age_also) = also.unzip();
    [Some(change), also, expires, age, age_also.flatten()]
        .into_iter()
        .flatten()
}

/// What a record may replace. New bytes replace those that were there when they were asked for, and any that were heard of before; news
/// of bytes that are held is for those bytes only.
fn expected(prepared: &Prepared, record: &ArtifactRecord) -> Expected {
    let digest = |record: &ArtifactRecord| record.blob().map(|blob| blob.digest.clone());
    let known: Vec<Digest> = digest(record)
        .into_iter()
        .chain(prepared.replaces.as_deref().and_then(digest))
        .collect();
    if prepared.is_new || record.blob().is_none() {
        Expected::NotLater {
            heard_of: record.contacted_at,
            but: known,
        }
    } else {
        Expected::Bytes(known)
    }
}
