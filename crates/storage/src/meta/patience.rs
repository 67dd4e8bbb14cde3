//! Transactions that are tried again: others were in the way, or a blob is being deleted.

use std::time::{Duration, Instant};

use super::db::{About, DbError};
use super::feed::Writer;
use crate::blob::BlobInfo;
use crate::error::{StorageError, StorageErrorKind};

/// How often a transaction is tried again for the sake of a blob that is being deleted, and the pause before each.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);
/// So long a transaction is tried again that others are in the way of.
const CONFLICTS: Duration = Duration::from_secs(8);

/// How long a transaction is tried again.
#[derive(Debug)]
pub(super) struct Patience {
    since: Instant,
    condemned: u32,
    conflicts: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            condemned: 0,
            conflicts: 0,
        }
    }
}

impl Patience {
    /// Waits a little before the next try where a statement failed because of another transaction; gives anything else back.
    pub(super) async fn again(&mut self, error: DbError) -> Result<(), DbError> {
        if error.about == About::Conflict && self.since.elapsed() <= CONFLICTS {
            self.step_aside().await;
            return Ok(());
        }
        Err(error)
    }

    /// Those who have met do not meet again at once: each waits for another time.
    async fn step_aside(&mut self) {
        self.conflicts += 1;
        let spread = Writer::unique().number() % 8 + 1;
        let pause = Duration::from_millis(spread * u64::from(self.conflicts.min(10)));
        tokio::time::sleep(pause).await;
    }

    /// Does what an obstacle asks for before the next try, or gives up.
    pub(super) async fn after(
        &mut self,
        obstacle: Obstacle<'_>,
        doing: &str,
    ) -> Result<(), StorageError> {
        let gave_up = |why: &str| {
            let message = format!("cannot {doing}: {why}");
            Err(StorageError::new(StorageErrorKind::Unavailable, message))
        };
        match obstacle {
            Obstacle::Failed(error) => Err(error),
            Obstacle::Condemned | Obstacle::Missing(_) if self.condemned == TRIES => {
                Err(StorageError::being_deleted(doing))
            }
            Obstacle::Condemned => {
                self.condemned += 1;
                tokio::time::sleep(PAUSE).await;
                Ok(())
            }
            Obstacle::Missing(info) => {
                self.condemned += 1;
                put_back(info).await
            }
            Obstacle::Conflict if self.since.elapsed() > CONFLICTS => {
                gave_up("other transactions were in the way each time")
            }
            Obstacle::Conflict => {
                self.step_aside().await;
                Ok(())
            }
        }
    }
}

/// Why a transaction did not come about.
pub(super) enum Obstacle<'a> {
    Failed(StorageError),
    /// Another transaction was in the way, or has done what this one was about to do.
    Conflict,
    /// A blob's file is being deleted.
    Condemned,
    /// Another store has deleted it.
    Missing(&'a BlobInfo),
}

impl Obstacle<'_> {
    /// Tells a failed statement.
    pub(super) fn of(doing: &str, error: DbError) -> Self {
        match error.about {
            About::Conflict => Self::Conflict,
            _ => Self::Failed(StorageError::from_sql(doing, error)),
        }
    }
}

impl From<StorageError> for Obstacle<'_> {
    fn from(error: StorageError) -> Self {
        Self::Failed(error)
    }
}

/// Publishes a blob again, which another store has deleted.
async fn put_back(info: &BlobInfo) -> Result<(), StorageError> {
    match &info.pin {
        Some(pin) => pin.put_back().await,
        None => Ok(()),
    }
}
