//! Plain requests of commands that ask a larder: no cache, no breaker, no rules of addresses, for the operator names the address.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::Method;
use http::header::CONTENT_LENGTH;
use reqwest::{Body, Certificate, Client, redirect};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::{Instant, timeout, timeout_at};
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
pub struct Asker {
    client: Client,
    /// How long nothing may come, nor be taken of what is sent.
    silence: Duration,
}

/// An answer whose body is still to be read. Redirects are answers.
#[derive(Debug)]
pub struct Asked {
    response: reqwest::Response,
    silence: Duration,
}

/// When something was last taken of what is sent.
type LastSent = Arc<Mutex<Instant>>;

impl Asker {
    /// One that asks servers with addresses like `url`: without TLS no root certificates are looked for.
    ///
    /// # Errors
    /// TLS is needed, and cannot be set up.
    pub fn new(url: &Url) -> Result<Self, NoAnswer> {
        let mut client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT);
        if url.scheme() == "http" {
            client = client.tls_certs_only(std::iter::empty::<Certificate>());
        }
        let client = client.build().map_err(|_| {
            NoAnswer("TLS cannot be set up; are root certificates installed?".to_owned())
        })?;
        Ok(Self {
            client,
            silence: SILENCE,
        })
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
        let mut request = self.client.request(method, url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let last: LastSent = Arc::new(Mutex::new(Instant::now()));
        if let Some(body) = body {
            if let Some(length) = body.length {
                request = request.header(CONTENT_LENGTH, length);
            }
            request = request.body(streamed(body, Arc::clone(&last)));
        }
        let mut response = pin!(request.send());
        // An answer comes when all is sent, and that may take any time as long as something is taken.
        let response = loop {
            let until = *lock(&last) + self.silence;
            match timeout_at(until, &mut response).await {
                Ok(response) => break response.map_err(|error| NoAnswer(cause(&error)))?,
                Err(_) if *lock(&last) + self.silence > until => {}
                Err(_) => return Err(silent()),
            }
        };
        Ok(Asked {
            response,
            silence: self.silence,
        })
    }
}

impl Asked {
    /// The status.
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// The first value of a header field; `None` if it is absent or not visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The next piece of the body; `None` behind the last.
    ///
    /// # Errors
    /// The body broke off, or no byte came for a minute.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, NoAnswer> {
        let chunk = timeout(self.silence, self.response.chunk()).await;
        let chunk = chunk.map_err(|_| silent())?;
        chunk.map_err(|error| NoAnswer(cause(&error)))
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

fn lock(last: &LastSent) -> MutexGuard<'_, Instant> {
    last.lock().unwrap_or_else(PoisonError::into_inner)
}

fn silent() -> NoAnswer {
    NoAnswer("it does not answer in time".to_owned())
}

fn streamed(body: Sent, last: LastSent) -> Body {
    let pieces = stream::try_unfold((body, last), |(mut body, last)| async move {
        *lock(&last) = Instant::now();
        let mut piece = Vec::with_capacity(PIECE);
        (&mut body.from)
            .take(PIECE as u64)
            .read_to_end(&mut piece)
            .await?;
        if piece.is_empty() {
            return Ok(None);
        }
        (body.seen)(&piece);
        Ok::<_, std::io::Error>(Some((Bytes::from(piece), (body, last))))
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

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// More than sockets hold.
    const LENGTH: usize = 32 << 20;

    /// Sends a body to a server that reads so much of it at a time, and then answers or does not.
    async fn sent(step: usize, silence: Duration, answers: bool) -> Result<u16, NoAnswer> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Url = format!("http://{}/", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut read = vec![0; step];
            for _ in 0..LENGTH / step {
                tokio::time::sleep(Duration::from_millis(100)).await;
                socket.read_exact(&mut read).await.unwrap();
            }
            if answers {
                let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
                socket.write_all(answer).await.unwrap();
            }
            // As much as the head was long, and the end.
            let mut rest = Vec::new();
            let _ = socket.read_to_end(&mut rest).await;
        });
        let asker = Asker {
            silence,
            ..Asker::new(&url).unwrap()
        };
        let body = Sent {
            from: Box::new(Cursor::new(vec![7; LENGTH])),
            length: Some(LENGTH as u64),
            seen: Box::new(|_| {}),
        };
        let answer = asker.send(Method::PUT, url, None, &[], Some(body)).await;
        server.abort();
        answer.map(|answer| answer.status())
    }

    /// Sending may take longer than a server may be silent.
    #[tokio::test]
    async fn a_long_body_is_sent_as_long_as_something_is_taken() {
        let began = Instant::now();
        // More than three seconds in all, each step far less.
        let silence = Duration::from_secs(3);
        assert_eq!(sent(1 << 20, silence, true).await, Ok(204));
        assert!(began.elapsed() > silence);
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_is_given_up() {
        let never = sent(LENGTH, Duration::from_millis(200), false).await;
        assert_eq!(never, Err(silent()));
    }
}
