//! For which request work is done: which larders it has passed, and its name in log lines. A download is nobody's own, but it is begun for somebody; what that one
//! has passed goes upstream in `Via` (ADR 0041), wherever in the pipeline the request upstream is made.

use std::future::Future;

use larder_core::{RequestId, SpanContext, Trail};
use tokio::task::JoinHandle;
use tracing::{Instrument as _, Span};

tokio::task_local! {
    static TRAIL: Trail;
}

/// Runs `work` for a request that has passed `trail`.
pub async fn on_behalf<F: Future>(trail: Trail, work: F) -> F::Output {
    TRAIL.scope(trail, work).await
}

/// Says something of the request that is being answered: the line carries its id, though the answer had no need of a span so far.
pub fn in_request<R>(say: impl FnOnce() -> R) -> R {
    request_span().in_scope(say)
}

/// The span of the request that is being answered. It is of the highest level, so that warnings carry it whatever is filtered out.
pub fn request_span() -> Span {
    let span = Span::current();
    match RequestId::current() {
        Some(id) if span.is_none() => tracing::error_span!("request", %id),
        _ => span,
    }
}

/// Spawns work that belongs to what is done here.
pub fn spawn<F>(work: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match SpanContext::current() {
        None => spawn_named(work),
        context => {
            let mut work = Box::pin(work);
            spawn_named(std::future::poll_fn(move |cx| {
                SpanContext::while_current(context, || work.as_mut().poll(cx))
            }))
        }
    }
}

fn spawn_named<F>(work: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let work = work.instrument(request_span());
    match TRAIL.try_with(Trail::clone) {
        Ok(trail) => tokio::spawn(TRAIL.scope(trail, work)),
        Err(_) => tokio::spawn(work),
    }
}

/// What has been passed so far.
pub(crate) fn passed() -> Trail {
    TRAIL.try_with(Trail::clone).unwrap_or_default()
}
