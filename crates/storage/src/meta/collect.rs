//! The collector: takes away, after a grace time, what nothing refers to any more (hazard L3).
//!
//! 1. Derivations of which a source is no longer any record's are marked `delete_after`; those for which that time has come, and which are still without
//!    that source, go.
//! 2. Blobs to which neither a record nor a derivation nor an uploaded file refers are marked `delete_after`. Whoever refers to one again takes the
//!    date away.
//! 3. Blobs whose date has come are condemned, where a second look in the same transaction finds no reference: that is durable
//!    before anything else happens, and from then on nobody can refer to them. Then the files go, unless someone of this process has
//!    just published them; no connection is held meanwhile. Then the rows are forgotten.
//! 4. Files without a row that are older than the grace go the same way, a bounded number each time: condemned by a row first.
//! 5. What a store has condemned that died before it was done is taken over, after a while.
//!
//! A crash in between leaves a condemned row with or without its file, never a row that anything refers to without a file
//! (docs/adr/0065).

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use larder_core::{BlobDescriptor, Clock as _, SystemClock, UnixMillis};

use super::condemn::{Candidate, Ground, LOCK_BLOBS, deleting, taken_over, unreferenced};
use super::db::{DbError, Row, Sql, list_of};
use super::lists::{as_list, each};
use super::patience::Patience;
use super::{MetadataStore, parse_digest};
use crate::blob::BlobStore;
use crate::error::StorageError;

/// Rows looked at or changed at a time: the writer is free for others in between.
const PAGE: i64 = 200;
/// Blobs that are looked at in one statement.
const WALKED: i64 = 1_000;
/// Files that one run of the orphan sweep looks at: this many pages of a thousand.
const SWEEP_PAGES: usize = 10;
const SWEEP_PAGE: usize = 1000;

const LOST_SOURCE: &str = "SELECT derivation FROM derivations AS d WHERE derivation > $1 AND (delete_after IS NULL OR delete_after > $2) \
     AND EXISTS (SELECT 1 FROM derivation_sources AS s WHERE s.derivation = d.derivation \
                 AND NOT EXISTS (SELECT 1 FROM artifacts AS a WHERE a.blob = s.source)) \
     ORDER BY derivation LIMIT $3";
const DATE_DERIVATIONS: Sql = Sql {
    sqlite: concat!(
        "UPDATE derivations SET delete_after = $2 WHERE derivation IN (",
        each!(sqlite),
        ")"
    ),
    postgres: concat!(
        "UPDATE derivations SET delete_after = $2 WHERE derivation = ANY (ARRAY(",
        each!(postgres),
        "))"
    ),
};
const FOUND_SOURCES: &str = "UPDATE derivations SET delete_after = NULL WHERE delete_after IS NOT NULL \
     AND NOT EXISTS (SELECT 1 FROM derivation_sources AS s WHERE s.derivation = derivations.derivation \
                     AND NOT EXISTS (SELECT 1 FROM artifacts AS a WHERE a.blob = s.source))";
const DROP_DERIVATIONS: &str = "DELETE FROM derivations WHERE derivation IN \
     (SELECT derivation FROM derivations WHERE delete_after <= $1 ORDER BY delete_after LIMIT $2) AND delete_after <= $1";

/// Of the next blobs the last, and those that nothing refers to. So many are looked at in each statement, whatever comes of it: the
/// engines' own ways to find the first few of many are to look at all, each time.
macro_rules! is_unreferenced {
    () => {
        concat!(
            "(WHERE (delete_after IS NULL OR delete_after > $2) AND condemned_by IS NULL",
            unreferenced!("page.digest"),
            ")"
        )
    };
}
const UNREFERENCED: Sql = Sql {
    sqlite: concat!(
        "SELECT COALESCE(MAX(digest), ''), json_group_array(digest) FILTER ",
        is_unreferenced!(),
        " FROM (SELECT digest, delete_after, condemned_by FROM blobs WHERE digest > $1 ORDER BY digest LIMIT $3) AS page"
    ),
    postgres: concat!(
        "SELECT COALESCE(MAX(digest), ''), COALESCE((json_agg(digest) FILTER ",
        is_unreferenced!(),
        ")::text, '[]') FROM (SELECT digest, delete_after, condemned_by FROM blobs WHERE digest > $1 ORDER BY digest LIMIT $3) AS page"
    ),
};
const DATE_BLOBS: Sql = Sql {
    sqlite: concat!(
        "UPDATE blobs SET delete_after = $2 WHERE digest IN (",
        each!(sqlite),
        ") AND condemned_by IS NULL",
        unreferenced!("blobs.digest")
    ),
    postgres: concat!(
        "UPDATE blobs SET delete_after = $2 WHERE digest = ANY (ARRAY(",
        each!(postgres),
        ")) AND condemned_by IS NULL",
        unreferenced!("blobs.digest")
    ),
};
const DUE: &str = "SELECT digest, size, delete_after FROM blobs WHERE delete_after <= $1 AND (delete_after, digest) > ($2, $3) \
     AND condemned_by IS NULL ORDER BY delete_after, digest LIMIT $4";
