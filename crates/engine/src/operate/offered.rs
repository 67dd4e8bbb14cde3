//! What upstreams offer, by their own indexes (`GET /api/v1/artifacts/{repo}?source=upstream`). An index is obtained as a client's request
//! would obtain it, and what it names is shown as far as the same client would get it: the rules and quarantine are asked of each file.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::StreamExt as _;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method};
use larder_core::{
    ArtifactPath, ArtifactRecord, Clock, Digest, DigestAlgorithm, ErrorCode, Fault, FaultKind,
    Mount, Mutability, Pattern, Principal, RepositoryKind, UnixMillis, Verdict, fold_segments,
    fresh_until,
};
use larder_formats::{Offering, OfferingIndex, Operation};
use larder_storage::Body;

use crate::catalog::Catalog;
use crate::claim::StoredClaim;
use crate::document::Documents;
use crate::document::claim_table::ClaimTable;
use crate::document::load::DocumentSource;
use crate::fault::{internal, refused, storage_fault};
use crate::operate::held::{HeldCursor, compiled};
use crate::origin::remote::{self, Remote};
use crate::origin::{Held, Need, Origin as _};
use crate::policy::admission::{self, Admission, consider};
use crate::policy::ruling::{Facts, Ruling, dates_known, judge_admitted};
use crate::repositories::{Registry, RepositoryState};
use crate::target::{ArtifactRequest, Target};
use crate::transfer::flight::Settled;

/// Entries of an index that one page may make larder look at.
const MOST_ENTRIES: usize = 10_000;
/// Pages of a list that are asked for, one after the other.
const MOST_PAGES: usize = 1_000;
/// How often a file is asked for that was arriving before.
const ATTEMPTS: usize = 3;

/// What of an upstream's offer is wanted.
#[derive(Debug, Clone, Default)]
pub struct OfferRequest {
    /// The repository.
    pub repository: String,
    /// The project, package or image that is meant, or the folder of an index.
    pub name: Option<String>,
    /// Regular expression searched in the decoded path.
    pub pattern: Option<String>,
    /// Only what is held, or only what is not.
    pub cached: Option<bool>,
    /// At most so many.
    pub limit: u32,
    /// Where the page before ended.
    pub after: Option<HeldCursor>,
}

/// Something that an upstream offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedArtifact {
    /// The repository's name.
    pub repository: String,
    /// Decoded path below it, as clients ask for it, without a query.
    pub path: String,
    /// Bytes, as the index states it.
    pub size: Option<u64>,
    /// SHA-256 of the bytes in hexadecimal digits, as the index states it.
    pub sha256: Option<String>,
    /// When the held copy was fetched; `None`: there is none.
    pub cached_at: Option<UnixMillis>,
    /// When the upstream is asked again for what is held; `None`: never, or nothing is held.
    pub fresh_until: Option<UnixMillis>,
}

/// A page of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OfferPage {
    /// In the order of their paths.
    pub artifacts: Vec<OfferedArtifact>,
    /// Where the next page begins; `None`: there is none.
    pub next: Option<HeldCursor>,
}

/// Reads what upstreams offer.
#[derive(Debug)]
pub(crate) struct Offers {
    registry: Arc<Registry>,
    catalog: Arc<Catalog>,
    documents: Arc<Documents>,
    remote: Arc<Remote>,
    clock: Arc<dyn Clock>,
}

/// The index of an offer: what it names, and where it is.
struct Index {
    path: String,
    tables: Vec<Arc<ClaimTable>>,
}

impl Offers {
    /// Over what the origins are made of.
    pub(crate) fn new(base: &remote::Parts, remote: &Arc<Remote>) -> Self {
        Self {
            registry: Arc::clone(&base.registry),
            catalog: Arc::clone(&base.catalog),
            documents: Arc::clone(&base.documents),
            remote: Arc::clone(remote),
            clock: Arc::clone(&base.clock),
        }
    }

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
            let named = entry.format.is_offered(&index.path, path);
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

    /// The index of what is asked for: the first one that the upstream has.
    async fn index(
        &self,
        entry: &Arc<RepositoryState>,
        name: Option<&str>,
    ) -> Result<Index, Fault> {
        let repository = &entry.repository;
        let bad = |message: String| {
            Fault::new(FaultKind::BadRequest, ErrorCode::BadRequest, message)
                .in_repository(&repository.name)
                .by_rule("name")
        };
        let nowhere = |why: &str| {
            let message = format!(
                "what the upstream of {} offers cannot be listed: {why}",
                repository.name
            );
            Fault::not_built(message)
                .in_repository(&repository.name)
                .by_rule("source=upstream")
        };
        if repository.kind() == RepositoryKind::Local {
            return Err(nowhere("a local repository has no upstream"));
        }
        let places = match entry.format.offering(repository, name) {
            Offering::Nowhere(why) => return Err(nowhere(why)),
            Offering::Unnamed(what) => {
                let message =
                    format!("the upstream has a list for each of these: name {what} with name=");
                return Err(bad(message));
            }
            Offering::Misnamed(what) => {
                return Err(bad(format!(
                    "{what} cannot have the name that name= states"
                )));
            }
            Offering::In(places) => places,
        };
        let mut missing = None;
        for place in places {
            match self.tables(entry, &place, name).await {
                Ok(tables) => {
                    let path = place.path;
                    return Ok(Index { path, tables });
                }
                Err(fault) if is_missing(&fault) => missing = missing.or(Some((fault, place))),
                Err(fault) => return Err(fault),
            }
        }
        let (fault, place) = missing.ok_or_else(|| internal("an offer without an index"))?;
        if name.is_none() && place.in_folder {
            let message = format!(
                "the upstream has no {}: name the folder that an index stands in with name=",
                place.path
            );
            return Err(bad(message));
        }
        Err(fault)
    }

