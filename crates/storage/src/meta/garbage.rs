//! The collector when an operator asks for it: what it deletes, by reason, and what it would delete.

use std::sync::Arc;
use std::time::Duration;

use larder_core::UnixMillis;

use super::MetadataStore;
use super::condemn::{Candidate, Ground, taken_over, unreferenced};
use super::db::{DbError, Sql, Value, list_of};
use super::lists::{as_list, each};
use crate::blob::{BlobStore, StoredBlob};
use crate::error::StorageError;

/// Files that are looked at together.
const PAGE: usize = 1_000;
const DOING: &str = "look for garbage";

const DUE: &str = concat!(
    "SELECT COUNT(*), CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM blobs WHERE delete_after <= $1 AND condemned_by IS NULL",
    unreferenced!("blobs.digest")
);
const WAITING: &str = concat!(
    "SELECT COUNT(*), CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM blobs WHERE (delete_after IS NULL OR delete_after > $1) \
     AND condemned_by IS NULL",
    unreferenced!("blobs.digest")
);
const LEFT_BEHIND: &str = "SELECT COUNT(*), CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM blobs \
     WHERE condemned_by IS NOT NULL AND (condemned_by = $1 OR condemned_at <= $2)";
const SUPERSEDED: &str = "SELECT COUNT(*) FROM derivations AS d WHERE delete_after <= $1 \
     AND EXISTS (SELECT 1 FROM derivation_sources AS s WHERE s.derivation = d.derivation \
                 AND NOT EXISTS (SELECT 1 FROM artifacts AS a WHERE a.blob = s.source))";
/// Those of a list that have a row.
const WITH_ROW: Sql = Sql {
    sqlite: concat!(
        "SELECT COALESCE(json_group_array(digest), '[]') FROM blobs WHERE digest IN (",
        each!(sqlite),
        ")"
    ),
    postgres: concat!(
        "SELECT COALESCE(json_agg(digest)::text, '[]') FROM blobs WHERE digest = ANY (ARRAY(",
        each!(postgres),
        "))"
    ),
};

/// Some blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heap {
    /// How many.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Heap {
    fn of((blobs, bytes): (u64, u64)) -> Self {
        Self { blobs, bytes }
    }
}

/// What the collector deletes or would delete, by reason, and what is not old enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Garbage {
    /// Forms of documents that have been replaced: rows, whose blobs then have no reference.
    pub superseded: u64,
    /// Blobs that nothing refers to, and that have waited out their time.
    pub unreferenced: Heap,
    /// Blobs whose deletion a process has begun and not ended.
    pub left_behind: Heap,
    /// Files that have no row, older than the grace.
    pub orphans: Heap,
    /// Blobs of them whose files could not be deleted.
    pub undeleted: Heap,
    /// Blobs that nothing refers to at present, and that stay until they have waited out their time.
    pub waiting: Heap,
}

impl MetadataStore {
    /// What [`collect_garbage`](Self::collect_garbage) would delete now. Changes nothing.
    ///
    /// # Errors
    /// The database or the blob store fails.
    pub async fn look_for_garbage(
        &self,
        now: UnixMillis,
        grace: Duration,
        blobs: &Arc<dyn BlobStore>,
    ) -> Result<Garbage, StorageError> {
        let looked = async {
            let of_now = [now.0.into()];
            let left = [(&*self.shared.name).into(), taken_over(now).into()];
            let superseded = self.db().patiently().one(SUPERSEDED, &of_now).await;
            let superseded = superseded.and_then(|row| row.get::<i64>(0));
            Ok(Garbage {
                superseded: superseded.map_err(failed)?.unsigned_abs(),
                unreferenced: self.heap(DUE, &of_now).await?,
                left_behind: self.heap(LEFT_BEHIND, &left).await?,
                orphans: self.orphans(now, grace, blobs, false).await?,
                undeleted: Heap::default(),
                waiting: self.heap(WAITING, &of_now).await?,
            })
        };
        self.noticed(looked.await)
    }

    /// Runs the collector as [`collect`](Self::collect) does, and looks at all files, not only at some.
    ///
    /// # Errors
    /// The database or the blob store fails; what was begun is gone on with by the next run.
    pub async fn collect_garbage(
        &self,
        now: UnixMillis,
        grace: Duration,
        blobs: &Arc<dyn BlobStore>,
    ) -> Result<Garbage, StorageError> {
        let collected = async {
            self.shared.undeleted.forget_all();
            let date = now.plus(grace);
            let superseded = self.collect_derivations(now, date).await?;
            self.date_blobs(date).await?;
            let left_behind = Heap::of(self.delete_left_behind(now, blobs).await?);
            let unreferenced = Heap::of(self.delete_due(now, blobs, None).await?);
            let orphans = self.orphans(now, grace, blobs, true).await?;
            let undeleted = self.undeleted();
            Ok(Garbage {
                superseded,
                left_behind,
                unreferenced,
                orphans,
                undeleted: Heap::of((undeleted.blobs, undeleted.bytes)),
                waiting: self.heap(WAITING, &[now.0.into()]).await?,
            })
        };
        self.noticed(collected.await)
    }

    async fn heap(
        &self,
        statement: &'static str,
        values: &[Value<'_>],
    ) -> Result<Heap, StorageError> {
        let row = self.db().patiently().one(statement, values).await;
        let counted = row.and_then(|row| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?)));
        let (blobs, bytes) = counted.map_err(failed)?;
        Ok(Heap::of((blobs.unsigned_abs(), bytes.unsigned_abs())))
    }

    /// Files without a row, of all that there are; deletes them, if that is meant.
    async fn orphans(
        &self,
        now: UnixMillis,
        grace: Duration,
        blobs: &Arc<dyn BlobStore>,
        deletes: bool,
    ) -> Result<Heap, StorageError> {
        let grace_ms = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
        let oldest_kept = now.0.saturating_sub(grace_ms).saturating_mul(1_000_000);
        let mut heap = Heap::default();
        let mut after = None;
        loop {
            let page = blobs.list(after.as_ref(), PAGE).await?;
            let is_last = page.len() < PAGE;
            after = page.last().map(|blob| blob.descriptor.digest.clone());
            let old = page
                .into_iter()
                .filter(|blob| blob.modified_ns <= oldest_kept);
            let orphans = self.without_row(old.collect()).await?;
            let (number, bytes) = if deletes {
                self.delete(orphans, Ground::Orphan, now, blobs).await?
            } else {
                let bytes = orphans.iter().map(|(_, size)| size).sum();
                (orphans.len() as u64, bytes)
            };
            heap.blobs += number;
            heap.bytes += bytes;
            if is_last {
                return Ok(heap);
            }
        }
    }

    /// Those of some files that have no row.
    pub(super) async fn without_row(
        &self,
        files: Vec<StoredBlob>,
    ) -> Result<Vec<Candidate>, StorageError> {
        let list = as_list(files.iter().map(|file| file.descriptor.digest.to_string()));
        let row = self.db().patiently().one(WITH_ROW, &[list.into()]).await;
        let known = row.and_then(|row| list_of(&row.get::<String>(0)?));
        let known = known.map_err(failed)?;
        let known: std::collections::HashSet<String> = known.into_iter().collect();
        let files = files
            .into_iter()
            .filter(|file| !known.contains(&file.descriptor.digest.to_string()));
        Ok(files
            .map(|file| (file.descriptor.digest, file.descriptor.size))
            .collect())
    }
}

fn failed(error: DbError) -> StorageError {
    StorageError::from_sql(DOING, error)
}
