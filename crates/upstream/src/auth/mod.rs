//! Answering a registry's challenges: the request goes out bare or with what got in the last time; a 401 says what is wanted; that is
//! fetched, and the request goes out again. Everything above this crate sees the last answer only.
//!
//! | file | knows |
//! |---|---|
//! | `challenge.rs` | the grammar of `WWW-Authenticate` |
//! | `realm.rs` | which realms may be asked, and which may see the password |
//! | `place.rs` | where a URL lies within a registry, and of which image it is |
//! | `pings.rs` | what registries said at the root of their API |
//! | `token.rs` | a token server's answer, and how long a token is good |
//! | `tokens.rs` | tokens in memory; one fetch for all who need the same |
//! | `spaces.rs` | what was wanted where |
//! | `fetch.rs` | asking a token server |

mod challenge;
mod fetch;
mod pings;
mod place;
mod realm;
mod spaces;
mod token;
mod tokens;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::stream;
use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use larder_core::{Clock, SafeUrl};
use tracing::debug;
use url::Url;

use self::challenge::{Bearer, Challenge, challenges};
use self::fetch::TokenServer;
use self::pings::{PingKey, Pings};
use self::place::Place;
use self::realm::{judge, realm_url};
use self::spaces::{Remembered, Space, Spaces};
use self::token::Token;
use self::tokens::{Grant, TokenKey, Tokens};
use crate::body::{BodyOrigin, BodyStream, Framing};
use crate::error::{UpstreamError, UpstreamErrorKind};
use crate::headers::basic;
use crate::hop::{Bearing, Hop};
use crate::{UpstreamRequest, UpstreamResponse};

/// A request goes out at most this often: bare, with a token from memory, with a fresh one. (And the root of the API is asked once in a
/// while, on behalf of all requests.)
const MAX_ROUNDS: usize = 3;

/// What is remembered of registries.
#[derive(Debug)]
pub(crate) struct Authority {
    clock: Arc<dyn Clock>,
    tokens: Tokens,
    spaces: Spaces,
    pings: Pings,
    numbers: AtomicU64,
}

impl Authority {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            tokens: Tokens::default(),
            spaces: Spaces::default(),
            pings: Pings::default(),
            numbers: AtomicU64::new(1),
        }
    }

    /// Forgets all tokens, since accounts may have changed.
    pub(crate) fn forget(&self) {
        self.tokens.clear();
        self.spaces.clear();
        self.pings.clear();
    }

    fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
}

/// What a request went out with.
enum Ticket {
    Basic(HeaderValue),
    Bearer {
        key: TokenKey,
        wanted: Arc<Bearer>,
        token: Token,
        fresh: bool,
    },
}

impl Ticket {
    fn authorization(&self) -> HeaderValue {
        match self {
            Self::Basic(value) => value.clone(),
            Self::Bearer { token, .. } => token.authorization.clone(),
        }
    }

    /// The token's number, if this is a token for `wanted`.
    fn number_for(&self, wanted: &TokenKey) -> Option<u64> {
        match self {
            Self::Bearer { key, token, .. } if key == wanted => Some(token.number),
            _ => None,
        }
    }

    fn remembered(&self) -> Remembered {
        match self {
            Self::Basic(_) => Remembered::Basic,
            Self::Bearer { wanted, .. } => Remembered::Bearer(Arc::clone(wanted)),
        }
    }
}

/// What comes of looking for a ticket.
enum Found {
    Ticket(Ticket),
    /// There is none to be had: what the registry says without is the answer.
    Nothing,
    /// The token server wants to be left alone: that is the answer.
    Instead(UpstreamResponse),
}

/// One hop to a server that may ask who is there.
pub(crate) struct Exchange<'a> {
    pub(crate) hop: Hop<'a>,
    pub(crate) token_hosts: &'a [String],
}

