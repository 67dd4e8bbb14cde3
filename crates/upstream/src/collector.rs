//! The way to a collector of traces: plain POSTs to the address that the operator names.

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, redirect};
use url::Url;

use crate::ask::cause;

/// How long a collector may take for all of it.
const WAIT: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(2);

/// Sends JSON to one address.
#[derive(Debug, Clone)]
pub struct Collector {
    client: Client,
    url: Url,
}

impl Collector {
    /// One at `url`, asked by a client that calls itself `user_agent`.
    ///
    /// # Errors
    /// The TLS library cannot be used.
    pub fn new(url: Url, user_agent: &str) -> Result<Self, String> {
        let client = Client::builder()
            .user_agent(user_agent)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT)
            .timeout(WAIT)
            .build();
        let client = client.map_err(|error| error.to_string())?;
        Ok(Self { client, url })
    }

    /// Sends a document.
    ///
    /// # Errors
    /// It was not taken: in words for the log.
    pub async fn post(&self, json: Vec<u8>) -> Result<(), String> {
        let request = self.client.post(self.url.clone());
        let sent = request.header(CONTENT_TYPE, "application/json").body(json);
        let response = sent.send().await.map_err(|error| cause(&error))?;
        if !response.status().is_success() {
            return Err(format!("it answered {}", response.status()));
        }
        Ok(())
    }
}
