//! What is held, for operators (`GET /api/v1/artifacts`, `larder du` and `ls`, and the gauges): one page after another, and how much
//! of each repository. Nothing here is on the way of a request for an artifact.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use larder_core::{
    ArtifactRecord, ErrorCode, Fault, FaultKind, Pattern, RepositoryKind, UnixMillis, fresh_until,
};
use larder_storage::{HeldRow, HeldSize, KeyRange, RecordKey, Unswept};

use crate::fault::storage_fault;
use crate::keys;
use crate::operate::operator::{Operator, storage_unavailable};
use crate::operate::sizes::Counted;
use crate::policy::admission;
use crate::repositories::RepositoryState;

/// Rows that one page may make larder look at: a pattern that matches next to nothing does not hold the database for long.
const MOST_ROWS: u32 = 10_000;
const PAGE: u32 = 500;
/// What is counted so quickly is counted anew for whoever asks.
const QUICK: Duration = Duration::from_millis(20);

/// Which held artifacts are wanted.
#[derive(Debug, Clone, Default)]
pub struct HeldRequest {
    /// One repository; all if absent.
    pub repository: Option<String>,
    /// Regular expression searched in the decoded path.
    pub pattern: Option<String>,
    /// Only those that are served from the copy, or only those that are not.
    pub cached: Option<bool>,
    /// At most so many.
    pub limit: u32,
    /// Where the page before ended.
    pub after: Option<HeldCursor>,
}

/// Where a page ended. It names no query: those may be secrets, and a cursor is given to whoever may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldCursor {
    /// The repository's name.
    pub repository: String,
    /// The last row's place in the database.
    pub row: i64,
    /// Its path, without a query: where to go on if the row is gone.
    pub path: String,
}

/// A held artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldArtifact {
    /// The repository's name.
    pub repository: String,
    /// Decoded path below it, without a query.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the bytes, in hexadecimal digits.
    pub sha256: String,
    /// Whether it is the present upstream's copy: one of another upstream is served no more.
    pub cached: bool,
    /// When these bytes were fetched.
    pub cached_at: UnixMillis,
    /// When the upstream is asked again; `None` = never.
    pub fresh_until: Option<UnixMillis>,
}

/// A page of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldPage {
    /// In the order of repository and path.
    pub artifacts: Vec<HeldArtifact>,
    /// Where the next page begins; `None`: there is none.
    pub next: Option<HeldCursor>,
}

/// How much is held in all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldSummary {
    /// Of each repository, sorted by name. Bytes that several names have are counted with each.
    pub repositories: Vec<HeldSize>,
    /// Blobs on disk, each counted once: derived forms, and what has been flushed and not yet been collected, are among them.
    pub stored_blobs: u64,
    /// Their bytes.
    pub stored_bytes: u64,
}

