//! Which upstream a repository's copies came from: addresses that were ever configured side by side are one upstream, and every
//! upstream of a repository after its first has a mark, which stands in the keys of its copies (docs/adr/0044).

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};

use larder_core::{RepositoryName, sha256};

use super::MetadataStore;
use super::db::{Db, DbError, Row};
use crate::error::StorageError;

const ALL: &str = "SELECT repository, url, origin FROM origins";
const PUT: &str = "INSERT INTO origins (repository, url, origin) VALUES ($1, $2, $3) \
     ON CONFLICT (repository, url) DO UPDATE SET origin = excluded.origin";
/// The mark stands behind the only `@` of a variant; it is hexadecimal.
const OF_OTHERS: &str = "SELECT COUNT(*) FROM artifacts WHERE repository = $1 AND blob IS NOT NULL \
     AND CASE WHEN $2 = '' THEN variant LIKE '%@%' ELSE variant NOT LIKE '%@' || $2 END \
     AND CASE WHEN $3 = '' THEN variant LIKE '%@%' ELSE variant NOT LIKE '%@' || $3 END";

/// By repository: the mark of each address.
pub(super) type Origins = HashMap<RepositoryName, HashMap<String, String>>;

impl MetadataStore {
    /// The mark of the upstream at `addresses` (all of one upstream, none empty; without secrets). Empty for the first upstream that
    /// a repository has had. Addresses that are new, or that were an upstream of their own, join the first of those that are known.
    ///
    /// No I/O: what was learnt is for [`keep_origins`](Self::keep_origins) to write.
    pub fn origin(&self, repository: &RepositoryName, addresses: &[String]) -> String {
        let Some(first) = addresses.first() else {
            return String::new();
        };
        let mut origins = self.origins();
        let known = origins.entry(repository.clone()).or_default();
        let mark = match addresses.iter().find_map(|address| known.get(address)) {
            Some(mark) => mark.clone(),
            // Another role of the same repository (pypi's index) may have been asked about before.
            None if !known.keys().any(|address| role(address) == role(first)) => String::new(),
            None => sha256(first.as_bytes()).to_hex().chars().take(12).collect(),
        };
        for address in addresses {
            known.insert(address.clone(), mark.clone());
        }
        mark
    }

    /// Writes down what [`origin`](Self::origin) has learnt, and gives for each of `current` (a repository with the marks of its files
    /// and of its index) how many copies are held of other upstreams.
    pub async fn keep_origins(
        &self,
        current: &[(RepositoryName, [String; 2])],
    ) -> Result<Vec<(RepositoryName, u64)>, StorageError> {
        let result = self.write_origins(current).await;
        self.noticed(result)
    }

    async fn write_origins(
        &self,
        current: &[(RepositoryName, [String; 2])],
    ) -> Result<Vec<(RepositoryName, u64)>, StorageError> {
        let failed = |error: DbError| StorageError::from_sql("note where copies come from", error);
        let all = self.origins().clone();
        let stored = read_origins(&self.db().by_writer()).await?;
        let mut news: Vec<[&str; 3]> = Vec::new();
        for (repository, addresses) in &all {
            for (url, mark) in addresses {
                if stored.get(repository).and_then(|known| known.get(url)) != Some(mark) {
                    news.push([repository.as_str(), url, mark]);
                }
            }
        }
        // In one order, so that processes that start at once wait for each other, and not in a circle.
        news.sort_unstable();
        let mut tx = self.begin().await.map_err(failed)?;
        for new in news {
            tx.execute(PUT, &new.map(Into::into))
                .await
                .map_err(failed)?;
        }
        tx.commit().await.map_err(failed)?;
        let mut others = Vec::new();
        for (repository, [files, index]) in current {
            // Only where there has been another upstream at all.
            if !all
                .get(repository)
                .is_some_and(|known| known.values().any(|mark| mark != files && mark != index))
            {
                continue;
            }
            let values = [
                repository.as_str().into(),
                (&**files).into(),
                (&**index).into(),
            ];
            let count = self.db().patiently().one(OF_OTHERS, &values).await;
            let count: i64 = count.and_then(|row| row.get(0)).map_err(failed)?;
            others.push((repository.clone(), count.unsigned_abs()));
        }
        others.retain(|(_, count)| *count > 0);
        Ok(others)
    }

    pub(super) fn origins(&self) -> MutexGuard<'_, Origins> {
        self.shared
            .origins
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the database knows.
pub(super) async fn read_origins(db: &Db) -> Result<Origins, StorageError> {
    let rows = db.all(ALL, &[]).await.and_then(|rows| {
        let row = |row: Row| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        rows.into_iter().map(row).collect()
    });
    let failed = |e: DbError| StorageError::from_sql("read where copies come from", e);
    let rows: Vec<(String, String, String)> = rows.map_err(failed)?;
    let mut origins = Origins::new();
    for (repository, url, mark) in rows {
        if let Ok(repository) = RepositoryName::parse(&repository) {
            origins.entry(repository).or_default().insert(url, mark);
        }
    }
    Ok(origins)
}

/// What an address is for: the word in front of it.
fn role(address: &str) -> &str {
    address.split(' ').next().unwrap_or_default()
}
