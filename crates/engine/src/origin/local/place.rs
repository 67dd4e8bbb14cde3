//! Local repositories as an origin, and a path of one that the rules admit.

use std::sync::Arc;

use larder_core::{
    ArtifactPath, Clock, ErrorCode, Fault, FaultKind, LocalSettings, Mutability, RepositoryName,
    UnixMillis, shown,
};
use larder_formats::{Hosted, UploadHead};
use larder_storage::BlobStore;

use crate::catalog::Catalog;
use crate::fault::refused;
use crate::policy::admission::{classify, path_fault};
use crate::repositories::RepositoryState;

/// Local repositories as an origin.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) blobs: Arc<dyn BlobStore>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Local {
    pub(super) fn now(&self) -> UnixMillis {
        self.clock.now()
    }
}

/// A path of a local repository that the rules admit.
pub(super) struct Place<'a> {
    pub(super) entry: &'a Arc<RepositoryState>,
    pub(super) settings: &'a LocalSettings,
    pub(super) format: &'a dyn Hosted,
    pub(super) path: ArtifactPath,
    pub(super) class: Mutability,
}

impl<'a> Place<'a> {
    /// Parses and admits a raw path. No I/O.
    pub(super) fn admit(entry: &'a Arc<RepositoryState>, raw_path: &str) -> Result<Self, Fault> {
        let (settings, format) = parts(entry)?;
        let path = ArtifactPath::parse(raw_path, entry.format.profile().path_rules)
            .map_err(|error| path_fault(error).in_repository(&entry.repository.name))?;
        let facts = entry.facts(path.as_str());
        let access = classify(entry, facts.policy_path(path.as_str()), facts.built_in)?;
        Ok(Self {
            entry,
            settings,
            format,
            path,
            class: access.mutability(),
        })
    }

    pub(super) fn repository(&self) -> &RepositoryName {
        &self.entry.repository.name
    }

    /// Whether the path is that of a folder: the root, or one that ends in a slash.
    pub(super) fn is_folder(&self) -> bool {
        self.path.as_str().is_empty() || self.path.as_str().ends_with('/')
    }

    pub(super) fn fault(
        &self,
        kind: FaultKind,
        code: ErrorCode,
        message: impl Into<String>,
    ) -> Fault {
        Fault::new(kind, code, message).in_repository(self.repository())
    }

    /// There is no such file.
    pub(super) fn absent(&self) -> Fault {
        let (repository, path) = (self.repository(), shown(self.path.as_str()));
        let message = if self.is_folder() {
            format!("the local repository {repository} has no folder {path}")
        } else {
            format!(
                "the local repository {repository} has no file {path}; a folder is asked for with a slash at its end"
            )
        };
        self.fault(FaultKind::NotFound, ErrorCode::NotFound, message)
    }

    /// Whether the path is one of a file that can be uploaded, replaced or deleted.
    pub(super) fn file_only(&self) -> Result<(), Fault> {
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
