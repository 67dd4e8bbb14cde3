//! Local repositories: what clients upload, kept until somebody deletes it. Rows say what is there; nothing is ever fetched.
//!
//! | file | knows |
//! |---|---|
//! | `place.rs` | the origin itself, and a path of a repository that the rules admit |
//! | `read.rs` | a file of a local repository as an [`Answer`](crate::Answer) |
//! | `list.rs` | a folder as JSON or HTML |
//! | `upload.rs` | from a request's body to a durable file: spool, digests, blob, row |
//! | `delete.rs` | a file goes, and its bytes at once where the disk has no room |
//! | `rules.rs` | what may be written: conditions of the request, overwriting, sizes; asked before the body and again inside the transaction |
//! | `restore.rs` | a file out of an archive |
//! | `checksums.rs` | the digests that a request states of its body |

mod checksums;
mod delete;
mod list;
mod place;
mod read;
mod restore;
mod rules;
mod upload;

use std::sync::Arc;

use futures_core::Stream;
use larder_core::{ErrorCode, Fault, FaultKind};
use larder_storage::{BlobInfo, LocalFile};

pub(crate) use place::Local;
pub(crate) use read::read;
pub(crate) use restore::Restored;
pub use upload::{UploadPart, Written};

use crate::repositories::RepositoryState;
use crate::target::ArtifactRequest;
use place::Place;

/// The answer to a method that a local repository does not have.
pub(crate) fn other_method(entry: &RepositoryState) -> Fault {
    let message = format!(
        "{} is a local repository: its files are read with GET and HEAD, uploaded with PUT and deleted with DELETE",
        entry.repository.name
    );
    Fault::new(
        FaultKind::MethodNotAllowed,
        ErrorCode::MethodNotAllowed,
        message,
    )
    .in_repository(&entry.repository.name)
}

impl Local {
    /// Takes a file (`PUT`). `length` is what the request says of the length of its body, which is read only after the request has been
    /// admitted. When this returns, the file is on stable storage and everybody sees it; before, nobody sees anything of it.
    pub(crate) async fn write<S>(
        self: &Arc<Self>,
        entry: &Arc<RepositoryState>,
        request: &ArtifactRequest<'_>,
        length: Option<u64>,
        body: S,
    ) -> Result<Written, Fault>
    where
        S: Stream<Item = Result<UploadPart, Fault>> + Send + Unpin,
    {
        let place = Place::admit(entry, request.raw_path)?;
        upload::write(self, &place, request.headers, length, body).await
    }

    /// Puts a file there as it was in an archive, durably; its blob is in the store. Whoever does so supersedes the repository's epoch.
    pub(crate) async fn restore(
        &self,
        entry: &Arc<RepositoryState>,
        (path, file): (&str, &LocalFile),
        blob: &BlobInfo,
        overwrite: bool,
    ) -> Result<Restored, Fault> {
        restore::restore(self, entry, (path, file), blob, overwrite).await
    }

    /// Deletes a file (`DELETE`), durably.
    pub(crate) async fn delete(
        self: &Arc<Self>,
        entry: &Arc<RepositoryState>,
        request: &ArtifactRequest<'_>,
    ) -> Result<(), Fault> {
        let place = Place::admit(entry, request.raw_path)?;
        delete::delete(self, &place, request.headers).await
    }
}
