//! Step 9: blob, then record, then the in-process copy, in this order and in groups. A flight stays joinable until its record is visible.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use larder_core::{ArtifactRecord, SourceKey, UnixMillis, fresh_until};
use larder_storage::{BlobInfo, Change, SealedSpool, StorageError};
use tokio::sync::{mpsc, oneshot};

use crate::absences::Absence;
use crate::admission::Wanted;
use crate::counters::count;
use crate::engine::Engine;
use crate::flight::Flight;
use crate::repositories::Entry;

/// Fills that become durable together.
const GROUP: usize = 64;

/// What is to become durable.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) wanted: Arc<Wanted>,
    pub(crate) flight: Arc<Flight>,
    pub(crate) change: RecordChange,
    /// The record that this one replaces.
    pub(crate) replaces: Option<Arc<ArtifactRecord>>,
}

#[derive(Debug)]
pub(crate) enum RecordChange {
    /// New bytes with their record.
    Store {
        record: Arc<ArtifactRecord>,
        spool: SealedSpool,
        /// The source that names the same bytes by their digest, to be remembered along with this one.
        also: Option<SourceKey>,
    },
    /// A record about bytes that are held already, or about none.
    Renew {
        record: Arc<ArtifactRecord>,
    },
    Drop,
    /// There is nothing: remembered in memory only, and what was held goes.
    Absent {
        status: u16,
        at: UnixMillis,
        was_held: bool,
    },
}

/// What a new document contradicts.
#[derive(Debug, Default)]
pub(crate) struct Superseded<'a> {
    /// Held files that are dropped.
    pub(crate) held: &'a [SourceKey],
    /// Files of which it states other bytes than the document before it: downloads of them may be running.
    pub(crate) stated: &'a [SourceKey],
    /// Whose files they are.
    pub(crate) entry: Option<&'a Entry>,
}

impl Superseded<'_> {
    fn none() -> Self {
        Self::default()
    }
}

#[derive(Debug)]
pub(crate) enum Message {
    /// Commits that become visible together.
    Commits(Vec<Commit>),
    Barrier(oneshot::Sender<()>),
}

/// The way to the commit task.
#[derive(Debug)]
pub(crate) struct CommitQueue(mpsc::UnboundedSender<Message>);

impl CommitQueue {
    pub(crate) fn new(sender: mpsc::UnboundedSender<Message>) -> Self {
        Self(sender)
    }

    pub(crate) fn send(&self, commits: Vec<Commit>) {
        // Fails only when the engine is gone, and then there is nobody to tell.
        let _ = self.0.send(Message::Commits(commits));
    }

    /// Waits until everything sent so far is durable or has failed.
    pub(crate) async fn barrier(&self) {
        let (sender, receiver) = oneshot::channel();
        if self.0.send(Message::Barrier(sender)).is_ok() {
            let _ = receiver.await;
        }
    }
}

/// The task that makes fills durable.
#[derive(Debug)]
pub(crate) struct Committer;

impl Committer {
    pub(crate) fn start(engine: &Arc<Engine>, mut queue: mpsc::UnboundedReceiver<Message>) {
        let engine: Weak<Engine> = Arc::downgrade(engine);
        tokio::spawn(async move {
            let mut messages = Vec::with_capacity(GROUP);
            while queue.recv_many(&mut messages, GROUP).await > 0 {
                let Some(engine) = engine.upgrade() else {
                    return;
                };
                let mut commits = Vec::new();
                let mut barriers = Vec::new();
                for message in messages.drain(..) {
                    match message {
                        Message::Commits(together) => commits.extend(together),
                        Message::Barrier(sender) => barriers.push(sender),
                    }
                }
                {
                    let _alone = engine.committing.lock().await;
                    engine.commit_group(commits, &Superseded::none()).await;
                }
                for barrier in barriers {
                    let _ = barrier.send(());
                }
            }
        });
    }
}

struct Prepared {
    wanted: Arc<Wanted>,
    flight: Arc<Flight>,
    replaces: Option<Arc<ArtifactRecord>>,
    key: SourceKey,
    also: Option<SourceKey>,
    record: Option<Arc<ArtifactRecord>>,
    blob: Option<BlobInfo>,
    is_new: bool,
    /// The status that says that there is nothing, and when it came.
    absence: Option<(u16, UnixMillis)>,
    /// Whether the database is told.
    written: bool,
}

