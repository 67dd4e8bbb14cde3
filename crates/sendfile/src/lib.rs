//! File ranges to a plain TCP socket without copying them through the process.
//!
//! hyper writes a response by handing byte slices to an [`AsyncWrite`](tokio::io::AsyncWrite). [`SendfileStream`] is such a
//! writer; it knows which slices are memory mappings of files that belong to its connection, recognises them by their
//! address, and calls `sendfile(2)` in their place. HTTP framing stays hyper's, the mapped pages are never touched, and
//! the kernel moves the bytes from the page cache to the socket.
//!
//! - [`SendfileStream`] wraps the socket; [`SendfileStream::sender`] gives the [`FileSender`] of that connection.
//! - [`FileSender::map`] turns a range of a file into [`Bytes`](bytes::Bytes) for a response body.
//! - [`map_to_read`] maps a file that has just been written, for who reads it in the process.
//! - [`read_cached`] and [`cached_prefix`] read from the page cache only, for callers that must not wait for a disk.
//!
//! Files must be immutable while they are served: replaced by rename, never truncated. Nothing here knows HTTP or TLS;
//! over TLS the bytes of a mapping would have to be read, so use [`read_cached`] there.
//!
//! This is the only crate of larder that contains `unsafe`; the calls into the C library's allocator stand here for that reason.

#![cfg_attr(not(test), warn(clippy::too_many_lines))]

mod allocator;
mod cached;
mod mapping;
mod overlay;
mod region;
mod stream;

pub use allocator::{return_large_blocks, return_unused_pages};
pub use cached::{CachedRead, cached_prefix, read_cached, read_cached_into};
pub use mapping::{FileSender, map_to_read};
pub use stream::SendfileStream;

/// Mapped frames shorter than this gain nothing, and HTTP libraries tend to copy short bodies into their head buffer, which
/// would read through the mapping: [`FileSender::map`] refuses them.
pub const MIN_MAPPED: u64 = 64 * 1024;