impl Exchange<'_> {
    fn authority(&self) -> &Authority {
        &self.hop.upstream.authority
    }

    fn challenger(&self) -> &Url {
        self.hop.url
    }

    fn error(&self, what: impl std::fmt::Display) -> UpstreamError {
        self.hop.error(UpstreamErrorKind::Unauthorized, what)
    }

    /// Sends the request, as often as it takes to answer the challenges. A 401 is then the registry's last word; so is its 403 to a
    /// token that anybody gets, which says the same: not without a login.
    pub(crate) async fn send(&self) -> Result<UpstreamResponse, UpstreamError> {
        if self.has_own_authorization() {
            return self.hop.send(&Bearing::Own(None)).await;
        }
        let space = Space::of(
            &self.hop.request.repository.name,
            self.challenger(),
            self.place(),
        );
        let mut ticket = match self.known_ticket(&space).await? {
            Found::Ticket(ticket) => Some(ticket),
            Found::Nothing => None,
            Found::Instead(response) => return Ok(response),
        };
        let mut round = 1;
        loop {
            let mut response = self
                .hop
                .send(&Bearing::Own(ticket.as_ref().map(Ticket::authorization)))
                .await?;
            let next = if round < MAX_ROUNDS {
                self.another(response.status, &response.headers, ticket.as_ref())
                    .await?
            } else {
                Found::Nothing
            };
            match next {
                Found::Ticket(next) => ticket = Some(next),
                Found::Instead(response) => return Ok(response),
                Found::Nothing => {
                    match ticket {
                        _ if response.status == StatusCode::UNAUTHORIZED => {
                            self.authority().spaces.forget(&space);
                        }
                        Some(ticket) => {
                            // (A HEAD that is refused may be one that is not supported.)
                            if response.status == StatusCode::FORBIDDEN && self.is_anybodys(&ticket)
                            {
                                response.status = StatusCode::UNAUTHORIZED;
                            }
                            self.authority().spaces.remember(space, ticket.remembered());
                        }
                        None => {}
                    }
                    return Ok(response);
                }
            }
            round += 1;
        }
    }

    fn place(&self) -> Option<Place<'_>> {
        Place::of(self.challenger(), self.hop.settings)
    }

    /// Whether a GET went out with a token that says of nobody who they are.
    fn is_anybodys(&self, ticket: &Ticket) -> bool {
        let anonymous = matches!(ticket, Ticket::Bearer { key, .. } if key.account.is_none());
        anonymous
            && self.hop.settings.credentials.is_none()
            && self.hop.request.method != Method::HEAD
    }

    /// What to try next after this answer, if anything: what its challenges want; a fresh token in the place of one from memory, which
    /// may be refused in other ways than with a challenge once it is no good any more; what the root of the API wants.
    async fn another(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        tried: Option<&Ticket>,
    ) -> Result<Found, UpstreamError> {
        let offered = if status == StatusCode::UNAUTHORIZED {
            challenges(headers)
        } else {
            Vec::new()
        };
        match (status.as_u16(), tried) {
            (401, tried) if !offered.is_empty() => self.answer(&offered, tried).await,
            (
                400 | 401 | 403,
                Some(Ticket::Bearer {
                    wanted,
                    fresh: false,
                    ..
                }),
            ) => self.bearer(Arc::clone(wanted), tried).await,
            (401, None) => self.ask_root().await,
            // Whoever shows no account is told that there is no such image.
            (403 | 404, None) if self.account().is_some() => self.ask_root().await,
            _ => Ok(Found::Nothing),
        }
    }

    /// What the root of the API wants, as clients ask it that begin with `GET /v2/`: only configured registries are asked, and seldom.
    async fn ask_root(&self) -> Result<Found, UpstreamError> {
        let Some(place) = self
            .place()
            .filter(|_| self.hop.settings.is_configured_origin(self.challenger()))
        else {
            return Ok(Found::Nothing);
        };
        let key: PingKey = (
            self.hop.request.repository.name.clone(),
            self.challenger().origin(),
            place.root.to_owned(),
        );
        let authority = self.authority();
        let offered = authority
            .pings
            .wanted(key.clone(), authority.clock.now(), self.ping(place.root))
            .await;
        // The scope that stands there is an example at best: every client puts its image's in its place.
        let mut offered = offered.to_vec();
        for challenge in &mut offered {
            if let Challenge::Bearer(bearer) = challenge {
                bearer.scopes.clear();
            }
        }
        let found = self.answer(&offered, None).await;
        if found.is_err() {
            authority.pings.forget(&key);
        }
        found
    }

    /// `None`: no answer that would say anything.
    async fn ping(&self, root: &str) -> Option<Vec<Challenge>> {
        let mut url = self.challenger().clone();
        url.set_path(root);
        url.set_query(None);
        let asked = self.hop.request;
        let request = UpstreamRequest {
            patience: asked.patience,
            has_stale_fallback: asked.has_stale_fallback,
            ..UpstreamRequest::new(Arc::clone(&asked.repository), Method::GET, url.clone())
        };
        let response = Hop {
            request: &request,
            url: &url,
            ..self.hop
        }
        .send(&Bearing::Own(None))
        .await
        .ok()?;
        match response.status.as_u16() {
            401 => Some(challenges(&response.headers)),
            408 | 429 | 500..=599 => None,
            _ => Some(Vec::new()),
        }
    }

    /// The operator's own `Authorization`, in `headers`, takes the place of everything here.
    fn has_own_authorization(&self) -> bool {
        let own = self
            .hop
            .settings
            .headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case(AUTHORIZATION.as_str()));
        own && self.hop.settings.is_configured_origin(self.challenger())
    }

    /// The account, where its password may go as it is: to the configured origins.
    fn account(&self) -> Option<HeaderValue> {
        let credentials = self.hop.settings.credentials.as_ref();
        credentials
            .filter(|_| self.hop.settings.is_configured_origin(self.challenger()))
            .map(basic)
    }

    /// What got in the last time.
    async fn known_ticket(&self, space: &Space) -> Result<Found, UpstreamError> {
        let found = match self.authority().spaces.recall(space) {
            None => return Ok(Found::Nothing),
            Some(Remembered::Basic) => Ok(self.account().map_or(Found::Nothing, |account| {
                Found::Ticket(Ticket::Basic(account))
            })),
            Some(Remembered::Bearer(wanted)) => self.bearer(wanted, None).await,
        };
        if !matches!(found, Ok(Found::Ticket(_))) {
            // The registry may want something else by now: the next request asks it.
            self.authority().spaces.forget(space);
        }
        found
    }

    /// What these challenges want, after `tried` did not get in.
    async fn answer(
        &self,
        offered: &[Challenge],
        tried: Option<&Ticket>,
    ) -> Result<Found, UpstreamError> {
        let bearer = offered.iter().find_map(|challenge| match challenge {
            Challenge::Bearer(bearer) => Some(bearer),
            Challenge::Basic => None,
        });
        if let Some(bearer) = bearer {
            return self.bearer(Arc::new(bearer.clone()), tried).await;
        }
        let basic = offered.contains(&Challenge::Basic) && !matches!(tried, Some(Ticket::Basic(_)));
        Ok(self
            .account()
            .filter(|_| basic)
            .map_or(Found::Nothing, |account| {
                Found::Ticket(Ticket::Basic(account))
            }))
    }

    /// What a token is to allow. A challenge need not say it: then it is what every client asks for, to pull this image.
    fn scopes(&self, wanted: &Bearer) -> Vec<String> {
        if !wanted.scopes.is_empty() {
            return wanted.scopes.clone();
        }
        self.place()
            .and_then(|place| place.scope())
            .into_iter()
            .collect()
    }

    /// A token for what is wanted, but not the one that was `tried`.
    async fn bearer(
        &self,
        wanted: Arc<Bearer>,
        tried: Option<&Ticket>,
    ) -> Result<Found, UpstreamError> {
        let refused = |error: realm::RefusedRealm| {
            debug!(repository = %self.hop.request.repository.name, realm = %shown(&wanted.realm), "{error}");
            self.error(error)
        };
        let realm = realm_url(&wanted.realm).map_err(refused)?;
        let settings = self.hop.settings;
        let judged = judge(self.challenger(), &realm, settings, self.token_hosts);
        let judged = judged.map_err(refused)?;
        let key = TokenKey {
            repository: self.hop.request.repository.name.clone(),
            audience: self.challenger().origin(),
            realm,
            service: wanted.service.clone(),
            scopes: self.scopes(&wanted),
            account: if judged.trusted { self.account() } else { None },
        };
        // A token that was made for this very request is refused: the next would be, too.
        if let Some(Ticket::Bearer {
            key: of,
            fresh: true,
            ..
        }) = tried
            && *of == key
        {
            return Ok(Found::Nothing);
        }
        let rejected = tried.and_then(|ticket| ticket.number_for(&key));
        let server = TokenServer {
            exchange: self,
            key: &key,
            judged,
        };
        let obtained = self
            .authority()
            .tokens
            .obtain(&key, rejected, self.authority().clock.now(), server.fetch())
            .await?;
        match obtained.grant {
            Grant::Token(token) => Ok(Found::Ticket(Ticket::Bearer {
                key,
                wanted,
                token,
                fresh: obtained.fresh,
            })),
            Grant::Refused(StatusCode::UNAUTHORIZED) if key.account.is_some() => {
                let server = SafeUrl(key.realm);
                Err(self.error(format_args!("the token server {server} does not accept this repository's username and password")))
            }
            Grant::Refused(status) => {
                debug!(realm = %SafeUrl(key.realm), status = status.as_u16(), "no token");
                Ok(Found::Nothing)
            }
            Grant::Busy(status, retry_after) => {
                Ok(Found::Instead(self.in_place(status, retry_after)))
            }
        }
    }

    /// The token server's answer in place of the registry's.
    fn in_place(&self, status: StatusCode, retry_after: Option<HeaderValue>) -> UpstreamResponse {
        let origin = BodyOrigin {
            repository: self.hop.request.repository.name.clone(),
            url: self.challenger().clone(),
        };
        let body = BodyStream::new(stream::empty(), Some(0), Framing::Length, None, origin);
        let headers = retry_after
            .into_iter()
            .map(|value| (RETRY_AFTER, value))
            .collect();
        UpstreamResponse {
            status,
            headers,
            final_url: self.challenger().clone(),
            folder: None,
            body,
        }
    }
}

/// A realm as far as it can be shown.
fn shown(realm: &str) -> String {
    Url::parse(realm).map_or_else(|_| "(not a URL)".to_owned(), |url| SafeUrl(url).to_string())
}
