//! The sweep: the rows of invalid records go behind the scenes, a few at a time, and with them the files that only they referred to
//! (docs/adr/0108).
//!
//! Whoever deletes rows condemns what they leave in the same transaction, if it is its turn to delete files; the files go while nobody holds the
//! database, and those of the next rows only when they are gone. Where deleting files is slow, as in a distant store, rows do not wait for it: what
//! they leave is dated, and goes by [`MetadataStore::free_due`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_core::{Clock as _, SystemClock};
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinHandle;

use super::condemn::{Candidate, HOLD};
use super::db::{DbError, Durability, Row, Sql, Value};
use super::invalid::{RecordKey, as_list, listed};
use super::patience::Patience;
use super::{MetadataStore, freed};
use crate::blob::BlobStore;
use crate::error::{StorageError, StorageErrorKind};

const NEXT_REPOSITORY: &str = "SELECT repository, invalid_before FROM epochs WHERE swept_before < invalid_before \
     ORDER BY repository LIMIT 1";
const NEXT_ROWS: &str = "SELECT rowid, path, variant FROM artifacts WHERE repository = $1 AND (path, variant) > ($2, $3) \
     ORDER BY path, variant LIMIT $4";
/// By the rows' places: of a range of keys a server believes that it is a large part of the table. A place may have become another record's; the
/// repository is compared so that no engine looks for rows by it, which is through all of it.
const DELETE_EARLIER: Sql = Sql {
    sqlite: "DELETE FROM artifacts WHERE rowid IN (SELECT value FROM json_each($2)) AND COALESCE(repository, '') = $1 AND epoch < $3 \
         RETURNING blob",
    postgres: "DELETE FROM artifacts WHERE rowid = ANY (ARRAY(SELECT CAST(CAST(k AS TEXT) AS BIGINT) FROM json_array_elements($2::json) AS k)) \
         AND COALESCE(repository, '') = $1 AND epoch < $3 RETURNING blob",
};
const SWEPT: &str =
    "UPDATE epochs SET swept_before = $2 WHERE repository = $1 AND swept_before < $2";
const SINGLE: &str = "SELECT repository, path, variant, epoch FROM invalid_records ORDER BY repository, path, variant LIMIT $1";
const DELETE_SINGLE: Sql = Sql {
    sqlite: concat!(
        "DELETE FROM artifacts WHERE ",
        listed!(sqlite),
        " AND epoch < (SELECT i.epoch FROM invalid_records AS i WHERE i.repository = artifacts.repository \
         AND i.path = artifacts.path AND i.variant = artifacts.variant) RETURNING blob"
    ),
    postgres: concat!(
        "DELETE FROM artifacts WHERE ",
        listed!(postgres),
        " AND epoch < (SELECT i.epoch FROM invalid_records AS i WHERE i.repository = artifacts.repository \
         AND i.path = artifacts.path AND i.variant = artifacts.variant) RETURNING blob"
    ),
};
/// Those that were invalidated once more meanwhile stay.
const FORGET_SINGLE: &str = "DELETE FROM invalid_records WHERE repository = $1 AND (path, variant) <= ($2, $3) AND epoch <= $4";

/// So long a transaction is to take: who else writes to SQLite waits for it.
const TRANSACTION: Duration = Duration::from_millis(25);
/// The same, where nobody waits who does not want the same rows, and each statement has its way to the server.
const TRANSACTION_OF_SERVER: Duration = Duration::from_millis(100);
/// Rows that go in one transaction: at first, at least and at most.
const AT_FIRST: u32 = 400;
const FEWEST: u32 = 200;
const MOST: u32 = 2_000;
/// The sweep rests for this part of the time that it works, and at least so long.
const REST_PART: u32 = 4;
const REST: Duration = Duration::from_millis(1);
/// So long it waits for its turn to delete files. Nobody waits for rows meanwhile, and for files they do not wait longer.
const TURN: Duration = Duration::from_secs(1);
/// Files of a page that take longer keep those waiting who want to keep one of them anew: no more are condemned by this sweep.
const SLOW: Duration = Duration::from_secs(1);

const DOING: &str = "delete invalid records";

/// What has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Rows of invalid records.
    pub rows: u64,
    /// Files that only they referred to.
    pub files: u64,
    /// The bytes of those.
    pub bytes: u64,
}

impl Swept {
    /// Both together.
    pub fn add(&mut self, more: Self) {
        self.rows += more.rows;
        self.files += more.files;
        self.bytes += more.bytes;
    }
}

