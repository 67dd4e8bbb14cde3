//! The collector: takes away, after a grace time, what nothing refers to any more (hazard L3).
//!
//! 1. Derivations of which a source is no longer any record's get a date; those whose date has come, and which are still without
//!    that source, go.
//! 2. Blobs to which neither a record nor a derivation nor an uploaded file refers get a date. Whoever refers to one again takes the
//!    date away.
//! 3. Blobs whose date has come are condemned, where a second look in the same transaction finds no reference: that is durable
//!    before anything else happens, and from then on nobody can refer to them. Then the files go, unless someone of this process has
//!    just published them; no connection is held meanwhile. Then the rows are forgotten.
//! 4. Files without a row that are older than the grace go the same way, a bounded number each time: condemned by a row first.
//! 5. What a store has condemned that died before it was done is taken over, after a while.
//!
//! A crash in between leaves a condemned row with or without its file, never a row that anything refers to without a file
//! (docs/adr/0065).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use larder_core::{BlobDescriptor, Clock as _, Digest, SystemClock, UnixMillis, sha256};

use super::db::{DbError, Durability, Row};
use super::{MetadataStore, parse_digest};
use crate::blob::{BlobStore, StoredBlob};
use crate::error::{StorageError, StorageErrorKind};

/// Rows looked at or changed at a time: the writer is free for others in between.
const PAGE: i64 = 200;
/// So long a store may go on deleting the files of blobs that it has condemned; what is left then waits for its next run.
const HOLD: Duration = Duration::from_secs(60);
/// So long after a store has condemned a blob another one takes over: much longer than [`HOLD`], for clocks differ and processes
/// may be stopped for a while between a look at the time and the deletion of a file.
const TAKE_OVER: Duration = Duration::from_mins(30);
/// Files that one run of the orphan sweep looks at: this many pages of a thousand.
const SWEEP_PAGES: usize = 10;
const SWEEP_PAGE: usize = 1000;

const LOST_SOURCE: &str = "SELECT derivation FROM derivations AS d WHERE derivation > $1 AND (delete_after IS NULL OR delete_after > $2) \
     AND EXISTS (SELECT 1 FROM derivation_sources AS s WHERE s.derivation = d.derivation \
                 AND NOT EXISTS (SELECT 1 FROM artifacts AS a WHERE a.blob = s.source)) \
     ORDER BY derivation LIMIT $3";
const DATE_DERIVATION: &str = "UPDATE derivations SET delete_after = $2 WHERE derivation = $1";
const FOUND_SOURCES: &str = "UPDATE derivations SET delete_after = NULL WHERE delete_after IS NOT NULL \
     AND NOT EXISTS (SELECT 1 FROM derivation_sources AS s WHERE s.derivation = derivations.derivation \
                     AND NOT EXISTS (SELECT 1 FROM artifacts AS a WHERE a.blob = s.source))";
const DROP_DERIVATIONS: &str = "DELETE FROM derivations WHERE derivation IN \
     (SELECT derivation FROM derivations WHERE delete_after <= $1 ORDER BY derivation LIMIT $2)";

/// Whether nothing refers to the blob whose digest is `$digest`: one line for each table that may.
macro_rules! unreferenced {
    ($digest:literal) => {
        concat!(
            " AND NOT EXISTS (SELECT 1 FROM artifacts AS a WHERE a.blob = ",
            $digest,
            ") AND NOT EXISTS (SELECT 1 FROM derivations AS d WHERE d.blob = ",
            $digest,
            ") AND NOT EXISTS (SELECT 1 FROM local_files AS l WHERE l.blob = ",
            $digest,
            ")"
        )
    };
}

const UNREFERENCED: &str = concat!(
    "SELECT digest FROM blobs AS b WHERE digest > $1 AND (delete_after IS NULL OR delete_after > $2) \
     AND condemned_by IS NULL",
    unreferenced!("b.digest"),
    " ORDER BY digest LIMIT $3"
);
const DATE_BLOB: &str = concat!(
    "UPDATE blobs SET delete_after = $2 WHERE digest = $1 AND condemned_by IS NULL",
    unreferenced!("$1")
);
const DUE: &str = "SELECT digest, size FROM blobs WHERE delete_after <= $1 AND digest > $2 AND condemned_by IS NULL \
     ORDER BY digest LIMIT $3";
