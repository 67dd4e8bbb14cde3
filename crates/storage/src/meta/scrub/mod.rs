//! Scrubs: all blobs that something refers to are read again and compared with their digests (docs/adr/0096). A scrub is a row, with what
//! it has found; one process at a time works on it, which holds a lease of it.
//!
//! | file | knows |
//! |---|---|
//! | `mod.rs` | the rows: begun, shown, cancelled |
//! | `run.rs` | whose turn it is to work, and how far it has come |
//! | `users.rs` | who refers to a damaged blob, and how that is forgotten |

mod run;
mod users;

use larder_core::UnixMillis;

use super::MetadataStore;
use super::copy::NamedBlobs;
use super::db::{DbError, Durability, Row};
use crate::error::StorageError;

pub use run::{Mend, Named, PathOf};
pub use users::{BlobUsers, DamagedBlob};

const BEGIN: &str = "INSERT INTO scrubs (id, state, rate, place, total_blobs, total_bytes, blobs, bytes, begun_at, ended_at, runner, lease_until) \
     SELECT $1, 'running', $2, '', $3, $4, 0, 0, $5, NULL, '', 0 WHERE NOT EXISTS (SELECT 1 FROM scrubs WHERE ended_at IS NULL)";
const LAST: &str = "SELECT id, state, rate, total_blobs, total_bytes, blobs, bytes, \
     (SELECT COUNT(DISTINCT f.digest) FROM scrub_findings AS f WHERE f.scrub = scrubs.id), begun_at, ended_at FROM scrubs ORDER BY id DESC LIMIT 1";
const FINDINGS: &str = "SELECT number, digest, repository, path, kind, flaw, outcome FROM scrub_findings \
     WHERE scrub = $1 AND number > $2 ORDER BY number LIMIT $3";
const CANCEL: &str = "UPDATE scrubs SET state = 'cancelled', ended_at = $1, runner = '', lease_until = 0 WHERE ended_at IS NULL";
/// One that has come further is not given up.
const GIVE_UP: &str = "UPDATE scrubs SET state = 'failed', ended_at = $3, runner = '', lease_until = 0 \
     WHERE id = $1 AND blobs = $2 AND ended_at IS NULL";
/// Of a file that was uploaded anew or deleted since, nothing is wrong any more.
const LOCAL: &str = "SELECT COUNT(*) FROM (SELECT DISTINCT f.repository, f.path FROM scrub_findings AS f \
     WHERE f.kind = 'local' AND f.outcome = 'kept' AND EXISTS (SELECT 1 FROM local_files AS l \
     WHERE l.repository = f.repository AND l.path = f.path AND l.blob = f.digest)) AS damaged";

/// A scrub, and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScrubRow {
    /// Its name; later ones come later in the order of texts.
    pub id: String,
    /// `running`, `done`, `cancelled` or `failed`.
    pub state: String,
    /// Bytes that are read each second.
    pub rate: u64,
    /// Blobs that there were when it was begun.
    pub total_blobs: u64,
    /// Their bytes.
    pub total_bytes: u64,
    /// Blobs that have been read.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs of them that were not what they should be.
    pub damaged: u64,
    /// When it was begun.
    pub begun_at: UnixMillis,
    /// When it ended, if it has.
    pub ended_at: Option<UnixMillis>,
}

/// A name of a damaged blob, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScrubFinding {
    /// Counted from 1 in each scrub.
    pub number: i64,
    /// The blob's digest, as it should be.
    pub digest: String,
    /// The repository.
    pub repository: String,
    /// Decoded path below it, without a query; empty for a derived document.
    pub path: String,
    /// `local` for an uploaded file, `cached` for what was fetched, `derived` for what is made of that.
    pub kind: String,
    /// `missing`, `wrong` or `unreadable`.
    pub flaw: String,
    /// `kept`, as it is; `restored`, because it was to be had from an upstream; `forgotten`, to be fetched or made anew when it is asked for;
    /// `refetched`, at once.
    pub outcome: String,
}

