//! Word of commits, from one process over the database to the others: "there is something to read". What was changed stands in the
//! database, and is read there. So a notice that is lost, late, repeated or forged costs a look, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::{AbortOnDrop, Shared, Told, token};
use crate::meta::MetadataStore;

const TOPIC: &str = "changes";
/// Between two notices, sent or heeded, there is at least this time: many commits are one notice, many notices one look.
const APART: Duration = Duration::from_millis(10);

/// What tells of commits in a store, and that others may have committed.
#[derive(Debug)]
pub(crate) struct Bells {
    committed: watch::Sender<u64>,
    rung: watch::Sender<u64>,
}

impl Default for Bells {
    fn default() -> Self {
        Self {
            committed: watch::Sender::new(0),
            rung: watch::Sender::new(0),
        }
    }
}

impl Bells {
    /// Something was committed here.
    pub(crate) fn committed(&self) {
        self.committed.send_modify(|count| *count += 1);
    }

    /// Something may have been committed elsewhere.
    fn ring(&self) {
        self.rung.send_modify(|count| *count += 1);
    }

    pub(crate) fn bell(&self) -> Bell {
        Bell(self.rung.subscribe())
    }
}

/// Rings when other processes may have changed something.
#[derive(Debug)]
pub struct Bell(watch::Receiver<u64>);

impl Bell {
    /// Waits until it rings. What rang since the last call counts.
    pub async fn rung(&mut self) {
        if self.0.changed().await.is_err() {
            // The store is gone, and nobody will ring.
            std::future::pending::<()>().await;
        }
    }
}

/// Carries word of commits between this store and others over the same database, as long as it is there.
#[derive(Debug)]
pub struct Notices {
    _tasks: [AbortOnDrop; 2],
}

impl Notices {
    /// Tells others of what is committed in `store`, and rings its [`Bell`]s when they tell. Must be called within a Tokio runtime.
    pub fn between(store: &MetadataStore, shared: &Arc<dyn Shared>) -> Self {
        let own = token();
        let telling = tokio::spawn(tell(
            Arc::clone(store.bells()),
            Arc::clone(shared),
            own.clone(),
        ));
        let hearing = tokio::spawn(hear(Arc::clone(store.bells()), Arc::clone(shared), own));
        Self {
            _tasks: [telling, hearing].map(|task| AbortOnDrop(task.abort_handle())),
        }
    }
}

async fn tell(bells: Arc<Bells>, shared: Arc<dyn Shared>, own: String) {
    let mut committed = bells.committed.subscribe();
    while committed.changed().await.is_ok() {
        shared.publish(TOPIC, own.as_bytes()).await;
        sleep(APART).await;
    }
}

async fn hear(bells: Arc<Bells>, shared: Arc<dyn Shared>, own: String) {
    let mut subscription = shared.subscribe(TOPIC);
    loop {
        match subscription.next().await {
            Told::Message(sender) if sender == own.as_bytes() => {}
            Told::Message(_) | Told::Missed => {
                bells.ring();
                sleep(APART).await;
            }
        }
    }
}
