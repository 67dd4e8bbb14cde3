//! What can go wrong with state, told apart by what the caller can do about it.

use std::error::Error as StdError;
use std::io;

/// What a caller can do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StorageErrorKind {
    /// The blob or row does not exist: fetch it again.
    NotFound,
    /// No space, quota or file-size limit left: go on without keeping.
    Full,
    /// What is stored is not what was stored: drop it and fetch it again.
    Corrupt,
    /// The store cannot be used now (busy, closed, or made by a newer version): try later.
    Unavailable,
    /// Any other failure of the file system or the database.
    Io,
}

/// A failure of the blob store or of the metadata database.
///
/// `Display` is fit for users: it names no path and no statement. The cause, which may, is the [`source`](StdError::source).
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StorageError {
    /// What a caller can do about it.
    pub kind: StorageErrorKind,
    /// What happened, for users.
    pub message: String,
    /// The cause, for logs.
    #[source]
    pub source: Option<Box<dyn StdError + Send + Sync>>,
}

impl StorageError {
    /// An error without a deeper cause.
    pub fn new(kind: StorageErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// Classifies an I/O error; `doing` completes the sentence "cannot …".
    pub fn from_io(doing: &str, error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => StorageErrorKind::Full,
            io::ErrorKind::NotFound => StorageErrorKind::NotFound,
            _ => StorageErrorKind::Io,
        };
        let reason = match kind {
            StorageErrorKind::Full => "no space left in the data directory".to_owned(),
            _ => error.kind().to_string(),
        };
        Self {
            kind,
            message: format!("cannot {doing}: {reason}"),
            source: Some(Box::new(error)),
        }
    }

    /// Whether the cause is a lack of space.
    pub fn is_full(&self) -> bool {
        self.kind == StorageErrorKind::Full
    }

    /// The same error for another item of a batch. The cause is kept as text.
    pub(crate) fn again(&self) -> Self {
        let source = self
            .source
            .as_ref()
            .map(|cause| Box::<dyn StdError + Send + Sync>::from(cause.to_string()));
        Self {
            kind: self.kind,
            message: self.message.clone(),
            source,
        }
    }

    /// Classifies a database error; `doing` completes the sentence "cannot …".
    pub(crate) fn from_sql(doing: &str, error: sqlx::Error) -> Self {
        let (kind, reason) = match &error {
            sqlx::Error::Database(database) => sqlite_kind(database.code().as_deref()),
            sqlx::Error::RowNotFound => (StorageErrorKind::NotFound, "no such row"),
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => (
                StorageErrorKind::Unavailable,
                "the metadata database does not answer",
            ),
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => (
                StorageErrorKind::Corrupt,
                "the metadata database holds a value of the wrong type",
            ),
            _ => (StorageErrorKind::Io, "the metadata database failed"),
        };
        Self {
            kind,
            message: format!("cannot {doing}: {reason}"),
            source: Some(Box::new(error)),
        }
    }
}

const DAMAGED: &str = "the metadata database is damaged or is not an SQLite database";

/// SQLite's extended result code (<https://www.sqlite.org/rescode.html>) as a kind and a reason for users.
fn sqlite_kind(code: Option<&str>) -> (StorageErrorKind, &'static str) {
    /// SQLITE_IOERR_SHMSIZE: the shared-memory file of the write-ahead log cannot grow, which is how a full disk shows there.
    const SHMSIZE: i32 = 4874;
    /// A read that failed or came up short, a file system that says it is damaged, and a row number or key that stands twice where an
    /// index says that it does not: larder's statements insert nothing that could be there.
    const DAMAGE: [i32; 7] = [266, 522, 3338, 8458, 1555, 2067, 2579];
    let code = code.and_then(|text| text.parse::<i32>().ok()).unwrap_or(0);
    if code == SHMSIZE {
        return (
            StorageErrorKind::Full,
            "no space left for the metadata database",
        );
    }
    if DAMAGE.contains(&code) {
        return (StorageErrorKind::Corrupt, DAMAGED);
    }
    match code & 0xff {
        5 | 6 => (
            StorageErrorKind::Unavailable,
            "the metadata database is locked by another process",
        ),
        8 => (
            StorageErrorKind::Unavailable,
            "the metadata database cannot be written",
        ),
        13 => (
            StorageErrorKind::Full,
            "no space left for the metadata database",
        ),
        14 => (
            StorageErrorKind::Unavailable,
            "the metadata database cannot be opened",
        ),
        11 | 26 => (StorageErrorKind::Corrupt, DAMAGED),
        _ => (StorageErrorKind::Io, "the metadata database failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_follow_the_cause() {
        let kind = |raw| StorageError::from_io("write", io::Error::from_raw_os_error(raw)).kind;
        // Linux errno values, asm-generic/errno.h.
        assert_eq!(kind(28), StorageErrorKind::Full, "ENOSPC");
        assert_eq!(kind(122), StorageErrorKind::Full, "EDQUOT");
        assert_eq!(kind(27), StorageErrorKind::Full, "EFBIG");
        assert_eq!(kind(2), StorageErrorKind::NotFound, "ENOENT");
        assert_eq!(kind(5), StorageErrorKind::Io, "EIO");
        // Values from sqlite.org/rescode.html.
        assert_eq!(
            sqlite_kind(Some("13")).0,
            StorageErrorKind::Full,
            "SQLITE_FULL"
        );
        assert_eq!(
            sqlite_kind(Some("4874")).0,
            StorageErrorKind::Full,
            "SQLITE_IOERR_SHMSIZE"
        );
        assert_eq!(
            sqlite_kind(Some("261")).0,
            StorageErrorKind::Unavailable,
            "SQLITE_BUSY_RECOVERY"
        );
        assert_eq!(
            sqlite_kind(Some("26")).0,
            StorageErrorKind::Corrupt,
            "SQLITE_NOTADB"
        );
        assert_eq!(
            sqlite_kind(Some("779")).0,
            StorageErrorKind::Corrupt,
            "SQLITE_CORRUPT_INDEX"
        );
        assert_eq!(
            sqlite_kind(Some("522")).0,
            StorageErrorKind::Corrupt,
            "SQLITE_IOERR_SHORT_READ"
        );
        assert_eq!(
            sqlite_kind(Some("2067")).0,
            StorageErrorKind::Corrupt,
            "SQLITE_CONSTRAINT_UNIQUE"
        );
        assert_eq!(
            sqlite_kind(Some("787")).0,
            StorageErrorKind::Io,
            "SQLITE_CONSTRAINT_FOREIGNKEY"
        );
        assert_eq!(
            sqlite_kind(Some("778")).0,
            StorageErrorKind::Io,
            "SQLITE_IOERR_WRITE"
        );
    }

    #[test]
    fn display_names_no_path() {
        let cause = std::fs::File::open("/nonexistent/secret-place").unwrap_err();
        let error = StorageError::from_io(
            "open a blob",
            io::Error::new(cause.kind(), format!("/nonexistent/secret-place: {cause}")),
        );
        assert_eq!(error.to_string(), "cannot open a blob: entity not found");
        assert!(error.source.is_some());
    }
}
