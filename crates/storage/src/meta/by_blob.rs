//! Which records and uploaded files have the same bytes, found by the digest or by how it begins.

use super::MetadataStore;
use super::db::{DbError, Row};
use crate::error::StorageError;

/// Both by the index of their blobs. What invalid records name is among them.
const RECORDS: &str = "SELECT blob, repository, path, variant FROM artifacts WHERE blob >= $1 AND blob < $2 ORDER BY blob LIMIT $3";
const FILES: &str = "SELECT blob, repository, path, '' FROM local_files WHERE blob >= $1 AND blob < $2 ORDER BY blob LIMIT $3";

/// Somebody who has a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobHolder {
    /// The blob's name, `sha256:` and hexadecimal digits.
    pub blob: String,
    /// The repository's name; it may be configured no longer.
    pub repository: String,
    /// The record's or file's path; a record's has its query.
    pub path: String,
    /// The record's variant; of an uploaded file nothing.
    pub variant: String,
    /// Whether it is an uploaded file.
    pub is_local: bool,
}

impl MetadataStore {
    /// Up to `limit` records, and as many uploaded files, whose SHA-256 begins with these lower-case hexadecimal digits, in the order of the
    /// digests. Records may be invalid: whoever shows one reads it.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn blob_holders(
        &self,
        digits: &str,
        limit: u32,
    ) -> Result<Vec<BlobHolder>, StorageError> {
        let from = format!("sha256:{digits}");
        // Behind all digits.
        let end = format!("{from}g");
        let mut holders = Vec::new();
        for (statement, is_local) in [(RECORDS, false), (FILES, true)] {
            let values = [(&*from).into(), (&*end).into(), i64::from(limit).into()];
            let rows = self.db().all(statement, &values).await.and_then(|rows| {
                let holder = |row: &Row| {
                    Ok(BlobHolder {
                        blob: row.get(0)?,
                        repository: row.get(1)?,
                        path: row.get(2)?,
                        variant: row.get(3)?,
                        is_local,
                    })
                };
                rows.iter().map(holder).collect::<Result<Vec<_>, _>>()
            });
            let failed = |e: DbError| StorageError::from_sql("look for a digest", e);
            holders.extend(self.noticed(rows.map_err(failed))?);
        }
        holders.sort_by(|a, b| a.blob.cmp(&b.blob));
        Ok(holders)
    }
}
