//! The write-ahead log of a file is written back by a connection of its own. SQLite would do so at the end of a commit, with the only connection that
//! writes in hand, which waits until the disk has taken both (docs/adr/0108).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::sqlite::SqlitePool;

use super::DbError;
use crate::blob::Space;

/// Pages that a log has at least when it is written back. It is begun anew with the next commit after that.
pub(super) const PAGES: u64 = 250;
/// Pages after which whoever commits writes it back itself: the disk does not keep up.
const MOST_PAGES: u64 = 8_000;
/// A log may take so much of what larder leaves free on the disk: writing it back may need as much in the database.
const PART_OF_RESERVE: u64 = 8;
const PAGE_SIZE: u64 = 4_096;
/// Beside a page, what says whose it is.
const FRAME: u64 = PAGE_SIZE + 24;

const WRITE_BACK: &str = "PRAGMA wal_checkpoint(PASSIVE)";

#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    keeper: SqlitePool,
    most_pages: u64,
    is_busy: AtomicBool,
}

/// How many pages the log of a database in this folder may have.
pub(super) fn most_pages(folder: &Path) -> u64 {
    let reserve = Space::of(folder).map_or(0, |space| space.reserve);
    (reserve / PART_OF_RESERVE / PAGE_SIZE).clamp(PAGES, MOST_PAGES)
}

impl Log {
    /// That of the database at `path`, whose connection is `keeper`.
    pub(super) fn new(path: &Path, keeper: SqlitePool, most_pages: u64) -> Arc<Self> {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        Arc::new(Self {
            path: log.into(),
            keeper,
            most_pages,
            is_busy: AtomicBool::new(false),
        })
    }

    /// Something has been committed.
    pub(super) fn grew(self: &Arc<Self>) {
        if self.has(PAGES) && !self.is_busy.swap(true, Ordering::AcqRel) {
            let log = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(error) = log.write_back().await.map_err(|error| error.source) {
                    tracing::debug!(%error, "the database's log could not be written back, and will be by the next who writes");
                }
                log.is_busy.store(false, Ordering::Release);
            });
        }
    }

    /// Waits until a log that has become long is written back.
    ///
    /// # Errors
    /// The engine fails.
    pub(super) async fn ease(&self) -> Result<(), DbError> {
        if self.has(self.most_pages / 2) {
            self.write_back().await?;
        }
        Ok(())
    }

    /// Writes back what nobody reads who began before.
    ///
    /// # Errors
    /// The engine fails.
    pub(super) async fn write_back(&self) -> Result<(), DbError> {
        sqlx::query(WRITE_BACK).execute(&self.keeper).await?;
        Ok(())
    }

    pub(super) async fn close(&self) {
        self.keeper.close().await;
    }

    fn has(&self, pages: u64) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|found| found.len() > (pages + 1) * FRAME)
    }
}
