//! The members of a virtual repository, nested ones taken apart, and how the document of each is obtained.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use larder_core::{ErrorCode, Fault, FaultKind, Mount, RepositoryKind, ReservedNames, Source};
use larder_formats::Form;

use super::Virtual;
use crate::fault::internal;
use crate::origin::{Need, Origin as _};
use crate::policy::admission::{self, Admission};
use crate::repositories::RepositoryState;
use crate::target::ArtifactRequest;
use crate::target::Target;
use crate::transfer::flight::Settled;

/// What a member's document may take in all; then the member's copy is merged, however old it is.
const MEMBER_TIME: Duration = Duration::from_secs(30);
/// Virtual repositories within each other, the outermost included.
const DEEPEST: usize = 4;

/// A member that holds documents itself.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    pub(super) entry: Arc<RepositoryState>,
    /// Whether its names are its own: it is local, or it or a virtual repository that it is in is authoritative.
    pub(super) owns_names: bool,
    /// Names that are its own, whether it has them or not: those of its own configuration, and of virtual repositories that it is in.
    reserved: Vec<ReservedNames>,
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

/// All members that hold documents, in the order of priority; of one that is reached in two ways, the first place counts. Members of
/// virtual members stand in these members' places.
pub(super) fn leaves(engine: &Virtual, owner: &RepositoryState) -> Vec<Leaf> {
    let mut leaves = Vec::new();
    gather(engine, owner, &Owned::default(), 1, &mut leaves);
    leaves
}

/// What a virtual repository in which members are says of their names.
#[derive(Debug, Clone, Default)]
struct Owned {
    owns_names: bool,
    reserved: Vec<ReservedNames>,
}

fn gather(
    engine: &Virtual,
    owner: &RepositoryState,
    above: &Owned,
    depth: usize,
    leaves: &mut Vec<Leaf>,
) {
    let repositories = engine.registry.load();
    for name in owner.repository.members() {
        // The configuration has been checked; a member that is gone all the same contributes nothing.
        let Some(entry) = repositories.get(name) else {
            continue;
        };
        let repository = &entry.repository;
        let mut owned = above.clone();
        owned.owns_names |= repository.authoritative || repository.kind() == RepositoryKind::Local;
        if !repository.reserved.is_empty() {
            owned.reserved.push(repository.reserved.clone());
        }
        if repository.kind() == RepositoryKind::Virtual {
            if depth < DEEPEST {
                gather(engine, entry, &owned, depth + 1, leaves);
            }
            continue;
        }
        match leaves
            .iter_mut()
            .find(|leaf| leaf.entry.repository.name == *name)
        {
            Some(leaf) => {
                leaf.owns_names |= owned.owns_names;
                leaf.reserved.extend(owned.reserved);
            }
            None => leaves.push(Leaf {
                entry: Arc::clone(entry),
                owns_names: owned.owns_names,
                reserved: owned.reserved,
            }),
        }
    }
}

/// The document that a request names, of every member at once.
pub(super) async fn obtain_all(
    engine: &Arc<Virtual>,
    leaves: &[Leaf],
    request: &ArtifactRequest<'_>,
) -> Vec<Given> {
    join_all(leaves.iter().map(|leaf| async move {
        Given {
            leaf: leaf.clone(),
            document: obtain(engine, leaf, request).await,
        }
    }))
    .await
}

/// Where the same client sees a member.
pub(super) fn mount_of<'a>(leaf: &Leaf, mount: &Mount<'a>) -> Mount<'a> {
    let repository = &leaf.entry.repository;
    mount.beside(repository.kind(), repository.name.as_str())
}

/// A member's document: fresh from its cache or its upstream, else its copy, however old.
pub(super) async fn obtain(
    engine: &Arc<Virtual>,
    leaf: &Leaf,
    request: &ArtifactRequest<'_>,
) -> Result<Contribution, Fault> {
    let name = &leaf.entry.repository.name;
    if leaf.entry.repository.kind() == RepositoryKind::Local {
        let message = format!(
            "local {} repositories have no index in this version of larder",
            leaf.entry.repository.package.as_str()
        );
        return Err(Fault::not_built(message).in_repository(name));
    }
    let of_member = ArtifactRequest {
        repository: name.as_str(),
        mount: mount_of(leaf, &request.mount),
        ..request.clone()
    };
    let admitted = match admission::admit(&engine.registry, &of_member)? {
        Admission::Read(admitted) if matches!(admitted.form(), Form::Derived(_)) => admitted,
        _ => return Err(internal("a member has no such document")),
    };
    let wanted = admitted.wanted();
    let obtained =
        tokio::time::timeout(MEMBER_TIME, engine.remote.document(wanted, Need::Usual)).await;
    let fault = match obtained {
        Ok(Ok(settled)) => {
            return Ok(Contribution {
                wanted: Arc::clone(wanted),
                settled,
                stands_in: false,
            });
        }
        Ok(Err(fault)) => fault,
        Err(_) => Fault::new(
            FaultKind::GatewayTimeout,
            ErrorCode::UpstreamTimeout,
            format!(
                "the index of repository {name} did not arrive within {} seconds",
                MEMBER_TIME.as_secs()
            ),
        )
        .in_repository(name),
    };
    match copy(engine, wanted, &fault).await {
        Some(settled) => Ok(Contribution {
            wanted: Arc::clone(wanted),
            settled,
            stands_in: true,
        }),
        None => Err(fault),
    }
}

/// What is held of a document that could not be obtained. An upstream that says that there is none is believed.
async fn copy(engine: &Arc<Virtual>, wanted: &Arc<Target>, fault: &Fault) -> Option<Settled> {
    let is_gone = matches!(
        fault.kind,
        FaultKind::NotFound | FaultKind::Upstream(404 | 410)
    );
    if is_gone {
        return None;
    }
    let record = engine.catalog.record(&wanted.key).await.ok()??;
    if !engine.remote.copies.may_serve(wanted, &record) {
        return None;
    }
    let open = engine.catalog.open_held(wanted, &record).await?;
    let mut settled = engine
        .remote
        .copies
        .settled_copy(wanted, record, open, Some("stale-error"));
    settled.source = Source::Cache;
    crate::counters::count(&wanted.entry.counters.stale_served);
    Some(settled)
}
