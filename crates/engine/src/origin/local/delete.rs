//! A file of a local repository goes.

use std::sync::Arc;

use http::HeaderMap;
use larder_core::Fault;
use larder_storage::{LocalChange, LocalDecision, LocalOutcome, LocalState};

use super::place::{Local, Place};
use super::rules::WriteConditions;
use crate::fault::{internal, storage_fault};

/// Deletes the file at `place`. On a disk below its reserve its bytes go at once, unless something else refers to them; elsewhere the
/// collector takes them after its grace time.
pub(super) async fn delete(
    local: &Arc<Local>,
    place: &Place<'_>,
    headers: &HeaderMap,
) -> Result<(), Fault> {
    place.file_only()?;
    let (entry, repository) = (Arc::clone(place.entry), place.repository().clone());
    let conditions = WriteConditions::of(headers);
    let conditions = conditions.map_err(|fault| fault.in_repository(&repository))?;
    let (local, path) = (Arc::clone(local), place.path.clone());
    let absent = place.absent();
    // A task of its own: what has begun is finished, also when the client leaves.
    let task = tokio::spawn(async move {
        let decide = |state: &LocalState| {
            if !state.exists {
                return LocalDecision::Refuse(absent.clone());
            }
            match conditions.check(&repository, state) {
                Ok(()) => LocalDecision::Change,
                Err(fault) => LocalDecision::Refuse(fault),
            }
        };
        let outcome = local
            .catalog
            .change_local_file(&repository, path.as_str(), LocalChange::Delete, decide)
            .await
            .map_err(|error| storage_fault(&entry, &error))?;
        let before = match outcome {
            LocalOutcome::Refused(fault) => return Err(fault),
            LocalOutcome::Changed(before) | LocalOutcome::Kept(before) => before,
        };
        local.catalog.supersede(&entry);
        tracing::info!(%repository, path = &*larder_core::shown(path.as_str()), size = before.size, "an uploaded file was deleted");
        if let Some(file) = before.file
            && local.blobs.free_space().is_ok_and(|space| space.is_low())
            && let Err(error) = local.catalog.collect_blob(&file.blob).await
        {
            tracing::warn!(%repository, %error, "the bytes of a deleted file are taken away later");
        }
        Ok(())
    });
    task.await
        .unwrap_or_else(|_| Err(internal("the deletion was broken off")))
}
