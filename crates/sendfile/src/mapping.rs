//! Mappings of file ranges, and the list of those that belong to one connection.

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::MIN_MAPPED;
use crate::region::Region;

/// Makes response bodies out of file ranges for one connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FileSender {
    registry: Arc<Registry>,
}

impl FileSender {
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }

    /// Maps `length` bytes of `file` from `offset` on, for one frame of a response body on this connection.
    ///
    /// The file must not be truncated while the bytes exist. Written to this connection's [`SendfileStream`](crate::SendfileStream)
    /// they are never read by the process. The mapping ends when the last clone of the bytes is dropped.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the file is shorter than `offset + length`, [`io::ErrorKind::InvalidInput`] if
    /// `length` is below [`MIN_MAPPED`]; otherwise the error of the system call.
    pub fn map(&self, file: &Arc<File>, offset: u64, length: u64) -> io::Result<Bytes> {
        if length < MIN_MAPPED {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let end = offset
            .checked_add(length)
            .ok_or(io::ErrorKind::InvalidInput)?;
        // A mapping beyond the end of the file would be a SIGBUS for whoever touches it.
        if file.metadata()?.len() < end {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mapping = Mapping::new(Arc::clone(file), offset, length)?;
        Ok(Bytes::from_owner(Registered::new(
            mapping,
            Arc::clone(&self.registry),
        )))
    }
}

/// Maps the first `length` bytes of `file` to be read in the process. They take no memory of their own: pages that were written a moment ago
/// are shared with the page cache, and nothing is copied or cleared.
///
/// Only for files that nobody else has a name for yet, or has had one for a moment: whoever shortens the file while the bytes are read
/// ends the process with a SIGBUS, and so does a disk that cannot give a page back. The mapping ends when the last clone of the bytes is
/// dropped.
///
/// # Errors
/// [`io::ErrorKind::UnexpectedEof`] if the file is shorter than `length`; otherwise the error of the system call, which an empty range
/// is, too.
pub fn map_to_read(file: &Arc<File>, length: u64) -> io::Result<Bytes> {
    if file.metadata()?.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mapping = Mapping::new(Arc::clone(file), 0, length)?;
    Ok(Bytes::from_owner(mapping))
}

/// The mappings that are alive on one connection. Empty most of the time, then looking costs one relaxed load.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    count: AtomicUsize,
    ranges: Mutex<Vec<MappedRange>>,
}

impl Registry {
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// The file and position that `slice` stands for, if it lies within a registered mapping.
    pub(crate) fn find(&self, slice: &[u8]) -> Option<FilePosition> {
        let address = slice.as_ptr() as usize;
        let ranges = self.lock();
        let range = ranges
            .iter()
            .find(|range| range.contains(address, slice.len()))?;
        Some(FilePosition {
            file: Arc::clone(&range.file),
            offset: range.offset + (address - range.address) as u64,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<MappedRange>> {
        // The list is consistent between any two statements that could panic.
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, range: MappedRange) {
        let mut ranges = self.lock();
        ranges.push(range);
        self.count.store(ranges.len(), Ordering::Release);
    }

    fn remove(&self, address: usize) {
        let mut ranges = self.lock();
        ranges.retain(|range| range.address != address);
        self.count.store(ranges.len(), Ordering::Release);
    }
}

/// Where a mapped slice comes from.
#[derive(Debug)]
pub(crate) struct FilePosition {
    pub(crate) file: Arc<File>,
    pub(crate) offset: u64,
}

#[derive(Debug)]
struct MappedRange {
    address: usize,
    length: usize,
    offset: u64,
    file: Arc<File>,
}

impl MappedRange {
    fn contains(&self, address: usize, length: usize) -> bool {
        address >= self.address && address - self.address + length <= self.length
    }
}

/// A mapping, with what it is a mapping of.
struct Mapping {
    region: Region,
    file: Arc<File>,
    offset: u64,
}

impl Mapping {
    fn new(file: Arc<File>, offset: u64, length: u64) -> io::Result<Self> {
        Ok(Self {
            region: Region::new(&file, offset, length)?,
            file,
            offset,
        })
    }

    fn bytes(&self) -> &[u8] {
        self.region.bytes()
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

/// A mapping that is in its connection's list exactly as long as it is alive.
struct Registered {
    mapping: Mapping,
    registry: Arc<Registry>,
}

impl Registered {
    fn new(mapping: Mapping, registry: Arc<Registry>) -> Self {
        let bytes = mapping.bytes();
        registry.add(MappedRange {
            address: bytes.as_ptr() as usize,
            length: bytes.len(),
            offset: mapping.offset,
            file: Arc::clone(&mapping.file),
        });
        Self { mapping, registry }
    }
}

impl AsRef<[u8]> for Registered {
    fn as_ref(&self) -> &[u8] {
        self.mapping.bytes()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // Before the address is free for another mapping: fields are dropped after this.
        self.registry.remove(self.mapping.bytes().as_ptr() as usize);
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registered")
            .field("offset", &self.mapping.offset)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const LENGTH: usize = 300_000;

    fn numbered_file() -> Arc<File> {
        let bytes: Vec<u8> = (0..LENGTH).map(|n| (n % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        Arc::new(file)
    }

    #[test]
    fn a_slice_is_found_by_its_address_with_its_offset_in_the_file() {
        let sender = FileSender::new(Arc::default());
        let bytes = sender.map(&numbered_file(), 5_000, 100_000).unwrap();
        assert_eq!(bytes[0], (5_000 % 251) as u8);
        let found = sender.registry.find(&bytes[70..]).unwrap();
        assert_eq!(found.offset, 5_070);
        assert!(sender.registry.find(b"elsewhere").is_none());
    }

    #[test]
    fn the_mapping_is_forgotten_with_the_last_clone() {
        let sender = FileSender::new(Arc::default());
        let bytes = sender.map(&numbered_file(), 0, 100_000).unwrap();
        let tail = bytes.slice(10..);
        drop(bytes);
        assert!(!sender.registry.is_empty());
        drop(tail);
        assert!(sender.registry.is_empty());
    }

    #[test]
    fn a_file_shorter_than_expected_is_an_error_before_anything_is_mapped() {
        let sender = FileSender::new(Arc::default());
        let error = sender.map(&numbered_file(), 250_000, 100_000).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(sender.registry.is_empty());
    }

    #[test]
    fn what_is_mapped_to_be_read_is_the_file() {
        let file = numbered_file();
        let bytes = map_to_read(&file, LENGTH as u64 - 1).unwrap();
        assert_eq!(bytes.len(), LENGTH - 1);
        assert!(
            bytes
                .iter()
                .enumerate()
                .all(|(n, byte)| *byte == (n % 251) as u8)
        );
        let kind = |length| map_to_read(&file, length).map_err(|error| error.kind());
        assert_eq!(kind(LENGTH as u64 + 1), Err(io::ErrorKind::UnexpectedEof));
        assert_eq!(kind(0), Err(io::ErrorKind::InvalidInput));
        let tail = bytes.slice(LENGTH - 10..);
        drop((bytes, file));
        assert_eq!(tail.len(), 9);
    }

    #[test]
    fn short_frames_and_overflowing_ranges_are_refused() {
        let sender = FileSender::new(Arc::default());
        let file = numbered_file();
        assert_eq!(
            sender.map(&file, 0, MIN_MAPPED - 1).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        assert_eq!(
            sender.map(&file, u64::MAX, MIN_MAPPED).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }
}
