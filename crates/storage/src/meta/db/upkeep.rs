//! The log of the database and its free pages. Free pages go back to the file system: in small steps where the file was made for
//! that, else by writing it anew, once there is room for that and enough to gain (docs/adr/0043).

use std::time::{Duration, Instant};

use super::DbError;
use super::sqlite::Db;

/// Free pages that stay for what is written next.
const SLACK: i64 = 256;
/// A file that can only be written anew is worth it from this many free bytes on, if they are a quarter of it.
const WORTH: i64 = 4 << 20;
/// The setting by which free pages can be cut off (<https://www.sqlite.org/pragma.html#pragma_auto_vacuum>).
const INCREMENTAL: i64 = 2;

/// Pages that are moved in one transaction: their log must fit into the space that a full disk has left.
const STEP: &str = "PRAGMA incremental_vacuum(100)";
/// Where there is room, larger steps are faster, as long as nobody waits for one who writes.
const STEPS: [&str; 4] = [
    STEP,
    "PRAGMA incremental_vacuum(400)",
    "PRAGMA incremental_vacuum(1600)",
    "PRAGMA incremental_vacuum(6400)",
];
const LARGE_ROOM: u64 = 256 << 20;
/// A step that took longer is followed by a smaller one, and one that took a quarter of it by a larger one.
const LONG: Duration = Duration::from_millis(25);
const WRITE_BACK: &str = "PRAGMA wal_checkpoint(TRUNCATE)";

impl Db {
    /// Writes the log back into the database and cuts it off.
    ///
    /// # Errors
    /// The engine fails, which it may for want of space.
    pub(crate) async fn empty_log(&self) -> Result<(), DbError> {
        self.execute(WRITE_BACK, &[]).await?;
        Ok(())
    }

    /// Gives back what deleted rows have left. `room`: bytes of disk that may be used for a moment. Gives the number of bytes by
    /// which the file became shorter.
    ///
    /// # Errors
    /// The engine fails.
    pub(crate) async fn shrink(&self, room: u64) -> Result<u64, DbError> {
        let before = self.setting("PRAGMA page_count").await?;
        let free = self.setting("PRAGMA freelist_count").await?;
        let page_size = self.setting("PRAGMA page_size").await?;
        if self.setting("PRAGMA auto_vacuum").await? == INCREMENTAL {
            self.cut_off(free, room > LARGE_ROOM).await?;
            self.empty_log().await?;
        } else if free * page_size > WORTH && free > before / 4 {
            // The new file is written into the log first, and then over the old one.
            let needed = (before - free).saturating_mul(page_size).saturating_mul(3);
            if needed.unsigned_abs() > room {
                return Ok(0);
            }
            for statement in ["PRAGMA auto_vacuum = INCREMENTAL", "VACUUM", WRITE_BACK] {
                self.execute(statement, &[]).await?;
            }
        }
        let after = self.setting("PRAGMA page_count").await?;
        Ok((before - after)
            .max(0)
            .saturating_mul(page_size)
            .unsigned_abs())
    }

    /// Cuts off free pages in steps, of which others write in between.
    async fn cut_off(&self, free: i64, has_room: bool) -> Result<(), DbError> {
        let (mut left, mut size) = (free, 0_usize);
        while left > SLACK {
            let since = Instant::now();
            self.execute(STEPS.get(size).unwrap_or(&STEP), &[]).await?;
            let took = since.elapsed();
            if let Some(log) = &self.log {
                log.write_back().await?;
            }
            let now = self.setting("PRAGMA freelist_count").await?;
            if now >= left {
                break;
            }
            left = now;
            if took > LONG {
                size = size.saturating_sub(1);
            } else if took < LONG / 4 && has_room {
                size = (size + 1).min(STEPS.len() - 1);
            }
        }
        Ok(())
    }

    async fn setting(&self, statement: &'static str) -> Result<i64, DbError> {
        Ok(sqlx::query_scalar(statement)
            .fetch_one(&self.writer)
            .await?)
    }
}
