//! HTTP to the store. No transfer has a time in which it must be over; what must not happen is that nothing moves.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Method;
use http_body::{Body as HttpBody, Frame, SizeHint};
use larder_core::{ProxyRules, Span, SpanKind};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpResponseBody, HttpService,
};
use tokio::time::{Instant, Sleep};

use super::patience::Patience;
use super::settings::S3Settings;
use crate::error::{StorageError, StorageErrorKind};

/// For the connection, the handshake of TLS included.
const CONNECT: Duration = Duration::from_secs(3);
/// Until the head of an answer to a request without a body.
const HEAD: Duration = Duration::from_secs(4);
/// Until some more of the body of an answer comes.
const MOVE: Duration = Duration::from_secs(8);
/// Until some more of a body is taken, or the answer to it begins. Meanwhile the store is asked whether it is alive.
const TAKE: Duration = Duration::from_mins(1);
/// Until the head of the answer that an upload in parts is put together. The same is done meanwhile.
const ASSEMBLY: Duration = Duration::from_mins(10);
/// Connections that are kept for the next request.
const IDLE: usize = 64;

/// Makes all clients of a store: they are one.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    client: reqwest::Client,
    patience: Arc<Patience>,
    /// Scheme, host and port of the store: what other hosts answer (of credentials) says nothing of it.
    authority: Arc<str>,
}