const INHERIT: &str =
    "UPDATE blobs SET condemned_by = $1 WHERE condemned_by IS NOT NULL AND condemned_by <> $1";
/// Those of this store are what an earlier run has not got through.
const LEFT_BEHIND: &str = "SELECT digest, size, condemned_at FROM blobs WHERE condemned_by IS NOT NULL \
     AND (condemned_by = $1 OR condemned_at <= $2) AND (condemned_at, digest) > ($3, $4) ORDER BY condemned_at, digest LIMIT $5";

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
        let (due, due_bytes) = self.delete_due(now, blobs, None).await?;
        report.blobs_deleted = left_behind + due;
        let (orphans, bytes) = self.sweep(now, grace, blobs).await?;
        report.bytes_freed = left_bytes + due_bytes;
        report.orphans_deleted = orphans;
        report.bytes_freed += bytes;
        Ok(report)
    }

    pub(super) async fn collect_derivations(
        &self,
        now: UnixMillis,
        date: UnixMillis,
    ) -> Result<u64, StorageError> {
        let failed = |error| StorageError::from_sql("collect derivations", error);
        let db = self.db().patiently();
        let collected = async {
            db.execute(FOUND_SOURCES, &[]).await?;
            let mut after = String::new();
            loop {
                let values = [(&*after).into(), date.0.into(), PAGE.into()];
                let page = texts(&db.all(LOST_SOURCE, &values).await?)?;
                let Some(last) = page.last() else { break };
                after.clone_from(last);
                let values = [as_list(&page).into(), date.0.into()];
                db.execute(DATE_DERIVATIONS, &values).await?;
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

    pub(super) async fn date_blobs(&self, date: UnixMillis) -> Result<u64, StorageError> {
        let failed = |error| StorageError::from_sql("look for unreferenced blobs", error);
        let db = self.db().patiently();
        let found = async {
            let mut dated = 0;
            let mut after = String::new();
            loop {
                let values = [(&*after).into(), date.0.into(), WALKED.into()];
                let row = db.one(UNREFERENCED, &values).await?;
                after = row.get(0)?;
                if after.is_empty() {
                    return Ok(dated);
                }
                let found = list_of(&row.get::<String>(1)?)?;
                for page in found.chunks(PAGE as usize) {
                    dated += self.date_page(page, date).await?;
                }
            }
        };
        found.await.map_err(failed)
    }

    /// Dates those of some blobs that are still without a reference. Gives how many were dated.
    async fn date_page(&self, digests: &[String], date: UnixMillis) -> Result<u64, DbError> {
        let list = as_list(digests);
        let values = [(&*list).into(), date.0.into()];
        let mut patience = Patience::default();
        loop {
            let dated = async {
                let mut tx = self.begin().await?;
                tx.all(LOCK_BLOBS, &values[..1]).await?;
                let dated = tx.execute(DATE_BLOBS, &values).await?;
                tx.commit().await?;
                Ok(dated)
            };
            match dated.await {
                Ok(dated) => return Ok(dated),
                Err(error) => patience.again(error).await?,
            }
        }
    }

    /// Deletes the blobs that are due and still without a reference; the rest stays due at `until`. Gives their number and bytes.
    pub(super) async fn delete_due(
        &self,
        now: UnixMillis,
        blobs: &Arc<dyn BlobStore>,
        until: Option<Instant>,
    ) -> Result<(u64, u64), StorageError> {
        let began = Instant::now();
        let (mut count, mut bytes) = (0, 0);
        let mut after = (i64::MIN, String::new());
        loop {
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok((count, bytes));
            }
            let values = [
                now.0.into(),
                after.0.into(),
                (&*after.1).into(),
                PAGE.into(),
            ];
            let page = self.db().all(DUE, &values).await;
            let page = page.map_err(deleting)?;
            let Some(last) = page.last() else {
                return Ok((count, bytes));
            };
            after = place_of(last).map_err(deleting)?;
            let mut page = self.candidates(&page).map_err(deleting)?;
            page.retain(|(digest, _)| !self.shared.undeleted.rests(digest));
            // The time of each page is its own: others take over what was condemned long ago.
            let now = now.plus(began.elapsed());
            let deleted = self.delete_until(page, Ground::Due, now, blobs, until);
            let (number, sum) = deleted.await?;
            count += number;
            bytes += sum;
        }
    }

    /// Goes on with what was condemned and not forgotten: by this store in an earlier run, or by one that has died.
    pub(super) async fn delete_left_behind(
        &self,
        now: UnixMillis,
        blobs: &Arc<dyn BlobStore>,
    ) -> Result<(u64, u64), StorageError> {
        let began = Instant::now();
        let (mut count, mut bytes) = (0, 0);
        let mut after = (i64::MIN, String::new());
        loop {
            let values = [
                (&*self.shared.name).into(),
                taken_over(now).into(),
                after.0.into(),
                (&*after.1).into(),
                PAGE.into(),
            ];
            let page = self.db().all(LEFT_BEHIND, &values).await;
            let page = page.map_err(deleting)?;
            let Some(last) = page.last() else {
                return Ok((count, bytes));
            };
            after = place_of(last).map_err(deleting)?;
            let page = self.candidates(&page).map_err(deleting)?;
            let now = now.plus(began.elapsed());
            let (number, sum) = self.delete(page, Ground::LeftBehind, now, blobs).await?;
            count += number;
            bytes += sum;
        }
    }

    /// Goes on with all that was condemned and not forgotten. Only for whoever has the database to itself: then those who condemned it are
    /// dead, and nobody need wait until they are believed to be. What a flush has left is condemned at once, so that a kill leaves
    /// condemned blobs that are wanted again the next moment. Gives number and bytes of the files.
    ///
    /// # Errors
    /// The database or the blob store fails; a later run of the collector goes on.
    pub async fn inherit_deletions(
        &self,
        now: UnixMillis,
        blobs: &Arc<dyn BlobStore>,
    ) -> Result<(u64, u64), StorageError> {
        let inherit = [(&*self.shared.name).into()];
        let inherited = self.db().patiently().execute(INHERIT, &inherit).await;
        let deleted = match inherited.map_err(deleting) {
            Ok(0) => Ok((0, 0)),
            Ok(_) => self.delete_left_behind(now, blobs).await,
            Err(error) => Err(error),
        };
        self.noticed(deleted)
    }

    /// What rows of digest and length name. A row whose digest is none is passed over: its file, if there is one, has no row.
    pub(super) fn candidates(&self, rows: &[Row]) -> Result<Vec<Candidate>, DbError> {
        let mut candidates = Vec::with_capacity(rows.len());
        for row in rows {
            let digest: String = row.get(0)?;
            let size: i64 = row.get(1)?;
            match parse_digest(&digest) {
                Ok(digest) => candidates.push((digest, size.unsigned_abs())),
                Err(_) => self.shared.damage.note_row("collect a blob", &digest),
            }
        }
        Ok(candidates)
    }

    /// Looks at some more files on disk, and deletes those that have had no row for the grace time.
    async fn sweep(
        &self,
        now: UnixMillis,
        grace: Duration,
        blobs: &Arc<dyn BlobStore>,
    ) -> Result<(u64, u64), StorageError> {
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
            let page = blobs.list(after.as_ref(), SWEEP_PAGE).await?;
            let old = page.iter().filter(|blob| blob.modified_ns <= oldest_kept);
            let orphans = self.without_row(old.cloned().collect()).await?;
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

/// Where a row of digest, length and time stands in the order of time and digest.
fn place_of(row: &Row) -> Result<(i64, String), DbError> {
    Ok((row.get(2)?, row.get(0)?))
}

/// The first column of rows.
fn texts(rows: &[Row]) -> Result<Vec<String>, DbError> {
    rows.iter().map(|row| row.get(0)).collect()
}
