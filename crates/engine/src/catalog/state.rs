//! The catalog itself: reading and amending single records, what is known of absences, derivations.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use larder_core::{ArtifactRecord, Clock, Digest, RepositoryName, SourceKey, UnixMillis, believed};
use larder_storage::{
    BlobStore, Change, DerivedRecord, Expected, MetadataStore, StorageError, Writer,
};
use larder_upstream::in_request;

use super::absences::{Absence, Absences};
use super::asked::Asked;
use super::bounds::Eviction;
use super::commits::CommitQueue;
use super::noted::noted;
use super::records::Records;
use super::trouble::Trouble;
use super::uses::{Reading, Use, Uses, upload_key};
use crate::budget::{BudgetKind, Budgets, Lease};
use crate::counters::Counters;
use crate::news::{Named, News, NewsDesk};
use crate::repositories::RepositoryState;
use crate::target::Target;

/// Records, what is remembered of absences, and the epochs of repositories.
#[derive(Debug)]
pub(crate) struct Catalog {
    pub(super) metadata: MetadataStore,
    pub(super) records: Records,
    pub(super) absences: Absences,
    /// What is learnt here, for other replicas.
    pub(super) news: Arc<NewsDesk>,
    pub(super) blobs: Arc<dyn BlobStore>,
    pub(super) clock: Arc<dyn Clock>,
    /// This engine, among the users of the database.
    pub(super) writer: Writer,
    pub(super) queue: CommitQueue,
    pub(super) budgets: Arc<Budgets>,
    /// Held by whoever makes records visible that others are compared with.
    pub(super) committing: tokio::sync::Mutex<()>,
    /// How many notices are on their way to other engines.
    pub(super) announcing: AtomicUsize,
    /// Held by whoever deletes the rows of invalid records.
    pub(super) sweeping: tokio::sync::Mutex<()>,
    pub(super) trouble: Trouble,
    pub(super) counters: Arc<Counters>,
    /// When a full disk last made larder look for what can go, in milliseconds.
    pub(super) last_room_made: AtomicI64,
    pub(super) uses: Uses,
    pub(super) eviction: Eviction,
    pub(super) asked: Asked,
}

