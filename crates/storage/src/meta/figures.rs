//! What larder counts itself, in points of a length: each process adds what it has counted to the same rows (docs/adr/0099).

use larder_core::UnixMillis;

use super::db::{Durability, Row, Sql, Value};
use super::{DbError, MetadataStore};
use crate::error::StorageError;

/// Adds rows of a list `[[repository, step, at, [figures…], stored, free, now, point], …]`.
const ADD: Sql = Sql {
    sqlite: "INSERT INTO figures (repository, step, at, requests, hits, misses, stale, errors, refused, served, fetched, stored, free, began_at, point) \
         SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'), json_extract(value, '$[3][0]'), \
         json_extract(value, '$[3][1]'), json_extract(value, '$[3][2]'), json_extract(value, '$[3][3]'), json_extract(value, '$[3][4]'), \
         json_extract(value, '$[3][5]'), json_extract(value, '$[3][6]'), json_extract(value, '$[3][7]'), json_extract(value, '$[4]'), \
         json_extract(value, '$[5]'), json_extract(value, '$[6]'), json_extract(value, '$[7]') FROM json_each($1) WHERE TRUE \
         ON CONFLICT (repository, point) DO UPDATE SET requests = figures.requests + excluded.requests, hits = figures.hits + excluded.hits, \
         misses = figures.misses + excluded.misses, stale = figures.stale + excluded.stale, errors = figures.errors + excluded.errors, \
         refused = figures.refused + excluded.refused, served = figures.served + excluded.served, \
         fetched = figures.fetched + excluded.fetched, stored = COALESCE(excluded.stored, figures.stored), \
         free = COALESCE(excluded.free, figures.free)",
    postgres: "INSERT INTO figures (repository, step, at, requests, hits, misses, stale, errors, refused, served, fetched, stored, free, began_at, point) \
         SELECT k ->> 0, (k ->> 1)::bigint, (k ->> 2)::bigint, (k #>> '{3,0}')::bigint, (k #>> '{3,1}')::bigint, (k #>> '{3,2}')::bigint, \
         (k #>> '{3,3}')::bigint, (k #>> '{3,4}')::bigint, (k #>> '{3,5}')::bigint, (k #>> '{3,6}')::bigint, (k #>> '{3,7}')::bigint, \
         (k ->> 4)::bigint, (k ->> 5)::bigint, (k ->> 6)::bigint, k ->> 7 FROM json_array_elements($1::json) AS k \
         ON CONFLICT (repository, point) DO UPDATE SET requests = figures.requests + excluded.requests, hits = figures.hits + excluded.hits, \
         misses = figures.misses + excluded.misses, stale = figures.stale + excluded.stale, errors = figures.errors + excluded.errors, \
         refused = figures.refused + excluded.refused, served = figures.served + excluded.served, \
         fetched = figures.fetched + excluded.fetched, stored = COALESCE(excluded.stored, figures.stored), \
         free = COALESCE(excluded.free, figures.free)",
};
const READ: &str = "SELECT at, requests, hits, misses, stale, errors, refused, served, fetched, stored, free, began_at \
     FROM figures WHERE repository = $1 AND point >= $2 AND point <= $3 ORDER BY point";
const FORGET: &str = "DELETE FROM figures WHERE step = $1 AND at < $2";

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Requests that were answered, whatever with.
    pub requests: u64,
    /// Of them those that were answered from a held copy.
    pub hits: u64,
    /// Those for which an upstream was asked, or that joined one for which it was.
    pub misses: u64,
    /// Those that were answered from a copy that had expired, because the upstream failed or took too long.
    pub stale: u64,
    /// Those that were answered with a 5xx.
    pub errors: u64,
    /// Those that rules or quarantine refused.
    pub refused: u64,
    /// Bytes of bodies handed to clients.
    pub served_bytes: u64,
    /// Bytes of bodies received from upstreams.
    pub fetched_bytes: u64,
}

impl Figures {
    /// Which part of the requests that could be answered from a held copy were; `None`: there were none.
    pub fn hit_ratio(&self) -> Option<f64> {
        let held = self.hits + self.stale;
        let all = held + self.misses;
        (all > 0).then(|| held as f64 / all as f64)
    }

    /// Bytes that clients got and upstreams did not have to send. Negative where more was fetched than was asked for.
    pub fn saved_bytes(&self) -> i64 {
        let signed = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        signed(self.served_bytes).saturating_sub(signed(self.fetched_bytes))
    }

