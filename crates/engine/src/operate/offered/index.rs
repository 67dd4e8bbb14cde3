//! The index of an offer: obtained as a client's request would obtain it, with the pages and files that it goes on in.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::StreamExt as _;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue};
use larder_core::{ArtifactPath, ErrorCode, Fault, FaultKind, RepositoryKind};
use larder_formats::{Offering, OfferingIndex, Operation};
use larder_storage::Body;

use super::{Offers, request};
use crate::document::claim_table::ClaimTable;
use crate::document::load::DocumentSource;
use crate::fault::{internal, refused};
use crate::origin::{Held, Need, Origin as _};
use crate::policy::admission::{self, Admission};
use crate::repositories::RepositoryState;
use crate::target::Target;
use crate::transfer::flight::Settled;

/// Pages of a list that are asked for, one after the other.
const MOST_PAGES: usize = 1_000;
/// How often a file is asked for that was arriving before.
const ATTEMPTS: usize = 3;

/// What an index names, and where it is.
pub(super) struct Index {
    pub(super) path: String,
    pub(super) tables: Vec<Arc<ClaimTable>>,
}

impl Index {
    /// Whether it names a path.
    pub(super) fn names(&self, path: &str) -> bool {
        self.tables.iter().any(|table| table.find(path).is_some())
    }
}

impl Offers {
    /// The index of what is asked for: the first one that the upstream has.
    pub(super) async fn index(
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
        if repository.kind() == RepositoryKind::Local {
            return Err(nowhere(entry, "a local repository has no upstream"));
        }
        let places = match entry.format.offering(repository, name) {
            Offering::Nowhere(why) => return Err(nowhere(entry, why)),
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
        for (path, _) in table.iter().filter(|(_, claim)| claim.names_files) {
            let file = admission::named_file(&document.entry, document.format, path);
            if let Some(file) = file.map(Arc::new) {
                let settled = self.whole(&file).await;
                let settled = settled.map_err(|fault| lacking(document, &file, fault))?;
                tables.push(self.documents.arrived_claims(&file, &settled).await?);
            }
        }
        if tables.is_empty() {
            let index = &document.spec.key_path;
            let why = format!("{index} names no list of packages that larder reads");
            return Err(nowhere(&document.entry, &why));
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
}

/// A file that an index names is not to be had. That the upstream has none of it does not mean that it has no index.
fn lacking(index: &Target, file: &Target, fault: Fault) -> Fault {
    let mut fault = fault.about(&file.key);
    if is_missing(&fault) {
        (fault.kind, fault.code) = (FaultKind::BadGateway, ErrorCode::MalformedDocument);
        let (index, file) = (&index.spec.key_path, &file.spec.key_path);
        fault.message = format!("{index} of the upstream names {file}, which is not there");
    }
    fault
}

/// What its upstream offers cannot be listed.
fn nowhere(entry: &RepositoryState, why: &str) -> Fault {
    let name = &entry.repository.name;
    let message = format!("what the upstream of {name} offers cannot be listed: {why}");
    Fault::not_built(message)
        .in_repository(name)
        .by_rule("source=upstream")
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
