//! Space that is set aside for deleting: on a disk without a free block the database can forget only if it has room to write down
//! what it forgets.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::blob::Space;

/// Enough for the log of a small deletion and for its shared memory.
const SIZE: u64 = 2 << 20;

/// A file that is there to be removed.
#[derive(Debug)]
pub(crate) struct Spare(PathBuf);

impl Spare {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Sets the space aside, if it is not already and the disk has some beyond its reserve.
    pub(crate) fn set_aside(&self) {
        let is_there = fs::metadata(&self.0).is_ok_and(|metadata| metadata.len() == SIZE);
        if is_there || !self.has_room() {
            return;
        }
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.0);
        let made = file.and_then(|file| Ok(fallocate(&file, FallocateFlags::empty(), 0, SIZE)?));
        if made.is_err() {
            // A file system that cannot promise space has none to set aside.
            let _ = fs::remove_file(&self.0);
        }
    }

    /// Gives it back; whether there was any.
    pub(crate) fn give_back(&self) -> bool {
        fs::remove_file(&self.0).is_ok()
    }

    fn has_room(&self) -> bool {
        let directory = self.0.parent().unwrap_or(Path::new("."));
        statvfs(directory).is_ok_and(|found| {
            let space = Space::new(
                found.f_blocks.saturating_mul(found.f_frsize),
                found.f_bavail.saturating_mul(found.f_frsize),
            );
            space.available > space.reserve.saturating_add(SIZE)
        })
    }
}
