//! Tells whether one request had to open a connection or was given a kept one, and when the connection was there. The HTTP client does not say; its connector does, and it
//! is called from within the request's own task.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use larder_core::RepositoryName;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

tokio::task_local! {
    static WATCH: ConnectWatch;
}

/// What happened to the connection of one request.
#[derive(Debug, Clone)]
pub(crate) struct ConnectWatch {
    /// On whose behalf: a repository's name.
    owner: Arc<str>,
    asked: Arc<AtomicBool>,
    connected: Arc<OnceLock<Instant>>,
}

impl ConnectWatch {
    /// Of one request for this repository.
    pub(crate) fn of(repository: &RepositoryName) -> Self {
        Self {
            owner: Arc::from(repository.as_str()),
            asked: Arc::default(),
            connected: Arc::default(),
        }
    }

    /// The repository whose request the present task is carrying out; empty where that is not known.
    pub(crate) fn owner() -> Arc<str> {
        WATCH
            .try_with(|watch| Arc::clone(&watch.owner))
            .unwrap_or_else(|_| Arc::from(""))
    }

    /// Runs `request` under this watch.
    pub(crate) async fn over<F: Future>(&self, request: F) -> F::Output {
        WATCH.scope(self.clone(), request).await
    }

    /// Whether the request asked for a new connection. False: it was sent on one that was kept from before.
    pub(crate) fn opened_connection(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// When the new connection stood; `None` while it does not, and for kept ones.
    pub(crate) fn connected_at(&self) -> Option<Instant> {
        self.connected.get().copied()
    }
}

/// Wraps a connector so that it reports to the watch of the request that calls it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WatchLayer;

impl<S> Layer<S> for WatchLayer {
    type Service = WatchedConnector<S>;

    fn layer(&self, inner: S) -> Self::Service {
        WatchedConnector { inner }
    }
}

/// See [`WatchLayer`].
#[derive(Debug, Clone)]
pub(crate) struct WatchedConnector<S> {
    inner: S,
}

impl<S: Service<R>, R> Service<R> for WatchedConnector<S>
where
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let connected = WATCH.try_with(|watch| {
            watch.asked.store(true, Ordering::Relaxed);
            Arc::clone(&watch.connected)
        });
        let connecting = self.inner.call(request);
        Box::pin(async move {
            let connection = connecting.await?;
            if let Ok(connected) = connected {
                let _ = connected.set(Instant::now());
            }
            Ok(connection)
        })
    }
}
