//! Tar entries as apk writes them (POSIX ustar). Knows headers; does not know what the entries mean.

use std::io::{self, Read};

/// Length of a header, and what contents are padded to.
pub(super) const BLOCK: usize = 512;

/// An entry's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// Name without `prefix`: apk's own files have none.
    pub(super) name: String,
    /// Length of the content.
    pub(super) size: u64,
    /// Whether it is a file, rather than a link, a folder, or an extension of the next header.
    pub(super) is_file: bool,
}

impl Header {
    /// Reads a header; `None` for a block of zeros, or one that is no header.
    pub(super) fn parse(block: &[u8; BLOCK]) -> Option<Self> {
        let name = text(&block[..100])?;
        if name.is_empty() || !checksum_holds(block) {
            return None;
        }
        let size = octal(&block[124..136])?;
        Some(Self {
            name: name.to_owned(),
            size,
            is_file: matches!(block[156], b'0' | 0),
        })
    }

    /// Length of the content with its padding; `None` if that is no number.
    pub(super) fn padded_size(&self) -> Option<u64> {
        self.size.checked_next_multiple_of(BLOCK as u64)
    }
}

/// The next header of an archive; `None` at its end: a block of zeros, or no block at all ("cut" archives end that way).
pub(super) fn next_header(archive: &mut impl Read) -> io::Result<Option<Header>> {
    let mut block = [0; BLOCK];
    let mut filled = 0;
    while filled < BLOCK {
        match archive.read(&mut block[filled..])? {
            0 if filled == 0 => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
    }
    if block.iter().all(|&byte| byte == 0) {
        return Ok(None);
    }
    Header::parse(&block)
        .map(Some)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn text(field: &[u8]) -> Option<&str> {
    let end = field
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(field.len());
    std::str::from_utf8(&field[..end]).ok()
}

/// Octal digits with blanks or NUL around them. The binary form for files over 8 GiB has no place in an index.
fn octal(field: &[u8]) -> Option<u64> {
    let digits = text(field)?.trim_matches(' ');
    u64::from_str_radix(digits, 8).ok()
}

/// The sum of all bytes of the header, its own field taken as blanks.
fn checksum_holds(block: &[u8; BLOCK]) -> bool {
    let field = 148..156;
    let sum: u64 = block
        .iter()
        .enumerate()
        .map(|(at, &byte)| {
            if field.contains(&at) {
                32
            } else {
                u64::from(byte)
            }
        })
        .sum();
    octal(&block[field]) == Some(sum)
}
