//! Local repositories: what clients upload, kept until somebody deletes it. Rows say what is there; nothing is ever fetched.
//!
//! | file | knows |
//! |---|---|
//! | `read.rs` | a file of a local repository as an [`Answer`](crate::Answer) |
//! | `list.rs` | a folder as JSON or HTML |
//! | `upload.rs` | from a request's body to a durable file: spool, digests, blob, row |
//! | `delete.rs` | a file goes, and its bytes at once where the disk has no room |
//! | `rules.rs` | what may be written: conditions of the request, overwriting, sizes; asked before the body and again inside the transaction |
//! | `checksums.rs` | the digests that a request states of its body |

mod checksums;
mod delete;
mod list;
mod read;
mod rules;
mod upload;

use std::sync::Arc;

use bytes::Bytes;
use futures_core::Stream;
use larder_core::{
    ArtifactPath, Clock, ErrorCode, Fault, FaultKind, LocalSettings, Mutability, RepositoryName,
    UnixMillis, shown,
};
use larder_formats::{Hosted, UploadHead};
use larder_storage::BlobStore;

pub(crate) use read::read;
pub use upload::Written;

use crate::catalog::Catalog;
use crate::fault::refused;
use crate::policy::admission::{classify, path_fault};
use crate::repositories::RepositoryState;
use crate::target::ArtifactRequest;

/// A path of a local repository that the rules admit.
struct Place<'a> {
    entry: &'a Arc<RepositoryState>,
    settings: &'a LocalSettings,
    format: &'a dyn Hosted,
    path: ArtifactPath,
    class: Mutability,
}

impl<'a> Place<'a> {
    /// Parses and admits a raw path. No I/O.
    fn admit(entry: &'a Arc<RepositoryState>, raw_path: &str) -> Result<Self, Fault> {
        let (settings, format) = parts(entry)?;
        let path = ArtifactPath::parse(raw_path, entry.format.profile().path_rules)
            .map_err(|error| path_fault(error).in_repository(&entry.repository.name))?;
        let access = classify(entry, path.as_str(), entry.facts(path.as_str()).built_in)?;
        Ok(Self {
            entry,
            settings,
            format,
            path,
            class: access.mutability(),
        })
    }

    fn repository(&self) -> &RepositoryName {
        &self.entry.repository.name
    }

    /// Whether the path is that of a folder: the root, or one that ends in a slash.
    fn is_folder(&self) -> bool {
        self.path.as_str().is_empty() || self.path.as_str().ends_with('/')
    }

    fn fault(&self, kind: FaultKind, code: ErrorCode, message: impl Into<String>) -> Fault {
        Fault::new(kind, code, message).in_repository(self.repository())
    }

    /// There is no such file.
    fn absent(&self) -> Fault {
        let message = format!(
            "the local repository {} has no file {}; a folder is asked for with a slash at its end",
            self.repository(),
            shown(self.path.as_str())
        );
        self.fault(FaultKind::NotFound, ErrorCode::NotFound, message)
    }

    /// Whether the path is one of a file that can be uploaded, replaced or deleted.
    fn file_only(&self) -> Result<(), Fault> {
        let head = UploadHead {
            repository: self.repository().as_str(),
            path: self.path.as_str(),
        };
        let accepted = self.format.accept(&head);
        accepted.map_err(|refusal| refused(self.repository(), refusal))
    }
}

fn parts(entry: &RepositoryState) -> Result<(&LocalSettings, &'static dyn Hosted), Fault> {
    let settings = entry.repository.local();
    settings.zip(entry.format.hosted()).ok_or_else(|| {
        let message = format!(
            "{} is a {} repository: only local repositories take uploads",
            entry.repository.name,
            entry.repository.kind().as_str()
        );
        Fault::new(FaultKind::MethodNotAllowed, ErrorCode::ReadOnly, message)
            .in_repository(&entry.repository.name)
    })
}

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

/// Local repositories as an origin.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) blobs: Arc<dyn BlobStore>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Local {
    fn now(&self) -> UnixMillis {
        self.clock.now()
    }

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
        S: Stream<Item = Result<Bytes, Fault>> + Send + Unpin,
    {
        let place = Place::admit(entry, request.raw_path)?;
        upload::write(self, &place, request.headers, length, body).await
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
