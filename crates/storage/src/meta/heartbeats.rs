//! Signs of life of the processes over one database on a server: each writes a row about itself now and then, and reads those of the
//! others. What they say is for people and decides nothing.
//!
//! Clocks are compared through the server's: a row says how far its writer's clock is ahead of that, so that it does not matter when
//! the row is read.

use std::time::Duration;

use larder_core::UnixMillis;

use super::db::{Durability, Row, Sql};
use super::{DbError, MetadataStore};
use crate::error::StorageError;

/// A row that is older is of somebody who is not there any more.
const ALIVE_MS: i64 = 10_000;
/// One that is still older, by the server's clock either way, is deleted: a server that takes over may have another time.
const DEAD_MS: i64 = 60_000;
/// Rows that are read at once.
const MOST: i64 = 256;

/// Two that delete the same rows do not wait for each other. A file is one process's own, which meets nobody there.
const BEAT: Sql = Sql {
    sqlite: "SELECT '', '', 0, 0 WHERE 0",
    postgres: "WITH moment AS (SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) AS now), \
         dead AS (DELETE FROM replicas WHERE replica IN (SELECT replica FROM replicas, moment \
             WHERE ABS(now - beat_at) > $4 AND replica <> $1 FOR UPDATE OF replicas SKIP LOCKED)), \
         own AS (INSERT INTO replicas (replica, word, ahead, beat_at) SELECT $1, $2, $3 - now, now FROM moment \
             ON CONFLICT (replica) DO UPDATE SET word = excluded.word, ahead = excluded.ahead, beat_at = excluded.beat_at) \
         SELECT replica, word, ahead - ($3 - now), ABS(now - beat_at) FROM replicas, moment \
             WHERE replica <> $1 AND ABS(now - beat_at) <= $5 ORDER BY beat_at DESC LIMIT $6",
};

/// What another process has said of itself last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Its name.
    pub replica: String,
    /// What it says.
    pub word: String,
    /// How far its clock is ahead of this process's, in milliseconds.
    pub ahead_ms: i64,
    /// How long ago it said so.
    pub age: Duration,
}

/// Where processes over one database show that they are there. Clones share the database's connections.
#[derive(Debug, Clone)]
pub struct Heartbeats(MetadataStore);

impl MetadataStore {
    /// Where processes over this database show that they are there; `None` for a file, which one process has to itself.
    pub fn heartbeats(&self) -> Option<Heartbeats> {
        (!self.db().is_file()).then(|| Heartbeats(self.clone()))
    }
}

impl Heartbeats {
    /// Says `word` of the process called `replica`, whose clock shows `now`, and gives what others have said within the last ten
    /// seconds, 256 at most. Rows of those who have said nothing for a minute are deleted.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn beat(
        &self,
        replica: &str,
        word: &str,
        now: UnixMillis,
    ) -> Result<Vec<Heartbeat>, StorageError> {
        let beaten = self.say(replica, word, now).await;
        let failed =
            |error| StorageError::from_sql("show the other replicas a sign of life", error);
        self.0.noticed(beaten.map_err(failed))
    }

    async fn say(
        &self,
        replica: &str,
        word: &str,
        now: UnixMillis,
    ) -> Result<Vec<Heartbeat>, DbError> {
        let values = [
            replica.into(),
            word.into(),
            now.0.into(),
            DEAD_MS.into(),
            ALIVE_MS.into(),
            MOST.into(),
        ];
        // Nobody waits until it is on stable storage.
        let mut tx = self.0.db().begin(Durability::Grouped).await?;
        let rows = tx.all(BEAT, &values).await?;
        tx.commit().await?;
        rows.iter().map(heartbeat).collect()
    }
}

fn heartbeat(row: &Row) -> Result<Heartbeat, DbError> {
    Ok(Heartbeat {
        replica: row.get(0)?,
        word: row.get(1)?,
        ahead_ms: row.get(2)?,
        age: Duration::from_millis(row.get::<i64>(3)?.unsigned_abs()),
    })
}
