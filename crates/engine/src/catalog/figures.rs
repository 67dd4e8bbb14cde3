//! What larder counts itself, and what it was asked for and does not hold: written down and read again (docs/adr/0099).

use larder_core::{RepositoryName, SourceKey, UnixMillis};
use larder_storage::{AskedFor, AskedRow, FigureRow, StorageError, UsedRow};

use super::asked::{MOST_ASKED, NotHeld, Times};
use super::state::Catalog;

impl Catalog {
    /// Something was asked for that was not answered from what is held, if there is a `why`. Written down later, if it is not held then.
    pub(crate) fn note_asked(&self, key: &SourceKey, why: Option<NotHeld>) {
        if let Some(why) = why {
            let now = self.now();
            let once = Times {
                requests: 1,
                first: now,
                last: now,
            };
            self.asked.note(key, once, why);
        }
    }

    /// Something is held no longer that was used so: what it was asked for then will be asked of the upstream.
    pub(crate) fn note_gone(&self, key: &SourceKey, used: &UsedRow, why: NotHeld) {
        let times = Times {
            requests: used.served.max(1),
            first: used.updated_at.min(used.used_at),
            last: used.used_at,
        };
        self.asked.note(key, times, why);
    }

    /// Writes down what was asked for. What cannot be written is forgotten: it will be asked for again.
    ///
    /// # Errors
    /// The database does not take it.
    pub(crate) async fn write_asked(&self) -> Result<(), StorageError> {
        for (repository, staged) in self.asked.take() {
            let rows = staged
                .iter()
                .map(|((path, variant), (times, why))| AskedFor {
                    path,
                    variant,
                    requests: times.requests,
                    first_at: times.first,
                    last_at: times.last,
                    why: why.as_str(),
                });
            let rows: Vec<_> = rows.collect();
            let added = self
                .metadata
                .add_asked(repository.as_str(), &rows, MOST_ASKED);
            added.await?;
        }
        Ok(())
    }

    /// What a repository was asked for since a moment and does not hold, the last first.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn asked(
        &self,
        repository: &RepositoryName,
        since: UnixMillis,
    ) -> Result<Vec<AskedRow>, StorageError> {
        let asked = self.metadata.asked(repository.as_str(), since, MOST_ASKED);
        asked.await
    }

    /// Up to `limit` records of a repository that have bytes and had expired by `now`.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn expired(
        &self,
        repository: &RepositoryName,
        now: UnixMillis,
        limit: u32,
    ) -> Result<Vec<UsedRow>, StorageError> {
        let unused = UnixMillis(i64::MAX);
        let expired = self
            .metadata
            .expired(repository.as_str(), now, unused, limit);
        expired.await
    }

    /// What a repository holds and was asked for since a moment, the last first: what a flush takes away. No more than are remembered.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn used_since(
        &self,
        repository: &RepositoryName,
        since: UnixMillis,
    ) -> Result<Vec<UsedRow>, StorageError> {
        let used = self
            .metadata
            .used_since(repository.as_str(), since, MOST_ASKED);
        used.await
    }

    /// Forgets what was asked for last before a moment.
    ///
    /// # Errors
    /// The database does not take it.
    pub(crate) async fn forget_asked(&self, before: UnixMillis) -> Result<(), StorageError> {
        self.metadata.forget_asked(before).await
    }

    /// Adds to points of what was counted.
    ///
    /// # Errors
    /// The database does not take it.
    pub(crate) async fn add_figures(
        &self,
        rows: &[(String, i64, FigureRow)],
    ) -> Result<(), StorageError> {
        self.metadata.add_figures(rows, self.now()).await
    }

    /// The points of a repository (empty: of all together) of so many seconds that begin at a moment or later.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn figures(
        &self,
        repository: &str,
        step: i64,
        from: UnixMillis,
    ) -> Result<Vec<FigureRow>, StorageError> {
        self.metadata.figures(repository, step, from).await
    }

    /// Deletes the points of so many seconds that begin before a moment.
    ///
    /// # Errors
    /// The database does not take it.
    pub(crate) async fn forget_figures(
        &self,
        step: i64,
        before: UnixMillis,
    ) -> Result<(), StorageError> {
        self.metadata.forget_figures(step, before).await
    }
}
