//! What is held, found by the beginning of its path, by a part of it, or by the digest of its bytes. A page ends after so many paths and so
//! much time, whatever it has found: with a cursor, it goes on where it ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_core::{Fault, RepositoryKind, RepositoryName, UnixMillis};
use larder_storage::{BlobHolder, HolderRange, KeyRange, RecordKey, Unswept};

use super::base::{Views, cached_at};
use super::holders::{cursor_at, digits, holder_at};
use super::room::Room;
use crate::fault::storage_fault;
use crate::keys;
use crate::operate::{HeldCursor, storage_unavailable};
use crate::repositories::RepositoryState;

/// Keys that are read at once.
const LOOK: u32 = 2_000;
/// Uploaded files that are read at once.
const FILES: u32 = 500;
/// So long a page may look for something.
const MOST_TIME: Duration = Duration::from_millis(50);

/// In what is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SearchKind {
    /// Digests, where the text may be one, and anywhere in the path.
    #[default]
    Any,
    /// At the beginning of the path.
    Prefix,
    /// Anywhere in the path.
    Name,
    /// In the file's name, and not within a longer number.
    Version,
    /// The digest of the bytes, or its first eight digits and more.
    Digest,
}

/// What is searched for.
#[derive(Debug, Clone, Default)]
pub struct SearchRequest {
    /// The text. Upper and lower case are the same but in a prefix.
    pub text: String,
    /// In what.
    pub kind: SearchKind,
    /// One repository, or the members of a virtual one; all if absent.
    pub repository: Option<String>,
    /// At most so many.
    pub limit: u32,
    /// Where the page before ended.
    pub after: Option<HeldCursor>,
}

/// A page of what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SearchPage {
    /// In the order of repository and path; what has the digest first.
    pub hits: Vec<SearchHit>,
    /// Where the next page begins; `None`: all has been looked at.
    pub next: Option<HeldCursor>,
    /// Paths that were looked at for this page.
    pub looked_at: u64,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchHit {
    /// The repository's name.
    pub repository: String,
    /// Decoded path below it, without a query.
    pub path: String,
    /// Bytes; `None` for a name that leads to others' bytes.
    pub size: Option<u64>,
    /// SHA-256 of the bytes, in hexadecimal digits.
    pub sha256: Option<String>,
    /// Whether it is the present upstream's copy.
    pub cached: bool,
    /// When these bytes were fetched or uploaded.
    pub cached_at: UnixMillis,
}

/// A page that is being put together.
struct Search<'r> {
    request: &'r SearchRequest,
    /// In lower case.
    text: String,
    begun: Instant,
    page: SearchPage,
    room: Room,
}

impl Search<'_> {
    fn is_over(&self) -> bool {
        self.room.is_full() || self.begun.elapsed() > MOST_TIME
    }

    fn prefix(&self) -> &str {
        match self.request.kind {
            // No path holds the character zero, and PostgreSQL takes no text with it.
            SearchKind::Prefix => self.request.text.split('\0').next().unwrap_or_default(),
            _ => "",
        }
    }

    fn matches(&self, path: &str) -> bool {
        match self.request.kind {
            SearchKind::Prefix => path.starts_with(&self.request.text),
            SearchKind::Any | SearchKind::Name => contains(path, &self.text),
            SearchKind::Version => {
                let name = path.trim_end_matches('/').rsplit('/').next();
                has_version(name.unwrap_or_default(), &self.text)
            }
            SearchKind::Digest => false,
        }
    }

    fn ends_at(&mut self, repository: &RepositoryName, row: i64, path: &str) {
        self.page.next = Some(HeldCursor {
            repository: repository.to_string(),
            row,
            path: path.to_owned(),
        });
    }
}

impl Views {
    /// A page of what is found. It may be short, or empty, and still have a next one.
    ///
    /// # Errors
    /// There is no such repository, or storage fails.
    pub async fn search(&self, request: &SearchRequest) -> Result<SearchPage, Fault> {
        let entries = match &request.repository {
            Some(name) => {
                let mut holders = self.holders(&self.entry(name)?);
                // Pages go on by the name.
                holders.sort_by(|one, other| one.repository.name.cmp(&other.repository.name));
                holders
            }
            None => self.registry.load().all(),
        };
        let mut search = Search {
            request,
            text: request.text.to_lowercase(),
            begun: Instant::now(),
            page: SearchPage::default(),
            room: Room::new(request.limit as usize, 0),
        };
        if request.text.is_empty() {
            return Ok(search.page);
        }
        let is_for_digest = matches!(request.kind, SearchKind::Any | SearchKind::Digest);
        let holder = request.after.as_ref().and_then(holder_at);
        if let Some(digits) = digits(&search.text).filter(|_| is_for_digest)
            && (request.after.is_none() || holder.is_some())
        {
            let wanted = request.repository.is_some().then_some(&*entries);
            self.of_digest(&digits, wanted, holder.as_ref(), &mut search)
                .await?;
        }
        if request.kind == SearchKind::Digest || search.page.next.is_some() {
            return Ok(search.page);
        }
        let after = request.after.as_ref().filter(|_| holder.is_none());
        self.of_paths(&entries, after, &mut search).await?;
        Ok(search.page)
    }

