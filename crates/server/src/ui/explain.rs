//! `/ui/explain`: why an address is answered as it is. What is pasted may be an address of larder's, one of an upstream's, or the path below
//! a repository behind its name.

use std::sync::Arc;

use http::{HeaderMap, Method, Request};
use larder_core::{ErrorCode, Fault, FaultKind, Mount, PackageType, Repository};
use larder_engine::{ArtifactRequest, Explanation, Point, PointValue};
use larder_ui::pages::{self, Explained, Step};
use larder_ui::{Moment, Span};
use url::Url;

use super::visit::{Outcome, Visit};
use crate::backend::Backend;
use crate::exchange::Exchange;
use crate::oci;

/// Roots below which repositories are, other than that of images.
const ROOTS: [&str; 2] = ["api/v1/remote/", "api/v1/virtual/"];

/// A repository's name, and the raw path below it.
type Place = (String, String);

/// An address or path that was pasted.
struct Pasted<'v, B> {
    visit: &'v Visit<'v, B>,
    known: Vec<Arc<Repository>>,
    query: Option<&'v str>,
}

pub(crate) async fn show<B: Backend>(visit: &Visit<'_, B>) -> Outcome {
    visit.may_see_configuration()?;
    let url = visit.parameter("url").trim().to_owned();
    let mut page = pages::Explain {
        url,
        explained: None,
        refused: None,
    };
    if !page.url.is_empty() {
        let whole = page.url.split('#').next().unwrap_or_default();
        let pasted = Pasted {
            visit,
            known: visit.backend().repositories(),
            query: whole.split_once('?').map(|(_, query)| query),
        };
        let answer = match pasted.meant(whole) {
            Some(place) => explain(visit, &place, pasted.query).await,
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
    (name, path): &Place,
    query: Option<&str>,
) -> Result<(String, Explanation), Fault> {
    let repository = visit.repository(name)?;
    let mount = Mount::api(&visit.exchange.client.base, repository.kind(), name);
    let asked = visit
        .exchange
        .request(name, path, mount, bytes::Bytes::new());
    // What a browser takes says nothing of what clients do.
    let headers = HeaderMap::new();
    let asked = ArtifactRequest {
        method: &Method::GET,
        query,
        headers: &headers,
        ..asked
    };
    let explanation = visit.backend().explain(asked).await?;
    Ok((name.clone(), explanation))
}

fn not_meant() -> Fault {
    let message = "no repository has this address: it is none of larder's, none below an upstream that is configured, and does not \
                   begin with a repository's name";
    Fault::new(FaultKind::NotFound, ErrorCode::UnknownRepository, message)
}

impl<B: Backend> Pasted<'_, B> {
    /// The repository that is meant, and the path below it, as it was pasted.
    fn meant(&self, whole: &str) -> Option<Place> {
        let url = Url::parse(whole).ok();
        let Some(url) = url.filter(|url| matches!(url.scheme(), "http" | "https")) else {
            let path = whole.split('?').next().unwrap_or_default();
            let path = path.trim_start_matches('/');
            // A path may have the names of larder's own roots in it: a repository's name in front says that it is one.
            let found = self.aliased(path).or_else(|| self.named(path));
            return found.or_else(|| self.rooted(path));
        };
        let base = Url::parse(&self.visit.base()).ok();
        let mut places = base.iter().chain(self.visit.live.public_urls.all());
        let own = places.find_map(|place| {
            let below = url.path().strip_prefix(place.path().trim_end_matches('/'));
            let below = below.filter(|_| place.origin() == url.origin())?;
            self.rooted(below.strip_prefix('/')?)
        });
        own.or_else(|| upstream(&self.known, &url))
            .or_else(|| self.elsewhere(url.path()))
    }

    /// A path that begins with a repository's name.
    fn named(&self, path: &str) -> Option<Place> {
        let (name, rest) = path.split_once('/').unwrap_or((path, ""));
        let mut known = self.known.iter();
        known.find(|one| one.name.as_str() == name)?;
        Some((name.to_owned(), rest.to_owned()))
    }

    /// A path below larder's own address.
    fn rooted(&self, path: &str) -> Option<Place> {
        let mut roots = ROOTS.iter();
        let found = roots.find_map(|root| self.named(path.strip_prefix(root)?));
        found
            .or_else(|| self.image(path.strip_prefix("v2/")?))
            .or_else(|| self.aliased(path))
    }

    /// What is below `/v2/`, as clients are led by it.
    fn image(&self, rest: &str) -> Option<Place> {
        let Exchange {
            backend,
            shared,
            connection,
            host,
            client,
            principal,
            ..
        } = *self.visit.exchange;
        let query = self
            .query
            .map_or_else(String::new, |query| format!("?{query}"));
        let (mut head, ()) = Request::new(()).into_parts();
        head.uri = format!("/v2/{rest}{query}").parse().ok()?;
        let asked = Exchange {
            backend,
            shared,
            connection,
            head: &head,
            host,
            client,
            principal,
        };
        let (name, path) = oci::choose(&asked, rest).ok()?;
        Some((name, path.to_owned()))
    }

    /// `REPOSITORY/v2/PATH`, which some clients ask for images by.
    fn aliased(&self, path: &str) -> Option<Place> {
        let (name, rest) = path.split_once('/')?;
        let mut known = self.known.iter();
        let registry = known.find(|one| one.name.as_str() == name)?;
        let is_image = registry.package == PackageType::Docker;
        let below = rest.strip_prefix("v2/").filter(|_| is_image)?;
        Some((name.to_owned(), below.to_owned()))
    }

    /// An address under a name of larder's that it does not know itself, maybe behind a path that a proxy has put in front.
    fn elsewhere(&self, path: &str) -> Option<Place> {
        let at = |at: usize| self.rooted(path.get(at + 1..)?);
        at(0).or_else(|| at(path.find("/api/v1/")?))
    }
}

/// The repository below whose upstream an address is: the one whose root is the longest.
fn upstream(repositories: &[Arc<Repository>], url: &Url) -> Option<Place> {
    let of_one = |repository: &Repository| {
        let settings = repository.upstream()?;
        let is_pypi = repository.package == PackageType::Pypi;
        let index = is_pypi.then_some((&settings.index_url, "simple/"));
        let bases = settings.base_urls.iter().map(|base| (base, ""));
        // The API of a registry; elsewhere it is a folder like others.
        let api = if repository.package == PackageType::Docker {
            "v2/"
        } else {
            ""
        };
        let below = |(base, prefix): (&Url, &str)| {
            let same = base.origin() == url.origin();
            let rest = url.path().strip_prefix(base.path()).filter(|_| same)?;
            let rest = rest.strip_prefix(api).unwrap_or(rest);
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
