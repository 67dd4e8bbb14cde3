//! `/ui/events`: server-sent events (HTML Standard, section 9.2) that keep an open page up to date. Each stream holds a connection, so
//! there is only so much of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue, Response};
use larder_budget::{BudgetKind, Lease};
use larder_core::{ErrorCode, Fault, FaultKind};
use larder_engine::Body;
use tokio::time::Instant;

use super::numbers::{live, traffic};
use super::visit::{Outcome, Visit};
use crate::backend::Backend;
use crate::body::ResponseBody;
use crate::state::Shared;

/// How often the numbers are sent.
const EVERY: Duration = Duration::from_secs(2);
/// A stream ends after this, and the browser begins another: so nobody keeps a place for ever.
const LONGEST: Duration = Duration::from_mins(10);
/// How long a stream waits for a place, and a browser before it tries again.
const PATIENCE: Duration = Duration::from_secs(1);
const TRY_AGAIN: Duration = Duration::from_secs(30);
/// Tells nginx not to gather what is to be seen at once.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

pub(crate) async fn serve<B: Backend>(visit: &Visit<'_, B>) -> Outcome {
    let budgets = &visit.exchange.shared.budgets;
    let lease = budgets.lease_within(BudgetKind::PageStreams, "", 1, PATIENCE);
    let lease = lease.await.map_err(|_| {
        let message =
            "as many pages are kept up to date as larder has places for; this one stays as it is";
        let fault = Fault::new(FaultKind::Unavailable, ErrorCode::Busy, message);
        fault.retry_after(Some(TRY_AGAIN))
    })?;
    let stream = Stream {
        backend: Arc::clone(visit.exchange.backend),
        shared: Arc::clone(visit.exchange.shared),
        ends: Instant::now() + LONGEST,
        next: None,
        _lease: lease,
    };
    let chunks = futures_util::stream::unfold(stream, |mut stream| async move {
        let event = stream.event().await?;
        Some((Ok(event), stream))
    });
    let body = Body::once(None, Box::pin(chunks));
    let mut response = Response::new(ResponseBody::streamed(body));
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (ACCEL_BUFFERING, "no"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

struct Stream<B> {
    backend: Arc<B>,
    shared: Arc<Shared>,
    ends: Instant,
    /// When the next event is due; at once, if there was none yet.
    next: Option<Instant>,
    _lease: Lease,
}

impl<B: Backend> Stream<B> {
    /// The next event; `None` when the stream is over, or larder is to stop.
    async fn event(&mut self) -> Option<Bytes> {
        if let Some(next) = self.next {
            tokio::time::sleep_until(next).await;
        }
        let now = Instant::now();
        self.next = Some(now + EVERY);
        if now >= self.ends || self.shared.is_stopping() {
            return None;
        }
        let live = live(&self.backend.counters(), &traffic(&self.shared.metrics));
        let texts: BTreeMap<&str, String> = live.texts().into_iter().collect();
        let data = serde_json::to_string(&texts).ok()?;
        Some(Bytes::from(format!("data: {data}\n\n")))
    }
}