    /// What has the text in its path.
    async fn of_paths(
        &self,
        entries: &[Arc<RepositoryState>],
        after: Option<&HeldCursor>,
        search: &mut Search<'_>,
    ) -> Result<(), Fault> {
        let first = after.map_or("", |at| &*at.repository);
        let own = entries.iter().filter(|entry| {
            entry.repository.kind() != RepositoryKind::Virtual
                && entry.repository.name.as_str() >= first
        });
        for entry in own {
            let after = after.filter(|after| after.repository == entry.repository.name.as_str());
            if entry.repository.kind() == RepositoryKind::Local {
                self.search_local(entry, after, search).await?;
            } else {
                self.search_remote(entry, after, search).await?;
            }
            if search.page.next.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Who has bytes whose digest begins so: of all repositories, or of one after the other of those that are wanted.
    async fn of_digest(
        &self,
        digits: &str,
        wanted: Option<&[Arc<RepositoryState>]>,
        after: Option<&BlobHolder>,
        search: &mut Search<'_>,
    ) -> Result<(), Fault> {
        let Some(wanted) = wanted else {
            return self.of_digest_in(digits, None, after, search).await;
        };
        let first = after.map_or("", |after| &*after.repository);
        let names = wanted.iter().map(|entry| entry.repository.name.as_str());
        for name in names.filter(|name| *name >= first) {
            let after = after.filter(|after| after.repository == name);
            self.of_digest_in(digits, Some(name), after, search).await?;
            if search.page.next.is_some() {
                break;
            }
        }
        Ok(())
    }

    async fn of_digest_in(
        &self,
        digits: &str,
        repository: Option<&str>,
        after: Option<&BlobHolder>,
        search: &mut Search<'_>,
    ) -> Result<(), Fault> {
        let mut last = after.cloned();
        loop {
            let range = HolderRange {
                digits,
                repository,
                after: last.as_ref(),
            };
            let holders = self.catalog.blob_holders(range, search.request.limit).await;
            let holders = holders.map_err(|error| storage_unavailable(&error))?;
            let is_last = holders.len() < search.request.limit as usize;
            for holder in holders {
                search.page.looked_at += 1;
                let hit = self.holder(&holder).await?;
                search.add(hit);
                if search.is_over() {
                    search.page.next = Some(cursor_at(&holder));
                    return Ok(());
                }
                last = Some(holder);
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// A holder of a blob as it is at present; `None` if it holds it no longer, or its repository is configured no more.
    pub(super) async fn holder(&self, holder: &BlobHolder) -> Result<Option<SearchHit>, Fault> {
        let Ok(entry) = self.entry(&holder.repository) else {
            return Ok(None);
        };
        if holder.is_local {
            let file = self
                .catalog
                .local_file(&entry.repository.name, &holder.path)
                .await
                .map_err(|error| storage_fault(&entry, &error))?;
            return Ok(file.map(|file| SearchHit {
                repository: holder.repository.clone(),
                path: holder.path.clone(),
                size: Some(file.blob.size),
                sha256: Some(file.blob.digest.to_hex()),
                cached: true,
                cached_at: file.uploaded_at,
            }));
        }
        let key = (holder.path.clone(), holder.variant.clone());
        Ok(self.hit(&entry, &key).await?.0)
    }

    /// A record as something that was found, if it holds anything, and where its row is.
    async fn hit(
        &self,
        entry: &RepositoryState,
        key: &RecordKey,
    ) -> Result<(Option<SearchHit>, i64), Fault> {
        let range = KeyRange::of_prefix("").at(key);
        let rows = self
            .catalog
            .held_rows(&entry.repository.name, &range, 1)
            .await
            .map_err(|error| storage_fault(entry, &error))?;
        let Some(row) = rows
            .into_iter()
            .next()
            .filter(|row| (&row.path, &row.variant) == (&key.0, &key.1))
        else {
            return Ok((None, 0));
        };
        let record = row.record.filter(larder_core::ArtifactRecord::has_body);
        let hit = record.map(|record| SearchHit {
            repository: entry.repository.name.to_string(),
            path: keys::path_of(&row.path, &row.variant).to_owned(),
            size: record.blob().map(|blob| blob.size),
            sha256: record.blob().map(|blob| blob.digest.to_hex()),
            cached: keys::is_of_present_upstream(entry, &row.variant),
            cached_at: cached_at(&record),
        });
        Ok((hit, row.row))
    }

    async fn search_remote(
        &self,
        entry: &RepositoryState,
        after: Option<&HeldCursor>,
        search: &mut Search<'_>,
    ) -> Result<(), Fault> {
        let failed = |error| storage_fault(entry, &error);
        let name = &entry.repository.name;
        let mut range = KeyRange::of_prefix(search.prefix());
        if let Some(after) = after {
            let place = self.catalog.held_place(name, after.row).await;
            let is_it = |(path, variant): &RecordKey| keys::path_of(path, variant) == after.path;
            let place = place.map_err(failed)?.filter(is_it);
            range = range.behind(&place.unwrap_or_else(|| (after.path.clone(), String::new())));
        }
        loop {
            let keys = self
                .catalog
                .record_keys(name, &range, LOOK, Unswept::Nothing)
                .await
                .map_err(failed)?;
            let Some(last) = keys.last() else {
                return Ok(());
            };
            for key in &keys {
                search.page.looked_at += 1;
                let path = keys::path_of(&key.0, &key.1);
                if search.matches(path) {
                    let (hit, row) = self.hit(entry, key).await?;
                    search.add(hit);
                    if search.is_over() {
                        search.ends_at(name, row, path);
                        return Ok(());
                    }
                }
            }
            range = range.behind(last);
            if search.is_over() {
                let (_, row) = self.hit(entry, last).await?;
                search.ends_at(name, row, keys::path_of(&last.0, &last.1));
                return Ok(());
            }
        }
    }

    async fn search_local(
        &self,
        entry: &RepositoryState,
        after: Option<&HeldCursor>,
        search: &mut Search<'_>,
    ) -> Result<(), Fault> {
        let name = &entry.repository.name;
        let prefix = search.prefix().to_owned();
        // What begins with the prefix stands behind what is shorter by a character.
        let shorter = prefix.char_indices().next_back().map_or(0, |(at, _)| at);
        let begin = || prefix[..shorter].to_owned();
        let mut place = after.map_or_else(begin, |after| after.path.clone());
        loop {
            let rows = self.catalog.local_page(name, &place, FILES).await;
            let rows = rows.map_err(|error| storage_fault(entry, &error))?;
            let is_last = (rows.len() as u32) < FILES;
            for (path, file) in rows {
                if path > prefix && !path.starts_with(&prefix) {
                    return Ok(());
                }
                search.page.looked_at += 1;
                place.clone_from(&path);
                if let Some(file) = file.filter(|_| search.matches(&path)) {
                    search.add(Some(SearchHit {
                        repository: name.to_string(),
                        path,
                        size: Some(file.blob.size),
                        sha256: Some(file.blob.digest.to_hex()),
                        cached: true,
                        cached_at: file.uploaded_at,
                    }));
                }
                if search.is_over() {
                    search.ends_at(name, 0, &place);
                    return Ok(());
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }
}

impl Search<'_> {
    /// Adds what was found. Of the same path in several forms the present upstream's copy stands for all.
    fn add(&mut self, hit: Option<SearchHit>) {
        let Some(hit) = hit else { return };
        let last = self.page.hits.last_mut();
        let is_same =
            |last: &&mut SearchHit| (&last.repository, &last.path) == (&hit.repository, &hit.path);
        match last.filter(is_same) {
            Some(last) if hit.cached && !last.cached => *last = hit,
            Some(_) => {}
            None => {
                self.room.take(1, &[&hit.path]);
                self.page.hits.push(hit);
            }
        }
    }
}

/// Whether a path has this text in it, which is in lower case.
fn contains(path: &str, text: &str) -> bool {
    if path.is_ascii() && text.is_ascii() {
        let (path, text) = (path.as_bytes(), text.as_bytes());
        return path
            .windows(text.len())
            .any(|part| part.eq_ignore_ascii_case(text));
    }
    path.to_lowercase().contains(text)
}

/// Whether a name has this version in it: no number of it goes on to its left or right.
fn has_version(name: &str, version: &str) -> bool {
    let name = name.to_lowercase();
    name.match_indices(version).any(|(at, _)| {
        let mut before = name[..at].chars().rev();
        let mut after = name[at + version.len()..].chars();
        let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        let goes_on = |first: Option<char>, second| {
            is_digit(first) || (first == Some('.') && is_digit(second))
        };
        !goes_on(before.next(), before.next()) && !is_digit(after.next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_no_part_of_a_longer_number() {
        for (name, version, expected) in [
            ("foo-1.2.3.tgz", "1.2.3", true),
            ("foo-1.2.3.tgz", "1.2", true),
            ("foo-1.2.3.tgz", "2.3", false),
            ("foo-11.2.3.tgz", "1.2.3", false),
            ("foo-1.2.30.tgz", "1.2.3", false),
            ("foo-v1.2.tgz", "1.2", true),
            ("foo-2.0.0-RC1.tgz", "2.0.0-rc1", true),
            ("foo", "1", false),
        ] {
            assert_eq!(has_version(name, version), expected, "{name} {version}");
        }
    }

    #[test]
    fn case_makes_no_difference_in_a_path() {
        assert!(contains("Packages/Flask-1.0.whl", "flask"));
        assert!(contains("ÜBER/x", "über"));
        assert!(!contains("a", "ab"));
    }
}
