//! The pages of what is held: folders, searches, single paths, packages and images.

use std::sync::Arc;

use http::Method;
use hyper::body::Incoming;
use larder_core::{
    ArtifactPath, ErrorCode, Fault, FaultKind, Mount, PathRules, Repository, RepositoryKind,
    UnixMillis,
};
use larder_engine::{
    ArtifactRequest, FolderRequest, ImageRequest, JobRequest, PackageRequest, Queries, SearchHit,
    SearchKind, SearchRequest,
};
use larder_ui::pages::{self, BrowseFile, PackageMember, PackageTag, RepositoryHead, SearchFound};
use larder_ui::{Bytes, Count, Moment};

use super::numbers::Numbers;
use super::visit::{Outcome, Visit};
use super::{guard, nothing, shown};
use crate::backend::Backend;
use crate::discovery::{cursor_of, cursor_text};

/// Rows of one page: with the longest usual names it stays below 150 KB.
const ROWS: usize = 100;
/// Repositories that the form of a search lists; where there are more, the name is typed.
const CHOICES: usize = 100;
/// Tags on the page of an image, beside its parts.
const TAGS: usize = 50;

/// `page`: the raw path behind `/ui/repositories/{repo}/`.
pub(crate) async fn route<B: Backend>(
    visit: &Visit<'_, B>,
    repository: &Arc<Repository>,
    page: &str,
    body: &mut Incoming,
) -> Outcome {
    let (first, below) = page
        .split_once('/')
        .map_or((page, None), |(first, below)| (first, Some(below)));
    let is_post = visit.method() == Method::POST;
    match (first, below) {
        ("browse", _) if !is_post => browse(visit, repository, below).await,
        ("artifact", Some(path)) if is_post => change(visit, repository, path, body).await,
        ("artifact", Some(path)) => artifact(visit, repository, path).await,
        ("package", None) if !is_post => package(visit, repository).await,
        ("image", None) if !is_post => image(visit, repository).await,
        _ => Err(nothing(visit)),
    }
}

/// A path of an address, decoded.
fn decoded(repository: &Repository, raw: &str) -> Result<ArtifactPath, Fault> {
    ArtifactPath::parse(raw, PathRules::default())
        .map_err(|error| bad(format!("this is no path: {error}")).in_repository(&repository.name))
}

fn head<B: Backend>(visit: &Visit<'_, B>, repository: &Repository) -> RepositoryHead {
    Numbers::read(visit).head(visit, repository)
}

fn moment(at: Option<UnixMillis>) -> Option<Moment> {
    at.map(Moment)
}

/// `below`: the raw path behind `browse/`.
async fn browse<B: Backend>(
    visit: &Visit<'_, B>,
    repository: &Arc<Repository>,
    below: Option<&str>,
) -> Outcome {
    let raw = below.unwrap_or_default();
    let folder = decoded(repository, raw)?;
    // What is relative to a folder's page is below the folder.
    if below.is_none() || !(folder.is_root() || folder.as_str().ends_with('/')) {
        let place = format!("/ui/repositories/{}/browse/", repository.name);
        let slash = if folder.is_root() { "" } else { "/" };
        return Ok(visit.redirect(&format!("{place}{}{slash}", folder.encoded())));
    }
    let after = Some(visit.parameter("after")).filter(|after| !after.is_empty());
    let found = visit
        .backend()
        .folder(FolderRequest {
            repository: repository.name.to_string(),
            folder: folder.as_str().to_owned(),
            after: after.clone(),
            limit: ROWS as u32,
        })
        .await?;
    let files = found.files.into_iter().map(|file| BrowseFile {
        name: file.name,
        size: file.size.map(Bytes),
        sha256: file.sha256,
        cached: file.cached,
        cached_at: Moment(file.cached_at),
        fresh_until: moment(file.fresh_until),
    });
    visit.page(&pages::Browse {
        repository: head(visit, repository),
        folder: folder.as_str().to_owned(),
        folders: found.folders,
        files: files.collect(),
        next: found.next,
        is_later: after.is_some(),
        holders: found.holders,
    })
}