impl Operator {
    /// How much each configured remote and local repository holds, as it was last counted; empty before the first time. Asks nobody: if the count is
    /// old, the next one is started behind the scenes.
    pub(crate) fn held_sizes(self: &Arc<Self>) -> Vec<HeldSize> {
        let last = self.cache.held_sizes.last();
        let is_due = |last: &Counted| self.cache.held_sizes.is_due(last);
        if last.as_ref().is_none_or(is_due)
            && !self.cache.held_sizes.counting.swap(true, Ordering::AcqRel)
        {
            let engine = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(error) = engine.count_held().await {
                    tracing::warn!(%error, "what is held could not be counted");
                }
                engine
                    .cache
                    .held_sizes
                    .counting
                    .store(false, Ordering::Release);
            });
        }
        let Some(counted) = last else {
            return Vec::new();
        };
        let entries = self.registry.load().all();
        let remotes = entries
            .iter()
            .filter(|entry| entry.repository.kind() != RepositoryKind::Virtual);
        remotes
            .map(|entry| size_of(&counted.sizes, entry.repository.name.as_str()))
            .collect()
    }

    async fn count_held(&self) -> Result<Counted, larder_storage::StorageError> {
        let started = Instant::now();
        let outdated = self.cache.held_sizes.outdated.load(Ordering::Acquire);
        let mut sizes = self.catalog.held_sizes().await?;
        add_local(&mut sizes, self.catalog.local_sizes().await?);
        let took = started.elapsed();
        let stored = self.catalog.counts().await?;
        let counted = Counted {
            at: Instant::now(),
            took,
            sizes: Arc::new(sizes),
            stored,
            outdated,
        };
        *self
            .cache
            .held_sizes
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(counted.clone());
        Ok(counted)
    }

    /// How much is held, of one repository or of all: all that are configured, and those that the database still has something of.
    pub(crate) async fn held_summary(
        &self,
        repository: Option<&str>,
    ) -> Result<HeldSummary, Fault> {
        let only = repository
            .map(|name| admission::entry(&self.registry, name))
            .transpose()?;
        let failed = |error| storage_unavailable(&error);
        let last = self.cache.held_sizes.last();
        let is_due = |last: &Counted| self.cache.held_sizes.is_due(last);
        let counted = match last.filter(|last| last.took > QUICK && !is_due(last)) {
            Some(last) => last,
            None => self.count_held().await.map_err(failed)?,
        };
        let sizes = &counted.sizes;
        if let Some(entry) = only {
            return Ok(HeldSummary {
                repositories: vec![size_of(sizes, entry.repository.name.as_str())],
                ..HeldSummary::default()
            });
        }
        let entries = self.registry.load().all();
        let remotes = entries
            .iter()
            .filter(|entry| entry.repository.kind() != RepositoryKind::Virtual);
        let names = remotes
            .map(|entry| entry.repository.name.to_string())
            .chain(sizes.iter().map(|size| size.repository.clone()));
        let names: std::collections::BTreeSet<String> = names.collect();
        Ok(HeldSummary {
            repositories: names.iter().map(|name| size_of(sizes, name)).collect(),
            stored_blobs: counted.stored.blobs,
            stored_bytes: counted.stored.bytes,
        })
    }

    /// A page of what is held. A page may be shorter than asked for and still have a next one.
    pub(crate) async fn held_artifacts(&self, request: &HeldRequest) -> Result<HeldPage, Fault> {
        let pattern = compiled(request.pattern.as_deref())?;
        let entries = match &request.repository {
            Some(name) => vec![admission::entry(&self.registry, name)?],
            None => self.registry.load().all(),
        };
        let mut listing = Listing {
            request,
            pattern,
            rows_left: MOST_ROWS,
            page: HeldPage::default(),
        };
        let first = request
            .after
            .as_ref()
            .map_or("", |after| &*after.repository);
        let remotes = entries
            .iter()
            .filter(|entry| entry.repository.kind() != RepositoryKind::Virtual);
        for entry in remotes.filter(|entry| entry.repository.name.as_str() >= first) {
            let after = request
                .after
                .as_ref()
                .filter(|after| after.repository == entry.repository.name.as_str());
            if entry.repository.local().is_some() {
                self.held_local(entry, after, &mut listing).await?;
            } else {
                self.held_remote(entry, after, &mut listing).await?;
            }
            if listing.page.next.is_some() {
                break;
            }
        }
        Ok(listing.page)
    }

    /// What is held of a remote repository, onto its page, until that is full.
    async fn held_remote(
        &self,
        entry: &RepositoryState,
        after: Option<&HeldCursor>,
        listing: &mut Listing<'_>,
    ) -> Result<(), Fault> {
        let pattern = listing.pattern.as_ref();
        let prefix = pattern.map(Pattern::literal_prefix).unwrap_or_default();
        let mut range = KeyRange::of_prefix(&prefix);
        if let Some(place) = self.place_of(entry, after).await? {
            range = range.behind(&place);
        }
        let failed = |error| storage_fault(entry, &error);
        let name = &entry.repository.name;
        loop {
            let most = listing.most();
            let keys = self
                .catalog
                .record_keys(name, &range, most, Unswept::Nothing);
            let keys = keys.await.map_err(failed)?;
            let Some(last) = keys.last() else {
                return Ok(());
            };
            let is_wanted = |(path, variant): &RecordKey| listing.is_wanted(entry, path, variant);
            // Rows are read where there is something to be shown, and where a cursor is to name the last one.
            let from = if keys.iter().any(is_wanted) {
                range.clone()
            } else {
                listing.rows_left -= keys.len() as u32 - 1;
                if listing.rows_left > 1 && keys.len() as u32 == most {
                    listing.rows_left -= 1;
                    range = range.behind(last);
                    continue;
                }
                range.at(last)
            };
            let most = listing.most();
            let rows = self.catalog.held_rows(name, &from, most).await;
            let rows = rows.map_err(failed)?;
            let is_last = (rows.len() as u32) < most;
            for row in rows {
                listing.rows_left -= 1;
                range = range.behind(&(row.path.clone(), row.variant.clone()));
                let artifact = listing.artifact(entry, &row);
                listing.page.artifacts.extend(artifact);
                if listing.is_full() {
                    listing.page.next = Some(HeldCursor {
                        repository: name.to_string(),
                        row: row.row,
                        path: keys::path_of(&row.path, &row.variant).to_owned(),
                    });
                    return Ok(());
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// The files of a local repository, onto its page, until that is full.
    async fn held_local(
        &self,
        entry: &RepositoryState,
        after: Option<&HeldCursor>,
        listing: &mut Listing<'_>,
    ) -> Result<(), Fault> {
        let repository = &entry.repository.name;
        let pattern = listing.pattern.as_ref();
        let prefix = pattern.map(Pattern::literal_prefix).unwrap_or_default();
        // What begins with the prefix stands behind what is shorter by a character.
        let shorter = prefix.char_indices().next_back().map_or(0, |(at, _)| at);
        let begin = || prefix[..shorter].to_owned();
        let mut place = after.map_or_else(begin, |after| after.path.clone());
        loop {
            let most = listing.most();
            let rows = self.catalog.local_page(repository, &place, most).await;
            let rows = rows.map_err(|error| storage_fault(entry, &error))?;
            let is_last = (rows.len() as u32) < most;
            for (path, file) in rows {
                if path > prefix && !path.starts_with(&prefix) {
                    return Ok(());
                }
                listing.rows_left -= 1;
                place.clone_from(&path);
                let pattern = listing.pattern.as_ref();
                let matches = pattern.is_none_or(|pattern| pattern.matches(&path) == Ok(true));
                // What was uploaded is always at hand.
                if let Some(file) =
                    file.filter(|_| matches && listing.request.cached != Some(false))
                {
                    listing.page.artifacts.push(HeldArtifact {
                        repository: repository.to_string(),
                        path,
                        size: file.blob.size,
                        sha256: file.blob.digest.to_hex(),
                        cached: true,
                        cached_at: file.uploaded_at,
                        fresh_until: None,
                    });
                }
                if listing.is_full() {
                    listing.page.next = Some(HeldCursor {
                        repository: repository.to_string(),
                        row: 0,
                        path: place,
                    });
                    return Ok(());
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// The row behind which a page begins.
    async fn place_of(
        &self,
        entry: &RepositoryState,
        after: Option<&HeldCursor>,
    ) -> Result<Option<(String, String)>, Fault> {
        let Some(after) = after else {
            return Ok(None);
        };
        let place = self
            .catalog
            .held_place(&entry.repository.name, after.row)
            .await;
        let place = place.map_err(|error| storage_fault(entry, &error))?;
        let is_it = |(path, variant): &(String, String)| keys::path_of(path, variant) == after.path;
        let place = place.filter(is_it);
        Ok(Some(
            place.unwrap_or_else(|| (after.path.clone(), String::new())),
        ))
    }
}

/// A pattern of a request, ready to be used.
pub(crate) fn compiled(pattern: Option<&str>) -> Result<Option<Pattern>, Fault> {
    let pattern = pattern.map(Pattern::compile).transpose();
    pattern.map_err(|error| {
        let message = format!("the pattern cannot be used: {error}");
        Fault::new(FaultKind::BadRequest, ErrorCode::InvalidPattern, message).by_rule("pattern")
    })
}

/// Adds what was uploaded to what is held of remotes; a repository may have been both.
fn add_local(sizes: &mut Vec<HeldSize>, local: Vec<HeldSize>) {
    sizes.extend(local);
    sizes.sort_by(|a, b| a.repository.cmp(&b.repository));
    sizes.dedup_by(|size, kept| {
        let is_same = size.repository == kept.repository;
        if is_same {
            kept.files += size.files;
            kept.bytes += size.bytes;
        }
        is_same
    });
}

/// `sizes` are sorted by name.
fn size_of(sizes: &[HeldSize], name: &str) -> HeldSize {
    let place = sizes.binary_search_by(|size| size.repository.as_str().cmp(name));
    let known = place.ok().and_then(|place| sizes.get(place)).cloned();
    known.unwrap_or_else(|| HeldSize {
        repository: name.to_owned(),
        files: 0,
        bytes: 0,
    })
}

/// A page that is being put together.
struct Listing<'r> {
    request: &'r HeldRequest,
    pattern: Option<Pattern>,
    /// How many rows may still be read for it.
    rows_left: u32,
    page: HeldPage,
}

impl Listing<'_> {
    /// How many rows are read at once.
    fn most(&self) -> u32 {
        PAGE.min(self.rows_left)
    }

    fn is_full(&self) -> bool {
        self.page.artifacts.len() >= self.request.limit as usize || self.rows_left == 0
    }

    /// Whether a row of this key may be shown.
    fn is_wanted(&self, entry: &RepositoryState, path: &str, variant: &str) -> bool {
        let matches = |pattern: &Pattern| {
            let path = keys::path_of(path, variant);
            pattern.matches(path) == Ok(true)
        };
        let is_cached = || keys::is_of_present_upstream(entry, variant);
        self.pattern.as_ref().is_none_or(matches)
            && self
                .request
                .cached
                .is_none_or(|wanted| wanted == is_cached())
    }

    /// A row as an artifact; `None` if it holds no bytes or is not wanted.
    fn artifact(&self, entry: &RepositoryState, row: &HeldRow) -> Option<HeldArtifact> {
        let record: &ArtifactRecord = row.record.as_ref()?;
        let blob = record.blob()?;
        if !self.is_wanted(entry, &row.path, &row.variant) {
            return None;
        }
        let path = keys::path_of(&row.path, &row.variant);
        Some(HeldArtifact {
            repository: entry.repository.name.to_string(),
            path: path.to_owned(),
            size: blob.size,
            sha256: blob.digest.to_hex(),
            cached: keys::is_of_present_upstream(entry, &row.variant),
            cached_at: record.served_since.min(record.contacted_at),
            fresh_until: entry
                .class_of_held(path, record)
                .and_then(|class| fresh_until(record, class, &entry.repository.cache)),
        })
    }
}
