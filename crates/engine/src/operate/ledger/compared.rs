//! Asking all mirrors of a repository how old their indexes are.

use std::sync::Arc;

use larder_core::{ErrorCode, Fault, FaultKind};

use crate::origin::remote::Mirrors;
use crate::policy::admission;
use crate::repositories::RepositoryState;

/// Indexes that are asked for at most: a repository of many may have a mirror that is behind with some.
const MOST: usize = 3;

/// Asks each mirror for the heads of the indexes that came last from any of them.
pub(super) async fn ask(mirrors: &Arc<Mirrors>, entry: &Arc<RepositoryState>) -> Result<(), Fault> {
    let bad = |message: &str| {
        let fault = Fault::new(FaultKind::BadRequest, ErrorCode::BadRequest, message);
        Err(fault.in_repository(&entry.repository.name))
    };
    if entry.mirrors.len() < 2 {
        return bad("this repository has no several mirrors to be compared");
    }
    if entry.repository_is_offline() {
        return bad("the repository is offline: its mirrors are not asked (offline: true)");
    }
    let mut paths: Vec<String> = Vec::new();
    for path in entry
        .mirrors
        .iter()
        .flat_map(|mirror| mirror.indexes().paths().into_iter().take(MOST))
    {
        if paths.len() < MOST && !paths.contains(&path) {
            paths.push(path);
        }
    }
    let named = |path: &String| admission::named_file(entry, entry.format, path);
    let targets: Vec<_> = paths.iter().filter_map(named).collect();
    if targets.is_empty() {
        return bad("no mirror gave an index since larder started: let a client ask for one first");
    }
    for wanted in &targets {
        if let Err(error) = mirrors.compare(wanted).await {
            return bad(&error.message);
        }
    }
    Ok(())
}
