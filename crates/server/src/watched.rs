//! The socket as hyper sees it: passes bytes through (but for what hyper would refuse without words) and notes in [`Activity`] what the
//! time-outs need to know.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use larder_sendfile::SendfileStream;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::activity::Activity;
use crate::corked::Corked;
use crate::framing::HeadScanner;
use crate::lingering::Lingering;

/// Gives the socket beneath a transport, for its options.
pub(crate) trait Transport {
    fn socket(&self) -> &TcpStream;
}

impl Transport for SendfileStream {
    fn socket(&self) -> &TcpStream {
        self.get_ref()
    }
}

impl Transport for Corked {
    fn socket(&self) -> &TcpStream {
        Corked::socket(self)
    }
}

/// A transport with notes. `scanner` is there for HTTP/1 only.
#[derive(Debug)]
pub(crate) struct Watched<T: Transport> {
    transport: T,
    activity: Arc<Activity>,
    scanner: Option<HeadScanner>,
    /// There once the writing side is shut.
    lingering: Option<Lingering>,
}

impl<T: Transport> Watched<T> {
    pub(crate) fn http1(transport: T, activity: Arc<Activity>) -> Self {
        Self {
            transport,
            activity,
            scanner: Some(HeadScanner::default()),
            lingering: None,
        }
    }

    pub(crate) fn http2(transport: T, activity: Arc<Activity>) -> Self {
        Self {
            transport,
            activity,
            scanner: None,
            lingering: None,
        }
    }

    fn note_write(&self, poll: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.activity.written(match &poll {
            Poll::Pending => None,
            Poll::Ready(taken) => Some(*taken.as_ref().unwrap_or(&0)),
        });
        poll
    }
}

impl<T: Transport> Drop for Watched<T> {
    fn drop(&mut self) {
        // Ended in the usual way, a body without a stated length would look complete.
        if self.activity.reset_asked()
            && let Err(error) =
                SockRef::from(self.transport.socket()).set_linger(Some(Duration::ZERO))
        {
            tracing::warn!(%error, "cannot reset a connection");
        }
    }
}

impl<T: AsyncRead + Transport + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.transport).poll_read(cx, buffer);
        let this = &mut *self;
        if matches!(poll, Poll::Ready(Ok(())))
            && let Some(bytes) = buffer.filled_mut().get_mut(before..)
            && !bytes.is_empty()
        {
            this.activity.bytes_read();
            if let Some(scanner) = &mut this.scanner
                && let Some((number, defect)) = scanner.feed(bytes)
            {
                this.activity.set_defect(number, defect);
            }
        }
        poll
    }
}

impl<T: AsyncWrite + Transport + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.transport).poll_write(cx, bytes);
        self.note_write(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.transport).poll_write_vectored(cx, slices);
        self.note_write(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.transport).poll_flush(cx);
        self.activity.written((!poll.is_pending()).then_some(0));
        poll
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.transport).poll_shutdown(cx))?;
            if !this.activity.lingers() {
                return Poll::Ready(Ok(()));
            }
        }
        this.lingering
            .get_or_insert_with(Lingering::new)
            .poll(cx, this.transport.socket())
            .map(Ok)
    }
}
