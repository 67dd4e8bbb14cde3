//! The in-process copy of records: behind it only its own miss asks the database.

use std::sync::Arc;

use larder_core::{ArtifactRecord, Clock, SourceKey, believed};
use larder_storage::{MetadataStore, StorageError};
use quick_cache::sync::Cache;

/// How many records are kept in memory, some 500 bytes each.
const CAPACITY: usize = 50_000;

#[derive(Debug)]
pub(crate) struct Records {
    cache: Cache<SourceKey, Arc<ArtifactRecord>>,
    metadata: MetadataStore,
    clock: Arc<dyn Clock>,
}

impl Records {
    pub(crate) fn new(metadata: MetadataStore, clock: Arc<dyn Clock>) -> Self {
        // A small estimate keeps the empty map small; it grows as it fills.
        Self { cache: Cache::new(CAPACITY), metadata, clock }
    }

    /// The record, from memory or from the database.
    pub(crate) async fn get(&self, key: &SourceKey) -> Result<Option<Arc<ArtifactRecord>>, StorageError> {
        if let Some(record) = self.cache.get(key) {
            return Ok(Some(record));
        }
        match self.cache.get_value_or_guard_async(key).await {
            Ok(record) => Ok(Some(record)),
            Err(guard) => {
                let Some(record) = self.metadata.record(key).await? else { return Ok(None) };
                // The clock may have been set back since it was written.
                let record = Arc::new(believed(record, self.clock.now()));
                // Fails if a commit put a newer record there meanwhile: then that one stays.
                let _ = guard.insert(Arc::clone(&record));
                Ok(Some(self.cache.get(key).unwrap_or(record)))
            }
        }
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
