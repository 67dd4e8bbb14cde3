//! Derived documents: one row under the key of everything that the derivation depends on, and the sources it was made from. Each is
//! sealed with its key; a row without a seal is of an earlier version and is made again.

use larder_core::{BlobDescriptor, Digest, RepositoryName, UnixMillis};

use super::db::{DbError, Row};
use super::seal::{Unsealed, seal, unseal};
use super::{DerivedRecord, MetadataStore, Tx, parse_digest};
use crate::error::StorageError;

const GET: &str = "SELECT blob, size, content_type, made_at FROM derivations WHERE derivation = $1";
const PUT: &str = "INSERT INTO derivations (derivation, repository, blob, size, content_type, made_at, delete_after) \
     VALUES ($1, $2, $3, $4, $5, $6, NULL) \
     ON CONFLICT (derivation) DO UPDATE SET repository = excluded.repository, blob = excluded.blob, size = excluded.size, \
     content_type = excluded.content_type, made_at = excluded.made_at, delete_after = NULL";
const PUT_SOURCE: &str = "INSERT INTO derivation_sources (derivation, source) VALUES ($1, $2) ON CONFLICT (derivation, source) DO NOTHING";
const DELETE: &str = "DELETE FROM derivations WHERE derivation = $1";

impl MetadataStore {
    /// The derived document under a hexadecimal representation key. One that is damaged counts as absent, and is made again.
    pub async fn derivation(&self, key: &str) -> Result<Option<DerivedRecord>, StorageError> {
        let row = self.db().optional(GET, &[key.into()]).await;
        let row = row.and_then(|row| {
            let row_of = |row: Row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
            row.map(row_of).transpose()
        });
        let row = self.row_or_none("read a derivation", key, row)?;
        let Some((digest, size, stored, made_at)): Option<(String, i64, String, i64)> = row else {
            return Ok(None);
        };
        let content_type = match unseal(
            &row_key(key, &digest, size, made_at)
                .each_ref()
                .map(String::as_str),
            &stored,
        ) {
            Unsealed::Intact(content_type) => content_type.to_owned(),
            Unsealed::Bare(_) => return Ok(None),
            Unsealed::Damaged => {
                self.shared.damage.note_row("derivation", key);
                return Ok(None);
            }
        };
        let Ok(digest) = parse_digest(&digest) else {
            return Ok(None);
        };
        let blob = BlobDescriptor {
            digest,
            size: size as u64,
        };
        Ok(Some(DerivedRecord {
            blob,
            content_type,
            made_at: UnixMillis(made_at),
        }))
    }
}

/// What a row's seal covers beside its content type.
fn row_key(key: &str, digest: &str, size: i64, made_at: i64) -> [String; 4] {
    [
        key.to_owned(),
        digest.to_owned(),
        size.to_string(),
        made_at.to_string(),
    ]
}

/// Writes one row and its sources. The blob's row must exist.
pub(super) async fn put(
    tx: &mut Tx,
    key: &str,
    repository: &RepositoryName,
    sources: &[Digest],
    derived: &DerivedRecord,
) -> Result<(), DbError> {
    let digest = derived.blob.digest.to_string();
    let row = row_key(key, &digest, derived.blob.size as i64, derived.made_at.0);
    let sealed = seal(&row.each_ref().map(String::as_str), &derived.content_type);
    let values = [
        key.into(),
        repository.as_str().into(),
        digest.into(),
        (derived.blob.size as i64).into(),
        sealed.into(),
        derived.made_at.0.into(),
    ];
    tx.execute(PUT, &values).await?;
    for source in sources {
        let values = [key.into(), source.to_string().into()];
        tx.execute(PUT_SOURCE, &values).await?;
    }
    Ok(())
}

/// Removes one row and its sources, if they are there.
pub(super) async fn delete(tx: &mut Tx, key: &str) -> Result<(), DbError> {
    tx.execute(DELETE, &[key.into()]).await?;
    Ok(())
}
