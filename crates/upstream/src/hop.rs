//! One request to one URL: the address rule, the breaker, the client, the wait for the head and the one retry. Knows neither redirects
//! nor what a status means.

use std::time::Duration;

use futures_util::StreamExt as _;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use larder_core::{SafeUrl, Span, SpanContext, SpanKind, UpstreamSettings, shown};
use tokio::time::Instant;
use url::{Host, Url};

use crate::address::Reach;
use crate::body::{BodyOrigin, BodyStream, Framing};
use crate::cause::Cause;
use crate::classify::{Failure, body_failure, head_failure};
use crate::client::{ClientError, ClientKey, PooledClient};
use crate::connect_watch::ConnectWatch;
use crate::error::{UpstreamError, UpstreamErrorKind};
use crate::http::{HttpUpstream, Target};
use crate::{UpstreamRequest, UpstreamResponse, headers};

/// The breaker is there so that nobody waits for an origin that keeps failing. Failures that take less than this are no wait.
const SLOW: Duration = Duration::from_secs(1);
/// W3C Trace Context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// One request to one URL.
#[derive(Clone, Copy)]
pub(crate) struct Hop<'a> {
    pub(crate) upstream: &'a HttpUpstream,
    pub(crate) request: &'a UpstreamRequest,
    pub(crate) settings: &'a UpstreamSettings,
    pub(crate) url: &'a Url,
    /// No redirect has led here.
    pub(crate) first: bool,
}

/// What a hop is for, and what it shows of the repository.
pub(crate) enum Bearing {
    /// The request itself, with this `Authorization`. The repository's `headers` go along to configured origins.
    Own(Option<HeaderValue>),
    /// Fetching a token for it.
    Token {
        authorization: Option<HeaderValue>,
        /// Whether the repository's `headers` go along, if the realm is at a configured origin.
        own_headers: bool,
        /// Whether the realm may be private, by the operator's word.
        configured: bool,
    },
}

impl Bearing {
    pub(crate) fn authorization(&self) -> Option<&HeaderValue> {
        let (Self::Own(authorization) | Self::Token { authorization, .. }) = self;
        authorization.as_ref()
    }

    pub(crate) fn own_headers(&self) -> bool {
        matches!(
            self,
            Self::Own(_)
                | Self::Token {
                    own_headers: true,
                    ..
                }
        )
    }
}

