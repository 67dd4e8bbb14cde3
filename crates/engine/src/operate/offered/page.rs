//! A page of an offer: what the index names, as far as a client would get it, with what is held of it.

use std::sync::Arc;

use http::HeaderMap;
use larder_core::{
    ArtifactPath, ArtifactRecord, Digest, DigestAlgorithm, ErrorCode, Fault, FaultKind, Mutability,
    Pattern, Verdict, fold_segments, fresh_until,
};

use super::{OfferPage, OfferRequest, OfferedArtifact, Offers, request};
use crate::claim::StoredClaim;
use crate::fault::storage_fault;
use crate::operate::held::{HeldCursor, compiled};
use crate::policy::admission::{self, consider};
use crate::policy::ruling::{Facts, Ruling, dates_known, judge_admitted};
use crate::repositories::RepositoryState;
use crate::target::Target;

/// Entries of an index that one page may make larder look at.
const MOST_ENTRIES: usize = 10_000;

impl Offers {
    /// A page of what an upstream offers. A page may be shorter than asked for and still have a next one.
    ///
    /// # Errors
    /// There is no such repository, its upstream has no index (501), a name is needed (400), the pattern or the cursor cannot be used, or
    /// whatever the index itself would be answered with.
    pub(crate) async fn page(&self, request: &OfferRequest) -> Result<OfferPage, Fault> {
        let pattern = compiled(request.pattern.as_deref())?;
        let entry = admission::entry(&self.registry, &request.repository)?;
        // As a client's path is, where it comes in.
        let name = request.name.as_deref().map(fold_segments);
        let name = name.as_deref();
        let list = list_of(&entry, name);
        let after = after(&entry, request, &list)?;
        let index = self.index(&entry, name).await?;
        let mut entries: Vec<_> = index
            .tables
            .iter()
            .map(|table| table.iter_after(after).peekable())
            .collect();
        let mut page = OfferPage::default();
        for looked_at in 1.. {
            // The tables are sorted: the next path is the first of their first ones.
            let paths = entries
                .iter_mut()
                .filter_map(|rest| rest.peek().map(|one| one.0));
            let Some(path) = paths.min() else {
                return Ok(page);
            };
            let mut claim = None;
            for rest in &mut entries {
                let same = rest.next_if(|one| one.0 == path);
                claim = claim.or(same.map(|one| one.1));
            }
            let Some(claim) = claim else {
                return Ok(page);
            };
            let is_named = |path: &str| index.names(path);
            let named = entry.format.is_offered(&index.path, path, &is_named);
            let shown = path.split('?').next().unwrap_or_default();
            let matches = |pattern: &Pattern| pattern.matches(shown) == Ok(true);
            if named && pattern.as_ref().is_none_or(matches) {
                let artifact = self.artifact(&entry, path, &claim).await?;
                page.artifacts.extend(artifact.filter(|artifact| {
                    request
                        .cached
                        .is_none_or(|wanted| wanted == artifact.cached_at.is_some())
                }));
            }
            if page.artifacts.len() >= request.limit as usize || looked_at >= MOST_ENTRIES {
                page.next = Some(HeldCursor {
                    repository: list,
                    row: 0,
                    path: path.to_owned(),
                });
                return Ok(page);
            }
        }
        Ok(page)
    }

    /// A file that an index names, with what is held of it; `None` if no client would be given it.
    async fn artifact(
        &self,
        entry: &Arc<RepositoryState>,
        path: &str,
        claim: &StoredClaim,
    ) -> Result<Option<OfferedArtifact>, Fault> {
        let (own, query) = path
            .split_once('?')
            .map_or((path, None), |(own, query)| (own, Some(query)));
        let Ok(own) = ArtifactPath::from_decoded(own) else {
            return Ok(None);
        };
        let headers = HeaderMap::new();
        let request = request(entry, own.encoded(), query, &headers);
        let considered = consider(&self.registry, entry, &request, &own);
        let Ok(Some(considered)) = considered else {
            return Ok(None);
        };
        let (Some(target), Ruling::Admitted { access, .. }) =
            (&considered.target, &considered.ruling)
        else {
            return Ok(None);
        };
        let record = self.record(target).await?;
        let judged = considered.subject.as_ref().unwrap_or(target);
        let dated = match &considered.subject {
            Some(subject) => self.record(subject).await?,
            None => record.clone(),
        };
        if self.is_held_back(judged, access.mutability(), dated.as_deref(), claim) {
            return Ok(None);
        }
        let held = record.filter(|record| record.has_body());
        let sha256 = claim
            .digests
            .iter()
            .find(|digest| digest.algorithm() == DigestAlgorithm::Sha256);
        Ok(Some(OfferedArtifact {
            repository: entry.repository.name.to_string(),
            path: own.as_str().to_owned(),
            size: claim.size,
            sha256: sha256.map(Digest::to_hex),
            cached_at: held
                .as_deref()
                .map(|record| record.served_since.min(record.contacted_at)),
            fresh_until: held.as_deref().and_then(|record| {
                fresh_until(record, target.class_of(record), &entry.repository.cache)
            }),
        }))
    }

    /// Whether quarantine holds a file back, by the date of its copy, or else by the one that is stated of it; of what has neither nothing is
    /// known yet.
    fn is_held_back(
        &self,
        judged: &Target,
        class: Mutability,
        record: Option<&ArtifactRecord>,
        claim: &StoredClaim,
    ) -> bool {
        let now = self.clock.now();
        let dates = dates_known(judged, record, claim.published_at, now);
        let ruling = dates.and_then(|dates| {
            judge_admitted(&judged.entry.repository, class, &Facts { dates, now })
        });
        ruling.is_some_and(|ruling| ruling.verdict != Verdict::Clear)
    }

    /// What is held of a file, by its own name or by that of its bytes.
    async fn record(&self, target: &Target) -> Result<Option<Arc<ArtifactRecord>>, Fault> {
        let held = self.remote.copies.held(target).await;
        held.map_err(|error| storage_fault(&target.entry, &error))
    }
}

/// What cursors say of the list that they are of: the repository, and the name where there is a list of each.
fn list_of(entry: &RepositoryState, name: Option<&str>) -> String {
    let repository = &entry.repository.name;
    name.map_or_else(
        || repository.to_string(),
        |name| format!("{repository}/{name}"),
    )
}

/// The path behind which a page begins; empty at the first.
fn after<'r>(
    entry: &RepositoryState,
    request: &'r OfferRequest,
    list: &str,
) -> Result<&'r str, Fault> {
    let Some(cursor) = &request.after else {
        return Ok("");
    };
    if cursor.repository != list {
        let message = "the cursor is of another list; begin without one";
        return Err(
            Fault::new(FaultKind::BadRequest, ErrorCode::BadRequest, message)
                .in_repository(&entry.repository.name)
                .by_rule("cursor"),
        );
    }
    Ok(&cursor.path)
}
