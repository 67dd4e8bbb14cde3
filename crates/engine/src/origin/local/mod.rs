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
    ArtifactPath, ErrorCode, Fault, FaultKind, LocalSettings, Mutability, RepositoryName, shown,
};
use larder_formats::Format;

pub(crate) use read::read;
pub use upload::Written;

use crate::admission::{classify, path_fault};
use crate::engine::{ArtifactRequest, Engine};
use crate::repositories::Entry;

/// A path of a local repository that the rules admit.
struct Place<'a> {
    entry: &'a Arc<Entry>,
    settings: &'a LocalSettings,
    path: ArtifactPath,
    class: Mutability,
}

impl<'a> Place<'a> {
    /// Parses and admits a raw path. No I/O.
    fn admit(entry: &'a Arc<Entry>, raw_path: &str) -> Result<Self, Fault> {
        let (settings, format) = parts(entry)?;
        let path = ArtifactPath::parse(raw_path, format.path_rules())
            .map_err(|error| path_fault(error).in_repository(&entry.repository.name))?;
        let class = classify(entry, format, path.as_str())?;
        Ok(Self {
            entry,
            settings,
            path,
            class,
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

    /// A folder cannot be written: it is there as long as files are in it.
    fn file_only(&self, what: &str) -> Result<(), Fault> {
        if !self.is_folder() {
            return Ok(());
        }
        let message = format!(
            "{} is a folder of repository {}: {what}",
            shown(&format!("/{}", self.path.as_str())),
            self.repository()
        );
        Err(self.fault(FaultKind::BadRequest, ErrorCode::InvalidPath, message))
    }
}

fn parts(entry: &Entry) -> Result<(&LocalSettings, &'static dyn Format), Fault> {
    entry.repository.local().zip(entry.format).ok_or_else(|| {
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
pub(crate) fn other_method(entry: &Entry) -> Fault {
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

impl Engine {
    /// Takes a file into a local repository (`PUT`). `length` is what the request says of the length of its body, which is read only
    /// after the request has been admitted. When this returns, the file is on stable storage and everybody sees it; before, nobody
    /// sees anything of it.
    ///
    /// # Errors
    /// 400 for what is malformed or does not have the digests that the request states, 403, 405, 409, 412, 413, 507 as the rules say,
    /// 503 where storage fails, and whatever fault the body itself ends with. Nothing is kept then.
    pub async fn write<S>(
        self: &Arc<Self>,
        request: &ArtifactRequest<'_>,
        length: Option<u64>,
        body: S,
    ) -> Result<Written, Fault>
    where
        S: Stream<Item = Result<Bytes, Fault>> + Send + Unpin,
    {
        let entry = self.entry(request.repository)?;
        let place = Place::admit(&entry, request.raw_path)?;
        upload::write(self, &place, request.headers, length, body).await
    }

    /// Deletes a file of a local repository (`DELETE`), durably.
    ///
    /// # Errors
    /// 404 if there is none, 400, 403, 405 and 412 as for [`write`](Self::write), 503 where storage fails.
    pub async fn delete_file(self: &Arc<Self>, request: &ArtifactRequest<'_>) -> Result<(), Fault> {
        let entry = self.entry(request.repository)?;
        let place = Place::admit(&entry, request.raw_path)?;
        delete::delete(self, &place, request.headers).await
    }
}
