//! A plain HTTP client, and one that writes exact bytes.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::header::HeaderMap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Nothing in these tests takes longer than this unless it hangs.
const LIMIT: Duration = Duration::from_mins(1);

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The first value of a header field, empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("a header in ASCII"))
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }

    /// `X-Artifact-Source`.
    pub(crate) fn source(&self) -> &str {
        self.header("x-artifact-source")
    }

    /// `Cache-Status`.
    pub(crate) fn cache_status(&self) -> &str {
        self.header("cache-status")
    }
}

/// A client without proxies, redirects and decoding. One for each call: a test's runtime ends with its connections.
pub(crate) fn client() -> reqwest::Client {
    builder().build().expect("a client")
}

/// What [`client`] is made of.
pub(crate) fn builder() -> reqwest::ClientBuilder {
    // No roots: loading the system's takes longer than most tests, and what speaks TLS here brings its own.
    let none = std::iter::empty::<reqwest::Certificate>();
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(LIMIT)
        .tls_certs_only(none)
}

/// Sends a request and reads the whole answer.
pub(crate) async fn try_send(
    client: &reqwest::Client,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
) -> reqwest::Result<Answer> {
    let mut request = client.request(method.parse().expect("a method"), url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Answer {
        status,
        headers,
        body: response.bytes().await?.to_vec(),
    })
}

/// Sends a request that must be answered.
pub(crate) async fn send(method: &str, url: &str, headers: &[(&str, &str)]) -> Answer {
    try_send(&client(), method, url, headers)
        .await
        .unwrap_or_else(|error| panic!("{method} {url}: {error:?}"))
}

/// GET.
pub(crate) async fn get(url: &str) -> Answer {
    send("GET", url, &[]).await
}

/// GET with a short limit; `None` if nothing answers. Trusts any certificate: it only asks whether somebody is there.
pub(crate) async fn get_timeout(url: &str) -> Option<Answer> {
    let client = builder()
        .timeout(Duration::from_secs(1))
        .tls_danger_accept_invalid_certs(true)
        .build()
        .ok()?;
    try_send(&client, "GET", url, &[]).await.ok()
}

/// Writes these bytes on a new connection and reads until the other side closes it.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let exchange = async {
        let mut socket = TcpStream::connect(address).await?;
        // The other side may close before it has read all: what it said is still to be read.
        let _ = socket.write_all(bytes).await;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match socket.read(&mut buffer).await {
                Ok(0) => break,
                Ok(count) => answer.extend_from_slice(&buffer[..count]),
                Err(error)
                    if !answer.is_empty()
                        && error.kind() == std::io::ErrorKind::ConnectionReset =>
                {
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok::<_, std::io::Error>(answer)
    };
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
    let answer = tokio::time::timeout(Duration::from_secs(20), exchange).await;
    let answer = answer.unwrap_or_else(|_| panic!("no end of the answer to {shown:?}"));
    String::from_utf8_lossy(&answer.unwrap_or_else(|error| panic!("{error} after {shown:?}")))
        .into_owned()
}

/// The status of a raw answer; 0 if there is none.
pub(crate) fn raw_status(answer: &str) -> u16 {
    answer
        .strip_prefix("HTTP/1.1 ")
        .or_else(|| answer.strip_prefix("HTTP/1.0 "))
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .unwrap_or(0)
}
