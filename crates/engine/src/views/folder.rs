//! One level of a repository: the folders and files directly below a folder. What lies in the folders below is not read: the next key that is
//! looked at stands behind all of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use larder_core::{Content, Fault, RepositoryKind, UnixMillis};
use larder_storage::{HeldRow, KeyRange, LocalChild};

use super::base::{Views, cached_at, expires};
use super::room::Room;
use crate::fault::storage_fault;
use crate::keys;
use crate::repositories::RepositoryState;

/// Rows that are read at once where files stand side by side.
const LOOK: u32 = 64;
/// Rows that one page may make larder look at, and for how long.
const MOST_ROWS: u32 = 10_000;
const MOST_TIME: Duration = Duration::from_millis(60);
/// Behind a path it sorts in front of everything longer: paths hold no control characters.
const NEXT: char = '\u{1}';

/// Which level is wanted.
#[derive(Debug, Clone, Default)]
pub struct FolderRequest {
    /// The repository.
    pub repository: String,
    /// Decoded path of the folder: empty, or with a slash at its end.
    pub folder: String,
    /// Where the page before ended.
    pub after: Option<String>,
    /// At most so many.
    pub limit: u32,
}

/// A page of a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FolderPage {
    /// The names of the folders below it, without slash.
    pub folders: Vec<String>,
    /// Its files.
    pub files: Vec<FolderFile>,
    /// Where the next page begins; `None`: there is none.
    pub next: Option<String>,
    /// Of a virtual repository, which holds nothing itself: who of its members holds each, by the name of the file or folder (a folder's has
    /// a slash at its end).
    pub holders: BTreeMap<String, Vec<String>>,
}

/// A file or document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderFile {
    /// Its name within the folder; empty for the document that has the folder's own path.
    pub name: String,
    /// Bytes; `None` for a name that leads to others' bytes.
    pub size: Option<u64>,
    /// SHA-256 of the bytes, in hexadecimal digits.
    pub sha256: Option<String>,
    /// Whether it is the present upstream's copy.
    pub cached: bool,
    /// When these bytes were fetched or uploaded.
    pub cached_at: UnixMillis,
    /// When the upstream is asked again; `None`: never.
    pub fresh_until: Option<UnixMillis>,
}

/// What a page is put together from.
struct Level<'r> {
    folder: &'r str,
    room: Room,
    page: FolderPage,
}

/// What comes of a row.
enum Step {
    /// The next row.
    On,
    /// What stands behind this path.
    Jump(String),
}

impl Views {
    /// What a repository holds itself.
    pub(super) async fn own_folder(
        &self,
        entry: &RepositoryState,
        request: &FolderRequest,
    ) -> Result<FolderPage, Fault> {
        if entry.repository.kind() == RepositoryKind::Local {
            self.local_folder(entry, request).await
        } else {
            self.remote_folder(entry, request).await
        }
    }

    async fn remote_folder(
        &self,
        entry: &RepositoryState,
        request: &FolderRequest,
    ) -> Result<FolderPage, Fault> {
        let (begun, name) = (Instant::now(), &entry.repository.name);
        let folder = &*request.folder;
        let below = KeyRange::of_prefix(folder);
        let from = |at: String| below.at(&(at, String::new()));
        let mut range = match &request.after {
            Some(position) => from(resumed(folder, position)),
            None => below.clone(),
        };
        let mut level = Level {
            folder,
            room: request.room(),
            page: FolderPage::default(),
        };
        let (mut rows_left, mut most, mut position) = (MOST_ROWS, 1, None);
        loop {
            let rows = self.catalog.held_rows(name, &range, most).await;
            let rows = rows.map_err(|error| storage_fault(entry, &error))?;
            let is_last = (rows.len() as u32) < most;
            most = LOOK.min(most * 2);
            for row in rows {
                if level.room.is_full() || rows_left == 0 || begun.elapsed() > MOST_TIME {
                    level.page.next = position;
                    return Ok(level.page);
                }
                rows_left -= 1;
                let step = level.take(entry, &row);
                position = Some(position_of(folder, &row, &step));
                if let Step::Jump(to) = step {
                    range = from(to);
                    most = 1;
                    break;
                }
                range = range.behind(&(row.path, row.variant));
            }
            if is_last && most != 1 {
                return Ok(level.page);
            }
        }
    }

