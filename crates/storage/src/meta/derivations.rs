//! Derived documents: one row under the key of everything that the derivation depends on, and the sources it was made from.

use larder_core::{BlobDescriptor, Digest, RepositoryName, UnixMillis};
use sqlx::sqlite::SqliteConnection;

use super::{DerivedRecord, MetadataStore, parse_digest};
use crate::error::StorageError;

const GET: &str = "SELECT blob, size, content_type, made_at FROM derivations WHERE derivation = $1";
const PUT: &str = "INSERT INTO derivations (derivation, repository, blob, size, content_type, made_at, delete_after) \
     VALUES ($1, $2, $3, $4, $5, $6, NULL) \
     ON CONFLICT (derivation) DO UPDATE SET repository = excluded.repository, blob = excluded.blob, size = excluded.size, \
     content_type = excluded.content_type, made_at = excluded.made_at, delete_after = NULL";
const PUT_SOURCE: &str =
    "INSERT INTO derivation_sources (derivation, source) VALUES ($1, $2) ON CONFLICT (derivation, source) DO NOTHING";
const DELETE: &str = "DELETE FROM derivations WHERE derivation = $1";

impl MetadataStore {
    /// The derived document under a hexadecimal representation key.
    pub async fn derivation(&self, key: &str) -> Result<Option<DerivedRecord>, StorageError> {
        let row: Option<(String, i64, String, i64)> = sqlx::query_as(GET)
            .bind(key)
            .fetch_optional(&self.reader)
            .await
            .map_err(|e| StorageError::from_sql("read a derivation", e))?;
        let Some((digest, size, content_type, made_at)) = row else { return Ok(None) };
        let Ok(digest) = parse_digest(&digest) else {
            tracing::warn!(key, "a stored derivation cannot be read and counts as absent");
            return Ok(None);
        };
        let blob = BlobDescriptor { digest, size: size as u64 };
        Ok(Some(DerivedRecord { blob, content_type, made_at: UnixMillis(made_at) }))
    }
}

/// Writes one row and its sources. The blob's row must exist.
pub(super) async fn put(
    connection: &mut SqliteConnection,
    key: &str,
    repository: &RepositoryName,
    sources: &[Digest],
    derived: &DerivedRecord,
) -> Result<(), StorageError> {
    let failed = |error| StorageError::from_sql("write a derivation", error);
    sqlx::query(PUT)
        .bind(key)
        .bind(repository.as_str())
        .bind(derived.blob.digest.to_string())
        .bind(derived.blob.size as i64)
        .bind(&*derived.content_type)
        .bind(derived.made_at.0)
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    for source in sources {
        sqlx::query(PUT_SOURCE).bind(key).bind(source.to_string()).execute(&mut *connection).await.map_err(failed)?;
    }
    Ok(())
}

/// Removes one row and its sources, if they are there.
pub(super) async fn delete(connection: &mut SqliteConnection, key: &str) -> Result<(), StorageError> {
    let deleted = sqlx::query(DELETE).bind(key).execute(connection).await;
    deleted.map_err(|e| StorageError::from_sql("delete a derivation", e))?;
    Ok(())
}
