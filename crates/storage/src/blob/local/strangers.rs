//! What stands where a blob is to stand and is none: a directory, a pipe, a file in place of a directory. Whoever put it there, larder goes on.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// Opens what stands under a blob's name, to read it. Of a pipe nobody waits for the other end; of a file it makes no difference.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = rustix::io::retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()));
    Ok(File::from(opened?))
}

/// Whether it is said that there is no such file. Below what is no directory there is none, either.
pub(super) fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Gives what stands in a blob's way another name, beside it: nobody knows whose it is.
pub(super) fn set_aside(path: &Path) -> io::Result<()> {
    let free = (0_u64..).map(|number| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".aside-{number}"));
        name
    });
    let mut free = free.filter(|name| fs::symlink_metadata(name).is_err());
    if let Some(name) = free.next() {
        fs::rename(path, name)?;
        let path = path.display().to_string();
        tracing::warn!(
            path,
            "something that is no blob stood in the place of one, and has been put aside"
        );
    }
    Ok(())
}

/// Makes a directory for blobs, the upper ones first, where there may be something else of these names.
pub(super) fn make_directories(directories: [&Path; 2]) -> io::Result<()> {
    for directory in directories {
        let is_directory = fs::metadata(directory).is_ok_and(|found| found.is_dir());
        if !is_directory && fs::symlink_metadata(directory).is_ok() {
            set_aside(directory)?;
        }
    }
    fs::create_dir_all(directories[1])
}
