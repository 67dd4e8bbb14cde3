//! Overlayfs, the root of most containers, refuses reads that must not wait (`RWF_NOWAIT`), and has no pages of its own that `cachestat` could
//! tell of. A mapping of such a file is one of the file below it, and `mincore` tells which of its pages are in memory (docs/adr/0104).

use std::fs::{File, Metadata};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::region::Region;

/// What `fstatfs` calls overlayfs (`linux/magic.h`).
const OVERLAY: u32 = 0x794c_7630;

/// No device has this number.
const NONE: u64 = 0;

/// The devices that were looked at last, of each kind: nearly all files of a larder are on one.
static LAST_OVERLAY: AtomicU64 = AtomicU64::new(NONE);
static LAST_OTHER: AtomicU64 = AtomicU64::new(NONE);

/// How many of `wanted` bytes from `offset` on `file` has, if the page cache has all of them. `None`: it has not, or nobody can tell.
pub(crate) fn resident(file: &File, offset: u64, wanted: usize) -> Option<usize> {
    let metadata = file.metadata().ok()?;
    if !is_overlay(file, &metadata) {
        return None;
    }
    let there = metadata.len().saturating_sub(offset).min(wanted as u64);
    if there == 0 {
        return Some(0);
    }
    let region = Region::new(file, offset, there).ok()?;
    let there = there as usize;
    region.is_resident(0..there).ok()?.then_some(there)
}

/// How many of `length` bytes from `offset` on are very probably in the page cache, by the first one of every `step`. Where nobody can tell,
/// and beyond the end of the file, they count as if they were.
pub(crate) fn resident_prefix(file: &File, offset: u64, length: u64, step: usize) -> u64 {
    let missing = || {
        let metadata = file.metadata().ok()?;
        let there = metadata.len().saturating_sub(offset).min(length);
        if there == 0 || !is_overlay(file, &metadata) {
            return None;
        }
        let region = Region::new(file, offset, there).ok()?;
        let mut probed = (0..there as usize).step_by(step);
        probed.find(|at| matches!(region.is_resident(*at..at + 1), Ok(false)))
    };
    missing().map_or(length, |at| at as u64)
}

fn is_overlay(file: &File, metadata: &Metadata) -> bool {
    let device = metadata.dev();
    if device != NONE {
        if LAST_OVERLAY.load(Relaxed) == device {
            return true;
        }
        if LAST_OTHER.load(Relaxed) == device {
            return false;
        }
    }
    let is_overlay = file_system(file) == Some(OVERLAY);
    let last = if is_overlay {
        &LAST_OVERLAY
    } else {
        &LAST_OTHER
    };
    last.store(device, Relaxed);
    is_overlay
}

/// Which kind of file system `file` is on.
fn file_system(file: &File) -> Option<u32> {
    // SAFETY: an all-zero `statfs` is a valid one.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `found` is writable and outlives the call; the descriptor is open because `file` is.
    let result = unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut found) };
    (result == 0).then_some(found.f_type as u32)
}
