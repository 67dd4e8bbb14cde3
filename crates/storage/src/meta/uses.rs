//! When records were last asked for and how often they were served, and which go first where space is bounded (docs/adr/0094).

use std::time::Duration;

use larder_core::{RepositoryName, SourceKey, UnixMillis};

use super::db::{DbError, Durability, Row, Sql};
use super::invalid::RecordKey;
use super::patience::Patience;
use super::{MetadataStore, Tx};
use crate::error::StorageError;

/// Of a list `[["path", "variant", time, times], …]`; the rest of the statement stands behind it.
///
/// `$row` is the row by its place in SQLite: without that it would go through the repository for every one of the list.
macro_rules! used {
    ($table:literal, $row:literal, $own:literal) => {
        Sql {
            sqlite: concat!(
                "UPDATE ", $table, " SET used_at = CASE WHEN used_at < u.at OR used_at > $3 THEN u.at ELSE used_at END, served = served + u.times \
                 FROM (SELECT json_extract(value, '$[0]') AS path, json_extract(value, '$[1]') AS variant, \
                 json_extract(value, '$[2]') AS at, json_extract(value, '$[3]') AS times FROM json_each($2)) AS u WHERE ", $row
            ),
            postgres: concat!(
                "UPDATE ", $table, " SET used_at = CASE WHEN used_at < u.at OR used_at > $3 THEN u.at ELSE used_at END, served = served + u.times \
                 FROM (SELECT k ->> 0 AS path, k ->> 1 AS variant, (k ->> 2)::bigint AS at, (k ->> 3)::bigint AS times \
                 FROM json_array_elements($2::json) AS k) AS u WHERE ", $own
            ),
        }
    };
}

const USED: Sql = used!(
    "artifacts",
    "artifacts.rowid = (SELECT a.rowid FROM artifacts AS a WHERE a.repository = $1 AND a.path = u.path AND a.variant = u.variant)",
    "artifacts.repository = $1 AND artifacts.path = u.path AND artifacts.variant = u.variant"
);
const USED_UPLOADS: Sql = used!(
    "local_files",
    "local_files.rowid = (SELECT l.rowid FROM local_files AS l WHERE l.repository = $1 AND l.path = u.path)",
    "local_files.repository = $1 AND local_files.path = u.path"
);
const USAGE: &str =
    "SELECT used_at, served FROM artifacts WHERE repository = $1 AND path = $2 AND variant = $3";
const UPLOAD_USAGE: &str =
    "SELECT used_at, served FROM local_files WHERE repository = $1 AND path = $2";
const EXPIRES: &str =
    "UPDATE artifacts SET expires_at = $4 WHERE repository = $1 AND path = $2 AND variant = $3";
const LEAST_USED: &str = "SELECT path, variant, size, used_at, rowid, served, updated_at FROM artifacts \
     WHERE repository = $1 AND blob IS NOT NULL AND (used_at, rowid) > ($2, $3) ORDER BY used_at, rowid LIMIT $4";
/// One that was asked for after it had expired is in use.
const EXPIRED: &str = "SELECT path, variant, size, used_at, rowid, served, updated_at FROM artifacts \
     WHERE repository = $1 AND expires_at < $2 AND blob IS NOT NULL AND used_at < $3 ORDER BY expires_at LIMIT $4";
/// Those that were used last, first.
const USED_SINCE: &str = "SELECT path, variant, size, used_at, rowid, served, updated_at FROM artifacts \
     WHERE repository = $1 AND blob IS NOT NULL AND used_at >= $2 ORDER BY used_at DESC LIMIT $3";
/// Some that were used later than `$2`.
const USED_LATER: Sql = Sql {
    sqlite: "UPDATE artifacts SET used_at = $3 WHERE rowid IN (SELECT rowid FROM artifacts \
         WHERE repository = $1 AND blob IS NOT NULL AND used_at > $2 ORDER BY used_at DESC LIMIT $4)",
    postgres: "UPDATE artifacts SET used_at = $3 WHERE rowid = ANY (ARRAY(SELECT a.rowid FROM artifacts AS a \
         WHERE a.repository = $1 AND a.blob IS NOT NULL AND a.used_at > $2 ORDER BY a.used_at DESC LIMIT $4))",
};
/// Of uploaded files nothing is counted.
const CACHED_BYTES: &str = "SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM blobs WHERE condemned_by IS NULL \
     AND NOT EXISTS (SELECT 1 FROM local_files AS l WHERE l.blob = blobs.digest)";

