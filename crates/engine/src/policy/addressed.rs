//! Which repository a request names, and whether its path can be one: asked before any rule is.

use std::sync::Arc;

use larder_core::{
    ArtifactPath, ErrorCode, Fault, FaultKind, PathError, PathRules, RepositoryKind, RepositoryName,
};

use crate::repositories::{Registry, RepositoryState};
use crate::target::ArtifactRequest;

/// A repository that holds something itself, or the fault that says what is wrong with it. What virtual ones show is their members'.
pub(crate) fn entry(registry: &Registry, name: &str) -> Result<Arc<RepositoryState>, Fault> {
    let entry = built(registry, name)?;
    if entry.repository.kind() == RepositoryKind::Virtual {
        let name = &entry.repository.name;
        let members: Vec<&str> = entry
            .repository
            .members()
            .iter()
            .map(RepositoryName::as_str)
            .collect();
        let message = format!(
            "{name} is a virtual repository and holds nothing itself: ask its members ({}), or read it at /api/v1/virtual/{name}",
            members.join(", ")
        );
        let (kind, code) = (FaultKind::BadRequest, ErrorCode::BadRequest);
        return Err(Fault::new(kind, code, message).in_repository(name));
    }
    Ok(entry)
}

/// A repository that this version can serve.
pub(crate) fn built(registry: &Registry, name: &str) -> Result<Arc<RepositoryState>, Fault> {
    let entry = named(registry, name)?;
    match &entry.not_built {
        Some(reason) => Err(Fault::unbuilt(&entry.repository.name, reason)),
        None => Ok(entry),
    }
}

/// The repository of that name.
fn named(registry: &Registry, name: &str) -> Result<Arc<RepositoryState>, Fault> {
    let name = RepositoryName::parse(name).map_err(|_| {
        Fault::new(
            FaultKind::NotFound,
            ErrorCode::UnknownRepository,
            "there is no repository of that name",
        )
    })?;
    let unknown = || {
        let message = format!("there is no repository named {name}; GET / lists the repositories");
        Fault::new(FaultKind::NotFound, ErrorCode::UnknownRepository, message).in_repository(&name)
    };
    registry.load().get(&name).cloned().ok_or_else(unknown)
}

/// What is wrong with a path whatever the repository is: that is told first (contract, section 1).
pub(crate) fn bad_path(request: &ArtifactRequest<'_>) -> Option<Fault> {
    let path = request
        .raw_path
        .strip_prefix('/')
        .unwrap_or(request.raw_path);
    // Below the repository it is folded; the repository's own place in an address is not.
    if request.repository == "." {
        return Some(path_fault(PathError::DotSegment));
    }
    let lenient = PathRules {
        encoded_scope_slash: true,
    };
    ArtifactPath::parse(&format!("{}/{path}", request.repository), lenient)
        .err()
        .map(path_fault)
}

pub(crate) fn path_fault(error: PathError) -> Fault {
    let kind = if error == PathError::TooLong {
        FaultKind::UriTooLong
    } else {
        FaultKind::BadRequest
    };
    let message = format!("{error}: correct the client, or what rewrites its addresses on the way");
    Fault::new(kind, ErrorCode::InvalidPath, message)
        .briefly(error.to_string())
        .by_rule("paths")
}
