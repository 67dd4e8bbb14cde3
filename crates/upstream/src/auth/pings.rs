//! What registries said at the root of their API, where some state their challenge and nowhere else. Pure memory: one question for all
//! who want to know, and none again for a while.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use larder_core::{RepositoryName, UnixMillis};
use url::Origin;

use super::challenge::Challenge;

/// How long an answer counts.
const LIFE: Duration = Duration::from_mins(5);
/// How long the lack of one counts.
const LIFE_OF_SILENCE: Duration = Duration::from_secs(10);
/// Only configured origins are asked, so there are few. With more of them all are forgotten.
const MAX_PINGS: usize = 1024;

/// Whose API is asked: on behalf of which repository, at which origin, by the path of its root.
pub(crate) type PingKey = (RepositoryName, Origin, String);

type Answer = (Option<Arc<[Challenge]>>, UnixMillis);
type Slot = Arc<tokio::sync::Mutex<Option<Answer>>>;

/// All answers.
#[derive(Default)]
pub(crate) struct Pings(Mutex<HashMap<PingKey, Slot>>);

impl Pings {
    /// What is wanted there, as remembered or as `ask` finds out (`None`: nothing could be found out).
    pub(crate) async fn wanted(
        &self,
        key: PingKey,
        now: UnixMillis,
        ask: impl Future<Output = Option<Vec<Challenge>>>,
    ) -> Arc<[Challenge]> {
        let slot = self.slot(key);
        let mut last = slot.lock().await;
        if let Some((answer, at)) = &*last {
            let life = if answer.is_some() {
                LIFE
            } else {
                LIFE_OF_SILENCE
            };
            if now >= *at && now.since(*at) < life {
                return answer.clone().unwrap_or_default();
            }
        }
        let answer: Option<Arc<[Challenge]>> = ask.await.map(Into::into);
        *last = Some((answer.clone(), now));
        answer.unwrap_or_default()
    }

    /// Forgets one answer: what it led to was no good.
    pub(crate) fn forget(&self, key: &PingKey) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }

    /// Forgets every answer.
    pub(crate) fn clear(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn slot(&self, key: PingKey) -> Slot {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= MAX_PINGS && !slots.contains_key(&key) {
            slots.clear();
        }
        Arc::clone(slots.entry(key).or_default())
    }
}

impl fmt::Debug for Pings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pings")
            .field(
                "kept",
                &self.0.lock().unwrap_or_else(PoisonError::into_inner).len(),
            )
            .finish()
    }
}
