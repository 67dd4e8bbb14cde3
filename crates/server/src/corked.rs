//! A TLS connection that encrypts first and writes then: what a poll of the connection has to say leaves in few system calls, and in
//! full records. As it comes from its library, each frame of HTTP/2 would cost a call of its own.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// How much may wait for the socket, encrypted, in bytes. A client that reads slowly holds this much of memory.
const HELD: usize = 64 << 10;

/// A TLS connection. What is written waits until it is flushed, or until [`HELD`] bytes wait.
#[derive(Debug)]
pub(crate) struct Corked(TlsStream<TcpStream>);

impl Corked {
    pub(crate) fn new(mut stream: TlsStream<TcpStream>) -> Self {
        stream.get_mut().1.set_buffer_limit(Some(HELD));
        Self(stream)
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        self.0.get_ref().0
    }
}

impl AsyncRead for Corked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Corked {
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
        if slices.iter().all(|slice| slice.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        loop {
            let taken = io::Write::write_vectored(&mut self.0.get_mut().1.writer(), slices)?;
            if taken > 0 {
                return Poll::Ready(Ok(taken));
            }
            // Full: what waits has to leave first.
            ready!(Pin::new(&mut self.0).poll_flush(cx))?;
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
