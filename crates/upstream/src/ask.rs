//! One plain GET, for commands that ask a larder: no cache, no breaker, no rules of addresses, for the operator names the address.

use std::time::Duration;

use reqwest::{Client, redirect};
use url::Url;

/// A larder that says nothing for this long is not there.
const CONNECT: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(60);

/// Why there is no answer, in words that end a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoAnswer(String);

/// Sends GET, with a Bearer token if there is one; gives status and body. Redirects are answers.
///
/// # Errors
/// Nobody answered, or not to the end.
pub async fn ask(url: Url, token: Option<&str>) -> Result<(u16, Vec<u8>), NoAnswer> {
    let client = Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE);
    let client = client.build().map_err(|_| {
        NoAnswer("TLS cannot be set up; are root certificates installed?".to_owned())
    })?;
    let request = client.get(url);
    let request = if let Some(token) = token {
        request.bearer_auth(token)
    } else {
        request
    };
    let response = request
        .send()
        .await
        .map_err(|error| NoAnswer(cause(&error)))?;
    let status = response.status().as_u16();
    let body = response
        .bytes()
        .await
        .map_err(|error| NoAnswer(cause(&error)))?;
    Ok((status, body.to_vec()))
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
