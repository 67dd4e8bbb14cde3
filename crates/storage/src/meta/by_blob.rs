//! Which records and uploaded files have the same bytes, found by the digest or by how it begins.

use super::MetadataStore;
use super::db::{DbError, Row, Value};
use crate::error::StorageError;

/// Both by the index of their blobs. What invalid records name is among them.
const RECORDS: &str = "SELECT blob, repository, path, variant, rowid FROM artifacts WHERE blob >= $1 AND blob < $2 \
     AND (CAST($3 AS TEXT) = '' OR repository = $3) AND (blob, rowid) > ($4, $5) ORDER BY blob, rowid LIMIT $6";
const FILES: &str = "SELECT blob, repository, path, '', CAST(0 AS BIGINT) FROM local_files WHERE blob >= $1 AND blob < $2 \
     AND (CAST($3 AS TEXT) = '' OR repository = $3) AND (blob, repository, path) > ($4, $5, $6) ORDER BY blob, repository, path LIMIT $7";

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
    /// Where the record's row is at present; of an uploaded file 0.
    pub row: i64,
    /// Whether it is an uploaded file.
    pub is_local: bool,
}

/// Which holders are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct HolderRange<'a> {
    /// How their SHA-256 begins: lower-case hexadecimal digits.
    pub digits: &'a str,
    /// Of this repository alone.
    pub repository: Option<&'a str>,
    /// The last of the page before: of a record blob and row count, of an uploaded file blob, repository and path.
    pub after: Option<&'a BlobHolder>,
}

impl MetadataStore {
    /// Up to `limit` records and uploaded files whose bytes have such a digest: first the records, in the order of the digests, then the
    /// files. Records may be invalid: whoever shows one reads it. Fewer than `limit`: these are the last.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn blob_holders(
        &self,
        range: HolderRange<'_>,
        limit: u32,
    ) -> Result<Vec<BlobHolder>, StorageError> {
        let from = format!("sha256:{}", range.digits);
        // Behind all digits.
        let end = format!("{from}g");
        let mut holders = Vec::new();
        for (statement, is_local) in [(RECORDS, false), (FILES, true)] {
            if range.after.is_some_and(|after| after.is_local && !is_local) {
                continue;
            }
            let after = range.after.filter(|after| after.is_local == is_local);
            let mut values: Vec<Value<'_>> = vec![
                after.map_or(&*from, |after| &*after.blob).into(),
                (&*end).into(),
                range.repository.unwrap_or_default().into(),
                after.map_or("", |after| &*after.blob).into(),
            ];
            if is_local {
                values.push(after.map_or("", |after| &*after.repository).into());
                values.push(after.map_or("", |after| &*after.path).into());
            } else {
                values.push(after.map_or(0, |after| after.row).into());
            }
            values.push((i64::from(limit) - holders.len() as i64).into());
            let rows = self.db().all(statement, &values).await.and_then(|rows| {
                let holder = |row: &Row| {
                    Ok(BlobHolder {
                        blob: row.get(0)?,
                        repository: row.get(1)?,
                        path: row.get(2)?,
                        variant: row.get(3)?,
                        row: row.get(4)?,
                        is_local,
                    })
                };
                rows.iter().map(holder).collect::<Result<Vec<_>, _>>()
            });
            let failed = |e: DbError| StorageError::from_sql("look for a digest", e);
            holders.extend(self.noticed(rows.map_err(failed))?);
        }
        Ok(holders)
    }
}
