//! Response bodies: one type for everything that larder sends. Whatever fails midway fails the connection; a body never ends
//! well with bytes missing.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use larder_core::RequestId;
use larder_engine::{Body, Chunks, Reading};
use larder_sendfile::FileSender;

use crate::access_log::BrokenOff;
use crate::activity::Running;
use crate::file_body::FileBody;
use crate::metrics::BytesSent;
use crate::streams::note_frame;

/// The most that one frame of HTTP/2 takes of a body in memory.
const FRAME: usize = 64 << 10;

/// A response body.
pub(crate) struct ResponseBody(Kind);

enum Kind {
    /// All there is, in one frame: what hits of the hot set are made of.
    Bytes(Bytes),
    Pieces(Box<Pieces>),
}

struct Pieces {
    current: Option<Current>,
    rest: VecDeque<Body>,
    sender: Option<FileSender>,
    /// The most bytes of one frame that is in memory already.
    frame: usize,
    /// Bytes to come; `None` = unknown.
    remaining: Option<u64>,
    /// `None` if they have been counted.
    sent: Option<BytesSent>,
    running: Option<Running>,
    /// Keeps what is sent from being evicted.
    reading: Option<Arc<Reading>>,
    /// Bytes handed over.
    handed_over: u64,
    id: Option<RequestId>,
    broken: Option<Box<BrokenOff>>,
}

/// Bytes of a file that is not evicted while they are there.
struct Held {
    bytes: Bytes,
    _reading: Arc<Reading>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

enum Current {
    File(FileBody),
    Chunks(Chunks),
}

impl ResponseBody {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self(Kind::Bytes(Bytes::new()))
    }

    /// A body in memory.
    pub(crate) fn bytes(bytes: Bytes) -> Self {
        Self(Kind::Bytes(bytes))
    }

    /// A body that comes while it is sent, of unknown length.
    pub(crate) fn streamed(body: Body) -> Self {
        let pieces = Pieces::new(VecDeque::from([body]), None);
        Self(Kind::Pieces(Box::new(pieces)))
    }

    /// A body of so many bytes; one that is shorter breaks off.
    pub(crate) fn sized(body: Body, length: u64) -> Self {
        let pieces = Pieces::new(VecDeque::from([body]), Some(length));
        Self(Kind::Pieces(Box::new(pieces)))
    }

    /// A body of several parts, of `length` bytes together if that is known.
    pub(crate) fn pieces(
        pieces: VecDeque<Body>,
        length: Option<u64>,
        sender: Option<FileSender>,
        sent: BytesSent,
    ) -> Self {
        Self(Kind::Pieces(Box::new(Pieces {
            sender,
            sent: Some(sent),
            ..Pieces::new(pieces, length)
        })))
    }

    /// Whether all of it is in memory and leaves at once.
    pub(crate) fn is_at_hand(&self) -> bool {
        matches!(self.0, Kind::Bytes(_))
    }

    /// For HTTP/2: a large body in memory leaves in frames, so that it is seen whether its client takes them.
    pub(crate) fn in_frames(self) -> Self {
        match self.0 {
            Kind::Bytes(bytes) if bytes.len() > FRAME => {
                let length = Some(bytes.len() as u64);
                let pieces = VecDeque::from([Body::Memory(bytes)]);
                Self(Kind::Pieces(Box::new(Pieces {
                    frame: FRAME,
                    ..Pieces::new(pieces, length)
                })))
            }
            kind => Self(kind),
        }
    }

    /// The request counts as running until this body has been handed over. Bodies in memory are handed over at once.
    pub(crate) fn keep_running(mut self, running: Running) -> Self {
        if let Kind::Pieces(pieces) = &mut self.0 {
            pieces.running = Some(running);
        }
        self
    }

    /// What is sent is not evicted until this body has been handed over. Bodies in memory need no such thing.
    pub(crate) fn keep_reading(mut self, reading: Option<Reading>) -> Self {
        if let Kind::Pieces(pieces) = &mut self.0 {
            pieces.reading = reading.map(Arc::new);
        }
        self
    }

