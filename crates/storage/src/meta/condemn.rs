//! The last steps of a blob: condemned by its row, deleted from the disk, forgotten (docs/adr/0065).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder_core::{Clock as _, Digest, SystemClock, UnixMillis, sha256};

use super::MetadataStore;
use super::db::{DbError, Durability, Sql, Value};
use super::lists::{as_list, each};
use super::patience::Patience;
use super::undeleted::Failures;
use crate::blob::BlobStore;
use crate::error::{StorageError, StorageErrorKind};

/// So long a store may go on deleting the files of blobs that it has condemned; what is left then waits for its next run. Much shorter
/// than others wait before they take over.
pub(super) const HOLD: Duration = Duration::from_secs(30);
/// Whoever has condemned blobs may delete files for so long, however late it is: else a slow database would let nobody get on.
const LEAST: Duration = Duration::from_millis(200);
/// So long whoever deletes until a moment waits for the store to answer behind it.
const ANSWER: Duration = Duration::from_secs(2);
/// So long after a store has condemned a blob another one takes over, whatever it knows of the first: clocks differ, and processes
/// may be stopped for a while between a look at the time and the deletion of a file.
const TAKE_OVER: Duration = Duration::from_mins(30);
/// Files that are deleted between two looks whether they are still this store's to delete.
const AT_ONCE: usize = 50;

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

