//! What is to be committed, and the way there.

use std::fmt::Debug;
use std::sync::Arc;

use larder_core::{ArtifactRecord, SourceKey, UnixMillis};
use larder_storage::SealedSpool;
use tokio::sync::{mpsc, oneshot};

use crate::budget::Lease;
use crate::repositories::RepositoryState;
use crate::target::Target;

/// Who waits for a commit to become visible: until then, newcomers join it.
pub(crate) trait Landing: Debug + Send + Sync {
    /// Whether a flush has overtaken it: then nothing is committed.
    fn is_flushed(&self) -> bool;
    /// Whether a document that has become visible meanwhile states other bytes: what comes of this is not trusted.
    fn is_restated(&self) -> bool;
    /// Its record is visible, or never will be.
    fn landed(&self);
    /// The request that it was begun for.
    fn span(&self) -> &tracing::Span;
}

/// What is to become durable.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) wanted: Arc<Target>,
    pub(crate) landing: Arc<dyn Landing>,
    pub(crate) change: RecordChange,
    /// The record that this one replaces.
    pub(crate) replaces: Option<Arc<ArtifactRecord>>,
}

impl Commit {
    /// Whether it brings bytes, in an open file.
    pub(super) fn is_of_bytes(&self) -> bool {
        matches!(self.change, RecordChange::Store { .. })
    }
}

#[derive(Debug)]
pub(crate) enum RecordChange {
    /// New bytes with their record.
    Store {
        record: Arc<ArtifactRecord>,
        spool: SealedSpool,
        /// The source that names the same bytes by their digest, to be remembered along with this one, and its record.
        also: Option<(SourceKey, Arc<ArtifactRecord>)>,
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

/// Commits that become visible together, with what they supersede.
#[derive(Default)]
pub(crate) struct Batch<'a> {
    pub(crate) commits: Vec<Commit>,
    /// Held files that a new document contradicts: dropped with the commits and before them.
    pub(crate) contradicted: &'a [SourceKey],
    /// Downloads of files of which a new document states other bytes are told so by this; it gives whether there were any.
    pub(crate) restate: Option<&'a (dyn Fn() -> bool + Send + Sync)>,
    /// Whose files they are.
    pub(crate) entry: Option<&'a RepositoryState>,
}

#[derive(Debug)]
pub(super) enum Message {
    /// Commits that become visible together, and the places of their open files.
    Commits(Vec<Commit>, Vec<Lease>),
    Barrier(oneshot::Sender<()>),
}

/// The way to the commit task.
#[derive(Debug)]
pub(super) struct CommitQueue(pub(super) mpsc::UnboundedSender<Message>);

impl CommitQueue {
    pub(super) fn new(sender: mpsc::UnboundedSender<Message>) -> Self {
        Self(sender)
    }
}
