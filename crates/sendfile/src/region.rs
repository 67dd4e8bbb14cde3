//! Read-only mappings of file ranges, and which of their pages are in memory.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// How many pages one `mincore` call tells of.
const ASKED_AT_ONCE: usize = 256;

/// A read-only shared mapping of a part of a file.
pub(crate) struct Region {
    base: *mut libc::c_void,
    /// What is mapped: from the page that holds the first byte.
    mapped_length: usize,
    /// Distance of the first byte from `base`.
    lead: usize,
}

// SAFETY: the mapping is read-only, and it is unmapped only when its one owner is dropped; no thread owns it.
unsafe impl Send for Region {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Region {}

impl Region {
    /// Maps `length` bytes of `file` from `offset` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for a range that no mapping can have; otherwise the error of the system call.
    pub(crate) fn new(file: &File, offset: u64, length: u64) -> io::Result<Self> {
        let lead = offset % page_size();
        let mapped_length =
            usize::try_from(length + lead).map_err(|_| io::ErrorKind::InvalidInput)?;
        let start =
            libc::off_t::try_from(offset - lead).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at an address of the kernel's choice; the descriptor is open because `file` is.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped_length,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                start,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            base,
            mapped_length,
            lead: lead as usize,
        })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `base` starts a mapping of `mapped_length` bytes that lives as long as `self`; `lead` is less than that. The
        // pages are not written: stored files are immutable (the contract of `FileSender::map`).
        unsafe {
            std::slice::from_raw_parts(
                self.base.cast::<u8>().add(self.lead),
                self.mapped_length - self.lead,
            )
        }
    }

    /// Whether the page cache has all pages of these bytes (offsets in [`bytes`](Self::bytes)). None of them is touched. Pages beyond the
    /// end of the file are not in the page cache. Who may not know (neither owner of the file nor allowed to write it) is told that they all are.
    ///
    /// # Errors
    /// The error of the system call; [`io::ErrorKind::InvalidInput`] if the range is not within the mapping.
    pub(crate) fn is_resident(&self, bytes: Range<usize>) -> io::Result<bool> {
        let page = page_size() as usize;
        let (first, end) = (
            self.lead.saturating_add(bytes.start),
            self.lead.saturating_add(bytes.end),
        );
        if first > end || end > self.mapped_length {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut at = first - first % page;
        while at < end {
            let mut states = [0; ASKED_AT_ONCE];
            let length = (end - at).min(ASKED_AT_ONCE * page);
            // SAFETY: `at` is a multiple of the page size, and `length` bytes from there on lie in the mapping, which lives as long as
            // `self`; `states` has a place for each of their pages.
            let result = unsafe {
                libc::mincore(
                    self.base.cast::<u8>().add(at).cast(),
                    length,
                    states.as_mut_ptr(),
                )
            };
            if result != 0 {
                return Err(io::Error::last_os_error());
            }
            let pages = length.div_ceil(page);
            if states[..pages].iter().any(|state| state & 1 == 0) {
                return Ok(false);
            }
            at += length;
        }
        Ok(true)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: `base` and `mapped_length` are those of the mapping made in `new`; nothing refers to it any more.
        unsafe { libc::munmap(self.base, self.mapped_length) };
    }
}

fn page_size() -> u64 {
    // SAFETY: no arguments that could be wrong, no memory involved.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size)
        .ok()
        .filter(|size| *size > 0)
        .unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_was_just_written_is_resident_and_what_lies_beyond_the_end_is_not() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 3_000_000]).unwrap();
        let region = Region::new(&file, 5_000, 5_000_000).unwrap();
        assert!(region.is_resident(0..2_995_000).unwrap());
        assert!(region.is_resident(1_234_567..1_234_568).unwrap());
        assert!(region.is_resident(10..10).unwrap());
        assert!(!region.is_resident(2_990_000..3_100_000).unwrap());
        assert!(!region.is_resident(4_000_000..4_000_001).unwrap());
        assert!(region.is_resident(0..5_000_001).is_err());
    }
}