const CONDEMN_DUE: &str = concat!(
    "UPDATE blobs SET condemned_by = $3, condemned_at = $2 WHERE digest = $1 AND delete_after <= $2 AND condemned_by IS NULL",
    unreferenced!("$1")
);
const CONDEMN_UNREFERENCED: &str = concat!(
    "UPDATE blobs SET condemned_by = $3, condemned_at = $2 WHERE digest = $1 AND condemned_by IS NULL",
    unreferenced!("$1")
);
const CONDEMN_ORPHAN: &str = "INSERT INTO blobs (digest, size, modified_ns, delete_after, condemned_by, condemned_at) \
     VALUES ($1, $4, 0, $2, $3, $2) ON CONFLICT (digest) DO NOTHING";
/// Those of this store are what an earlier run has not got through.
const LEFT_BEHIND: &str = "SELECT digest, size FROM blobs WHERE condemned_by IS NOT NULL \
     AND (condemned_by = $1 OR condemned_at <= $2) AND digest > $3 ORDER BY digest LIMIT $4";
const TAKE: &str = "UPDATE blobs SET condemned_by = $3, condemned_at = $2 WHERE digest = $1 \
     AND condemned_by IS NOT NULL AND (condemned_by = $3 OR condemned_at <= $4)";
const FORGET: &str = "DELETE FROM blobs WHERE digest = $1 AND condemned_by = $2";
const LET_BE: &str = "UPDATE blobs SET condemned_by = NULL, condemned_at = NULL WHERE digest = $1 AND condemned_by = $2";
const HAS_ROW: &str = "SELECT COUNT(*) FROM blobs WHERE digest = $1";

/// A blob that may be deleted, and its length.
type Candidate = (Digest, u64);

/// Why a blob is condemned.
#[derive(Debug, Clone, Copy)]
enum Ground {
    /// Its date has come.
    Due,
    /// Its row, if nothing refers to it, may go before its date.
    Unreferenced,
    /// Its file has no row.
    Orphan,
    /// It is condemned already, by a store that is not getting on.
    LeftBehind,
}

/// A name that no other store has.
pub(super) fn new_name() -> String {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    // The address differs between processes that have the same number, on two machines or one after the other.
    let here = std::ptr::from_ref(&serial).addr();
    let text = format!(
        "{} {} {serial} {here}",
        SystemClock.now().0,
        std::process::id()
    );
    sha256(text.as_bytes()).to_hex().chars().take(16).collect()
}

/// What one run of the collector did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CollectReport {
    /// Superseded derivations dropped.
    pub derivations_dropped: u64,
    /// Blobs newly found without a reference; they stay for the grace time.
    pub blobs_dated: u64,
    /// Blobs deleted, row and file.
    pub blobs_deleted: u64,
    /// Files deleted that had no row.
    pub orphans_deleted: u64,
    /// Bytes of all files deleted.
    pub bytes_freed: u64,
}

impl MetadataStore {
    /// Runs the collector once. What is found without a reference now is deleted by a run at `now + grace` or later; a run with a
    /// shorter grace brings dates forward, and one with zero deletes at once what nobody holds.
    ///
    /// # Errors
    /// The database or the blob store fails; what was begun is gone on with by the next run.
    pub async fn collect(
        &self,
        now: UnixMillis,
        grace: Duration,
        blobs: &Arc<dyn BlobStore>,
    ) -> Result<CollectReport, StorageError> {
        let result = self.collect_all(now, grace, blobs).await;
        self.noticed(result)
    }

    /// Deletes one blob at once, row and file, unless something refers to it or somebody has just published it. Whether its file
    /// went.
    ///
    /// # Errors
    /// If the database or the blob store fails.
    pub async fn collect_blob(
        &self,
        blob: &BlobDescriptor,
        blobs: &Arc<dyn BlobStore>,
    ) -> Result<bool, StorageError> {
        let collected = async {
            let now = SystemClock.now();
            let candidate = || vec![(blob.digest.clone(), blob.size)];
            let (count, _) = self
                .delete(candidate(), Ground::Unreferenced, now, blobs)
                .await?;
            if count > 0 {
                return Ok(true);
            }
            // What was published for a row that was never written has none.
            let (count, _) = self.delete(candidate(), Ground::Orphan, now, blobs).await?;
            Ok(count > 0)
        };
        self.noticed(collected.await)
    }

