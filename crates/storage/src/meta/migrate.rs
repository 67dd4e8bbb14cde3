//! The database's versions: numbered scripts, each run once, in a transaction that also notes its number. And whether the file is, as
//! far as a few pages tell, the database that these scripts make.

use larder_core::sha256;

use super::db::{About, Db, DbError, Durability, Schema};
use super::seal::{Unsealed, seal, unseal};
use super::secrets::to_hex;
use crate::error::{StorageError, StorageErrorKind};

/// Script `n` (counted from 1) leads from version `n - 1` to version `n`. Scripts are never edited, only added.
const MIGRATIONS: [&str; 14] = [
    include_str!("migrations/0001_artifacts.sql"),
    include_str!("migrations/0002_origins.sql"),
    include_str!("migrations/0003_held.sql"),
    include_str!("migrations/0004_local_files.sql"),
    include_str!("migrations/0005_changes.sql"),
    include_str!("migrations/0006_condemned.sql"),
    include_str!("migrations/0007_multipart_uploads.sql"),
    include_str!("migrations/0008_invalid.sql"),
    include_str!("migrations/0009_uses.sql"),
    include_str!("migrations/0010_jobs.sql"),
    include_str!("migrations/0011_figures.sql"),
    include_str!("migrations/0012_scrubs.sql"),
    include_str!("migrations/0014_served.sql"),
    include_str!("migrations/0015_ages.sql"),
];

const CREATE: &str =
    "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT PRIMARY KEY NOT NULL)";
const VERSIONS: &str = "SELECT version FROM schema_version ORDER BY version";
const NOTE: &str = "INSERT INTO schema_version (version) VALUES ($1)";
/// The row among the secrets that says what the schema was when it was made.
const SCHEMA_NAME: &str = "schema";
const NOTED_SCHEMA: &str = "SELECT value FROM secrets WHERE name = $1";
const NOTE_SCHEMA: &str = "INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
/// A row of each table.
const LOOKS: [&str; 19] = [
    "SELECT * FROM artifacts LIMIT 1",
    "SELECT * FROM blobs LIMIT 1",
    "SELECT * FROM derivations LIMIT 1",
    "SELECT * FROM derivation_sources LIMIT 1",
    "SELECT * FROM secrets LIMIT 1",
    "SELECT * FROM origins LIMIT 1",
    "SELECT * FROM changes LIMIT 1",
    "SELECT * FROM local_files LIMIT 1",
    "SELECT * FROM local_usage LIMIT 1",
    "SELECT * FROM multipart_uploads LIMIT 1",
    "SELECT * FROM epochs LIMIT 1",
    "SELECT * FROM invalid_records LIMIT 1",
    "SELECT * FROM jobs LIMIT 1",
    "SELECT * FROM job_items LIMIT 1",
    "SELECT * FROM figures LIMIT 1",
    "SELECT * FROM asked LIMIT 1",
    "SELECT * FROM scrubs LIMIT 1",
    "SELECT * FROM scrub_findings LIMIT 1",
    "SELECT * FROM ages LIMIT 1",
];

/// Brings the database up to date. `Unavailable` if a newer version of larder has written it, `Corrupt` if it is not what a version of
/// larder has written. Gives the version that it had.
pub(super) async fn migrate(db: &Db) -> Result<i64, StorageError> {
    let failed = |error| damaged_if_strange("prepare the metadata database", error);
    let before = version(db).await?;
    if before < MIGRATIONS.len() as i64 {
        run(db).await.map_err(failed)?;
    } else {
        check_schema(db).await?;
    }
    look_at_tables(db).await.map_err(failed)?;
    Ok(before)
}

async fn run(db: &Db) -> Result<(), DbError> {
    let mut tx = db.begin(Durability::Grouped).await?;
    tx.execute(CREATE, &[]).await?;
    // Another process may have been here meanwhile.
    let done = tx.all(VERSIONS, &[]).await?.len();
    for (number, script) in (1_i64..).zip(MIGRATIONS).skip(done) {
        tx.script(script).await?;
        tx.execute(NOTE, &[number.into()]).await?;
    }
    let sealed = seal(&[SCHEMA_NAME], &fingerprint(&tx.schema().await?));
    let values = [SCHEMA_NAME.into(), sealed.into()];
    tx.execute(NOTE_SCHEMA, &values).await?;
    tx.commit().await
}

/// The first page of each table is there and is one.
async fn look_at_tables(db: &Db) -> Result<(), DbError> {
    for look in LOOKS {
        db.optional(look, &[]).await?;
    }
    Ok(())
}

/// As far as [`migrate`] looks at a database, without bringing it up to date.
pub(super) async fn look(db: &Db) -> Result<(), StorageError> {
    if version(db).await? < MIGRATIONS.len() as i64 {
        return Ok(());
    }
    check_schema(db).await?;
    let failed = |error| damaged_if_strange("read the metadata database", error);
    look_at_tables(db).await.map_err(failed)
}

/// Whether the tables are those of this version of larder.
pub(super) async fn is_current(db: &Db) -> Result<bool, StorageError> {
    Ok(version(db).await? == MIGRATIONS.len() as i64)
}

/// The version that the database has; 0 if it is empty.
async fn version(db: &Db) -> Result<i64, StorageError> {
    let failed = |error| damaged_if_strange("read the metadata database", error);
    let schema = db.schema().await.map_err(failed)?;
    let has_versions = schema
        .iter()
        .any(|(kind, name, _, _)| kind == "table" && name == "schema_version");
    if !has_versions {
        return if schema.is_empty() {
            Ok(0)
        } else {
            Err(not_larders())
        };
    }
    let versions = db.all(VERSIONS, &[]).await;
    let versions = versions.and_then(|rows| rows.iter().map(|row| row.get(0)).collect());
    let versions: Vec<i64> = versions.map_err(failed)?;
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
async fn check_schema(db: &Db) -> Result<(), StorageError> {
    let failed = |error| damaged_if_strange("read the metadata database", error);
    let schema = db.schema().await.map_err(failed)?;
    let noted = db.optional(NOTED_SCHEMA, &[SCHEMA_NAME.into()]).await;
    let noted = noted.and_then(|row| row.map(|row| row.get::<String>(0)).transpose());
    let noted = noted.map_err(failed)?;
    match unseal(&[SCHEMA_NAME], &noted.unwrap_or_default()) {
        Unsealed::Intact(noted) if noted == fingerprint(&schema) => Ok(()),
        _ => Err(not_larders()),
    }
}

fn fingerprint(schema: &Schema) -> String {
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
fn damaged_if_strange(doing: &str, error: DbError) -> StorageError {
    let is_strange = error.about == About::Statement;
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
