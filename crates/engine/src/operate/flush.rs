//! The operator's verbs: flush, and the collection of what nothing refers to.

use std::sync::Arc;

use larder_core::{ErrorCode, Fault, FaultKind, Pattern, RepositoryKind, SourceKey};
use larder_formats::Naming;
use larder_storage::{PageRow, StorageError};

use crate::fault::storage_fault;
use crate::operate::Operator;
use crate::repositories::RepositoryState;

const PAGE: u32 = 500;
/// What to flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheType {
    /// Documents and files.
    #[default]
    All,
    /// What is mutable: indexes, tags, negative answers.
    Index,
    /// What is immutable.
    Files,
    /// Counters.
    Metrics,
}

impl CacheType {
    /// As it is asked for.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Index => "index",
            Self::Files => "files",
            Self::Metrics => "metrics",
        }
    }
}

/// `PUT /cache/flush`.
#[derive(Debug, Clone, Default)]
pub struct FlushRequest {
    /// One repository; all if absent.
    pub remote: Option<String>,
    /// Which entries.
    pub cache_type: CacheType,
    /// Regular expression searched in the decoded path.
    pub pattern: Option<String>,
}

/// What was flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlushReport {
    /// Mutable entries dropped.
    pub index: u64,
    /// Immutable entries dropped.
    pub files: u64,
    /// Whether counters were reset.
    pub metrics: bool,
}

impl FlushReport {
    fn add(&mut self, mutable: bool) {
        let count = if mutable {
            &mut self.index
        } else {
            &mut self.files
        };
        *count += 1;
    }
}

impl Operator {
    /// Drops held copies. Downloads begun before serve their readers and commit nothing. Local repositories' files are never touched.
    pub(crate) async fn flush(&self, request: FlushRequest) -> Result<FlushReport, Fault> {
        let pattern = request
            .pattern
            .as_deref()
            .map(Pattern::compile)
            .transpose()
            .map_err(|error| {
                Fault::new(
                    FaultKind::BadRequest,
                    ErrorCode::InvalidPattern,
                    format!("the flush pattern cannot be used: {error}"),
                )
                .by_rule("pattern")
            })?;
        let entries = match &request.remote {
            Some(name) => vec![self.flushable(name)?],
            None => self.registry.load().all(),
        };
        let report = self.flush_all(&entries, &request, pattern.as_ref()).await?;
        if request.cache_type != CacheType::Metrics {
            self.catalog.shrink().await;
        }
        Ok(report)
    }

    async fn flush_all(
        &self,
        entries: &[Arc<RepositoryState>],
        request: &FlushRequest,
        pattern: Option<&Pattern>,
    ) -> Result<FlushReport, Fault> {
        let mut report = FlushReport::default();
        for entry in entries
            .iter()
            .filter(|entry| entry.repository.kind() != RepositoryKind::Local)
        {
            if request.cache_type != CacheType::Metrics {
                self.flush_repository(entry, request.cache_type, pattern, &mut report)
                    .await?;
            }
            // Counters that fall back to zero with every flush of copies would tell nothing (docs/adr/0052).
            if request.cache_type == CacheType::Metrics && pattern.is_none() {
                entry.counters.reset();
                entry.failures.reset();
                entry
                    .mirrors
                    .iter()
                    .for_each(|mirror| mirror.counters().reset());
                report.metrics = true;
            }
        }
        if report.metrics && request.remote.is_none() {
            self.counters.reset();
        }
        Ok(report)
    }

    fn flushable(&self, name: &str) -> Result<Arc<RepositoryState>, Fault> {
        let unknown = || {
            Fault::new(
                FaultKind::NotFound,
                ErrorCode::UnknownRepository,
                "there is no repository of that name",
            )
            .by_rule("remote")
        };
        let name = larder_core::RepositoryName::parse(name).map_err(|_| unknown())?;
        self.registry.load().get(&name).cloned().ok_or_else(unknown)
    }

    async fn flush_repository(
        &self,
        entry: &Arc<RepositoryState>,
        cache_type: CacheType,
        pattern: Option<&Pattern>,
        report: &mut FlushReport,
    ) -> Result<(), Fault> {
        let flush = Selection {
            entry,
            cache_type,
            pattern,
        };
        let flushed = |key: &SourceKey| flush.hit(key).is_some();
        self.flights.flush(flushed);
        self.catalog.begin_flush(entry);
        self.remote.refusals.forget(flushed);
        // What is being committed at this moment becomes visible first, so that it is found and dropped.
        self.catalog.barrier().await;
        let name = &entry.repository.name;
        let mut after: Option<(String, String)> = None;
        loop {
            let page = self.catalog.rows(name, after.as_ref(), PAGE).await;
            let page = page.map_err(|error| storage_fault(entry, &error))?;
            let Some((path, variant, _)) = page.last() else {
                break;
            };
            after = Some((path.clone(), variant.clone()));
            self.flush_page(&flush, page, report)
                .await
                .map_err(|error| storage_fault(entry, &error))?;
        }
        self.catalog.forget_absences(|key| {
            let hit = flush.hit(key);
            hit.inspect(|mutable| report.add(*mutable));
            hit.is_some()
        });
        self.catalog.end_flush(entry);
        Ok(())
    }

    /// Drops what of these rows is meant.
    async fn flush_page(
        &self,
        flush: &Selection<'_>,
        page: Vec<PageRow>,
        report: &mut FlushReport,
    ) -> Result<(), StorageError> {
        let (mut deleted, mut doubted) = (Vec::new(), Vec::new());
        for (path, variant, record) in page {
            let key = SourceKey {
                repository: flush.entry.repository.name.clone(),
                path: path.into(),
                variant: variant.into(),
            };
            match (flush.hit(&key), record) {
                (Some(mutable), _) => {
                    report.add(mutable);
                    deleted.push(key);
                }
                // The document that vouched for it may be gone: it is checked when the next one is read.
                (None, Some(record))
                    if record.verified
                        && flush.cache_type != CacheType::Files
                        && flush.entry.facts(&key.path).naming != Naming::Nobody =>
                {
                    doubted.push((key, record));
                }
                (None, _) => {}
            }
        }
        self.catalog.delete(deleted).await?;
        self.catalog.doubt(doubted).await
    }
}

/// What of a repository is flushed.
struct Selection<'a> {
    entry: &'a Arc<RepositoryState>,
    cache_type: CacheType,
    pattern: Option<&'a Pattern>,
}

impl Selection<'_> {
    /// Whether it is mutable; `None`: it is left alone.
    fn hit(&self, key: &SourceKey) -> Option<bool> {
        if key.repository != self.entry.repository.name {
            return None;
        }
        let decoded = key.path.split('?').next().unwrap_or(&key.path);
        if self
            .pattern
            .is_some_and(|pattern| pattern.matches(decoded) != Ok(true))
        {
            return None;
        }
        let mutable = self.entry.is_mutable(decoded);
        match self.cache_type {
            CacheType::All => Some(mutable),
            CacheType::Index => mutable.then_some(true),
            CacheType::Files => (!mutable).then_some(false),
            CacheType::Metrics => None,
        }
    }
}
