//! An image: its held tags, and what a manifest consists of.

use serde::Serialize;

use super::view::page;
use crate::pages::RepositoryHead;
use crate::values::{Bytes, Count, Moment};

/// The page.
#[derive(Debug, Clone, Serialize)]
pub struct Image {
    /// The repository.
    pub repository: RepositoryHead,
    /// The image's name.
    pub name: String,
    /// The tag or digest that is looked into; empty: none.
    pub reference: String,
    /// Tags and digests whose manifests are held.
    pub references: Vec<Reference>,
    /// Where the next page of them begins; `None`: there is none.
    pub next: Option<String>,
    /// The manifest that is looked into.
    pub manifest: Option<Manifest>,
    /// Of a virtual repository: its members.
    pub members: Vec<String>,
}

page!(Image, "image.html", crate::Section::Repositories);

/// A tag or digest.
#[derive(Debug, Clone, Serialize)]
pub struct Reference {
    /// The tag or digest.
    pub reference: String,
    /// The manifest's digest.
    pub digest: Option<String>,
    /// When it was fetched.
    pub cached_at: Moment,
}

/// A manifest.
#[derive(Debug, Clone, Serialize)]
pub struct Manifest {
    /// Its path.
    pub path: String,
    /// Its digest in hexadecimal digits.
    pub sha256: String,
    /// Bytes.
    pub size: Bytes,
    /// Its media type.
    pub media_type: Option<String>,
    /// What kind of artifact it is, where it says so.
    pub artifact_type: Option<String>,
    /// The digest of the manifest that it says something of.
    pub subject: Option<String>,
    /// When it was fetched.
    pub cached_at: Option<Moment>,
    /// When the upstream is asked again; `None`: never.
    pub fresh_until: Option<Moment>,
    /// Whether its parts are manifests: one for each platform.
    pub is_index: bool,
    /// Its layers or manifests.
    pub parts: Vec<Part>,
    /// Those that are not shown.
    pub left_out: Count,
    /// The bytes of all of them, as far as the manifest states them.
    pub sum: Bytes,
    /// Its configuration.
    pub config: Option<Part>,
    /// The platform, by the configuration that is held.
    pub platform: Option<String>,
    /// When it was made, by that.
    pub created: Option<String>,
    /// What it runs, by that.
    pub command: Option<String>,
    /// What refers to it, as far as a list of that is held.
    pub referrers: Vec<Part>,
}

/// A part of a manifest.
#[derive(Debug, Clone, Serialize)]
pub struct Part {
    /// Its digest.
    pub digest: String,
    /// Its path; empty if the digest is none.
    pub path: String,
    /// Its media type.
    pub media_type: String,
    /// What kind of artifact it is, where that is said.
    pub artifact_type: Option<String>,
    /// Bytes.
    pub size: Option<Bytes>,
    /// `os/architecture/variant`.
    pub platform: Option<String>,
    /// Whether its bytes are held.
    pub is_held: bool,
}

impl Manifest {
    /// Whether what it says something of can be looked at: what is longer is no digest.
    pub fn has_subject(&self) -> bool {
        self.subject
            .as_ref()
            .is_some_and(|subject| subject.len() <= crate::SHORT)
    }
}

impl Part {
    /// What it is, in as few words as will do.
    pub fn kind(&self) -> &str {
        self.artifact_type.as_deref().unwrap_or(&self.media_type)
    }
}
