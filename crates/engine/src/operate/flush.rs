//! The operator's verbs: flush, and the collection of what nothing refers to.

use std::collections::HashSet;
use std::sync::Arc;

use larder_core::{ErrorCode, Fault, FaultKind, Pattern, RepositoryKind, SourceKey};
use larder_formats::Naming;
use larder_storage::{Change, KeyRange, RecordKey, StorageError, Unswept, UsedRow};

use crate::catalog::NotHeld;
use crate::fault::storage_fault;
use crate::keys;
use crate::operate::ledger::Span;
use crate::operate::operator::Operator;
use crate::repositories::RepositoryState;

/// Keys that are looked at together.
const PAGE: u32 = 4_000;
/// So many records are deleted while the operator waits. What is beyond that becomes invalid at once and is deleted behind the scenes: a
/// deletion changes a page of the table and one of each index (docs/adr/0088).
const DELETED_AT_ONCE: usize = 2_000;
/// Records that are deleted in one transaction, and that are invalidated in one: others write in between.
const DELETED_TOGETHER: usize = 500;
const INVALIDATED_TOGETHER: usize = 5_000;
/// Keys that are looked at together for files that flushed documents have named.
const NAMED_PAGE: u32 = 500;

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
        let mut is_to_be_swept = false;
        let flushed = self.flush_all(&entries, &request, pattern.as_ref(), &mut is_to_be_swept);
        let flushed = flushed.await;
        if is_to_be_swept {
            self.catalog.begin_sweep();
        } else if request.cache_type != CacheType::Metrics {
            self.catalog.begin_freeing();
            if flushed.is_ok() {
                self.catalog.shrink().await;
            }
        }
        flushed
    }

    async fn flush_all(
        &self,
        entries: &[Arc<RepositoryState>],
        request: &FlushRequest,
        pattern: Option<&Pattern>,
        is_to_be_swept: &mut bool,
    ) -> Result<FlushReport, Fault> {
        let mut report = FlushReport::default();
        // Counters that fall back to zero with every flush of copies would tell nothing (docs/adr/0052).
        if request.cache_type == CacheType::Metrics {
            report.metrics = pattern.is_none();
            if report.metrics {
                self.reset_counters(entries, request.remote.is_none());
            }
            return Ok(report);
        }
        for entry in entries
            .iter()
            .filter(|entry| entry.repository.kind() != RepositoryKind::Local)
        {
            *is_to_be_swept |= self
                .flush_repository(entry, request.cache_type, pattern, &mut report)
                .await?;
        }
        Ok(report)
    }

    /// Sets the counters of repositories to zero, or `all` that there are. Whoever has counters of its own sees to them.
    fn reset_counters(&self, entries: &[Arc<RepositoryState>], all: bool) {
        for entry in entries {
            entry.counters.reset();
            entry.failures.reset();
            entry
                .mirrors
                .iter()
                .for_each(|mirror| mirror.counters().reset());
        }
        if all {
            self.counters.reset();
        }
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

    /// Gives whether rows are still to be deleted.
    async fn flush_repository(
        &self,
        entry: &Arc<RepositoryState>,
        cache_type: CacheType,
        pattern: Option<&Pattern>,
        report: &mut FlushReport,
    ) -> Result<bool, Fault> {
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
        let used = self.used_lately(entry).await;
        let dropped = self.drop_records(&flush, report).await;
        let dropped = dropped.map_err(|error| storage_fault(entry, &error))?;
        for (key, row) in used.iter().filter(|(key, _)| flushed(key)) {
            self.catalog.note_gone(key, row, NotHeld::Flushed);
        }
        if !dropped.documents.is_empty() {
            let doubted = self.doubt_what_they_name(&flush, &dropped.documents).await;
            doubted.map_err(|error| storage_fault(entry, &error))?;
        }
        self.catalog.forget_absences(|key| {
            let hit = flush.hit(key);
            hit.inspect(|mutable| report.add(*mutable));
            hit.is_some()
        });
        self.catalog.end_flush(entry);
        self.cache.held_sizes.outdate();
        Ok(dropped.is_to_be_swept)
    }

    /// What is held and was asked for lately: whoever asks for it after the flush depends on the upstream.
    async fn used_lately(&self, entry: &RepositoryState) -> Vec<(SourceKey, UsedRow)> {
        let since = Span::Month.first_of(self.catalog.now());
        let used = self.catalog.used_since(&entry.repository.name, since).await;
        let used = used.inspect_err(|error| {
            tracing::debug!(%error, "it is not known what was asked for of what is flushed");
        });
        let used = used.unwrap_or_default().into_iter();
        let keyed = |row: UsedRow| {
            let (path, variant) = row.key.clone();
            (key(entry, path, variant), row)
        };
        used.map(keyed).collect()
    }

    /// Drops the records that are meant, found by their keys: the rows are not read.
    async fn drop_records(
        &self,
        flush: &Selection<'_>,
        report: &mut FlushReport,
    ) -> Result<Dropped, StorageError> {
        let name = &flush.entry.repository.name;
        let unswept = self.catalog.unswept(name).await?;
        let mut range = flush.range();
        let mut dropping = Dropping::new(flush, self.catalog.is_disk_low());
        let mut page = self
            .catalog
            .record_keys(name, &range, PAGE, unswept)
            .await?;
        while let Some(last) = page.last() {
            range = range.behind(last);
            let next = self.catalog.record_keys(name, &range, PAGE, unswept);
            // The database reads the next page while this one is looked through, and its records are dropped.
            let dropped = async {
                dropping.take(page, report);
                self.drop_all(dropping.changes()).await
            };
            let (next, dropped) = tokio::join!(next, dropped);
            dropped?;
            page = next?;
        }
        self.drop_all(dropping.last_changes()).await?;
        Ok(dropping.dropped)
    }

    async fn drop_all(&self, changes: Vec<Change>) -> Result<(), StorageError> {
        for change in changes {
            self.catalog.drop_many(change).await?;
        }
        Ok(())
    }

    /// The documents that vouched for these files are gone: they are checked when the next one is read.
    async fn doubt_what_they_name(
        &self,
        flush: &Selection<'_>,
        documents: &HashSet<String>,
    ) -> Result<(), StorageError> {
        let (entry, name) = (flush.entry, &flush.entry.repository.name);
        let is_named = |path: &str| {
            entry.facts(path).naming != Naming::Nobody && {
                let naming = entry.format.naming(&entry.repository, path);
                let mut naming = naming.document.iter().chain(&naming.possible);
                naming.any(|document| documents.contains(&*document.key_path))
            }
        };
        let mut range = KeyRange::of_prefix("");
        let mut before: Option<RecordKey> = None;
        loop {
            let page = self
                .catalog
                .record_keys(name, &range, NAMED_PAGE, Unswept::Nothing)
                .await?;
            let Some(last) = page.last().cloned() else {
                return Ok(());
            };
            if page.iter().any(|(path, _)| is_named(path)) {
                let rows = self
                    .catalog
                    .rows(name, before.as_ref(), page.len() as u32)
                    .await?;
                let doubted = rows.into_iter().filter_map(|(path, variant, record)| {
                    let record = record.filter(|record| record.verified && is_named(&path))?;
                    Some((key(entry, path, variant), record))
                });
                self.catalog.doubt(doubted.collect()).await?;
            }
            range = range.behind(&last);
            before = Some(last);
        }
    }
}

