//! Why a path is answered as it is (`GET /api/v1/explain`): the judge's trace and what is held, in words. No upstream is asked, nothing is
//! counted and nothing is changed.

mod explainer;
mod members;

use larder_core::{Fault, RepositoryKind};

pub(crate) use explainer::Explainer;
use explainer::parse;

use crate::policy::addressed::{bad_path, built};
use crate::policy::explain::Explanation;
use crate::target::ArtifactRequest;

impl Explainer {
    /// Explains a path of a repository.
    ///
    /// # Errors
    /// There is no such repository, it is not built, the path cannot be one, or storage fails.
    pub(crate) async fn explain(
        &self,
        request: &ArtifactRequest<'_>,
    ) -> Result<Explanation, Fault> {
        let entry = built(&self.registry, request.repository)
            .map_err(|fault| bad_path(request).unwrap_or(fault))?;
        let path = parse(&entry, request.raw_path)?;
        match entry.repository.kind() {
            RepositoryKind::Remote => self.of_remote(&entry, request, &path).await,
            RepositoryKind::Local => self.of_local(&entry, &path).await,
            RepositoryKind::Virtual => self.of_virtual(&entry, request, &path).await,
        }
    }
}
