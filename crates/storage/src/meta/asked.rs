//! What upstreams were asked for and larder does not hold: what nobody would get if they were away (docs/adr/0099).

use larder_core::{ArtifactRecord, UnixMillis};

use super::artifacts::parse;
use super::db::{Durability, Row, Sql};
use super::invalid::valid;
use super::{DbError, MetadataStore};
use crate::error::StorageError;

/// Rows that one statement writes.
const AT_ONCE: usize = 2_000;

/// Adds a list `[[path, variant, requests, first, last, why], …]` to those of a repository; what is held by now is left out.
const ADD: Sql = Sql {
    sqlite: concat!(
        "INSERT INTO asked (repository, path, variant, requests, first_at, last_at, why) \
         SELECT $1, k.path, k.variant, k.requests, k.first_at, k.last_at, k.why FROM (SELECT json_extract(value, '$[0]') AS path, \
         json_extract(value, '$[1]') AS variant, json_extract(value, '$[2]') AS requests, json_extract(value, '$[3]') AS first_at, \
         json_extract(value, '$[4]') AS last_at, json_extract(value, '$[5]') AS why FROM json_each($2)) AS k \
         WHERE NOT EXISTS (SELECT 1 FROM artifacts AS a WHERE a.repository = $1 AND a.path = k.path AND a.variant = k.variant \
         AND a.blob IS NOT NULL AND ",
        valid!(),
        ") ON CONFLICT (repository, path, variant) DO UPDATE SET requests = asked.requests + excluded.requests, \
         first_at = CASE WHEN asked.first_at < excluded.first_at THEN asked.first_at ELSE excluded.first_at END, \
         last_at = CASE WHEN asked.last_at > excluded.last_at THEN asked.last_at ELSE excluded.last_at END, why = excluded.why"
    ),
    postgres: concat!(
        "INSERT INTO asked (repository, path, variant, requests, first_at, last_at, why) \
         SELECT $1, k.path, k.variant, k.requests, k.first_at, k.last_at, k.why FROM (SELECT e ->> 0 AS path, e ->> 1 AS variant, \
         (e ->> 2)::bigint AS requests, (e ->> 3)::bigint AS first_at, (e ->> 4)::bigint AS last_at, e ->> 5 AS why FROM json_array_elements($2::json) AS e) AS k \
         WHERE NOT EXISTS (SELECT 1 FROM artifacts AS a WHERE a.repository = $1 AND a.path = k.path AND a.variant = k.variant \
         AND a.blob IS NOT NULL AND ",
        valid!(),
        ") ON CONFLICT (repository, path, variant) DO UPDATE SET requests = asked.requests + excluded.requests, \
         first_at = CASE WHEN asked.first_at < excluded.first_at THEN asked.first_at ELSE excluded.first_at END, \
         last_at = CASE WHEN asked.last_at > excluded.last_at THEN asked.last_at ELSE excluded.last_at END, why = excluded.why"
    ),
};
/// Those that were asked for since a moment and have no bytes of their own; of each the record that there is without any.
const READ: &str = concat!(
    "SELECT k.path, k.variant, k.requests, k.first_at, k.last_at, k.why, \
     CAST(CASE WHEN a.record IS NULL THEN 0 ELSE 1 END AS BIGINT), a.record \
     FROM asked AS k LEFT JOIN artifacts AS a ON a.repository = $1 AND a.path = k.path AND a.variant = k.variant AND ",
    valid!(),
    " WHERE k.repository = $1 AND k.last_at >= $2 AND a.blob IS NULL ORDER BY k.last_at DESC LIMIT $3"
);
/// From when on the latest so many were asked for.
const EDGE: &str =
    "SELECT last_at FROM asked WHERE repository = $1 ORDER BY last_at DESC LIMIT 1 OFFSET $2";
const TRIM: &str = "DELETE FROM asked WHERE repository = $1 AND last_at <= $2";
const FORGET: &str = "DELETE FROM asked WHERE last_at < $1";