fn key(entry: &RepositoryState, path: String, variant: String) -> SourceKey {
    SourceKey {
        repository: entry.repository.name.clone(),
        path: path.into(),
        variant: variant.into(),
    }
}

/// What a flush has dropped of a repository's records.
#[derive(Debug, Default)]
struct Dropped {
    /// Paths of documents, where what they have vouched for stays.
    documents: HashSet<String>,
    /// Whether rows are still to be deleted.
    is_to_be_swept: bool,
}

/// Records that are being dropped, in the order of their keys.
struct Dropping<'a> {
    flush: &'a Selection<'a>,
    /// Rows are deleted at once, however many: there is no space for anything else.
    is_disk_low: bool,
    /// Those that are meant and still to be dropped.
    found: Vec<RecordKey>,
    /// How many were deleted.
    deleted: usize,
    /// Whether there are more than are deleted at once.
    are_many: bool,
    dropped: Dropped,
}

impl<'a> Dropping<'a> {
    fn new(flush: &'a Selection<'a>, is_disk_low: bool) -> Self {
        Self {
            flush,
            is_disk_low,
            found: Vec::new(),
            deleted: 0,
            are_many: false,
            dropped: Dropped::default(),
        }
    }

    /// Looks through a page of keys for those that are meant.
    fn take(&mut self, page: Vec<RecordKey>, report: &mut FlushReport) {
        for (path, variant) in page {
            let Some(mutable) = self.flush.kind_of(&path) else {
                continue;
            };
            report.add(mutable);
            if mutable && self.flush.leaves_files() {
                let document = keys::path_of(&path, &variant).to_owned();
                self.dropped.documents.insert(document);
            }
            self.found.push((path, variant));
        }
        self.are_many |= !self.is_disk_low && self.deleted + self.found.len() > DELETED_AT_ONCE;
        if self.are_many && self.flush.is_of_all() {
            // One number says of all of them that they are invalid.
            self.found.clear();
        }
    }