/// `/ui/search`.
pub(crate) async fn search<B: Backend>(visit: &Visit<'_, B>) -> Outcome {
    let (kind, word) = match &*visit.parameter("kind") {
        "prefix" => (SearchKind::Prefix, "prefix"),
        "name" => (SearchKind::Name, "name"),
        "version" => (SearchKind::Version, "version"),
        "digest" => (SearchKind::Digest, "digest"),
        _ => (SearchKind::Any, "any"),
    };
    let query = visit.parameter("q").trim().to_owned();
    let repository = visit.parameter("repository");
    if !repository.is_empty() {
        visit.repository(&repository)?;
    }
    let cursor = visit.parameter("cursor");
    let after = match &*cursor {
        "" => None,
        text => {
            let unknown = || bad("cursor is none of larder's; begin without one".to_owned());
            Some(cursor_of(text).ok_or_else(unknown)?)
        }
    };
    let found = visit
        .backend()
        .search(SearchRequest {
            text: query.clone(),
            kind,
            repository: Some(repository.clone()).filter(|name| !name.is_empty()),
            limit: ROWS as u32,
            after,
        })
        .await?;
    // Of what is not served there is nothing to be found.
    let repositories = visit.backend().repositories().into_iter();
    let names = repositories.map(|one| one.name.to_string());
    let names = names.filter(|name| visit.backend().not_built(name).is_none());
    let mut choices: Vec<String> = names.take(CHOICES + 1).collect();
    if choices.len() > CHOICES {
        choices.clear();
    }
    visit.page(&pages::Search {
        query,
        kind: word,
        repository,
        repositories: choices,
        hits: found.hits.into_iter().map(hit).collect(),
        next: found.next.as_ref().map(cursor_text),
        looked_at: Count(found.looked_at),
    })
}

fn hit(hit: SearchHit) -> SearchFound {
    SearchFound {
        repository: hit.repository,
        path: hit.path,
        size: hit.size.map(Bytes),
        sha256: hit.sha256,
        cached: hit.cached,
        cached_at: Moment(hit.cached_at),
    }
}

async fn artifact<B: Backend>(
    visit: &Visit<'_, B>,
    repository: &Arc<Repository>,
    raw: &str,
) -> Outcome {
    let path = decoded(repository, raw)?;
    let name = repository.name.as_str();
    if repository.kind() == RepositoryKind::Virtual {
        return of_member(visit, repository, &path).await;
    }
    let found = visit.backend().artifact(name, path.as_str()).await?;
    visit.page(&shown::artifact(head(visit, repository), &path, found, hit))
}

/// Goes on to the first member that holds a path.
async fn of_member<B: Backend>(
    visit: &Visit<'_, B>,
    repository: &Repository,
    path: &ArtifactPath,
) -> Outcome {
    let name = repository.name.as_str();
    for holder in visit.backend().holders(name)? {
        match visit.backend().artifact(&holder, path.as_str()).await {
            Ok(_) => {
                let encoded = path.encoded();
                let to = format!("/ui/repositories/{holder}/artifact/{encoded}");
                return Ok(visit.redirect(&to));
            }
            Err(fault) if fault.kind == FaultKind::NotFound => {}
            Err(fault) => return Err(fault),
        }
    }
    let message = format!("no member of {name} holds anything under this path");
    let fault = Fault::new(FaultKind::NotFound, ErrorCode::NotHeld, message);
    Err(fault.in_repository(&repository.name))
}

/// Drops what is held under a path, and has it fetched again if that is wanted.
async fn change<B: Backend>(
    visit: &Visit<'_, B>,
    repository: &Arc<Repository>,
    raw: &str,
    body: &mut Incoming,
) -> Outcome {
    let form = guard::change(visit, body).await?;
    let is_fetched_again = match form.field("action") {
        "drop" => false,
        "refetch" => true,
        _ => return Err(bad("choose what is to be done".to_owned())),
    };
    let path = decoded(repository, raw)?;
    let name = repository.name.as_str();
    if repository.kind() != RepositoryKind::Remote {
        let message = format!("{name} is no remote repository: there is nothing to drop");
        return Err(bad(message).in_repository(&repository.name));
    }
    if is_fetched_again {
        let held = visit.backend().artifact(name, path.as_str()).await?;
        if held.copies.iter().all(|copy| copy.has_query) {
            let message = "clients ask for this with queries, which larder does not show: drop it, and the next of them brings it back";
            return Err(bad(message.to_owned()).in_repository(&repository.name));
        }
    }
    let mount = Mount::api(&visit.exchange.client.base, repository.kind(), name);
    let request = visit
        .exchange
        .request(name, path.encoded(), mount, bytes::Bytes::new());
    let request = ArtifactRequest {
        method: &Method::GET,
        query: None,
        ..request
    };
    if !visit.backend().forget(request, Queries::Any).await? {
        let message = format!("{name} holds nothing under this path: there is nothing to drop");
        let fault = Fault::new(FaultKind::NotFound, ErrorCode::NotHeld, message);
        return Err(fault.in_repository(&repository.name));
    }
    visit.exchange.shared.hot.clear();
    tracing::info!(
        client = %visit.exchange.client.address, repository = name, "a path was dropped from the web interface"
    );
    if !is_fetched_again {
        let folder = nearest_folder(visit, name, path.as_str()).await;
        return Ok(visit.redirect(&format!("/ui/repositories/{name}/browse/{folder}")));
    }
    let job = JobRequest {
        repository: name.to_owned(),
        paths: Some(vec![path.as_str().to_owned()]),
        ..JobRequest::default()
    };
    let made = visit.backend().create_job(job).await?;
    Ok(visit.redirect(&format!("/ui/jobs/{}", made.job.id)))
}