    async fn collect_all(
        &self,
        now: UnixMillis,
        grace: Duration,
        blobs: &Arc<dyn BlobStore>,
    ) -> Result<CollectReport, StorageError> {
        let mut report = CollectReport::default();
        let date = now.plus(grace);
        report.derivations_dropped = self.collect_derivations(now, date).await?;
        report.blobs_dated = self.date_blobs(date).await?;
        let (left_behind, left_bytes) = self.delete_left_behind(now, blobs).await?;
        let (due, due_bytes) = self.delete_due(now, blobs).await?;
        report.blobs_deleted = left_behind + due;
        let (orphans, bytes) = self.sweep(now, grace, blobs).await?;
        report.bytes_freed = left_bytes + due_bytes;
        report.orphans_deleted = orphans;
        report.bytes_freed += bytes;
        Ok(report)
    }

    async fn collect_derivations(
        &self,
        now: UnixMillis,
        date: UnixMillis,
    ) -> Result<u64, StorageError> {
        let failed = |error| StorageError::from_sql("collect derivations", error);
        let db = self.db();
        let collected = async {
            db.execute(FOUND_SOURCES, &[]).await?;
            let mut after = String::new();
            loop {
                let values = [(&*after).into(), date.0.into(), PAGE.into()];
                let page = texts(&db.all(LOST_SOURCE, &values).await?)?;
                let Some(last) = page.last() else { break };
                after.clone_from(last);
                let mut tx = self.begin().await?;
                for key in &page {
                    let values = [(&**key).into(), date.0.into()];
                    tx.execute(DATE_DERIVATION, &values).await?;
                }
                tx.commit().await?;
            }
            // Whose sources came back since they were dated.
            db.execute(FOUND_SOURCES, &[]).await?;
            let mut dropped = 0;
            loop {
                let some = db
                    .execute(DROP_DERIVATIONS, &[now.0.into(), PAGE.into()])
                    .await?;
                dropped += some;
                if some < PAGE as u64 {
                    return Ok(dropped);
                }
            }
        };
        collected.await.map_err(failed)
    }

    async fn date_blobs(&self, date: UnixMillis) -> Result<u64, StorageError> {
        let failed = |error| StorageError::from_sql("look for unreferenced blobs", error);
        let db = self.db();
        let found = async {
            let mut dated = 0;
            let mut after = String::new();
            loop {
                let values = [(&*after).into(), date.0.into(), PAGE.into()];
                let page = texts(&db.all(UNREFERENCED, &values).await?)?;
                let Some(last) = page.last() else {
                    return Ok(dated);
                };
                after.clone_from(last);
                let mut tx = self.begin().await?;
                for digest in &page {
                    let values = [(&**digest).into(), date.0.into()];
                    dated += tx.execute(DATE_BLOB, &values).await?;
                }
                tx.commit().await?;
            }
        };
        found.await.map_err(failed)
    }

    /// Deletes the blobs that are due and still without a reference. Gives their number and bytes.
    async fn delete_due(
        &self,
        now: UnixMillis,
        blobs: &Arc<dyn BlobStore>,
    ) -> Result<(u64, u64), StorageError> {
        let (mut count, mut bytes) = (0, 0);
        let mut after = String::new();
        loop {
            let values = [now.0.into(), (&*after).into(), PAGE.into()];
            let page = self.db().all(DUE, &values).await;
            let page = page.map_err(deleting)?;
            let Some(last) = page.last() else {
                return Ok((count, bytes));
            };
            after = last.get(0).map_err(deleting)?;
            let page = self.candidates(&page)?;
            let (number, sum) = self.delete(page, Ground::Due, now, blobs).await?;
            count += number;
            bytes += sum;
        }
    }

