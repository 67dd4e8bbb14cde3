//! A connection that is closed while its client is still sending: what comes is read and thrown away for a while. Closed at once,
//! the kernel would answer the client's bytes with a reset, and the client might lose the answer that told it to stop.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Sleep;

/// How long a client is listened to.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much of it is thrown away: more than any body that is taken at all.
const MOST: usize = 16 << 20;

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
