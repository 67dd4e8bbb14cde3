//! A response body that ends well only when it is whole. Knows lengths and the progress time-out; does not know digests.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use larder_core::RepositoryName;
use tokio::time::{Instant, Sleep};
use url::Url;

use crate::error::{UpstreamError, UpstreamErrorKind};
use crate::limits::Turn;

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// `Content-Length`, checked here.
    Length,
    /// The chunked coding's last chunk, or HTTP/2's end of stream, checked by the HTTP library.
    EndMark,
    /// The connection's end (RFC 9112 section 6.3, rule 8): a cut cannot be told from the end. Not proof of completeness.
    ConnectionClose,
}

/// Where a body comes from, for its errors.
#[derive(Clone)]
pub(crate) struct BodyOrigin {
    pub(crate) repository: RepositoryName,
    pub(crate) url: Url,
}

type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, UpstreamError>> + Send>>;

/// The bytes of a response, in chunks. Yields an error, as its last item, when the body is shorter or longer than declared, is cut, or
/// brings no byte for the repository's `timeouts.read` while it is being waited for. A reader that does not poll is not timed out.
pub struct BodyStream {
    inner: Option<Chunks>,
    declared: Option<u64>,
    framing: Framing,
    received: u64,
    stall: Option<Stall>,
    origin: BodyOrigin,
    /// Given back with the end of the body.
    turn: Option<Turn>,
}

struct Stall {
    limit: Duration,
    timer: Pin<Box<Sleep>>,
    armed: bool,
}

impl BodyStream {
    /// A body from `chunks` that must bring exactly `declared` bytes if that is given.
    pub(crate) fn new(
        chunks: impl Stream<Item = Result<Bytes, UpstreamError>> + Send + 'static,
        declared: Option<u64>,
        framing: Framing,
        read_timeout: Option<Duration>,
        origin: BodyOrigin,
    ) -> Self {
        let stall = read_timeout.map(|limit| Stall {
            limit,
            timer: Box::pin(tokio::time::sleep(limit)),
            armed: false,
        });
        Self {
            inner: Some(Box::pin(chunks)),
            declared,
            framing,
            received: 0,
            stall,
            origin,
            turn: None,
        }
    }

    /// Keeps the request's turn as long as something is to come.
    pub(crate) fn hold(&mut self, turn: Turn) {
        self.turn = (self.declared != Some(0)).then_some(turn);
    }

    /// Nothing comes any more.
    fn close(&mut self) {
        self.inner = None;
        self.turn = None;
    }

    /// A body that somebody else receives from the upstream and passes on, who marks its end.
    pub fn relayed(
        chunks: impl Stream<Item = Result<Bytes, UpstreamError>> + Send + 'static,
        declared: Option<u64>,
        repository: RepositoryName,
        url: Url,
    ) -> Self {
        let origin = BodyOrigin { repository, url };
        Self::new(chunks, declared, Framing::EndMark, None, origin)
    }

    /// How many bytes are to come in all, if the upstream said so. 0 for HEAD, 204 and 304.
    pub fn declared_length(&self) -> Option<u64> {
        self.declared
    }

    /// How many bytes have come so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// How the end of this body is known.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    fn fail(
        &mut self,
        kind: UpstreamErrorKind,
        what: impl fmt::Display,
    ) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        self.close();
        Poll::Ready(Some(Err(UpstreamError::at(
            kind,
            &self.origin.repository,
            &self.origin.url,
            what,
        ))))
    }

    fn accept(&mut self, chunk: Bytes) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        self.received = self.received.saturating_add(chunk.len() as u64);
        match self.declared {
            Some(declared) if self.received > declared => self.fail(
                UpstreamErrorKind::Protocol,
                format_args!("the body is longer than the {declared} bytes that were announced"),
            ),
            _ => Poll::Ready(Some(Ok(chunk))),
        }
    }

    fn end(&mut self) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        self.close();
        match self.declared {
            Some(declared) if self.received < declared => {
                let received = self.received;
                self.fail(
                    UpstreamErrorKind::Truncated,
                    format_args!("the body ended after {received} of {declared} bytes"),
                )
            }
            _ => Poll::Ready(None),
        }
    }
}

