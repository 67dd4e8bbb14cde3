//! [`Upstream`] over the network: the redirect loop, and for each hop the breaker, the client, the wait for the head and the one retry.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode, Version};
use larder_core::{Clock, RepositoryName, SafeUrl, SystemClock, UpstreamSettings};
use tracing::{debug, warn};
use url::{Host, Origin, Url};

use crate::address::Reach;
use crate::body::{BodyOrigin, BodyStream, Framing};
use crate::breaker::{BreakerState, Breakers};
use crate::classify::{Failure, body_failure, head_failure};
use crate::client::{ClientKey, Clients, PooledClient};
use crate::connect_watch::ConnectWatch;
use crate::error::{UpstreamError, UpstreamErrorKind};
use crate::redirect::{has_user_info, is_redirect, next_hop};
use crate::resolver::{NameLookup, SystemLookup};
use crate::{Upstream, UpstreamRequest, UpstreamResponse, headers};

/// What an [`HttpUpstream`] is made with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The `User-Agent` field, such as `larder/0.1.0`.
    pub user_agent: String,
    /// Times the pauses of circuit breakers.
    pub clock: Arc<dyn Clock>,
    /// Resolves host names; tests put their own here.
    pub lookup: Arc<dyn NameLookup>,
}

impl Options {
    /// The machine's clock and resolver.
    pub fn new(user_agent: impl Into<String>) -> Self {
        Self { user_agent: user_agent.into(), clock: Arc::new(SystemClock), lookup: Arc::new(SystemLookup) }
    }
}

/// What a circuit breaker stands for: an origin, by one way of reaching it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Target {
    origin: Origin,
    proxy: Option<SafeText>,
    ca_file: Option<PathBuf>,
}

/// A URL that is compared and never shown.
#[derive(Clone, PartialEq, Eq, Hash)]
struct SafeText(Url);

impl std::fmt::Debug for SafeText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&SafeUrl(self.0.clone()), f)
    }
}

impl Target {
    fn new(settings: &UpstreamSettings, url: &Url) -> Self {
        Self { origin: url.origin(), proxy: settings.proxy.clone().map(SafeText), ca_file: settings.ca_file.clone() }
    }

    fn configured(settings: &UpstreamSettings) -> Vec<Self> {
        let mut targets: Vec<Self> = Vec::with_capacity(1);
        for url in settings.base_urls.iter().chain([&settings.index_url]) {
            let target = Self::new(settings, url);
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
        targets
    }
}

/// The network. One for the whole process: connections, breakers and TLS set-ups are shared by all repositories that connect alike, and
/// outlive a reload of the configuration.
#[derive(Debug)]
pub struct HttpUpstream {
    clients: Clients,
    breakers: Arc<Breakers<Target>>,
    targets: Mutex<HashMap<RepositoryName, Vec<Target>>>,
}

impl HttpUpstream {
    /// Makes no connection and reads no file yet.
    pub fn new(options: Options) -> Self {
        Self {
            clients: Clients::new(options.user_agent, options.lookup),
            breakers: Arc::new(Breakers::new(options.clock)),
            targets: Mutex::default(),
        }
    }

    /// To be called after a reload of the configuration: `ca_file`s are read again before their next use. Transfers go on.
    pub fn reload(&self) {
        self.clients.forget_certificates();
    }

