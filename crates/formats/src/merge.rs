//! What is merged into one document, and what comes of it.

use std::fmt;

use larder_core::UnixMillis;

use crate::{Derived, Document, Links, Malformed};

/// One repository's document, on its way into a merged one.
#[derive(Clone, Copy)]
pub struct MergeMember<'a> {
    /// The document as that repository holds it.
    pub document: Document<'a>,
    /// Links of that repository, with the base that they get in the merged document.
    pub links: &'a Links<'a>,
    /// Whether a name is another's of the repositories: then this one's versions of it are not merged. `None` = no name is.
    pub is_anothers: Option<&'a dyn Fn(&str) -> bool>,
    /// Whether a version with this publish date is held back by the repository's quarantine: it is left out, and no other repository's
    /// version of the same name and number takes its place. `None` = nothing is held.
    pub is_held: Option<&'a dyn Fn(Option<UnixMillis>) -> bool>,
}

impl fmt::Debug for MergeMember<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MergeMember")
            .field("links", &self.links)
            .finish_non_exhaustive()
    }
}

/// A merged document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// Its bytes.
    pub derived: Derived,
    /// What the operator should know of single members, by their place in the list: what was left out, and why.
    pub remarks: Vec<(usize, String)>,
}

/// Why documents cannot be merged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{malformed}")]
pub struct MergeFault {
    /// The place in the list of the member whose document cannot be used.
    pub member: usize,
    /// What is wrong with it.
    pub malformed: Malformed,
}
