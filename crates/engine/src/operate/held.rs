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
/// A cursor's number is a row's place in the database, and these two bits.
const BITS: u32 = 2;
/// Something of the row's name is on a page: its other forms are not listed once more.
const LISTED: i64 = 1;
/// The row is the answer to a query, which the cursor does not name.
const HAS_QUERY: i64 = 2;

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
    /// A number that says which row was the last one; only who made the cursor knows how.
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
        let first = request.after.as_ref().map(|after| &*after.repository);
        if let (Some(wanted), Some(first)) = (&request.repository, first)
            && wanted != first
        {
            return Err(of_another_list());
        }
        let first = first.unwrap_or_default();
        let mut listing = Listing {
            request,
            pattern,
            rows_left: MOST_ROWS,
            page: HeldPage::default(),
            last: None,
        };
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
        let whole = KeyRange::of_prefix(&prefix);
        let (mut range, mut group) = match after {
            Some(after) => self.behind(entry, after, &whole).await?,
            None => (whole, None),
        };
        let failed = |error| storage_fault(entry, &error);
        let name = &entry.repository.name;
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
                    range = listing.past(&range, &keys, last);
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
                if listing.take(entry, row, &mut group) {
                    return Ok(());
                }
            }
            if is_last {
                break;
            }
            if listing.is_full_with(&mut group) {
                listing.page.next = listing.last.take();
                return Ok(());
            }
        }
        listing.close(&mut group);
        Ok(())
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

    /// What is left of a range behind a cursor, and the group that the cursor's row is of.
    async fn behind(
        &self,
        entry: &RepositoryState,
        after: &HeldCursor,
        whole: &KeyRange,
    ) -> Result<(KeyRange, Option<Group>), Fault> {
        let place = self
            .catalog
            .held_place(&entry.repository.name, after.row >> BITS)
            .await;
        let place = place.map_err(|error| storage_fault(entry, &error))?;
        let is_it = |(path, variant): &RecordKey| keys::path_of(path, variant) == after.path;
        let place = match place.filter(is_it) {
            Some(place) => place,
            // The row is gone, and with it the query: all of the path's that are still there are listed.
            None if after.row & HAS_QUERY != 0 => {
                let first = (format!("{}?", after.path), String::new());
                return Ok((whole.at(&first), None));
            }
            None => (after.path.clone(), keys::marks_in(&after.path)),
        };
        let range = whole.behind(&place);
        let is_listed = after.row & LISTED != 0;
        Ok((range, is_listed.then(|| Group::listed(place))))
    }
}

/// A cursor is of another list than it is given with.
pub(crate) fn of_another_list() -> Fault {
    let message = "the cursor is of another list; begin without one";
    Fault::new(FaultKind::BadRequest, ErrorCode::BadRequest, message).by_rule("cursor")
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

/// The rows of one name: a path, with its query if it has one, in several forms and of several upstreams. They are neighbours.
struct Group {
    key: RecordKey,
    /// The one that stands for all.
    shown: Option<HeldArtifact>,
    /// Whether it is on a page.
    is_listed: bool,
}

impl Group {
    fn listed(key: RecordKey) -> Self {
        Self {
            key,
            shown: None,
            is_listed: true,
        }
    }

    /// Of two copies the present upstream's stands for both, and then the one that was fetched last.
    fn add(&mut self, artifact: HeldArtifact) {
        let rank = |artifact: &HeldArtifact| (artifact.cached, artifact.cached_at);
        if !self.is_listed && self.shown.as_ref().map(rank) < Some(rank(&artifact)) {
            self.shown = Some(artifact);
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

    /// Whether the page is full with what a group has to show so far. If it is, the group goes onto it.
    fn is_full_with(&mut self, group: &mut Option<Group>) -> bool {
        let is_near = self.page.artifacts.len() + 1 >= self.request.limit as usize;
        if is_near {
            self.close(group);
        }
        is_near && self.is_full()
    }

    /// What is left of a range behind keys of which none is wanted.
    fn past(&self, range: &KeyRange, keys: &[RecordKey], last: &RecordKey) -> KeyRange {
        let is_one_path = keys.first().is_none_or(|first| first.0 == last.0);
        if self.request.cached == Some(false) && !is_one_path {
            // A copy of another upstream that comes next may be of the same name: these stand for it.
            range.at(&(last.0.clone(), String::new()))
        } else {
            range.behind(last)
        }
    }

    /// Whether a row of this key may be shown.
    fn is_wanted(&self, entry: &RepositoryState, path: &str, variant: &str) -> bool {
        let is_cached = || keys::is_of_present_upstream(entry, variant);
        self.matches(keys::path_of(path, variant))
            && self
                .request
                .cached
                .is_none_or(|wanted| wanted == is_cached())
    }

    fn matches(&self, path: &str) -> bool {
        let pattern = self.pattern.as_ref();
        pattern.is_none_or(|pattern| pattern.matches(path) == Ok(true))
    }

    /// Takes one row more: into the group of its name, which goes onto the page when another begins. Whether the page is full.
    fn take(&mut self, entry: &RepositoryState, row: HeldRow, group: &mut Option<Group>) -> bool {
        let (id, key) = (row.row, (row.path, row.variant));
        let is_same = |group: &Group| keys::are_forms(&group.key, &key);
        if !group.as_ref().is_some_and(is_same) {
            self.close(group);
            if self.is_full() {
                self.page.next = self.last.take();
                return true;
            }
            *group = None;
        }
        self.rows_left -= 1;
        let path = keys::path_of(&key.0, &key.1).to_owned();
        let record = row.record.filter(|_| self.matches(&path));
        let artifact = record.and_then(|record| artifact(entry, &path, &key.1, &record));
        let has_query = path.len() < key.0.len();
        if let Some(artifact) = artifact {
            let group = group.get_or_insert(Group {
                key,
                shown: None,
                is_listed: false,
            });
            group.add(artifact);
        }
        let bits = if has_query { HAS_QUERY } else { 0 } | if group.is_some() { LISTED } else { 0 };
        self.last = Some(HeldCursor {
            repository: entry.repository.name.to_string(),
            row: id << BITS | bits,
            path,
        });
        if self.rows_left == 0 {
            self.close(group);
            self.page.next = self.last.take();
        }
        self.rows_left == 0
    }

    /// Puts what a group has to show onto the page, if it is wanted.
    fn close(&mut self, group: &mut Option<Group>) {
        let Some(group) = group else { return };
        group.is_listed = true;
        let wanted = self.request.cached;
        let shown = group.shown.take();
        let shown = shown.filter(|shown| wanted.is_none_or(|wanted| wanted == shown.cached));
        self.page.artifacts.extend(shown);
    }
}

/// A row as an artifact; `None` if it holds no bytes.
fn artifact(
    entry: &RepositoryState,
    path: &str,
    variant: &str,
    record: &ArtifactRecord,
) -> Option<HeldArtifact> {
    let blob = record.blob()?;
    Some(HeldArtifact {
        repository: entry.repository.name.to_string(),
        path: path.to_owned(),
        size: blob.size,
        sha256: blob.digest.to_hex(),
        cached: keys::is_of_present_upstream(entry, variant),
        cached_at: record.served_since.min(record.contacted_at),
        fresh_until: entry
            .class_of_held(path, record)
            .and_then(|class| fresh_until(record, class, &entry.repository.cache)),
    })
}
