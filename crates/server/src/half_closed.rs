//! A client that closes its sending half before it has its answer. It may have left, or have said all that it has to say (`nc -N`): the two
//! look alike until something is written. Whoever reads gets what comes soon; what changes something is done and answered.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::activity::Activity;

/// How long an answer may be silent for such a client. Many who give up must not hold what others wait for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether the client has closed its half: since when the timer runs, and how much the socket had taken then.
#[derive(Debug, Default)]
pub(crate) struct HalfClosed(Option<(Pin<Box<Sleep>>, u64)>);

impl HalfClosed {
    /// To be asked while an answer is made or sent. Ready when the client has left.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        socket: &TcpStream,
        activity: &Activity,
    ) -> Poll<io::Error> {
        if self.0.is_none() {
            let mut byte = [0];
            match ready!(socket.poll_peek(cx, &mut ReadBuf::new(&mut byte))) {
                Ok(0) => {
                    let timer = Box::pin(tokio::time::sleep(PATIENCE));
                    self.0 = Some((timer, activity.taken()));
                }
                // More of the body, or the next request.
                Ok(_) => return Poll::Pending,
                Err(error) => return Poll::Ready(error),
            }
        }
        let Some((timer, before)) = &mut self.0 else {
            return Poll::Pending;
        };
        loop {
            ready!(timer.as_mut().poll(cx));
            let taken = activity.taken();
            // Of one that is still there and does not read, others say when it is enough (`drive.rs`).
            if taken == *before && !activity.is_blocked() && !activity.is_to_be_finished() {
                return Poll::Ready(io::ErrorKind::ConnectionAborted.into());
            }
            *before = taken;
            timer.as_mut().reset(Instant::now() + PATIENCE);
        }
    }
}
