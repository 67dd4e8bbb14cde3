//! What other engines over the same data have changed: an engine in this process tells at once, one in another program within
//! [`POLL`] (docs/adr/0058). What is in memory here must not outlive it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use larder_core::RepositoryName;
use larder_storage::{Heard, Listener, Notice};

use super::state::Catalog;
use crate::repositories::RepositoryState;

/// How often the database is asked what other programs have changed, where it is shared.
const POLL: Duration = Duration::from_millis(250);
/// How often it is seen to, where it is not, whether the engine is still there.
const IDLE: Duration = Duration::from_secs(10);

/// What the engine has to do about another engine's changes, beside what the catalog has done.
pub(crate) trait Foreign: Send + Sync + 'static {
    /// The repository of that name, if it is configured here.
    fn entry(&self, name: &RepositoryName) -> Option<Arc<RepositoryState>>;
    /// All of them.
    fn entries(&self) -> Vec<Arc<RepositoryState>>;
    /// The copies of a repository were flushed: downloads begun before commit nothing.
    fn flushed(&self, entry: &RepositoryState);
}

impl Catalog {
    /// Follows what other engines change, as long as `foreign` is there. Must be called within a Tokio runtime.
    pub(crate) fn follow_others<F: Foreign>(self: &Arc<Self>, foreign: &Arc<F>) {
        let listener = self.metadata.listen(self.writer);
        tokio::spawn(follow(
            Arc::downgrade(self),
            Arc::downgrade(foreign),
            listener,
        ));
    }

    fn hear<F: Foreign>(&self, heard: Heard, foreign: &F) {
        match heard {
            Heard::Missed => {
                tracing::debug!("what other programs have changed was missed: all is read again");
                self.records.clear();
                self.absences.forget(self.now(), |_| true);
                for entry in foreign.entries() {
                    entry.flushed();
                    foreign.flushed(&entry);
                    entry.bump();
                }
            }
            Heard::Notices(notices) => {
                for notice in notices {
                    self.heard_of(&notice, foreign);
                }
            }
        }
    }

    fn heard_of<F: Foreign>(&self, notice: &Notice, foreign: &F) {
        match notice {
            Notice::Record { key, blob } => {
                let before = self.records.peek(key);
                self.records.remove(key);
                self.absences.remove(key);
                let Some(entry) = foreign.entry(&key.repository) else {
                    return;
                };
                // It may name what was absent before.
                entry.arrived();
                let is_other = before
                    .is_some_and(|before| before.blob().map(|blob| &blob.digest) != blob.as_ref());
                if is_other {
                    entry.bump();
                }
            }
            Notice::Records(name) => {
                self.records.clear();
                if let Some(entry) = foreign.entry(name) {
                    entry.bump();
                }
            }
            Notice::Superseded(name) => {
                if let Some(entry) = foreign.entry(name) {
                    entry.bump();
                }
            }
            Notice::Flushed(name) => {
                self.absences
                    .forget(self.now(), |key| key.repository == *name);
                if let Some(entry) = foreign.entry(name) {
                    entry.flushed();
                    foreign.flushed(&entry);
                    entry.bump();
                }
            }
        }
    }
}

fn told_more(heard: &Heard) -> bool {
    matches!(heard, Heard::Notices(notices) if !notices.is_empty())
}

async fn follow<F: Foreign>(catalog: Weak<Catalog>, foreign: Weak<F>, mut listener: Listener) {
    let mut polls = tokio::time::interval(if listener.is_shared() { POLL } else { IDLE });
    let mut bell = listener.bell();
    polls.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let told = tokio::select! {
            heard = listener.next() => Some(heard),
            () = bell.rung() => None,
            _ = polls.tick() => None,
        };
        let (Some(catalog), Some(foreign)) = (catalog.upgrade(), foreign.upgrade()) else {
            return;
        };
        let heard = match told {
            Some(heard) => heard,
            None if listener.is_shared() => match listener.poll().await {
                Ok(heard) => heard,
                Err(error) => {
                    tracing::debug!(%error, "what other programs have changed could not be read");
                    continue;
                }
            },
            None => continue,
        };
        // There may be more than one look tells of.
        if told_more(&heard) && listener.is_shared() {
            polls.reset_immediately();
        }
        catalog.hear(heard, &*foreign);
    }
}