impl Engine {
    /// Makes changes durable and visible: those that are superseded by the others go with them and before them. The caller has
    /// the lock.
    pub(crate) async fn commit_group(&self, commits: Vec<Commit>, superseded: &Superseded<'_>) {
        let mut ready = Vec::new();
        let mut waiting = Vec::new();
        for Commit {
            wanted,
            flight,
            change,
            replaces,
        } in commits
        {
            if flight.is_flushed() {
                self.flights.remove(&flight);
                count(&wanted.entry.counters.fills_not_kept);
                continue;
            }
            let key = wanted.key.clone();
            // What vouched for it does so no more.
            let trusted = |record: Arc<ArtifactRecord>| {
                let unverified = || {
                    Arc::new(ArtifactRecord {
                        verified: false,
                        ..ArtifactRecord::clone(&record)
                    })
                };
                if flight.is_restated() {
                    unverified()
                } else {
                    record
                }
            };
            let change = match change {
                RecordChange::Store {
                    record,
                    spool,
                    also,
                } => RecordChange::Store {
                    record: trusted(record),
                    spool,
                    also,
                },
                RecordChange::Renew { record } => RecordChange::Renew {
                    record: trusted(record),
                },
                other @ (RecordChange::Drop | RecordChange::Absent { .. }) => other,
            };
            let is_known = replaces.is_some() || self.records.peek(&key).is_some();
            let prepared = |record, is_new, also| Prepared {
                wanted,
                flight,
                replaces,
                key,
                also,
                record,
                blob: None,
                is_new,
                absence: None,
                written: true,
            };
            match change {
                RecordChange::Store {
                    record,
                    spool,
                    also,
                } => waiting.push((prepared(Some(record), true, also), spool)),
                RecordChange::Renew { record } => ready.push(prepared(Some(record), false, None)),
                RecordChange::Drop => ready.push(prepared(None, false, None)),
                RecordChange::Absent {
                    status,
                    at,
                    was_held,
                } => ready.push(Prepared {
                    absence: Some((status, at)),
                    written: was_held || is_known,
                    ..prepared(None, false, None)
                }),
            }
        }
        ready.extend(self.publish_group(waiting).await);
        if !ready.iter().any(|one| one.is_new) && self.is_disk_low() {
            // What brings no bytes is remembered in memory until there is space again: each row is one more that a full disk has to take.
            ready
                .iter_mut()
                .filter(|one| one.record.is_some())
                .for_each(|one| one.written = false);
        }
        let drops = superseded
            .held
            .iter()
            .map(|key| Change::DeleteRecord { key: key.clone() });
        let changes = drops
            .chain(ready.iter().filter(|one| one.written).flat_map(changes_of))
            .collect::<Vec<_>>();
        let applied = self.metadata.apply(changes).await;
        if let Err(error) = &applied {
            self.tell_unwritten(error);
        } else if ready.iter().any(|one| one.is_new) {
            self.note_kept();
        }
        if applied.is_ok() && !superseded.held.is_empty() {
            for key in superseded.held {
                self.records.remove(key);
            }
            superseded.entry.inspect(|entry| entry.bump());
        }
        for prepared in ready {
            self.make_visible(prepared, applied.is_ok());
        }
        // Answers from these downloads carry the epoch of before.
        if self.flights.restate(superseded.stated.iter()) {
            superseded.entry.inspect(|entry| entry.bump());
        }
    }

    async fn publish_group(&self, waiting: Vec<(Prepared, SealedSpool)>) -> Vec<Prepared> {
        if waiting.is_empty() {
            return Vec::new();
        }
        let (mut prepared, spools): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        let blobs = Arc::clone(&self.blobs);
        let published = tokio::task::spawn_blocking(move || blobs.publish(spools))
            .await
            .unwrap_or_default();
        let mut results = published.into_iter();
        prepared.retain_mut(|one| match results.next() {
            Some(Ok(info)) => {
                one.blob = Some(info);
                true
            }
            failed => {
                let say = || {
                    if let Some(error) = failed.and_then(Result::err) {
                        self.warn_not_kept(&error);
                    } else {
                        tracing::warn!(key = %one.key, "a download was served and not kept: its writing was interrupted");
                    }
                };
                one.flight.span.in_scope(say);
                count(&one.wanted.entry.counters.fills_not_kept);
                self.flights.remove(&one.flight);
                false
            }
        });
        prepared
    }