impl Hop<'_> {
    pub(crate) fn error(
        &self,
        kind: UpstreamErrorKind,
        what: impl std::fmt::Display,
    ) -> UpstreamError {
        UpstreamError::at(kind, &self.request.repository.name, self.url, what)
    }

    pub(crate) async fn send(&self, bearing: &Bearing) -> Result<UpstreamResponse, UpstreamError> {
        let reach = self.reach(bearing)?;
        let mut fields = headers::outgoing(self.request, self.settings, self.url, bearing)
            .map_err(|unusable| self.error(UpstreamErrorKind::Protocol, unusable))?;
        headers::sign(&mut fields, self.upstream.pseudonym);
        let deadline =
            self.settings.connect_timeout + self.settings.read_timeout + Duration::from_secs(5);
        let turn = self
            .upstream
            .limits
            .turn(self.request, self.settings, self.url)
            .await
            .map_err(|no_turn| self.error(UpstreamErrorKind::Busy, no_turn))?;
        let target = Target::new(self.settings, self.url);
        let permit = match self.upstream.breakers.admit(&target, deadline) {
            Ok(permit) => permit,
            // Whoever has nothing to fall back on is let through, and whoever need not wait.
            Err(_)
                if !self.request.has_stale_fallback
                    || self.upstream.breakers.fails_at_once(&target) =>
            {
                self.upstream.breakers.insist(&target)
            }
            Err(_) => {
                let what =
                    "not asked, because it failed several times in a row; it is tried again soon";
                return Err(self
                    .error(UpstreamErrorKind::Unreachable, what)
                    .because(None));
            }
        };
        let sent = Instant::now();
        match self
            .traced(ClientKey::new(self.settings, self.url, reach), fields)
            .await
        {
            Ok(response) => {
                permit.succeeded();
                let mut response = self.checked(response)?;
                // Of any other answer nothing is read, or little, and a login or a redirect may follow that needs a turn of its own.
                if response.status.is_success() {
                    response.body.hold(turn);
                }
                Ok(response)
            }
            Err(error) => {
                match error.kind {
                    UpstreamErrorKind::Unreachable if sent.elapsed() < SLOW => {
                        permit.failed_at_once();
                    }
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
    fn reach(&self, bearing: &Bearing) -> Result<Reach, UpstreamError> {
        if matches!(
            bearing,
            Bearing::Token {
                configured: true,
                ..
            }
        ) {
            return Ok(Reach::Configured);
        }
        let reach = Reach::of(self.settings, self.url);
        let local_name = matches!(self.url.host(), Some(Host::Domain(name)) if is_localhost(name))
            && !reach.admits(std::net::Ipv4Addr::LOCALHOST.into());
        if reach.admits_literal(self.url)
            && !(local_name && self.settings.proxy_for(self.url).is_some())
        {
            return Ok(reach);
        }
        let led = if !self.first {
            "a redirect"
        } else if matches!(bearing, Bearing::Token { .. }) {
            "the token realm that the registry names"
        } else if self.request.learned {
            "a link in the upstream's document"
        } else {
            "this URL"
        };
        let what = format!(
            "{led} leads to a private address; list it in allow_private if larder may go there"
        );
        Err(self.error(UpstreamErrorKind::RefusedAddress, what))
    }

    /// Sends as part of a trace, where this is one, and says so to the upstream.
    async fn traced(
        &self,
        key: ClientKey,
        mut fields: HeaderMap,
    ) -> Result<reqwest::Response, UpstreamError> {
        let Some(current) = SpanContext::current() else {
            return self.try_twice(key, fields).await;
        };
        let method = self.request.method.as_str();
        let span = Span::child(method, SpanKind::Client);
        let context = span.as_ref().map_or(current, Span::context);
        if let Ok(value) = HeaderValue::try_from(context.to_string()) {
            fields.insert(TRACEPARENT, value);
        }
        let sent = Box::pin(self.try_twice(key, fields));
        let Some(mut span) = span else {
            return sent.await;
        };
        span.say("http.request.method", method);
        span.say("larder.repository", self.request.repository.name.as_str());
        span.say("server.address", self.url.host_str().unwrap_or_default());
        span.say("url.path", shown(self.url.path()));
        let tell = |span: &mut Span, sent: &Result<reqwest::Response, UpstreamError>| match sent {
            Ok(response) => {
                let status = response.status().as_u16();
                span.count("http.response.status_code", status.into());
            }
            Err(error) => span.fail(error.to_string()),
        };
        span.around(sent, tell).await
    }

    /// Sends, and sends once more if a kept connection turns out to be dead and the request can do no harm twice.
    async fn try_twice(
        &self,
        key: ClientKey,
        fields: HeaderMap,
    ) -> Result<reqwest::Response, UpstreamError> {
        let client = self.client(&key).await?;
        client.budget.earn();
        let watch = ConnectWatch::of(&self.request.repository.name);
        let failure = match self.attempt(&client, fields.clone(), &watch).await {
            Ok(response) => return Ok(response),
            Err(failure) => failure,
        };
        let stale = failure.connection_lost && !watch.opened_connection();
        if !(stale && self.request.is_idempotent() && client.budget.spend()) {
            return Err(self.explain(&failure));
        }
        let fresh = self.client(&key.without_keep_alive()).await?;
        let watch = ConnectWatch::of(&self.request.repository.name);
        self.attempt(&fresh, fields, &watch)
            .await
            .map_err(|failure| self.explain(&failure))
    }

    async fn client(&self, key: &ClientKey) -> Result<PooledClient, UpstreamError> {
        let of_larder = |error: ClientError| {
            let cause = if matches!(error, ClientError::Proxy(_)) {
                Cause::Refused
            } else {
                Cause::Tls
            };
            self.error(UpstreamErrorKind::Protocol, error)
                .because(Some(cause))
        };
        self.upstream.clients.get(key).await.map_err(of_larder)
    }

    fn explain(&self, failure: &Failure) -> UpstreamError {
        let Some(proxy) = self.settings.proxy_for(self.url) else {
            return self
                .error(failure.kind, &failure.text)
                .because(failure.cause)
                .briefly(failure.brief);
        };
        // Which of the two it was cannot always be told; an operator who does not think of the proxy looks in the wrong place.
        let text = format!(
            "{} (through the proxy {})",
            failure.text,
            SafeUrl(proxy.clone())
        );
        let is_told = failure.cause == Some(Cause::Tls) || failure.brief.starts_with("its proxy");
        let is_of_the_way = failure.kind == UpstreamErrorKind::Unreachable && !is_told;
        let brief = if is_of_the_way {
            "no connection through its proxy"
        } else {
            failure.brief
        };
        self.error(failure.kind, text)
            .because(failure.cause)
            .briefly(brief)
    }

    /// One try: the head must begin to come within the read time-out, counted from when there is a connection.
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
        let (connect, read) = (
            self.settings.connect_timeout,
            self.request.read_timeout(self.settings),
        );
        let begun = Instant::now();
        let mut outcome = tokio::time::timeout(read, &mut response).await;
        if outcome.is_err() && watch.opened_connection() {
            let connected = watch.connected_at().unwrap_or(begun + connect);
            outcome = tokio::time::timeout_at(connected + read, &mut response).await;
        }
        let in_time = outcome.map_err(|_| {
            let text = format!("no answer for {} s (timeouts.read)", read.as_secs_f32());
            Failure::new(UpstreamErrorKind::TimedOut, text)
        });
        in_time?.map_err(|error| head_failure(&error))
    }

    /// The response with a body that knows its own end.
    fn checked(&self, response: reqwest::Response) -> Result<UpstreamResponse, UpstreamError> {
        let (status, version) = (response.status(), response.version());
        let mut headers = response.headers().clone();
        let (declared, framing) = framing(&self.request.method, status, version, &headers)
            .map_err(|what| self.error(UpstreamErrorKind::Protocol, what))?;
        headers::drop_of_the_connection(&mut headers);
        let origin = BodyOrigin {
            repository: self.request.repository.name.clone(),
            url: self.url.clone(),
        };
        let place = origin.clone();
        let chunks = response.bytes_stream().map(move |chunk| {
            chunk.map_err(|error| {
                let failure = body_failure(&error);
                UpstreamError::at(failure.kind, &place.repository, &place.url, failure.text)
                    .because(failure.cause)
            })
        });
        let body = BodyStream::new(
            chunks,
            declared,
            framing,
            Some(self.request.read_timeout(self.settings)),
            origin,
        );
        Ok(UpstreamResponse {
            status,
            headers,
            final_url: self.url.clone(),
            folder: None,
            body,
        })
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
/// Length and chunked coding together, or lengths that contradict each other: the signs of response splitting (hazard S11). A transfer
/// coding other than chunked: whether such a body is whole cannot be told (hazard W2), and none was asked for. `identity` is none any more.
fn framing(
    method: &Method,
    status: StatusCode,
    version: Version,
    headers: &HeaderMap,
) -> Result<(Option<u64>, Framing), &'static str> {
    if *method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    {
        return Ok((Some(0), Framing::Length));
    }
    let mut length = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let this = value
            .to_str()
            .ok()
            .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|text| text.parse().ok());
        let this: u64 = this.ok_or("the answer's Content-Length is not a number")?;
        if length.is_some_and(|other| other != this) {
            return Err("the answer has two different Content-Lengths");
        }
        length = Some(this);
    }
    let codings: Vec<_> = headers.get_all(TRANSFER_ENCODING).iter().collect();
    let coded = !codings.is_empty();
    match length {
        Some(_) if coded => Err("the answer has both Content-Length and Transfer-Encoding"),
        Some(length) => Ok((Some(length), Framing::Length)),
        None if coded && !is_chunked(&codings) => {
            Err("the answer has a Transfer-Encoding other than chunked")
        }
        None if coded || version >= Version::HTTP_2 => Ok((None, Framing::EndMark)),
        None => Ok((None, Framing::ConnectionClose)),
    }
}

/// Whether these fields together name the chunked coding and no other.
fn is_chunked(codings: &[&HeaderValue]) -> bool {
    matches!(codings, [one] if one.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"))
}