    fn remember_targets(&self, name: &RepositoryName, settings: &UpstreamSettings) {
        let targets = Target::configured(settings);
        let mut known = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(name) != Some(&targets) {
            known.insert(name.clone(), targets);
        }
    }
}

#[async_trait]
impl Upstream for HttpUpstream {
    async fn send(&self, request: UpstreamRequest) -> Result<UpstreamResponse, UpstreamError> {
        let repository = Arc::clone(&request.repository);
        let mut url = request.url.clone();
        url.set_fragment(None);
        let fail = |kind, url: &Url, what: &dyn std::fmt::Display| Err(UpstreamError::at(kind, &repository.name, url, what));
        let Some(settings) = repository.upstream.as_ref() else {
            return fail(UpstreamErrorKind::Protocol, &url, &"this repository has no upstream");
        };
        if settings.offline {
            return fail(UpstreamErrorKind::Offline, &url, &"not asked, because the repository is configured with offline: true");
        }
        if !matches!(url.scheme(), "http" | "https") || has_user_info(&url) {
            return fail(UpstreamErrorKind::RefusedAddress, &url, &"only http and https URLs without user name are contacted");
        }
        self.remember_targets(&repository.name, settings);
        let mut followed = 0;
        loop {
            let hop = Hop { upstream: self, request: &request, settings, url: &url, first: followed == 0 };
            let response = hop.send().await?;
            if !is_redirect(response.status) {
                return Ok(response);
            }
            // Dropping the redirect's body gives the connection back if nothing of it is left to come, else closes it.
            match next_hop(&request.method, &url, &response.headers, followed) {
                Ok(next) => {
                    debug!(repository = %repository.name, from = %SafeUrl(url), to = %SafeUrl(next.clone()), "redirect");
                    url = next;
                }
                Err(refused) => return fail(UpstreamErrorKind::RefusedRedirect, &url, &refused),
            }
            followed += 1;
        }
    }

    fn health(&self, repository: &RepositoryName) -> BreakerState {
        let known = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let targets = known.get(repository).into_iter().flatten();
        targets.map(|target| self.breakers.state(target)).max().unwrap_or_default()
    }
}

/// One request to one URL.
struct Hop<'a> {
    upstream: &'a HttpUpstream,
    request: &'a UpstreamRequest,
    settings: &'a UpstreamSettings,
    url: &'a Url,
    first: bool,
}

