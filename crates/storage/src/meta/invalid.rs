//! Many records at once: their keys from an index alone, their deletion by key, and their invalidation, which answers at once and
//! leaves the deletion to a sweep (docs/adr/0088).
//!
//! Each record is in the epoch of its repository in which it was written. A repository's records are invalidated by one number: those of
//! earlier epochs are invalid. Single ones are invalidated by a short row each, which is written in the order of the keys, while deleting
//! a record changes a page of the table and one of every index. Whoever reads a record looks at both, in the same statement, so that
//! what is invalid is so for every process at the moment of the commit.

use std::time::{Duration, Instant};

use larder_core::RepositoryName;

use super::db::{DbError, Durability, Row, Sql, Value, list_of};
use super::patience::Patience;
use super::{MetadataStore, Tx, freed};
use crate::error::{StorageError, StorageErrorKind};

/// Whether the record in `a` is valid; `$1` is its repository. Each is a look-up by key: no engine is given anything to join.
macro_rules! valid {
    () => {
        "a.epoch >= COALESCE((SELECT e.invalid_before FROM epochs AS e WHERE e.repository = $1), 0) \
         AND a.epoch >= COALESCE((SELECT i.epoch FROM invalid_records AS i WHERE i.repository = a.repository \
                                  AND i.path = a.path AND i.variant = a.variant), 0)"
    };
}
pub(super) use valid;

/// The keys of a list `[["path", "variant"], …]` in `$2`.
macro_rules! listed {
    (sqlite) => {
        "SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each($2)"
    };
    (postgres) => {
        "SELECT k ->> 0, k ->> 1 FROM json_array_elements($2::json) AS k"
    };
}

/// The rows of invalid records that a repository still has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unswept {
    /// None.
    Nothing,
    /// Those of single ones.
    Single,
    /// Those of all that there were at a moment.
    All,
}

/// Path and variant of a record.
pub type RecordKey = (String, String);

/// Sorts behind every path.
const LAST: &str = "\u{10ffff}\u{10ffff}";
/// Behind a variant it sorts in front of everything longer: variants hold no control characters.
const NEXT: char = '\u{1}';
/// Records that the sweep deletes together: others write in between.
const SWEPT_AT_ONCE: u32 = 500;
/// The sweep rests as long as it has worked, and at least so long.
const REST: Duration = Duration::from_millis(1);

const KEYS: Sql = Sql {
    sqlite: "SELECT json_group_array(path), json_group_array(variant) FROM (SELECT path, variant FROM artifacts \
         WHERE repository = $1 AND (path, variant) >= ($2, $3) AND path < $4 ORDER BY path, variant LIMIT $5)",
    postgres: "SELECT COALESCE(json_agg(path)::text, '[]'), COALESCE(json_agg(variant)::text, '[]') FROM (SELECT path, variant \
         FROM artifacts WHERE repository = $1 AND (path, variant) >= ($2, $3) AND path < $4 ORDER BY path, variant LIMIT $5) AS k",
};
const VALID_KEYS: Sql = Sql {
    sqlite: concat!(
        "SELECT json_group_array(path), json_group_array(variant) FROM (SELECT path, variant FROM artifacts AS a \
         WHERE repository = $1 AND (path, variant) >= ($2, $3) AND path < $4 AND ",
        valid!(),
        " ORDER BY path, variant LIMIT $5)"
    ),
    postgres: concat!(
        "SELECT COALESCE(json_agg(path)::text, '[]'), COALESCE(json_agg(variant)::text, '[]') FROM (SELECT path, variant \
         FROM artifacts AS a WHERE repository = $1 AND (path, variant) >= ($2, $3) AND path < $4 AND ",
        valid!(),
        " ORDER BY path, variant LIMIT $5) AS k"
    ),
};
/// Those of the single ones from a key to a key whose rows are there and of an earlier epoch.
const INVALID_KEYS: Sql = Sql {
    sqlite: "SELECT json_group_array(a.path), json_group_array(a.variant) FROM invalid_records AS i CROSS JOIN artifacts AS a \
         ON a.repository = i.repository AND a.path = i.path AND a.variant = i.variant \
         WHERE i.repository = $1 AND (i.path, i.variant) >= ($2, $3) AND (i.path, i.variant) <= ($4, $5) AND a.epoch < i.epoch",
    postgres: "SELECT COALESCE(json_agg(a.path)::text, '[]'), COALESCE(json_agg(a.variant)::text, '[]') FROM invalid_records AS i \
         JOIN artifacts AS a ON a.repository = i.repository AND a.path = i.path AND a.variant = i.variant \
         WHERE i.repository = $1 AND (i.path, i.variant) >= ($2, $3) AND (i.path, i.variant) <= ($4, $5) AND a.epoch < i.epoch",
};
const DELETE_LISTED: Sql = Sql {
    sqlite: concat!(
        "DELETE FROM artifacts WHERE repository = $1 AND (path, variant) IN (",
        listed!(sqlite),
        ") RETURNING blob"
    ),
    postgres: concat!(
        "DELETE FROM artifacts WHERE repository = $1 AND (path, variant) IN (",
        listed!(postgres),
        ") RETURNING blob"
    ),
};

