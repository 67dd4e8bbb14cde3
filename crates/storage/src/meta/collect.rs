//! The collector: takes away, after a grace time, what nothing refers to any more (hazard L3).
//!
//! 1. Derivations of which a source is no longer any record's get a date; those whose date has come, and which are still without
//!    that source, go.
//! 2. Blobs to which neither a record nor a derivation nor an uploaded file refers get a date. Whoever refers to one again takes the date away.
//! 3. Rows whose date has come are deleted where a second look in the same transaction finds no reference; then that is made durable;
//!    then, with the writer's connection in hand so that no row can appear, the file goes, unless someone has just published it.
//!    A crash in between leaves a file without a row, never a row without a file.
//! 4. Files without a row that are older than the grace go too, a bounded number each time.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use larder_core::{BlobDescriptor, Digest, UnixMillis};

use super::{MetadataStore, parse_digest};
use crate::blob::{BlobStore, StoredBlob};
use crate::error::{StorageError, StorageErrorKind};

/// Rows looked at or changed at a time: the writer is free for others in between.
const PAGE: i64 = 200;
/// Files whose absence from the table is checked under one hold of the writer.
const UNLINKS: usize = 16;
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

const UNREFERENCED: &str = "SELECT digest FROM blobs AS b WHERE digest > $1 AND (delete_after IS NULL OR delete_after > $2) \
     AND NOT EXISTS (SELECT 1 FROM artifacts AS a WHERE a.blob = b.digest) \
     AND NOT EXISTS (SELECT 1 FROM derivations AS d WHERE d.blob = b.digest) \
     AND NOT EXISTS (SELECT 1 FROM local_files AS l WHERE l.blob = b.digest) \
     ORDER BY digest LIMIT $3";
const DATE_BLOB: &str = "UPDATE blobs SET delete_after = $2 WHERE digest = $1 \
     AND NOT EXISTS (SELECT 1 FROM artifacts AS a WHERE a.blob = $1) \
     AND NOT EXISTS (SELECT 1 FROM derivations AS d WHERE d.blob = $1) \
     AND NOT EXISTS (SELECT 1 FROM local_files AS l WHERE l.blob = $1)";
const DUE: &str = "SELECT digest, size FROM blobs WHERE delete_after <= $1 AND digest > $2 ORDER BY digest LIMIT $3";
const DELETE_DUE: &str = "DELETE FROM blobs WHERE digest = $1 AND delete_after <= $2 \
     AND NOT EXISTS (SELECT 1 FROM artifacts AS a WHERE a.blob = $1) \
     AND NOT EXISTS (SELECT 1 FROM derivations AS d WHERE d.blob = $1) \
     AND NOT EXISTS (SELECT 1 FROM local_files AS l WHERE l.blob = $1)";
const DELETE_UNREFERENCED: &str = "DELETE FROM blobs WHERE digest = $1 \
     AND NOT EXISTS (SELECT 1 FROM artifacts AS a WHERE a.blob = $1) \
     AND NOT EXISTS (SELECT 1 FROM derivations AS d WHERE d.blob = $1) \
     AND NOT EXISTS (SELECT 1 FROM local_files AS l WHERE l.blob = $1)";