impl Stream for BodyStream {
    type Item = Result<Bytes, UpstreamError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(inner) = this.inner.as_mut() else {
            return Poll::Ready(None);
        };
        loop {
            match inner.as_mut().poll_next(cx) {
                // An empty chunk is no byte: it must not keep a stalled transfer alive.
                Poll::Ready(Some(Ok(chunk))) if chunk.is_empty() => {}
                Poll::Ready(item) => {
                    if let Some(stall) = &mut this.stall {
                        stall.armed = false;
                    }
                    return match item {
                        Some(Ok(chunk)) => this.accept(chunk),
                        Some(Err(error)) => {
                            this.close();
                            Poll::Ready(Some(Err(error)))
                        }
                        None => this.end(),
                    };
                }
                Poll::Pending => break,
            }
        }
        let Some(stall) = &mut this.stall else {
            return Poll::Pending;
        };
        if !stall.armed {
            stall.timer.as_mut().reset(Instant::now() + stall.limit);
            stall.armed = true;
        }
        if stall.timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let (limit, received) = (stall.limit, this.received);
        this.fail(
            UpstreamErrorKind::TimedOut,
            format_args!(
                "no byte came for {} s (timeouts.read), after {received} bytes",
                limit.as_secs_f32()
            ),
        )
    }
}

impl fmt::Debug for BodyStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyStream")
            .field("declared", &self.declared)
            .field("framing", &self.framing)
            .field("received", &self.received)
            .field("ended", &self.inner.is_none())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{StreamExt, stream};

    fn origin() -> BodyOrigin {
        BodyOrigin {
            repository: RepositoryName::parse("files").unwrap(),
            url: Url::parse("https://files.example.com/a.bin?signature=canary").unwrap(),
        }
    }

    fn body(chunks: Vec<&'static [u8]>, declared: Option<u64>) -> BodyStream {
        let chunks = stream::iter(chunks.into_iter().map(|c| Ok(Bytes::from_static(c))));
        BodyStream::new(chunks, declared, Framing::Length, None, origin())
    }

    async fn outcome(body: BodyStream) -> (Vec<u8>, Option<UpstreamErrorKind>) {
        let (mut bytes, mut end) = (Vec::new(), None);
        let mut body = body;
        while let Some(item) = body.next().await {
            match item {
                Ok(chunk) => bytes.extend_from_slice(&chunk),
                Err(error) => {
                    assert!(!error.to_string().contains("canary"), "{error}");
                    end = Some(error.kind);
                }
            }
        }
        (bytes, end)
    }

    #[tokio::test]
    async fn hazard_w1_a_body_is_whole_only_at_its_declared_length() {
        assert_eq!(
            outcome(body(vec![b"abc", b"de"], Some(5))).await,
            (b"abcde".to_vec(), None)
        );
        assert_eq!(
            outcome(body(vec![b"abc"], Some(5))).await,
            (b"abc".to_vec(), Some(UpstreamErrorKind::Truncated))
        );
        assert_eq!(
            outcome(body(vec![], Some(5))).await,
            (vec![], Some(UpstreamErrorKind::Truncated))
        );
        assert_eq!(
            outcome(body(vec![b"abc", b"def"], Some(5))).await,
            (b"abc".to_vec(), Some(UpstreamErrorKind::Protocol))
        );
        assert_eq!(
            outcome(body(vec![b"abc"], None)).await,
            (b"abc".to_vec(), None)
        );
        assert_eq!(outcome(body(vec![], Some(0))).await, (vec![], None));
    }

    #[tokio::test(start_paused = true)]
    async fn hazard_a5_the_time_out_is_on_progress_and_only_while_waiting() {
        let limit = Duration::from_secs(30);
        let chunks = stream::unfold(0_u32, |n| async move {
            if n == 10 {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_secs(29)).await;
            Some((Ok(Bytes::from_static(b"x")), n + 1))
        });
        let mut body = BodyStream::new(chunks, None, Framing::EndMark, Some(limit), origin());
        for _ in 0..10 {
            assert!(body.next().await.unwrap().is_ok());
            // A reader that takes its time is not the upstream's fault.
            tokio::time::sleep(Duration::from_hours(1)).await;
        }
        let started = Instant::now();
        assert_eq!(
            body.next().await.unwrap().unwrap_err().kind,
            UpstreamErrorKind::TimedOut
        );
        assert_eq!(started.elapsed().as_secs(), 30);
        assert!(body.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn hazard_a5_empty_chunks_are_no_progress() {
        let chunks = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok(Bytes::new()), ()))
        });
        let mut body = BodyStream::new(
            chunks,
            None,
            Framing::EndMark,
            Some(Duration::from_secs(5)),
            origin(),
        );
        assert_eq!(
            body.next().await.unwrap().unwrap_err().kind,
            UpstreamErrorKind::TimedOut
        );
    }
}
