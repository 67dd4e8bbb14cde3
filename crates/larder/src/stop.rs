//! The signals that end larder, and those that must not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder_server::ServerHandle;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// `drain`, which a reload may change.
#[derive(Debug, Clone)]
pub(crate) struct DrainTime(Arc<AtomicU64>);

impl DrainTime {
    pub(crate) fn new(seconds: Duration) -> Self {
        Self(Arc::new(AtomicU64::new(seconds.as_secs())))
    }

    pub(crate) fn set(&self, seconds: Duration) {
        self.0.store(seconds.as_secs(), Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

/// The signals that end larder. Listened to from the start on by one and the same: what is sent while nobody waits is not lost.
#[derive(Debug)]
pub(crate) struct EndSignals(Option<(Signal, Signal)>);

impl EndSignals {
    /// From now on they no longer end the process by themselves.
    pub(crate) fn new() -> Self {
        let terminate = signal(SignalKind::terminate());
        let interrupt = signal(SignalKind::interrupt());
        Self(terminate.ok().zip(interrupt.ok()))
    }

    /// Ends at the next one.
    pub(crate) async fn next(&mut self) {
        let Some((terminate, interrupt)) = &mut self.0 else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

/// Ends when the listeners are to be closed: `drain` after the first signal, so that whoever sends requests here has seen `/ready` fail
/// and sends them elsewhere; or at a second signal.
pub(crate) async fn until_stopped(mut signals: EndSignals, handle: ServerHandle, drain: DrainTime) {
    signals.next().await;
    handle.announce_stop();
    let drain = drain.get();
    if !drain.is_zero() {
        tracing::info!(
            drain_s = drain.as_secs(),
            "stopping: /ready fails now, and connections are still taken for a while (drain); a second signal ends this"
        );
        // Either way the listeners are closed next.
        let _ = tokio::time::timeout(drain, signals.next()).await;
    }
    tracing::info!("stopping: what is being downloaded and read is finished first");
}

/// SIGUSR1 and SIGUSR2 mean something to other servers, whose scripts are left in place; their default would end the process.
pub(crate) async fn ignore_user_signals() {
    let (Ok(mut one), Ok(mut two)) = (
        signal(SignalKind::user_defined1()),
        signal(SignalKind::user_defined2()),
    ) else {
        return;
    };
    loop {
        let name = tokio::select! {
            _ = one.recv() => "SIGUSR1",
            _ = two.recv() => "SIGUSR2",
        };
        tracing::info!(
            signal = name,
            "ignored: this signal means nothing to larder"
        );
    }
}
