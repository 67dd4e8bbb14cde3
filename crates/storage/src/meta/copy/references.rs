//! The blobs that a database names, and who names them.

use larder_core::{BlobDescriptor, Digest};

use super::tables::{TABLES, kept};
use crate::error::StorageError;
use crate::meta::db::DbError;
use crate::meta::{MetadataStore, parse_digest};

/// Those that are copied with the rows of another database.
const COPIED: &str = concat!(
    "SELECT digest, size FROM blobs AS b WHERE digest > $1 \
     AND (EXISTS (SELECT 1 FROM artifacts AS a WHERE a.blob = b.digest AND ",
    kept!(),
    ") OR EXISTS (SELECT 1 FROM local_files AS l WHERE l.blob = b.digest)) ORDER BY digest LIMIT $2"
);
/// All that a database names which stays what it is.
const ALL: &str = concat!(
    "SELECT digest, size FROM blobs AS b WHERE digest > $1 \
     AND (EXISTS (SELECT 1 FROM artifacts AS a WHERE a.blob = b.digest AND ",
    kept!(),
    ") OR EXISTS (SELECT 1 FROM local_files AS l WHERE l.blob = b.digest) \
          OR EXISTS (SELECT 1 FROM derivations AS d WHERE d.blob = b.digest)) ORDER BY digest LIMIT $2"
);
const COUNT_COPIED: &str = concat!(
    "SELECT COUNT(*), CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM blobs AS b \
     WHERE EXISTS (SELECT 1 FROM artifacts AS a WHERE a.blob = b.digest AND ",
    kept!(),
    ") OR EXISTS (SELECT 1 FROM local_files AS l WHERE l.blob = b.digest)"
);
const COUNT_ALL: &str = concat!(
    "SELECT COUNT(*), CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM blobs AS b \
     WHERE EXISTS (SELECT 1 FROM artifacts AS a WHERE a.blob = b.digest AND ",
    kept!(),
    ") OR EXISTS (SELECT 1 FROM local_files AS l WHERE l.blob = b.digest) \
     OR EXISTS (SELECT 1 FROM derivations AS d WHERE d.blob = b.digest)"
);
const RECORDS_OF: &str =
    "SELECT repository, path FROM artifacts WHERE blob = $1 ORDER BY repository, path LIMIT $2";
const FILES_OF: &str =
    "SELECT repository, path FROM local_files WHERE blob = $1 ORDER BY repository, path LIMIT $2";
const DOING: &str = "list blobs";

/// Which of the blobs that a database names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedBlobs {
    /// Of records and uploaded files: what [`MetadataStore::copy_rows`] copies the rows of.
    Copied,
    /// Those of derived documents, too.
    All,
}

/// A name that has a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobName {
    /// The repository.
    pub repository: String,
    /// The path in it.
    pub path: String,
    /// Whether it was uploaded, so that nobody else has it.
    pub is_local: bool,
}

/// How much there is to copy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyCounts {
    /// Rows by table, with the table's name.
    pub rows: Vec<(&'static str, u64)>,
    /// Blobs that are named.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl MetadataStore {
    /// Up to `limit` of the blobs that are named, with digests above `after`, in ascending order. Fewer than `limit`: these are the last.
    ///
    /// # Errors
    /// The database fails, or holds a digest that is none.
    pub async fn named_blobs(
        &self,
        which: NamedBlobs,
        after: Option<&Digest>,
        limit: u32,
    ) -> Result<Vec<BlobDescriptor>, StorageError> {
        let statement = match which {
            NamedBlobs::Copied => COPIED,
            NamedBlobs::All => ALL,
        };
        let after = after.map(ToString::to_string).unwrap_or_default();
        let values = [after.into(), i64::from(limit).into()];
        let rows = self.db().patiently().all(statement, &values).await;
        let rows = rows.and_then(|rows| {
            let row = |row: &crate::meta::db::Row| Ok((row.get(0)?, row.get(1)?));
            rows.iter().map(row).collect()
        });
        let rows: Vec<(String, i64)> = rows.map_err(failed)?;
        let blob = |(digest, size): (String, i64)| {
            Ok(BlobDescriptor {
                digest: parse_digest(&digest)?,
                size: size.unsigned_abs(),
            })
        };
        rows.into_iter().map(blob).collect()
    }

    /// Up to `limit` of the names that have a blob, those of uploaded files first; none where only derived documents are made of it.
    ///
    /// # Errors
    /// The database fails.
    pub async fn names_of_blob(
        &self,
        digest: &Digest,
        limit: u32,
    ) -> Result<Vec<BlobName>, StorageError> {
        let mut names = Vec::new();
        for (statement, is_local) in [(FILES_OF, true), (RECORDS_OF, false)] {
            let values = [digest.to_string().into(), i64::from(limit).into()];
            let rows = self.db().patiently().all(statement, &values).await;
            for row in rows.map_err(failed)? {
                names.push(BlobName {
                    repository: row.get(0).map_err(failed)?,
                    path: row.get(1).map_err(failed)?,
                    is_local,
                });
            }
        }
        names.truncate(limit as usize);
        Ok(names)
    }

    /// Counts what there is to copy. Reads an index of each table.
    ///
    /// # Errors
    /// The database fails.
    pub async fn copy_counts(&self, which: NamedBlobs) -> Result<CopyCounts, StorageError> {
        let db = self.db().patiently();
        let mut counts = CopyCounts::default();
        for table in TABLES {
            let count = db.one(table.count, &[]).await;
            let count: i64 = count.and_then(|row| row.get(0)).map_err(failed)?;
            counts.rows.push((table.name, count.unsigned_abs()));
        }
        let statement = match which {
            NamedBlobs::Copied => COUNT_COPIED,
            NamedBlobs::All => COUNT_ALL,
        };
        let row = db.one(statement, &[]).await.map_err(failed)?;
        counts.blobs = row.get::<i64>(0).map_err(failed)?.unsigned_abs();
        counts.bytes = row.get::<i64>(1).map_err(failed)?.unsigned_abs();
        Ok(counts)
    }
}

fn failed(error: DbError) -> StorageError {
    StorageError::from_sql(DOING, error)
}