    /// Names the request, for the line that tells of a body that broke off; `broken` is made for bodies that may well do so.
    pub(crate) fn named(
        mut self,
        id: RequestId,
        broken: impl FnOnce() -> Option<Box<BrokenOff>>,
    ) -> Self {
        if let Kind::Pieces(pieces) = &mut self.0 {
            (pieces.id, pieces.broken) = (Some(id), broken());
        }
        self
    }

    /// Its length, if known.
    pub(crate) fn length(&self) -> Option<u64> {
        match &self.0 {
            Kind::Bytes(bytes) => Some(bytes.len() as u64),
            Kind::Pieces(pieces) => pieces.remaining,
        }
    }
}

impl Pieces {
    fn new(rest: VecDeque<Body>, remaining: Option<u64>) -> Self {
        Self {
            current: None,
            rest,
            sender: None,
            frame: usize::MAX,
            remaining,
            sent: None,
            running: None,
            reading: None,
            handed_over: 0,
            id: None,
            broken: None,
        }
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            let next = match &mut self.current {
                Some(Current::File(file)) => ready!(file.poll_frame(cx)),
                Some(Current::Chunks(chunks)) => ready!(chunks.as_mut().poll_next(cx)),
                None => match self.rest.pop_front() {
                    None => return Poll::Ready(None),
                    Some(Body::Memory(mut bytes)) => {
                        let frame = bytes.split_to(bytes.len().min(self.frame));
                        if !bytes.is_empty() {
                            self.rest.push_front(Body::Memory(bytes));
                        }
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    Some(Body::File {
                        file,
                        offset,
                        length,
                    }) => {
                        let body = FileBody::new(file, offset, length, self.sender.clone());
                        self.current = Some(Current::File(body));
                        continue;
                    }
                    Some(body) => {
                        self.current = Some(Current::Chunks(body.chunks()));
                        continue;
                    }
                },
            };
            match next {
                None => self.current = None,
                Some(result) => return Poll::Ready(Some(result)),
            }
        }
    }

    /// Counts `bytes`; too many or too few are an error of the source.
    fn account(&mut self, bytes: &Bytes) -> io::Result<()> {
        if let Some(sent) = &self.sent {
            sent.add(bytes.len() as u64);
        }
        self.handed_over += bytes.len() as u64;
        if let Some(remaining) = &mut self.remaining {
            *remaining = remaining.checked_sub(bytes.len() as u64).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "more bytes than announced")
            })?;
        }
        Ok(())
    }

    /// A part of a file is under way until the socket has taken it: long after the body has been handed over, where it is mapped.
    fn held(&self, bytes: Bytes) -> Bytes {
        match &self.reading {
            Some(reading) => Bytes::from_owner(Held {
                bytes,
                _reading: Arc::clone(reading),
            }),
            None => bytes,
        }
    }

    fn poll_accounted(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let result = match ready!(self.poll_bytes(cx)) {
            Some(Ok(bytes)) => self.account(&bytes).map(|()| self.held(bytes)),
            Some(Err(error)) => Err(error),
            None if self.remaining.is_some_and(|remaining| remaining > 0) => {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            None => return Poll::Ready(None),
        };
        if let Err(error) = &result {
            match (self.broken.take(), self.id) {
                (Some(broken), _) => broken.log(error, self.handed_over),
                (None, Some(id)) => {
                    tracing::warn!(%id, %error, "answer broken off: the connection is closed");
                }
                (None, None) => {
                    tracing::warn!(%error, "answer broken off: the connection is closed");
                }
            }
            // Chunked or not, a client can tell that a body without a length is cut; an HTTP/1.0 client only by a reset.
            if let (Some(running), None) = (&self.running, self.remaining) {
                running.activity().ask_for_reset();
            }
        }
        Poll::Ready(Some(result))
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let polled = match &mut self.0 {
            Kind::Bytes(bytes) if bytes.is_empty() => return Poll::Ready(None),
            Kind::Bytes(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Kind::Pieces(pieces) => pieces.poll_accounted(cx),
        };
        match &polled {
            Poll::Pending => note_frame(None),
            Poll::Ready(Some(Ok(bytes))) => note_frame(Some(bytes.len())),
            Poll::Ready(_) => {}
        }
        polled.map(|next| next.map(|result| result.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Bytes(bytes) => bytes.is_empty(),
            Kind::Pieces(pieces) => pieces.remaining == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.length()
            .map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ResponseBody").field(&self.length()).finish()
    }
}
