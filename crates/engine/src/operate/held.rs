//! What is held, for operators (`GET /api/v1/artifacts` and `larder ls`): one page after another. Nothing here is on the way of a request for an
//! artifact.

use larder_core::{
    ArtifactRecord, ErrorCode, Fault, FaultKind, Pattern, RepositoryKind, UnixMillis, fresh_until,
};
use larder_storage::{HeldRow, KeyRange, RecordKey, Unswept};

use crate::fault::storage_fault;
use crate::keys;
use crate::operate::operator::Operator;
use crate::policy::admission;
use crate::repositories::RepositoryState;

/// Rows that one page may make larder look at: a pattern that matches next to nothing does not hold the database for long.
const MOST_ROWS: u32 = 10_000;
const PAGE: u32 = 500;
/// Forms of one path that are looked at, to see whether it is held.
const MOST_FORMS: u32 = 16;

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
    /// The last row's place in the database; negative where its path was decided on, whatever other rows it has.
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

impl Operator {
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
            last: None,
        };
        let first = request
            .after
            .as_ref()
            .map_or("", |after| &*after.repository);
        let remotes = entries
            .iter()
            .filter(|entry| entry.repository.kind() != RepositoryKind::Virtual);
        for entry in remotes.filter(|entry| entry.repository.name.as_str() >= first) {
            if listing.is_full() {
                listing.page.next = listing.last;
                break;
            }
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
        let decided = after.filter(|after| after.row < 0);
        let mut group = decided.map(|after| Group {
            path: after.path.clone(),
            shown: None,
        });
        loop {
            let most = listing.most();
            let keys = self
                .catalog
                .record_keys(name, &range, most, Unswept::Nothing);
            let keys = keys.await.map_err(failed)?;
            let Some(last) = keys.last() else {
                break;
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
                range = range.behind(&(row.path.clone(), row.variant.clone()));
                if self.take_row(entry, row, &mut group, listing).await? {
                    return Ok(());
                }
            }
            if is_last {
                break;
            }
        }
        listing.close(group);
        Ok(())
    }

    /// Takes one row more: into the group of its path, which goes onto the page when another path begins. Whether the page is full.
    async fn take_row(
        &self,
        entry: &RepositoryState,
        row: HeldRow,
        group: &mut Option<Group>,
        listing: &mut Listing<'_>,
    ) -> Result<bool, Fault> {
        let path = keys::path_of(&row.path, &row.variant);
        let is_same = group.as_ref().is_some_and(|group| group.path == path);
        if !is_same {
            listing.close(group.take());
            if listing.is_full() {
                listing.page.next = listing.last.take();
                return Ok(true);
            }
        }
        listing.rows_left -= 1;
        if let Some(artifact) = listing.artifact(entry, &row) {
            if let Some(group) = group {
                group.add(artifact);
            } else {
                // Answers to queries stand apart from the one without.
                let is_listed = row.path.len() > path.len() && self.is_held(entry, path).await?;
                *group = Some(Group {
                    path: path.to_owned(),
                    shown: (!is_listed).then_some(artifact),
                });
            }
        }
        let is_decided = group.is_some();
        listing.last = Some(HeldCursor {
            repository: entry.repository.name.to_string(),
            row: if is_decided { -row.row } else { row.row },
            path: path.to_owned(),
        });
        if listing.rows_left == 0 {
            listing.close(group.take());
            listing.page.next = listing.last.take();
        }
        Ok(listing.rows_left == 0)
    }

    /// Whether bytes are held under a path without a query.
    async fn is_held(&self, entry: &RepositoryState, path: &str) -> Result<bool, Fault> {
        let range = KeyRange::of_prefix(path).at(&(path.to_owned(), String::new()));
        let rows = self
            .catalog
            .held_rows(&entry.repository.name, &range, MOST_FORMS)
            .await
            .map_err(|error| storage_fault(entry, &error))?;
        let has_bytes = |row: &HeldRow| {
            let record = row.record.as_ref();
            row.path == path && record.is_some_and(|record| record.blob().is_some())
        };
        Ok(rows.iter().any(has_bytes))
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
                listing.last = Some(HeldCursor {
                    repository: repository.to_string(),
                    row: 0,
                    path: place.clone(),
                });
                if listing.is_full() {
                    listing.page.next = listing.last.take();
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
            .held_place(&entry.repository.name, after.row.abs())
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

/// A page that is being put together.
struct Listing<'r> {
    request: &'r HeldRequest,
    pattern: Option<Pattern>,
    /// How many rows may still be read for it.
    rows_left: u32,
    page: HeldPage,
    /// The last row that was taken.
    last: Option<HeldCursor>,
}

/// What is held under one path: in several forms, of several upstreams, for several queries.
struct Group {
    path: String,
    /// The one that stands for all; `None` if the path is on a page already.
    shown: Option<HeldArtifact>,
}

impl Group {
    /// Of two copies the present upstream's stands for both, and then the one that was fetched last.
    fn add(&mut self, artifact: HeldArtifact) {
        let rank = |artifact: &HeldArtifact| (artifact.cached, artifact.cached_at);
        if let Some(shown) = self
            .shown
            .as_mut()
            .filter(|shown| rank(shown) < rank(&artifact))
        {
            *shown = artifact;
        }
    }
}

impl Listing<'_> {
    /// How many rows are read at once.
    fn most(&self) -> u32 {
        PAGE.min(self.rows_left)
    }

    fn is_full(&self) -> bool {
        self.page.artifacts.len() >= self.request.limit as usize || self.rows_left == 0
    }

    /// Whether a row of this key may be shown, or decides whether its path is.
    fn is_wanted(&self, entry: &RepositoryState, path: &str, variant: &str) -> bool {
        let matches = |pattern: &Pattern| {
            let path = keys::path_of(path, variant);
            pattern.matches(path) == Ok(true)
        };
        let is_cached = || keys::is_of_present_upstream(entry, variant);
        self.pattern.as_ref().is_none_or(matches)
            && (self.request.cached != Some(true) || is_cached())
    }

    /// Puts what is held under a path onto the page, if it is wanted.
    fn close(&mut self, group: Option<Group>) {
        let shown = group.and_then(|group| group.shown);
        let wanted = self.request.cached;
        let shown = shown.filter(|shown| wanted.is_none_or(|wanted| wanted == shown.cached));
        self.page.artifacts.extend(shown);
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
