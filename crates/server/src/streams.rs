//! Runs the streams of HTTP/2 connections, and resets those whose client takes too little of its answer. An HTTP/1 connection shows by
//! its socket that the client does not read (`drive.rs`); a stream's window of a few bytes leaves the socket free.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, Sleep};

use crate::drive::Graceful;
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

/// How often the connection and its streams take turns before other tasks have theirs.
const ROUNDS: u32 = 16;

thread_local! {
    /// Whether a stream has been polled.
    static HAS_RUN: Cell<bool> = const { Cell::new(false) };
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

/// Takes in the streams of one HTTP/2 connection, for its [`Connection`].
#[derive(Clone)]
pub(crate) struct Streams {
    limits: ServerLimits,
    metrics: Arc<Metrics>,
    arrived: Arc<Mutex<Vec<Stream>>>,
}

impl Streams {
    pub(crate) fn new(limits: ServerLimits, metrics: Arc<Metrics>) -> Self {
        Self {
            limits,
            metrics,
            arrived: Arc::default(),
        }
    }

    /// The connection that runs them.
    pub(crate) fn run_by<C: Graceful>(&self, connection: C) -> Connection<C> {
        Connection {
            connection: Box::pin(connection),
            arrived: Arc::clone(&self.arrived),
            running: FuturesUnordered::new(),
        }
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        lock(&self.arrived).push(Stream {
            future: Box::pin(future),
            limits: self.limits,
            metrics: Arc::clone(&self.metrics),
            handed_over: 0,
            mark: None,
            timer: None,
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection with its streams, all in one task. In tasks of their own, each frame of a body would be handed from one thread to another.
/// Streams that are under way when the connection ends are dropped, as an HTTP/1 answer is.
pub(crate) struct Connection<C> {
    connection: Pin<Box<C>>,
    arrived: Arc<Mutex<Vec<Stream>>>,
    running: FuturesUnordered<Stream>,
}

impl<C> Connection<C> {
    /// Runs the streams that can go on; whether there were any.
    fn run_streams(&mut self, cx: &mut Context<'_>) -> bool {
        self.running.extend(lock(&self.arrived).drain(..));
        HAS_RUN.set(false);
        while let Poll::Ready(Some(())) = self.running.poll_next_unpin(cx) {}
        HAS_RUN.get()
    }
}

impl<C: Graceful> Graceful for Connection<C> {
    fn graceful_shutdown(mut self: Pin<&mut Self>) {
        self.connection.as_mut().graceful_shutdown();
    }
}

impl<C: Graceful> Future for Connection<C> {
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        for _ in 0..ROUNDS {
            let polled = self.connection.as_mut().poll(cx);
            // Also after its end: what has been handed over whole is done.
            let has_run = self.run_streams(cx);
            if polled.is_ready() || !has_run {
                return polled;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// One stream. Dropped before its end, it is reset.
struct Stream {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    limits: ServerLimits,
    metrics: Arc<Metrics>,
    handed_over: u64,
    /// Since when the client is what the stream waits for, and how much had been handed over then.
    mark: Option<(Instant, u64)>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stream {
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

impl Future for Stream {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        HAS_RUN.set(true);
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
