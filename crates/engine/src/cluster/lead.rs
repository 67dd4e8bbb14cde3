//! The lease of a flight that asks the upstream for all replicas: kept as long as the flight, given back with it, and waited for.

use std::sync::Arc;
use std::time::Duration;

use larder_core::SourceKey;
use larder_storage::{Attempt, Fence, Holder, Lease, Renewal, Shared};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::replica::Cluster;

/// How long a lease runs unless it is renewed: who holds one and has died is found out sooner, by who wants its bytes.
pub(super) const LEASE: Duration = Duration::from_secs(15);

/// How often it is looked whether a lease has been given back: at first, and at last.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LAST_LOOK: Duration = Duration::from_millis(200);

/// What the lease of a source is called.
pub(super) fn lease_name(key: &SourceKey) -> String {
    format!("flight\n{}\n{}\n{}", key.repository, key.path, key.variant)
}

/// A lease that is renewed until this is dropped, and then given back.
#[derive(Debug)]
pub(crate) struct Lead {
    shared: Arc<dyn Shared>,
    lease: Option<Lease>,
    renewing: AbortHandle,
}

impl Lead {
    pub(super) fn new(shared: &Arc<dyn Shared>, lease: Lease) -> Self {
        let renewing = tokio::spawn(renew(Arc::clone(shared), lease.clone()));
        Self {
            shared: Arc::clone(shared),
            lease: Some(lease),
            renewing: renewing.abort_handle(),
        }
    }

    /// Gives the lease called `name` back, and leaves a line of text in its place for those who have waited for that: for `life`, or until
    /// somebody wants the lease. `text` is given the lease's fence, by which they know whom it is from.
    pub(super) async fn leave(
        mut self,
        name: &str,
        text: impl FnOnce(Fence) -> String,
        life: Duration,
    ) {
        self.renewing.abort();
        if let Some(lease) = &self.lease {
            let over = Some(lease.fence);
            let text = text(lease.fence);
            let left = self.shared.lease(name, &text, life, over).await;
            if matches!(left, Attempt::Taken(_)) {
                self.lease = None;
            }
        }
    }
}

async fn renew(shared: Arc<dyn Shared>, lease: Lease) {
    loop {
        sleep(LEASE / 3).await;
        if shared.renew(&lease, LEASE).await == Renewal::Lost {
            // What is downloaded here is served, and kept unless the database has something later.
            tracing::debug!("another replica has taken over what is downloaded here");
            return;
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.renewing.abort();
        // Outside of a runtime everything ends, and the lease runs out.
        if let (Some(lease), Ok(runtime)) =
            (self.lease.take(), tokio::runtime::Handle::try_current())
        {
            let shared = Arc::clone(&self.shared);
            runtime.spawn(async move { shared.release(&lease).await });
        }
    }
}

impl Cluster {
    /// Asks for a lease. A service that has not answered in time and is still connected is asked once more: one silence is a busy
    /// moment, and a second download would cost more than it. If the first question was understood after all, the lease is held by this
    /// replica, and is taken over from it as from one that has gone.
    pub(super) async fn attempt(&self, name: &str, over: Option<Fence>) -> Attempt {
        let ask = || self.shared.lease(name, &self.label, LEASE, over);
        match ask().await {
            Attempt::Unknown if self.shared.standing().ok => ask().await,
            attempt => attempt,
        }
    }

    /// Waits until a lease is given back, or is somebody else's; `false` if it is not within `patience`.
    pub(super) async fn until_released(
        &self,
        name: &str,
        fence: Fence,
        patience: Duration,
    ) -> bool {
        let (begun, mut pause) = (Instant::now(), FIRST_LOOK);
        loop {
            let holder = self.shared.holder(name).await;
            if holder.is_none_or(|holder: Holder| holder.fence != fence) {
                return true;
            }
            if begun.elapsed() >= patience {
                return false;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LAST_LOOK);
        }
    }
}
