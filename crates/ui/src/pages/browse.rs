//! One level of a repository.

use std::collections::BTreeMap;

use serde::Serialize;

use super::view::page;
use crate::pages::RepositoryHead;
use crate::values::{Bytes, Moment};

/// The page.
#[derive(Debug, Clone, Serialize)]
pub struct Browse {
    /// The repository.
    pub repository: RepositoryHead,
    /// Path of the folder: empty, or with a slash at its end.
    pub folder: String,
    /// The names of the folders below it, without slash.
    pub folders: Vec<String>,
    /// Its files.
    pub files: Vec<File>,
    /// Where the next page begins; `None`: there is none.
    pub next: Option<String>,
    /// Whether this page is not the first.
    pub is_later: bool,
    /// Of a virtual repository: which of its members hold each, by the name of the file or folder (a folder's has a slash at its end).
    pub holders: BTreeMap<String, Vec<String>>,
}

page!(Browse, "browse.html", crate::Section::Repositories);

/// A file or document.
#[derive(Debug, Clone, Serialize)]
pub struct File {
    /// Its name within the folder; empty for the document that has the folder's own path.
    pub name: String,
    /// Bytes; `None` for a name that leads to others' bytes.
    pub size: Option<Bytes>,
    /// SHA-256 of the bytes, in hexadecimal digits.
    pub sha256: Option<String>,
    /// Whether it is the present upstream's copy.
    pub cached: bool,
    /// When these bytes were fetched or uploaded.
    pub cached_at: Moment,
    /// When the upstream is asked again; `None`: never.
    pub fresh_until: Option<Moment>,
}

impl File {
    /// What it is called in the list.
    pub fn shown(&self) -> &str {
        if self.name.is_empty() {
            "(the folder's own document)"
        } else {
            &self.name
        }
    }
}

impl Browse {
    /// The folders above this one and itself: name, and path with its slash.
    pub fn crumbs(&self) -> Vec<(&str, &str)> {
        let ends = self.folder.match_indices('/').map(|(at, _)| at);
        let mut begin = 0;
        ends.filter_map(|end| {
            let name = self.folder.get(begin..end)?;
            begin = end + 1;
            Some((name, self.folder.get(..=end)?))
        })
        .collect()
    }

    /// Whether it shows what others hold.
    pub fn is_virtual(&self) -> bool {
        self.repository.kind == "virtual"
    }

    /// Who holds a file of it; the first is the one whose file clients get, where no index says otherwise.
    pub fn holders(&self, file: &str) -> &[String] {
        self.holders.get(file).map_or(&[], Vec::as_slice)
    }

    /// Who holds a folder of it.
    pub fn folder_holders(&self, folder: &str) -> &[String] {
        self.holders(&format!("{folder}/"))
    }

    /// The repository that a file is shown of.
    pub fn holder<'a>(&'a self, file: &'a File) -> &'a str {
        let first = self.holders(&file.name).first();
        first.map_or(&self.repository.name, String::as_str)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.folders.is_empty() && self.files.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_those_above_it() {
        let page = Browse {
            repository: RepositoryHead {
                name: "r".to_owned(),
                kind: "remote",
                package: "generic",
                description: String::new(),
                state: "ok",
            },
            folder: "a/b c/".to_owned(),
            folders: Vec::new(),
            files: Vec::new(),
            next: None,
            is_later: false,
            holders: BTreeMap::new(),
        };
        assert_eq!(page.crumbs(), [("a", "a/"), ("b c", "a/b c/")]);
    }
}
