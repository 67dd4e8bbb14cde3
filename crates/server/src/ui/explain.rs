//! `/ui/explain`: why an address is answered as it is. What is pasted may be an address of larder's, one of an upstream's, or the path below
//! a repository behind its name.

use http::Method;
use larder_core::{ErrorCode, Fault, FaultKind, Mount, PackageType, Repository};
use larder_engine::{ArtifactRequest, Explanation, Point, PointValue};
use larder_ui::pages::{self, Explained, Step};
use larder_ui::{Moment, Span};
use url::Url;

use super::visit::{Outcome, Visit};
use crate::backend::Backend;

pub(crate) async fn show<B: Backend>(visit: &Visit<'_, B>) -> Outcome {
    visit.may_see_configuration()?;
    let url = visit.parameter("url").trim().to_owned();
    let mut page = pages::Explain {
        url,
        explained: None,
        refused: None,
    };
    if !page.url.is_empty() {
        let answer = match meant(visit, &page.url) {
            Some((name, path)) => explain(visit, &name, &path).await,
            None => Err(not_meant()),
        };
        match answer {
            Ok(answer) => page.explained = Some(explained(visit, &answer.0, &answer.1)),
            Err(fault) => page.refused = Some(fault.message),
        }
    }
    visit.page(&page)
}

async fn explain<B: Backend>(
    visit: &Visit<'_, B>,
    name: &str,
    path: &str,
) -> Result<(String, Explanation), Fault> {
    let repository = visit.repository(name)?;
    let mount = Mount::api(&visit.exchange.client.base, repository.kind(), name);
    let asked = visit
        .exchange
        .request(name, path, mount, bytes::Bytes::new());
    let asked = ArtifactRequest {
        method: &Method::GET,
        query: None,
        ..asked
    };
    let explanation = visit.backend().explain(asked).await?;
    Ok((name.to_owned(), explanation))
}

fn not_meant() -> Fault {
    let message = "no repository has this address: it is none of larder's, none below an upstream that is configured, and does not \
                   begin with a repository's name";
    Fault::new(FaultKind::NotFound, ErrorCode::UnknownRepository, message)
}

/// The repository that is meant, and the path below it, as it was pasted.
fn meant<B: Backend>(visit: &Visit<'_, B>, pasted: &str) -> Option<(String, String)> {
    let repositories = visit.backend().repositories();
    let named = |name: &str, path: &str| {
        let known = repositories.iter().any(|r| r.name.as_str() == name);
        known.then(|| (name.to_owned(), path.to_owned()))
    };
    let of_path = |path: &str| -> Option<(String, String)> {
        let path = path.trim_start_matches('/');
        let below = ["api/v1/remote/", "api/v1/virtual/", "v2/"]
            .iter()
            .find_map(|prefix| path.find(prefix).map(|at| &path[at + prefix.len()..]));
        let path = below.unwrap_or(path);
        let (name, rest) = path.split_once('/').unwrap_or((path, ""));
        named(name, rest)
    };
    let Ok(url) = Url::parse(pasted) else {
        let path = pasted.split(['?', '#']).next().unwrap_or_default();
        return of_path(path);
    };
    if !matches!(url.scheme(), "http" | "https") {
        // `NAME:TAG` of an image, and the like.
        return of_path(pasted);
    }
    upstream(&repositories, &url).or_else(|| of_path(url.path()))
}

/// The repository below whose upstream an address is: the one whose root is the longest.
fn upstream(repositories: &[std::sync::Arc<Repository>], url: &Url) -> Option<(String, String)> {
    let of_one = |repository: &Repository| {
        let settings = repository.upstream()?;
        let is_pypi = repository.package == PackageType::Pypi;
        let index = is_pypi.then_some((&settings.index_url, "simple/"));
        let bases = settings.base_urls.iter().map(|base| (base, ""));
        let below = |(base, prefix): (&Url, &str)| {
            let same = base.origin() == url.origin();
            let rest = url.path().strip_prefix(base.path()).filter(|_| same)?;
            let rest = rest.strip_prefix("v2/").unwrap_or(rest);
            Some((base.path().len(), format!("{prefix}{rest}")))
        };
        let (length, path) = index.into_iter().chain(bases).filter_map(below).max()?;
        Some((length, (repository.name.to_string(), path)))
    };
    let found = repositories.iter().filter_map(|one| of_one(one));
    found
        .max_by_key(|(length, _)| *length)
        .map(|(_, found)| found)
}

fn explained<B: Backend>(visit: &Visit<'_, B>, name: &str, said: &Explanation) -> Explained {
    let step = |name: &'static str, point: &Point| {
        let value = match &point.value {
            PointValue::None => None,
            PointValue::Text(text) => Some(text.clone()),
            PointValue::Seconds(seconds) => Some(Span(*seconds).to_string()),
        };
        let key = point.decided_by.clone();
        Step {
            name,
            value,
            until: point.until.map(Moment),
            because: point.because.clone(),
            line: key
                .as_ref()
                .and_then(|key| visit.live.config_lines.get(key).cloned()),
            decided_by: key,
        }
    };
    Explained {
        repository: name.to_owned(),
        path: said.path.clone(),
        verdict: match &said.verdict.value {
            PointValue::Text(verdict) => format!("{verdict}: {}", said.verdict.because),
            _ => said.verdict.because.clone(),
        },
        steps: vec![
            step("Repository", &said.repository),
            step("Answer", &said.verdict),
            step("Pattern", &said.pattern),
            step("Class", &said.class),
            step("Fresh for", &said.ttl),
            step("Copy", &said.freshness),
            step("Quarantine", &said.quarantine),
            step("Member", &said.member),
            step("Digest", &said.digest),
        ],
    }
}
