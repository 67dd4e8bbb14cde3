//! Many records at once: their keys from an index alone, their deletion by key, and their invalidation, which answers at once and
//! leaves the deletion to a sweep (docs/adr/0088).
//!
//! Each record is in the epoch of its repository in which it was written. A repository's records are invalidated by one number: those of
//! earlier epochs are invalid. Single ones are invalidated by a short row each, which is written in the order of the keys, while deleting
//! a record changes a page of the table and one of every index. Whoever reads a record looks at both, in the same statement, so that
//! what is invalid is so for every process at the moment of the commit.

use larder_core::RepositoryName;

use super::change::Change;
use super::db::{DbError, Row, Sql, Value, list_of};
use super::{MetadataStore, Tx, freed};
use crate::error::StorageError;

/// Whether the record in `a` is valid; `$1` is its repository. Each is a look-up by key: no engine is given anything to join.
macro_rules! valid {
    () => {
        "a.epoch >= COALESCE((SELECT e.invalid_before FROM epochs AS e WHERE e.repository = $1), 0) \
         AND a.epoch >= COALESCE((SELECT i.epoch FROM invalid_records AS i WHERE i.repository = a.repository \
                                  AND i.path = a.path AND i.variant = a.variant), 0)"
    };
}
pub(super) use valid;

/// Those records of the repository `$1` whose keys stand in a list `[["path", "variant"], …]` in `$2`. Each is a look-up by key: a server without
/// statistics would look at all of the repository, for which it is given no index outside of the look-ups.
macro_rules! listed {
    (sqlite) => {
        "repository = $1 AND (path, variant) IN (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each($2))"
    };
    (postgres) => {
        "COALESCE(repository, '') = $1 AND rowid = ANY (ARRAY(SELECT (SELECT r.rowid FROM artifacts AS r WHERE r.repository = $1 AND r.path = k ->> 0 \
         AND r.variant = k ->> 1) FROM json_array_elements($2::json) AS k))"
    };
}
pub(super) use listed;

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
        "DELETE FROM artifacts WHERE ",
        listed!(sqlite),
        " RETURNING blob"
    ),
    postgres: concat!(
        "DELETE FROM artifacts WHERE ",
        listed!(postgres),
        " RETURNING blob"
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
}

/// The changes of many records at once; of others there is nothing to do.
pub(super) async fn drop_many(tx: &mut Tx, change: &Change) -> Result<(), DbError> {
    match change {
        Change::DeleteRecords { repository, keys } => delete(tx, repository.as_str(), keys).await,
        Change::InvalidateRecords { repository, keys } => {
            invalidate(tx, repository.as_str(), keys).await
        }
        Change::InvalidateRepository { repository } => {
            invalidate_all(tx, repository.as_str()).await
        }
        _ => Ok(()),
    }
}

/// Deletes the rows of these keys.
async fn delete(tx: &mut Tx, repository: &str, keys: &[RecordKey]) -> Result<(), DbError> {
    let values = [repository.into(), as_list(keys).into()];
    let rows = tx.all(DELETE_LISTED, &values).await?;
    freed::note(tx, &rows).await
}

/// Makes the records of these keys invalid.
async fn invalidate(tx: &mut Tx, repository: &str, keys: &[RecordKey]) -> Result<(), DbError> {
    tx.execute(BEGIN_EPOCH, &[repository.into()]).await?;
    let values = [repository.into(), as_list(keys).into()];
    tx.execute(INVALIDATE_LISTED, &values).await?;
    Ok(())
}

/// Makes all records of a repository invalid.
async fn invalidate_all(tx: &mut Tx, repository: &str) -> Result<(), DbError> {
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

pub(super) fn as_list(keys: &[RecordKey]) -> String {
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
