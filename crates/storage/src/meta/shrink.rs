//! Space goes back to the file system: that of rows of earlier versions, and what deleted rows have left (docs/adr/0043).

use std::path::Path;

use super::MetadataStore;
use crate::error::StorageError;

impl MetadataStore {
    /// Gives back what deleted rows have left. `room`: bytes of disk that may be used for a moment. Gives the number of bytes by which
    /// the file became shorter.
    pub async fn shrink(&self, room: u64) -> Result<u64, StorageError> {
        let result = self.db().shrink(room).await;
        self.set_space_aside();
        let failed = |error| StorageError::from_sql("shrink the metadata database", error);
        self.noticed(result.map_err(failed))
    }

    /// Deletes rows of earlier versions that say that something is not there. Gives whether all are gone.
    pub async fn forget_absences(&self, most: usize) -> Result<bool, StorageError> {
        const PAGE: i64 = 100;
        // Those versions knew files only.
        if !self.db().is_file() {
            return Ok(true);
        }
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
