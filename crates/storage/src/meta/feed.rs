//! The change feed: what one user of the database has changed, for the others, so that what they hold in memory does not outlive it.
//!
//! Users of one [`MetadataStore`] (and of its clones) hear of each other at once. Where several programs share the database
//! ([`MetadataStore::share`]), the changes are also written into a table, in the transaction that makes them, and read from there.
//!
//! The numbers of the rows become visible in their order, without gaps: SQLite has one writer at a time, and in PostgreSQL whoever notes
//! changes takes the numbers from a row that stays locked until the commit. So a reader that goes on after the last number that it has
//! read passes over nothing. A server that is restored, or whose standby takes over without its last commits, gives numbers again: the
//! reader knows the row that it read last by its time, and if that is no longer there it has missed something (docs/adr/0079).

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use larder_core::{Digest, RepositoryName, SourceKey};
use tokio::sync::broadcast;

use super::db::{DbError, Row, Sql, Value};
use super::patience::{Obstacle, Patience};
use super::{Durability, MetadataStore, parse_digest};
use crate::error::StorageError;
use crate::shared::Bell;

/// Notices that a slow listener may be behind before it is told that it has missed some.
const BACKLOG: usize = 4_096;
/// Rows that are kept: who is further behind has missed some.
const KEPT: i64 = 20_000;
/// So many rows are read at once.
const PAGE: i64 = 1_000;

const NEWEST: Sql = Sql {
    sqlite: "SELECT sequence, 0 FROM changes ORDER BY sequence DESC LIMIT 1",
    postgres: "SELECT sequence, noted_at FROM changes ORDER BY sequence DESC LIMIT 1",
};
const NOTE: Sql = Sql {
    sqlite: "INSERT INTO changes (writer, kind, repository, path, variant, blob) VALUES ($1, $2, $3, $4, $5, $6)",
    postgres: "WITH taken AS (UPDATE feed SET sequence = sequence + 1 WHERE id = 1 RETURNING sequence) \
         INSERT INTO changes (sequence, noted_at, writer, kind, repository, path, variant, blob) \
         SELECT sequence, CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT), $1, $2, $3, $4, $5, $6 FROM taken",
};
const PRUNE: &str =
    "DELETE FROM changes WHERE sequence <= (SELECT MAX(sequence) FROM changes) - $1";
/// The row that was read last comes first again: that it is still there says that nothing was missed.
const FROM: Sql = Sql {
    sqlite: "SELECT sequence, 0, writer, kind, repository, path, variant, blob FROM changes \
         WHERE sequence >= $1 ORDER BY sequence LIMIT $2",
    postgres: "SELECT sequence, noted_at, writer, kind, repository, path, variant, blob FROM changes \
         WHERE sequence >= $1 ORDER BY sequence LIMIT $2",
};

/// One user of the database: it does not hear of what it has changed itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writer(u64);

impl Writer {
    /// A user that nobody else is.
    pub fn unique() -> Self {
        // Keyed at random for each process and each call.
        Self(RandomState::new().build_hasher().finish())
    }

    pub(super) fn number(self) -> u64 {
        self.0
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
    /// Many records of a repository are gone: whatever is known of any of them has to be read again.
    Records(RepositoryName),
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

/// A row of the table: its number, and when the server noted it. Before the first row both are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    sequence: i64,
    noted_at: i64,
}

/// Hears what others than `writer` change.
#[derive(Debug)]
pub struct Listener {
    store: MetadataStore,
    writer: Writer,
    within: broadcast::Receiver<Sent>,
    /// The last row that was read, once the first call has marked the place.
    last: Mutex<Option<Place>>,
}

impl MetadataStore {
    /// From now on changes are also written down for other programs over the same database. To be called before anybody listens.
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
            last: Mutex::default(),
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
        const NOTING: &str = "note what has changed";
        let mut patience = Patience::default();
        loop {
            let written = async {
                let tx = self.db().begin(Durability::Grouped).await?;
                tx.commit_with(&noting(writer, notices)).await
            };
            match written.await {
                Ok(()) => return Ok(()),
                Err(error) => patience.after(Obstacle::of(NOTING, error), NOTING).await?,
            }
        }
    }
}

