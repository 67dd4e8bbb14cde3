//! Whether blobs could be kept in a data directory: a look that leaves nothing behind.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};

use crate::error::StorageError;

/// So many directories of blobs are looked at; there are at most 65,536.
const MOST_SHARDS: usize = 8_192;

/// Whether a store can be opened where `data_dir` exists, and files can be written there.
pub(super) fn check(data_dir: &Path) -> Result<(), StorageError> {
    let blobs = data_dir.join("blobs");
    let root = blobs.join("sha256");
    let look = || -> io::Result<()> {
        for directory in [data_dir, &blobs, &root, &blobs.join("spool")] {
            match fs::metadata(directory) {
                Ok(found) if found.is_dir() => try_writing(directory)?,
                Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
                // It is made where the one above can be written.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    look().map_err(|e| StorageError::from_io("write in the blob directory", e))?;
    check_shards(&root)
}

/// Makes a file and removes it.
fn try_writing(directory: &Path) -> io::Result<()> {
    let path = directory.join(format!("larder-check-{}", std::process::id()));
    let written = File::options()
        .write(true)
        .create_new(true)
        .open(&path)
        .and_then(|mut file| io::Write::write_all(&mut file, b"x"));
    let removed = fs::remove_file(&path);
    written.and(removed)
}

/// Whether blobs can be placed in the directories below `root` that are there: somebody else may have made them.
fn check_shards(root: &Path) -> Result<(), StorageError> {
    let mut looked = 0;
    for upper in directories(root)? {
        try_access(&upper)?;
        for shard in directories(&upper)? {
            try_access(&shard)?;
            looked += 1;
            if looked == MOST_SHARDS {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The directories in one, which may be gone.
fn directories(of: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let entries = match fs::read_dir(of) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| cannot("read", of, error))?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let paths: io::Result<Vec<PathBuf>> = paths.collect();
    let mut paths = paths.map_err(|error| cannot("read", of, error))?;
    paths.retain(|path| path.is_dir());
    Ok(paths)
}

/// Whether files can be made in a directory, by its rights alone: nothing is written.
fn try_access(directory: &Path) -> Result<(), StorageError> {
    let rights = Access::WRITE_OK | Access::EXEC_OK;
    match rustix::fs::accessat(CWD, directory, rights, AtFlags::EACCESS) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(cannot("write in", directory, error.into())),
    }
}

fn cannot(what: &str, directory: &Path, error: io::Error) -> StorageError {
    StorageError::from_io(&format!("{what} {}", directory.display()), error)
}
