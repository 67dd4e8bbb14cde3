//! The rows of blobs, as those see them who refer to blobs. Whoever writes a row that names a blob writes or keeps the blob's own row
//! in the same transaction, by [`put`] or [`keep`]: that is what the collector looks at (docs/adr/0065).

use std::collections::HashSet;

use larder_core::Digest;

use super::db::{DbError, Sql};
use super::lists::{as_list, each};
use super::{MetadataStore, Tx};
use crate::blob::BlobInfo;
use crate::error::StorageError;

/// Clears the date that the collector has set; not, where it has condemned the blob: the file may go at any moment.
const PUT: &str = "INSERT INTO blobs (digest, size, modified_ns, delete_after) VALUES ($1, $2, $3, NULL) \
     ON CONFLICT (digest) DO UPDATE SET size = excluded.size, modified_ns = excluded.modified_ns, delete_after = NULL \
     WHERE blobs.condemned_by IS NULL";
const KEEP: &str =
    "UPDATE blobs SET delete_after = NULL WHERE digest = $1 AND condemned_by IS NULL";

const CONDEMNED: Sql = Sql {
    sqlite: concat!(
        "SELECT digest FROM blobs WHERE digest IN (",
        each!(sqlite),
        ") AND condemned_by IS NOT NULL"
    ),
    postgres: concat!(
        "SELECT digest FROM blobs WHERE digest = ANY (ARRAY(",
        each!(postgres),
        ")) AND condemned_by IS NOT NULL"
    ),
};

/// What became of a blob's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// The row is there and the file too: rows of this transaction may name it.
    Held,
    /// The file is being deleted. The transaction is to be dropped, and tried again when that is over.
    Condemned,
    /// The file is gone. The transaction is to be dropped, and tried again when the file has been put back.
    Missing,
}

/// Writes the row of a blob that has just been published.
pub(super) async fn put(tx: &mut Tx, info: &BlobInfo) -> Result<Put, DbError> {
    let values = [
        info.descriptor.digest.to_string().into(),
        (info.descriptor.size as i64).into(),
        info.modified_ns.into(),
    ];
    if tx.execute(PUT, &values).await? == 0 {
        return Ok(Put::Condemned);
    }
    // From here to the end of the transaction nobody can condemn it: a file that is there now stays. It may have gone since it was
    // published, if another process has collected it, for that one knows nothing of the pin.
    let is_there = match &info.pin {
        Some(pin) => pin.is_in_place().await,
        None => true,
    };
    Ok(if is_there { Put::Held } else { Put::Missing })
}

/// Takes a blob off the collector's list; `false` if it has no row, or is being deleted.
pub(super) async fn keep(tx: &mut Tx, digest: &Digest) -> Result<bool, DbError> {
    Ok(tx.execute(KEEP, &[digest.to_string().into()]).await? > 0)
}

impl MetadataStore {
    /// Which of these blobs are being deleted.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn condemned_of(&self, digests: &[Digest]) -> Result<HashSet<String>, StorageError> {
        let failed = |error| StorageError::from_sql("look for blobs that are being deleted", error);
        let list = as_list(digests.iter().map(ToString::to_string));
        let rows = self
            .db()
            .all(CONDEMNED, &[list.into()])
            .await
            .map_err(failed)?;
        let digests = rows.iter().map(|row| row.get(0));
        digests.collect::<Result<_, _>>().map_err(failed)
    }
}
