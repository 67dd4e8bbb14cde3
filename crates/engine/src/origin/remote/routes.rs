//! The ways to a source: below each mirror's root, or the one place where a document says that it is.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use larder_core::{ArtifactRecord, ErrorCode, UpstreamSettings, join_url};
use larder_formats::SourceBase;
use larder_upstream::{Conditions, UpstreamRequest};
use url::Url;

use super::fields::without_secrets;
use super::query::UpstreamQuery;
use crate::fault::FetchError;
use crate::repositories::mirror::Mirror;
use crate::target::Target;

/// One way to a source.
#[derive(Debug, Clone)]
pub(super) struct Route {
    pub(super) url: Url,
    /// `None`: somewhere else, where a document led to.
    pub(super) mirror: Option<Arc<Mirror>>,
}

/// Where a claim says that a source is, if that is another place than the usual one.
pub(super) fn elsewhere(wanted: &Target, url: &str) -> Option<Url> {
    let url = Url::parse(url).ok()?;
    let urls = |ask: &UpstreamQuery<'_>| {
        routes(wanted, ask).ok().map(|routes| {
            routes
                .into_iter()
                .map(|route| route.url)
                .collect::<Vec<_>>()
        })
    };
    let led = UpstreamQuery {
        claimed: Some(url),
        ..UpstreamQuery::default()
    };
    if urls(&led) == urls(&UpstreamQuery::default()) {
        None
    } else {
        led.claimed
    }
}

/// Where a source is found if neither a document nor a redirect says otherwise, as records have it.
pub(crate) fn usual_place(wanted: &Target) -> Option<String> {
    let routes = routes(wanted, &UpstreamQuery::default()).ok()?;
    routes.first().map(|route| without_secrets(&route.url))
}

/// Every way to a source: below each mirror's root, or the one place where a document says it is.
pub(super) fn routes(wanted: &Target, ask: &UpstreamQuery<'_>) -> Result<Vec<Route>, FetchError> {
    let settings =
        settings(wanted).ok_or_else(|| bad("this repository has no upstream".to_owned()))?;
    let spec = &wanted.spec;
    let given = match (&ask.claimed, &spec.base) {
        (Some(url), _) => Some(url),
        (None, SourceBase::External(url)) => Some(&**url),
        (None, SourceBase::Files | SourceBase::Index | SourceBase::Registry) => None,
    };
    let mut all = match given {
        Some(url) => match below_mirrors(wanted, url) {
            Some(rest) => beside_each_other(wanted, rest)?,
            None => {
                return Ok(vec![Route {
                    url: url.clone(),
                    mirror: None,
                }]);
            }
        },
        None if spec.base == SourceBase::Index => at_indexes(wanted, settings)?,
        None => at_mirrors(wanted)?,
    };
    if all.is_empty() {
        return Err(bad("this repository has no base_url".to_owned()));
    }
    let avoided = |route: &Route| {
        route
            .mirror
            .as_ref()
            .is_some_and(|mirror| ask.avoid.iter().any(|other| other.is(mirror)))
    };
    all.retain(|route| !avoided(route));
    Ok(all)
}

fn bad(message: String) -> FetchError {
    FetchError::unusable(ErrorCode::BadUrl, message)
}

/// Where sources of this kind begin at a mirror.
fn root<'m>(wanted: &Target, mirror: &'m Mirror) -> Cow<'m, Url> {
    wanted.spec.base.below(&mirror.root)
}

/// The address of this source below a root.
fn join(wanted: &Target, base: &Url) -> Result<Url, FetchError> {
    let spec = &wanted.spec;
    join_url(base, &spec.path, spec.query.as_deref()).map_err(|error| bad(error.to_string()))
}

