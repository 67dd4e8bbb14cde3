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

/// So many folders of a path are shown; of a deeper one the first and the last.
const MOST_CRUMBS: usize = 20;
/// The first of a deeper one.
const FIRST_CRUMBS: usize = 3;

impl Browse {
    /// The folders above this one and itself: the name, and the address from this page. In the place of those that are left out there is
    /// one without a name.
    pub fn crumbs(&self) -> Vec<(&str, String)> {
        let names: Vec<&str> = self.folder.split_terminator('/').collect();
        let deep = names.len();
        let left_out = if deep > MOST_CRUMBS {
            FIRST_CRUMBS..deep + FIRST_CRUMBS - MOST_CRUMBS
        } else {
            0..0
        };
        let names = names.into_iter().enumerate();
        names
            .filter(|(at, _)| !left_out.contains(at) || *at == left_out.start)
            .map(|(at, name)| match deep - 1 - at {
                _ if left_out.contains(&at) => ("", String::new()),
                0 => (name, "./".to_owned()),
                above => (name, "../".repeat(above)),
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
        let mut page = Browse {
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
        let text = |crumbs: Vec<(&str, String)>| {
            let texts = crumbs
                .iter()
                .map(|(name, address)| format!("{name}>{address}"));
            texts.collect::<Vec<_>>().join(" ")
        };
        let folder = |depth: u32| {
            let names: Vec<String> = (1..=depth).map(|number| format!("{number}/")).collect();
            names.concat()
        };
        assert_eq!(text(page.crumbs()), "a>../ b c>./");
        page.folder = folder(20);
        let all = text(page.crumbs());
        assert!(
            all.starts_with("1>../../") && all.ends_with(" 19>../ 20>./"),
            "{all}"
        );
        page.folder = folder(1_000);
        let crumbs = page.crumbs();
        let names: Vec<&str> = crumbs.iter().map(|(name, _)| *name).collect();
        assert_eq!(names[..5], ["1", "2", "3", "", "984"]);
        assert_eq!((names.len(), names[names.len() - 1]), (21, "1000"));
        assert_eq!(crumbs[0].1, "../".repeat(999));
        assert_eq!(crumbs[4].1, "../".repeat(16));
    }
}
