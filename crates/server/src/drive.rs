//! Runs one HTTP connection to its end: its time-outs and its part in a graceful stop.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::activity::Activity;
use crate::metrics::Metrics;
use crate::settings::ServerLimits;

/// A connection of hyper that can be asked to end after the answers under way.
pub(crate) trait Graceful: Future<Output = hyper::Result<()>> {
    /// Finish what is under way, take no further request.
    fn graceful_shutdown(self: Pin<&mut Self>);
}

impl<I, B, S> Graceful for hyper::server::conn::http1::Connection<I, S>
where
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn graceful_shutdown(self: Pin<&mut Self>) {
        hyper::server::conn::http1::Connection::graceful_shutdown(self);
    }
}

impl<I, B, S, E> Graceful for hyper::server::conn::http2::Connection<I, S, E>
where
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    E: hyper::rt::bounds::Http2ServerConnExec<S::Future, B>,
{
    fn graceful_shutdown(self: Pin<&mut Self>) {
        hyper::server::conn::http2::Connection::graceful_shutdown(self);
    }
}

/// Tells all connections that the server stops.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    begun: AtomicBool,
    wake: CancellationToken,
}

impl Drain {
    /// Lets every connection finish what is under way.
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        self.wake.cancel();
    }

    fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }
}

/// A connection with its time-outs. Ends when the connection does, or drops it.
pub(crate) struct Drive<C> {
    connection: Pin<Box<C>>,
    activity: Arc<Activity>,
    limits: ServerLimits,
    timer: Pin<Box<Sleep>>,
    timer_armed: bool,
    drain: Arc<Drain>,
    /// Polled once, so that it wakes this task: polling takes a lock that all connections share.
    drain_wake: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    drain_wake_armed: bool,
    draining: bool,
    /// Since when the client does not read, and how much the socket had taken then.
    unread: Option<(Instant, u64)>,
    metrics: Arc<Metrics>,
}

impl<C: Graceful> Drive<C> {
    pub(crate) fn new(
        connection: C,
        activity: Arc<Activity>,
        limits: ServerLimits,
        drain: Arc<Drain>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            connection: Box::pin(connection),
            activity,
            limits,
            timer: Box::pin(tokio::time::sleep(limits.header_timeout)),
            timer_armed: false,
            drain_wake: Some(Box::pin(drain.wake.clone().cancelled_owned())),
            drain_wake_armed: false,
            drain,
            draining: false,
            unread: None,
            metrics,
        }
    }

    fn check_drain(&mut self, cx: &mut Context<'_>) {
        if !self.drain_wake_armed {
            self.drain_wake_armed = true;
            if let Some(wake) = &mut self.drain_wake {
                let _ = wake.as_mut().poll(cx);
            }
        }
        if !self.draining && self.drain.has_begun() {
            self.draining = true;
            self.drain_wake = None;
            self.connection.as_mut().graceful_shutdown();
        }
    }

    /// Whether the connection's time is over; arms the timer otherwise. A request that ends in time costs no timer
    /// operation: the timer then fires early, sees that the deadline has moved, and is set again.
    fn is_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        while !self.timer_armed || self.timer.is_elapsed() || self.activity.within_head() {
            self.timer_armed = true;
            let now = Instant::now();
            let deadline = self
                .activity
                .deadline(&self.limits)
                .or_else(|| self.progress(now));
            if deadline.is_some_and(|deadline| deadline <= now) {
                return true;
            }
            let look_again = now + self.limits.idle_timeout;
            let next = deadline.map_or(look_again, |deadline| deadline.min(look_again));
            if self.timer.is_elapsed() || next < self.timer.deadline() {
                self.timer.as_mut().reset(next);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                break;
            }
        }
        false
    }
}

impl<C: Graceful> Drive<C> {
    /// Until when a client that does not read what is ready for it must have taken some of it.
    fn progress(&mut self, now: Instant) -> Option<Instant> {
        if !self.activity.is_blocked() {
            self.unread = None;
            return None;
        }
        let taken = self.activity.taken();
        let (since, before) = *self.unread.get_or_insert((now, taken));
        let deadline = since + self.limits.stall_timeout;
        if now < deadline {
            return Some(deadline);
        }
        if taken - before < self.limits.stall_bytes {
            // What the kernel holds for it is given up, too.
            self.activity.ask_for_reset();
            self.metrics.connection_stalled();
            return Some(now);
        }
        self.unread = Some((now, taken));
        Some(now + self.limits.stall_timeout)
    }
}

impl<C: Graceful> Future for Drive<C> {
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        let this = &mut *self;
        this.check_drain(cx);
        if let Poll::Ready(ended) = this.connection.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        // hyper lets a connection that has not sent anything yet wait for its first request.
        if this.draining && this.activity.is_http1() && this.activity.is_quiet() {
            return Poll::Ready(Ok(()));
        }
        if this.is_overdue(cx) {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }
}
