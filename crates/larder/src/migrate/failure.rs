//! Why a migration ends early, and with which exit status.

use larder_storage::{ConnectError, Refused, StorageError};

use crate::blobs::explained;

/// What ends a migration.
#[derive(Debug)]
pub(super) enum Failure {
    /// The command line and the configuration do not say what to do: exit status 2.
    Usage(String),
    /// Something went wrong: exit status 1.
    Failed(String),
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self::Failed(explained(&error))
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Never(why) => Self::Failed(why),
            Refused::Later(error) => error.into(),
        }
    }
}

impl From<Box<dyn std::error::Error>> for Failure {
    fn from(error: Box<dyn std::error::Error>) -> Self {
        Self::Failed(error.to_string())
    }
}
