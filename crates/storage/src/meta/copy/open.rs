//! Databases that are opened to be copied from: nothing in them is changed, neither rows nor tables.

use std::path::Path;

use crate::error::{StorageError, StorageErrorKind};
use crate::meta::db::Db;
use crate::meta::{ConnectError, MetadataStore, PostgresOptions, migrate};

impl MetadataStore {
    /// Opens the database file at `path` for reading. No other process may have it open. Calls that write fail.
    ///
    /// # Errors
    /// `NotFound` if there is none; `Unavailable` if its tables are of another version than this larder's; `Corrupt` if it is damaged.
    pub async fn open_to_copy(path: &Path) -> Result<Self, StorageError> {
        let length = std::fs::metadata(path).map(|found| found.len());
        let length = length.map_err(|e| StorageError::from_io("open the metadata database", e))?;
        if length == 0 {
            let message = "the metadata database is empty";
            return Err(StorageError::new(StorageErrorKind::NotFound, message));
        }
        let db = Db::open_to_look(path).await?;
        let looked = async {
            // Made by a process that was ended before it had made the tables.
            let schema = db.schema().await;
            let schema = schema.map_err(|e| StorageError::from_sql("read its tables", e))?;
            if schema.is_empty() {
                let message = "the metadata database is empty";
                return Err(StorageError::new(StorageErrorKind::NotFound, message));
            }
            migrate::look(&db).await?;
            if migrate::is_current(&db).await? {
                return Ok(());
            }
            let message = "the metadata database was written by an earlier version of larder: start this one on it once, so that its \
                 tables are brought up to date";
            Err(StorageError::new(StorageErrorKind::Unavailable, message))
        };
        if let Err(error) = looked.await {
            db.close().await;
            return Err(error);
        }
        Ok(Self::over(db))
    }

    /// Connects to a server's database for reading: tables are neither made nor brought up to date. `None` if there are none.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_to_copy(options: &PostgresOptions) -> Result<Option<Self>, ConnectError> {
        let db = Db::connect_to_look(options).await?;
        Ok(db.map(Self::over))
    }
}
