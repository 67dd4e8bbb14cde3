//! Whose the deletion of a condemned blob is: a lock that ends with its holder's session, and who goes on when that has ended
//! (docs/adr/0101).
//!
//! Who deletes files holds a lock of the server's under its own name, in a transaction that does nothing else, and asks through it, before
//! each few files, whether they are still its own to delete. A process that is killed loses the lock at once; one that is stopped keeps it,
//! for its session stays. Others take over what has been condemned for a while without any progress, measured by their own clock alone, and
//! only where they get the lock.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use larder_core::UnixMillis;

use super::condemn::{Candidate, deleting};
use super::db::{DbError, Durability, Sql};
use super::lists::{as_list, each};
use super::{MetadataStore, Tx};
use crate::blob::BlobStore;
use crate::error::StorageError;

/// The session is silent while files are deleted. Nobody waits for what it holds.
const MAY_BE_SILENT: &str = "SET LOCAL idle_in_transaction_session_timeout = 0";
const HOLD: Sql = Sql {
    sqlite: "SELECT $1",
    postgres: "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))",
};
const TRY_HOLD: Sql = Sql {
    sqlite: "SELECT CAST($1 IS NOT NULL AS INTEGER)",
    postgres: "SELECT CASE WHEN pg_try_advisory_xact_lock(hashtextextended($1, 0)) THEN CAST(1 AS BIGINT) ELSE CAST(0 AS BIGINT) END",
};
const STILL_OWN: Sql = Sql {
    sqlite: concat!(
        "SELECT digest FROM blobs WHERE digest IN (",
        each!(sqlite),
        ") AND condemned_by = $2"
    ),
    postgres: concat!(
        "SELECT digest FROM blobs WHERE digest = ANY (ARRAY(",
        each!(postgres),
        ")) AND COALESCE(condemned_by, '') = $2"
    ),
};
const CONDEMNERS: &str = "SELECT condemned_by, MAX(condemned_at), COUNT(*) FROM blobs WHERE condemned_by IS NOT NULL GROUP BY condemned_by";
const ADOPT: &str = "UPDATE blobs SET condemned_by = $2, condemned_at = $3 WHERE condemned_by IS NOT NULL AND condemned_by = $1";

/// What stores have condemned, as it was seen last, and since when it has been so: the latest time and how many.
pub(super) type Watched = HashMap<String, ((i64, i64), Instant)>;

impl MetadataStore {
    /// Takes the lock under which this store deletes files; `None` where nobody else can have the database. It is let go of with the
    /// transaction.
    pub(super) async fn hold_deletions(&self) -> Result<Option<Tx>, DbError> {
        if self.db().is_file() {
            return Ok(None);
        }
        let mut tx = self.db().begin(Durability::Grouped).await?;
        tx.script(MAY_BE_SILENT).await?;
        tx.all(HOLD, &[(&*self.shared.name).into()]).await?;
        Ok(Some(tx))
    }

    /// Of some blobs that this store has condemned those that are still its own to delete.
    pub(super) async fn still_own(
        &self,
        hold: &mut Option<Tx>,
        page: &[Candidate],
    ) -> Result<BTreeSet<String>, DbError> {
        let digests = page.iter().map(|(digest, _)| digest.to_string());
        let Some(tx) = hold else {
            return Ok(digests.collect());
        };
        let values = [as_list(digests).into(), (&*self.shared.name).into()];
        let rows = tx.all(STILL_OWN, &values).await?;
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Goes on with what a store has condemned that has not got on for `quiet`, as far as this one has seen: it has ended, or this one has
    /// failed to end what it began. To be called every few seconds. A store that is at work, or is stopped in the middle of it, is let be.
    /// `quiet` must be much longer than a store may go on deleting what it has condemned, which is 30 s. Gives number and bytes of the
    /// files.
    ///
    /// # Errors
    /// The database or the blob store fails; the next call goes on.
    pub async fn take_over(
        &self,
        now: UnixMillis,
        quiet: Duration,
        blobs: &Arc<dyn BlobStore>,
    ) -> Result<(u64, u64), StorageError> {
        let taken = async {
            let mut is_any = false;
            for name in self.quiet_for(quiet).await.map_err(deleting)? {
                is_any |=
                    *name == self.shared.name || self.adopt(&name, now).await.map_err(deleting)?;
            }
            if !is_any {
                return Ok((0, 0));
            }
            self.delete_left_behind(now, blobs).await
        };
        self.noticed(taken.await)
    }

    /// Who has condemned blobs and has not got on for so long.
    async fn quiet_for(&self, quiet: Duration) -> Result<Vec<String>, DbError> {
        let rows = self.db().all(CONDEMNERS, &[]).await?;
        let mut watched = self
            .shared
            .watched
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut found = Watched::with_capacity(rows.len());
        for row in &rows {
            let (name, seen) = (row.get::<String>(0)?, (row.get(1)?, row.get(2)?));
            let since = watched
                .get(&name)
                .filter(|(before, _)| *before == seen)
                .map_or_else(Instant::now, |(_, since)| *since);
            found.insert(name, (seen, since));
        }
        *watched = found;
        let quiet = watched
            .iter()
            .filter(|(_, (_, since))| since.elapsed() >= quiet);
        Ok(quiet.map(|(name, _)| name.clone()).collect())
    }

    /// Makes this store's own what another one has condemned, unless that one holds its lock.
    async fn adopt(&self, name: &str, now: UnixMillis) -> Result<bool, DbError> {
        let mut tx = self.db().begin(Durability::Durable).await?;
        let held = tx.optional(TRY_HOLD, &[name.into()]).await?;
        let is_held = match held {
            Some(row) => row.get::<i64>(0)? == 1,
            None => false,
        };
        if !is_held {
            tx.rollback().await;
            return Ok(false);
        }
        let values = [name.into(), (&*self.shared.name).into(), now.0.into()];
        let blobs = tx.execute(ADOPT, &values).await?;
        tx.commit().await?;
        tracing::info!(
            blobs,
            "another process had begun to delete these blobs and has ended: this one goes on"
        );
        Ok(blobs > 0)
    }
}