    /// Whether nothing was counted.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        self.each(more, u64::saturating_add)
    }

    /// What has come since counters stood at `before`. One that has fallen was set to zero in between: it counts from there.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        self.each(before, |now, before| now.checked_sub(before).unwrap_or(now))
    }

    fn each(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        let (mine, theirs) = (self.list(), other.list());
        Self::from_list(std::array::from_fn(|place| of(mine[place], theirs[place])))
    }

    fn list(self) -> [u64; 8] {
        [
            self.requests,
            self.hits,
            self.misses,
            self.stale,
            self.errors,
            self.refused,
            self.served_bytes,
            self.fetched_bytes,
        ]
    }

    fn from_list(list: [u64; 8]) -> Self {
        let [
            requests,
            hits,
            misses,
            stale,
            errors,
            refused,
            served_bytes,
            fetched_bytes,
        ] = list;
        Self {
            requests,
            hits,
            misses,
            stale,
            errors,
            refused,
            served_bytes,
            fetched_bytes,
        }
    }
}

/// One point.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FigureRow {
    /// Where it begins; of the sum of all zero.
    pub at: UnixMillis,
    /// What was counted.
    pub figures: Figures,
    /// Bytes that are held, as was known last.
    pub stored: Option<u64>,
    /// Bytes that may still be written, as was known last.
    pub free: Option<u64>,
    /// When the row was made; not looked at where one is added.
    pub began_at: UnixMillis,
}

/// The length of the point that is the sum of all.
pub const SINCE_THE_BEGINNING: i64 = 0;

impl MetadataStore {
    /// Adds to points, each of a repository (empty: of all together) and of so many seconds. A repository's and point's row is named
    /// once. Whatever other processes add stays.
    ///
    /// # Errors
    /// The database does not take it: then nothing was added, unless the connection broke off at the very end.
    pub async fn add_figures(
        &self,
        rows: &[(String, i64, FigureRow)],
        now: UnixMillis,
    ) -> Result<(), StorageError> {
        let bounded = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let mut list: Vec<_> = rows
            .iter()
            .map(|(repository, step, row)| {
                let figures = row.figures.list().map(bounded);
                let (stored, free) = (row.stored.map(bounded), row.free.map(bounded));
                (
                    repository,
                    step,
                    row.at.0,
                    figures,
                    stored,
                    free,
                    now.0,
                    point(*step, row.at.0),
                )
            })
            .collect();
        // Whoever locks several rows does so in their order.
        list.sort_unstable();
        // Texts and numbers are all that is in it, and those can be written.
        let list = serde_json::to_string(&list).unwrap_or_default();
        let added = async {
            let mut tx = self.db().begin(Durability::Grouped).await?;
            tx.execute(ADD, &[list.into()]).await?;
            tx.commit().await
        };
        self.noticed(added.await.map_err(failed))
    }

    /// The points of a repository (empty: of all together) of so many seconds that begin at a moment or later, in their order.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn figures(
        &self,
        repository: &str,
        step: i64,
        from: UnixMillis,
    ) -> Result<Vec<FigureRow>, StorageError> {
        let (first, last) = (point(step, from.0), point(step, i64::MAX));
        let values = [repository.into(), first.into(), last.into()];
        let rows = self.db().all(READ, &values).await;
        let rows = rows.and_then(|rows| rows.iter().map(read).collect());
        self.noticed(rows.map_err(failed))
    }

    /// Deletes the points of so many seconds that begin before a moment.
    ///
    /// # Errors
    /// The database does not take it.
    pub async fn forget_figures(&self, step: i64, before: UnixMillis) -> Result<(), StorageError> {
        let values: [Value<'_>; 2] = [step.into(), before.0.into()];
        let forgotten = self.db().execute(FORGET, &values).await;
        self.noticed(forgotten.map(drop).map_err(failed))
    }
}

/// The key of a point: texts sort as the numbers do. Keys are texts, so that rows can be copied to another database in their order.
fn point(step: i64, at: i64) -> String {
    format!("{step:06} {:019}", at.max(0))
}

fn read(row: &Row) -> Result<FigureRow, DbError> {
    let mut list = [0; 8];
    for (place, number) in list.iter_mut().enumerate() {
        *number = row.get::<i64>(place + 1)?.unsigned_abs();
    }
    let bytes = |place| {
        row.get::<Option<i64>>(place)
            .map(|bytes| bytes.map(i64::unsigned_abs))
    };
    Ok(FigureRow {
        at: UnixMillis(row.get(0)?),
        figures: Figures::from_list(list),
        stored: bytes(9)?,
        free: bytes(10)?,
        began_at: UnixMillis(row.get(11)?),
    })
}

fn failed(error: DbError) -> StorageError {
    StorageError::from_sql("keep what was counted", error)
}