impl Catalog {
    pub(crate) fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// The record, from memory or from the database.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn record(
        &self,
        key: &SourceKey,
    ) -> Result<Option<Arc<ArtifactRecord>>, StorageError> {
        self.records.get(key).await
    }

    /// The record, if there is one and it can be read.
    pub(crate) async fn known(&self, key: &SourceKey) -> Option<Arc<ArtifactRecord>> {
        self.records.get(key).await.ok().flatten()
    }

    /// The record is read from the database again: another replica may have changed it.
    pub(crate) fn forget_in_memory(&self, key: &SourceKey) {
        self.records.remove(key);
    }

    /// The record as the database has it, whatever is in memory, where it stays.
    pub(crate) async fn stored(&self, key: &SourceKey) -> Option<Arc<ArtifactRecord>> {
        let record = self.metadata.record(key).await.ok().flatten()?;
        Some(Arc::new(believed(record, self.clock.now())))
    }

    /// The record, if it is in memory.
    pub(crate) fn peek(&self, key: &SourceKey) -> Option<Arc<ArtifactRecord>> {
        self.records.peek(key)
    }

    /// Whether nothing more is to be written but what frees space.
    pub(crate) fn is_disk_low(&self) -> bool {
        self.blobs.free_space().is_ok_and(|space| space.is_low())
    }

    /// Remembers what brings no bytes; on a nearly full disk in memory only. What has meanwhile got other bytes stays as it is.
    ///
    /// # Errors
    /// The database does not take it.
    pub(crate) async fn remember(
        &self,
        wanted: &Target,
        record: Arc<ArtifactRecord>,
    ) -> Result<(), StorageError> {
        let key = &wanted.key;
        if !self.is_disk_low() {
            let change = amended(key.clone(), ArtifactRecord::clone(&record));
            let changes = std::iter::once(change).chain(noted(wanted, &record));
            let applied = self
                .metadata
                .apply_by(self.writer, changes.collect(), Vec::new());
            if !applied.await?.left.is_empty() {
                self.records.remove(key);
                return Ok(());
            }
        }
        self.absences.remove(key);
        self.records.put(key.clone(), record);
        Ok(())
    }

    /// Takes a record out of the database, memory and the hot set, unless it is of other bytes by now than those of `record`.
    pub(crate) async fn drop_record(
        &self,
        entry: &RepositoryState,
        key: &SourceKey,
        record: &ArtifactRecord,
    ) {
        let change = Change::DeleteRecord { key: key.clone() };
        let change = match record.blob() {
            Some(blob) => Change::If {
                expected: Expected::Bytes(vec![blob.digest.clone()]),
                change: Box::new(change),
            },
            None => change,
        };
        let applied = self
            .metadata
            .apply_by(self.writer, vec![change], superseded(entry));
        if let Err(error) = applied.await {
            in_request(|| tracing::error!(%error, %key, "a record could not be dropped"));
        }
        self.records.remove(key);
        entry.bump();
    }

    /// What is known of records has changed, and not their bytes: writes it, and gives the keys of those that have other bytes by now, or
    /// are gone; they are left alone.
    async fn write_amended(
        &self,
        records: Vec<(SourceKey, ArtifactRecord)>,
    ) -> Result<Vec<SourceKey>, StorageError> {
        let changes = records
            .into_iter()
            .map(|(key, record)| amended(key, record));
        let applied = self
            .metadata
            .apply_by(self.writer, changes.collect(), Vec::new());
        Ok(applied.await?.left)
    }

    /// Files that nothing vouches for any more, because their document is gone: unverified from now on, for whoever is served next.
    pub(crate) async fn unvouch(
        &self,
        entry: &RepositoryState,
        files: Vec<(SourceKey, Arc<ArtifactRecord>)>,
    ) {
        if files.is_empty() {
            return;
        }
        let unverified: Vec<_> = files
            .into_iter()
            .map(|(key, record)| (key, without_voucher(&record)))
            .collect();
        let changes = unverified
            .iter()
            .map(|(key, record)| amended(key.clone(), record.clone()))
            .collect();
        let applied = self
            .metadata
            .apply_by(self.writer, changes, superseded(entry));
        let Ok(receipt) = applied.await else {
            return;
        };
        for (key, record) in unverified {
            if receipt.left.contains(&key) {
                self.records.remove(&key);
            } else {
                self.records.put(key, Arc::new(record));
            }
        }
        entry.bump();
    }

    /// The same for what was found by looking through the database. Where it cannot be written for want of space, they go.
    ///
    /// # Errors
    /// The database does not take it.
    pub(crate) async fn doubt(
        &self,
        files: Vec<(SourceKey, ArtifactRecord)>,
    ) -> Result<(), StorageError> {
        let unverified = files
            .iter()
            .map(|(key, record)| (key.clone(), without_voucher(record)));
        let result = match self.write_amended(unverified.collect()).await {
            Err(error) if error.is_full() => {
                let gone = files
                    .iter()
                    .map(|(key, _)| Change::DeleteRecord { key: key.clone() });
                self.metadata
                    .apply_by(self.writer, gone.collect(), Vec::new())
                    .await
                    .map(drop)
            }
            other => other.map(drop),
        };
        for (key, _) in &files {
            self.records.remove(key);
        }
        result
    }

    /// A record is asked for.
    pub(crate) fn used(&self, key: &SourceKey) -> Arc<Use> {
        self.uses.of(key, false, self.now())
    }

    /// A record is being compared with what the upstream has, or is wanted if there is nothing better: until this is dropped it is not
    /// evicted.
    pub(crate) fn needed(&self, key: &SourceKey) -> Option<Reading> {
        Reading::begin(&self.used(key))
    }

    /// An uploaded file is asked for.
    pub(crate) fn used_upload(&self, repository: &RepositoryName, path: &str) -> Arc<Use> {
        let key = upload_key(repository, path);
        self.uses.of(&key, true, self.now())
    }

    /// Deletes records, whatever they are: a flush.
    ///
    /// # Errors
    /// The database does not take it.
    pub(crate) async fn delete(&self, keys: Vec<SourceKey>) -> Result<(), StorageError> {
        let changes = keys.iter().map(|key| Change::DeleteRecords {
            repository: key.repository.clone(),
            keys: vec![(key.path.to_string(), key.variant.to_string())],
        });
        let applied = self
            .metadata
            .apply_by(self.writer, changes.collect(), Vec::new());
        let result = applied.await.map(drop);
        for key in &keys {
            self.records.remove(key);
        }
        result
    }

    /// Writes what has changed of records beside their bytes, and deletes others, in one transaction.
    ///
    /// # Errors
    /// The database does not take it.
    pub(crate) async fn retire(
        &self,
        amend: Vec<(SourceKey, ArtifactRecord)>,
        delete: Vec<(SourceKey, ArtifactRecord)>,
    ) -> Result<(), StorageError> {
        let keys: Vec<SourceKey> = amend
            .iter()
            .chain(&delete)
            .map(|(key, _)| key.clone())
            .collect();
        let deleted = delete.into_iter().map(|(key, record)| Change::If {
            expected: Expected::Bytes(bytes_of(&record)),
            change: Box::new(Change::DeleteRecord { key }),
        });
        let changes = amend
            .into_iter()
            .map(|(key, record)| amended(key, record))
            .chain(deleted);
        self.metadata
            .apply_by(self.writer, changes.collect(), Vec::new())
            .await?;
        for key in &keys {
            self.records.remove(key);
        }
        Ok(())
    }

    /// A derived document that is kept, by its key.
    pub(crate) async fn derivation(&self, key: &str) -> Option<DerivedRecord> {
        self.metadata.derivation(key).await.ok().flatten()
    }

    /// Keeps a derived document whose blob is in the store already.
    ///
    /// # Errors
    /// The database does not take it.
    pub(crate) async fn keep_derivation(&self, derivation: Change) -> Result<(), StorageError> {
        self.metadata
            .apply_by(self.writer, vec![derivation], Vec::new())
            .await
            .map(drop)
    }

    /// Where it is said what has been learnt of upstreams.
    pub(crate) fn news(&self) -> &Arc<NewsDesk> {
        &self.news
    }

    /// What is remembered of an absence, if it still holds.
    pub(crate) fn absence(&self, entry: &RepositoryState, key: &SourceKey) -> Option<Absence> {
        let ttl = entry.repository.cache.negative_ttl;
        self.absences.get(key, ttl, self.now())
    }

    /// The file is still not named by what has arrived since.
    pub(crate) fn confirm_absence(&self, key: &SourceKey, arrivals: u64) {
        self.absences.confirm(key, arrivals);
    }

    /// What was said to be absent may be there.
    pub(crate) fn end_absence(&self, key: &SourceKey) {
        self.absences.remove(key);
    }

    /// Forgets the absences of which `which` is true, and those that are over.
    pub(crate) fn forget_absences(&self, which: impl FnMut(&SourceKey) -> bool) {
        self.absences.forget(self.now(), which);
    }

    /// Waits for room for the body of this source among what is to be committed, and not for ever. Before the upstream is asked: committing
    /// takes a disk's time, and a quick upstream would fill the queue with open files until nobody can open one (hazard R5). How many
    /// downloads are under way is bounded by their own places.
    pub(crate) async fn spool_room(&self, wanted: &Target) {
        self.eviction.within().await;
        let repository = wanted.key.repository.as_str();
        // What has come to be committed takes its place by itself.
        drop(
            self.budgets
                .place_if_any(spools_of(wanted), repository)
                .await,
        );
    }

    /// A place there for a body that has arrived: it waits for nobody.
    pub(crate) fn spool_place_now(&self, wanted: &Target) -> Lease {
        let repository = wanted.key.repository.as_str();
        self.budgets.take_anyway(spools_of(wanted), repository)
    }

    /// Storage that does not take what it should.
    pub(crate) fn trouble(&self) -> &Trouble {
        &self.trouble
    }
}