    /// What the index at a place, and the pages that follow it, name.
    async fn tables(
        &self,
        entry: &Arc<RepositoryState>,
        place: &OfferingIndex,
        name: Option<&str>,
    ) -> Result<Vec<Arc<ClaimTable>>, Fault> {
        let name = name.filter(|_| place.is_of_all);
        let (mut tables, mut query) = (Vec::new(), None);
        for _ in 0..MOST_PAGES {
            let wanted = self.admit(entry, place, query.as_deref())?;
            let settled = self
                .whole(&wanted)
                .await
                .map_err(|fault| fault.about(&wanted.key))?;
            let table = self.documents.arrived_claims(&wanted, &settled).await?;
            let list = wanted.held(&settled.record.headers, None);
            let next = entry.format.next_page(&entry.repository, &list);
            if wanted.heads_generation() {
                tables.extend(self.of_generation(&wanted, &table).await?);
            } else {
                tables.push(match name {
                    Some(name) => self.of_name(&wanted, &settled, &table, name).await?,
                    None => table,
                });
            }
            if next.is_none() || next == query {
                break;
            }
            query = next;
        }
        Ok(tables)
    }

    /// What an index of everything names of one thing.
    async fn of_name(
        &self,
        index: &Arc<Target>,
        settled: &Settled,
        table: &ClaimTable,
        name: &str,
    ) -> Result<Arc<ClaimTable>, Fault> {
        let source = DocumentSource::settled(index, settled);
        let told = self.documents.releases(source, name.to_owned()).await?;
        let files = told.unwrap_or_default().releases.into_iter();
        let paths: BTreeSet<String> = files.map(|file| file.path).collect();
        Ok(Arc::new(table.only(&paths)))
    }

    /// What those files of a generation name that name files.
    async fn of_generation(
        &self,
        document: &Arc<Target>,
        table: &ClaimTable,
    ) -> Result<Vec<Arc<ClaimTable>>, Fault> {
        let mut tables = Vec::new();
        for (path, _) in table.iter() {
            if !document.facts_of(path).names_files() {
                continue;
            }
            let file = admission::named_file(&document.entry, document.format, path);
            if let Some(file) = file.map(Arc::new) {
                let settled = self
                    .whole(&file)
                    .await
                    .map_err(|fault| fault.about(&file.key))?;
                tables.push(self.documents.arrived_claims(&file, &settled).await?);
            }
        }
        Ok(tables)
    }

    /// The index as a client's request for it.
    fn admit(
        &self,
        entry: &Arc<RepositoryState>,
        place: &OfferingIndex,
        query: Option<&str>,
    ) -> Result<Arc<Target>, Fault> {
        let name = &entry.repository.name;
        let path = ArtifactPath::from_decoded(&place.path)
            .map_err(|error| admission::path_fault(error).in_repository(name))?;
        let mut headers = HeaderMap::new();
        if let Some(accept) = place.accept {
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
        }
        let request = request(entry, path.encoded(), query, &headers);
        match admission::admit(&self.registry, &request)? {
            Admission::Read(admitted) => Ok(Arc::clone(admitted.wanted())),
            Admission::Other {
                operation: Operation::Refuse(refusal),
                ..
            } => Err(refused(name, refusal)),
            _ => Err(internal("an index that is not read")),
        }
    }

    /// A document or file, when it is there from beginning to end.
    async fn whole(&self, wanted: &Arc<Target>) -> Result<Settled, Fault> {
        if wanted.spec.is_document {
            return self.remote.document(wanted, Need::Usual).await;
        }
        for _ in 0..ATTEMPTS {
            match self.remote.file(wanted, Need::Usual).await? {
                Held::Whole(settled) => return Ok(settled),
                Held::InFlight(_, body, _) => {
                    let mut chunks = Body::Growing(body).chunks();
                    while let Some(Ok(_)) = chunks.next().await {}
                }
            }
        }
        Err(internal("an index did not come to its end"))
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
        let record = self.catalog.record(&target.key).await;
        let record = record.map_err(|error| storage_fault(&target.entry, &error))?;
        if let Some(pointer) = &record
            && let Some((held, _)) = self.remote.copies.follow_pointer(target, pointer).await
        {
            return Ok(Some(held));
        }
        Ok(record)
    }
}

/// A request of larder's own, as a client would make it.
fn request<'a>(
    entry: &'a RepositoryState,
    raw_path: &'a str,
    query: Option<&'a str>,
    headers: &'a HeaderMap,
) -> ArtifactRequest<'a> {
    let name = entry.repository.name.as_str();
    ArtifactRequest {
        repository: name,
        raw_path,
        query,
        method: &Method::GET,
        headers,
        principal: Principal::Anonymous,
        mount: Mount::api("", RepositoryKind::Remote, name),
        body: bytes::Bytes::new(),
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

/// Whether the upstream says that there is no such index.
fn is_missing(fault: &Fault) -> bool {
    let is_gone = matches!(
        fault.kind,
        FaultKind::NotFound | FaultKind::Upstream(404 | 410)
    );
    // What is held back is there.
    is_gone && fault.held_until.is_none()
}