/// A new epoch of a repository begins.
const BEGIN_EPOCH: &str = "INSERT INTO epochs (repository, epoch, invalid_before, swept_before) VALUES ($1, 1, 0, 0) \
     ON CONFLICT (repository) DO UPDATE SET epoch = epochs.epoch + 1";
/// And the records of earlier ones are invalid.
const INVALIDATE_ALL: &str = "INSERT INTO epochs (repository, epoch, invalid_before, swept_before) VALUES ($1, 1, 1, 0) \
     ON CONFLICT (repository) DO UPDATE SET epoch = epochs.epoch + 1, invalid_before = epochs.epoch + 1";
const INVALIDATE_LISTED: Sql = Sql {
    sqlite: "INSERT INTO invalid_records (repository, path, variant, epoch) \
         SELECT $1, json_extract(value, '$[0]'), json_extract(value, '$[1]'), (SELECT e.epoch FROM epochs AS e WHERE e.repository = $1) \
         FROM json_each($2) WHERE TRUE ON CONFLICT (repository, path, variant) DO UPDATE SET epoch = excluded.epoch",
    postgres: "INSERT INTO invalid_records (repository, path, variant, epoch) \
         SELECT $1, k ->> 0, k ->> 1, (SELECT e.epoch FROM epochs AS e WHERE e.repository = $1) \
         FROM json_array_elements($2::json) AS k WHERE TRUE ON CONFLICT (repository, path, variant) DO UPDATE SET epoch = excluded.epoch",
};

/// How many repositories have invalid records that are still to be deleted, and whether there are single ones.
const UNSWEPT: &str = "SELECT (SELECT COUNT(*) FROM epochs WHERE swept_before < invalid_before) \
     + (SELECT COUNT(*) FROM (SELECT 1 FROM invalid_records ORDER BY repository, path, variant LIMIT 1) AS one)";
const UNSWEPT_OF: &str = "SELECT (SELECT COUNT(*) FROM epochs WHERE repository = $1 AND swept_before < invalid_before), \
     (SELECT COUNT(*) FROM (SELECT 1 FROM invalid_records WHERE repository = $1 ORDER BY path, variant LIMIT 1) AS one)";
const UNSWEPT_REPOSITORIES: &str = "SELECT repository, invalid_before FROM epochs WHERE swept_before < invalid_before ORDER BY repository";
const DELETE_EARLIER: Sql = Sql {
    sqlite: concat!(
        "DELETE FROM artifacts WHERE repository = $1 AND (path, variant) IN (",
        listed!(sqlite),
        ") AND epoch < $3 RETURNING blob"
    ),
    postgres: concat!(
        "DELETE FROM artifacts WHERE repository = $1 AND (path, variant) IN (",
        listed!(postgres),
        ") AND epoch < $3 RETURNING blob"
    ),
};
const SWEPT: &str =
    "UPDATE epochs SET swept_before = $2 WHERE repository = $1 AND swept_before < $2";
