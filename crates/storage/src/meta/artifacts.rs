//! Records: one row for each upstream document or file, under a key of repository, path and variant. Each is sealed with its key.

use larder_core::{ArtifactRecord, BlobDescriptor, RepositoryName, SourceKey};

use super::db::{DbError, Row, Sql, Value};
use super::invalid::{is_valid, valid};
use super::seal::{Unsealed, is_bytes, seal_bytes, unseal, unseal_bytes};
use super::{MetadataStore, Tx, damage::Damage};
use crate::error::StorageError;

/// The present epoch of the repository `$1`.
macro_rules! epoch {
    () => {
        "COALESCE((SELECT e.epoch FROM epochs AS e WHERE e.repository = $1), 0)"
    };
}
/// The record under a key, and whether it is valid.
macro_rules! one {
    () => {
        concat!(
            "SELECT record, CAST(CASE WHEN ",
            valid!(),
            " THEN 1 ELSE 0 END AS BIGINT) FROM artifacts AS a WHERE repository = $1 AND path = $2 AND variant = $3"
        )
    };
}

const GET: &str = one!();
const LOCK: Sql = Sql {
    sqlite: one!(),
    postgres: concat!(one!(), " FOR UPDATE"),
};
/// Whether a row is valid is told of each row that is read: as a condition, a server without statistics would look at all rows at once
/// and sort them.
const PAGE: &str = concat!(
    "SELECT path, variant, record, CAST(CASE WHEN ",
    valid!(),
    " THEN 1 ELSE 0 END AS BIGINT) FROM artifacts AS a \
     WHERE repository = $1 AND (path, variant) > ($2, $3) ORDER BY path, variant LIMIT $4"
);
/// What is written has just been asked for.
const PUT: &str = concat!(
    "INSERT INTO artifacts (repository, path, variant, blob, size, updated_at, record, used_at, epoch) VALUES ($1, $2, $3, $4, $5, $6, $7, $6, ",
    epoch!(),
    ") ON CONFLICT (repository, path, variant) DO UPDATE SET blob = excluded.blob, size = excluded.size, \
     updated_at = excluded.updated_at, record = excluded.record, epoch = excluded.epoch, \
     used_at = CASE WHEN excluded.used_at > artifacts.used_at THEN excluded.used_at ELSE artifacts.used_at END"
);
/// As that, where there is no such row.
const ADD: &str = concat!(
    "INSERT INTO artifacts (repository, path, variant, blob, size, updated_at, record, used_at, epoch) VALUES ($1, $2, $3, $4, $5, $6, $7, $6, ",
    epoch!(),
    ") ON CONFLICT (repository, path, variant) DO NOTHING"
);
/// A companion of a document (its name and four more letters) is exchanged with it: that it is not there is part of the generation.
const ABSENCES: &str = "SELECT rowid FROM artifacts AS a WHERE rowid > $1 AND blob IS NULL \
     AND record LIKE '{\"content\":{\"negative\":%' \
     AND NOT EXISTS (SELECT 1 FROM artifacts AS d WHERE d.repository = a.repository AND d.blob IS NOT NULL \
                     AND d.path = substr(a.path, 1, length(a.path) - 4)) \
     ORDER BY rowid LIMIT $2";
const DELETE_ROW: &str = "DELETE FROM artifacts WHERE rowid = $1";
const DELETE: &str = "DELETE FROM artifacts WHERE repository = $1 AND path = $2 AND variant = $3";