    /// The changes that drop what was found, as far as it fills transactions.
    fn changes(&mut self) -> Vec<Change> {
        if self.flush.is_of_all() && !self.is_disk_low {
            return Vec::new();
        }
        let whole = self.found.len() / self.together() * self.together();
        let left = self.found.split_off(whole);
        let found = std::mem::replace(&mut self.found, left);
        self.drop_found(&found)
    }

    /// The changes that drop the rest.
    fn last_changes(&mut self) -> Vec<Change> {
        if self.are_many && self.flush.is_of_all() {
            self.dropped.is_to_be_swept = true;
            let repository = self.flush.entry.repository.name.clone();
            return vec![Change::InvalidateRepository { repository }];
        }
        let found = std::mem::take(&mut self.found);
        self.drop_found(&found)
    }

    /// How many records go in one transaction.
    fn together(&self) -> usize {
        if self.are_many {
            INVALIDATED_TOGETHER
        } else {
            DELETED_TOGETHER
        }
    }

    fn drop_found(&mut self, found: &[RecordKey]) -> Vec<Change> {
        if self.are_many {
            self.dropped.is_to_be_swept |= !found.is_empty();
        } else {
            self.deleted += found.len();
        }
        let chunks = found.chunks(self.together()).map(|keys| {
            let repository = self.flush.entry.repository.name.clone();
            let keys = keys.to_vec();
            if self.are_many {
                Change::InvalidateRecords { repository, keys }
            } else {
                Change::DeleteRecords { repository, keys }
            }
        });
        chunks.collect()
    }
}

/// What of a repository is flushed.
struct Selection<'a> {
    entry: &'a Arc<RepositoryState>,
    cache_type: CacheType,
    pattern: Option<&'a Pattern>,
}

impl Selection<'_> {
    /// The keys that may be meant: a pattern that begins with a text names a part of the index.
    fn range(&self) -> KeyRange {
        let prefix = self.pattern.map(Pattern::literal_prefix);
        KeyRange::of_prefix(&prefix.unwrap_or_default())
    }

    /// Whether all that the repository has is meant.
    fn is_of_all(&self) -> bool {
        self.pattern.is_none() && self.cache_type == CacheType::All
    }

    /// Whether files may stay whose documents go.
    fn leaves_files(&self) -> bool {
        !self.is_of_all() && self.cache_type != CacheType::Files
    }

    /// Whether it is mutable; `None`: it is left alone.
    fn hit(&self, key: &SourceKey) -> Option<bool> {
        (key.repository == self.entry.repository.name)
            .then(|| self.kind_of(&key.path))
            .flatten()
    }

    /// As [`hit`](Self::hit), of the path of a key of this repository.
    fn kind_of(&self, path: &str) -> Option<bool> {
        let decoded = path.split('?').next().unwrap_or(path);
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
