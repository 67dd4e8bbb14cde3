//! What the views have in common: documents that are held, and what quarantine says.

use std::sync::Arc;

use larder_core::{
    ArtifactRecord, Clock, ErrorCode, Fault, FaultKind, RepositoryKind, UnixMillis, Verdict,
    fresh_until,
};
use larder_formats::{Document, Malformed};

use crate::catalog::Catalog;
use crate::claim::StoredClaim;
use crate::document::Documents;
use crate::fault::{malformed, storage_fault};
use crate::operate::Explainer;
use crate::origin::remote::{self, Remote};
use crate::origin::virtual_;
use crate::policy::addressed;
use crate::policy::ruling::{Facts, dates_known, judge_admitted};
use crate::repositories::{Registry, RepositoryState};
use crate::target::Target;

/// Looks around in what is held.
#[derive(Debug)]
pub struct Views {
    pub(super) registry: Arc<Registry>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) documents: Arc<Documents>,
    pub(super) remote: Arc<Remote>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) explainer: Explainer,
}

/// What quarantine says of a file: that it is held back, and until when as far as that is known.
pub(super) type HeldBack = Option<Option<UnixMillis>>;

impl Views {
    /// Over what the origins are made of.
    pub(crate) fn new(base: &remote::Parts, remote: &Arc<Remote>, explainer: Explainer) -> Self {
        Self {
            registry: Arc::clone(&base.registry),
            catalog: Arc::clone(&base.catalog),
            documents: Arc::clone(&base.documents),
            remote: Arc::clone(remote),
            clock: Arc::clone(&base.clock),
            explainer,
        }
    }

    /// A repository that holds something itself, or a virtual one.
    pub(super) fn entry(&self, name: &str) -> Result<Arc<RepositoryState>, Fault> {
        addressed::built(&self.registry, name)
    }

    /// The repositories that hold what a virtual one shows, in the order of priority; of another one itself.
    pub(super) fn holders(&self, entry: &Arc<RepositoryState>) -> Vec<Arc<RepositoryState>> {
        if is_virtual(entry) {
            virtual_::members_of(&self.explainer.virtuals, entry)
        } else {
            vec![Arc::clone(entry)]
        }
    }

    /// The names of the repositories that hold what this one shows: its own, or those of a virtual one's members, nested ones taken apart.
    ///
    /// # Errors
    /// There is no such repository.
    pub fn holders_of(&self, repository: &str) -> Result<Vec<String>, Fault> {
        let entry = self.entry(repository)?;
        let holders = self.holders(&entry).into_iter();
        Ok(holders
            .map(|holder| holder.repository.name.to_string())
            .collect())
    }

    /// A held document, read by `work` on a thread that may wait.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        target: &Arc<Target>,
        record: &Arc<ArtifactRecord>,
        work: impl FnOnce(&Document<'_>) -> Result<T, Malformed> + Send + 'static,
    ) -> Result<T, Fault> {
        let source = self.documents.held_source(target, record).await?;
        let (repository, bytes) = (source.repository().clone(), source.length());
        let read = self.documents.parse_blocking(&repository, bytes, move || {
            let document = source.load()?;
            work(&document.view()).map_err(|error| malformed(document.wanted(), &error))
        });
        read.await?
    }

    /// What is held of a target, by its own name or by that of its bytes.
    pub(super) async fn record(
        &self,
        target: &Target,
    ) -> Result<Option<Arc<ArtifactRecord>>, Fault> {
        let held = self.remote.copies.held(target).await;
        held.map_err(|error| storage_fault(&target.entry, &error))
    }

    /// What quarantine says of a file, by the date of its copy, or else by the one that is stated of it.
    pub(super) fn held_back(
        &self,
        target: &Target,
        record: Option<&ArtifactRecord>,
        claim: Option<&StoredClaim>,
    ) -> HeldBack {
        let now = self.clock.now();
        let stated = claim.and_then(|claim| claim.published_at);
        let dates = dates_known(target, record, stated, now)?;
        let facts = Facts { dates, now };
        match judge_admitted(&target.entry.repository, target.class, &facts)?.verdict {
            Verdict::Clear => None,
            Verdict::Held { until } => Some(until),
        }
    }
}

/// When the bytes of a record were fetched.
pub(super) fn cached_at(record: &ArtifactRecord) -> UnixMillis {
    record.served_since.min(record.contacted_at)
}

/// When a copy is asked for again; `None`: never.
pub(super) fn expires(
    entry: &RepositoryState,
    path: &str,
    record: &ArtifactRecord,
) -> Option<UnixMillis> {
    let class = entry.class_of_held(path, record)?;
    fresh_until(record, class, &entry.repository.cache)
}

pub(super) fn is_virtual(entry: &RepositoryState) -> bool {
    entry.repository.kind() == RepositoryKind::Virtual
}

/// Nothing of the kind is held.
pub(super) fn not_held(entry: &RepositoryState, message: String) -> Fault {
    Fault::new(FaultKind::NotFound, ErrorCode::NotHeld, message)
        .in_repository(&entry.repository.name)
}

/// The request is none that a view could be made for.
pub(super) fn bad(entry: &RepositoryState, message: String) -> Fault {
    Fault::new(FaultKind::BadRequest, ErrorCode::BadRequest, message)
        .in_repository(&entry.repository.name)
}
