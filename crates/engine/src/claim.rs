//! What a document says of one file.

use larder_core::{Digest, UnixMillis};

/// What is claimed of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredClaim {
    pub(crate) url: String,
    pub(crate) size: Option<u64>,
    pub(crate) published_at: Option<UnixMillis>,
    /// The bytes have one of these; the weaker ones that a document states of the same bytes are not among them.
    pub(crate) digests: Vec<Digest>,
    /// Or one of these, separated by spaces.
    pub(crate) identity: Option<String>,
    /// The packages that it is of, where the document says so.
    pub(crate) packages: Vec<String>,
    /// Whether it names further files.
    pub(crate) names_files: bool,
}

/// What a document says that a file's bytes are. It may name a file more than once and say different things of it (an index that was
/// not cleaned up after a file was packed anew): any of them will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stated {
    Digests(Vec<Digest>),
    /// What the format's [`Identifier`](larder_formats::Identifier) has to compute of them (ADR 0026).
    Identities(Vec<String>),
}

impl std::fmt::Display for Stated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Digests(digests) => f.write_str(
                &digests
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(" or "),
            ),
            Self::Identities(identities) => f.write_str(&identities.join(" or ")),
        }
    }
}

impl StoredClaim {
    /// A file at its usual place, of which nothing is stated but a digest.
    pub(crate) fn of_digest(digest: Digest) -> Self {
        Self {
            url: String::new(),
            size: None,
            published_at: None,
            digests: vec![digest],
            identity: None,
            packages: Vec::new(),
            names_files: false,
        }
    }

    /// The sidecar of a file that is claimed: it stands beside the file, and nothing is stated of it.
    pub(crate) fn of_sidecar(self, suffix: &str) -> Self {
        let (path, query) = self
            .url
            .split_at(self.url.find('?').unwrap_or(self.url.len()));
        let url = if path.is_empty() {
            String::new()
        } else {
            format!("{path}{suffix}{query}")
        };
        Self {
            url,
            size: None,
            digests: Vec::new(),
            identity: None,
            names_files: false,
            ..self
        }
    }

    /// What the bytes are measured by: digests, else identities; `None` if nothing is stated of them.
    pub(crate) fn stated(&self) -> Option<Stated> {
        if !self.digests.is_empty() {
            return Some(Stated::Digests(self.digests.clone()));
        }
        let identities = self.identity.as_ref()?.split(' ').map(str::to_owned);
        Some(Stated::Identities(identities.collect()))
    }
}
