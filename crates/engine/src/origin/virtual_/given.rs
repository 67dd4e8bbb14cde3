//! What members are to a virtual repository, and what each of them gave for a merge.

use std::sync::Arc;

use larder_core::{Fault, Mount, ReservedNames};

use crate::repositories::RepositoryState;
use crate::target::Target;
use crate::transfer::flight::Settled;

/// A member that holds documents itself.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    pub(super) entry: Arc<RepositoryState>,
    /// Whether its names are its own: it is local, or it or a virtual repository that it is in is authoritative.
    pub(super) owns_names: bool,
    /// Names that are its own, whether it has them or not: those of its own configuration, and of virtual repositories that it is in.
    pub(super) reserved: Vec<ReservedNames>,
}

impl Leaf {
    pub(super) fn reserves(&self, name: &str) -> bool {
        self.reserved.iter().any(|reserved| reserved.has(name))
    }

    /// The globs of the names that are its own.
    pub(super) fn reserved_globs(&self) -> impl Iterator<Item = &str> {
        let globs = self.reserved.iter().flat_map(ReservedNames::globs);
        globs.map(String::as_str)
    }
}

/// The member for which a name is reserved; `None` if it is `leaf` itself, or nobody.
pub(super) fn reserved_for<'l>(leaves: &'l [Leaf], leaf: &Leaf, name: &str) -> Option<&'l Leaf> {
    let owner = leaves.iter().find(|one| one.reserves(name))?;
    (!leaf.reserves(name)).then_some(owner)
}

/// What a member gave.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) leaf: Leaf,
    pub(super) document: Result<Contribution, Fault>,
}

/// A member's document.
#[derive(Debug, Clone)]
pub(super) struct Contribution {
    pub(super) wanted: Arc<Target>,
    pub(super) settled: Settled,
    /// Whether the member failed, and this is what is held all the same.
    pub(super) stands_in: bool,
}

/// Where the same client sees a member.
pub(super) fn mount_of<'a>(leaf: &Leaf, mount: &Mount<'a>) -> Mount<'a> {
    let repository = &leaf.entry.repository;
    mount.beside(repository.kind(), repository.name.as_str())
}
