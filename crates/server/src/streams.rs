//! Runs the streams of HTTP/2 connections, and resets those whose client takes too little of its answer. An HTTP/1 connection shows by
//! its socket that the client does not read (`drive.rs`); a stream's window of a few bytes leaves the socket free.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};

use crate::metrics::Metrics;
use crate::settings::ServerLimits;

/// What a body has done while its stream was polled.
#[derive(Debug, Clone, Copy, Default)]
struct Noted {
    /// Bytes that it has handed over.
    bytes: u64,
    /// Whether it has been asked at all, and whether it had to wait for its source at last.
    asked: bool,
    waits: bool,
}

thread_local! {
    /// Of the stream that this thread polls at the moment.
    static NOTED: Cell<Noted> = const {
        Cell::new(Noted {
            bytes: 0,
            asked: false,
            waits: false,
        })
    };
}

/// A response body has been asked for a frame: so many bytes are handed over; `None` if it waits for its source.
pub(crate) fn note_frame(bytes: Option<usize>) {
    let mut noted = NOTED.get();
    noted.asked = true;
    noted.waits = bytes.is_none();
    noted.bytes += bytes.unwrap_or(0) as u64;
    NOTED.set(noted);
}

/// The executor of a server's HTTP/2 connections.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    pub(crate) limits: ServerLimits,
    pub(crate) metrics: Arc<Metrics>,
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        tokio::spawn(Stream {
            future: Box::pin(future),
            limits: self.limits,
            metrics: Arc::clone(&self.metrics),
            handed_over: 0,
            mark: None,
            timer: None,
        });
    }
}

/// One stream. Dropped before its end, it is reset.
struct Stream<F> {
    future: Pin<Box<F>>,
    limits: ServerLimits,
    metrics: Arc<Metrics>,
    handed_over: u64,
    /// Since when the client is what the stream waits for, and how much had been handed over then.
    mark: Option<(Instant, u64)>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<F: Future> Stream<F> {
    fn note(&mut self, noted: Noted) {
        self.handed_over += noted.bytes;
        if !noted.asked {
            return;
        }
        if noted.waits {
            self.mark = None;
        } else if self.mark.is_none() {
            self.mark = Some((Instant::now(), self.handed_over));
        }
    }

    /// Whether the client has taken too little for too long.
    fn is_stalled(&mut self, cx: &mut Context<'_>) -> bool {
        while let Some((since, before)) = self.mark {
            let deadline = since + self.limits.stall_timeout;
            if Instant::now() >= deadline {
                if self.handed_over - before < self.limits.stall_bytes {
                    return true;
                }
                self.mark = Some((Instant::now(), self.handed_over));
                continue;
            }
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            if timer.is_elapsed() {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(cx).is_pending() {
                break;
            }
        }
        false
    }
}

impl<F: Future> Future for Stream<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        NOTED.set(Noted::default());
        let polled = self.future.as_mut().poll(cx);
        if polled.is_ready() {
            return Poll::Ready(());
        }
        self.note(NOTED.take());
        if self.is_stalled(cx) {
            self.metrics.connection_stalled();
            return Poll::Ready(());
        }
        Poll::Pending
    }
}
