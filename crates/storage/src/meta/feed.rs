//! The change feed: what one user of the database has changed, for the others, so that what they hold in memory does not outlive it.
//!
//! Users of one [`MetadataStore`] (and of its clones) hear of each other at once. Where several programs share the database's file
//! ([`MetadataStore::share`]), the changes are also written into a table, in the transaction that makes them, and read from there.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::atomic::{AtomicI64, Ordering};

use larder_core::{Digest, RepositoryName, SourceKey};
use tokio::sync::broadcast;

use super::db::{DbError, Row};
use super::{Durability, MetadataStore, Tx, parse_digest};
use crate::error::StorageError;
use crate::shared::Bell;

/// Notices that a slow listener may be behind before it is told that it has missed some.
const BACKLOG: usize = 4_096;
/// Rows that are kept: who is further behind has missed some.
const KEPT: i64 = 20_000;
/// So many rows are read at once.
const PAGE: i64 = 1_000;

const NEWEST: &str = "SELECT COALESCE(MAX(sequence), 0) FROM changes";
const OLDEST: &str = "SELECT COALESCE(MIN(sequence), 0) FROM changes";
const NOTE: &str = "INSERT INTO changes (writer, kind, repository, path, variant, blob) VALUES ($1, $2, $3, $4, $5, $6)";
const PRUNE: &str =
    "DELETE FROM changes WHERE sequence <= (SELECT MAX(sequence) FROM changes) - $1";
const AFTER: &str = "SELECT sequence, writer, kind, repository, path, variant, blob FROM changes \
     WHERE sequence > $1 ORDER BY sequence LIMIT $2";

/// One user of the database: it does not hear of what it has changed itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writer(u64);

impl Writer {
    /// A user that nobody else is.
    pub fn unique() -> Self {
        // Keyed at random for each process and each call.
        Self(RandomState::new().build_hasher().finish())
    }
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Something that has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A record was written or deleted.
    Record {
        /// Which.
        key: SourceKey,
        /// The bytes that it tells of now; `None`: of none, or it is gone.
        blob: Option<Digest>,
    },
    /// What was made of a repository's records before is no longer to be served.
    Superseded(RepositoryName),
    /// Copies of a repository were flushed: what is under way was asked before, and absences are forgotten.
    Flushed(RepositoryName),
}

/// What a listener hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// These have changed, in this order.
    Notices(Vec<Notice>),
    /// Some notices were missed: anything may have changed.
    Missed,
}

type Sent = (Writer, Vec<Notice>);

/// The feed of a store, among its users in this process.
#[derive(Debug)]
pub(super) struct Feed(broadcast::Sender<Sent>);

impl Default for Feed {
    fn default() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }
}

/// Hears what others than `writer` change.
#[derive(Debug)]
pub struct Listener {
    store: MetadataStore,
    writer: Writer,
    within: broadcast::Receiver<Sent>,
    /// The last row that was read.
    last: AtomicI64,
}

impl MetadataStore {
    /// From now on changes are also written down for other programs over the same file. To be called before anybody listens.
    pub fn share(&self) {
        self.shared.is_shared.store(true, Ordering::Release);
    }

    /// Whether changes are written down for other programs.
    pub fn is_shared(&self) -> bool {
        self.shared.is_shared.load(Ordering::Acquire)
    }

    /// Listens to what others change from now on.
    pub fn listen(&self, writer: Writer) -> Listener {
        Listener {
            store: self.clone(),
            writer,
            within: self.shared.feed.0.subscribe(),
            last: AtomicI64::new(-1),
        }
    }

    /// Tells the other users in this process.
    pub(super) fn tell(&self, writer: Writer, notices: impl FnOnce() -> Vec<Notice>) {
        if self.is_shared() {
            self.bells().committed();
        }
        // With one user there is nobody to tell.
        if self.shared.feed.0.receiver_count() > 1 {
            let _ = self.shared.feed.0.send((writer, notices()));
        }
    }

    /// Tells the others of something that no change of a record tells them.
    ///
    /// # Errors
    /// It could not be written down for other programs.
    pub async fn announce(&self, writer: Writer, notices: Vec<Notice>) -> Result<(), StorageError> {
        if self.is_shared() && !notices.is_empty() {
            let written = self.write_notices(writer, &notices).await;
            self.noticed(written)?;
        }
        self.tell(writer, || notices);
        Ok(())
    }

    async fn write_notices(&self, writer: Writer, notices: &[Notice]) -> Result<(), StorageError> {
        let failed = |error| StorageError::from_sql("note what has changed", error);
        let mut tx = self.db().begin(Durability::Grouped).await.map_err(failed)?;
        note(&mut tx, writer, notices).await?;
        tx.commit().await.map_err(failed)
    }
}