impl Hop<'_> {
    fn error(&self, kind: UpstreamErrorKind, what: impl std::fmt::Display) -> UpstreamError {
        UpstreamError::at(kind, &self.request.repository.name, self.url, what)
    }

    async fn send(&self) -> Result<UpstreamResponse, UpstreamError> {
        let reach = self.reach()?;
        let fields = headers::outgoing(self.request, self.settings, self.url)
            .map_err(|unusable| self.error(UpstreamErrorKind::Protocol, unusable))?;
        let deadline = self.settings.connect_timeout + self.settings.read_timeout + Duration::from_secs(5);
        let permit = self.upstream.breakers.admit(&Target::new(self.settings, self.url), deadline).map_err(|_| {
            self.error(
                UpstreamErrorKind::Unreachable,
                "not asked, because it failed several times in a row; it is tried again soon",
            )
        })?;
        match self.try_twice(ClientKey::new(self.settings, reach), fields).await {
            Ok(response) => {
                permit.succeeded();
                self.checked(response)
            }
            Err(error) => {
                match error.kind {
                    UpstreamErrorKind::Unreachable | UpstreamErrorKind::TimedOut => permit.failed(),
                    // Nonsense came, but it came.
                    UpstreamErrorKind::Protocol => permit.succeeded(),
                    _ => drop(permit),
                }
                Err(error)
            }
        }
    }

    /// How far this hop may go; refuses addresses that are written in the URL itself. Names are judged by the client's resolver, unless
    /// a proxy resolves them: what a name means to a proxy cannot be known here, so the proxy has to guard its own network.
    fn reach(&self) -> Result<Reach, UpstreamError> {
        let reach = Reach::of(self.settings, self.url);
        let local_name = matches!(self.url.host(), Some(Host::Domain(name)) if is_localhost(name))
            && !reach.admits(std::net::Ipv4Addr::LOCALHOST.into());
        if reach.admits_literal(self.url) && !(local_name && self.settings.proxy.is_some()) {
            return Ok(reach);
        }
        let led = if !self.first {
            "a redirect"
        } else if self.request.learned {
            "a link in the upstream's document"
        } else {
            "this URL"
        };
        let what = format!("{led} leads to a private address; list it in allow_private if larder may go there");
        Err(self.error(UpstreamErrorKind::RefusedAddress, what))
    }

    /// Sends, and sends once more if a kept connection turns out to be dead and the request can do no harm twice.
    async fn try_twice(&self, key: ClientKey, fields: HeaderMap) -> Result<reqwest::Response, UpstreamError> {
        let client = self.client(&key).await?;
        client.budget.earn();
        let watch = ConnectWatch::default();
        let failure = match self.attempt(&client, fields.clone(), &watch).await {
            Ok(response) => return Ok(response),
            Err(failure) => failure,
        };
        let stale = failure.connection_lost && !watch.opened_connection();
        if !(stale && self.request.is_idempotent() && client.budget.spend()) {
            return Err(self.explain(&failure));
        }
        let fresh = self.client(&key.without_keep_alive()).await?;
        self.attempt(&fresh, fields, &ConnectWatch::default()).await.map_err(|failure| self.explain(&failure))
    }

    async fn client(&self, key: &ClientKey) -> Result<PooledClient, UpstreamError> {
        self.upstream.clients.get(key).await.map_err(|error| self.error(UpstreamErrorKind::Protocol, error))
    }

    fn explain(&self, failure: &Failure) -> UpstreamError {
        if failure.tls {
            let host = self.url.host_str().unwrap_or_default();
            warn!(repository = %self.request.repository.name, host, "{}", failure.text);
        }
        self.error(failure.kind, &failure.text)
    }

    /// One try: the head must begin to come within the read time-out, counted after the time that connecting may take.
    async fn attempt(
        &self,
        client: &PooledClient,
        fields: HeaderMap,
        watch: &ConnectWatch,
    ) -> Result<reqwest::Response, Failure> {
        let mut request = reqwest::Request::new(self.request.method.clone(), self.url.clone());
        *request.headers_mut() = fields;
        *request.body_mut() = self.request.body.clone().map(Into::into);
        let mut response = std::pin::pin!(watch.over(client.client.execute(request)));
        let (connect, read) = (self.settings.connect_timeout, self.request.read_timeout(self.settings));
        let mut outcome = tokio::time::timeout(read, &mut response).await;
        if outcome.is_err() && watch.opened_connection() {
            outcome = tokio::time::timeout(connect, &mut response).await;
        }
        match outcome {
            Ok(result) => result.map_err(|error| head_failure(&error)),
            Err(_) => Err(Failure {
                kind: UpstreamErrorKind::TimedOut,
                text: format!("no answer for {} s (timeouts.read)", read.as_secs_f32()),
                connection_lost: false,
                tls: false,
            }),
        }
    }

    /// The response with a body that knows its own end.
    fn checked(&self, response: reqwest::Response) -> Result<UpstreamResponse, UpstreamError> {
        let (status, version) = (response.status(), response.version());
        let headers = response.headers().clone();
        let (declared, framing) = framing(&self.request.method, status, version, &headers)
            .map_err(|what| self.error(UpstreamErrorKind::Protocol, what))?;
        let origin = BodyOrigin { repository: self.request.repository.name.clone(), url: self.url.clone() };
        let place = origin.clone();
        let chunks = response.bytes_stream().map(move |chunk| {
            chunk.map_err(|error| {
                let failure = body_failure(&error);
                UpstreamError::at(failure.kind, &place.repository, &place.url, failure.text)
            })
        });
        let body = BodyStream::new(chunks, declared, framing, Some(self.request.read_timeout(self.settings)), origin);
        Ok(UpstreamResponse { status, headers, final_url: self.url.clone(), body })
    }
}

/// Names that mean this machine whatever the resolver says (RFC 6761 section 6.3).
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
}

/// How the end of this response's body is known (RFC 9112 section 6.3), and its length if that is declared.
///
/// # Errors
/// Length and chunked coding together, or lengths that contradict each other: the signs of response splitting (hazard S11).
fn framing(
    method: &Method,
    status: StatusCode,
    version: Version,
    headers: &HeaderMap,
) -> Result<(Option<u64>, Framing), &'static str> {
    if *method == Method::HEAD || status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    {
        return Ok((Some(0), Framing::Length));
    }
    let mut length = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let this = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit())).and_then(|text| text.parse().ok());
        let this: u64 = this.ok_or("the answer's Content-Length is not a number")?;
        if length.is_some_and(|other| other != this) {
            return Err("the answer has two different Content-Lengths");
        }
        length = Some(this);
    }
    let coded = headers.contains_key(TRANSFER_ENCODING);
    match length {
        Some(_) if coded => Err("the answer has both Content-Length and Transfer-Encoding"),
        Some(length) => Ok((Some(length), Framing::Length)),
        None if coded || version >= Version::HTTP_2 => Ok((None, Framing::EndMark)),
        None => Ok((None, Framing::ConnectionClose)),
    }
}