/// What a repository was asked for and larder does not hold, as it is to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AskedFor<'a> {
    /// Path of the record that it would have.
    pub path: &'a str,
    /// And its variant.
    pub variant: &'a str,
    /// How often it was asked for.
    pub requests: u64,
    /// When it was asked for first.
    pub first_at: UnixMillis,
    /// When it was asked for last.
    pub last_at: UnixMillis,
    /// In a word, why it is not held.
    pub why: &'a str,
}

/// Something that an upstream was asked for and that is not held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedRow {
    /// Path of the record that it would have.
    pub path: String,
    /// And its variant.
    pub variant: String,
    /// How often it was asked for while it was not held.
    pub requests: u64,
    /// When it was asked for first, as far as is remembered.
    pub first_at: UnixMillis,
    /// When it was asked for last.
    pub last_at: UnixMillis,
    /// In a word, why it was not held then.
    pub why: String,
    /// What is known of it.
    pub record: Option<ArtifactRecord>,
}

impl MetadataStore {
    /// Adds to what a repository was asked for. What is held by now is left out. No more than `most` of the repository are remembered: those that were asked for last.
    ///
    /// # Errors
    /// The database does not take it.
    pub async fn add_asked(
        &self,
        repository: &str,
        asked: &[AskedFor<'_>],
        most: u32,
    ) -> Result<(), StorageError> {
        let mut rows: Vec<_> = asked
            .iter()
            .map(|one| {
                let times = (one.requests, one.first_at.0, one.last_at.0);
                (one.path, one.variant, times.0, times.1, times.2, one.why)
            })
            .collect();
        // Whoever locks several rows does so in their order.
        rows.sort_unstable();
        let added = async {
            for some in rows.chunks(AT_ONCE) {
                // Texts and numbers are all that is in it, and those can be written.
                let list = serde_json::to_string(some).unwrap_or_default();
                let mut tx = self.db().begin(Durability::Grouped).await?;
                tx.execute(ADD, &[repository.into(), list.into()]).await?;
                tx.commit().await?;
            }
            let values = [repository.into(), i64::from(most).into()];
            if let Some(edge) = self.db().optional(EDGE, &values).await? {
                let values = [repository.into(), edge.get::<i64>(0)?.into()];
                self.db().execute(TRIM, &values).await?;
            }
            Ok(())
        };
        self.noticed(added.await.map_err(failed))
    }

    /// Up to `limit` of what a repository was asked for since a moment and does not hold, the last first.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn asked(
        &self,
        repository: &str,
        since: UnixMillis,
        limit: u32,
    ) -> Result<Vec<AskedRow>, StorageError> {
        let values = [repository.into(), since.0.into(), i64::from(limit).into()];
        let rows = self.db().all(READ, &values).await;
        let rows = rows.and_then(|rows| {
            let read = |row: &Row| self.asked_row(repository, row);
            rows.iter().map(read).collect()
        });
        self.noticed(rows.map_err(failed))
    }

    fn asked_row(&self, repository: &str, row: &Row) -> Result<AskedRow, DbError> {
        let (path, variant): (String, String) = (row.get(0)?, row.get(1)?);
        let record = if row.get::<i64>(6)? == 1 {
            let stored: Vec<u8> = row.get(7)?;
            parse(&self.shared.damage, [repository, &path, &variant], &stored)
        } else {
            None
        };
        Ok(AskedRow {
            path,
            variant,
            requests: row.get::<i64>(2)?.unsigned_abs(),
            first_at: UnixMillis(row.get(3)?),
            last_at: UnixMillis(row.get(4)?),
            why: row.get(5)?,
            record,
        })
    }

    /// Forgets what was asked for last before a moment.
    ///
    /// # Errors
    /// The database does not take it.
    pub async fn forget_asked(&self, before: UnixMillis) -> Result<(), StorageError> {
        let forgotten = self.db().execute(FORGET, &[before.0.into()]).await;
        self.noticed(forgotten.map(drop).map_err(failed))
    }
}

fn failed(error: DbError) -> StorageError {
    StorageError::from_sql("keep what was asked for", error)
}