/// A record that has changed otherwise than by other bytes.
fn amended(key: SourceKey, record: ArtifactRecord) -> Change {
    let expected = match record.blob() {
        Some(_) => Expected::Bytes(bytes_of(&record)),
        // Bytes say more than what was told of them.
        None => Expected::NotLater {
            heard_of: UnixMillis(i64::MIN),
            but: Vec::new(),
        },
    };
    let put = Change::PutRecord {
        key,
        record,
        blob: None,
    };
    Change::If {
        expected,
        change: Box::new(put),
    }
}

pub(super) fn bytes_of(record: &ArtifactRecord) -> Vec<Digest> {
    record
        .blob()
        .map(|blob| blob.digest.clone())
        .into_iter()
        .collect()
}

fn without_voucher(record: &ArtifactRecord) -> ArtifactRecord {
    ArtifactRecord {
        verified: false,
        ..record.clone()
    }
}

/// Of which kind a source's spool is.
fn spools_of(wanted: &Target) -> BudgetKind {
    if wanted.is_waited_for() {
        BudgetKind::DocumentSpools
    } else {
        BudgetKind::Spools
    }
}

/// What other engines are told when an epoch is raised along with a change.
pub(super) fn superseded(entry: &RepositoryState) -> Vec<larder_storage::Notice> {
    vec![larder_storage::Notice::Superseded(
        entry.repository.name.clone(),
    )]
}

impl Catalog {
    /// Counts blobs that were deleted.
    pub(super) fn count_deleted(&self, blobs: u64, bytes: u64) {
        let counters = &self.counters;
        counters
            .gc_blobs_deleted
            .fetch_add(blobs, Ordering::Relaxed);
        counters.gc_bytes_freed.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Another replica was told a moment ago that there is nothing.
    pub(crate) fn heard_absent(&self, entry: &RepositoryState, key: &SourceKey, status: u16) {
        self.keep_absence(entry, key, (status, self.now()));
    }

    /// Remembers that the upstream has said, with this status and at this time, that there is nothing; other replicas are told.
    pub(super) fn note_absence(
        &self,
        entry: &RepositoryState,
        key: &SourceKey,
        (status, at): (u16, UnixMillis),
    ) {
        self.keep_absence(entry, key, (status, at));
        self.news.say(|| News::Absence {
            of: Named::of(key),
            origins: entry.origins.each_ref().map(ToString::to_string),
            status,
        });
    }

    fn keep_absence(
        &self,
        entry: &RepositoryState,
        key: &SourceKey,
        (status, at): (u16, UnixMillis),
    ) {
        let absence = Absence {
            status,
            at,
            arrivals: entry.arrivals.load(Ordering::Acquire),
        };
        let ttl = entry.repository.cache.negative_ttl;
        self.absences.note(key.clone(), absence, ttl);
    }
}
