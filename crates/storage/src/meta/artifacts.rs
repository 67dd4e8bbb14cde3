//! Records: one row for each upstream document or file, under a key of repository, path and variant.

use larder_core::{ArtifactRecord, BlobDescriptor, RepositoryName, SourceKey};
use sqlx::sqlite::SqliteConnection;

use super::MetadataStore;
use crate::error::{StorageError, StorageErrorKind};

const GET: &str = "SELECT record FROM artifacts WHERE repository = $1 AND path = $2 AND variant = $3";
const PAGE: &str = "SELECT path, variant, record FROM artifacts \
     WHERE repository = $1 AND (path, variant) > ($2, $3) ORDER BY path, variant LIMIT $4";
const PUT: &str = "INSERT INTO artifacts (repository, path, variant, blob, size, updated_at, record) \
     VALUES ($1, $2, $3, $4, $5, $6, $7) \
     ON CONFLICT (repository, path, variant) DO UPDATE SET \
     blob = excluded.blob, size = excluded.size, updated_at = excluded.updated_at, record = excluded.record";
const DELETE: &str = "DELETE FROM artifacts WHERE repository = $1 AND path = $2 AND variant = $3";

impl MetadataStore {
    /// The record under `key`. One that cannot be parsed counts as absent: it will be fetched again and overwritten.
    pub async fn record(&self, key: &SourceKey) -> Result<Option<ArtifactRecord>, StorageError> {
        let row: Option<String> = sqlx::query_scalar(GET)
            .bind(key.repository.as_str())
            .bind(&*key.path)
            .bind(&*key.variant)
            .fetch_optional(&self.reader)
            .await
            .map_err(|e| StorageError::from_sql("read a record", e))?;
        Ok(row.and_then(|text| parse(key.repository.as_str(), &key.path, &text)))
    }

    /// Up to `limit` records of a repository after the path and variant `after`, ordered by them bytewise. Fewer than `limit` means
    /// that there are no more; records that cannot be parsed are passed over.
    pub async fn page(
        &self,
        repository: &RepositoryName,
        after: Option<&(String, String)>,
        limit: u32,
    ) -> Result<Vec<(String, String, ArtifactRecord)>, StorageError> {
        let mut records = Vec::new();
        let mut after = after.cloned();
        while records.len() < limit as usize {
            let (path, variant) = after.unwrap_or_default();
            let wanted = i64::from(limit) - records.len() as i64;
            let rows: Vec<(String, String, String)> = sqlx::query_as(PAGE)
                .bind(repository.as_str())
                .bind(path)
                .bind(variant)
                .bind(wanted)
                .fetch_all(&self.reader)
                .await
                .map_err(|e| StorageError::from_sql("list records", e))?;
            let last_page = (rows.len() as i64) < wanted;
            after = rows.last().map(|(path, variant, _)| (path.clone(), variant.clone()));
            records.extend(rows.into_iter().filter_map(|(path, variant, text)| {
                let record = parse(repository.as_str(), &path, &text)?;
                Some((path, variant, record))
            }));
            if last_page {
                break;
            }
        }
        Ok(records)
    }
}

/// Writes one row. The blob's row must exist.
pub(super) async fn put(connection: &mut SqliteConnection, key: &SourceKey, record: &ArtifactRecord) -> Result<(), StorageError> {
    let text = serde_json::to_string(record).map_err(|error| StorageError {
        kind: StorageErrorKind::Io,
        message: format!("cannot write the record of {key}"),
        source: Some(Box::new(error)),
    })?;
    let blob = record.blob();
    sqlx::query(PUT)
        .bind(key.repository.as_str())
        .bind(&*key.path)
        .bind(&*key.variant)
        .bind(blob.map(|blob: &BlobDescriptor| blob.digest.to_string()))
        .bind(blob.map(|blob| blob.size as i64))
        .bind(record.renewed_at.0)
        .bind(text)
        .execute(connection)
        .await
        .map_err(|e| StorageError::from_sql("write a record", e))?;
    Ok(())
}

/// Removes one row, if it is there.
pub(super) async fn delete(connection: &mut SqliteConnection, key: &SourceKey) -> Result<(), StorageError> {
    sqlx::query(DELETE)
        .bind(key.repository.as_str())
        .bind(&*key.path)
        .bind(&*key.variant)
        .execute(connection)
        .await
        .map_err(|e| StorageError::from_sql("delete a record", e))?;
    Ok(())
}

fn parse(repository: &str, path: &str, text: &str) -> Option<ArtifactRecord> {
    let tell = |error: &serde_json::Error| {
        let path = larder_core::shown(path.split('?').next().unwrap_or_default());
        tracing::warn!(repository, path = &*path, %error, "a stored record cannot be read and counts as absent");
    };
    serde_json::from_str(text).inspect_err(tell).ok()
}
