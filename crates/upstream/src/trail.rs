//! Which larders the request has passed that work is done for. A download is nobody's own, but it is begun for somebody; what that one
//! has passed goes upstream in `Via` (ADR 0041), wherever in the pipeline the request upstream is made.

use std::future::Future;

use larder_core::Trail;
use tokio::task::JoinHandle;

tokio::task_local! {
    static TRAIL: Trail;
}

/// Runs `work` for a request that has passed `trail`.
pub async fn on_behalf<F: Future>(trail: Trail, work: F) -> F::Output {
    TRAIL.scope(trail, work).await
}

/// Spawns work that belongs to what is done here.
pub fn spawn<F>(work: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match TRAIL.try_with(Trail::clone) {
        Ok(trail) => tokio::spawn(TRAIL.scope(trail, work)),
        Err(_) => tokio::spawn(work),
    }
}

/// What has been passed so far.
pub(crate) fn passed() -> Trail {
    TRAIL.try_with(Trail::clone).unwrap_or_default()
}