/// Before it is asked in another statement whether anything refers to the blobs of a list: whoever refers to one changes its row, so that
/// everything that has been committed by then is seen, and nothing is added. (A statement that waits for a row looks again at that row
/// only, and not at the other tables.) In one order, so that two who lock the same rows do not wait for each other; who is alone when it
/// writes has nothing to lock.
pub(super) const LOCK_BLOBS: Sql = Sql {
    sqlite: "SELECT $1",
    postgres: concat!(
        "SELECT digest FROM blobs WHERE digest = ANY (ARRAY(",
        each!(postgres),
        ")) ORDER BY digest FOR UPDATE"
    ),
};
/// A server that knows no blob to be due, for it has looked at the table before the flush, would begin with all that are, and compare each with
/// the whole list. What no index is of leaves it the list to begin with, here and below.
const CONDEMN_DUE: Sql = Sql {
    sqlite: concat!(
        "UPDATE blobs SET condemned_by = $3, condemned_at = $2 WHERE digest IN (",
        each!(sqlite),
        ") AND delete_after <= $2 AND condemned_by IS NULL",
        unreferenced!("blobs.digest"),
        " RETURNING digest"
    ),
    postgres: concat!(
        "UPDATE blobs SET condemned_by = $3, condemned_at = $2 WHERE digest = ANY (ARRAY(",
        each!(postgres),
        ")) AND delete_after + 0 <= $2 AND condemned_by IS NULL",
        unreferenced!("blobs.digest"),
        " RETURNING digest"
    ),
};
pub(super) const CONDEMN_UNREFERENCED: Sql = Sql {
    sqlite: concat!(
        "UPDATE blobs SET condemned_by = $3, condemned_at = $2 WHERE digest IN (",
        each!(sqlite),
        ") AND condemned_by IS NULL",
        unreferenced!("blobs.digest"),
        " RETURNING digest, size"
    ),
    postgres: concat!(
        "UPDATE blobs SET condemned_by = $3, condemned_at = $2 WHERE digest = ANY (ARRAY(",
        each!(postgres),
        ")) AND condemned_by IS NULL",
        unreferenced!("blobs.digest"),
        " RETURNING digest, size"
    ),
};
/// Of a list `[["digest", size], …]`.
const CONDEMN_ORPHANS: Sql = Sql {
    sqlite: "INSERT INTO blobs (digest, size, modified_ns, delete_after, condemned_by, condemned_at) \
         SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), 0, $2, $3, $2 FROM json_each($1) WHERE TRUE \
         ON CONFLICT (digest) DO NOTHING RETURNING digest",
    postgres: "INSERT INTO blobs (digest, size, modified_ns, delete_after, condemned_by, condemned_at) \
         SELECT k ->> 0, CAST(k ->> 1 AS BIGINT), 0, CAST($2 AS BIGINT), $3, CAST($2 AS BIGINT) FROM json_array_elements($1::json) AS k \
         ON CONFLICT (digest) DO NOTHING RETURNING digest",
};
const TAKE: Sql = Sql {
    sqlite: concat!(
        "UPDATE blobs SET condemned_by = $3, condemned_at = $2 WHERE digest IN (",
        each!(sqlite),
        ") AND condemned_by IS NOT NULL AND (condemned_by = $3 OR condemned_at <= $4) RETURNING digest"
    ),
    postgres: concat!(
        "UPDATE blobs SET condemned_by = $3, condemned_at = $2 WHERE digest = ANY (ARRAY(",
        each!(postgres),
        ")) AND condemned_by IS NOT NULL AND (COALESCE(condemned_by, '') = $3 OR condemned_at + 0 <= $4) RETURNING digest"
    ),
};
const FORGET: Sql = Sql {
    sqlite: concat!(
        "DELETE FROM blobs WHERE digest IN (",
        each!(sqlite),
        ") AND condemned_by = $2"
    ),
    postgres: concat!(
        "DELETE FROM blobs WHERE digest = ANY (ARRAY(",
        each!(postgres),
        ")) AND COALESCE(condemned_by, '') = $2"
    ),
};
const LET_BE: Sql = Sql {
    sqlite: concat!(
        "UPDATE blobs SET condemned_by = NULL, condemned_at = NULL WHERE digest IN (",
        each!(sqlite),
        ") AND condemned_by = $2"
    ),
    postgres: concat!(
        "UPDATE blobs SET condemned_by = NULL, condemned_at = NULL WHERE digest = ANY (ARRAY(",
        each!(postgres),
        ")) AND COALESCE(condemned_by, '') = $2"
    ),
};

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
        self.delete_until(candidates, ground, now, blobs, None)
            .await
    }

    /// As that, and begins with no file at `until` or later: what is not tried stays as it was. Of a store that does not answer soon after
    /// that it is not known what has gone.
    pub(super) async fn delete_until(
        &self,
        candidates: Vec<Candidate>,
        ground: Ground,
        now: UnixMillis,
        blobs: &Arc<dyn BlobStore>,
        until: Option<Instant>,
    ) -> Result<(u64, u64), StorageError> {
        let turn = Arc::clone(&self.shared.deleting).lock_owned();
        let turn = match until {
            None => turn.await,
            Some(until) => match tokio::time::timeout_at(until.into(), turn).await {
                Ok(turn) => turn,
                // Somebody else deletes at this moment.
                Err(_) => return Ok((0, 0)),
            },
        };
        let (store, blobs) = (self.clone(), Arc::clone(blobs));
        let done = tokio::spawn(async move {
            let done = store.delete_alone(candidates, ground, now, &blobs, until);
            let done = done.await;
            drop(turn);
            done
        });
        let done = async { done.await.unwrap_or_else(|error| Err(broken_off(error))) };
        let Some(until) = until else {
            return done.await;
        };
        // What has been begun goes on without the caller, who cannot be told any more what comes of it.
        let waited = tokio::time::timeout_at((until + ANSWER).into(), done).await;
        waited.unwrap_or(Ok((0, 0)))
    }

    async fn delete_alone(
        &self,
        candidates: Vec<Candidate>,
        ground: Ground,
        now: UnixMillis,
        blobs: &Arc<dyn BlobStore>,
        until: Option<Instant>,
    ) -> Result<(u64, u64), StorageError> {
        let condemned = self
            .condemn(candidates, ground, now)
            .await
            .map_err(deleting)?;
        if condemned.is_empty() {
            return Ok((0, 0));
        }
        let now = Instant::now();
        let until = until.map_or(now + HOLD, |until| until.max(now + LEAST));
        self.delete_condemned(condemned, until, blobs).await
    }

    /// Deletes the files of what this store has condemned, and forgets the rows. It begins with none at `until` or later, which is [`HOLD`]
    /// behind the moment at which they were condemned, or earlier. Only for whoever holds `deleting`.
    pub(super) async fn delete_condemned(
        &self,
        condemned: Vec<Candidate>,
        until: Instant,
        blobs: &Arc<dyn BlobStore>,
    ) -> Result<(u64, u64), StorageError> {
        let deleted = self.delete_files(&**blobs, condemned, until).await;
        self.forget(&deleted).await.map_err(deleting)?;
        match deleted.error {
            Some(error) => Err(error),
            None => Ok((deleted.count, deleted.bytes)),
        }
    }

    /// Deletes the files of condemned blobs, as long as they are this store's to delete and it is not `until` yet.
    async fn delete_files(
        &self,
        blobs: &dyn BlobStore,
        mut condemned: Vec<Candidate>,
        until: Instant,
    ) -> Deleted {
        let mut deleted = Deleted::default();
        let mut hold = match self.hold_deletions().await {
            Ok(hold) => hold,
            Err(error) => {
                deleted.error = Some(deleting(error));
                None
            }
        };
        while !condemned.is_empty() {
            let rest = condemned.split_off(condemned.len().min(AT_ONCE));
            let mut page = std::mem::replace(&mut condemned, rest);
            if deleted.error.is_none() {
                match self.still_own(&mut hold, &page).await {
                    Ok(own) => {
                        page.retain(|(digest, _)| own.contains(&digest.to_string()));
                        if !page.is_empty() {
                            deleted
                                .delete(blobs, page, until, &self.shared.undeleted)
                                .await;
                        }
                        continue;
                    }
                    Err(error) => deleted.error = Some(deleting(error)),
                }
            }
            deleted
                .left
                .extend(page.into_iter().map(|(digest, _)| digest));
        }
        if let Some(hold) = hold {
            hold.rollback().await;
        }
        deleted
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
        let mut candidates: BTreeMap<String, Candidate> = candidates
            .into_iter()
            .map(|(digest, size)| (digest.to_string(), (digest, size)))
            .collect();
        let mut patience = Patience::default();
        loop {
            match self.try_to_condemn(&candidates, ground, now).await {
                Ok(condemned) => {
                    let condemned = condemned.iter();
                    return Ok(condemned.filter_map(|one| candidates.remove(one)).collect());
                }
                Err(error) => patience.again(error).await?,
            }
        }
    }

    async fn try_to_condemn(
        &self,
        candidates: &BTreeMap<String, Candidate>,
        ground: Ground,
        now: UnixMillis,
    ) -> Result<Vec<String>, DbError> {
        let list = match ground {
            Ground::Orphan => {
                let rows = candidates
                    .iter()
                    .map(|(digest, (_, size))| serde_json::json!([digest, size]));
                rows.collect::<serde_json::Value>().to_string()
            }
            _ => as_list(candidates.keys()),
        };
        let mut values: Vec<Value<'_>> =
            vec![(&*list).into(), now.0.into(), (&*self.shared.name).into()];
        let statement = match ground {
            Ground::Due => CONDEMN_DUE,
            Ground::Unreferenced => CONDEMN_UNREFERENCED,
            Ground::Orphan => CONDEMN_ORPHANS,
            Ground::LeftBehind => {
                values.push(taken_over(now).into());
                TAKE
            }
        };
        let mut tx = self.db().begin(Durability::Durable).await?;
        // What has no row cannot be locked, and is referred to by nothing.
        if !matches!(ground, Ground::Orphan) {
            tx.all(LOCK_BLOBS, &values[..1]).await?;
        }
        let rows = tx.all(statement, &values).await?;
        tx.commit().await?;
        let mut condemned: Vec<String> = rows
            .iter()
            .map(|row| row.get(0))
            .collect::<Result<_, DbError>>()?;
        condemned.sort_unstable();
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
        for (statement, digests) in [(FORGET, &deleted.over), (LET_BE, &deleted.left)] {
            if digests.is_empty() {
                continue;
            }
            let list = as_list(digests.iter().map(ToString::to_string));
            let values = [(&*list).into(), (&*self.shared.name).into()];
            tx.all(LOCK_BLOBS, &values[..1]).await?;
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

/// What became of condemned blobs. Those that are in neither list stay condemned: they are another store's by now, or nobody knows whether
/// their files will be deleted after all.
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
    /// What went wrong first, but for single files.
    error: Option<StorageError>,
}

impl Deleted {
    async fn delete(
        &mut self,
        blobs: &dyn BlobStore,
        page: Vec<Candidate>,
        until: Instant,
        undeleted: &Failures,
    ) {
        let digests = page.iter().map(|(digest, _)| digest.clone()).collect();
        let outcomes = blobs.delete_all(digests, until).await;
        for ((digest, size), outcome) in page.into_iter().zip(outcomes) {
            match outcome {
                None => self.left.push(digest),
                Some(Ok(was_there)) => {
                    self.count += u64::from(was_there);
                    self.bytes += if was_there { size } else { 0 };
                    undeleted.forget(&digest);
                    self.over.push(digest);
                }
                // A request without an answer may be carried out yet: what it deletes is not to be kept before.
                Some(Err(error)) if error.kind == StorageErrorKind::Unavailable => {
                    self.error.get_or_insert(error);
                }
                // It is one file's: the others go all the same.
                Some(Err(error)) => {
                    undeleted.note(&digest, size, &error);
                    self.left.push(digest);
                }
            }
        }
    }
}

fn broken_off(error: tokio::task::JoinError) -> StorageError {
    StorageError {
        kind: StorageErrorKind::Unavailable,
        message: "the collector's work on the blob store was broken off".to_owned(),
        source: Some(Box::new(error)),
    }
}
