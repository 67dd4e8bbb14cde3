//! What is written down of how old a file is, together with its record (docs/adr/0110).

use larder_core::{ArtifactRecord, Mutability, Repository, SourceKey};
use larder_storage::{Age, Change};

use crate::target::Target;

/// The change that writes down how old a file is of which an upstream has said something.
pub(super) fn noted(wanted: &Target, record: &ArtifactRecord) -> Option<Change> {
    noted_as(wanted, wanted.class_of(record), &wanted.key, record)
}

/// The same under the name by digest of the same bytes.
pub(super) fn noted_by_digest(
    wanted: &Target,
    key: &SourceKey,
    record: &ArtifactRecord,
) -> Option<Change> {
    noted_as(wanted, Mutability::Immutable, key, record)
}

fn noted_as(
    wanted: &Target,
    class: Mutability,
    key: &SourceKey,
    record: &ArtifactRecord,
) -> Option<Change> {
    let age = Age::of(record).filter(|_| is_judged(wanted, class))?;
    let key = key.clone();
    Some(Change::NoteAge { key, age })
}

/// Whether quarantine judges something by its own age; a sidecar has its subject's.
pub(super) fn is_judged(wanted: &Target, class: Mutability) -> bool {
    is_asked_in(&wanted.entry.repository, class) && !wanted.facts.is_sidecar()
}

/// Whether a repository holds back new files of a class.
pub(crate) fn is_asked_in(repository: &Repository, class: Mutability) -> bool {
    repository.quarantine.hold.is_some() && !class.is_mutable()
}
