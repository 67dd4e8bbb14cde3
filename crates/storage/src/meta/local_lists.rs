//! Lists of what was uploaded: one file after another, what is directly in a folder, and how much there is.

use larder_core::RepositoryName;

use super::db::{DbError, Value};
use super::local_files::{FileRow, LocalFile, file_row};
use super::{HeldSize, MetadataStore};
use crate::error::StorageError;

const PAGE: &str = "SELECT path, blob, size, uploaded_at, headers FROM local_files \
     WHERE repository = $1 AND path > $2 ORDER BY path LIMIT $3";
const RANGE: &str = "SELECT path, blob, size, uploaded_at, headers FROM local_files \
     WHERE repository = $1 AND path >= $2 AND path < $3 ORDER BY path LIMIT $4";
const ALL_USAGE: &str =
    "SELECT repository, files, bytes FROM local_usage WHERE files > 0 ORDER BY repository";
/// Rows that one look into a folder reads: few, for what lies in folders below is passed over by the next look.
const LOOK: i64 = 64;
/// Behind a path it sorts in front of everything longer: paths hold no control characters.
const NEXT: char = '\u{1}';
/// Sorts behind every path.
const LAST: &str = "\u{10ffff}\u{10ffff}";

/// Something directly in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalChild {
    /// A folder's name, without slash.
    Folder(String),
    /// A file's name and the file.
    File(String, LocalFile),
}

impl LocalChild {
    /// Its name within the folder.
    pub fn name(&self) -> &str {
        match self {
            Self::Folder(name) | Self::File(name, _) => name,
        }
    }
}

impl MetadataStore {
    /// Up to `limit` files after this path, ordered by path bytewise. Fewer than `limit` rows: these are the last. A damaged row is
    /// listed without its file.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn local_page(
        &self,
        repository: &RepositoryName,
        after: &str,
        limit: u32,
    ) -> Result<Vec<(String, Option<LocalFile>)>, StorageError> {
        let values = [
            repository.as_str().into(),
            after.into(),
            i64::from(limit).into(),
        ];
        let rows = self.file_rows(PAGE, &values).await?;
        Ok(rows
            .into_iter()
            .map(|row| self.local_row(repository, row))
            .collect())
    }

    async fn file_rows(
        &self,
        statement: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<FileRow>, StorageError> {
        let rows = self.db().all(statement, values).await;
        let rows = rows.and_then(|rows| rows.iter().map(file_row).collect());
        self.noticed(rows.map_err(|e: DbError| StorageError::from_sql("list uploaded files", e)))
    }

    /// Up to `limit` names directly in a folder (`""` or a path that ends in a slash), after the name `after`, ordered bytewise; a
    /// folder and a file of one name are two. A folder's name as `after` has its slash. Reads an index: what lies in folders below is
    /// not walked through.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn local_children(
        &self,
        repository: &RepositoryName,
        folder: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<LocalChild>, StorageError> {
        let end = behind(folder);
        let mut from = match after {
            "" => folder.to_owned(),
            below if below.ends_with('/') => behind(&format!("{folder}{below}")),
            file => format!("{folder}{file}{NEXT}"),
        };
        let mut children: Vec<LocalChild> = Vec::new();
        'looks: while children.len() < limit {
            let values = [
                repository.as_str().into(),
                (&*from).into(),
                (&*end).into(),
                LOOK.into(),
            ];
            let rows = self.file_rows(RANGE, &values).await?;
            let is_last = (rows.len() as i64) < LOOK;
            for row in rows {
                let path = row.0.clone();
                let Some(name) = path.strip_prefix(folder) else {
                    continue;
                };
                if let Some((below, _)) = name.split_once('/') {
                    children.push(LocalChild::Folder(below.to_owned()));
                    // A file of the same name has been listed before: the slash makes the path longer.
                    from = behind(&format!("{folder}{below}/"));
                    continue 'looks;
                }
                from = format!("{path}{NEXT}");
                if let (_, Some(file)) = self.local_row(repository, row) {
                    children.push(LocalChild::File(name.to_owned(), file));
                }
                if children.len() == limit {
                    break 'looks;
                }
            }
            if is_last {
                break;
            }
        }
        Ok(children)
    }

    /// How much each local repository holds, sorted by name; those that hold nothing are left out. One row for each is read.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn local_sizes(&self) -> Result<Vec<HeldSize>, StorageError> {
        let rows = self.db().all(ALL_USAGE, &[]).await;
        let rows = rows.and_then(|rows| {
            rows.iter()
                .map(|row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .collect()
        });
        let rows: Vec<(String, i64, i64)> = self.noticed(
            rows.map_err(|e: DbError| StorageError::from_sql("count uploaded files", e)),
        )?;
        let size = |(repository, files, bytes): (String, i64, i64)| HeldSize {
            repository,
            files: files.max(0).unsigned_abs(),
            bytes: bytes.max(0).unsigned_abs(),
        };
        Ok(rows.into_iter().map(size).collect())
    }
}

/// The first text that sorts behind all that begin with `folder`, which is empty or ends in a slash.
fn behind(folder: &str) -> String {
    match folder.strip_suffix('/') {
        // The character after the slash.
        Some(name) => format!("{name}0"),
        None => LAST.to_owned(),
    }
}
