//! Heads on their way: of many clients who ask for the head of one thing, one asks the upstream, and its leaving ends nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use larder_core::{ArtifactRecord, Fault, SourceKey};
use tokio::sync::watch;

/// Which head: what it is of, and the repository's epoch, so that nobody joins a request that is older than a flush.
type HeadKey = (SourceKey, u64);

/// What the upstream told.
type Told = Result<Arc<ArtifactRecord>, Fault>;

/// The heads that are being asked for.
#[derive(Debug, Default)]
pub(crate) struct Heads(Arc<Mutex<HashMap<HeadKey, watch::Receiver<Option<Told>>>>>);

impl Heads {
    /// What `ask` finds out, or the one who asks already; `true` if it was asked here. What comes of it is for those who wait, and for
    /// nobody who comes afterwards.
    pub(crate) async fn join_or_ask(
        &self,
        key: HeadKey,
        ask: impl Future<Output = Told> + Send + 'static,
    ) -> (Told, bool) {
        let (mut waiting, asked_here) = self.waiting(key, ask);
        let told = waiting
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|told| told.clone());
        (
            told.unwrap_or_else(|| Err(crate::transfer::flight::lost())),
            asked_here,
        )
    }

    fn waiting(
        &self,
        key: HeadKey,
        ask: impl Future<Output = Told> + Send + 'static,
    ) -> (watch::Receiver<Option<Told>>, bool) {
        let mut heads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One whose sender is gone without a word (a panic) will not say anything.
        if let Some(waiting) = heads.get(&key).filter(|told| told.has_changed().is_ok()) {
            return (waiting.clone(), false);
        }
        let (sender, waiting) = watch::channel(None);
        heads.insert(key.clone(), waiting.clone());
        let heads = Arc::clone(&self.0);
        larder_upstream::spawn(async move {
            let told = ask.await;
            heads
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&key);
            sender.send_replace(Some(told));
        });
        (waiting, true)
    }
}
