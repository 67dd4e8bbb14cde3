//! The in-process copy of records: behind it only its own miss asks the database.

use std::sync::Arc;
use std::time::Duration;

use larder_core::{ArtifactRecord, Clock, SourceKey, believed};
use larder_storage::{MetadataStore, StorageError};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::time::timeout;

/// Memory for records, in bytes: some 50,000 of the usual length.
const BUDGET: u64 = 32 << 20;
/// So long a server is waited for that did not answer the last time.
const WAIT_WHILE_AWAY: Duration = Duration::from_millis(500);
/// So many are expected: a small estimate keeps the empty map small; it grows as it fills.
const USUAL: usize = 50_000;
/// What a record takes beside its own bytes: the table's place for it, and its two counts.
const ENTRY_WEIGHT: u64 = 96;

/// A record weighs what it takes, key and texts included: how long those are is for upstreams and strangers to say.
#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<SourceKey, Arc<ArtifactRecord>> for ByBytes {
    fn weight(&self, key: &SourceKey, record: &Arc<ArtifactRecord>) -> u64 {
        ENTRY_WEIGHT + key.weight() + record.weight()
    }
}

#[derive(Debug)]
pub(crate) struct Records {
    cache: Cache<SourceKey, Arc<ArtifactRecord>, ByBytes>,
    metadata: MetadataStore,
    clock: Arc<dyn Clock>,
}

impl Records {
    pub(crate) fn new(metadata: MetadataStore, clock: Arc<dyn Clock>) -> Self {
        Self {
            cache: Cache::with_weighter(USUAL, BUDGET, ByBytes),
            metadata,
            clock,
        }
    }

    /// The record, from memory or from the database.
    pub(crate) async fn get(
        &self,
        key: &SourceKey,
    ) -> Result<Option<Arc<ArtifactRecord>>, StorageError> {
        if let Some(record) = self.cache.get(key) {
            return Ok(Some(record));
        }
        match self.cache.get_value_or_guard_async(key).await {
            Ok(record) => Ok(Some(record)),
            // Those who wait for each other's answer would each wait in turn.
            Err(guard) if self.metadata.is_away() => {
                drop(guard);
                self.get_while_away(key).await
            }
            Err(guard) => {
                let Some(record) = self.metadata.record(key).await? else {
                    return Ok(None);
                };
                // The clock may have been set back since it was written.
                let record = Arc::new(believed(record, self.clock.now()));
                // Fails if a commit put a newer record there meanwhile: then that one stays.
                let _ = guard.insert(Arc::clone(&record));
                Ok(Some(self.cache.get(key).unwrap_or(record)))
            }
        }
    }

    /// The record, of a server that did not answer the last time: absent, unless it does so soon. A request asks several times, and the
    /// change feed finds out when the server is there again.
    async fn get_while_away(
        &self,
        key: &SourceKey,
    ) -> Result<Option<Arc<ArtifactRecord>>, StorageError> {
        let found = timeout(WAIT_WHILE_AWAY, self.metadata.record(key)).await;
        let record = found.unwrap_or(Ok(None))?;
        Ok(record.map(|record| Arc::new(believed(record, self.clock.now()))))
    }

    /// The record, if it is in memory.
    pub(crate) fn peek(&self, key: &SourceKey) -> Option<Arc<ArtifactRecord>> {
        self.cache.get(key)
    }

    /// Takes note of what the database holds now. Called after the database has it, never before.
    pub(crate) fn put(&self, key: SourceKey, record: Arc<ArtifactRecord>) {
        self.cache.insert(key, record);
    }

    /// Forgets a record that the database no longer holds.
    pub(crate) fn remove(&self, key: &SourceKey) {
        self.cache.remove(key);
    }

    /// Forgets everything in memory; the database decides again.
    pub(crate) fn clear(&self) {
        self.cache.clear();
    }
}

#[cfg(test)]
mod tests {
    use larder_core::{Content, RepositoryName, StoredHeaders, UnixMillis};

    use super::*;

    fn record(text: usize) -> Arc<ArtifactRecord> {
        let now = UnixMillis(0);
        Arc::new(ArtifactRecord {
            content: Content::HeadOnly,
            headers: StoredHeaders {
                content_disposition: Some("x".repeat(text)),
                ..StoredHeaders::default()
            },
            source_url: "y".repeat(text),
            published_at: None,
            first_seen_at: now,
            contacted_at: now,
            fresh_since: now,
            served_since: now,
            verified: false,
        })
    }

    /// Upstreams choose how long fields are, strangers how long paths are: neither may choose how much memory larder takes.
    #[tokio::test]
    async fn hazard_x2_records_in_memory_are_bounded_by_bytes_and_not_by_number() {
        let directory = tempfile::tempdir().unwrap();
        let metadata = MetadataStore::open(&directory.path().join("db"))
            .await
            .unwrap();
        let records = Records::new(metadata, Arc::new(larder_core::SystemClock));
        let key = |n: usize| SourceKey {
            repository: RepositoryName::parse("r").unwrap(),
            path: format!("{n}{}", "p".repeat(2_000)).into(),
            variant: "".into(),
        };
        for n in 0..5_000 {
            records.put(key(n), record(4_000));
        }
        // 10,000 bytes of text in each.
        let held = (0..5_000)
            .filter(|n| records.peek(&key(*n)).is_some())
            .count();
        assert!(
            held * 10_000 <= BUDGET as usize,
            "{held} records of 10,000 bytes and more"
        );
        assert!(held > 1_000, "{held}: the budget is used");
        assert!(
            records.peek(&key(4_999)).is_some(),
            "a record of common size is not refused"
        );
    }
}
