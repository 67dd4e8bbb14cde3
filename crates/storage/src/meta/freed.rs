//! What dropped records leave behind, by a flush or by eviction: blobs that nothing refers to any more are due at once, without the
//! collector's grace, and forms that were made of dropped documents go with them (docs/adr/0094).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use larder_core::UnixMillis;

use super::condemn::{CONDEMN_UNREFERENCED, LOCK_BLOBS, unreferenced};
use super::db::{DbError, Row, Sql};
use super::lists::{as_list, each};
use super::{MetadataStore, Tx};
use crate::blob::BlobStore;
use crate::error::StorageError;

const DROP_DERIVED: Sql = Sql {
    sqlite: concat!(
        "DELETE FROM derivations WHERE derivation IN (SELECT s.derivation FROM derivation_sources AS s WHERE s.source IN (",
        each!(sqlite),
        ") AND NOT EXISTS (SELECT 1 FROM artifacts AS a WHERE a.blob = s.source)) RETURNING blob"
    ),
    postgres: concat!(
        "DELETE FROM derivations WHERE derivation IN (SELECT s.derivation FROM derivation_sources AS s WHERE s.source = ANY (ARRAY(",
        each!(postgres),
        ")) AND NOT EXISTS (SELECT 1 FROM artifacts AS a WHERE a.blob = s.source)) RETURNING blob"
    ),
};
/// Due by every clock. Whoever refers to one again takes the date away.
const DUE_AT_ONCE: Sql = Sql {
    sqlite: concat!(
        "UPDATE blobs SET delete_after = 0 WHERE digest IN (",
        each!(sqlite),
        ") AND condemned_by IS NULL",
        unreferenced!("blobs.digest")
    ),
    postgres: concat!(
        "UPDATE blobs SET delete_after = 0 WHERE digest = ANY (ARRAY(",
        each!(postgres),
        ")) AND condemned_by IS NULL",
        unreferenced!("blobs.digest")
    ),
};
const BRING_FORWARD: &str =
    "UPDATE blobs SET delete_after = 0 WHERE delete_after > 0 AND condemned_by IS NULL";

impl MetadataStore {
    /// Deletes the blobs whose date has come by `now`, row and file: those of what was flushed or evicted are due at once. Gives their
    /// number and bytes.
    ///
    /// # Errors
    /// The database or the blob store fails; the next call goes on.
    pub async fn free_due(
        &self,
        now: UnixMillis,
        blobs: &Arc<dyn BlobStore>,
    ) -> Result<(u64, u64), StorageError> {
        self.noticed(self.delete_due(now, blobs, None).await)
    }

    /// As that, as far as it comes by `until`.
    ///
    /// # Errors
    /// As there.
    pub async fn free_due_until(
        &self,
        now: UnixMillis,
        blobs: &Arc<dyn BlobStore>,
        until: Instant,
    ) -> Result<(u64, u64), StorageError> {
        self.noticed(self.delete_due(now, blobs, Some(until)).await)
    }

    /// Deletes what nothing refers to any more, without a grace, as far as it comes by `until`: what the collector has dated already;
    /// `thoroughly`: after looking through all that there is, and with what was made of documents that have been replaced. Gives number and
    /// bytes of the files.
    ///
    /// # Errors
    /// The database or the blob store fails; the next call goes on.
    pub async fn free_superseded(
        &self,
        thoroughly: bool,
        now: UnixMillis,
        blobs: &Arc<dyn BlobStore>,
        until: Instant,
    ) -> Result<(u64, u64), StorageError> {
        let freed = async {
            if thoroughly {
                self.collect_derivations(now, now).await?;
                self.date_blobs(UnixMillis(0)).await?;
            } else {
                let failed = |error| StorageError::from_sql("look for superseded blobs", error);
                let brought = self.db().patiently().execute(BRING_FORWARD, &[]).await;
                brought.map_err(failed)?;
            }
            self.delete_due(now, blobs, Some(until)).await
        };
        self.noticed(freed.await)
    }
}

/// Takes note of the blobs of records that this transaction has deleted: the first column of `rows`.
pub(super) async fn note(tx: &mut Tx, rows: &[Row]) -> Result<(), DbError> {
    let left = left_by(tx, rows).await?;
    if !left.is_empty() {
        tx.execute(DUE_AT_ONCE, &[as_list(&left).into()]).await?;
    }
    Ok(())
}

/// As that, for a store that deletes their files as soon as this durable transaction is committed: condemns them. Gives rows of digest and
/// length.
pub(super) async fn condemn(
    tx: &mut Tx,
    rows: &[Row],
    by: &str,
    now: UnixMillis,
) -> Result<Vec<Row>, DbError> {
    let left = left_by(tx, rows).await?;
    if left.is_empty() {
        return Ok(Vec::new());
    }
    let values = [as_list(&left).into(), now.0.into(), by.into()];
    tx.all(LOCK_BLOBS, &values[..1]).await?;
    tx.all(CONDEMN_UNREFERENCED, &values).await
}

/// What the records in `rows` had, and what was made of it.
async fn left_by(tx: &mut Tx, rows: &[Row]) -> Result<BTreeSet<String>, DbError> {
    let mut left = column(rows)?;
    if !left.is_empty() {
        let derived = tx.all(DROP_DERIVED, &[as_list(&left).into()]).await?;
        left.extend(column(&derived)?);
    }
    Ok(left)
}

/// Each once, and in order: others lock the same rows in the same order.
fn column(rows: &[Row]) -> Result<BTreeSet<String>, DbError> {
    let mut texts = BTreeSet::new();
    for row in rows {
        texts.extend(row.get::<Option<String>>(0)?);
    }
    Ok(texts)
}
