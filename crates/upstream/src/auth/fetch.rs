//! Asking a token server. Knows the request and its limits; the answer's meaning is `token.rs`.

use futures_util::StreamExt as _;
use http::Method;
use http::header::{DATE, RETRY_AFTER};
use larder_core::SafeUrl;
use tracing::debug;

use super::Exchange;
use super::realm::Judged;
use super::token::Token;
use super::tokens::{Grant, TokenKey};
use crate::error::{UpstreamError, UpstreamErrorKind};
use crate::hop::{Bearing, Hop};
use crate::redirect::{is_redirect, next_hop};
use crate::{UpstreamRequest, UpstreamResponse};

/// The longest answer that is read. Tokens have some kilobytes.
const MAX_ANSWER: usize = 256 * 1024;

/// A realm that may be asked for one token.
pub(super) struct TokenServer<'a> {
    pub(super) exchange: &'a Exchange<'a>,
    pub(super) key: &'a TokenKey,
    pub(super) judged: Judged,
}

impl TokenServer<'_> {
    /// Asks for the token. All of it takes no longer than a connection and an answer may.
    ///
    /// # Errors
    /// The server cannot be asked, or what it says is no token.
    pub(super) async fn fetch(&self) -> Result<Grant, UpstreamError> {
        let settings = self.exchange.hop.settings;
        let limit = settings.connect_timeout + settings.read_timeout;
        debug!(repository = %self.key.repository, realm = %SafeUrl(self.key.realm.clone()), "a token is fetched");
        let outcome = tokio::time::timeout(limit, self.ask()).await;
        outcome.unwrap_or_else(|_| {
            let what = format!(
                "no token within {} s (timeouts.connect and timeouts.read)",
                limit.as_secs_f32()
            );
            Err(UpstreamError::at(
                UpstreamErrorKind::TimedOut,
                &self.key.repository,
                &self.key.realm,
                what,
            ))
        })
    }

    async fn ask(&self) -> Result<Grant, UpstreamError> {
        let response = self.send().await.map_err(|error| UpstreamError {
            message: format!("no token from {}", error.message),
            ..error
        })?;
        let status = response.status;
        if status.is_success() {
            return self.read(response).await.map(Grant::Token);
        }
        match status.as_u16() {
            408 | 429 | 500..=599 => Ok(Grant::Busy(
                status,
                response.headers.get(RETRY_AFTER).cloned(),
            )),
            400..=499 => Ok(Grant::Refused(status)),
            other => Err(self.error(format_args!("the token server answers {other}"))),
        }
    }

    /// The question, with one `scope` for each entry. Redirects are followed as any other; the account goes to the realm's own origin
    /// only.
    async fn send(&self) -> Result<UpstreamResponse, UpstreamError> {
        let hop = &self.exchange.hop;
        let mut url = self.key.realm.clone();
        if self.key.service.is_some() || !self.key.scopes.is_empty() {
            let mut query = url.query_pairs_mut();
            query.extend_pairs(self.key.service.iter().map(|service| ("service", service)));
            query.extend_pairs(self.key.scopes.iter().map(|scope| ("scope", scope)));
        }
        let mut request =
            UpstreamRequest::new(hop.request.repository.clone(), Method::GET, url.clone());
        request.accept = Some("application/json");
        let mut followed = 0;
        loop {
            let at_realm = url.origin() == self.key.realm.origin();
            let bearing = Bearing::Token {
                authorization: self.key.account.clone().filter(|_| at_realm),
                own_headers: self.judged.trusted && at_realm,
                configured: self.judged.configured && at_realm,
            };
            let response = Hop {
                request: &request,
                url: &url,
                first: followed == 0,
                ..*hop
            }
            .send(&bearing)
            .await?;
            if !is_redirect(response.status) {
                return Ok(response);
            }
            let next = next_hop(&request.method, &url, &response.headers, followed);
            let refuse = |refused| {
                UpstreamError::at(
                    UpstreamErrorKind::RefusedRedirect,
                    &self.key.repository,
                    &url,
                    refused,
                )
            };
            url = next.map_err(refuse)?;
            followed += 1;
        }
    }

    async fn read(&self, response: UpstreamResponse) -> Result<Token, UpstreamError> {
        let date = response.header(DATE).map(str::to_owned);
        let (mut body, mut bytes) = (response.body, Vec::new());
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| UpstreamError {
                message: format!("no token from {}", error.message),
                ..error
            })?;
            if bytes.len() + chunk.len() > MAX_ANSWER {
                return Err(self.error(format_args!(
                    "the token server's answer is longer than {MAX_ANSWER} bytes"
                )));
            }
            bytes.extend_from_slice(&chunk);
        }
        let authority = &self.exchange.hop.upstream.authority;
        let token = Token::read(
            &bytes,
            date.as_deref(),
            authority.clock.now(),
            authority.next_number(),
        );
        token.map_err(|what| self.error(what))
    }

    fn error(&self, what: impl std::fmt::Display) -> UpstreamError {
        UpstreamError::at(
            UpstreamErrorKind::Unauthorized,
            &self.key.repository,
            &self.key.realm,
            what,
        )
    }
}
