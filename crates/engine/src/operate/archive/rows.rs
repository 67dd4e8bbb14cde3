//! A record or an uploaded file as it stands in an archive, and what becomes of it.

use larder_core::{ArtifactRecord, BlobDescriptor, StoredHeaders, UnixMillis};
use serde::{Deserialize, Serialize};
use url::Url;

/// A record or an uploaded file, as it stands in an archive: nothing in it is of one installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveRow {
    /// Decoded path below the repository, a query included where it belongs to the name. Empty where `link` says what it is.
    pub path: String,
    /// Which of the forms that the upstream has of it, in larder's own words; empty where there is one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub form: String,
    /// Whether it came from the root of the index, where that is another one than that of the files.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub of_index: bool,
    /// Where it was found below the root of the upstream, if it was found there: the address without that root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<String>,
    /// Where it is a file of another host to which a document links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<ArchiveLink>,
    /// What is known of it, in a remote repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<ArtifactRecord>,
    /// The file, in a local repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<ArchivedFile>,
}

/// A link to another host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveLink {
    /// The address that the document names.
    pub url: Url,
    /// The ending of a sidecar, behind that; empty for the file itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub suffix: String,
}

/// A file of a local repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchivedFile {
    /// Its bytes.
    pub blob: BlobDescriptor,
    /// What the upload said of them.
    pub headers: StoredHeaders,
    /// When they were uploaded.
    pub uploaded_at: UnixMillis,
}

impl ArchiveRow {
    /// Its bytes, if it has any.
    pub fn blob(&self) -> Option<&BlobDescriptor> {
        let of_record = self.record.as_ref().and_then(ArtifactRecord::blob);
        of_record.or(self.file.as_ref().map(|file| &file.blob))
    }

    /// One without anything but its path.
    pub(super) fn of_path(path: String) -> Self {
        Self {
            path,
            form: String::new(),
            of_index: false,
            below: None,
            link: None,
            record: None,
            file: None,
        }
    }
}

/// A page of a repository's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivePage {
    /// The rows, in the order of their paths.
    pub rows: Vec<ArchiveRow>,
    /// The path and form behind which the next page begins; `None`: there is none.
    pub next: Option<(String, String)>,
    /// Changes whenever something of the repository is replaced: pages with different ones may not fit together.
    pub epoch: u64,
    /// Rows that cannot be read, or are of an upstream that the repository has no more.
    pub left_out: u64,
}

/// What became of rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArchiveTaken {
    /// Those that were written.
    pub written: u64,
    /// Those of which as much is known already, or more.
    pub kept: u64,
    /// Those that were refused.
    pub left: Vec<LeftAlone>,
}

/// A row that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftAlone {
    /// Its path, or the address of its link.
    pub path: String,
    /// Why, for people.
    pub why: String,
}

impl ArchiveTaken {
    pub(super) fn leave(&mut self, path: String, why: &str) {
        self.left.push(LeftAlone {
            path,
            why: why.to_owned(),
        });
    }
}