    /// Goes on with what was condemned and not forgotten: by this store in an earlier run, or by one that has died.
    async fn delete_left_behind(
        &self,
        now: UnixMillis,
        blobs: &Arc<dyn BlobStore>,
    ) -> Result<(u64, u64), StorageError> {
        let (mut count, mut bytes) = (0, 0);
        let mut after = String::new();
        loop {
            let values = [
                (&*self.shared.name).into(),
                taken_over(now).into(),
                (&*after).into(),
                PAGE.into(),
            ];
            let page = self.db().all(LEFT_BEHIND, &values).await;
            let page = page.map_err(deleting)?;
            let Some(last) = page.last() else {
                return Ok((count, bytes));
            };
            after = last.get(0).map_err(deleting)?;
            let page = self.candidates(&page)?;
            let (number, sum) = self.delete(page, Ground::LeftBehind, now, blobs).await?;
            count += number;
            bytes += sum;
        }
    }

    /// What rows of digest and length name. A row whose digest is none is passed over: its file, if there is one, has no row.
    fn candidates(&self, rows: &[Row]) -> Result<Vec<Candidate>, StorageError> {
        let mut candidates = Vec::with_capacity(rows.len());
        for row in rows {
            let digest: String = row.get(0).map_err(deleting)?;
            let size: i64 = row.get(1).map_err(deleting)?;
            match parse_digest(&digest) {
                Ok(digest) => candidates.push((digest, size.unsigned_abs())),
                Err(_) => self.shared.damage.note_row("collect a blob", &digest),
            }
        }
        Ok(candidates)
    }

    /// Condemns, deletes the files, and forgets the rows. Gives the number and bytes of the files deleted. Once begun it is done to the
    /// end, also when the caller is cancelled, and by one at a time in this store: a file whose turn came late could be another's by
    /// then.
    async fn delete(
        &self,
        candidates: Vec<Candidate>,
        ground: Ground,
        now: UnixMillis,
        blobs: &Arc<dyn BlobStore>,
    ) -> Result<(u64, u64), StorageError> {
        let deleting = Arc::clone(&self.shared.deleting).lock_owned().await;
        let (store, blobs) = (self.clone(), Arc::clone(blobs));
        let done = tokio::spawn(async move {
            let done = store.delete_alone(candidates, ground, now, &blobs).await;
            drop(deleting);
            done
        });
        done.await.unwrap_or_else(|error| Err(broken_off(error)))
    }

    async fn delete_alone(
        &self,
        candidates: Vec<Candidate>,
        ground: Ground,
        now: UnixMillis,
        blobs: &Arc<dyn BlobStore>,
    ) -> Result<(u64, u64), StorageError> {
        let condemned = self
            .condemn(candidates, ground, now)
            .await
            .map_err(deleting)?;
        if condemned.is_empty() {
            return Ok((0, 0));
        }
        let since = Instant::now();
        let work = move |blobs: &dyn BlobStore| Ok(delete_files(blobs, condemned, since));
        let deleted = on_blocking_thread(blobs, work).await?;
        self.forget(&deleted).await.map_err(deleting)?;
        match deleted.error {
            Some(error) => Err(error),
            None => Ok((deleted.count, deleted.bytes)),
        }
    }

    /// Gives those that are condemned now, by this store. Durable: else a power cut could bring back a reference to a blob whose file
    /// has gone.
    async fn condemn(
        &self,
        candidates: Vec<Candidate>,
        ground: Ground,
        now: UnixMillis,
    ) -> Result<Vec<Candidate>, DbError> {
        if candidates.is_empty() {
            return Ok(candidates);
        }
        let mut condemned = Vec::with_capacity(candidates.len());
        let mut tx = self.db().begin(Durability::Durable).await?;
        for (digest, size) in candidates {
            let (statement, more): (_, Option<i64>) = match ground {
                Ground::Due => (CONDEMN_DUE, None),
                Ground::Unreferenced => (CONDEMN_UNREFERENCED, None),
                Ground::Orphan => (CONDEMN_ORPHAN, Some(size as i64)),
                Ground::LeftBehind => (TAKE, Some(taken_over(now))),
            };
            let mut values = vec![
                digest.to_string().into(),
                now.0.into(),
                (&*self.shared.name).into(),
            ];
            values.extend(more.map(Into::into));
            if tx.execute(statement, &values).await? > 0 {
                condemned.push((digest, size));
            }
        }
        tx.commit().await?;
        Ok(condemned)
    }