/// Deletes the rows of invalid records. Whoever else does so at the same time, and whoever is interrupted, does no harm.
#[derive(Debug)]
pub struct Sweep {
    store: MetadataStore,
    blobs: Arc<dyn BlobStore>,
    /// The repository all of whose records before an epoch are invalid, and the key up to which they are gone.
    repository: Option<(String, i64, RecordKey)>,
    /// Rows that go in the next transaction.
    together: u32,
    /// The files of the last rows, while they are being deleted.
    going: Option<Going>,
    /// Whether files are deleted with the rows.
    deletes_files: bool,
    rest: Duration,
}

type Going = JoinHandle<Result<(u64, u64, Duration), StorageError>>;
type Turn = OwnedMutexGuard<()>;

impl MetadataStore {
    /// Begins to delete the rows of invalid records, and the files that only they refer to.
    pub fn sweep_invalid(&self, blobs: &Arc<dyn BlobStore>) -> Sweep {
        Sweep {
            store: self.clone(),
            blobs: Arc::clone(blobs),
            repository: None,
            together: AT_FIRST,
            going: None,
            deletes_files: true,
            rest: Duration::ZERO,
        }
    }
}

impl Sweep {
    /// Goes on with a few rows; `None`: there are no more, also of what was invalidated meanwhile.
    ///
    /// # Errors
    /// The database fails; another sweep goes on.
    pub async fn next(&mut self) -> Result<Option<Swept>, StorageError> {
        tokio::time::sleep(self.rest).await;
        let since = Instant::now();
        let failed = |error| StorageError::from_sql(DOING, error);
        let swept = self.few().await.map_err(failed);
        self.rest = (since.elapsed() / REST_PART).max(REST);
        self.store.noticed(swept)
    }

    async fn few(&mut self) -> Result<Option<Swept>, DbError> {
        if let Some(swept) = self.single().await? {
            return Ok(Some(swept));
        }
        let mut place = self.repository.take();
        if place.is_none() {
            place = self.next_repository().await?;
        }
        if let Some(place) = place {
            return self.of_repository(place).await.map(Some);
        }
        let last = self.settle().await;
        Ok((last != Swept::default()).then_some(last))
    }

    /// The next repository all of whose records before an epoch are invalid, from its first record on.
    async fn next_repository(&self) -> Result<Option<(String, i64, RecordKey)>, DbError> {
        let next = self.store.db().optional(NEXT_REPOSITORY, &[]).await?;
        let place = |row: Row| Ok((row.get(0)?, row.get(1)?, RecordKey::default()));
        next.map(place).transpose()
    }

    /// A few rows of a repository whose records before an epoch are invalid, behind a key.
    async fn of_repository(
        &mut self,
        (repository, before, (path, variant)): (String, i64, RecordKey),
    ) -> Result<Swept, DbError> {
        let values = [
            (&*repository).into(),
            path.into(),
            variant.into(),
            i64::from(self.together).into(),
        ];
        let rows = self.store.db().patiently().all(NEXT_ROWS, &values).await?;
        let Some(last) = rows.last() else {
            let values = [(&*repository).into(), before.into()];
            self.store.db().execute(SWEPT, &values).await?;
            return Ok(Swept::default());
        };
        let behind = (last.get(1)?, last.get(2)?);
        let places: Vec<i64> = rows
            .iter()
            .map(|row| row.get(0))
            .collect::<Result<_, DbError>>()?;
        let list = serde_json::Value::from(places).to_string();
        let values = [(&*repository).into(), list.into(), before.into()];
        let swept = self.drop_rows(&[(DELETE_EARLIER, &values)]).await?;
        self.repository = Some((repository, before, behind));
        Ok(swept)
    }