impl MetadataStore {
    /// The record under `key`. One that cannot be parsed, is damaged, or stands in a damaged part of the database counts as absent: it
    /// will be fetched again and overwritten.
    pub async fn record(&self, key: &SourceKey) -> Result<Option<ArtifactRecord>, StorageError> {
        let values = [
            key.repository.as_str().into(),
            (*key.path).into(),
            (*key.variant).into(),
        ];
        let row = self.db().optional(GET, &values).await;
        let stored = row.and_then(|row| match row {
            Some(row) if is_valid(&row, 1)? => row.get::<Vec<u8>>(0).map(Some),
            _ => Ok(None),
        });
        let stored = self.row_or_none("read a record", &key.path, stored)?;
        Ok(stored.and_then(|stored| {
            parse(
                &self.shared.damage,
                [key.repository.as_str(), &key.path, &key.variant],
                &stored,
            )
        }))
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
            let wanted = limit - records.len() as u32;
            let rows = self.rows(repository, after.as_ref(), wanted).await?;
            let last_page = rows.len() < wanted as usize;
            after = rows
                .last()
                .map(|(path, variant, _)| (path.clone(), variant.clone()));
            records.extend(
                rows.into_iter()
                    .filter_map(|(path, variant, record)| Some((path, variant, record?))),
            );
            if last_page {
                break;
            }
        }
        Ok(records)
    }

    /// As [`page`](Self::page), with `None` in place of a record that cannot be parsed or is damaged.
    pub async fn rows(
        &self,
        repository: &RepositoryName,
        after: Option<&(String, String)>,
        limit: u32,
    ) -> Result<Vec<PageRow>, StorageError> {
        let mut after = after.cloned().unwrap_or_default();
        let mut found = Vec::new();
        loop {
            let (read, valid, last) = self.read_page(repository, &after, limit).await?;
            found.extend(valid);
            // What is invalid is left out, and does not end the list.
            match last {
                Some(last) if read == limit as usize && found.len() < limit as usize => {
                    after = last;
                }
                _ => break,
            }
        }
        found.truncate(limit as usize);
        Ok(found)
    }

    /// Up to `limit` rows as they stand: how many were read, those of them that are valid, and the key of the last one.
    async fn read_page(
        &self,
        repository: &RepositoryName,
        (path, variant): &(String, String),
        limit: u32,
    ) -> Result<(usize, Vec<PageRow>, Option<(String, String)>), StorageError> {
        let values = [
            repository.as_str().into(),
            path.clone().into(),
            variant.clone().into(),
            i64::from(limit).into(),
        ];
        let rows = self.db().all(PAGE, &values).await;
        let rows = rows.and_then(|rows| {
            let row = |row: Row| {
                let key: (String, String) = (row.get(0)?, row.get(1)?);
                Ok((key, row.get(2)?, is_valid(&row, 3)?))
            };
            rows.into_iter().map(row).collect()
        });
        let rows: Vec<((String, String), Vec<u8>, bool)> =
            self.noticed(rows.map_err(|e: DbError| StorageError::from_sql("list records", e)))?;
        let (read, last) = (rows.len(), rows.last().map(|(key, ..)| key.clone()));
        let valid = rows.into_iter().filter(|(_, _, is_valid)| *is_valid);
        let records = valid.map(|((path, variant), stored, _)| {
            let key = [repository.as_str(), &path, &variant];
            let record = parse(&self.shared.damage, key, &stored);
            (path, variant, record)
        });
        Ok((read, records.collect(), last))
    }

    /// Deletes up to `limit` rows after `after` that say that something is not there, and that no held document has beside it; gives
    /// where to go on, `None` at the end. Earlier versions wrote such rows for whatever was asked for.
    pub(super) async fn delete_absences(
        &self,
        after: i64,
        limit: i64,
    ) -> Result<Option<i64>, StorageError> {
        let deleted = async {
            let rows = self
                .db()
                .all(ABSENCES, &[after.into(), limit.into()])
                .await?;
            let rows: Vec<i64> = rows
                .iter()
                .map(|row| row.get(0))
                .collect::<Result<_, _>>()?;
            let Some(&last) = rows.last() else {
                return Ok(None);
            };
            let mut tx = self.begin().await?;
            for row in rows {
                tx.execute(DELETE_ROW, &[row.into()]).await?;
            }
            tx.commit().await?;
            Ok(Some(last))
        };
        let failed =
            |error: DbError| StorageError::from_sql("delete rows of what is not there", error);
        deleted.await.map_err(failed)
    }
}

/// What there is under a key.
#[derive(Debug, Default)]
pub(super) struct Present {
    pub(super) has_row: bool,
    /// `None` as well where the row cannot be read, or is invalid.
    pub(super) record: Option<ArtifactRecord>,
}