    async fn local_folder(
        &self,
        entry: &RepositoryState,
        request: &FolderRequest,
    ) -> Result<FolderPage, Fault> {
        let after = match request.after.as_deref().map(|at| at.split_at_checked(1)) {
            Some(Some(("d", name))) => format!("{name}/"),
            Some(Some((_, name))) => name.to_owned(),
            Some(None) | None => String::new(),
        };
        let limit = request.limit as usize;
        let children = self
            .catalog
            .local_children(&entry.repository.name, &request.folder, &after, limit + 1)
            .await
            .map_err(|error| storage_fault(entry, &error))?;
        let mut page = FolderPage::default();
        let mut room = request.room();
        let mut children = children.into_iter();
        while !room.is_full()
            && let Some(child) = children.next()
        {
            page.next = Some(match child {
                LocalChild::Folder(name) => {
                    room.take(1, &[&request.folder, &name]);
                    page.folders.push(name.clone());
                    format!("d{name}")
                }
                LocalChild::File(name, file) => {
                    room.take(1, &[&request.folder, &name]);
                    page.files.push(FolderFile {
                        name: name.clone(),
                        size: Some(file.blob.size),
                        sha256: Some(file.blob.digest.to_hex()),
                        cached: true,
                        cached_at: file.uploaded_at,
                        fresh_until: None,
                    });
                    format!("f{name}")
                }
            });
        }
        page.next = page.next.filter(|_| children.next().is_some());
        Ok(page)
    }
}

impl FolderRequest {
    /// The room of its page.
    pub(super) fn room(&self) -> Room {
        Room::new(self.limit as usize, self.folder.matches('/').count())
    }
}

impl Level<'_> {
    /// Takes a row up.
    fn take(&mut self, entry: &RepositoryState, row: &HeldRow) -> Step {
        let shown = keys::path_of(&row.path, &row.variant);
        let (Some(name), Some(record)) = (shown.strip_prefix(self.folder), &row.record) else {
            return Step::On;
        };
        if !record.has_body() {
            return Step::On;
        }
        if let Some((below, _)) = name.split_once('/') {
            self.room.take(1, &[self.folder, below]);
            self.page.folders.push(below.to_owned());
            return Step::Jump(behind_folder(self.folder, below));
        }
        let file = FolderFile {
            name: name.to_owned(),
            size: record.blob().map(|blob| blob.size),
            sha256: record.blob().map(|blob| blob.digest.to_hex()),
            cached: keys::is_of_present_upstream(entry, &row.variant),
            cached_at: cached_at(record),
            fresh_until: expires(entry, shown, record),
        };
        // The same path in another form, of another upstream, or with another query; a pointer says less than what has bytes.
        let mut known = self.page.files.iter_mut().rev();
        if let Some(known) = known.find(|known| known.name == name) {
            if matches!(record.content, Content::Blob(_)) && file.cached >= known.cached {
                *known = file;
            }
        } else {
            self.room.take(1, &[self.folder, name]);
            self.page.files.push(file);
        }
        if row.path.len() > shown.len() {
            return Step::Jump(behind_queries(shown));
        }
        Step::On
    }
}

/// The first path behind all that lies in a folder: after the slash comes `0`.
fn behind_folder(folder: &str, name: &str) -> String {
    format!("{folder}{name}0")
}

/// The first path behind all queries of a path: after the question mark comes `@`.
fn behind_queries(path: &str) -> String {
    format!("{path}@")
}

/// Where a page ended, without the query of the last row: that may be a secret.
fn position_of(folder: &str, row: &HeldRow, step: &Step) -> String {
    let shown = keys::path_of(&row.path, &row.variant);
    let name = shown.strip_prefix(folder).unwrap_or_default();
    if matches!(step, Step::Jump(_))
        && let Some((below, _)) = name.split_once('/')
    {
        return format!("d{below}");
    }
    let kind = if row.path.len() > shown.len() {
        "q"
    } else {
        "f"
    };
    format!("{kind}{name}")
}

/// The path at which a page goes on.
fn resumed(folder: &str, position: &str) -> String {
    match position.split_at_checked(1) {
        Some(("d", name)) => behind_folder(folder, name),
        Some(("q", name)) => behind_queries(&format!("{folder}{name}")),
        Some((_, name)) => format!("{folder}{name}{NEXT}"),
        None => folder.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_goes_on_behind_what_the_one_before_has_shown() {
        // By the order of bytes: `-` and `.` stand in front of the slash, digits behind it.
        let in_order = ["a/b", "a/b-c", "a/b.c", "a/b/c", "a/b/~", "a/b0"];
        assert!(in_order.is_sorted());
        let folder = resumed("a/", "db");
        assert!("a/b/~" < &*folder && &*folder <= "a/b0", "{folder}");
        let file = resumed("a/", "fb");
        assert!("a/b" < &*file && &*file < "a/b-c", "{file}");
        let queries = resumed("a/", "qb");
        assert!("a/b?~" < &*queries && &*queries < "a/bA", "{queries}");
        assert_eq!(resumed("a/", ""), "a/");
        assert_eq!(resumed("a/", "ü"), "a/", "no position of ours");
    }
}
