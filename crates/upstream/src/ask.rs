//! Plain requests of commands that ask a larder: no cache, no breaker, no rules of addresses, for the operator names the address.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::Method;
use http::header::CONTENT_LENGTH;
use reqwest::{Body, Certificate, Client, redirect};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use url::Url;

/// A larder that says nothing for this long is not there.
const CONNECT: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(60);
/// What is read of a file at a time, in bytes.
const PIECE: usize = 128 << 10;

/// Why there is no answer, in words that end a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoAnswer(String);

/// Told of each piece of a body.
pub type Watcher = Box<dyn FnMut(&[u8]) + Send>;

/// A body that is sent while it is read.
pub struct Sent {
    /// Where it is read from.
    pub from: Box<dyn AsyncRead + Send + Unpin>,
    /// Its length in bytes, if it is known.
    pub length: Option<u64>,
    /// Told of each piece before it is sent.
    pub seen: Watcher,
}

impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sent")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// Sends requests; keeps connections between them.
#[derive(Debug, Clone)]
pub struct Asker(Client);

/// An answer whose body is still to be read. Redirects are answers.
#[derive(Debug)]
pub struct Asked(reqwest::Response);

impl Asker {
    /// One that asks servers with addresses like `url`: without TLS no root certificates are looked for.
    ///
    /// # Errors
    /// TLS is needed, and cannot be set up.
    pub fn new(url: &Url) -> Result<Self, NoAnswer> {
        let mut client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE);
        if url.scheme() == "http" {
            client = client.tls_certs_only(std::iter::empty::<Certificate>());
        }
        let client = client.build().map_err(|_| {
            NoAnswer("TLS cannot be set up; are root certificates installed?".to_owned())
        })?;
        Ok(Self(client))
    }

    /// Sends a request, with a Bearer token if there is one, and gives the head of the answer.
    ///
    /// # Errors
    /// Nobody answered.
    pub async fn send(
        &self,
        method: Method,
        url: Url,
        token: Option<&str>,
        headers: &[(&'static str, String)],
        body: Option<Sent>,
    ) -> Result<Asked, NoAnswer> {
        let mut request = self.0.request(method, url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if let Some(body) = body {
            if let Some(length) = body.length {
                request = request.header(CONTENT_LENGTH, length);
            }
            request = request.body(streamed(body));
        }
        let response = request.send().await;
        response.map(Asked).map_err(|error| NoAnswer(cause(&error)))
    }
}

impl Asked {
    /// The status.
    pub fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    /// The first value of a header field; `None` if it is absent or not visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.headers().get(name)?.to_str().ok()
    }

    /// The next piece of the body; `None` behind the last.
    ///
    /// # Errors
    /// The body broke off, or no byte came for a minute.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, NoAnswer> {
        self.0
            .chunk()
            .await
            .map_err(|error| NoAnswer(cause(&error)))
    }

    /// The whole body.
    ///
    /// # Errors
    /// As of [`chunk`](Self::chunk).
    pub async fn whole(mut self) -> Result<Vec<u8>, NoAnswer> {
        let mut whole = Vec::new();
        while let Some(piece) = self.chunk().await? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }
}

fn streamed(body: Sent) -> Body {
    let pieces = stream::try_unfold(body, |mut body| async move {
        let mut piece = Vec::with_capacity(PIECE);
        (&mut body.from)
            .take(PIECE as u64)
            .read_to_end(&mut piece)
            .await?;
        if piece.is_empty() {
            return Ok(None);
        }
        (body.seen)(&piece);
        Ok::<_, std::io::Error>(Some((Bytes::from(piece), body)))
    });
    Body::wrap_stream(pieces)
}

/// The innermost cause: what wraps it names addresses and layers.
pub(crate) fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it does not answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
