//! Virtual repositories: one address for several repositories of one package type.
//!
//! | file | |
//! |---|---|
//! | `state.rs` | what they are made with, and what is remembered of merges |
//! | `given.rs` | what a member is, and what it gave |
//! | `members.rs` | whose documents belong in the merge, and how each of them is obtained |
//! | `assembled.rs` | the merged document: what it is named by, how long it holds |
//! | `merge.rs` | how it is made |
//! | `reading.rs` | what all answers to a request have in common |
//! | `read.rs` | the answers: what a request is for, and the merged document |
//! | `files.rs` | whose a file is, and its answer |
//!
//! A member is asked through the pipeline like any other repository, with its own rules, credentials and copies. The merged document is a
//! derivation of the members' documents (docs/adr/0062): it needs no invalidation of its own.

mod assembled;
mod files;
mod given;
mod members;
mod merge;
mod read;
mod reading;
mod state;

use std::sync::Arc;

use larder_core::{Fault, RepositoryKind, RepositoryName};

use crate::answer::Answer;
use crate::repositories::RepositoryState;
use crate::target::ArtifactRequest;

pub(crate) use state::{Answering, Parts, Virtual};

/// In front of a member's name, in the paths of a virtual repository that lead to one member alone.
pub(crate) const MEMBER: &str = reading::MEMBER;

/// The repositories that hold what a virtual one shows, in the order of priority.
pub(crate) fn members_of(engine: &Virtual, owner: &RepositoryState) -> Vec<Arc<RepositoryState>> {
    let leaves = members::leaves(engine, owner);
    leaves.into_iter().map(|leaf| leaf.entry).collect()
}

/// A repository that may give a name to a virtual one.
#[derive(Debug, Clone)]
pub(crate) struct Giver {
    pub(crate) entry: Arc<RepositoryState>,
    /// If it has the name, nobody else gives it.
    pub(crate) owns_names: bool,
}

/// The repositories that may give a name to a virtual one, in the order of priority: those for which it is reserved, if there are any.
pub(crate) fn givers_of(engine: &Virtual, owner: &RepositoryState, name: &str) -> Vec<Giver> {
    let leaves = members::leaves(engine, owner);
    let may_give = |leaf: &&given::Leaf| given::reserved_for(&leaves, leaf, name).is_none();
    let giver = |leaf: &given::Leaf| Giver {
        entry: Arc::clone(&leaf.entry),
        owns_names: leaf.owns_names,
    };
    leaves.iter().filter(may_give).map(giver).collect()
}

/// The virtual repository that a request is for, if this version serves it.
pub(crate) fn of(engine: &Virtual, request: &ArtifactRequest<'_>) -> Option<Arc<RepositoryState>> {
    let name = RepositoryName::parse(request.repository).ok()?;
    let entry = engine.registry.load().get(&name).cloned()?;
    let is_virtual = entry.repository.kind() == RepositoryKind::Virtual;
    (is_virtual && entry.not_built.is_none()).then_some(entry)
}

/// Answers a request for something in a virtual repository.
pub(crate) async fn serve(
    engine: &Arc<Virtual>,
    port: &dyn Answering,
    owner: &Arc<RepositoryState>,
    request: &ArtifactRequest<'_>,
) -> Result<Answer, Fault> {
    read::serve(engine, port, owner, request).await
}
