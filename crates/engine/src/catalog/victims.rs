//! Which records go next: those of repositories that are configured no more, then those that have expired and that nobody has asked for
//! since, then those that were used least recently, of several repositories together.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use larder_core::{RepositoryName, SourceKey, UnixMillis};
use larder_storage::{MetadataStore, StorageError, UsedRow};

use super::uses::Uses;

/// Rows that are read together.
const PAGE: u32 = 256;
/// Expired ones of a repository that go before others, each time that room is made.
const EXPIRED: u32 = 2_000;
/// What has expired goes before its turn if nobody has asked for it for so long: of a document that is asked for again and again, the next
/// one who asks renews the copy.
const EXPIRED_UNUSED: Duration = Duration::from_mins(10);

/// A record that goes, and what is known of its use.
pub(super) type Victim = (SourceKey, UsedRow);

/// One repository's records in the order of their use.
struct Queue {
    repository: RepositoryName,
    rows: VecDeque<UsedRow>,
    last: Option<UsedRow>,
}

/// Where in the order of things to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Those of these repositories that are configured no more.
    Abandoned,
    Expired(usize),
    LeastUsed,
}

pub(super) struct Victims<'a> {
    metadata: &'a MetadataStore,
    uses: &'a Uses,
    now: UnixMillis,
    phase: Phase,
    abandoned: Vec<Queue>,
    queues: Vec<Queue>,
    /// The next row of each queue: when it was used, and which queue's.
    next: BinaryHeap<Reverse<(i64, usize)>>,
    is_filled: bool,
}

impl<'a> Victims<'a> {
    /// Of the repositories with these names; of each whether it is configured.
    pub(super) fn new(
        metadata: &'a MetadataStore,
        uses: &'a Uses,
        names: &[(String, bool)],
        now: UnixMillis,
    ) -> Self {
        let (mut abandoned, mut queues) = (Vec::new(), Vec::new());
        for (name, is_configured) in names {
            let Ok(repository) = RepositoryName::parse(name) else {
                continue;
            };
            let queue = Queue {
                repository,
                rows: VecDeque::new(),
                last: None,
            };
            if *is_configured {
                queues.push(queue);
            } else {
                abandoned.push(queue);
            }
        }
        Self {
            metadata,
            uses,
            now,
            phase: Phase::Abandoned,
            abandoned,
            queues,
            next: BinaryHeap::new(),
            is_filled: false,
        }
    }

    /// The next ones, of so many bytes together if there are as many, and at most `most`. None, if nothing more may go. They are to be dropped
    /// at once: no answer that is remembered of them holds any more.
    pub(super) async fn next(
        &mut self,
        bytes: u64,
        most: usize,
    ) -> Result<Vec<Victim>, StorageError> {
        let mut batch: Vec<Victim> = Vec::new();
        let mut left = bytes;
        while batch.len() < most && left > 0 {
            let Some((repository, row)) = self.row().await? else {
                break;
            };
            let (path, variant) = row.key.clone();
            let key = SourceKey {
                repository,
                path: path.into(),
                variant: variant.into(),
            };
            // One that has expired comes once more in its turn.
            let is_chosen = batch.iter().any(|(chosen, ..)| *chosen == key);
            if !is_chosen && self.uses.let_go(&key, row.used_at) {
                left = left.saturating_sub(row.size.max(1));
                batch.push((key, row));
            }
        }
        Ok(batch)
    }

    async fn row(&mut self) -> Result<Option<(RepositoryName, UsedRow)>, StorageError> {
        loop {
            match self.phase {
                Phase::Abandoned => match self.abandoned.last_mut() {
                    None => self.phase = Phase::Expired(0),
                    Some(queue) => match queue.pop(self.metadata).await? {
                        Some(row) => return Ok(Some((queue.repository.clone(), row))),
                        None => drop(self.abandoned.pop()),
                    },
                },
                Phase::Expired(index) => {
                    if let Some(row) = self.expired(index).await? {
                        return Ok(Some(row));
                    }
                }
                Phase::LeastUsed => return self.least_used().await,
            }
        }
    }

    /// The next expired record of a repository; `None`: it has no more, and another one is the next.
    async fn expired(
        &mut self,
        index: usize,
    ) -> Result<Option<(RepositoryName, UsedRow)>, StorageError> {
        let Some(queue) = self.queues.get_mut(index) else {
            self.phase = Phase::LeastUsed;
            return Ok(None);
        };
        if queue.last.is_none() {
            let unused = before(self.now, EXPIRED_UNUSED);
            let name = queue.repository.as_str();
            let rows = self
                .metadata
                .expired(name, self.now, unused, EXPIRED)
                .await?;
            queue.last = rows.last().cloned();
            queue.rows = rows.into();
        }
        if let Some(row) = queue.rows.pop_front() {
            return Ok(Some((queue.repository.clone(), row)));
        }
        queue.last = None;
        self.phase = Phase::Expired(index + 1);
        Ok(None)
    }

    async fn least_used(&mut self) -> Result<Option<(RepositoryName, UsedRow)>, StorageError> {
        if !self.is_filled {
            self.is_filled = true;
            for (index, queue) in self.queues.iter_mut().enumerate() {
                if let Some(used_at) = queue.peek(self.metadata).await? {
                    self.next.push(Reverse((used_at.0, index)));
                }
            }
        }
        let Some(Reverse((_, index))) = self.next.pop() else {
            return Ok(None);
        };
        let Some(queue) = self.queues.get_mut(index) else {
            return Ok(None);
        };
        let row = queue.pop(self.metadata).await?;
        if let Some(used_at) = queue.peek(self.metadata).await? {
            self.next.push(Reverse((used_at.0, index)));
        }
        Ok(row.map(|row| (queue.repository.clone(), row)))
    }
}

impl Queue {
    async fn fill(&mut self, metadata: &MetadataStore) -> Result<(), StorageError> {
        if self.rows.is_empty() {
            let name = self.repository.as_str();
            let rows = metadata.least_used(name, self.last.as_ref(), PAGE).await?;
            self.last = rows.last().cloned().or(self.last.take());
            self.rows = rows.into();
        }
        Ok(())
    }

    async fn peek(&mut self, metadata: &MetadataStore) -> Result<Option<UnixMillis>, StorageError> {
        self.fill(metadata).await?;
        Ok(self.rows.front().map(|row| row.used_at))
    }

    async fn pop(&mut self, metadata: &MetadataStore) -> Result<Option<UsedRow>, StorageError> {
        self.fill(metadata).await?;
        Ok(self.rows.pop_front())
    }
}

fn before(now: UnixMillis, by: Duration) -> UnixMillis {
    let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
    UnixMillis(now.0.saturating_sub(by))
}
