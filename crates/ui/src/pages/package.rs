//! The versions of a package.

use serde::Serialize;

use super::view::page;
use crate::pages::RepositoryHead;
use crate::values::{Bytes, Count, Moment};

/// The page.
#[derive(Debug, Clone, Serialize)]
pub struct Package {
    /// The repository.
    pub repository: RepositoryHead,
    /// The package's name.
    pub name: String,
    /// The folder of its index, where there is one in each.
    pub folder: Option<String>,
    /// The index's path.
    pub index: String,
    /// When the index was fetched.
    pub cached_at: Option<Moment>,
    /// When the upstream is asked for it again; `None`: never.
    pub fresh_until: Option<Moment>,
    /// Names that stand for versions, `latest` first.
    pub tags: Vec<Tag>,
    /// How many there are in all.
    pub tags_total: Count,
    /// The newest first.
    pub files: Vec<PackageFile>,
    /// How many there are in all.
    pub total: Count,
    /// The number of this page, from 1.
    pub page: usize,
    /// Whether there is one behind it.
    pub has_next: bool,
    /// Of a virtual repository: the members whose indexes name the package.
    pub members: Vec<Member>,
}

page!(Package, "package.html", crate::Section::Repositories);

/// A member of a virtual repository that has a package.
#[derive(Debug, Clone, Serialize)]
pub struct Member {
    /// The repository.
    pub member: String,
    /// Its index's path.
    pub index: String,
}

/// A name that stands for a version.
#[derive(Debug, Clone, Serialize)]
pub struct Tag {
    /// The name.
    pub tag: String,
    /// The version.
    pub version: String,
}

/// A file of a version.
#[derive(Debug, Clone, Serialize)]
pub struct PackageFile {
    /// Its version; empty if nothing tells it.
    pub version: String,
    /// Its path; empty for a version without a file that larder carries.
    pub path: String,
    /// Bytes.
    pub size: Option<Bytes>,
    /// SHA-256 of the bytes in hexadecimal digits.
    pub sha256: Option<String>,
    /// When it was published.
    pub published_at: Option<Moment>,
    /// It was withdrawn, and why; the reason may be empty.
    pub yanked: Option<String>,
    /// It is not to be used any more, and why; the reason may be empty.
    pub deprecated: Option<String>,
    /// When the held copy was fetched; `None`: there is none.
    pub cached_at: Option<Moment>,
    /// Whether quarantine holds it back.
    pub is_held_back: bool,
    /// Until when, as far as that is known.
    pub held_until: Option<Moment>,
    /// The repository whose file it is: of a virtual one a member.
    pub repository: String,
}

impl Package {
    /// Whether there are more tags than this page has.
    pub fn has_more_tags(&self) -> bool {
        (self.tags.len() as u64) < self.tags_total.0
    }
}

/// Of a reason the page shows this many bytes at most, so that a hundred of them do not make it long; the JSON has all of it.
const LONGEST_REASON: usize = 160;

/// The beginning of a long reason, and whether something is left out.
fn beginning(reason: &str) -> (&str, bool) {
    let end = reason.floor_char_boundary(LONGEST_REASON);
    (&reason[..end], end < reason.len())
}

impl PackageFile {
    /// The beginning of the reason why it was withdrawn, and whether there is more of it.
    pub fn yanked_in_short(&self) -> Option<(&str, bool)> {
        self.yanked.as_deref().map(beginning)
    }

    /// The beginning of the reason why it is not to be used any more, and whether there is more of it.
    pub fn deprecated_in_short(&self) -> Option<(&str, bool)> {
        self.deprecated.as_deref().map(beginning)
    }

    /// The file's name.
    pub fn file(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}