    fn make_visible(&self, prepared: Prepared, applied: bool) {
        let Prepared {
            wanted,
            flight,
            replaces,
            key,
            also,
            record,
            is_new,
            absence,
            ..
        } = prepared;
        let before = replaces.or_else(|| self.records.peek(&key));
        if let Some((status, at)) = absence {
            let absence = Absence {
                status,
                at,
                arrivals: wanted.entry.arrivals.load(Ordering::Acquire),
            };
            self.absences.note(
                key.clone(),
                absence,
                wanted.entry.repository.cache.negative_ttl,
            );
        }
        if applied {
            if let (Some(also), Some(record)) = (also, &record) {
                self.absences.remove(&also);
                self.records.put(also, Arc::new(by_digest(record)));
            }
            match &record {
                Some(record) => {
                    self.absences.remove(&key);
                    self.records.put(key, Arc::clone(record));
                }
                None => self.records.remove(&key),
            }
            let is_news = record.as_ref().is_some_and(|now| {
                before
                    .as_ref()
                    .is_none_or(|before| before.blob() != now.blob())
            });
            if is_new && is_news && wanted.spec.is_document {
                wanted.entry.arrivals.fetch_add(1, Ordering::AcqRel);
            }
            if is_new {
                count(&wanted.entry.counters.fills_committed);
            }
        } else if is_new {
            count(&wanted.entry.counters.fills_not_kept);
        }
        // What was remembered of an expired copy has expired with it; a copy that is replaced before its time is taken back.
        if applied
            && before.is_some_and(|before| self.is_superseded(&wanted, &before, record.as_deref()))
        {
            wanted.entry.bump();
        }
        self.flights.remove(&flight);
    }

    /// Whether nothing more is to be written but what frees space.
    pub(crate) fn is_disk_low(&self) -> bool {
        self.blobs.free_space().is_ok_and(|space| space.is_low())
    }

    /// Remembers what brings no bytes; on a nearly full disk in memory only.
    pub(crate) async fn remember(
        &self,
        key: &SourceKey,
        record: Arc<ArtifactRecord>,
    ) -> Result<(), StorageError> {
        if !self.is_disk_low() {
            let change = Change::PutRecord {
                key: key.clone(),
                record: ArtifactRecord::clone(&record),
                blob: None,
            };
            self.metadata.apply(vec![change]).await?;
        }
        self.absences.remove(key);
        self.records.put(key.clone(), record);
        Ok(())
    }

    /// Whether a copy that was still fresh has given way to other bytes, or to none.
    fn is_superseded(
        &self,
        wanted: &Wanted,
        before: &ArtifactRecord,
        after: Option<&ArtifactRecord>,
    ) -> bool {
        let until = fresh_until(
            before,
            wanted.class_of(before),
            &wanted.entry.repository.cache,
        );
        let was_fresh = before.blob().is_some() && until.is_none_or(|until| self.now() < until);
        was_fresh && after.is_none_or(|after| after.blob() != before.blob())
    }
}

fn changes_of(prepared: &Prepared) -> impl Iterator<Item = Change> {
    let key = prepared.key.clone();
    let put = |key, record| Change::PutRecord {
        key,
        record,
        blob: prepared.blob.clone(),
    };
    let (change, also) = match (&prepared.record, &prepared.also) {
        (Some(record), Some(also)) => (
            put(key, ArtifactRecord::clone(record)),
            Some(put(also.clone(), by_digest(record))),
        ),
        (Some(record), None) => (put(key, ArtifactRecord::clone(record)), None),
        (None, _) => (Change::DeleteRecord { key }, None),
    };
    [Some(change), also].into_iter().flatten()
}

/// The same bytes under their digest's name, which they have just been found to have.
fn by_digest(record: &ArtifactRecord) -> ArtifactRecord {
    ArtifactRecord {
        verified: true,
        ..record.clone()
    }
}
