//! The memory that file bodies take on their way to clients, where the bytes must pass through the process (TLS, HTTP/2). All of them
//! share one room: who finds it taken goes on in small frames, so that slow readers cost others speed, and nobody memory.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// What all frames together may take, in bytes, beside one small frame for each body.
const ROOM: usize = 64 << 20;

/// A frame that is always granted: a page.
const SMALL: usize = 4 << 10;

/// What is left of [`ROOM`].
static FREE: AtomicUsize = AtomicUsize::new(ROOM);

/// Buffers that have been sent and wait to be filled again: new ones would have to be cleared by the kernel.
static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Spare buffers at most, and the largest that is kept.
const MOST_SPARE: usize = 16;
const LARGEST_SPARE: usize = 64 << 10;

fn spare() -> MutexGuard<'static, Vec<Vec<u8>>> {
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Room for one frame, given back with the last of its bytes.
#[derive(Debug)]
pub(crate) struct Lease {
    free: &'static AtomicUsize,
    granted: usize,
    leased: usize,
}

impl Lease {
    /// Room for `wanted` bytes, or as many as a small frame has.
    pub(crate) fn take(wanted: usize) -> Self {
        Self::take_of(&FREE, wanted)
    }

    fn take_of(free: &'static AtomicUsize, wanted: usize) -> Self {
        let taken = free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| {
            free.checked_sub(wanted)
        });
        match taken {
            Ok(_) => Self {
                free,
                granted: wanted,
                leased: wanted,
            },
            Err(_) => Self {
                free,
                granted: wanted.min(SMALL),
                leased: 0,
            },
        }
    }

    /// The bytes that may be read.
    pub(crate) fn length(&self) -> usize {
        self.granted
    }

    /// An empty buffer for it.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        let used = if self.granted > SMALL {
            spare().pop()
        } else {
            None
        };
        used.unwrap_or_else(|| Vec::with_capacity(self.granted))
    }

    /// The bytes that were read, with their room.
    pub(crate) fn hold(self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Frame {
            bytes,
            _lease: self,
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.free.fetch_add(self.leased, Ordering::Relaxed);
    }
}

struct Frame {
    bytes: Vec<u8>,
    _lease: Lease,
}

impl Drop for Frame {
    fn drop(&mut self) {
        if !(SMALL + 1..=LARGEST_SPARE).contains(&self.bytes.capacity()) {
            return;
        }
        let mut spare = spare();
        if spare.len() < MOST_SPARE {
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_is_no_room_frames_are_small() {
        static FREE: AtomicUsize = AtomicUsize::new(100_000);
        let left = || FREE.load(Ordering::Relaxed);
        let first = Lease::take_of(&FREE, 65_500);
        assert_eq!((first.length(), left()), (65_500, 34_500));
        let second = Lease::take_of(&FREE, 65_500);
        assert_eq!((second.length(), left()), (SMALL, 34_500));
        drop((first, second));
        assert_eq!(left(), 100_000);
    }

    #[test]
    fn room_comes_back_with_the_last_bytes() {
        static FREE: AtomicUsize = AtomicUsize::new(1_000);
        let left = || FREE.load(Ordering::Relaxed);
        let bytes = Lease::take_of(&FREE, 1_000).hold(vec![7; 1_000]);
        let part = bytes.slice(..10);
        drop(bytes);
        assert_eq!(left(), 0, "a part is still held");
        drop(part);
        assert_eq!(left(), 1_000);
    }
}
