//! Whose a file is: the owners of names have all that the indexes call so, and what no index names goes by its own name.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use http::Method;
use larder_core::{ArtifactPath, ArtifactRecord, Fault, RepositoryKind, shown};
use larder_formats::Operation;

use super::given::{Leaf, mount_of};
use super::reading::{index_of_files, prune_unread, refusal};
use super::state::Virtual;
use super::tree::{Place, take_apart};
use crate::claim::StoredClaim;
use crate::document::claim_table::ClaimTable;
use crate::document::load::DocumentSource;
use crate::fault::malformed;
use crate::policy::admission::{consider, parts};
use crate::repositories::RepositoryState;
use crate::target::{ArtifactRequest, Target};

/// All names in an index.
pub(super) type Names = Arc<HashSet<String>>;

/// What is known of whose names are.
pub(super) struct Whose {
    /// The members as they stand within each other, those marked that have no index to give.
    pub(super) root: Place,
    /// Of members whose names decide what others give: the names in their indexes.
    pub(super) names: HashMap<usize, Names>,
}

impl Whose {
    /// The members that may give a file of a package (`None`: of none), in the order of priority, whether they have it or not.
    pub(super) fn givers(&self, package: Option<&str>, path: &str) -> Vec<usize> {
        let admits = |of: &RepositoryState| refusal(of, path).is_none();
        let has = |leaf: usize| {
            let names = self.names.get(&leaf).zip(package);
            names.is_some_and(|(names, package)| names.contains(package))
        };
        self.root.givers(package, &has, &admits).leaves
    }

    /// Why a member may not give a file of these packages, if so.
    pub(super) fn objection(&self, leaf: usize, packages: &[&str], path: &str) -> Option<String> {
        let may_not = |package: Option<&str>| !self.givers(package, path).contains(&leaf);
        let all = packages.iter().copied().map(Some);
        let package = std::iter::once(None)
            .chain(all)
            .find(|package| may_not(*package))?;
        let (owner, path) = (&self.root.entry.repository.name, shown(path));
        let reserver = package.and_then(|package| self.root.reserver(package));
        Some(match (package, reserver) {
            (None, _) => {
                format!("the rules of virtual repository {owner}, or of one in it, keep {path} out")
            }
            (_, Some(member)) => {
                format!(
                    "names like that of {path} are reserved for member {member} of virtual repository {owner}"
                )
            }
            (_, None) => {
                format!(
                    "names like that of {path} are another member's of virtual repository {owner}"
                )
            }
        })
    }
}

/// What indexes call a file: its path, or that of what it belongs to, and the same with the query that goes to the upstream.
pub(super) struct FileName<'p> {
    pub(super) subject: &'p str,
    with_query: Option<String>,
}

impl<'p> FileName<'p> {
    pub(super) fn of(
        owner: &RepositoryState,
        request: &ArtifactRequest<'_>,
        path: &'p ArtifactPath,
    ) -> Self {
        let subject = owner.facts(path.as_str()).policy_path(path.as_str());
        let query = match owner.format.operation(&parts(owner, request, path)) {
            Operation::Read(read) => read.source.query,
            _ => None,
        };
        Self {
            subject,
            with_query: query.map(|query| format!("{subject}?{query}")),
        }
    }

    /// What an index says of it. A query may be that of the repository's own address, which links do not have.
    pub(super) fn claim_in(&self, table: &ClaimTable) -> Option<StoredClaim> {
        let exact = self.with_query.as_deref().and_then(|name| table.find(name));
        exact.or_else(|| table.find(self.subject))
    }
}

/// The packages that a file is of: what the index calls it that names it, or else its own name.
pub(super) fn packages<'a>(
    owner: &RepositoryState,
    claim: Option<&'a StoredClaim>,
    subject: &'a str,
) -> Vec<&'a str> {
    match claim {
        Some(claim) if !claim.packages.is_empty() => {
            claim.packages.iter().map(String::as_str).collect()
        }
        _ => owner.format.likely_name(subject).into_iter().collect(),
    }
}

/// All names in a document, read once for its bytes.
pub(super) async fn names_in(
    engine: &Virtual,
    record: &ArtifactRecord,
    source: DocumentSource,
) -> Result<Names, Fault> {
    let digest = record.blob().map(|blob| blob.digest.to_string());
    let read = async {
        let (repository, bytes) = (source.repository().clone(), source.length());
        let parse = move || {
            let document = source.load()?;
            let wanted = document.wanted();
            let names = wanted.format.names(&document.view());
            names.map_err(|error| malformed(wanted, &error))
        };
        let names = engine.documents.parse_blocking(&repository, bytes, parse);
        names.await?.map(Arc::new)
    };
    let digest = digest.unwrap_or_default();
    engine.names.get_or_insert_async(&digest, read).await
}

/// How a member stands to a file, as far as what is held tells.
#[derive(Debug)]
pub(crate) struct Standing {
    /// Whether its index names the file.
    pub(crate) is_named: bool,
    /// Why it may not give it, if so.
    pub(crate) objection: Option<String>,
}

/// How each member of a virtual repository stands to the file at `path`, in the order of priority. `is_link` says that the path is a
/// member's own, out of a merged document. No upstream is asked.
pub(crate) async fn standings(
    engine: &Arc<Virtual>,
    owner: &Arc<RepositoryState>,
    request: &ArtifactRequest<'_>,
    path: &ArtifactPath,
    is_link: bool,
) -> Vec<Standing> {
    let (mut root, leaves) = take_apart(&engine.registry.load(), owner);
    let index = index_of_files(owner);
    prune_unread(&mut root, &index);
    let file = FileName::of(owner, request, path);
    let (subject, path) = (file.subject, path.as_str());
    let (mut names, mut claims) = (HashMap::new(), Vec::new());
    for (number, leaf) in leaves.iter().enumerate() {
        let Some((wanted, record)) = held(engine, leaf, request, &index).await else {
            claims.push(None);
            continue;
        };
        let table = engine.documents.claim_table(&wanted, &record).await;
        claims.push(table.ok().and_then(|table| file.claim_in(&table)));
        if leaf.owns_names
            && let Ok(source) = engine.documents.held_source(&wanted, &record).await
            && let Ok(known) = names_in(engine, &record, source).await
        {
            names.insert(number, known);
        }
    }
    let whose = Whose { root, names };
    let standing = |(number, claim): (usize, Option<StoredClaim>)| {
        let mut packages = packages(owner, claim.as_ref(), subject);
        if !is_link {
            packages.extend(owner.format.likely_name(subject));
        }
        Standing {
            is_named: claim.is_some(),
            objection: whose.objection(number, &packages, path),
        }
    };
    claims.into_iter().enumerate().map(standing).collect()
}

/// The index of a member, if it is held.
async fn held(
    engine: &Virtual,
    leaf: &Leaf,
    request: &ArtifactRequest<'_>,
    index: &str,
) -> Option<(Arc<Target>, Arc<ArtifactRecord>)> {
    if leaf.entry.repository.kind() != RepositoryKind::Remote {
        return None;
    }
    let of_index = ArtifactRequest {
        repository: leaf.entry.repository.name.as_str(),
        mount: mount_of(leaf, &request.mount),
        raw_path: index,
        query: None,
        method: &Method::GET,
        ..request.clone()
    };
    let path = ArtifactPath::from_decoded(index).ok()?;
    let considered = consider(&engine.registry, &leaf.entry, &of_index, &path).ok()??;
    let target = considered.target?;
    let record = engine.catalog.record(&target.key).await.ok()??;
    record.blob().is_some().then_some((target, record))
}