/// The record under `key` as a transaction sees it, which from now on nobody else changes.
pub(super) async fn present(
    tx: &mut Tx,
    damage: &Damage,
    key: &SourceKey,
) -> Result<Present, DbError> {
    let values = [
        key.repository.as_str().into(),
        (*key.path).into(),
        (*key.variant).into(),
    ];
    let row = tx.optional(LOCK, &values).await?;
    let Some(row) = row else {
        return Ok(Present::default());
    };
    if !is_valid(&row, 1)? {
        return Ok(Present {
            has_row: true,
            record: None,
        });
    }
    let stored: Vec<u8> = row.get(0)?;
    let names = [key.repository.as_str(), &key.path, &key.variant];
    Ok(Present {
        has_row: true,
        record: parse(damage, names, &stored),
    })
}

/// Path, variant and record of a row.
pub type PageRow = (String, String, Option<ArtifactRecord>);

/// Writes one row. The blob's row must exist. A key that is too long for the engine's indexes gets none.
pub(super) async fn put(
    tx: &mut Tx,
    key: &SourceKey,
    record: &ArtifactRecord,
) -> Result<(), DbError> {
    if tx.takes_key(key_length(key)) {
        tx.execute(PUT, &values_of(key, record)).await?;
    }
    Ok(())
}

/// As [`put`], where there is no row; whether there was none.
pub(super) async fn add(
    tx: &mut Tx,
    key: &SourceKey,
    record: &ArtifactRecord,
) -> Result<bool, DbError> {
    if !tx.takes_key(key_length(key)) {
        return Ok(true);
    }
    Ok(tx.execute(ADD, &values_of(key, record)).await? > 0)
}

pub(super) fn key_length(key: &SourceKey) -> usize {
    key.repository.as_str().len() + key.path.len() + key.variant.len()
}

fn values_of<'k>(key: &'k SourceKey, record: &ArtifactRecord) -> [Value<'k>; 7] {
    let blob = record.blob();
    [
        key.repository.as_str().into(),
        (*key.path).into(),
        (*key.variant).into(),
        blob.map(|blob: &BlobDescriptor| blob.digest.to_string())
            .into(),
        blob.map(|blob| blob.size as i64).into(),
        record.fresh_since.0.into(),
        seal_bytes(
            &[key.repository.as_str(), &key.path, &key.variant],
            &record.to_stored(),
        )
        .into(),
    ]
}

/// Removes one row, if it is there.
pub(super) async fn delete(tx: &mut Tx, key: &SourceKey) -> Result<(), DbError> {
    let values = [
        key.repository.as_str().into(),
        (*key.path).into(),
        (*key.variant).into(),
    ];
    tx.execute(DELETE, &values).await?;
    Ok(())
}

/// What a row says, if it was put there under this key. Rows of earlier versions are texts; each becomes compact when it is written
/// again.
pub(super) fn parse(damage: &Damage, key: [&str; 3], stored: &[u8]) -> Option<ArtifactRecord> {
    let damaged = || damage.note_row("record", &key.join(" "));
    if !is_bytes(stored) {
        return parse_text(&damaged, key, stored);
    }
    let Some(bytes) = unseal_bytes(&key, stored) else {
        damaged();
        return None;
    };
    let record = ArtifactRecord::from_stored(bytes);
    record.inspect_err(|error| tell(key, error)).ok()
}

fn parse_text(damaged: &dyn Fn(), key: [&str; 3], stored: &[u8]) -> Option<ArtifactRecord> {
    // What is not UTF-8 is not what was written, and the seal says so.
    let stored = String::from_utf8_lossy(stored);
    let parsed = match unseal(&key, &stored) {
        Unsealed::Intact(text) => serde_json::from_str(text),
        // Of a version that knew no checksums.
        Unsealed::Bare(text) if text.starts_with('{') => serde_json::from_str(text),
        Unsealed::Bare(_) | Unsealed::Damaged => {
            damaged();
            return None;
        }
    };
    parsed.inspect_err(|error| tell(key, error)).ok()
}

fn tell([repository, path, _]: [&str; 3], error: &dyn std::error::Error) {
    let path = larder_core::shown(path.split('?').next().unwrap_or_default());
    tracing::warn!(repository, path = &*path, %error, "a stored record cannot be read and counts as absent");
}
