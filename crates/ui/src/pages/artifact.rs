//! One path with all that is known of it.

use serde::Serialize;

use super::view::page;
use crate::pages::RepositoryHead;
use crate::pages::search::Hit;
use crate::values::{Bytes, Count, Moment};

/// The page.
#[derive(Debug, Clone, Serialize)]
pub struct Artifact {
    /// The repository.
    pub repository: RepositoryHead,
    /// The path below it.
    pub path: String,
    /// Its address for clients, relative to larder's root.
    pub address: String,
    /// What is held of it: one for each form, upstream and query.
    pub copies: Vec<HeldCopy>,
    /// There are more.
    pub has_more_copies: bool,
    /// What a GET would come to.
    pub verdict: Option<String>,
    /// Whether it changes under its name.
    pub class: Option<String>,
    /// What quarantine says.
    pub quarantine: Option<String>,
    /// Until when it is held back.
    pub held_until: Option<Moment>,
    /// What a held document states of it.
    pub stated: Option<Stated>,
    /// The documents that may name it.
    pub naming: Vec<Naming>,
    /// Held documents that have it as a part.
    pub named_by: Vec<String>,
    /// Others that have the same bytes.
    pub same_bytes: Vec<Hit>,
    /// There are more of them.
    pub has_more_same: bool,
    /// The package that it is of.
    pub package: Option<PackageOf>,
    /// The image that it is of.
    pub image: Option<ImageOf>,
}

page!(Artifact, "artifact.html", crate::Section::Repositories);

/// Something that is held under a path.
#[derive(Debug, Clone, Serialize)]
pub struct HeldCopy {
    /// The upstream's negotiated form, where there are several.
    pub form: String,
    /// Whether a client's query is part of its name; it is not shown.
    pub has_query: bool,
    /// Whether it is the present upstream's.
    pub cached: bool,
    /// `bytes`, `pointer`, `absent` or `head`.
    pub holds: &'static str,
    /// The path that has the bytes, of a pointer.
    pub points_to: Option<String>,
    /// Bytes.
    pub size: Option<Bytes>,
    /// SHA-256 of the bytes, in hexadecimal digits.
    pub sha256: Option<String>,
    /// Whether the bytes were compared with a digest that the ecosystem states.
    pub verified: bool,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// The upstream's `ETag`.
    pub etag: Option<String>,
    /// The upstream's `Last-Modified`.
    pub last_modified: Option<String>,
    /// The host that the bytes came from.
    pub host: Option<String>,
    /// When these bytes were fetched or uploaded.
    pub cached_at: Moment,
    /// When the upstream was last heard of it.
    pub contacted_at: Moment,
    /// When it was first seen.
    pub first_seen_at: Moment,
    /// When the upstream is asked again; `None`: never.
    pub fresh_until: Option<Moment>,
    /// When it was last asked for, as far as is known.
    pub used_at: Option<Moment>,
    /// How many answers had its bytes, or a part of them, since it is held or was uploaded.
    pub downloads: Count,
}

/// What a held document states of a file.
#[derive(Debug, Clone, Serialize)]
pub struct Stated {
    /// Digests, as `algorithm:hexadecimal digits`.
    pub digests: Vec<String>,
    /// Bytes.
    pub size: Option<Bytes>,
    /// When it was published.
    pub published_at: Option<Moment>,
}

/// A document that may name a file.
#[derive(Debug, Clone, Serialize)]
pub struct Naming {
    /// Its path.
    pub path: String,
    /// Whether it is held.
    pub is_held: bool,
}

/// The package that a file is of.
#[derive(Debug, Clone, Serialize)]
pub struct PackageOf {
    /// Its name.
    pub name: String,
    /// The folder of its index, where there is one in each.
    pub folder: Option<String>,
}

/// The image that a file is of.
#[derive(Debug, Clone, Serialize)]
pub struct ImageOf {
    /// Its name.
    pub name: String,
    /// The tag or digest that the file is the manifest of.
    pub reference: Option<String>,
}

impl Artifact {
    /// The folder that the path is in, with its slash; empty at the root.
    pub fn folder(&self) -> &str {
        let inner = self.path.strip_suffix('/').unwrap_or(&self.path);
        let end = inner.rfind('/').map_or(0, |slash| slash + 1);
        self.path.get(..end).unwrap_or_default()
    }

    /// Whether it was uploaded.
    pub fn is_local(&self) -> bool {
        self.repository.kind == "local"
    }

    /// Whether something is held that a job can ask for: it has no queries.
    pub fn may_come_again(&self) -> bool {
        self.copies.iter().any(|copy| !copy.has_query)
    }

    /// The lines about what a copy holds.
    pub fn numbered(&self) -> impl Iterator<Item = (usize, &HeldCopy)> {
        self.copies.iter().enumerate()
    }
}

impl HeldCopy {
    /// What it is, in words.
    pub fn words(&self) -> &'static str {
        match self.holds {
            "bytes" => "the bytes",
            "pointer" => "a name for other bytes",
            "absent" => "the upstream's answer that there is no such file",
            _ => "only what the upstream says of it",
        }
    }
}