const HAS_ROW: &str = "SELECT COUNT(*) FROM blobs WHERE digest = $1";
/// Synchronises the write-ahead log (<https://www.sqlite.org/pragma.html#pragma_wal_checkpoint>).
const CHECKPOINT: &str = "PRAGMA wal_checkpoint(PASSIVE)";

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
        let failed = |error| StorageError::from_sql("delete an unreferenced blob", error);
        let collected = async {
            let deleted = sqlx::query(DELETE_UNREFERENCED)
                .bind(blob.digest.to_string())
                .execute(&self.writer())
                .await
                .map_err(failed)?;
            if deleted.rows_affected() > 0 {
                // Else a power cut could bring the row back after its file is gone.
                sqlx::query(CHECKPOINT)
                    .execute(&self.writer())
                    .await
                    .map_err(failed)?;
            }
            let (files, _) = self
                .unlink(vec![(blob.digest.clone(), blob.size)], blobs)
                .await?;
            Ok(files > 0)
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
        let due = self.delete_due_rows(now).await?;
        (report.blobs_deleted, report.bytes_freed) = self.unlink(due, blobs).await?;
        let (orphans, bytes) = self.sweep(now, grace, blobs).await?;
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
        sqlx::query(FOUND_SOURCES)
            .execute(&self.writer())
            .await
            .map_err(failed)?;
        let mut after = String::new();
        loop {
            let page: Vec<String> = sqlx::query_scalar(LOST_SOURCE)
                .bind(&*after)
                .bind(date.0)
                .bind(PAGE)
                .fetch_all(&self.reader())
                .await
                .map_err(failed)?;
            let Some(last) = page.last() else { break };
            after.clone_from(last);
            let mut transaction = self.begin().await.map_err(failed)?;
            for key in &page {
                sqlx::query(DATE_DERIVATION)
                    .bind(&**key)
                    .bind(date.0)
                    .execute(&mut *transaction)
                    .await
                    .map_err(failed)?;
            }
            transaction.commit().await.map_err(failed)?;
        }
        // Whose sources came back since they were dated.
        sqlx::query(FOUND_SOURCES)
            .execute(&self.writer())
            .await
            .map_err(failed)?;
        let mut dropped = 0;
        loop {
            let result = sqlx::query(DROP_DERIVATIONS)
                .bind(now.0)
                .bind(PAGE)
                .execute(&self.writer())
                .await
                .map_err(failed)?;
            dropped += result.rows_affected();
            if result.rows_affected() < PAGE as u64 {
                return Ok(dropped);
            }
        }
    }

    async fn date_blobs(&self, date: UnixMillis) -> Result<u64, StorageError> {
        let failed = |error| StorageError::from_sql("look for unreferenced blobs", error);
        let mut dated = 0;
        let mut after = String::new();
        loop {
            let page: Vec<String> = sqlx::query_scalar(UNREFERENCED)
                .bind(&*after)
                .bind(date.0)
                .bind(PAGE)
                .fetch_all(&self.reader())
                .await
                .map_err(failed)?;
            let Some(last) = page.last() else {
                return Ok(dated);
            };
            after.clone_from(last);
            let mut transaction = self.begin().await.map_err(failed)?;
            for digest in &page {
                let result = sqlx::query(DATE_BLOB)
                    .bind(&**digest)
                    .bind(date.0)
                    .execute(&mut *transaction)
                    .await;
                dated += result.map_err(failed)?.rows_affected();
            }
            transaction.commit().await.map_err(failed)?;
        }
    }

    /// Deletes the rows that are due and still without a reference, durably. Gives the blobs whose files may go.
    async fn delete_due_rows(&self, now: UnixMillis) -> Result<Vec<(Digest, u64)>, StorageError> {
        let failed = |error| StorageError::from_sql("delete unreferenced blobs", error);
        let mut deleted = Vec::new();
        let mut after = String::new();
        loop {
            let page: Vec<(String, i64)> = sqlx::query_as(DUE)
                .bind(now.0)
                .bind(&*after)
                .bind(PAGE)
                .fetch_all(&self.reader())
                .await
                .map_err(failed)?;
            let Some((last, _)) = page.last() else { break };
            after.clone_from(last);
            let mut transaction = self.begin().await.map_err(failed)?;
            for (digest, size) in &page {
                let result = sqlx::query(DELETE_DUE)
                    .bind(&**digest)
                    .bind(now.0)
                    .execute(&mut *transaction)
                    .await;
                if result.map_err(failed)?.rows_affected() > 0 {
                    match parse_digest(digest) {
                        Ok(digest) => deleted.push((digest, size.unsigned_abs())),
                        // Its file has no row, and goes as such.
                        Err(_) => self.shared.damage.note_row("collect a blob", digest),
                    }
                }
            }
            transaction.commit().await.map_err(failed)?;
        }
        if !deleted.is_empty() {
            // Else a power cut could bring the rows back after their files are gone.
            sqlx::query(CHECKPOINT)
                .execute(&self.writer())
                .await
                .map_err(failed)?;
        }
        Ok(deleted)
    }

    /// Deletes the files of blobs that have no row. No row can appear meanwhile: this holds the only connection that writes. A file
    /// published but not yet referred to is held by its pin. Gives their number and bytes.
    async fn unlink(
        &self,
        files: Vec<(Digest, u64)>,
        blobs: &Arc<dyn BlobStore>,
    ) -> Result<(u64, u64), StorageError> {
        let failed = |error| StorageError::from_sql("delete unreferenced blobs", error);
        let (mut count, mut bytes) = (0, 0);
        for chunk in files.chunks(UNLINKS) {
            let mut transaction = self.begin().await.map_err(failed)?;
            let mut gone = Vec::with_capacity(chunk.len());
            for (digest, size) in chunk {
                let rows: i64 = sqlx::query_scalar(HAS_ROW)
                    .bind(digest.to_string())
                    .fetch_one(&mut *transaction)
                    .await
                    .map_err(failed)?;
                if rows == 0 {
                    gone.push((digest.clone(), *size));
                }
            }
            let (number, sum) =
                on_blocking_thread(blobs, move |blobs| delete_files(blobs, &gone)).await?;
            transaction.rollback().await.map_err(failed)?;
            count += number;
            bytes += sum;
        }
        Ok((count, bytes))
    }

    /// Looks at some more files on disk, and deletes those that have had no row for the grace time.
    async fn sweep(
        &self,
        now: UnixMillis,
        grace: Duration,
        blobs: &Arc<dyn BlobStore>,
    ) -> Result<(u64, u64), StorageError> {
        let failed = |error| StorageError::from_sql("look for orphan blobs", error);
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
                let rows: i64 = sqlx::query_scalar(HAS_ROW)
                    .bind(descriptor.digest.to_string())
                    .fetch_one(&self.reader())
                    .await
                    .map_err(failed)?;
                if rows == 0 {
                    orphans.push((descriptor.digest.clone(), descriptor.size));
                }
            }
            let (number, sum) = self.unlink(orphans, blobs).await?;
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

fn delete_files(
    blobs: &dyn BlobStore,
    files: &[(Digest, u64)],
) -> Result<(u64, u64), StorageError> {
    let (mut count, mut bytes) = (0, 0);
    for (digest, size) in files {
        if blobs.delete(digest)? {
            count += 1;
            bytes += size;
        }
    }
    Ok((count, bytes))
}

async fn on_blocking_thread<T: Send + 'static>(
    blobs: &Arc<dyn BlobStore>,
    work: impl FnOnce(&dyn BlobStore) -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    let blobs = Arc::clone(blobs);
    let done = tokio::task::spawn_blocking(move || work(&*blobs)).await;
    done.unwrap_or_else(|error| {
        let message = "the collector's work on the blob store was broken off".to_owned();
        Err(StorageError {
            kind: StorageErrorKind::Unavailable,
            message,
            source: Some(Box::new(error)),
        })
    })
}
