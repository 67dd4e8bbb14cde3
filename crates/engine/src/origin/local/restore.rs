//! A file out of an archive: what was uploaded elsewhere, with the time of that upload. The rules of uploads hold for it.

use std::sync::Arc;

use http::HeaderMap;
use larder_core::{ArtifactPath, Fault};
use larder_storage::{BlobInfo, LocalChange, LocalDecision, LocalFile, LocalOutcome};

use super::place::{Local, Place};
use super::rules::UploadRules;
use crate::fault::storage_fault;
use crate::policy::admission::path_fault;
use crate::repositories::RepositoryState;

/// What became of a file.
#[derive(Debug)]
pub(crate) enum Restored {
    /// It is there now.
    Written,
    /// It was there already.
    Same,
    /// It may not be there: why.
    Refused(Fault),
}

/// Puts a file there. `overwrite`: in place of another one, where the repository allows that.
pub(super) async fn restore(
    local: &Local,
    entry: &Arc<RepositoryState>,
    (path, file): (&str, &LocalFile),
    blob: &BlobInfo,
    overwrite: bool,
) -> Result<Restored, Fault> {
    let place = match place(entry, path) {
        Ok(place) => place,
        Err(fault) => return Ok(Restored::Refused(fault)),
    };
    let rules = UploadRules::of(&place, &HeaderMap::new())?;
    let clock = &*local.clock;
    let change = LocalChange::Put { file, blob, clock };
    let (size, digest) = (Some(file.blob.size), Some(&file.blob.digest));
    let changed = local
        .catalog
        .change_local_file(place.repository(), path, change, |state| {
            let held = state.file.as_ref();
            if held.is_some_and(|held| held.blob == file.blob) {
                return LocalDecision::Keep;
            }
            if state.exists && !overwrite {
                return LocalDecision::Refuse(rules.another());
            }
            match rules.before_the_body(state, size, digest) {
                Ok(()) => LocalDecision::Change,
                Err(fault) => LocalDecision::Refuse(fault),
            }
        })
        .await;
    match changed {
        Ok(LocalOutcome::Changed(_)) => Ok(Restored::Written),
        Ok(LocalOutcome::Kept(_)) => Ok(Restored::Same),
        Ok(LocalOutcome::Refused(fault)) => Ok(Restored::Refused(fault)),
        Err(error) => Err(storage_fault(entry, &error)),
    }
}

fn place<'a>(entry: &'a Arc<RepositoryState>, path: &str) -> Result<Place<'a>, Fault> {
    let parsed = ArtifactPath::from_decoded(path)
        .map_err(|error| path_fault(error).in_repository(&entry.repository.name))?;
    let place = Place::admit(entry, parsed.encoded())?;
    place.file_only()?;
    Ok(place)
}
