//! The last steps of a blob: condemned by its row, deleted from the disk, forgotten (docs/adr/0065).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder_core::{Clock as _, Digest, SystemClock, UnixMillis, sha256};

use super::MetadataStore;
use super::db::{DbError, Durability, Sql, locking};
use super::patience::Patience;
use crate::blob::BlobStore;
use crate::error::{StorageError, StorageErrorKind};

/// So long a store may go on deleting the files of blobs that it has condemned; what is left then waits for its next run.
const HOLD: Duration = Duration::from_secs(60);
/// So long after a store has condemned a blob another one takes over: much longer than [`HOLD`], for clocks differ and processes
/// may be stopped for a while between a look at the time and the deletion of a file.
const TAKE_OVER: Duration = Duration::from_mins(30);

/// Whether nothing refers to the blob whose digest is `$digest`: one line for each table that may.
macro_rules! unreferenced {
    ($digest:literal) => {
        concat!(
            " AND NOT EXISTS (SELECT 1 FROM artifacts AS a WHERE a.blob = ",
            $digest,
            ") AND NOT EXISTS (SELECT 1 FROM derivations AS d WHERE d.blob = ",
            $digest,
            ") AND NOT EXISTS (SELECT 1 FROM local_files AS l WHERE l.blob = ",
            $digest,
            ")"
        )
    };
}
pub(super) use unreferenced;

/// Before it is asked in another statement whether anything refers to a blob: whoever refers to it changes its row, so that everything
/// that has been committed by then is seen, and nothing is added. (A statement that waits for a row looks again at that row
/// only, and not at the other tables.)
pub(super) const LOCK_BLOB: Sql = locking!("SELECT digest FROM blobs WHERE digest = $1");
const CONDEMN_DUE: &str = concat!(
    "UPDATE blobs SET condemned_by = $3, condemned_at = $2 WHERE digest = $1 AND delete_after <= $2 AND condemned_by IS NULL",
    unreferenced!("$1")
);
const CONDEMN_UNREFERENCED: &str = concat!(
    "UPDATE blobs SET condemned_by = $3, condemned_at = $2 WHERE digest = $1 AND condemned_by IS NULL",
    unreferenced!("$1")
);
const CONDEMN_ORPHAN: &str = "INSERT INTO blobs (digest, size, modified_ns, delete_after, condemned_by, condemned_at) \
     VALUES ($1, $4, 0, $2, $3, $2) ON CONFLICT (digest) DO NOTHING";
const TAKE: &str = "UPDATE blobs SET condemned_by = $3, condemned_at = $2 WHERE digest = $1 \
     AND condemned_by IS NOT NULL AND (condemned_by = $3 OR condemned_at <= $4)";
const FORGET: &str = "DELETE FROM blobs WHERE digest = $1 AND condemned_by = $2";
const LET_BE: &str = "UPDATE blobs SET condemned_by = NULL, condemned_at = NULL WHERE digest = $1 AND condemned_by = $2";

/// A blob that may be deleted, and its length.
pub(super) type Candidate = (Digest, u64);

/// Why a blob is condemned.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ground {
    /// Its date has come.
    Due,
    /// Its row, if nothing refers to it, may go before its date.
    Unreferenced,
    /// Its file has no row.
    Orphan,
    /// It is condemned already, by a store that is not getting on.
    LeftBehind,
}

/// A name that no other store has.
pub(super) fn new_name() -> String {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    // The address differs between processes that have the same number, on two machines or one after the other.
    let here = std::ptr::from_ref(&serial).addr();
    let text = format!(
        "{} {} {serial} {here}",
        SystemClock.now().0,
        std::process::id()
    );
    sha256(text.as_bytes()).to_hex().chars().take(16).collect()
}

impl MetadataStore {
    /// Condemns, deletes the files, and forgets the rows. Gives the number and bytes of the files deleted. Once begun it is done to the
    /// end, also when the caller is cancelled, and by one at a time in this store: a file whose turn came late could be another's by
    /// then.
    pub(super) async fn delete(
        &self,
        candidates: Vec<Candidate>,
        ground: Ground,
        now: UnixMillis,
        blobs: &Arc<dyn BlobStore>,
    ) -> Result<(u64, u64), StorageError> {
        let deleting = Arc::clone(&self.shared.deleting).lock_owned().await;
        let (store, blobs) = (self.clone(), Arc::clone(blobs));
        let done = tokio::spawn(async move {
            let done = store.delete_alone(candidates, ground, now, &blobs).await;
            drop(deleting);
            done
        });
        done.await.unwrap_or_else(|error| Err(broken_off(error)))
    }