/// The nearest folder above a path that still holds something, encoded and with its slash; empty for the root.
async fn nearest_folder<B: Backend>(visit: &Visit<'_, B>, repository: &str, path: &str) -> String {
    let mut rest = path.trim_end_matches('/');
    while let Some((folder, _)) = rest.rsplit_once('/') {
        rest = folder;
        let asked = FolderRequest {
            repository: repository.to_owned(),
            folder: format!("{folder}/"),
            after: None,
            limit: 1,
        };
        if visit.backend().folder(asked).await.is_ok()
            && let Ok(folder) = ArtifactPath::from_decoded(folder)
        {
            return format!("{}/", folder.encoded());
        }
    }
    String::new()
}

async fn package<B: Backend>(visit: &Visit<'_, B>, repository: &Arc<Repository>) -> Outcome {
    let name = named(visit, repository)?;
    let folder = Some(visit.parameter("folder")).filter(|folder| !folder.is_empty());
    let page: usize = visit.parameter("page").parse().unwrap_or(1).max(1);
    let skip = (page - 1).saturating_mul(ROWS);
    let found = visit
        .backend()
        .package(PackageRequest {
            repository: repository.name.to_string(),
            name: name.clone(),
            folder: folder.clone(),
            skip,
            limit: ROWS,
        })
        .await?;
    let rows = found.total.max(found.tags.len());
    let tags_total = Count(found.tags.len() as u64);
    let mut tags = found.tags;
    tags.sort_by_key(|(tag, _)| tag != "latest");
    let tags = tags.into_iter().skip(skip).take(ROWS);
    visit.page(&pages::Package {
        repository: head(visit, repository),
        name,
        folder,
        index: found.index,
        cached_at: moment(found.cached_at),
        fresh_until: moment(found.fresh_until),
        tags: tags
            .map(|(tag, version)| PackageTag { tag, version })
            .collect(),
        tags_total,
        has_next: rows > skip.saturating_add(ROWS),
        files: found.files.into_iter().map(shown::package_file).collect(),
        total: Count(found.total as u64),
        page,
        members: found
            .members
            .into_iter()
            .map(|(member, index)| PackageMember { member, index })
            .collect(),
    })
}

async fn image<B: Backend>(visit: &Visit<'_, B>, repository: &Arc<Repository>) -> Outcome {
    let name = named(visit, repository)?;
    let reference = visit.parameter("reference");
    let after = visit.parameter("after");
    let found = visit
        .backend()
        .image(ImageRequest {
            repository: repository.name.to_string(),
            name: name.clone(),
            reference: Some(reference.clone()).filter(|reference| !reference.is_empty()),
            after: Some(after).filter(|after| !after.is_empty()),
            limit: TAGS,
        })
        .await?;
    visit.page(&shown::image(
        head(visit, repository),
        name,
        reference,
        found,
    ))
}

/// The name that the address states.
fn named<B: Backend>(visit: &Visit<'_, B>, repository: &Repository) -> Result<String, Fault> {
    let name = visit.parameter("name");
    if name.is_empty() {
        let message = "the address states no name: add ?name=".to_owned();
        return Err(bad(message).in_repository(&repository.name));
    }
    Ok(name)
}

fn bad(message: String) -> Fault {
    Fault::new(FaultKind::BadRequest, ErrorCode::BadRequest, message)
}
