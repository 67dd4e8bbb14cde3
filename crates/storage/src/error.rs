//! What can go wrong with state, told apart by what the caller can do about it.

use std::error::Error as StdError;
use std::io;

use crate::meta::{About, DbError};

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

/// Why something could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("a blob that is to be kept is being deleted")]
struct BeingDeleted;

/// What a server has said that will not have this larder.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(Box<dyn StdError + Send + Sync>);

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

    /// A blob is being deleted, and has been for longer than anybody waits for it; `doing` completes the sentence "cannot …".
    pub(crate) fn being_deleted(doing: &str) -> Self {
        Self {
            kind: StorageErrorKind::Unavailable,
            message: format!("cannot {doing}: {BeingDeleted}"),
            source: Some(Box::new(BeingDeleted)),
        }
    }

    /// Whether a blob that was to be kept is being deleted: without it the rest may be written.
    pub fn is_of_deletion(&self) -> bool {
        self.source
            .as_ref()
            .is_some_and(|cause| cause.is::<BeingDeleted>())
    }

    /// Whether a server refuses this larder for want of credentials, rights or a database: waiting does not help.
    pub fn is_refusal(&self) -> bool {
        self.source
            .as_ref()
            .is_some_and(|cause| cause.is::<Refusal>())
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

    /// A failure of the database; `doing` completes the sentence "cannot …".
    pub(crate) fn from_sql(doing: &str, error: DbError) -> Self {
        let source = match error.about {
            About::Refused => Box::new(Refusal(error.source)),
            _ => error.source,
        };
        Self {
            kind: error.kind,
            message: format!("cannot {doing}: {}", error.reason),
            source: Some(source),
        }
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
