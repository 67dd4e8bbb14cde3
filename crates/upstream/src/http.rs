//! [`Upstream`] over the network: what is shared by all requests, and the redirect loop of each.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use larder_budget::Budgets;
use larder_core::{
    Clock, Pseudonym, RepositoryName, SafeUrl, SystemClock, UpstreamAuth, UpstreamSettings, shown,
};
use tracing::debug;
use url::{Origin, Url};

use crate::auth::{Authority, Exchange};
use crate::breaker::{BreakerState, Breakers};
use crate::client::Clients;
use crate::error::{UpstreamError, UpstreamErrorKind};
use crate::headers::basic;
use crate::hop::{Bearing, Hop};
use crate::limits::{ClusterLimits, Limits};
use crate::redirect::{has_user_info, is_redirect, next_hop};
use crate::resolver::{NameLookup, SystemLookup};
use crate::response::FolderRedirect;
use crate::{Upstream, UpstreamRequest, UpstreamResponse};

/// What an [`HttpUpstream`] is made with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The `User-Agent` field, such as `larder/0.1.0`.
    pub user_agent: String,
    /// Times the pauses of circuit breakers.
    pub clock: Arc<dyn Clock>,
    /// Resolves host names; tests put their own here.
    pub lookup: Arc<dyn NameLookup>,
    /// What larder calls itself in `Via`. The server must know it too, so that it knows its own requests.
    pub pseudonym: Pseudonym,
    /// Where name look-ups are leased.
    pub budgets: Arc<Budgets>,
}

impl Options {
    /// The machine's clock and resolver, and a new pseudonym.
    pub fn new(user_agent: impl Into<String>) -> Self {
        Self {
            user_agent: user_agent.into(),
            clock: Arc::new(SystemClock),
            lookup: Arc::new(SystemLookup),
            pseudonym: Pseudonym::random(),
            budgets: Arc::default(),
        }
    }
}

/// What a circuit breaker stands for: an origin, by one way of reaching it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Target {
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
    pub(crate) fn new(settings: &UpstreamSettings, url: &Url) -> Self {
        Self {
            origin: url.origin(),
            proxy: settings.proxy_for(url).cloned().map(SafeText),
            ca_file: settings.ca_file.clone(),
        }
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
    pub(crate) clients: Clients,
    pub(crate) breakers: Arc<Breakers<Target>>,
    pub(crate) authority: Authority,
    pub(crate) limits: Limits,
    pub(crate) pseudonym: Pseudonym,
    targets: Mutex<HashMap<RepositoryName, Vec<Target>>>,
}

impl HttpUpstream {
    /// Makes no connection and reads no file yet.
    pub fn new(options: Options) -> Self {
        Self {
            clients: Clients::new(options.user_agent, options.lookup, options.budgets),
            authority: Authority::new(Arc::clone(&options.clock)),
            limits: Limits::default(),
            pseudonym: options.pseudonym,
            breakers: Arc::new(Breakers::new(options.clock)),
            targets: Mutex::default(),
        }
    }

    /// To be called after a reload of the configuration: `ca_file`s are read again before their next use, and tokens fetched anew.
    /// Transfers go on.
    pub fn reload(&self) {
        self.authority.forget();
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

/// One hop, with whatever this repository has to show for itself there.
async fn send_authorized(hop: Hop<'_>) -> Result<UpstreamResponse, UpstreamError> {
    match &hop.settings.auth {
        UpstreamAuth::Challenge { token_hosts } => Exchange { hop, token_hosts }.send().await,
        UpstreamAuth::Basic => {
            let settings = hop.settings;
            let credentials = settings
                .credentials
                .as_ref()
                .filter(|_| settings.is_configured_origin(hop.url));
            hop.send(&Bearing::Own(credentials.map(basic))).await
        }
    }
}

#[async_trait]
impl Upstream for HttpUpstream {
    async fn send(&self, request: UpstreamRequest) -> Result<UpstreamResponse, UpstreamError> {
        let repository = Arc::clone(&request.repository);
        let mut url = request.url.clone();
        url.set_fragment(None);
        let fail = |kind, url: &Url, what: &dyn std::fmt::Display| {
            Err(UpstreamError::at(kind, &repository.name, url, what))
        };
        let Some(settings) = repository.upstream() else {
            return fail(
                UpstreamErrorKind::Protocol,
                &url,
                &"this repository has no upstream",
            );
        };
        if settings.offline {
            return fail(
                UpstreamErrorKind::Offline,
                &url,
                &"not asked, because the repository is configured with offline: true",
            );
        }
        if !matches!(url.scheme(), "http" | "https") || has_user_info(&url) {
            return fail(
                UpstreamErrorKind::RefusedAddress,
                &url,
                &"only http and https URLs without user name are contacted",
            );
        }
        self.remember_targets(&repository.name, settings);
        let mut followed = 0;
        let mut folder: Option<FolderRedirect> = None;
        loop {
            let hop = Hop {
                upstream: self,
                request: &request,
                settings,
                url: &url,
                first: followed == 0,
            };
            let response = send_authorized(hop).await?;
            if !is_redirect(response.status) {
                return Ok(UpstreamResponse { folder, ..response });
            }
            // Dropping the redirect's body gives the connection back if nothing of it is left to come, else closes it.
            match next_hop(&request.method, &url, &response.headers, followed) {
                Ok(next) => {
                    if folder.is_none() && !url.path().ends_with('/') && next.path().ends_with('/')
                    {
                        folder = Some(FolderRedirect {
                            status: response.status,
                            to: next.clone(),
                        });
                    }
                    let (from, to) = (SafeUrl(url).to_string(), SafeUrl(next.clone()).to_string());
                    debug!(repository = %repository.name, from = &*shown(&from), to = &*shown(&to), "redirect");
                    url = next;
                }
                Err(refused) => return fail(UpstreamErrorKind::RefusedRedirect, &url, &refused),
            }
            followed += 1;
        }
    }

    fn keep_to(&self, limits: Arc<dyn ClusterLimits>) {
        self.limits.keep_to(limits);
    }

    fn health(&self, repository: &RepositoryName) -> BreakerState {
        let known = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let targets = known.get(repository).into_iter().flatten();
        targets
            .map(|target| self.breakers.state(target))
            .max()
            .unwrap_or_default()
    }
}
