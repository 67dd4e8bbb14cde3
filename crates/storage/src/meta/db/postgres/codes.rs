//! What the server's codes mean to a caller (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).

use std::error::Error as StdError;
use std::io;

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use super::super::{About, DbError};
use crate::error::StorageErrorKind;

const NO_ANSWER: &str = "the metadata database does not answer";
/// The role may not do it.
pub(super) const RIGHTS: &str = "42501";

/// What the server has said, without the line of its own source that the driver adds.
#[derive(Debug, thiserror::Error)]
#[error("{message} (SQLSTATE {code})")]
pub(super) struct Said {
    message: String,
    pub(super) code: String,
}

/// The driver's failure as larder tells it.
pub(super) fn failure(error: sqlx::Error) -> DbError {
    let meaning = match &error {
        sqlx::Error::Database(database) => {
            let said = Said {
                message: database.message().to_owned(),
                code: database.code().unwrap_or_default().into_owned(),
            };
            return failed(of_code(&said.code, &said.message), said);
        }
        // A certificate that is not believed, or a CA file that cannot be read.
        sqlx::Error::Tls(_) | sqlx::Error::Configuration(_) => refused(),
        sqlx::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => refused(),
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => lost(),
        _ => return error.into(),
    };
    failed(meaning, error)
}

fn failed(meaning: Meaning, source: impl StdError + Send + Sync + 'static) -> DbError {
    let (kind, reason, about) = meaning;
    DbError {
        kind,
        reason,
        about,
        source: Box::new(source),
    }
}

/// The code by which a server that answers has said what failed.
pub(super) fn code(error: &DbError) -> Option<&str> {
    let said = error.source.downcast_ref::<Said>();
    said.map(|said| &*said.code)
}

/// Whether the connection is good for nothing any more.
pub(super) fn is_end_of_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(database) => {
            let error = database.try_downcast_ref::<PgDatabaseError>();
            error.is_none_or(|error| {
                matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic)
                    || is_read_only(error.code(), error.message())
            })
        }
        sqlx::Error::RowNotFound | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
            false
        }
        _ => true,
    }
}

/// What a server says that was the one to write to, and is no longer: 25006, and to a transaction that insists on writing, 0A000.
fn is_read_only(code: &str, message: &str) -> bool {
    code == "25006" || (code == "0A000" && message.contains("read-write mode"))
}

type Meaning = (StorageErrorKind, &'static str, About);

fn lost() -> Meaning {
    (StorageErrorKind::Unavailable, NO_ANSWER, About::Lost)
}

fn refused() -> Meaning {
    let reason = "the metadata database refuses larder";
    (StorageErrorKind::Unavailable, reason, About::Refused)
}

fn of_code(code: &str, message: &str) -> Meaning {
    const CONFLICT: &str = "another transaction of the metadata database was in the way";
    if is_read_only(code, message) {
        let reason = "the metadata database takes no writes at present";
        return (StorageErrorKind::Unavailable, reason, About::Lost);
    }
    match code {
        "40001" | "40P01" | "55P03" => (StorageErrorKind::Unavailable, CONFLICT, About::Conflict),
        "57014" => (StorageErrorKind::Unavailable, NO_ANSWER, About::Other),
        // A pooler in front of the server says all that it has to say with one code.
        "08P01" if is_of_credentials(message) => refused(),
        "57P01" | "57P02" | "57P03" | "57P05" | "53300" | "25P03" => lost(),
        "53100" => (
            StorageErrorKind::Full,
            "no space left for the metadata database",
            About::Other,
        ),
        "XX001" | "XX002" => (
            StorageErrorKind::Corrupt,
            "the metadata database is damaged",
            About::Other,
        ),
        "42P01" | "42703" => (
            StorageErrorKind::Io,
            "the metadata database lacks a table or column",
            About::Statement,
        ),
        RIGHTS | "3D000" => refused(),
        _ if code.starts_with("28") => refused(),
        _ if code.starts_with("08") => lost(),
        _ => (
            StorageErrorKind::Io,
            "the metadata database failed",
            About::Other,
        ),
    }
}

fn is_of_credentials(message: &str) -> bool {
    ["authentication failed", "no such user", "no such database"]
        .iter()
        .any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use sqlx::error::DatabaseError;

    use super::*;

    /// A failed statement as the driver gives it, whose `Display` ends with a line of the server's source.
    #[derive(Debug, thiserror::Error)]
    #[error("{0} at line 334")]
    struct OfDriver(&'static str);

    impl DatabaseError for OfDriver {
        fn message(&self) -> &str {
            self.0
        }
        fn code(&self) -> Option<std::borrow::Cow<'_, str>> {
            Some("28P01".into())
        }
        fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
            self
        }
        fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
            self
        }
        fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
            self
        }
        fn kind(&self) -> sqlx::error::ErrorKind {
            sqlx::error::ErrorKind::Other
        }
    }

    #[test]
    fn the_server_s_message_and_code_are_told_and_nothing_of_its_source() {
        let error = failure(sqlx::Error::Database(Box::new(OfDriver("no entry"))));
        assert_eq!(error.source.to_string(), "no entry (SQLSTATE 28P01)");
        assert_eq!((code(&error), error.about), (Some("28P01"), About::Refused));
    }

    #[test]
    fn meanings_follow_the_code() {
        // Values from the appendix of PostgreSQL's manual; messages of the server and of PgBouncer.
        let table = [
            ("40001", "", About::Conflict),
            ("40P01", "", About::Conflict),
            ("25006", "", About::Lost),
            (
                "0A000",
                "cannot set transaction read-write mode during recovery",
                About::Lost,
            ),
            (
                "0A000",
                "cached plan must not change result type",
                About::Other,
            ),
            ("57P01", "", About::Lost),
            ("57P03", "", About::Lost),
            ("08006", "", About::Lost),
            (
                "08P01",
                "server login has been failing, try again later",
                About::Lost,
            ),
            ("08P01", "SASL authentication failed", About::Refused),
            ("28P01", "", About::Refused),
            ("3D000", "", About::Refused),
            ("42P01", "", About::Statement),
        ];
        for (code, message, about) in table {
            assert_eq!(of_code(code, message).2, about, "{code} {message}");
        }
        assert_eq!(of_code("53100", "").0, StorageErrorKind::Full);
        assert_eq!(of_code("XX001", "").0, StorageErrorKind::Corrupt);
        assert_eq!(of_code("25006", "").0, StorageErrorKind::Unavailable);
    }
}
