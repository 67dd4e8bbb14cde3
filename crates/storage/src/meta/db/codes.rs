//! What the engine's codes mean to a caller.

use crate::error::StorageErrorKind;

const DAMAGED: &str = "the metadata database is damaged or is not an SQLite database";

/// SQLite's extended result code (<https://www.sqlite.org/rescode.html>) as a kind and a reason for users.
pub(super) fn kind_of(code: Option<&str>) -> (StorageErrorKind, &'static str) {
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
    fn kinds_follow_the_code() {
        // Values from sqlite.org/rescode.html.
        assert_eq!(kind_of(Some("13")).0, StorageErrorKind::Full, "SQLITE_FULL");
        assert_eq!(
            kind_of(Some("4874")).0,
            StorageErrorKind::Full,
            "SQLITE_IOERR_SHMSIZE"
        );
        assert_eq!(
            kind_of(Some("261")).0,
            StorageErrorKind::Unavailable,
            "SQLITE_BUSY_RECOVERY"
        );
        assert_eq!(
            kind_of(Some("26")).0,
            StorageErrorKind::Corrupt,
            "SQLITE_NOTADB"
        );
        assert_eq!(
            kind_of(Some("779")).0,
            StorageErrorKind::Corrupt,
            "SQLITE_CORRUPT_INDEX"
        );
        assert_eq!(
            kind_of(Some("522")).0,
            StorageErrorKind::Corrupt,
            "SQLITE_IOERR_SHORT_READ"
        );
        assert_eq!(
            kind_of(Some("2067")).0,
            StorageErrorKind::Corrupt,
            "SQLITE_CONSTRAINT_UNIQUE"
        );
        assert_eq!(
            kind_of(Some("787")).0,
            StorageErrorKind::Io,
            "SQLITE_CONSTRAINT_FOREIGNKEY"
        );
        assert_eq!(
            kind_of(Some("778")).0,
            StorageErrorKind::Io,
            "SQLITE_IOERR_WRITE"
        );
    }
}
