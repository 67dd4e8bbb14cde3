//! The database's versions: numbered scripts, each run once, in a transaction that also notes its number.

use sqlx::sqlite::SqlitePool;

use crate::error::{StorageError, StorageErrorKind};

/// Script `n` (counted from 1) leads from version `n - 1` to version `n`. Scripts are never edited, only added.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/0001_artifacts.sql")];

const CREATE: &str = "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT PRIMARY KEY NOT NULL)";
const CURRENT: &str = "SELECT COALESCE(MAX(version), 0) FROM schema_version";
const NOTE: &str = "INSERT INTO schema_version (version) VALUES ($1)";
const BEGIN: &str = "BEGIN IMMEDIATE";

/// Brings the database up to date. `Unavailable` if a newer version of larder has written it.
pub(super) async fn migrate(writer: &SqlitePool) -> Result<(), StorageError> {
    let failed = |error| StorageError::from_sql("prepare the metadata database", error);
    if is_current(writer).await? {
        return Ok(());
    }
    let mut transaction = writer.begin_with(BEGIN).await.map_err(failed)?;
    sqlx::query(CREATE).execute(&mut *transaction).await.map_err(failed)?;
    let version: i64 = sqlx::query_scalar(CURRENT).fetch_one(&mut *transaction).await.map_err(failed)?;
    for (number, script) in (1_i64..).zip(MIGRATIONS).skip(usize::try_from(version).unwrap_or(usize::MAX)) {
        sqlx::raw_sql(script).execute(&mut *transaction).await.map_err(failed)?;
        sqlx::query(NOTE).bind(number).execute(&mut *transaction).await.map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)
}

/// The usual case of a start: one read, no write.
async fn is_current(writer: &SqlitePool) -> Result<bool, StorageError> {
    const EXISTS: &str = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = 'schema_version'";
    let failed = |error| StorageError::from_sql("read the metadata database", error);
    let tables: i64 = sqlx::query_scalar(EXISTS).fetch_one(writer).await.map_err(failed)?;
    if tables == 0 {
        return Ok(false);
    }
    let version: i64 = sqlx::query_scalar(CURRENT).fetch_one(writer).await.map_err(failed)?;
    let newest = MIGRATIONS.len() as i64;
    if version > newest {
        let message = format!(
            "the metadata database has version {version}, this larder knows versions up to {newest}: \
             start the newer larder that wrote it, or give this one another data directory"
        );
        return Err(StorageError::new(StorageErrorKind::Unavailable, message));
    }
    Ok(version == newest)
}
