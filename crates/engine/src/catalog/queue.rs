//! What waits to be committed: in its order, in groups, by one task.

use std::sync::{Arc, Weak};

use tokio::sync::{mpsc, oneshot};

use super::commits::{Batch, Commit, Message, RecordChange};
use super::state::Catalog;

/// Fills that become durable together.
const GROUP: usize = 64;

/// Starts the task that makes fills durable.
pub(super) fn start(catalog: &Arc<Catalog>, mut queue: mpsc::UnboundedReceiver<Message>) {
    let catalog: Weak<Catalog> = Arc::downgrade(catalog);
    tokio::spawn(async move {
        let mut messages = Vec::with_capacity(GROUP);
        while queue.recv_many(&mut messages, GROUP).await > 0 {
            let Some(catalog) = catalog.upgrade() else {
                return;
            };
            let mut commits = Vec::new();
            let mut barriers = Vec::new();
            let mut places = Vec::new();
            for message in messages.drain(..) {
                match message {
                    Message::Commits(together, open) => {
                        commits.extend(together);
                        places.extend(open);
                    }
                    Message::Barrier(sender) => barriers.push(sender),
                }
            }
            if !commits.is_empty() {
                let bytes = bytes_of(&commits);
                let batch = Batch {
                    commits,
                    ..Batch::default()
                };
                catalog.exclusive().await.commit(batch).await;
                catalog.eviction.settle(bytes);
            }
            drop(places);
            for barrier in barriers {
                let _ = barrier.send(());
            }
        }
    });
}

fn bytes_of(commits: &[Commit]) -> u64 {
    let bytes = commits.iter().map(|commit| match &commit.change {
        RecordChange::Store { spool, .. } => spool.descriptor.size,
        _ => 0,
    });
    bytes.sum()
}

impl Catalog {
    /// Makes commits durable behind the scenes, in groups and in their order.
    pub(crate) fn enqueue(&self, mut commits: Vec<Commit>) {
        if self.eviction.is_queue_full() {
            commits.retain(|commit| !self.is_too_much(commit));
        }
        if !commits.is_empty() {
            // Fails only when the catalog is gone, and then there is nobody to tell.
            self.eviction.queue(bytes_of(&commits));
            let places = commits.iter().filter(|commit| commit.is_of_bytes());
            let places = places.map(|commit| self.spool_place_now(&commit.wanted));
            let places = places.collect();
            let _ = self.queue.0.send(Message::Commits(commits, places));
        }
    }

    /// Whether this brings bytes, which there is no room for while so much waits to be committed: who waits for it is told so.
    fn is_too_much(&self, commit: &Commit) -> bool {
        let RecordChange::Store { spool, .. } = &commit.change else {
            return false;
        };
        self.not_kept_for_room(&commit.landing, &commit.wanted, spool.descriptor.size);
        true
    }

    /// Waits until everything enqueued so far is durable or has failed.
    pub(crate) async fn barrier(&self) {
        let (sender, receiver) = oneshot::channel();
        if self.queue.0.send(Message::Barrier(sender)).is_ok() {
            let _ = receiver.await;
        }
    }
}
