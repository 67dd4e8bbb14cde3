//! Every upstream is asked once, as larder itself would: with its credentials, proxies, certificates and rules of addresses.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use larder::config::Settings;
use larder_core::{Clock as _, PackageType, Repository, SafeUrl, SystemClock, UpstreamSettings};
use larder_formats::SourceBase;
use larder_upstream::{
    Cause, HttpUpstream, Options, Upstream as _, UpstreamError, UpstreamErrorKind, UpstreamRequest,
};
use url::Url;

use super::Finding;
use super::clock::{Clocks, ahead};

/// How many are asked at once, and how long one may take.
const AT_ONCE: usize = 8;
const PATIENCE: Duration = Duration::from_secs(20);
const UNREACHABLE: &str = "upstream_unreachable";
const REFUSED: &str = "credentials_refused";
const WRONG: &str = "wrong_upstream";

/// One address of a repository.
struct Probe {
    repository: Arc<Repository>,
    /// Where it is configured: the key, and file and line if it is written down.
    place: String,
    url: Url,
}

/// What one probe came to.
struct Probed {
    finding: Option<Finding>,
    place: String,
    /// How far this machine's clock is ahead of its own.
    ahead: Option<i64>,
}

/// Asks all; gives how many were asked, and what is wrong with them. What they take the time to be goes to `clocks`.
pub(super) async fn findings(settings: &Settings, clocks: &mut Clocks) -> (usize, Vec<Finding>) {
    let upstream = HttpUpstream::new(Options::new(concat!("larder/", env!("CARGO_PKG_VERSION"))));
    let probes = settings
        .repositories
        .iter()
        .filter(|repository| !settings.not_built.contains_key(repository.name.as_str()))
        .flat_map(|repository| probes(repository, settings));
    let probes: Vec<Probe> = probes.collect();
    let asked = probes.len();
    let answers = stream::iter(probes.into_iter().map(|probe| ask(&upstream, probe)));
    let answers: Vec<Probed> = answers.buffered(AT_ONCE).collect().await;
    let mut found = Vec::new();
    for answer in answers {
        if let Some(ahead) = answer.ahead {
            clocks.see(answer.place, ahead);
        }
        found.extend(answer.finding);
    }
    (asked, found)
}

/// The addresses of a repository, each origin once.
fn probes(repository: &Arc<Repository>, settings: &Settings) -> Vec<Probe> {
    let Some(upstream) = repository.upstream().filter(|upstream| !upstream.offline) else {
        return Vec::new();
    };
    let keyed = |key: &str| {
        let key = format!("remotes.{}.{key}", repository.name);
        match settings.config_lines.get(&key) {
            Some(line) => format!("{key} ({line})"),
            None => key,
        }
    };
    let has_index = !upstream.base_urls.contains(&upstream.index_url);
    let index = has_index.then(|| (keyed("index_url"), &upstream.index_url));
    let bases = upstream
        .base_urls
        .iter()
        .map(|url| (keyed("base_url"), url));
    let mut origins = Vec::new();
    let once = index.into_iter().chain(bases).filter(|(_, url)| {
        let is_new = !origins.contains(&url.origin());
        origins.push(url.origin());
        is_new
    });
    let probe = |(place, url): (String, &Url)| Probe {
        repository: Arc::clone(repository),
        place,
        url: asked_of(repository.package, url),
    };
    once.map(probe).collect()
}

/// What is asked for: something small that is there, where a type has such a thing.
fn asked_of(package: PackageType, base: &Url) -> Url {
    match package {
        PackageType::Docker => SourceBase::Registry.below(base).into_owned(),
        PackageType::Helm => base.join("index.yaml").unwrap_or_else(|_| base.clone()),
        _ => base.clone(),
    }
}

async fn ask(upstream: &HttpUpstream, probe: Probe) -> Probed {
    let send = async |method: &str| {
        let method = method.parse().unwrap_or_default();
        let repository = Arc::clone(&probe.repository);
        upstream
            .send(UpstreamRequest::new(repository, method, probe.url.clone()))
            .await
    };
    // A registry says what it wants to GET; from others the head is enough.
    let method = if is_registry(&probe) { "GET" } else { "HEAD" };
    let answer = tokio::time::timeout(PATIENCE, async {
        let answer = send(method).await;
        match &answer {
            // Some know no HEAD, and it is GET that counts.
            Ok(found) if method == "HEAD" && lacks_all(&probe, found.status.as_u16()) => {
                send("GET").await
            }
            _ => answer,
        }
    });
    let answer = answer.await;
    // Now: an answer waits for those that were asked before it.
    let now = SystemClock.now();
    let (finding, ahead) = match answer {
        Err(_) => {
            let what = format!(
                "{} does not answer within {} s",
                SafeUrl(probe.url.clone()),
                PATIENCE.as_secs()
            );
            (Some(unreachable(&probe, what)), None)
        }
        Ok(Err(error)) => (of_error(&probe, &error), None),
        Ok(Ok(response)) => (
            of_status(&probe, response.status.as_u16()),
            ahead(response.header("date"), response.header("age"), now),
        ),
    };
    Probed {
        finding,
        place: probe.place,
        ahead,
    }
}

