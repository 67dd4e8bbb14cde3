//! What members are to a virtual repository, and what each of them gave for a merge.

use std::sync::Arc;

use larder_core::{Fault, INCOMPLETE, Mount, StoredHeaders, UnixMillis, fresh_until};

use crate::repositories::RepositoryState;
use crate::target::Target;
use crate::transfer::flight::Settled;

/// A member that holds documents itself.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    pub(super) entry: Arc<RepositoryState>,
    /// Whether the names that it has decide what others give: it is local, or it or a virtual repository that it is in is authoritative.
    pub(super) owns_names: bool,
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

impl Contribution {
    /// The members that another larder left out of the document.
    pub(super) fn lacks(&self) -> impl Iterator<Item = &str> {
        let further = &self.settled.record.headers.further;
        let names = further.get(StoredHeaders::SKIPPED_MEMBERS).into_iter();
        let names = names.flat_map(|names| names.split(','));
        names.map(str::trim).filter(|name| !name.is_empty())
    }

    /// Until when what was made of it by `now` holds; `None` = for ever.
    pub(super) fn holds_until(&self, now: UnixMillis) -> Option<UnixMillis> {
        if self.stands_in || !self.settled.reusable {
            return Some(now.plus(INCOMPLETE));
        }
        let record = &self.settled.record;
        let cache = &self.wanted.entry.repository.cache;
        fresh_until(record, self.wanted.class_of(record), cache)
    }
}

/// The earlier of two ends; `None` = never.
pub(super) fn earlier(one: Option<UnixMillis>, other: Option<UnixMillis>) -> Option<UnixMillis> {
    one.into_iter().chain(other).min()
}

/// Where the same client sees a member.
pub(super) fn mount_of<'a>(leaf: &Leaf, mount: &Mount<'a>) -> Mount<'a> {
    let repository = &leaf.entry.repository;
    mount.beside(repository.kind(), repository.name.as_str())
}