const SINGLE: &str = "SELECT repository, path, variant, epoch FROM invalid_records ORDER BY repository, path, variant LIMIT $1";
const DELETE_SINGLE: Sql = Sql {
    sqlite: concat!(
        "DELETE FROM artifacts WHERE repository = $1 AND (path, variant) IN (",
        listed!(sqlite),
        ") AND epoch < (SELECT i.epoch FROM invalid_records AS i WHERE i.repository = artifacts.repository \
         AND i.path = artifacts.path AND i.variant = artifacts.variant) RETURNING blob"
    ),
    postgres: concat!(
        "DELETE FROM artifacts WHERE repository = $1 AND (path, variant) IN (",
        listed!(postgres),
        ") AND epoch < (SELECT i.epoch FROM invalid_records AS i WHERE i.repository = artifacts.repository \
         AND i.path = artifacts.path AND i.variant = artifacts.variant) RETURNING blob"
    ),
};
/// Those that were invalidated once more meanwhile stay.
const FORGET_SINGLE: &str = "DELETE FROM invalid_records WHERE repository = $1 AND (path, variant) <= ($2, $3) AND epoch <= $4";

/// A part of a repository's keys, in their order: those from a key on whose paths begin with a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    from: RecordKey,
    /// The first path behind the range.
    end: String,
}

impl KeyRange {
    /// The keys whose paths begin with `prefix`; all, if that is empty.
    pub fn of_prefix(prefix: &str) -> Self {
        Self {
            from: (prefix.to_owned(), String::new()),
            end: behind(prefix),
        }
    }

    /// What is left of the range from this key on.
    pub fn at(&self, key: &RecordKey) -> Self {
        Self {
            from: key.clone(),
            end: self.end.clone(),
        }
    }

    /// What is left of the range behind this key.
    pub fn behind(&self, (path, variant): &RecordKey) -> Self {
        Self {
            from: (path.clone(), format!("{variant}{NEXT}")),
            end: self.end.clone(),
        }
    }

    /// What fills the places of a statement that reads up to `limit` rows of the range.
    pub(super) fn values<'v>(&'v self, repository: &'v str, limit: u32) -> [Value<'v>; 5] {
        [
            repository.into(),
            (&*self.from.0).into(),
            (&*self.from.1).into(),
            (&*self.end).into(),
            i64::from(limit).into(),
        ]
    }
}

/// The first text that sorts behind all that begin with `prefix`, bytewise.
fn behind(prefix: &str) -> String {
    let mut rest = prefix.chars();
    while let Some(last) = rest.next_back() {
        let after = match last {
            // Between these two there are no characters.
            '\u{d7ff}' => Some('\u{e000}'),
            last => char::from_u32(u32::from(last) + 1),
        };
        if let Some(after) = after {
            return format!("{}{after}", rest.as_str());
        }
    }
    LAST.to_owned()
}

