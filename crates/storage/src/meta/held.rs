//! What is held, as operators see it: how much of each repository, and one row after another.

use larder_core::{ArtifactRecord, RepositoryName};

use super::MetadataStore;
use super::artifacts::parse;
use crate::error::StorageError;

/// Answered from an index of its own.
const SIZES: &str = "SELECT repository, COUNT(size), CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM artifacts \
     WHERE size IS NOT NULL GROUP BY repository ORDER BY repository";
const ROWS: &str = "SELECT rowid, path, variant, record FROM artifacts \
     WHERE repository = $1 AND (path, variant) > ($2, $3) ORDER BY path, variant LIMIT $4";
const ROW: &str = "SELECT path, variant FROM artifacts WHERE rowid = $1 AND repository = $2";
const VARIANTS: &str =
    "SELECT variant FROM artifacts WHERE repository = $1 AND path = $2 ORDER BY variant";

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
    /// `None` if it cannot be read.
    pub record: Option<ArtifactRecord>,
}

impl MetadataStore {
    /// How much is held of each repository, sorted by name; those that hold nothing are left out. Reads an index of all that is held,
    /// so not for every request.
    pub async fn held_sizes(&self) -> Result<Vec<HeldSize>, StorageError> {
        let rows = sqlx::query_as(SIZES).fetch_all(&self.reader()).await;
        let rows: Vec<(String, i64, i64)> =
            self.noticed(rows.map_err(|e| StorageError::from_sql("count what is held", e)))?;
        let size = |(repository, files, bytes)| HeldSize {
            repository,
            files: files as u64,
            bytes: bytes as u64,
        };
        Ok(rows.into_iter().map(size).collect())
    }

    /// Up to `limit` rows of a repository after this path and variant, ordered by them bytewise. Fewer than `limit`: these are the last.
    pub async fn held_rows(
        &self,
        repository: &RepositoryName,
        (path, variant): (&str, &str),
        limit: u32,
    ) -> Result<Vec<HeldRow>, StorageError> {
        let rows = sqlx::query_as(ROWS)
            .bind(repository.as_str())
            .bind(path)
            .bind(variant)
            .bind(i64::from(limit))
            .fetch_all(&self.reader())
            .await;
        let rows: Vec<(i64, String, String, Vec<u8>)> =
            self.noticed(rows.map_err(|e| StorageError::from_sql("list what is held", e)))?;
        let row = |(row, path, variant, text): (i64, String, String, Vec<u8>)| {
            let record = parse(
                &self.shared.damage,
                [repository.as_str(), &path, &variant],
                &String::from_utf8_lossy(&text),
            );
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
        let place = sqlx::query_as(ROW)
            .bind(row)
            .bind(repository.as_str())
            .fetch_optional(&self.reader())
            .await;
        self.noticed(place.map_err(|e| StorageError::from_sql("find a row", e)))
    }

    /// The variants under which something is remembered of a path.
    pub async fn variants(
        &self,
        repository: &RepositoryName,
        path: &str,
    ) -> Result<Vec<String>, StorageError> {
        let variants = sqlx::query_scalar(VARIANTS)
            .bind(repository.as_str())
            .bind(path)
            .fetch_all(&self.reader())
            .await;
        self.noticed(variants.map_err(|e| StorageError::from_sql("list the variants of a path", e)))
    }
}