/// Writes notices down, in the transaction of what they tell of.
pub(super) async fn note(
    tx: &mut Tx,
    writer: Writer,
    notices: &[Notice],
) -> Result<(), StorageError> {
    let failed = |error| StorageError::from_sql("note what has changed", error);
    for notice in notices {
        let (kind, repository, path, variant, blob) = match notice {
            Notice::Record { key, blob } => (
                "record",
                &key.repository,
                &*key.path,
                &*key.variant,
                blob.as_ref().map_or_else(String::new, ToString::to_string),
            ),
            Notice::Superseded(repository) => ("superseded", repository, "", "", String::new()),
            Notice::Flushed(repository) => ("flushed", repository, "", "", String::new()),
        };
        let values = [
            writer.to_string().into(),
            kind.into(),
            repository.as_str().into(),
            path.into(),
            variant.into(),
            blob.into(),
        ];
        tx.execute(NOTE, &values).await.map_err(failed)?;
    }
    tx.execute(PRUNE, &[KEPT.into()]).await.map_err(failed)?;
    Ok(())
}

/// A row of the table as it is read: number, writer, kind, repository, path, variant, blob.
type Noted = (i64, String, String, String, String, String, String);

fn noted(row: &Row) -> Result<Noted, DbError> {
    Ok((
        row.get(0)?,
        row.get(1)?,
        row.get(2)?,
        row.get(3)?,
        row.get(4)?,
        row.get(5)?,
        row.get(6)?,
    ))
}

impl Listener {
    /// Rings when other programs may have written something down, which [`poll`](Self::poll) then tells.
    pub fn bell(&self) -> Bell {
        self.store.bells().bell()
    }

    /// Whether other programs may use the database, so that [`poll`](Self::poll) has something to tell.
    pub fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    /// Waits for what another user of this store in this process changes.
    pub async fn next(&mut self) -> Heard {
        loop {
            match self.within.recv().await {
                Ok((writer, _)) if writer == self.writer => {}
                Ok((_, notices)) => return Heard::Notices(notices),
                Err(broadcast::error::RecvError::Lagged(_)) => return Heard::Missed,
                // The store is held by this listener, so the feed does not end.
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    /// What other programs have written down since the last call; the first call finds nothing, and marks the place.
    ///
    /// # Errors
    /// The database does not answer: nothing was missed, and the next call tells.
    pub async fn poll(&self) -> Result<Heard, StorageError> {
        let failed = |error| StorageError::from_sql("read what has changed", error);
        let db = self.store.db();
        let last = self.last.load(Ordering::Acquire);
        if last < 0 {
            let newest = db.one(NEWEST, &[]).await.and_then(|row| row.get(0));
            let newest: i64 = newest.map_err(failed)?;
            self.last.store(newest, Ordering::Release);
            return Ok(Heard::Notices(Vec::new()));
        }
        let rows = db.all(AFTER, &[last.into(), PAGE.into()]).await;
        let rows = rows.and_then(|rows| rows.iter().map(noted).collect::<Result<Vec<_>, _>>());
        let rows: Vec<Noted> = rows.map_err(failed)?;
        let Some(newest) = rows.last().map(|row| row.0) else {
            return Ok(Heard::Notices(Vec::new()));
        };
        let oldest = db.one(OLDEST, &[]).await.and_then(|row| row.get(0));
        let oldest: i64 = oldest.map_err(failed)?;
        self.last.store(newest, Ordering::Release);
        if oldest > last + 1 {
            return Ok(Heard::Missed);
        }
        let own = self.writer.to_string();
        let notices: Option<Vec<Notice>> = rows
            .into_iter()
            .filter(|row| row.1 != own)
            .map(notice)
            .collect();
        // What cannot be read may be anything.
        Ok(notices.map_or(Heard::Missed, Heard::Notices))
    }
}

fn notice((_, _, kind, repository, path, variant, blob): Noted) -> Option<Notice> {
    let repository = RepositoryName::parse(&repository).ok()?;
    match &*kind {
        "record" => Some(Notice::Record {
            key: SourceKey {
                repository,
                path: path.into(),
                variant: variant.into(),
            },
            blob: match &*blob {
                "" => None,
                text => Some(parse_digest(text).ok()?),
            },
        }),
        "superseded" => Some(Notice::Superseded(repository)),
        "flushed" => Some(Notice::Flushed(repository)),
        _ => None,
    }
}