impl Transport {
    /// # Errors
    /// The certificates cannot be used.
    pub(super) fn new(
        settings: &S3Settings,
        patience: Arc<Patience>,
    ) -> Result<Self, StorageError> {
        let unusable = |error: reqwest::Error| StorageError {
            kind: StorageErrorKind::Io,
            message: "the certificates for the object store cannot be used".to_owned(),
            source: Some(Box::new(error)),
        };
        let certificates = match &settings.ca {
            Some(pem) => reqwest::Certificate::from_pem_bundle(pem).map_err(unusable)?,
            None => Vec::new(),
        };
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("larder/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .pool_max_idle_per_host(IDLE)
            .http1_only()
            .no_proxy();
        // Where nothing is asked over TLS, no certificates of the system are needed.
        builder = if settings.secure || settings.keys.is_none() {
            builder.tls_certs_merge(certificates)
        } else {
            builder.tls_certs_only(certificates)
        };
        let url = settings.bucket_url()?;
        let authority: Arc<str> = url.split('/').nth(2).unwrap_or_default().into();
        if let Some(proxies) = settings.proxies.clone() {
            let store = reqwest::Url::parse(&url).ok();
            builder = builder.proxy(proxy(proxies, store));
        }
        Ok(Self {
            client: builder.build().map_err(unusable)?,
            patience,
            authority,
        })
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let broken =
            |error: String| HttpError::new(HttpErrorKind::Unknown, io::Error::other(error));
        let url = reqwest::Url::parse(&parts.uri.to_string()).map_err(|e| broken(e.to_string()))?;
        let patience = wait_for_head(&parts.method, url.query().unwrap_or_default(), &body);
        let sent = Arc::new(AtomicU64::new(0));
        let mut request = reqwest::Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        *request.body_mut() = Some(match body.as_bytes() {
            Some(bytes) => bytes.clone().into(),
            None => reqwest::Body::wrap(Counted {
                body,
                sent: Arc::clone(&sent),
            }),
        });
        let answer = Box::pin(self.client.execute(request));
        let answer = while_it_moves(answer, patience, &sent).await?;
        let answer: http::Response<reqwest::Body> = answer.into();
        let (parts, body) = answer.into_parts();
        Ok(HttpResponse::from_parts(
            parts,
            HttpResponseBody::new(Watched::new(body)),
        ))
    }
}

/// What asks the store goes through the proxy of upstreams, if there is one. Who gives the platform's credentials over plain HTTP is on this
/// very machine or beside it, and what it says is for nobody else.
fn proxy(rules: ProxyRules, store: Option<reqwest::Url>) -> reqwest::Proxy {
    reqwest::Proxy::custom(move |url| {
        let is_of_store = store
            .as_ref()
            .is_some_and(|store| store.authority() == url.authority());
        let may_be = is_of_store || url.scheme() == "https";
        may_be.then(|| rules.for_url(url).cloned()).flatten()
    })
}

/// How long a request may stand still before its answer begins.
fn wait_for_head(method: &Method, query: &str, body: &HttpRequestBody) -> Duration {
    if *method == Method::POST && query.contains("uploadId=") {
        ASSEMBLY
    } else if body.content_length() > 0 {
        TAKE
    } else {
        HEAD
    }
}

/// Waits for the head of an answer for as long as bytes of the request go out.
async fn while_it_moves<F>(
    mut answer: Pin<Box<F>>,
    patience: Duration,
    sent: &AtomicU64,
) -> Result<reqwest::Response, HttpError>
where
    F: Future<Output = Result<reqwest::Response, reqwest::Error>>,
{
    let mut before = 0;
    loop {
        if let Ok(answer) = tokio::time::timeout(patience, &mut answer).await {
            return answer.map_err(failed);
        }
        let now = sent.load(Ordering::Relaxed);
        if now == before {
            return Err(stands_still());
        }
        before = now;
    }
}

fn stands_still() -> HttpError {
    let error = io::Error::new(io::ErrorKind::TimedOut, "nothing moves any more");
    HttpError::new(HttpErrorKind::Timeout, error)
}

/// What kind of failure it is, for the decision whether it is tried again. All that larder asks of a store may be asked twice.
fn failed(error: reqwest::Error) -> HttpError {
    let kind = if error.is_connect() {
        HttpErrorKind::Connect
    } else if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_builder() {
        HttpErrorKind::Unknown
    } else {
        HttpErrorKind::Interrupted
    };
    HttpError::new(kind, error.without_url())
}

impl HttpService for Transport {
    fn call<'s, 'f>(
        &'s self,
        request: HttpRequest,
    ) -> BoxFuture<'f, Result<HttpResponse, HttpError>>
    where
        's: 'f,
        Self: 'f,
    {
        Box::pin(async move {
            let is_of_store = request
                .uri()
                .authority()
                .is_some_and(|authority| authority.as_str() == &*self.authority);
            let answer = match Span::child("S3", SpanKind::Client) {
                None => self.send(request).await,
                Some(mut span) => {
                    span.say("http.request.method", request.method().as_str());
                    span.say("server.address", request.uri().host().unwrap_or_default());
                    span.say("url.path", request.uri().path());
                    span.around(Box::pin(self.send(request)), tell).await
                }
            };
            if is_of_store {
                match &answer {
                    Ok(answer) if answer.status().is_server_error() => {
                        self.patience.failed(&answer.status());
                    }
                    Ok(_) => self.patience.answered(),
                    Err(error) => self.patience.failed(&innermost(error)),
                }
            }
            answer
        })
    }
}

fn tell(span: &mut Span, answer: &Result<HttpResponse, HttpError>) {
    match answer {
        Ok(answer) => span.count("http.response.status_code", answer.status().as_u16().into()),
        Err(error) => span.fail(innermost(error)),
    }
}

/// The sentence that says most.
fn innermost(error: &HttpError) -> String {
    let mut cause: &dyn StdError = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

impl HttpConnector for Transport {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

/// A body that tells how much of it has gone out.
struct Counted {
    body: HttpRequestBody,
    sent: Arc<AtomicU64>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(bytes) = frame.data_ref()
        {
            self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer, which fails when nothing of it comes for too long while somebody waits.
struct Watched {
    body: reqwest::Body,
    limit: Pin<Box<Sleep>>,
    is_waiting: bool,
}

impl Watched {
    fn new(body: reqwest::Body) -> Self {
        Self {
            body,
            limit: Box::pin(tokio::time::sleep(MOVE)),
            is_waiting: false,
        }
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.is_waiting = false;
            return Poll::Ready(frame.map(|frame| frame.map_err(failed)));
        }
        // A reader that takes its time is none of the store's faults.
        if !self.is_waiting {
            self.is_waiting = true;
            self.limit.as_mut().reset(Instant::now() + MOVE);
        }
        self.limit
            .as_mut()
            .poll(cx)
            .map(|()| Some(Err(stands_still())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
