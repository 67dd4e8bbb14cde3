//! Asks the C library's allocator to give memory back to the system: large blocks as soon as they are freed, the rest when told to.

/// Blocks from this size on are mapped on their own: a document of tens of megabytes then costs memory only while it is parsed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_FROM: libc::c_int = 1 << 20;

/// So much may be free at the end of an arena before it is given back. With the usual 128 KiB, every few frames of a body that passes
/// through the process would be pages that the kernel has to clear again.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT: libc::c_int = 1 << 20;

/// Fixes the size from which blocks are mapped on their own and unmapped when freed. Without this, glibc raises that size to 32 MiB with
/// the first large block that is freed, and keeps later ones in per-thread arenas for good.
///
/// To be called once, before other threads run. Does nothing where the allocator is not glibc's.
pub fn return_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` takes two integers and touches only the allocator's own settings.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}

/// Gives whole pages that lie unused between blocks back to the system, in all arenas; a burst of connections or documents leaves many.
/// Takes milliseconds. Each arena is locked while it is looked through, so not to be called from an event loop.
///
/// Does nothing where the allocator is not glibc's.
pub fn return_unused_pages() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `malloc_trim` takes an integer and may be called by any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