/// Clocks of replicas differ by so much at most. What was used later than that from now on was noted by a clock that was wrong.
pub const MOST_AHEAD: Duration = Duration::from_mins(5);
/// Rows that are corrected in one transaction.
const CORRECTED: i64 = 500;

/// How a record was used since that was last written down. In the order of the keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordUse {
    /// Path and variant; of an uploaded file the variant is empty.
    pub key: RecordKey,
    /// When it was last asked for.
    pub at: UnixMillis,
    /// How many answers had its bytes, or a part of them.
    pub served: u32,
}

/// How a record or an uploaded file is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// When it was last asked for; `None`: that is not known.
    pub used_at: Option<UnixMillis>,
    /// How many answers had its bytes, or a part of them, since it is there.
    pub served: u64,
}

/// A record with bytes that may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedRow {
    /// Path and variant.
    pub key: RecordKey,
    /// Its bytes.
    pub size: u64,
    /// When it was last asked for, as far as it was written down.
    pub used_at: UnixMillis,
    /// How many answers had its bytes, or a part of them, since it is there, as far as it was written down.
    pub served: u64,
    /// When the record was last written: where that is the last news of its bytes, they are there since then.
    pub updated_at: UnixMillis,
    /// The row's place in the database: it orders those that were used at one moment.
    pub row: i64,
}

