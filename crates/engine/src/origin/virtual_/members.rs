//! How the document of each member is obtained.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use larder_core::{ErrorCode, Fault, FaultKind, RepositoryKind, Source};
use larder_formats::Form;

use super::given::{Contribution, Given, Leaf, mount_of};
use super::state::Virtual;
use crate::fault::internal;
use crate::origin::{Need, Origin as _};
use crate::policy::admission::{self, Admission};
use crate::target::ArtifactRequest;
use crate::target::Target;
use crate::transfer::flight::Settled;

/// What a member's document may take in all; then the member's copy is merged, however old it is.
const MEMBER_TIME: Duration = Duration::from_secs(30);

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
