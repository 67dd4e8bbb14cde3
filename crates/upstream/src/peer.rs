//! The way to other replicas of larder: plain requests to addresses that they have told, past proxies and the rules for upstreams.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use futures_util::TryStreamExt as _;
use reqwest::{Client, redirect};

use crate::cause::Cause;
use crate::classify::head_failure;

/// How long connecting may take: replicas are near each other.
const CONNECT: Duration = Duration::from_secs(1);
/// How long a replica may say nothing at all; who follows it gives up sooner.
const READ: Duration = Duration::from_secs(10);
const POOL_IDLE: Duration = Duration::from_secs(50);

/// Why another replica's bytes cannot be had, in words for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerError {
    /// It does not answer, or has not got what is asked for (any more).
    Gone(String),
    /// It is there, and this one cannot follow it: its certificate or its `cluster.secret` is not the right one.
    Closed(String),
}

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
    /// No answer came, or it has another status.
    pub async fn get(&self, url: &str, field: (&str, &str)) -> Result<PeerChunks, PeerError> {
        let sent = self.0.get(url).header(field.0, field.1).send().await;
        let response = sent.map_err(|error| {
            let failure = head_failure(&error);
            if failure.cause == Some(Cause::Tls) {
                PeerError::Closed(failure.text)
            } else {
                PeerError::Gone(failure.text)
            }
        })?;
        match response.status().as_u16() {
            200 => {}
            403 => {
                let why = "it does not know this one: `cluster.secret` must be the same on all replicas, and clocks must agree";
                return Err(PeerError::Closed(why.to_owned()));
            }
            other => return Err(PeerError::Gone(format!("it answered {other}"))),
        }
        let chunks = response.bytes_stream();
        Ok(Box::pin(chunks.map_err(io::Error::other)))
    }
}