    async fn delete_alone(
        &self,
        candidates: Vec<Candidate>,
        ground: Ground,
        now: UnixMillis,
        blobs: &Arc<dyn BlobStore>,
    ) -> Result<(u64, u64), StorageError> {
        let condemned = self
            .condemn(candidates, ground, now)
            .await
            .map_err(deleting)?;
        if condemned.is_empty() {
            return Ok((0, 0));
        }
        let since = Instant::now();
        let deleted = delete_files(&**blobs, condemned, since).await;
        self.forget(&deleted).await.map_err(deleting)?;
        match deleted.error {
            Some(error) => Err(error),
            None => Ok((deleted.count, deleted.bytes)),
        }
    }

    /// Gives those that are condemned now, by this store. Durable: else a power cut could bring back a reference to a blob whose file
    /// has gone.
    async fn condemn(
        &self,
        candidates: Vec<Candidate>,
        ground: Ground,
        now: UnixMillis,
    ) -> Result<Vec<Candidate>, DbError> {
        if candidates.is_empty() {
            return Ok(candidates);
        }
        let mut patience = Patience::default();
        loop {
            match self.try_to_condemn(&candidates, ground, now).await {
                Ok(condemned) => return Ok(condemned),
                Err(error) => patience.again(error).await?,
            }
        }
    }

    async fn try_to_condemn(
        &self,
        candidates: &[Candidate],
        ground: Ground,
        now: UnixMillis,
    ) -> Result<Vec<Candidate>, DbError> {
        let mut condemned = Vec::with_capacity(candidates.len());
        let mut tx = self.db().begin(Durability::Durable).await?;
        for (digest, size) in candidates {
            let (statement, more): (_, Option<i64>) = match ground {
                Ground::Due => (CONDEMN_DUE, None),
                Ground::Unreferenced => (CONDEMN_UNREFERENCED, None),
                Ground::Orphan => (CONDEMN_ORPHAN, Some(*size as i64)),
                Ground::LeftBehind => (TAKE, Some(taken_over(now))),
            };
            tx.all(LOCK_BLOB, &[digest.to_string().into()]).await?;
            let mut values = vec![
                digest.to_string().into(),
                now.0.into(),
                (&*self.shared.name).into(),
            ];
            values.extend(more.map(Into::into));
            if tx.execute(statement, &values).await? > 0 {
                condemned.push((digest.clone(), *size));
            }
        }
        tx.commit().await?;
        Ok(condemned)
    }

    /// Forgets rows whose files are gone, or are held by somebody who is about to write the row anew; and lets those be whose files
    /// were not tried.
    async fn forget(&self, deleted: &Deleted) -> Result<(), DbError> {
        let mut patience = Patience::default();
        while let Err(error) = self.try_to_forget(deleted).await {
            patience.again(error).await?;
        }
        Ok(())
    }

    async fn try_to_forget(&self, deleted: &Deleted) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        let over = deleted.over.iter().map(|digest| (FORGET, digest));
        let left = deleted.left.iter().map(|digest| (LET_BE, digest));
        for (statement, digest) in over.chain(left) {
            let values = [digest.to_string().into(), (&*self.shared.name).into()];
            tx.execute(statement, &values).await?;
        }
        tx.commit().await
    }
}

pub(super) fn deleting(error: DbError) -> StorageError {
    StorageError::from_sql("delete unreferenced blobs", error)
}

/// What was condemned then or before is taken over now.
pub(super) fn taken_over(now: UnixMillis) -> i64 {
    now.0
        .saturating_sub(i64::try_from(TAKE_OVER.as_millis()).unwrap_or(i64::MAX))
}

/// What became of condemned blobs.
#[derive(Default)]
struct Deleted {
    /// Those that are done with: their rows may be forgotten.
    over: Vec<Digest>,
    /// Those that were not tried, or in vain.
    left: Vec<Digest>,
    /// Files deleted.
    count: u64,
    /// Their bytes.
    bytes: u64,
    /// What went wrong.
    error: Option<StorageError>,
}

/// Deletes files of blobs that were condemned at `since`, as long as that is not too long ago.
async fn delete_files(blobs: &dyn BlobStore, condemned: Vec<Candidate>, since: Instant) -> Deleted {
    let mut deleted = Deleted::default();
    for (digest, size) in condemned {
        if since.elapsed() > HOLD || deleted.error.is_some() {
            deleted.left.push(digest);
            continue;
        }
        match blobs.delete(&digest).await {
            Ok(was_there) => {
                deleted.count += u64::from(was_there);
                deleted.bytes += if was_there { size } else { 0 };
                deleted.over.push(digest);
            }
            Err(error) => {
                deleted.error = Some(error);
                deleted.left.push(digest);
            }
        }
    }
    deleted
}

fn broken_off(error: tokio::task::JoinError) -> StorageError {
    StorageError {
        kind: StorageErrorKind::Unavailable,
        message: "the collector's work on the blob store was broken off".to_owned(),
        source: Some(Box::new(error)),
    }
}
