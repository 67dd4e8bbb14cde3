//! What is held, as operators see it: how much of each repository, and one row after another.

use larder_core::{ArtifactRecord, RepositoryName};

use super::MetadataStore;
use super::artifacts::parse;
use super::db::{DbError, Row};
use super::invalid::{KeyRange, is_valid, valid};
use crate::error::StorageError;

/// Answered from an index of its own.
const SIZES: &str = "SELECT repository, COUNT(size), CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM artifacts \
     WHERE size IS NOT NULL GROUP BY repository ORDER BY repository";
/// As that, while invalid records are still to be deleted: reads the rows of all that is held.
const VALID_SIZES: &str = "SELECT a.repository, COUNT(a.size), CAST(COALESCE(SUM(a.size), 0) AS BIGINT) FROM artifacts AS a \
     LEFT JOIN epochs AS e ON e.repository = a.repository WHERE a.size IS NOT NULL AND a.epoch >= COALESCE(e.invalid_before, 0) \
     AND NOT EXISTS (SELECT 1 FROM invalid_records AS i WHERE i.repository = a.repository AND i.path = a.path \
                     AND i.variant = a.variant AND a.epoch < i.epoch) \
     GROUP BY a.repository ORDER BY a.repository";
const ROWS: &str = concat!(
    "SELECT rowid, path, variant, record, CAST(CASE WHEN ",
    valid!(),
    " THEN 1 ELSE 0 END AS BIGINT) FROM artifacts AS a \
     WHERE repository = $1 AND (path, variant) >= ($2, $3) AND path < $4 ORDER BY path, variant LIMIT $5"
);
const ROW: &str = "SELECT path, variant FROM artifacts WHERE rowid = $1 AND repository = $2";
const VARIANTS: &str = concat!(
    "SELECT variant FROM artifacts AS a WHERE repository = $1 AND path = $2 AND ",
    valid!(),
    " ORDER BY variant"
);

/// How much a repository holds. Bytes that several names have are counted with each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldSize {
    /// The repository's name; it may be configured no longer.
    pub repository: String,
    /// Documents and files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A row of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRow {
    /// Where the row is at present, for [`MetadataStore::held_place`].
    pub row: i64,
    /// The key's path.
    pub path: String,
    /// The key's variant.
    pub variant: String,
    /// `None` if it cannot be read, or is invalid.
    pub record: Option<ArtifactRecord>,
}

impl MetadataStore {
    /// How much is held of each repository, sorted by name; those that hold nothing are left out. Reads an index of all that is held,
    /// so not for every request.
    pub async fn held_sizes(&self) -> Result<Vec<HeldSize>, StorageError> {
        let counted = async {
            let statement = if self.is_unswept().await? {
                VALID_SIZES
            } else {
                SIZES
            };
            self.db().patiently().all(statement, &[]).await
        };
        let rows = counted.await.and_then(|rows| {
            let size = |row: Row| {
                Ok(HeldSize {
                    repository: row.get(0)?,
                    files: row.get::<i64>(1)?.unsigned_abs(),
                    bytes: row.get::<i64>(2)?.unsigned_abs(),
                })
            };
            rows.into_iter().map(size).collect()
        });
        self.noticed(rows.map_err(|e: DbError| StorageError::from_sql("count what is held", e)))
    }

    /// Up to `limit` rows of a repository from the beginning of a range on, ordered by path and variant bytewise. Fewer than `limit`:
    /// these are the last.
    pub async fn held_rows(
        &self,
        repository: &RepositoryName,
        range: &KeyRange,
        limit: u32,
    ) -> Result<Vec<HeldRow>, StorageError> {
        let values = range.values(repository.as_str(), limit);
        let rows = self.db().all(ROWS, &values).await.and_then(|rows| {
            let row = |row: Row| {
                let stored = if is_valid(&row, 4)? {
                    Some(row.get(3)?)
                } else {
                    None
                };
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, stored))
            };
            rows.into_iter().map(row).collect()
        });
        let rows: Vec<(i64, String, String, Option<Vec<u8>>)> = self
            .noticed(rows.map_err(|e: DbError| StorageError::from_sql("list what is held", e)))?;
        let row = |(row, path, variant, stored): (i64, String, String, Option<Vec<u8>>)| {
            let key = [repository.as_str(), &path, &variant];
            let record = stored.and_then(|stored| parse(&self.shared.damage, key, &stored));
            HeldRow {
                row,
                path,
                variant,
                record,
            }
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// Path and variant of a row, if it is still there.
    pub async fn held_place(
        &self,
        repository: &RepositoryName,
        row: i64,
    ) -> Result<Option<(String, String)>, StorageError> {
        let values = [row.into(), repository.as_str().into()];
        let place = self.db().optional(ROW, &values).await.and_then(|row| {
            let place = |row: Row| Ok((row.get(0)?, row.get(1)?));
            row.map(place).transpose()
        });
        self.noticed(place.map_err(|e: DbError| StorageError::from_sql("find a row", e)))
    }

    /// The variants under which something is remembered of a path.
    pub async fn variants(
        &self,
        repository: &RepositoryName,
        path: &str,
    ) -> Result<Vec<String>, StorageError> {
        let values = [repository.as_str().into(), path.into()];
        let variants = self.db().all(VARIANTS, &values).await;
        let variants = variants.and_then(|rows| rows.iter().map(|row| row.get(0)).collect());
        let failed = |e: DbError| StorageError::from_sql("list the variants of a path", e);
        self.noticed(variants.map_err(failed))
    }
}