/// The statements that write notices down, for the end of the transaction of what they tell of.
pub(super) fn noting(writer: Writer, notices: &[Notice]) -> Vec<(Sql, Vec<Value<'_>>)> {
    if notices.is_empty() {
        return Vec::new();
    }
    let prune = (Sql::from(PRUNE), vec![KEPT.into()]);
    let notes = notices.iter().map(|notice| note(writer, notice));
    notes.chain([prune]).collect()
}

fn note(writer: Writer, notice: &Notice) -> (Sql, Vec<Value<'_>>) {
    let (kind, repository, path, variant, blob) = match notice {
        Notice::Record { key, blob } => (
            "record",
            &key.repository,
            &*key.path,
            &*key.variant,
            blob.as_ref().map_or_else(String::new, ToString::to_string),
        ),
        Notice::Records(repository) => ("records", repository, "", "", String::new()),
        Notice::Superseded(repository) => ("superseded", repository, "", "", String::new()),
        Notice::Flushed(repository) => ("flushed", repository, "", "", String::new()),
    };
    let values = vec![
        writer.to_string().into(),
        kind.into(),
        repository.as_str().into(),
        path.into(),
        variant.into(),
        blob.into(),
    ];
    (NOTE, values)
}

/// A row of the table as it is read: place, writer, kind, repository, path, variant, blob.
type Noted = (Place, String, String, String, String, String, String);

fn place(row: &Row) -> Result<Place, DbError> {
    Ok(Place {
        sequence: row.get(0)?,
        noted_at: row.get(1)?,
    })
}

fn noted(row: &Row) -> Result<Noted, DbError> {
    Ok((
        place(row)?,
        row.get(2)?,
        row.get(3)?,
        row.get(4)?,
        row.get(5)?,
        row.get(6)?,
        row.get(7)?,
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

    async fn mark_newest(&self) -> Result<(), DbError> {
        let row = self.store.db().optional(NEWEST, &[]).await?;
        let newest = row.as_ref().map(place).transpose()?;
        let newest = newest.unwrap_or(Place {
            sequence: 0,
            noted_at: 0,
        });
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(newest);
        Ok(())
    }

    /// What other programs have written down since the last call; the first call finds nothing, and marks the place.
    ///
    /// # Errors
    /// The database does not answer: nothing was missed, and the next call tells.
    pub async fn poll(&self) -> Result<Heard, StorageError> {
        let failed = |error| StorageError::from_sql("read what has changed", error);
        let Some(last) = *self.last.lock().unwrap_or_else(PoisonError::into_inner) else {
            self.mark_newest().await.map_err(failed)?;
            return Ok(Heard::Notices(Vec::new()));
        };
        let from = last.sequence.max(1);
        let rows = self.store.db().all(FROM, &[from.into(), PAGE.into()]).await;
        let rows = rows.and_then(|rows| rows.iter().map(noted).collect::<Result<Vec<_>, _>>());
        let mut rows: Vec<Noted> = rows.map_err(failed)?;
        let is_whole = match rows.first() {
            None => last.sequence == 0,
            Some((first, ..)) if last.sequence == 0 => first.sequence == 1,
            Some((first, ..)) => *first == last,
        };
        if !is_whole {
            // Marked first: what is written while everything is thrown away is read the next time.
            self.mark_newest().await.map_err(failed)?;
            return Ok(Heard::Missed);
        }
        if last.sequence > 0 {
            rows.remove(0);
        }
        let Some((newest, ..)) = rows.last() else {
            return Ok(Heard::Notices(Vec::new()));
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(*newest);
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
        "records" => Some(Notice::Records(repository)),
        "superseded" => Some(Notice::Superseded(repository)),
        "flushed" => Some(Notice::Flushed(repository)),
        _ => None,
    }
}
