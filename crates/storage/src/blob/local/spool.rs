//! A file that is written while others read it. It has no name (or a private one) until it is published, so that whatever happens
//! to the writer, nothing unfinished can be reached or is left behind (hazards W4, L1).

use std::any::Any;
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use super::space::SpaceGauge;
use crate::error::{StorageError, StorageErrorKind};

/// A growing temporary file with one writer and any number of readers.
#[derive(Debug)]
pub struct Spool {
    file: Arc<File>,
    written: u64,
    /// Where the file system has no unnamed files; removed on drop.
    pub(in crate::blob) name: Option<TemporaryName>,
    gauge: Option<Arc<SpaceGauge>>,
    /// Takes the bytes somewhere else while they come.
    follower: Option<Box<dyn Follower>>,
}

/// Who is told how far a spool has come, and who is asked for by the one that publishes it. Dropped, it gives up.
pub(in crate::blob) trait Follower: Any + Send + Sync + Debug {
    /// So many bytes are there, and stay as they are. Does not wait.
    fn grown(&mut self, available: u64);
}

/// A private name that goes away with its owner.
#[derive(Debug)]
pub(in crate::blob) struct TemporaryName(pub(in crate::blob) PathBuf);

impl Drop for TemporaryName {
    fn drop(&mut self) {
        // Gone already after publication by rename.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Spool {
    pub(in crate::blob) fn new(
        file: File,
        name: Option<TemporaryName>,
        gauge: Option<Arc<SpaceGauge>>,
    ) -> Self {
        Self {
            file: Arc::new(file),
            written: 0,
            name,
            gauge,
            follower: None,
        }
    }

    /// A file that is complete already.
    pub(in crate::blob) fn over(file: Arc<File>, length: u64) -> Self {
        Self {
            file,
            written: length,
            name: None,
            gauge: None,
            follower: None,
        }
    }

    /// From now on somebody follows what is written.
    pub(in crate::blob) fn be_followed(&mut self, follower: Box<dyn Follower>) {
        self.follower = Some(follower);
    }

    /// Who has followed, for whoever publishes it.
    pub(in crate::blob) fn take_follower(&mut self) -> Option<Box<dyn Follower>> {
        self.follower.take()
    }

    /// Writes at the end. Readers may be told of the new [`len`](Self::len) as soon as this returns. Synchronous: a write to the
    /// page cache.
    ///
    /// `Full` when the disk is full or its reserve is reached; the bytes before, and the part of `bytes` that still fitted, stay
    /// valid and are counted by [`len`](Self::len).
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        if let Some(gauge) = &self.gauge {
            gauge.admit(bytes.len() as u64)?;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.file.write_at(rest, self.written) {
                Ok(0) => {
                    return Err(StorageError::new(
                        StorageErrorKind::Io,
                        "cannot write to a spool: nothing was taken",
                    ));
                }
                Ok(count) => {
                    self.written += count as u64;
                    rest = &rest[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(StorageError::from_io("write to a spool", error)),
            }
        }
        if let Some(follower) = &mut self.follower {
            follower.grown(self.written);
        }
        Ok(())
    }

    /// Bytes written so far, those of a failed [`append`](Self::append) that still fitted included.
    pub fn len(&self) -> u64 {
        self.written
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.written == 0
    }

    /// The file, for reads by position below [`len`](Self::len). It stays readable after the spool is gone.
    pub fn reader(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Forgets everything from `len` on, which must not exceed [`len`](Self::len): after a failed append, or to start over.
    /// Readers must not have been told of what is forgotten.
    pub fn truncate_to(&mut self, len: u64) -> Result<(), StorageError> {
        if len > self.written {
            let message = format!("cannot truncate a spool of {} bytes to {len}", self.written);
            return Err(StorageError::new(StorageErrorKind::Io, message));
        }
        self.file
            .set_len(len)
            .map_err(|e| StorageError::from_io("truncate a spool", e))?;
        self.written = len;
        // What comes now in place of that may differ.
        self.follower = None;
        Ok(())
    }

    pub(in crate::blob) fn file(&self) -> &File {
        &self.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_what_is_written_and_survive_the_writer() {
        let mut spool = Spool::new(tempfile::tempfile().unwrap(), None, None);
        let reader = spool.reader();
        let mut buffer = [0; 8];
        assert_eq!(reader.read_at(&mut buffer, 0).unwrap(), 0);
        spool.append(b"abcd").unwrap();
        spool.append(b"efgh").unwrap();
        assert_eq!(
            (reader.read_at(&mut buffer, 2).unwrap(), &buffer[..6]),
            (6, &b"cdefgh"[..])
        );
        spool.truncate_to(3).unwrap();
        spool.append(b"X").unwrap();
        assert_eq!(spool.len(), 4);
        drop(spool);
        assert_eq!(
            (reader.read_at(&mut buffer, 0).unwrap(), &buffer[..4]),
            (4, &b"abcX"[..])
        );
    }

    #[test]
    fn truncating_cannot_grow() {
        let mut spool = Spool::new(tempfile::tempfile().unwrap(), None, None);
        spool.append(b"ab").unwrap();
        assert!(spool.truncate_to(3).is_err());
        assert_eq!(spool.len(), 2);
    }

    #[test]
    fn a_full_device_is_told_apart() {
        // /dev/full (full(4)) fails every write with ENOSPC.
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut spool = Spool::new(full, None, None);
        let error = spool.append(b"x").unwrap_err();
        assert_eq!((error.kind, spool.len()), (StorageErrorKind::Full, 0));
    }

    #[test]
    fn a_temporary_name_goes_with_its_spool() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spool");
        let spool = Spool::new(
            File::create_new(&path).unwrap(),
            Some(TemporaryName(path.clone())),
            None,
        );
        assert!(path.exists());
        drop(spool);
        assert!(!path.exists());
    }
}