fn is_registry(probe: &Probe) -> bool {
    probe.repository.package == PackageType::Docker
}

fn unreachable(probe: &Probe, what: String) -> Finding {
    let through = probe
        .repository
        .upstream()
        .and_then(|upstream| upstream.proxy_for(&probe.url));
    let remedy = match through {
        Some(_) => {
            "see that the address is right, that the proxy (proxy, HTTPS_PROXY) answers and lets larder through, and that the server is up"
        }
        None => {
            "see that the address is right, that the server is up, and that DNS and firewall let this machine reach it; behind a proxy set `proxy` or HTTPS_PROXY"
        }
    };
    Finding::new(UNREACHABLE, probe.place.clone(), what, remedy)
}

fn of_error(probe: &Probe, error: &UpstreamError) -> Option<Finding> {
    let what = error.message.clone();
    let has_account = probe.repository.upstream().is_some_and(has_account);
    match error.kind {
        kind if kind.is_of_the_operator() => None,
        // Nobody else refuses a login before there is a connection.
        UpstreamErrorKind::Unreachable if error.cause == Some(Cause::Unauthorized) => {
            Some(refused_by_proxy(probe, what))
        }
        // What a registry gives to anybody it may give image by image.
        UpstreamErrorKind::Unauthorized if is_registry(probe) && !has_account => None,
        UpstreamErrorKind::Unauthorized => Some(refused(probe, what)),
        UpstreamErrorKind::RefusedRedirect => {
            let remedy = "set base_url to an address that answers itself, or ask who runs the server: larder does not follow this redirect";
            Some(Finding::new(UNREACHABLE, probe.place.clone(), what, remedy))
        }
        UpstreamErrorKind::RefusedAddress => {
            let remedy = "if the address it leads to is trusted, admit it with `allow_private`; else set base_url to the address itself";
            Some(Finding::new(UNREACHABLE, probe.place.clone(), what, remedy))
        }
        _ => Some(unreachable(probe, what)),
    }
}

fn of_status(probe: &Probe, status: u16) -> Option<Finding> {
    let address = SafeUrl(probe.url.clone());
    let has_account = probe.repository.upstream().is_some_and(has_account);
    match status {
        401 | 403 if has_account => Some(refused(
            probe,
            format!("{address} answers {status} to the configured credentials"),
        )),
        found if lacks_all(probe, found) => Some(wrong(probe, found)),
        401 if is_registry(probe) => None,
        401 => Some(refused(
            probe,
            format!("{address} answers 401: it wants credentials, and none are configured"),
        )),
        407 => Some(refused_by_proxy(
            probe,
            format!("the proxy on the way to {address} answers 407"),
        )),
        429 | 500..=599 if !matches!(status, 501 | 505) => Some(Finding::new(
            UNREACHABLE,
            probe.place.clone(),
            format!("{address} answers {status}"),
            "wait, or ask who runs it; held copies are served meanwhile, and mirrors (a list in base_url) would be asked",
        )),
        _ => None,
    }
}

/// Whether this answer to what every upstream of its type has says that it is none: no client gets anything from it. Other types have
/// nothing that must be there.
fn lacks_all(probe: &Probe, status: u16) -> bool {
    match probe.repository.package {
        PackageType::Helm => matches!(status, 403 | 404 | 410),
        PackageType::Docker => matches!(status, 404 | 410),
        _ => false,
    }
}

fn wrong(probe: &Probe, status: u16) -> Finding {
    let (what, hint) = match probe.repository.package {
        PackageType::Docker => (
            "no registry is there",
            "the address of a registry has no path but that of a part of it (/v2/…)",
        ),
        _ => (
            "no Helm repository is there",
            "index.yaml is below it; charts in a registry (oci://) are of a docker repository",
        ),
    };
    Finding::new(
        WRONG,
        probe.place.clone(),
        format!(
            "{} answers {status}: {what}, or not for everybody",
            SafeUrl(probe.url.clone())
        ),
        format!("correct the address: {hint}; if it wants credentials, set username and password"),
    )
}

fn has_account(upstream: &UpstreamSettings) -> bool {
    upstream.credentials.is_some() || !upstream.headers.is_empty()
}

fn refused_by_proxy(probe: &Probe, what: String) -> Finding {
    let remedy = "put user name and password into the proxy's URL (proxy, HTTPS_PROXY)";
    Finding::new(REFUSED, probe.place.clone(), what, remedy)
}

fn refused(probe: &Probe, what: String) -> Finding {
    Finding::new(
        REFUSED,
        probe.place.clone(),
        what,
        format!(
            "set or correct username and password (or headers) of remotes.{}; a token may have expired, or lack the right to read",
            probe.repository.name
        ),
    )
}