impl MetadataStore {
    /// Begins a scrub of all blobs, at so many bytes a second; `false` if one is under way. It is on stable storage when this returns.
    ///
    /// # Errors
    /// The database does not take it.
    pub async fn begin_scrub(
        &self,
        id: &str,
        rate: u64,
        now: UnixMillis,
    ) -> Result<bool, StorageError> {
        let counts = self.copy_counts(NamedBlobs::All).await?;
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let values = [
            id.into(),
            number(rate).into(),
            number(counts.blobs).into(),
            number(counts.bytes).into(),
            now.0.into(),
        ];
        let begun = async {
            let mut tx = self.db().begin(Durability::Durable).await?;
            let begun = tx.execute(BEGIN, &values).await? > 0;
            tx.commit().await?;
            Ok(begun)
        };
        self.noticed(begun.await.map_err(failed))
    }

    /// The scrub that was begun last, if there was one.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn last_scrub(&self) -> Result<Option<ScrubRow>, StorageError> {
        let row = self.db().optional(LAST, &[]).await;
        let scrub = row.and_then(|row| row.map(|row| scrub(&row)).transpose());
        self.noticed(scrub.map_err(failed))
    }

    /// Up to `limit` of what a scrub has found, from behind a number on.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn scrub_findings(
        &self,
        id: &str,
        after: i64,
        limit: u32,
    ) -> Result<Vec<ScrubFinding>, StorageError> {
        let values = [id.into(), after.into(), i64::from(limit).into()];
        let rows = self.db().all(FINDINGS, &values).await;
        let found = rows.and_then(|rows| rows.iter().map(finding).collect());
        self.noticed(found.map_err(failed))
    }

    /// Cancels the scrub that is under way; whether there was one. What it has found stays.
    ///
    /// # Errors
    /// The database does not take it.
    pub async fn cancel_scrub(&self, now: UnixMillis) -> Result<bool, StorageError> {
        let cancelled = self.db().execute(CANCEL, &[now.0.into()]).await;
        self.noticed(cancelled.map(|rows| rows > 0).map_err(failed))
    }

    /// Ends a scrub that cannot go on where it is; whether it was still there. What it has found stays.
    ///
    /// # Errors
    /// The database does not take it.
    pub async fn give_scrub_up(
        &self,
        scrub: &ScrubRow,
        now: UnixMillis,
    ) -> Result<bool, StorageError> {
        let blobs = i64::try_from(scrub.blobs).unwrap_or(i64::MAX);
        let values = [(&*scrub.id).into(), blobs.into(), now.0.into()];
        let given_up = self.db().execute(GIVE_UP, &values).await;
        self.noticed(given_up.map(|rows| rows > 0).map_err(failed))
    }

    /// Uploaded files that scrubs have found damaged and that are still what they were then.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn damaged_files(&self) -> Result<u64, StorageError> {
        let row = self.db().one(LOCAL, &[]).await;
        let count = row.and_then(|row| row.get::<i64>(0));
        Ok(self.noticed(count.map_err(failed))?.unsigned_abs())
    }
}

fn scrub(row: &Row) -> Result<ScrubRow, DbError> {
    let number = |index| row.get::<i64>(index).map(i64::unsigned_abs);
    Ok(ScrubRow {
        id: row.get(0)?,
        state: row.get(1)?,
        rate: number(2)?,
        total_blobs: number(3)?,
        total_bytes: number(4)?,
        blobs: number(5)?,
        bytes: number(6)?,
        damaged: number(7)?,
        begun_at: UnixMillis(row.get(8)?),
        ended_at: row.get::<Option<i64>>(9)?.map(UnixMillis),
    })
}

fn finding(row: &Row) -> Result<ScrubFinding, DbError> {
    Ok(ScrubFinding {
        number: row.get(0)?,
        digest: row.get(1)?,
        repository: row.get(2)?,
        path: row.get(3)?,
        kind: row.get(4)?,
        flaw: row.get(5)?,
        outcome: row.get(6)?,
    })
}

fn failed(error: DbError) -> StorageError {
    StorageError::from_sql("scrub what is stored", error)
}
