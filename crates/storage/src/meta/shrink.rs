//! Free pages of the database file go back to the file system: in small steps where the file was made for that, else by writing it
//! anew, once there is room for that and enough to gain (docs/adr/0043).

use std::path::Path;

use super::MetadataStore;
use crate::error::StorageError;

/// Free pages that stay for what is written next.
const SLACK: i64 = 256;
/// A file that can only be written anew is worth it from this many free bytes on, if they are a quarter of it.
const WORTH: i64 = 4 << 20;
/// The setting by which free pages can be cut off (<https://www.sqlite.org/pragma.html#pragma_auto_vacuum>).
const INCREMENTAL: i64 = 2;

/// Pages that are moved in one transaction: their log must fit into the space that a full disk has left.
const STEP: &str = "PRAGMA incremental_vacuum(100)";
/// Where there is room, larger steps are faster: each is synchronised.
const LARGE_STEP: &str = "PRAGMA incremental_vacuum(4000)";
const LARGE_ROOM: u64 = 256 << 20;
const COPY_BACK: &str = "PRAGMA wal_checkpoint(PASSIVE)";
const WRITE_BACK: &str = "PRAGMA wal_checkpoint(TRUNCATE)";

impl MetadataStore {
    /// Gives back what deleted rows have left. `room`: bytes of disk that may be used for a moment. Gives the number of bytes by which
    /// the file became shorter.
    pub async fn shrink(&self, room: u64) -> Result<u64, StorageError> {
        let result = self.shrink_file(room).await;
        self.set_space_aside();
        self.noticed(result)
    }

    async fn shrink_file(&self, room: u64) -> Result<u64, StorageError> {
        let failed = |error| StorageError::from_sql("shrink the metadata database", error);
        let before = self.pragma("PRAGMA page_count").await?;
        let free = self.pragma("PRAGMA freelist_count").await?;
        let page_size = self.pragma("PRAGMA page_size").await?;
        if self.pragma("PRAGMA auto_vacuum").await? == INCREMENTAL {
            let step = if room > LARGE_ROOM { LARGE_STEP } else { STEP };
            let mut left = free;
            while left > SLACK {
                sqlx::query(step)
                    .execute(&self.writer())
                    .await
                    .map_err(failed)?;
                sqlx::query(COPY_BACK)
                    .execute(&self.writer())
                    .await
                    .map_err(failed)?;
                let now = self.pragma("PRAGMA freelist_count").await?;
                if now >= left {
                    break;
                }
                left = now;
            }
            sqlx::query(WRITE_BACK)
                .execute(&self.writer())
                .await
                .map_err(failed)?;
        } else if free * page_size > WORTH && free > before / 4 {
            // The new file is written into the log first, and then over the old one.
            let needed = (before - free).saturating_mul(page_size).saturating_mul(3);
            if needed.unsigned_abs() > room {
                return Ok(0);
            }
            for statement in ["PRAGMA auto_vacuum = INCREMENTAL", "VACUUM", WRITE_BACK] {
                sqlx::query(statement)
                    .execute(&self.writer())
                    .await
                    .map_err(failed)?;
            }
        }
        let after = self.pragma("PRAGMA page_count").await?;
        Ok((before - after)
            .max(0)
            .saturating_mul(page_size)
            .unsigned_abs())
    }

    async fn pragma(&self, statement: &'static str) -> Result<i64, StorageError> {
        let value = sqlx::query_scalar(statement)
            .fetch_one(&self.writer())
            .await;
        value.map_err(|error| StorageError::from_sql("measure the metadata database", error))
    }

    /// Deletes rows of earlier versions that say that something is not there. Gives whether all are gone.
    pub async fn forget_absences(&self, most: usize) -> Result<bool, StorageError> {
        const PAGE: i64 = 100;
        let mut after = Some(0);
        for _ in 0..most.div_ceil(PAGE as usize) {
            let Some(from) = after else { break };
            let result = self.delete_absences(from, PAGE).await;
            after = self.noticed(result)?;
        }
        Ok(after.is_none())
    }

    pub(super) fn set_space_aside(&self) {
        if let Some(spare) = &self.shared.spare {
            spare.set_aside();
        }
    }

    pub(super) fn give_back_spare_space(&self) -> bool {
        self.shared
            .spare
            .as_ref()
            .is_some_and(crate::spare::Spare::give_back)
    }
}

/// Where the space for deleting is set aside, beside the database at `path`.
pub(super) fn spare_beside(path: &Path) -> crate::spare::Spare {
    crate::spare::Spare::new(path.with_extension("spare"))
}