impl MetadataStore {
    /// Bytes of all blobs but those of uploaded files; each counts once. Looks at all blobs, so not for every request.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn cached_bytes(&self) -> Result<u64, StorageError> {
        let row = self.db().patiently().one(CACHED_BYTES, &[]).await;
        let bytes = row.and_then(|row| row.get::<i64>(0));
        let failed = |error| StorageError::from_sql("count what is cached", error);
        Ok(self.noticed(bytes.map_err(failed))?.unsigned_abs())
    }

    /// Up to `limit` records of a repository that have bytes, those first that were not asked for the longest; behind `after`, if that is
    /// given.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn least_used(
        &self,
        repository: &str,
        after: Option<&UsedRow>,
        limit: u32,
    ) -> Result<Vec<UsedRow>, StorageError> {
        let (used_at, row) =
            after.map_or((i64::MIN, i64::MIN), |after| (after.used_at.0, after.row));
        let values = [
            repository.into(),
            used_at.into(),
            row.into(),
            i64::from(limit).into(),
        ];
        self.used_rows(LEAST_USED, &values).await
    }

    /// Up to `limit` records of a repository that had expired by `now` and were not asked for since `unused`.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn expired(
        &self,
        repository: &str,
        now: UnixMillis,
        unused: UnixMillis,
        limit: u32,
    ) -> Result<Vec<UsedRow>, StorageError> {
        let values = [
            repository.into(),
            now.0.into(),
            unused.0.into(),
            i64::from(limit).into(),
        ];
        self.used_rows(EXPIRED, &values).await
    }

    /// Up to `limit` records of a repository that have bytes and were asked for since a moment, those first that were asked for last.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn used_since(
        &self,
        repository: &str,
        since: UnixMillis,
        limit: u32,
    ) -> Result<Vec<UsedRow>, StorageError> {
        let values = [repository.into(), since.0.into(), i64::from(limit).into()];
        self.used_rows(USED_SINCE, &values).await
    }

    async fn used_rows(
        &self,
        statement: &'static str,
        values: &[super::db::Value<'_>],
    ) -> Result<Vec<UsedRow>, StorageError> {
        let read = |row: Row| {
            Ok(UsedRow {
                key: (row.get(0)?, row.get(1)?),
                size: row.get::<Option<i64>>(2)?.unwrap_or(0).unsigned_abs(),
                used_at: UnixMillis(row.get(3)?),
                row: row.get(4)?,
                served: row.get::<i64>(5)?.unsigned_abs(),
                updated_at: UnixMillis(row.get(6)?),
            })
        };
        let rows = self.db().patiently().all(statement, values).await;
        let rows = rows.and_then(|rows| rows.into_iter().map(read).collect());
        let failed = |error: DbError| StorageError::from_sql("look for what can go", error);
        self.noticed(rows.map_err(failed))
    }

    /// How a record is used, as far as it was written down.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn usage(
        &self,
        repository: &RepositoryName,
        path: &str,
        variant: &str,
    ) -> Result<Usage, StorageError> {
        let values = [repository.as_str().into(), path.into(), variant.into()];
        self.usage_by(USAGE, &values).await
    }

    /// How an uploaded file is used, as far as it was written down.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn upload_usage(
        &self,
        repository: &RepositoryName,
        path: &str,
    ) -> Result<Usage, StorageError> {
        let values = [repository.as_str().into(), path.into()];
        self.usage_by(UPLOAD_USAGE, &values).await
    }

    async fn usage_by(
        &self,
        statement: &'static str,
        values: &[super::db::Value<'_>],
    ) -> Result<Usage, StorageError> {
        let read = |row: Row| {
            let used_at = UnixMillis(row.get(0)?);
            Ok(Usage {
                used_at: (used_at.0 > 0).then_some(used_at),
                served: row.get::<i64>(1)?.unsigned_abs(),
            })
        };
        let row = self.db().optional(statement, values).await;
        let usage = row.and_then(|row| row.map(read).transpose());
        let failed = |e: DbError| StorageError::from_sql("look how often something was used", e);
        Ok(self.noticed(usage.map_err(failed))?.unwrap_or_default())
    }

    /// Records of a repository that were used in the future, as a clock had it that has been set right since, are used now. Gives how many.
    ///
    /// # Errors
    /// The database does not take it.
    pub async fn correct_uses(
        &self,
        repository: &str,
        now: UnixMillis,
    ) -> Result<u64, StorageError> {
        let failed = |error| StorageError::from_sql("correct when something was used", error);
        let values = [
            repository.into(),
            now.plus(MOST_AHEAD).0.into(),
            now.0.into(),
            CORRECTED.into(),
        ];
        let mut all = 0;
        loop {
            let corrected = self.db().patiently().execute(USED_LATER, &values).await;
            let some = self.noticed(corrected.map_err(failed))?;
            all += some;
            if some < CORRECTED.unsigned_abs() {
                return Ok(all);
            }
        }
    }

    /// Writes down how these records of a repository, or its uploaded files, were used, in one transaction; those that are gone are passed
    /// over, and a later time stays, unless it is far in the future.
    ///
    /// # Errors
    /// The database does not take it.
    pub async fn note_used(
        &self,
        repository: &RepositoryName,
        is_upload: bool,
        uses: &[RecordUse],
        now: UnixMillis,
    ) -> Result<(), StorageError> {
        let failed = |error| StorageError::from_sql("write down what was used", error);
        let rows = uses.iter().map(|one| {
            let (path, variant) = &one.key;
            (path, variant, one.at.0, one.served)
        });
        let rows: Vec<_> = rows.collect();
        // Texts and numbers are all that is in it, and those can be written.
        let list = serde_json::to_string(&rows).unwrap_or_default();
        let latest = now.plus(MOST_AHEAD).0;
        let values = [repository.as_str().into(), list.into(), latest.into()];
        let mut patience = Patience::default();
        loop {
            let written = async {
                let mut tx = self.db().begin(Durability::Grouped).await?;
                let statement = if is_upload { USED_UPLOADS } else { USED };
                tx.execute(statement, &values).await?;
                tx.commit().await
            };
            match written.await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    let again = patience.again(error).await;
                    self.noticed(again.map_err(failed))?;
                }
            }
        }
    }
}

/// Writes down when a record expires.
pub(super) async fn expires(tx: &mut Tx, key: &SourceKey, at: UnixMillis) -> Result<(), DbError> {
    let values = [
        key.repository.as_str().into(),
        (*key.path).into(),
        (*key.variant).into(),
        at.0.into(),
    ];
    tx.execute(EXPIRES, &values).await?;
    Ok(())
}
