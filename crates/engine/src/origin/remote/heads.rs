//! Heads on their way: of many clients who ask for the head of one thing, one asks the upstream, and its leaving ends nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use larder_core::{ArtifactRecord, Fault, SourceKey};
use tokio::sync::watch;

use crate::transfer::audience::Audience;

/// Which head: what it is of, and the repository's epoch, so that nobody joins a request that is older than a flush.
type HeadKey = (SourceKey, u64);

/// What the upstream told.
type Told = Result<Arc<ArtifactRecord>, Fault>;

/// One that is being asked for: what comes of it, and who waits for that.
#[derive(Debug, Clone)]
struct Asked {
    told: watch::Receiver<Option<Told>>,
    audience: Arc<Audience>,
}

/// The heads that are being asked for.
#[derive(Debug, Default)]
pub(crate) struct Heads(Arc<Mutex<HashMap<HeadKey, Asked>>>);

impl Heads {
    /// What `ask` finds out, or the one who asks already; `true` if it was asked here. What comes of it is for those who wait, and for
    /// nobody who comes afterwards. `ask` sees whether anybody still waits.
    pub(crate) async fn join_or_ask<F>(
        &self,
        key: HeadKey,
        ask: impl FnOnce(Arc<Audience>) -> F,
    ) -> (Told, bool)
    where
        F: Future<Output = Told> + Send + 'static,
    {
        let (mut asked, asked_here) = self.asked(key, ask);
        let _seat = asked.audience.join();
        let told = asked
            .told
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|told| told.clone());
        (
            told.unwrap_or_else(|| Err(crate::transfer::flight::lost())),
            asked_here,
        )
    }

    fn asked<F>(&self, key: HeadKey, ask: impl FnOnce(Arc<Audience>) -> F) -> (Asked, bool)
    where
        F: Future<Output = Told> + Send + 'static,
    {
        let mut heads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One whose sender is gone without a word (a panic) will not say anything.
        if let Some(asked) = heads
            .get(&key)
            .filter(|asked| asked.told.has_changed().is_ok())
        {
            return (asked.clone(), false);
        }
        let (sender, told) = watch::channel(None);
        let audience = Arc::<Audience>::default();
        let asked = Asked {
            told,
            audience: Arc::clone(&audience),
        };
        heads.insert(key.clone(), asked.clone());
        let (ask, heads) = (ask(audience), Arc::clone(&self.0));
        larder_upstream::spawn(async move {
            let told = ask.await;
            heads
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&key);
            sender.send_replace(Some(told));
        });
        (asked, true)
    }
}
