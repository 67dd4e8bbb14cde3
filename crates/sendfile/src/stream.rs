//! A TCP stream that sends mapped slices with `sendfile(2)`.

use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::mapping::{FilePosition, FileSender, Registry};

/// The most that one `sendfile` call is asked for: other connections of the thread have their turn in between.
const MAX_SENDFILE: usize = 4 * 1024 * 1024;

/// The most slices that one `sendmsg` call takes along.
const MAX_SLICES: usize = 64;

/// A plain TCP connection whose writer recognises slices made by its own [`FileSender`].
#[derive(Debug)]
pub struct SendfileStream {
    stream: TcpStream,
    registry: Arc<Registry>,
}

impl SendfileStream {
    /// Wraps a connection. Nothing of its options is changed.
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            registry: Arc::default(),
        }
    }

    /// Makes response bodies for this connection, and for this one only: written elsewhere they are ordinary bytes.
    pub fn sender(&self) -> FileSender {
        FileSender::new(Arc::clone(&self.registry))
    }

    /// The connection itself, for its options and addresses.
    pub fn get_ref(&self) -> &TcpStream {
        &self.stream
    }

    /// Writes `slices`, of which at least one may be mapped; one attempt, without waiting.
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut written = 0;
        let mut rest = slices;
        while let Some(first) = rest.first() {
            let step = if first.is_empty() {
                rest = &rest[1..];
                continue;
            } else if let Some(position) = self.registry.find(first) {
                rest = &rest[1..];
                (self.send_file(&position, first.len()), first.len())
            } else {
                let plain = self.plain_run(rest);
                let (run, after) = rest.split_at(plain);
                rest = after;
                (
                    self.send_slices(run, after.iter().any(|slice| !slice.is_empty())),
                    run.iter().map(|slice| slice.len()).sum(),
                )
            };
            match step {
                (Ok(count), wanted) => {
                    written += count;
                    if count < wanted {
                        return Ok(written);
                    }
                }
                (Err(error), _) if written > 0 && error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(written);
                }
                (Err(error), _) => return Err(error),
            }
        }
        Ok(written)
    }

    /// How many slices at the front are not mapped. Whatever follows them is.
    fn plain_run(&self, slices: &[IoSlice<'_>]) -> usize {
        let limit = slices.len().min(MAX_SLICES);
        slices[..limit]
            .iter()
            .position(|slice| !slice.is_empty() && self.registry.find(slice).is_some())
            .unwrap_or(limit)
    }

    /// `more`: a mapped slice follows at once, so that the kernel may put both into one segment. It must not be set
    /// otherwise: the kernel would hold the bytes back for 200 ms.
    fn send_slices(&self, slices: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
        let flags = libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 };
        // SAFETY: an all-zero `msghdr` is a valid empty one.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        // `IoSlice` has the layout of `iovec` (guaranteed by std on Unix); `sendmsg` does not write through it.
        message.msg_iov = slices.as_ptr().cast::<libc::iovec>().cast_mut();
        message.msg_iovlen = slices.len() as _;
        let descriptor = self.stream.as_raw_fd();
        self.stream.try_io(Interest::WRITABLE, || {
            // SAFETY: `message` and the slices it points to outlive the call; the descriptor is open because `stream` is.
            let count = unsafe { libc::sendmsg(descriptor, &raw const message, flags) };
            usize::try_from(count).map_err(|_| io::Error::last_os_error())
        })
    }

    fn send_file(&self, position: &FilePosition, length: usize) -> io::Result<usize> {
        let (socket, file) = (self.stream.as_raw_fd(), position.file.as_raw_fd());
        let start =
            libc::off_t::try_from(position.offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let count = self.stream.try_io(Interest::WRITABLE, || {
            let mut offset = start;
            // SAFETY: both descriptors are open because their owners are alive; `offset` outlives the call.
            let count =
                unsafe { libc::sendfile(socket, file, &raw mut offset, length.min(MAX_SENDFILE)) };
            usize::try_from(count).map_err(|_| io::Error::last_os_error())
        })?;
        if count == 0 {
            // Somebody has truncated the file since it was mapped.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(count)
    }
}

impl AsyncRead for SendfileStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for SendfileStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.registry.is_empty() {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        }
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.try_write(slices) {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