/// The part of a given URL that is below the root of a mirror: there the others have it, too. A query may be a signature: it is for the
/// place that the link names, and for no other.
fn below_mirrors<'u>(wanted: &Target, url: &'u Url) -> Option<&'u str> {
    let mirrors = &wanted.entry.mirrors;
    let below = |mirror: &Arc<Mirror>| url.as_str().strip_prefix(root(wanted, mirror).as_str());
    mirrors
        .iter()
        .find_map(below)
        .filter(|_| url.query().is_none() || mirrors.len() < 2)
}

/// What a URL names below one mirror's root, below each of them.
fn beside_each_other(wanted: &Target, rest: &str) -> Result<Vec<Route>, FetchError> {
    let mirrors = wanted.entry.mirrors.iter();
    let routes = mirrors.map(|mirror| {
        let url = Url::parse(&format!("{}{rest}", root(wanted, mirror)));
        Ok(Route {
            url: url.map_err(|error| bad(error.to_string()))?,
            mirror: Some(Arc::clone(mirror)),
        })
    });
    routes.collect()
}

/// What stands beside the index, for each index. One of a place of its own is no mirror's.
fn at_indexes(wanted: &Target, settings: &UpstreamSettings) -> Result<Vec<Route>, FetchError> {
    let (indexes, mirrors) = (settings.index_urls(), &wanted.entry.mirrors);
    let routes = indexes.iter().enumerate().map(|(at, index)| {
        let mirror = mirrors
            .get(at)
            .filter(|_| indexes.len() == mirrors.len())
            .cloned();
        Ok(Route {
            url: join(wanted, &parent(index))?,
            mirror,
        })
    });
    routes.collect()
}

/// The usual places: below each mirror's root.
fn at_mirrors(wanted: &Target) -> Result<Vec<Route>, FetchError> {
    let mirrors = wanted.entry.mirrors.iter();
    let routes = mirrors.map(|mirror| {
        Ok(Route {
            url: join(wanted, &root(wanted, mirror))?,
            mirror: Some(Arc::clone(mirror)),
        })
    });
    routes.collect()
}

fn settings(wanted: &Target) -> Option<&UpstreamSettings> {
    wanted.entry.repository.upstream()
}

/// The parent of a simple root: `https://host/root/` for `https://host/root/simple/`.
fn parent(index_url: &Url) -> Url {
    let mut parent = index_url.clone();
    let path = index_url.path().trim_end_matches('/');
    let end = path.rfind('/').map_or(0, |at| at + 1);
    parent.set_path(&path[..end]);
    parent
}

pub(super) fn request(
    wanted: &Target,
    ask: &UpstreamQuery<'_>,
    route: &Route,
    patience: Option<Duration>,
) -> UpstreamRequest {
    let repository = &wanted.entry.repository;
    let led = ask.claimed.is_some() || matches!(wanted.spec.base, SourceBase::External(_));
    let configured =
        settings(wanted).is_some_and(|settings| settings.is_configured_origin(&route.url));
    UpstreamRequest {
        learned: led && !configured,
        accept: ask.accept.or(wanted.spec.accept),
        conditions: ask
            .unless_changed
            .map(|record| conditions(wanted, route, record))
            .unwrap_or_default(),
        resume: ask.resume.clone(),
        headers: ask.headers.clone(),
        body: ask.body.clone(),
        patience,
        has_stale_fallback: ask.has_stale_fallback,
        ..UpstreamRequest::new(
            Arc::clone(repository),
            ask.method.clone(),
            route.url.clone(),
        )
    }
}

/// The validators of a copy. A date says something only where the copy came from; a tag that two places share means the same bytes.
fn conditions(wanted: &Target, route: &Route, record: &ArtifactRecord) -> Conditions {
    let root = route
        .mirror
        .as_ref()
        .map_or("", |mirror| mirror.root.as_str());
    let its_own = wanted.entry.mirrors.len() < 2 || record.source_url.starts_with(root);
    Conditions {
        if_none_match: record.headers.etag.clone(),
        if_modified_since: record.headers.last_modified.clone().filter(|_| its_own),
    }
}