impl MetadataStore {
    /// Up to `limit` keys of a repository, from the beginning of a range on and ordered by path and variant bytewise; none, if there are no more.
    /// Read from an index alone, and with them those of invalid records, as far as `leaving_out` does not say which there are. Where all were
    /// made invalid, the rows are read to tell.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn record_keys(
        &self,
        repository: &RepositoryName,
        range: &KeyRange,
        limit: u32,
        leaving_out: Unswept,
    ) -> Result<Vec<RecordKey>, StorageError> {
        let read = async {
            let repository = repository.as_str();
            let mut range = range.clone();
            loop {
                let statement = match leaving_out {
                    Unswept::All => VALID_KEYS,
                    Unswept::Single | Unswept::Nothing => KEYS,
                };
                let values = range.values(repository, limit);
                let row = self.db().patiently().one(statement, &values).await?;
                let mut keys = keys_of(&row)?;
                let (Unswept::Single, Some(first), Some(last)) =
                    (leaving_out, keys.first(), keys.last())
                else {
                    return Ok(keys);
                };
                let behind = range.behind(last);
                let values = [
                    repository.into(),
                    (&*first.0).into(),
                    (&*first.1).into(),
                    (&*last.0).into(),
                    (&*last.1).into(),
                ];
                let row = self.db().patiently().one(INVALID_KEYS, &values).await?;
                let invalid = keys_of(&row)?;
                // A row that was swept in between is in neither answer. More are read than before: rows may have been added.
                let values = range.values(repository, limit.saturating_mul(2));
                let row = self.db().patiently().one(KEYS, &values).await?;
                let there = keys_of(&row)?;
                keys.retain(|key| {
                    invalid.binary_search(key).is_err() && there.binary_search(key).is_ok()
                });
                if !keys.is_empty() {
                    return Ok(keys);
                }
                range = behind;
            }
        };
        let failed = |error: DbError| StorageError::from_sql("list records", error);
        self.noticed(read.await.map_err(failed))
    }

    /// Which rows of invalid records a repository still has.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn unswept(&self, repository: &RepositoryName) -> Result<Unswept, StorageError> {
        let row = self
            .db()
            .one(UNSWEPT_OF, &[repository.as_str().into()])
            .await;
        let counts = row.and_then(|row| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?)));
        let failed = |error: DbError| StorageError::from_sql("look for invalid records", error);
        Ok(match self.noticed(counts.map_err(failed))? {
            (0, 0) => Unswept::Nothing,
            (0, _) => Unswept::Single,
            _ => Unswept::All,
        })
    }

    /// Whether records of any repository are.
    pub(super) async fn is_unswept(&self) -> Result<bool, DbError> {
        Ok(self.db().one(UNSWEPT, &[]).await?.get::<i64>(0)? > 0)
    }

    /// Deletes the records that are invalid, a few at a time. Gives how many rows were deleted. Whoever else does so at the same time, and
    /// whoever is interrupted, does no harm.
    ///
    /// # Errors
    /// The database fails; the next call goes on.
    pub async fn sweep_invalid(&self) -> Result<u64, StorageError> {
        let swept = async {
            let mut deleted = 0;
            // What is invalidated meanwhile goes, too.
            while self.is_unswept().await? {
                deleted += self.sweep_single().await?;
                for row in self.db().all(UNSWEPT_REPOSITORIES, &[]).await? {
                    let (repository, before): (String, i64) = (row.get(0)?, row.get(1)?);
                    deleted += self.sweep_repository(&repository, before).await?;
                }
            }
            Ok(deleted)
        };
        let failed = |error| StorageError::from_sql("delete invalid records", error);
        self.noticed(swept.await.map_err(failed))
    }

    async fn sweep_repository(&self, repository: &str, before: i64) -> Result<u64, DbError> {
        let mut range = KeyRange::of_prefix("");
        let mut deleted = 0;
        loop {
            let since = Instant::now();
            let values = range.values(repository, SWEPT_AT_ONCE);
            let row = self.db().patiently().one(KEYS, &values).await?;
            let keys = keys_of(&row)?;
            let Some(last) = keys.last() else {
                let values = [repository.into(), before.into()];
                self.db().execute(SWEPT, &values).await?;
                return Ok(deleted);
            };
            range = range.behind(last);
            let values = [repository.into(), as_list(&keys).into(), before.into()];
            deleted += self.run_all(&[(DELETE_EARLIER, &values)]).await?;
            tokio::time::sleep(since.elapsed().max(REST)).await;
        }
    }

    async fn sweep_single(&self) -> Result<u64, DbError> {
        let mut deleted = 0;
        loop {
            let since = Instant::now();
            let rows = self
                .db()
                .all(SINGLE, &[i64::from(SWEPT_AT_ONCE).into()])
                .await?;
            let Some(first) = rows.first() else {
                return Ok(deleted);
            };
            let repository: String = first.get(0)?;
            let (mut keys, mut newest) = (Vec::<RecordKey>::new(), 0);
            for row in &rows {
                if row.get::<String>(0)? == repository {
                    keys.push((row.get(1)?, row.get(2)?));
                    newest = row.get::<i64>(3)?.max(newest);
                }
            }
            let Some((path, variant)) = keys.last().cloned() else {
                return Ok(deleted);
            };
            let records = [(&*repository).into(), as_list(&keys).into()];
            // They were the first ones: up to the last there are no others but later ones.
            let marks = [
                (&*repository).into(),
                path.into(),
                variant.into(),
                newest.into(),
            ];
            deleted += self
                .run_all(&[(DELETE_SINGLE, &records), (FORGET_SINGLE.into(), &marks)])
                .await?;
            tokio::time::sleep(since.elapsed().max(REST)).await;
        }
    }

    /// Runs statements in one transaction, the first of which deletes records; gives how many.
    async fn run_all(&self, statements: &[(Sql, &[Value<'_>])]) -> Result<u64, DbError> {
        let mut patience = Patience::default();
        let mut is_first_try = true;
        loop {
            let done = async {
                let mut tx = self.db().begin(Durability::Grouped).await?;
                let mut deleted = 0;
                if let Some((first, rest)) = statements.split_first() {
                    let rows = tx.all(first.0, first.1).await?;
                    deleted = rows.len() as u64;
                    freed::note(&mut tx, &rows).await?;
                    for (statement, values) in rest {
                        tx.execute(*statement, values).await?;
                    }
                }
                tx.commit().await?;
                Ok::<u64, DbError>(deleted)
            };
            match done.await {
                Ok(changed) => return Ok(changed),
                // What frees space may use what was set aside for it.
                Err(error) if error.kind == StorageErrorKind::Full && is_first_try => {
                    is_first_try = false;
                    self.give_back_spare_space();
                    self.db().empty_log().await?;
                }
                Err(error) => patience.again(error).await?,
            }
        }
    }
}

/// Deletes the rows of these keys.
pub(super) async fn delete(
    tx: &mut Tx,
    repository: &str,
    keys: &[RecordKey],
) -> Result<(), DbError> {
    let values = [repository.into(), as_list(keys).into()];
    let rows = tx.all(DELETE_LISTED, &values).await?;
    freed::note(tx, &rows).await
}

/// Makes the records of these keys invalid.
pub(super) async fn invalidate(
    tx: &mut Tx,
    repository: &str,
    keys: &[RecordKey],
) -> Result<(), DbError> {
    tx.execute(BEGIN_EPOCH, &[repository.into()]).await?;
    let values = [repository.into(), as_list(keys).into()];
    tx.execute(INVALIDATE_LISTED, &values).await?;
    Ok(())
}

/// Makes all records of a repository invalid.
pub(super) async fn invalidate_all(tx: &mut Tx, repository: &str) -> Result<(), DbError> {
    tx.execute(INVALIDATE_ALL, &[repository.into()]).await?;
    Ok(())
}

/// What a list of paths and a list of variants say, in order.
fn keys_of(row: &Row) -> Result<Vec<RecordKey>, DbError> {
    let paths = list_of(&row.get::<String>(0)?)?;
    let variants = list_of(&row.get::<String>(1)?)?;
    let mut keys: Vec<RecordKey> = paths.into_iter().zip(variants).collect();
    // In order already: but no engine promises so of a list that it makes.
    keys.sort_unstable();
    Ok(keys)
}

fn as_list(keys: &[RecordKey]) -> String {
    // Texts are all that is in it, and those can be written.
    serde_json::to_string(keys).unwrap_or_default()
}

/// What a column says that was made of [`valid`].
pub(super) fn is_valid(row: &Row, index: usize) -> Result<bool, DbError> {
    Ok(row.get::<i64>(index)? != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_behind_all_that_begin_with_its_prefix() {
        for prefix in ["a", "pool/", "ä", "\u{d7ff}", "x\u{10ffff}", "z~"] {
            let end = behind(prefix);
            for below in ["", "a", "\u{10ffff}", "\u{1}"] {
                let path = format!("{prefix}{below}");
                assert!(path < end, "{path:?} {end:?}");
            }
            // Nothing that does not begin with it lies in between.
            let next = end.trim_end_matches('\u{0}');
            assert!(!next.starts_with(prefix) && next > prefix, "{end:?}");
        }
        assert_eq!(behind("").chars().next(), Some('\u{10ffff}'));
        assert_eq!(behind("\u{10ffff}"), LAST);
        assert_eq!(behind("pool/"), "pool0");
    }
}