    /// A few rows that are invalid each for itself; `None`: there were no more.
    async fn single(&mut self) -> Result<Option<Swept>, DbError> {
        let few = [i64::from(self.together).into()];
        let rows = self.store.db().all(SINGLE, &few).await?;
        let Some(first) = rows.first() else {
            return Ok(None);
        };
        let repository: String = first.get(0)?;
        let (mut keys, mut newest) = (Vec::<RecordKey>::new(), 0);
        for row in &rows {
            if row.get::<String>(0)? == repository {
                keys.push((row.get(1)?, row.get(2)?));
                newest = row.get::<i64>(3)?.max(newest);
            }
        }
        let (path, variant) = keys.last().cloned().unwrap_or_default();
        let records = [(&*repository).into(), as_list(&keys).into()];
        // They were the first ones: up to the last there are no others but later ones.
        let marks = [
            (&*repository).into(),
            path.into(),
            variant.into(),
            newest.into(),
        ];
        let statements: [(Sql, &[Value<'_>]); 2] =
            [(DELETE_SINGLE, &records), (FORGET_SINGLE.into(), &marks)];
        self.drop_rows(&statements).await.map(Some)
    }

    /// Runs statements in one transaction, the first of which deletes records. Their files go behind it.
    async fn drop_rows(&mut self, statements: &[(Sql, &[Value<'_>])]) -> Result<Swept, DbError> {
        self.store.db().ease_log().await?;
        let turn = self.turn().await;
        let mut swept = if turn.is_some() {
            self.settle().await
        } else {
            Swept::default()
        };
        let (mut patience, mut is_first_try) = (Patience::default(), true);
        let (since, rows, condemned) = loop {
            let since = Instant::now();
            match self.try_to_drop(statements, turn.is_some()).await {
                Ok((rows, condemned)) => break (since, rows, condemned),
                // What frees space may use what was set aside for it.
                Err(error) if error.kind == StorageErrorKind::Full && is_first_try => {
                    is_first_try = false;
                    self.store.give_back_spare_space();
                    self.store.db().empty_log().await?;
                }
                Err(error) => patience.again(error).await?,
            }
        };
        self.learn_from(since.elapsed());
        if let Some(turn) = turn.filter(|_| !condemned.is_empty()) {
            self.going = Some(self.delete_files(condemned, turn, since));
        }
        swept.rows += rows;
        Ok(swept)
    }

    async fn try_to_drop(
        &self,
        statements: &[(Sql, &[Value<'_>])],
        condemns: bool,
    ) -> Result<(u64, Vec<Candidate>), DbError> {
        // Else a power cut could bring back a record whose file has gone.
        let durability = if condemns {
            Durability::Durable
        } else {
            Durability::Grouped
        };
        let mut tx = self.store.db().begin(durability).await?;
        let (mut deleted, mut condemned) = (0, Vec::new());
        if let Some((first, rest)) = statements.split_first() {
            let rows = tx.all(first.0, first.1).await?;
            deleted = rows.len() as u64;
            if condemns {
                let name = &self.store.shared.name;
                condemned = freed::condemn(&mut tx, &rows, name, SystemClock.now()).await?;
            } else {
                freed::note(&mut tx, &rows).await?;
            }
            for (statement, values) in rest {
                tx.execute(*statement, values).await?;
            }
        }
        let condemned = self.store.candidates(&condemned)?;
        tx.commit().await?;
        Ok((deleted, condemned))
    }

    /// Waits a little for the turn to delete files.
    async fn turn(&mut self) -> Option<Turn> {
        if !self.deletes_files {
            return None;
        }
        let turn = Arc::clone(&self.store.shared.deleting).lock_owned();
        tokio::time::timeout(TURN, turn).await.ok()
    }

    fn delete_files(&self, condemned: Vec<Candidate>, turn: Turn, since: Instant) -> Going {
        let (store, blobs) = (self.store.clone(), Arc::clone(&self.blobs));
        tokio::spawn(async move {
            let deleted = store
                .delete_condemned(condemned, since + HOLD, &blobs)
                .await;
            drop(turn);
            deleted.map(|(files, bytes)| (files, bytes, since.elapsed()))
        })
    }

    /// What has become of the files of the last rows.
    async fn settle(&mut self) -> Swept {
        let Some(going) = self.going.take() else {
            return Swept::default();
        };
        let failed = |error: &dyn std::error::Error| {
            tracing::warn!(%error, "the files of flushed records could not be deleted, and will be later");
        };
        let gone = match going.await {
            Ok(Ok(gone)) => Some(gone),
            Ok(Err(error)) => {
                failed(&error);
                None
            }
            Err(error) => {
                failed(&error);
                None
            }
        };
        self.deletes_files &= gone.is_some_and(|(_, _, took)| took < SLOW);
        gone.map_or_else(Swept::default, |(files, bytes, _)| Swept {
            rows: 0,
            files,
            bytes,
        })
    }

    /// The next transaction has as many rows as would have taken as long as one is to take; no more than twice as many as this one, and no
    /// less than half.
    fn learn_from(&mut self, took: Duration) {
        let meant = if self.store.db().is_file() {
            TRANSACTION
        } else {
            TRANSACTION_OF_SERVER
        };
        let share = meant.as_secs_f64() / took.as_secs_f64().max(1e-6);
        let rows = f64::from(self.together) * share.clamp(0.5, 2.0);
        self.together = (rows as u32).clamp(FEWEST, MOST);
    }
}
