//! Reads that are answered by the page cache or not at all (`preadv2` with `RWF_NOWAIT`; on overlayfs, which refuses that, `mincore` and a
//! plain read).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use crate::overlay;

/// The distance between the bytes that [`cached_prefix`] looks at: one system call of about 300 ns for each.
const PROBE_STEP: u64 = 256 * 1024;

/// What [`read_cached`] found.
#[derive(Debug)]
pub enum CachedRead {
    /// At least one byte, at most as many as asked for.
    Bytes(Vec<u8>),
    /// The first byte is not in the page cache, or the file system cannot tell: read where blocking is allowed.
    NotCached,
}

/// Reads up to `length` bytes at `offset` of `file` without waiting for a disk.
///
/// # Errors
/// [`io::ErrorKind::UnexpectedEof`] if the file ends at or before `offset`; otherwise the error of the system call.
pub fn read_cached(file: &File, offset: u64, length: usize) -> io::Result<CachedRead> {
    read_cached_into(file, offset, length, Vec::with_capacity(length))
}

/// The same into a buffer that is at hand: what it holds is forgotten. It grows if it has no room for `length` bytes.
///
/// # Errors
/// As [`read_cached`].
pub fn read_cached_into(
    file: &File,
    offset: u64,
    length: usize,
    mut buffer: Vec<u8>,
) -> io::Result<CachedRead> {
    buffer.clear();
    buffer.reserve(length);
    let room = buffer.spare_capacity_mut();
    let wanted = room.len().min(length);
    let read = nowait_read(file, offset, &mut room[..wanted])?;
    match read {
        None => Ok(CachedRead::NotCached),
        Some(0) if length > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
        Some(count) => {
            // SAFETY: the kernel has written `count` bytes, at most the spare capacity, to the start of the empty buffer.
            unsafe { buffer.set_len(count) };
            Ok(CachedRead::Bytes(buffer))
        }
    }
}

/// How many bytes from `offset` on, at most `length`, are very probably in the page cache.
///
/// Only one byte in 256 KiB is looked at, so the answer is a hint: a wrong one costs time, never correctness. Where
/// nobody can tell, all counts as cached.
///
/// # Errors
/// The error of the system call.
pub fn cached_prefix(file: &File, offset: u64, length: u64) -> io::Result<u64> {
    let mut probed = 0;
    while probed < length {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        match read_at(file, offset + probed, &mut byte, libc::RWF_NOWAIT) {
            Ok(_) => probed += PROBE_STEP,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(probed),
            Err(error) if is_unsupported(&error) => {
                let step = PROBE_STEP as usize;
                return Ok(overlay::resident_prefix(file, offset, length, step));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// `None`: not cached, or this file system cannot tell.
fn nowait_read(
    file: &File,
    offset: u64,
    buffer: &mut [std::mem::MaybeUninit<u8>],
) -> io::Result<Option<usize>> {
    match read_at(file, offset, buffer, libc::RWF_NOWAIT) {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) if is_unsupported(&error) => {
            let Some(there) = overlay::resident(file, offset, buffer.len()) else {
                return Ok(None);
            };
            // Should a page go between the look and the read, this waits for the disk once.
            read_at(file, offset, &mut buffer[..there], 0).map(Some)
        }
        Err(error) => Err(error),
    }
}

fn read_at(
    file: &File,
    offset: u64,
    buffer: &mut [std::mem::MaybeUninit<u8>],
    flags: libc::c_int,
) -> io::Result<usize> {
    let offset =
        libc::off_t::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let iov = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    loop {
        // SAFETY: `iov` describes `buffer`, which is writable, outlives the call and is not otherwise borrowed; the descriptor
        // is open because `file` is.
        let count = unsafe { libc::preadv2(file.as_raw_fd(), &raw const iov, 1, offset, flags) };
        match usize::try_from(count) {
            Ok(count) => return Ok(count),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
}

/// File systems without `RWF_NOWAIT`, and kernels before 4.14.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL)
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn freshly_written_bytes_are_read_at_their_offset() {
        let file = file_of(b"0123456789");
        match read_cached(&file, 3, 4).unwrap() {
            CachedRead::Bytes(bytes) => assert_eq!(bytes, b"3456"),
            CachedRead::NotCached => {} // A file system without RWF_NOWAIT: the caller reads elsewhere.
        }
    }

    #[test]
    fn a_read_past_the_end_is_an_error_not_an_empty_body() {
        let file = file_of(b"0123456789");
        match read_cached(&file, 10, 4) {
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof),
            Ok(CachedRead::NotCached) => {}
            Ok(CachedRead::Bytes(bytes)) => panic!("{} bytes from nowhere", bytes.len()),
        }
    }

    #[test]
    fn the_prefix_of_a_cached_file_is_its_whole_length() {
        let file = file_of(&vec![7; 700_000]);
        assert_eq!(cached_prefix(&file, 0, 700_000).unwrap(), 700_000);
        assert_eq!(cached_prefix(&file, 0, 0).unwrap(), 0);
    }
}
