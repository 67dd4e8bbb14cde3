//! Virtual repositories: one address for several repositories of one package type.
//!
//! | file | |
//! |---|---|
//! | `state.rs` | what they are made with, and what is remembered of merges |
//! | `given.rs` | what a member is, and what it gave |
//! | `tree.rs` | the members as they stand within each other, and whose a name is |
//! | `members.rs` | how the document of each is obtained |
//! | `assembled.rs` | the merged document: what it is named by, how long it holds |
//! | `merge.rs` | how it is made |
//! | `reading.rs` | what all answers to a request have in common |
//! | `read.rs` | the answers: what a request is for, and the merged document |
//! | `whose.rs` | whose a file is |
//! | `files.rs` | its answer |
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
mod tree;
mod whose;

use std::sync::Arc;

use larder_core::{AccessDenied, Fault, RepositoryKind, RepositoryName};

use crate::answer::Answer;
use crate::repositories::RepositoryState;
use crate::target::ArtifactRequest;

pub(crate) use reading::member_and_path;
pub(crate) use state::{Answering, Parts, Virtual};
pub(crate) use whose::{Standing, standings};

/// The repositories that hold what a virtual one shows, in the order of priority.
pub(crate) fn members_of(
    engine: &Virtual,
    owner: &Arc<RepositoryState>,
) -> Vec<Arc<RepositoryState>> {
    let (_, leaves) = tree::take_apart(&engine.registry.load(), owner);
    leaves.into_iter().map(|leaf| leaf.entry).collect()
}

/// The repositories that may give a name to a virtual one, in the order of priority, where those have it of which `has` says so.
pub(crate) fn givers_of(
    engine: &Virtual,
    owner: &Arc<RepositoryState>,
    name: &str,
    has: impl Fn(&RepositoryName) -> bool,
) -> Vec<Arc<RepositoryState>> {
    let (root, leaves) = tree::take_apart(&engine.registry.load(), owner);
    let entry = |leaf: usize| leaves.get(leaf).map(|leaf| &leaf.entry);
    let has = |leaf: usize| entry(leaf).is_some_and(|entry| has(&entry.repository.name));
    let givers = root.givers(Some(name), &has, &|_| true).leaves;
    givers.into_iter().filter_map(entry).cloned().collect()
}

/// The virtual repository whose rules keep a member from having a path, `owner` or one within it, and what they say.
pub(crate) fn denier_of(
    engine: &Virtual,
    owner: &Arc<RepositoryState>,
    member: &RepositoryName,
    path: &str,
) -> Option<(Arc<RepositoryState>, AccessDenied)> {
    let (root, leaves) = tree::take_apart(&engine.registry.load(), owner);
    let is_named = |leaf: &given::Leaf| leaf.entry.repository.name == *member;
    let of = reading::denier(&root, leaves.iter().position(is_named)?, path)?;
    let denied = reading::refusal(&of, path)?;
    Some((of, denied))
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
