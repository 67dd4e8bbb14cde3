//! The way to other replicas of larder: plain requests to addresses that they have told, past proxies and the rules for upstreams.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use futures_util::TryStreamExt as _;
use reqwest::{Client, redirect};

/// How long connecting may take: replicas are near each other.
const CONNECT: Duration = Duration::from_secs(1);
/// How long a replica may say nothing at all; who follows it gives up sooner.
const READ: Duration = Duration::from_secs(10);
const POOL_IDLE: Duration = Duration::from_secs(50);

/// Bytes of an answer as they come.
pub type PeerChunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Sends requests to other replicas.
#[derive(Debug, Clone)]
pub struct PeerClient(Client);

impl PeerClient {
    /// One that calls itself `user_agent`.
    ///
    /// # Errors
    /// The TLS library cannot be used.
    pub fn new(user_agent: &str) -> Result<Self, String> {
        let client = Client::builder()
            .user_agent(user_agent)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT)
            .read_timeout(READ)
            .pool_idle_timeout(POOL_IDLE)
            .build();
        client.map(Self).map_err(|error| error.to_string())
    }

    /// GETs `url` with one further field, and gives the body of a 200.
    ///
    /// # Errors
    /// No answer came, or it has another status: in words for the log.
    pub async fn get(&self, url: &str, field: (&str, &str)) -> Result<PeerChunks, String> {
        let sent = self.0.get(url).header(field.0, field.1).send().await;
        // The URL is long, and the log knows the replica.
        let response = sent.map_err(|error| error.without_url().to_string())?;
        if response.status() != 200 {
            return Err(format!("it answered {}", response.status()));
        }
        let chunks = response.bytes_stream();
        Ok(Box::pin(chunks.map_err(io::Error::other)))
    }
}
