//! A connection that is closed while its client is still sending: what comes is read and thrown away for a while. Closed at once,
//! the kernel would answer the client's bytes with a reset, and the client might lose the answer that told it to stop. So it is with a
//! stream of HTTP/2: reset in the same moment, it takes the answer with it in curl 7.88, which then knows of an error of the protocol
//! only.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Version;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio::time::{Sleep, timeout};

/// How long a client is listened to.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much of it is thrown away: more than any body that is taken at all.
const MOST: usize = 16 << 20;

/// How long a stream of HTTP/2 is listened to, and how much of it is thrown away: what its client sends before it has read the answer.
const STREAM_PATIENCE: Duration = Duration::from_secs(1);
const MOST_OF_A_STREAM: usize = 1 << 20;

/// Takes the body of a request that is answered before it has come whole: over HTTP/2 somebody goes on reading.
pub(crate) fn leave_unread(version: Version, body: Incoming) {
    if version == Version::HTTP_2 && !body.is_end_stream() {
        tokio::spawn(read_on(body));
    }
}

/// Throws away what comes of a body that nobody wants. When this ends, the stream is reset, unless the client has ended it.
async fn read_on(mut body: Incoming) {
    let reading = async {
        let mut left = MOST_OF_A_STREAM;
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, bytes::Bytes::len);
            let Some(less) = left.checked_sub(bytes) else {
                return;
            };
            left = less;
        }
    };
    let _ = timeout(STREAM_PATIENCE, reading).await;
}

/// The last phase of a connection whose writing side is shut.
#[derive(Debug)]
pub(crate) struct Lingering {
    timer: Pin<Box<Sleep>>,
    left: usize,
}

impl Lingering {
    pub(crate) fn new() -> Self {
        Self {
            timer: Box::pin(tokio::time::sleep(PATIENCE)),
            left: MOST,
        }
    }

    /// Ready when the client has closed its side, or has been listened to long enough.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, socket: &TcpStream) -> Poll<()> {
        let mut scratch = [0; 16 << 10];
        loop {
            if self.timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if ready!(socket.poll_read_ready(cx)).is_err() {
                return Poll::Ready(());
            }
            match socket.try_read(&mut scratch) {
                Ok(0) => return Poll::Ready(()),
                Ok(count) => match self.left.checked_sub(count) {
                    Some(left) => self.left = left,
                    None => return Poll::Ready(()),
                },
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(()),
            }
        }
    }
}