    /// Forgets rows whose files are gone, or are held by somebody who is about to write the row anew; and lets those be whose files
    /// were not tried.
    async fn forget(&self, deleted: &Deleted) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        let over = deleted.over.iter().map(|digest| (FORGET, digest));
        let left = deleted.left.iter().map(|digest| (LET_BE, digest));
        for (statement, digest) in over.chain(left) {
            let values = [digest.to_string().into(), (&*self.shared.name).into()];
            tx.execute(statement, &values).await?;
        }
        tx.commit().await
    }

    /// Looks at some more files on disk, and deletes those that have had no row for the grace time.
    async fn sweep(
        &self,
        now: UnixMillis,
        grace: Duration,
        blobs: &Arc<dyn BlobStore>,
    ) -> Result<(u64, u64), StorageError> {
        let failed = |error: DbError| StorageError::from_sql("look for orphan blobs", error);
        let grace_ms = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
        let oldest_kept = now.0.saturating_sub(grace_ms).saturating_mul(1_000_000);
        let (mut count, mut bytes) = (0, 0);
        for _ in 0..SWEEP_PAGES {
            let after = self
                .shared
                .sweep
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            let page =
                on_blocking_thread(blobs, move |blobs| blobs.list(after.as_ref(), SWEEP_PAGE))
                    .await?;
            let mut orphans = Vec::new();
            for StoredBlob {
                descriptor,
                modified_ns,
            } in &page
            {
                if *modified_ns > oldest_kept {
                    continue;
                }
                let digest = descriptor.digest.to_string();
                let rows = self.db().one(HAS_ROW, &[digest.into()]).await;
                let rows: i64 = rows.and_then(|row| row.get(0)).map_err(failed)?;
                if rows == 0 {
                    orphans.push((descriptor.digest.clone(), descriptor.size));
                }
            }
            let (number, sum) = self.delete(orphans, Ground::Orphan, now, blobs).await?;
            count += number;
            bytes += sum;
            let finished = page.len() < SWEEP_PAGE;
            let next = page
                .into_iter()
                .next_back()
                .filter(|_| !finished)
                .map(|blob| blob.descriptor.digest);
            *self
                .shared
                .sweep
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = next;
            if finished {
                break;
            }
        }
        Ok((count, bytes))
    }
}

fn deleting(error: DbError) -> StorageError {
    StorageError::from_sql("delete unreferenced blobs", error)
}

/// What was condemned then or before is taken over now.
fn taken_over(now: UnixMillis) -> i64 {
    now.0
        .saturating_sub(i64::try_from(TAKE_OVER.as_millis()).unwrap_or(i64::MAX))
}

/// The first column of rows.
fn texts(rows: &[Row]) -> Result<Vec<String>, DbError> {
    rows.iter().map(|row| row.get(0)).collect()
}

/// What became of condemned blobs.
#[derive(Default)]
struct Deleted {
    /// Those that are done with: their rows may be forgotten.
    over: Vec<Digest>,
    /// Those that were not tried, or in vain.
    left: Vec<Digest>,
    /// Files deleted.
    count: u64,
    /// Their bytes.
    bytes: u64,
    /// What went wrong.
    error: Option<StorageError>,
}

/// Deletes files of blobs that were condemned at `since`, as long as that is not too long ago.
fn delete_files(blobs: &dyn BlobStore, condemned: Vec<Candidate>, since: Instant) -> Deleted {
    let mut deleted = Deleted::default();
    for (digest, size) in condemned {
        if since.elapsed() > HOLD || deleted.error.is_some() {
            deleted.left.push(digest);
            continue;
        }
        match blobs.delete(&digest) {
            Ok(was_there) => {
                deleted.count += u64::from(was_there);
                deleted.bytes += if was_there { size } else { 0 };
                deleted.over.push(digest);
            }
            Err(error) => {
                deleted.error = Some(error);
                deleted.left.push(digest);
            }
        }
    }
    deleted
}

async fn on_blocking_thread<T: Send + 'static>(
    blobs: &Arc<dyn BlobStore>,
    work: impl FnOnce(&dyn BlobStore) -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    let blobs = Arc::clone(blobs);
    let done = tokio::task::spawn_blocking(move || work(&*blobs)).await;
    done.unwrap_or_else(|error| Err(broken_off(error)))
}

fn broken_off(error: tokio::task::JoinError) -> StorageError {
    StorageError {
        kind: StorageErrorKind::Unavailable,
        message: "the collector's work on the blob store was broken off".to_owned(),
        source: Some(Box::new(error)),
    }
}
