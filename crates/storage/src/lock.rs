//! One process for each data directory: two would not see each other's records and would collect each other's blobs.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::error::{StorageError, StorageErrorKind};

const NAME: &str = "larder.lock";

/// Held as long as the process uses the data directory. The kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct DataDirectoryLock {
    _file: File,
}

impl DataDirectoryLock {
    /// Takes the directory for this process. `Unavailable` if another one has it; the message names that one.
    pub fn take(directory: &Path) -> Result<Self, StorageError> {
        let failed = |error| StorageError::from_io("lock the data directory", error);
        let path = directory.join(NAME);
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(&mut file)),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                tracing::warn!(
                    "the data directory's file system knows no locks: see to it that only one larder uses it"
                );
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // For whoever is refused. Where it cannot be written (a full disk), the lock holds all the same.
        let _ = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }

    /// Which process has the directory; `None` if none has. Holds the lock for a moment only, and makes no file.
    ///
    /// # Errors
    /// The lock's file is there and cannot be opened, so that [`take`](Self::take) would fail too.
    pub fn holder(directory: &Path) -> Result<Option<String>, StorageError> {
        let failed = |error| StorageError::from_io("lock the data directory", error);
        let mut file = match File::options()
            .read(true)
            .write(true)
            .open(directory.join(NAME))
        {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(Some(process(&mut file))),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                Ok(None)
            }
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

/// Who has noted itself in the lock's file.
fn process(file: &mut File) -> String {
    let mut text = String::new();
    let read = file
        .rewind()
        .and_then(|()| file.take(32).read_to_string(&mut text));
    match text.trim().parse::<u32>() {
        Ok(id) if read.is_ok() => format!("process {id}"),
        _ => "a process that has not said which".to_owned(),
    }
}

fn in_use(file: &mut File) -> StorageError {
    let process = process(file);
    let message = format!(
        "the data directory is in use by another larder ({process}): stop that one, or give this one a directory of its own \
         with --data-dir"
    );
    StorageError::new(StorageErrorKind::Unavailable, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_refused_with_the_first_ones_process() {
        let directory = tempfile::tempdir().unwrap();
        let first = DataDirectoryLock::take(directory.path()).unwrap();
        let refused = DataDirectoryLock::take(directory.path()).unwrap_err();
        assert_eq!(refused.kind, StorageErrorKind::Unavailable);
        assert!(
            refused
                .message
                .contains(&format!("process {}", std::process::id())),
            "{refused}"
        );
        let holder = DataDirectoryLock::holder(directory.path()).unwrap();
        assert_eq!(holder, Some(format!("process {}", std::process::id())));
        drop(first);
        assert_eq!(DataDirectoryLock::holder(directory.path()).unwrap(), None);
        // What a killed process leaves is the file, not the lock.
        assert!(directory.path().join(NAME).exists());
        DataDirectoryLock::take(directory.path()).unwrap();
    }
}
