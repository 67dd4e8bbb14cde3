//! The database's versions: numbered scripts, each run once, in a transaction that also notes its number. And whether the file is, as
//! far as a few pages tell, the database that these scripts make.

use larder_core::sha256;
use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqlitePool;

use super::seal::{Unsealed, seal, unseal};
use super::secrets::to_hex;
use crate::error::{StorageError, StorageErrorKind};

/// Script `n` (counted from 1) leads from version `n - 1` to version `n`. Scripts are never edited, only added.
const MIGRATIONS: [&str; 4] = [
    include_str!("migrations/0001_artifacts.sql"),
    include_str!("migrations/0002_origins.sql"),
    include_str!("migrations/0003_held.sql"),
    include_str!("migrations/0004_local_files.sql"),
];

const CREATE: &str =
    "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT PRIMARY KEY NOT NULL)";
const VERSIONS: &str = "SELECT version FROM schema_version ORDER BY version";
const NOTE: &str = "INSERT INTO schema_version (version) VALUES ($1)";
const BEGIN: &str = "BEGIN IMMEDIATE";
const SCHEMA: &str =
    "SELECT type, name, tbl_name, COALESCE(sql, '') FROM sqlite_master ORDER BY type, name";
/// The row among the secrets that says what the schema was when it was made.
const SCHEMA_NAME: &str = "schema";
const NOTED_SCHEMA: &str = "SELECT value FROM secrets WHERE name = $1";
const NOTE_SCHEMA: &str = "INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
const TABLES: [&str; 8] = [
    "artifacts",
    "blobs",
    "derivations",
    "derivation_sources",
    "secrets",
    "origins",
    "local_files",
    "local_usage",
];

/// Brings the database up to date. `Unavailable` if a newer version of larder has written it, `Corrupt` if it is not what a version of
/// larder has written. Gives the version that it had.
pub(super) async fn migrate(writer: &SqlitePool) -> Result<i64, StorageError> {
    let failed = |error| damaged_if_strange("prepare the metadata database", error);
    let before = version(writer).await?;
    let newest = MIGRATIONS.len() as i64;
    if before < newest {
        let mut transaction = writer.begin_with(BEGIN).await.map_err(failed)?;
        sqlx::query(CREATE)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        // Another process may have been here meanwhile.
        let done: Vec<i64> = sqlx::query_scalar(VERSIONS)
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed)?;
        for (number, script) in (1_i64..).zip(MIGRATIONS).skip(done.len()) {
            sqlx::raw_sql(script)
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
            sqlx::query(NOTE)
                .bind(number)
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
        }
        let schema = sqlx::query_as(SCHEMA)
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed)?;
        let sealed = seal(&[SCHEMA_NAME], &fingerprint(&schema));
        sqlx::query(NOTE_SCHEMA)
            .bind(SCHEMA_NAME)
            .bind(sealed)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
    } else {
        check_schema(writer).await?;
    }
    for table in TABLES {
        // The first page of each is there and is one.
        let look = AssertSqlSafe(format!("SELECT * FROM {table} LIMIT 1"));
        sqlx::query(look)
            .fetch_optional(writer)
            .await
            .map_err(failed)?;
    }
    Ok(before)
}

/// As far as [`migrate`] looks at a database, without bringing it up to date.
pub(super) async fn look(reader: &SqlitePool) -> Result<(), StorageError> {
    let failed = |error| damaged_if_strange("read the metadata database", error);
    if version(reader).await? < MIGRATIONS.len() as i64 {
        return Ok(());
    }
    check_schema(reader).await?;
    for table in TABLES {
        let look = AssertSqlSafe(format!("SELECT * FROM {table} LIMIT 1"));
        sqlx::query(look)
            .fetch_optional(reader)
            .await
            .map_err(failed)?;
    }
    Ok(())
}

/// The version that the database has; 0 if it is empty.
async fn version(writer: &SqlitePool) -> Result<i64, StorageError> {
    const EXISTS: &str =
        "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = 'schema_version'";
    const OTHERS: &str = "SELECT COUNT(*) FROM sqlite_master";
    let failed = |error| damaged_if_strange("read the metadata database", error);
    let tables: i64 = sqlx::query_scalar(EXISTS)
        .fetch_one(writer)
        .await
        .map_err(failed)?;
    if tables == 0 {
        let others: i64 = sqlx::query_scalar(OTHERS)
            .fetch_one(writer)
            .await
            .map_err(failed)?;
        return if others == 0 {
            Ok(0)
        } else {
            Err(not_larders())
        };
    }
    let versions: Vec<i64> = sqlx::query_scalar(VERSIONS)
        .fetch_all(writer)
        .await
        .map_err(failed)?;
    let newest = MIGRATIONS.len() as i64;
    let last = versions.last().copied().unwrap_or(0);
    // Each version that was passed through has its row, so that one flipped bit makes no other version.
    let expected = (1..=last.min(newest)).collect::<Vec<_>>();
    if versions.get(..expected.len()) != Some(&expected[..])
        || (last <= newest && versions.len() != expected.len())
    {
        return Err(not_larders());
    }
    if last > newest {
        let message = format!(
            "the metadata database has version {last}, this larder knows versions up to {newest}: \
             start the newer larder that wrote it, or give this one another data directory"
        );
        return Err(StorageError::new(StorageErrorKind::Unavailable, message));
    }
    Ok(last)
}

/// Compares the tables and indexes with what they were when they were made.
async fn check_schema(writer: &SqlitePool) -> Result<(), StorageError> {
    let failed = |error| damaged_if_strange("read the metadata database", error);
    let schema = sqlx::query_as(SCHEMA)
        .fetch_all(writer)
        .await
        .map_err(failed)?;
    let noted: Option<String> = sqlx::query_scalar(NOTED_SCHEMA)
        .bind(SCHEMA_NAME)
        .fetch_optional(writer)
        .await
        .map_err(failed)?;
    match unseal(&[SCHEMA_NAME], &noted.unwrap_or_default()) {
        Unsealed::Intact(noted) if noted == fingerprint(&schema) => Ok(()),
        _ => Err(not_larders()),
    }
}

fn fingerprint(schema: &[(String, String, String, String)]) -> String {
    let text: Vec<String> = schema
        .iter()
        .map(|(kind, name, table, sql)| format!("{kind}\0{name}\0{table}\0{sql}\0"))
        .collect();
    to_hex(sha256(text.concat().as_bytes()).to_hex().as_bytes())
}

fn not_larders() -> StorageError {
    StorageError::new(
        StorageErrorKind::Corrupt,
        "the metadata database is damaged: it is not what a version of larder has written",
    )
}

/// Statements that are constants fail for want of a table or a column only where the schema is not what it was.
fn damaged_if_strange(doing: &str, error: sqlx::Error) -> StorageError {
    let is_strange = error
        .as_database_error()
        .is_some_and(|error| error.code().as_deref() == Some("1"));
    let error = StorageError::from_sql(doing, error);
    if is_strange {
        StorageError {
            kind: StorageErrorKind::Corrupt,
            ..error
        }
    } else {
        error
    }
}
