//! The memory that file bodies take on their way to clients, where the bytes must pass through the process (TLS, HTTP/2). All of them
//! share one room: who finds it taken goes on in small frames, so that slow readers cost others speed, and nobody memory.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// What all frames together may take, in bytes, beside one small frame for each body.
const ROOM: usize = 64 << 20;

/// A frame that is always granted: a page.
const SMALL: usize = 4 << 10;

/// What is left of [`ROOM`].
static FREE: AtomicUsize = AtomicUsize::new(ROOM);

/// Room for one frame, given back with the last of its bytes.
#[derive(Debug)]
pub(crate) struct Lease {
    granted: usize,
    leased: usize,
}

impl Lease {
    /// Room for `wanted` bytes, or as many as a small frame has.
    pub(crate) fn take(wanted: usize) -> Self {
        Self::take_of(&FREE, wanted)
    }

    fn take_of(free: &AtomicUsize, wanted: usize) -> Self {
        let taken = free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| {
            free.checked_sub(wanted)
        });
        match taken {
            Ok(_) => Self {
                granted: wanted,
                leased: wanted,
            },
            Err(_) => Self {
                granted: wanted.min(SMALL),
                leased: 0,
            },
        }
    }

    /// The bytes that may be read.
    pub(crate) fn length(&self) -> usize {
        self.granted
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
        FREE.fetch_add(self.leased, Ordering::Relaxed);
    }
}

struct Frame {
    bytes: Vec<u8>,
    _lease: Lease,
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
        let free = AtomicUsize::new(100_000);
        let first = Lease::take_of(&free, 65_500);
        assert_eq!(
            (first.length(), free.load(Ordering::Relaxed)),
            (65_500, 34_500)
        );
        let second = Lease::take_of(&free, 65_500);
        assert_eq!(
            (second.length(), free.load(Ordering::Relaxed)),
            (SMALL, 34_500)
        );
        assert_eq!(Lease::take_of(&free, 10).length(), 10);
        // They are not of the process's room.
        [first, second].map(|mut lease| lease.leased = 0);
    }

    #[test]
    fn room_comes_back_with_the_last_bytes() {
        let bytes = Lease::take(1_000).hold(vec![7; 1_000]);
        let (part, whole) = (bytes.slice(..10), FREE.load(Ordering::Relaxed));
        drop(bytes);
        assert_eq!(FREE.load(Ordering::Relaxed), whole, "a part is still held");
        drop(part);
        assert_eq!(FREE.load(Ordering::Relaxed), whole + 1_000);
    }
}
